//! What a reader is returned next, and what it follows.
//!
//! Not here: members of groups (`delivery.rs`), which have room, epochs and acks.

use super::{
    Core, Life, Next, Plan, ReaderId, Step,
    delivery::{Found, told},
    member::{Follow, ReaderState},
};
use crate::{
    Batch, Epoch, Error, Event, GapReason, Owned, Position, Result, Start, Topic, balance::TopicPartition,
};
use std::task::Waker;

impl Core {
    pub(in crate::embedded) fn open_reader(&mut self) -> Result<ReaderId> {
        self.open()?;
        let id = self.new_id();
        self.readers.insert(id, ReaderState::default());
        Ok(id)
    }

    pub(in crate::embedded) fn close_reader(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.remove(&id) else { return };
        for key in reader.follows.into_keys() {
            self.unwatch(id, &key);
        }
    }

    pub(in crate::embedded) fn fail_reader(&mut self, id: ReaderId, error: &Error) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.ended.get_or_insert_with(|| error.clone());
        }
    }

    /// Follows a partition, or all of a topic.
    pub(in crate::embedded) fn follow(
        &mut self,
        id: ReaderId,
        topic: &Topic,
        partition: Option<u32>,
        from: Start,
    ) -> Result<()> {
        self.open()?;
        let chosen = self.chosen(topic, partition)?;
        super::search::of_one(from, chosen.end - chosen.start)?;
        let life = self.life(topic)?;
        let starts = chosen
            .map(|partition| Ok((partition, self.resolve(life, partition, from)?)))
            .collect::<Result<Vec<_>>>()?;
        if partition.is_none()
            && let Some(reader) = self.readers.get_mut(&id)
        {
            reader.all.insert(topic.clone());
        }
        for (partition, offset) in starts {
            self.watch(id, (topic.clone(), partition), life, offset, None);
        }
        Ok(())
    }

    pub(in crate::embedded) fn unfollow(&mut self, id: ReaderId, topic: &Topic, partition: Option<u32>) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        let chosen = |key: &TopicPartition| key.0 == *topic && partition.is_none_or(|one| key.1 == one);
        let keys: Vec<TopicPartition> = reader.follows.keys().filter(|key| chosen(key)).cloned().collect();
        reader.follows.retain(|key, _| !chosen(key));
        reader.ready.retain(|key| !chosen(key));
        if partition.is_none() {
            reader.all.remove(topic);
        }
        for key in keys {
            self.unwatch(id, &key);
        }
    }

    /// Partitions were made: who follows the topic, or followed it in an earlier life, follows them.
    pub(super) fn follow_new(
        &mut self,
        step: &mut Step,
        topic: &Topic,
        life: Life,
        partitions: std::ops::Range<u32>,
    ) {
        for partition in partitions {
            let key = (topic.clone(), partition);
            let followers: Vec<(ReaderId, Option<Position>)> = self
                .readers
                .iter()
                .filter_map(|(id, reader)| match reader.follows.get(&key) {
                    Some(follow) => Some((*id, Some(follow.before.unwrap_or(follow.next)))),
                    None => reader.all.contains(topic).then_some((*id, None)),
                })
                .collect();
            for (id, before) in followers {
                if let Some(waker) = self.watch(id, key.clone(), life, 0, before) {
                    step.after(move |_| waker.wake());
                }
            }
        }
    }

    fn watch(
        &mut self,
        id: ReaderId,
        key: TopicPartition,
        life: Life,
        offset: u64,
        before: Option<Position>,
    ) -> Option<Waker> {
        let reader = self.readers.get_mut(&id)?;
        let part = self.topics.get_mut(&life).and_then(|topic| topic.partition_mut(key.1))?;
        if !part.readers.contains(&id) {
            part.readers.push(id);
        }
        let queued = reader.follows.get(&key).is_some_and(|follow| follow.queued);
        let follow = Follow { next: Position(life, offset), before, caught: Some(part.end), queued: true };
        reader.follows.insert(key.clone(), follow);
        if !queued {
            reader.ready.push_back(key);
        }
        reader.waker.take()
    }

    fn unwatch(&mut self, id: ReaderId, key: &TopicPartition) {
        let topic = self.names.get(&key.0).and_then(|life| self.topics.get_mut(life));
        if let Some(part) = topic.and_then(|topic| topic.partition_mut(key.1)) {
            part.readers.retain(|other| *other != id);
        }
    }

    /// What a reader is returned next, and of which partition it is.
    pub(in crate::embedded) fn poll_reader(
        &mut self,
        id: ReaderId,
        waker: &Waker,
    ) -> (Next, Option<TopicPartition>) {
        let Some(reader) = self.readers.get_mut(&id) else {
            return (Next::End(super::closed(self.rules.backend)), None);
        };
        if let Some(error) = &reader.ended {
            return (Next::End(error.clone()), None);
        }
        while let Some(key) = reader.ready.pop_front() {
            let Some(follow) = reader.follows.get_mut(&key) else { continue };
            follow.queued = false;
            let topic = self.topics.get(&follow.next.0);
            let Some((topic, part)) = topic.and_then(|topic| Some((topic, topic.partition(key.1)?))) else {
                continue;
            };
            if let Some(event) = follow.notice(&key, part.low) {
                self.statistics.gaps += u64::from(matches!(event, Event::Gap { .. }));
                follow.queued = true;
                reader.ready.push_back(key);
                return (Next::Event(event), None);
            }
            if follow.next.1 < part.end {
                let plan = Plan::new(topic, key.1, follow.next.1..part.end);
                return (Next::Read(plan), Some(key));
            }
        }
        if reader.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            reader.waker = Some(waker.clone());
        }
        (Next::Wait, None)
    }

    /// Returns what was read, if it still is followed; `None`: ask again.
    pub(in crate::embedded) fn bring(
        &mut self,
        id: ReaderId,
        key: &TopicPartition,
        plan: &Plan,
        found: Found,
    ) -> Option<Event> {
        let reader = self.readers.get_mut(&id)?;
        let follow = reader.follows.get_mut(key)?;
        if !follow.queued {
            follow.queued = true;
            reader.ready.push_back(key.clone());
        }
        let part = self.topics.get(&plan.life).and_then(|topic| topic.partition(plan.partition))?;
        if follow.next != Position(plan.life, plan.from) || part.low > plan.from {
            return None;
        }
        let Found { deliveries, unreadable } = found;
        if let Some(last) = deliveries.last() {
            follow.next = last.position.next();
            self.statistics.read += deliveries.len() as u64;
            return Some(Event::Batch(Batch { of: owned(key), deliveries }));
        }
        let (position, unreadable) = unreadable?;
        follow.next = position.next();
        self.statistics.unreadable += 1;
        Some(told(owned(key), position, unreadable))
    }
}

impl Follow {
    fn notice(&mut self, key: &TopicPartition, low: u64) -> Option<Event> {
        let of = owned(key);
        if let Some(before) = self.before.take() {
            return Some(Event::Gap {
                of,
                from: Some(before),
                to: Some(self.next),
                why: GapReason::Recreated,
            });
        }
        if self.next.1 < low {
            let (from, to) = (self.next, Position(self.next.0, low));
            self.next = to;
            return Some(Event::Gap { of, from: Some(from), to: Some(to), why: GapReason::Trimmed });
        }
        if self.caught.is_some_and(|end| self.next.1 >= end) {
            self.caught = None;
            return Some(Event::CaughtUp(of));
        }
        None
    }
}

fn owned(key: &TopicPartition) -> Owned {
    Owned { topic: key.0.clone(), partition: key.1, epoch: Epoch(0) }
}
