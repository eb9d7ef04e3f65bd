//! What is removed: purged at once, by age and bytes as time goes on, and never what a live group has not finished (but for a purge).
//!
//! A purge moves the low mark; the disk is freed afterwards in bounded pieces. Retention moves the mark and frees in one go, message by
//! message.

use super::{Core, Life, Step, store_error, timers::Timer};
use crate::{
    Result, Start, Timestamp, Topic,
    embedded::{
        record::appended,
        state::{log_key, log_offset},
        time::Steady,
    },
};
use bytes::Bytes;
use ropeway_store::{Direction, Limit};
use std::time::Duration;

/// How much is removed of a partition in one step.
const PIECE: Limit = Limit { items: 1024, bytes: 1024 * 1024 };
/// How soon retention looks again.
pub(super) const PACE: Duration = Duration::from_secs(1);

impl Core {
    /// Removes what lies before.
    pub(in crate::embedded) fn purge_topic(
        &mut self,
        step: &mut Step,
        topic: &Topic,
        partition: Option<u32>,
        before: Start,
    ) -> Result<()> {
        self.writable()?;
        let chosen = self.chosen(topic, partition)?;
        super::search::of_one(before, chosen.end - chosen.start)?;
        let life = self.life(topic)?;
        let lows = chosen
            .map(|partition| Ok((partition, self.resolve(life, partition, before)?)))
            .collect::<Result<Vec<_>>>()?;
        for (partition, low) in lows {
            let state = self.topics.get_mut(&life).and_then(|topic| topic.partition_mut(partition));
            let Some(part) = state else { continue };
            part.low = part.low.max(low.min(part.next));
            self.touch(step, life, partition..partition + 1);
        }
        self.timers.set(Timer::Free(life), step.now);
        Ok(())
    }

    /// Frees what was purged.
    pub(super) fn free(&mut self, step: &mut Step, life: Life) -> Result<()> {
        let Some(topic) = self.topics.get(&life) else { return Ok(()) };
        let log = topic.log;
        let behind: Vec<(u32, u64, u64)> = (0..)
            .zip(&topic.partitions)
            .filter(|(_, part)| part.freed < part.low)
            .map(|(partition, part)| (partition, part.freed, part.low))
            .collect();
        // What is purged in the step that writes it is not in the store yet: that is for the next step, so the mark stays.
        let Some((partition, from, to)) = behind.first().copied() else { return Ok(()) };
        let page = self
            .store
            .scan(log, &log_key(partition, from), Some(&log_key(partition, to)), Direction::Forward, PIECE)
            .map_err(store_error)?;
        let mut bytes = 0;
        let mut freed = if page.more { from } else { to };
        for (key, value) in page.items {
            bytes += value.len() as u64;
            freed = freed.max(log_offset(&key).unwrap_or(from) + 1);
            step.batch.delete(log, key);
        }
        if let Some(part) = self.topics.get_mut(&life).and_then(|topic| topic.partition_mut(partition)) {
            part.freed = freed.min(part.low);
            part.bytes = part.bytes.saturating_sub(bytes);
        }
        self.touch(step, life, partition..partition + 1);
        if behind.len() > 1 || freed < to {
            self.timers.set(Timer::Free(life), step.now);
        }
        Ok(())
    }

    /// Removes what is too old or too much.
    pub(super) fn retain(&mut self, step: &mut Step, life: Life) -> Result<()> {
        let Some(topic) = self.topics.get(&life) else { return Ok(()) };
        let (age, most) = (topic.retention.age, topic.retention.bytes);
        let mut next: Option<Steady> = None;
        for partition in 0..topic.count() {
            if let Some(due) = self.retain_partition(step, life, partition, age, most)? {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        if let Some(next) = next {
            self.timers.set_by(Timer::Retention(life), next);
        }
        Ok(())
    }

    /// Removes a piece of what may go; answers when to look again.
    fn retain_partition(
        &mut self,
        step: &mut Step,
        life: Life,
        partition: u32,
        age: Option<Duration>,
        most: Option<u64>,
    ) -> Result<Option<Steady>> {
        let Some(topic) = self.topics.get(&life) else { return Ok(None) };
        let (log, name) = (topic.log, topic.topic.clone());
        let Some(part) = topic.partition(partition) else { return Ok(None) };
        if part.freed < part.low {
            return Ok(Some(step.now + PACE));
        }
        // The newest message stays, and what was not committed yet.
        let last = part.end.saturating_sub(1);
        let over = |bytes: u64| most.is_some_and(|most| bytes > most);
        if part.low >= last && (part.low >= part.end || age.is_none()) {
            return Ok(None);
        }
        let kept = self.kept_for_groups(step.now, &name, life, partition);
        let limit = part.end.min(kept);
        let (low, newest, mut bytes) = (part.low, part.last, part.bytes);
        let page = self
            .store
            .scan(
                log,
                &log_key(partition, low),
                Some(&log_key(partition, part.end)),
                Direction::Forward,
                PIECE,
            )
            .map_err(store_error)?;
        let mut to = low;
        let mut again = page.more.then_some(step.now);
        let times = times(&page.items, newest);
        for ((key, value), taken) in page.items.into_iter().zip(times) {
            let offset = log_offset(&key).unwrap_or(low);
            let due = age.map(|age| taken + age);
            let old = due.is_some_and(|due| due <= step.time_of_day);
            let much = over(bytes) && offset < last;
            if !old && !much {
                again = due.map(|due| step.now + due.since(step.time_of_day).max(PACE));
                break;
            }
            if offset >= limit {
                // A live group has not finished it: nothing tells when it will have.
                again = Some(step.now + PACE);
                break;
            }
            bytes = bytes.saturating_sub(value.len() as u64);
            to = offset + 1;
            step.batch.delete(log, key);
        }
        if to > low {
            let state = self.topics.get_mut(&life).and_then(|topic| topic.partition_mut(partition));
            if let Some(part) = state {
                (part.low, part.freed, part.bytes) = (to, to, bytes);
            }
            self.touch(step, life, partition..partition + 1);
            self.store_cursors_of(step, &name, partition);
        }
        Ok(again)
    }

    /// The first offset that a live group has not finished.
    fn kept_for_groups(&self, now: Steady, topic: &Topic, life: Life, partition: u32) -> u64 {
        let key = (topic.clone(), partition);
        self.groups
            .values()
            .filter(|group| !group.members.is_empty() || now.since(group.last_seen) < self.rules.group_expiry)
            .filter_map(|group| self.shares.get(group.shares.get(&key)?)?.window.as_ref())
            .map(crate::AckWindow::position)
            .filter(|position| position.0 == life)
            .map(|position| position.1)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Stores where groups are, together with the removal of what they have finished: after a crash they must not seem to have missed it.
    fn store_cursors_of(&mut self, step: &mut Step, topic: &Topic, partition: u32) {
        let key = (topic.clone(), partition);
        let shares = self.groups.values().filter_map(|group| group.shares.get(&key));
        step.cursors
            .extend(shares.filter(|id| self.shares.get(id).is_some_and(|share| share.dirty)).copied());
    }
}

/// When the log took each of these records. One that cannot be read is taken to be as old as the next that can.
fn times(items: &[(Bytes, Bytes)], newest: Timestamp) -> Vec<Timestamp> {
    let mut next = newest;
    let mut times: Vec<Timestamp> = items
        .iter()
        .rev()
        .map(|(_, value)| {
            next = appended(value).unwrap_or(next);
            next
        })
        .collect();
    times.reverse();
    times
}
