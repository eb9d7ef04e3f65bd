//! What is removed: whole segments, by age and bytes as time goes on, and never what a live group has not finished; and what is purged.
//!
//! A purge moves the low mark; segments that lie wholly below are removed with the same step, and the one that is written to is ended when all
//! of it is purged, so that its room comes back.
//! Not here: when a segment ends (`segments.rs`).

use super::{
    Core, Life, Step,
    member::GroupState,
    stored_as,
    timers::Timer,
    topic::{Holder, TopicState},
};
use crate::{
    AckWindow, Result, Start, Topic,
    embedded::{housekeeping::Chore, state::segment_key, time::Steady},
};
use std::time::Duration;

/// How soon retention looks again at what a group holds back.
const PACE: Duration = Duration::from_secs(1);

/// Why the oldest segment stays.
enum Kept {
    /// Nothing is to go, or it is the last one; when to look again.
    Wanted(Option<Steady>),
    /// It would go, but a live group has not finished it.
    Held(Holder),
}

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
            self.store_cursors_of(step, topic, partition);
        }
        self.retain(step, life);
        Ok(())
    }

    /// Ends the last segment where it is time, removes what may go, and sees to it that this is looked at again.
    pub(super) fn retain(&mut self, step: &mut Step, life: Life) {
        if self.writable().is_err() {
            return;
        }
        let Some(topic) = self.topics.get_mut(&life) else { return };
        topic.flush_sealed(step);
        topic.segments.retry();
        let purged = topic.is_purged();
        self.rotate(step, life, purged);
        self.trim(step, life);
        let ends = self.topics.get(&life).and_then(|topic| topic.segments.ends(&topic.retention));
        if let Some(ends) = ends {
            self.timers.set_by(Timer::Retention(life), ends.max(step.now + PACE));
        }
    }

    /// Removes the segments that may go.
    pub(super) fn trim(&mut self, step: &mut Step, life: Life) {
        let mut held = None;
        let again = loop {
            match self.keeps(step.now, life) {
                None => self.drop_oldest(step, life),
                Some(Kept::Wanted(again)) => break again,
                Some(Kept::Held(holder)) => {
                    held = Some(holder);
                    break Some(step.now + PACE);
                }
            }
        };
        if let Some(topic) = self.topics.get_mut(&life) {
            topic.held_by = held;
        }
        if let Some(again) = again {
            self.timers.set_by(Timer::Retention(life), again);
        }
    }

    /// Why the oldest segment stays; `None`: it may go.
    fn keeps(&self, now: Steady, life: Life) -> Option<Kept> {
        let Some(topic) = self.topics.get(&life) else { return Some(Kept::Wanted(None)) };
        let Some((next, rest)) = topic.segments.second().zip(topic.segments.rest()) else {
            return Some(Kept::Wanted(None));
        };
        let ends = |partition: u32| next.base(partition);
        if (0..).zip(&topic.partitions).all(|(partition, part)| part.low >= ends(partition)) {
            return None;
        }
        let due = topic.retention.age.map(|age| next.began.newest + age);
        // The newest message always stays.
        let much = topic.bound().is_some_and(|bound| rest >= bound.max(1));
        if !much && due.is_none_or(|due| due > now) {
            return Some(Kept::Wanted(due));
        }
        self.holder(now, life).map(Kept::Held)
    }

    /// Who is live and has not finished the oldest segment.
    fn holder(&self, now: Steady, life: Life) -> Option<Holder> {
        let topic = self.topics.get(&life)?;
        let live = self.groups.iter().filter(|(_, state)| self.is_live(now, state));
        live.filter(|(group, _)| self.has_position(group, &topic.topic)).find_map(|(group, state)| {
            let partition = (0..topic.count()).find(|partition| self.is_behind(topic, state, *partition))?;
            Some(Holder { group: group.clone(), partition })
        })
    }

    /// Whether this still keeps the oldest segment.
    pub(super) fn holds(&self, now: Steady, life: Life, holder: &Holder) -> bool {
        let (Some(topic), Some(state)) = (self.topics.get(&life), self.groups.get(&holder.group)) else {
            return false;
        };
        self.is_live(now, state)
            && self.is_behind(topic, state, holder.partition)
            && self.has_position(&holder.group, &topic.topic)
    }

    fn is_live(&self, now: Steady, group: &GroupState) -> bool {
        !group.members.is_empty() || now.since(group.last_seen) < self.rules.group_expiry
    }

    /// Whether a group that has a position in a topic has not finished a partition's part of the oldest segment.
    fn is_behind(&self, topic: &TopicState, state: &GroupState, partition: u32) -> bool {
        let ends = topic.segments.second().map(|next| next.base(partition));
        self.goes_on(topic, state, partition).zip(ends).is_some_and(|(from, end)| from < end)
    }

    /// Where a group that has a position in a topic goes on in a partition. Where it has none in this life of the topic it is given all there is.
    pub(super) fn goes_on(&self, topic: &TopicState, state: &GroupState, partition: u32) -> Option<u64> {
        let low = topic.partition(partition)?.low;
        let share = state.shares.get(&(topic.topic.clone(), partition)).and_then(|id| self.shares.get(id));
        let position = share.and_then(|share| share.window.as_ref()).map(AckWindow::position);
        let position = position.filter(|position| position.0 == topic.life);
        Some(position.map_or(low, |position| position.1.max(low)))
    }

    fn drop_oldest(&mut self, step: &mut Step, life: Life) {
        let Some(topic) = self.topics.get_mut(&life) else { return };
        let Some(gone) = topic.segments.pop() else { return };
        let name = topic.topic.clone();
        let lows: Vec<u64> = (0..topic.count()).map(|partition| topic.segments.low(partition)).collect();
        for (partition, low) in (0..).zip(lows) {
            let state = self.topics.get_mut(&life).and_then(|topic| topic.partition_mut(partition));
            let Some(part) = state.filter(|part| part.low < low) else { continue };
            part.low = low;
            self.touch(step, life, partition..partition + 1);
            self.store_cursors_of(step, &name, partition);
        }
        step.batch.delete(self.spaces.state, segment_key(life, gone.number));
        // It must be known to be gone before it is gone.
        step.at_least(stored_as(self.rules.possible));
        step.chores.push(Chore::Drop(gone.log));
    }

    /// Stores where groups are, together with the removal of what they have finished: after a crash they must not seem to have missed it.
    fn store_cursors_of(&self, step: &mut Step, topic: &Topic, partition: u32) {
        let key = (topic.clone(), partition);
        let shares = self.groups.values().filter_map(|group| group.shares.get(&key));
        step.cursors
            .extend(shares.filter(|id| self.shares.get(id).is_some_and(|share| share.dirty)).copied());
    }
}
