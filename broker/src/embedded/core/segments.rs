//! The segments of a topic: keyspaces that follow each other, of which the last takes what is published.
//!
//! A keyspace takes milliseconds to make, so the next one is made ahead, by housekeeping; to begin with it is only a record in a step. Where it
//! is not there in time the last segment grows on: nobody waits for it.
//! Not here: which segments go (`retention.rs`).

use super::{Core, Life, Step, store_error, timers::Timer, topic::TopicState};
use crate::{
    Error, ErrorKind, Result, Retention,
    embedded::{
        batch::Arena,
        housekeeping::{Chore, Opened},
        state::{SegmentRecord, log_name, segment_key},
        time::Steady,
    },
};
use ropeway_store::{KeyValue, Keyspace, Purpose};
use std::{collections::VecDeque, time::Duration};

/// The most segments of a topic. The last one of so many grows until one of them went.
pub(super) const MAX_SEGMENTS: usize = 256;
/// Of a bound or an age, a segment is at most this part, so that what is kept beyond is little.
const PARTS: u32 = 8;
/// Of everything that is kept, a segment is at least this part, so that there are not too many.
const MOST_PARTS: u64 = 128;
/// The smallest segment that a small bound makes, in bytes, unless the setting is smaller.
const LEAST_BYTES: u64 = 1024 * 1024;
/// The shortest time in which a small age makes a segment.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) log: Keyspace,
    pub(super) began: SegmentRecord,
    /// Housekeeping was told to move it out of memory.
    flushed: bool,
}

impl Segment {
    pub(super) const fn new(number: u64, log: Keyspace, began: SegmentRecord) -> Self {
        Self { number, log, began, flushed: false }
    }

    /// The first offset of a partition that is in it or in a later one.
    pub(super) fn base(&self, partition: u32) -> u64 {
        self.began.bases.get(partition as usize).copied().unwrap_or(0)
    }
}

/// The keyspace of the segment after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    None,
    /// It is being made.
    Asked,
    Ready(Keyspace),
    /// It could not be made; that is tried again after a while, not with each step.
    Failed,
}

/// The segments of a topic, oldest first; there is at least one.
#[derive(Debug)]
pub(super) struct Segments {
    list: VecDeque<Segment>,
    /// The keyspace of the last one.
    log: Keyspace,
    /// Where its records are put together: they stay and go with it.
    arena: Arena,
    ahead: Ahead,
    /// How many bytes the topic has ever taken.
    taken: u64,
    /// Of them, what was there when the last step was finished.
    noted: u64,
    /// When the first message of the last segment was appended.
    oldest: Option<Steady>,
    /// When the newest message of all was appended.
    newest: Steady,
}

impl Segments {
    /// Those of a new topic.
    pub(super) fn first(log: Keyspace, now: Steady) -> Self {
        let began = SegmentRecord { since: now, ..SegmentRecord::default() };
        Self::of(VecDeque::from([Segment::new(0, log, began)]), log)
    }

    /// Those that were stored; `None` where there are none. See [`TopicState::check_segments`].
    pub(super) fn restore(list: VecDeque<Segment>) -> Option<Self> {
        let log = list.back()?.log;
        Some(Self::of(list, log))
    }

    fn of(list: VecDeque<Segment>, log: Keyspace) -> Self {
        let newest = Steady::default();
        let arena = Arena::default();
        Self { list, log, arena, ahead: Ahead::None, taken: 0, noted: 0, oldest: None, newest }
    }

    /// What failed may be tried again.
    pub(super) fn retry(&mut self) {
        if self.ahead == Ahead::Failed {
            self.ahead = Ahead::None;
        }
    }

    /// When the last one is to end at the latest, where it has something and there is such a time.
    pub(super) fn ends(&self, retention: &Retention) -> Option<Steady> {
        Some(self.oldest? + segment_age(retention)?)
    }

    /// Where the next message goes.
    pub(super) const fn active(&self) -> Keyspace {
        self.log
    }

    /// Where records that go there are put together.
    pub(super) const fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    /// Notes that so many bytes were appended.
    pub(super) const fn take(&mut self, bytes: u64) {
        self.taken += bytes;
    }

    /// The keyspace that holds an offset, and the offset at which another one begins.
    pub(super) fn locate(&self, partition: u32, offset: u64) -> (Keyspace, u64) {
        if self.list.back().is_none_or(|last| last.base(partition) <= offset) {
            return (self.log, u64::MAX);
        }
        let after = self.list.partition_point(|segment| segment.base(partition) <= offset);
        let end = self.list.get(after).map_or(u64::MAX, |next| next.base(partition));
        // Before the first one there is nothing, which its reader is told.
        (self.list.get(after.saturating_sub(1)).map_or(self.log, |holder| holder.log), end)
    }

    /// Bytes of all that is kept.
    pub(super) fn bytes(&self) -> u64 {
        self.taken.saturating_sub(self.list.front().map_or(0, |first| first.began.start))
    }

    /// Bytes of all that is kept but for the oldest segment.
    pub(super) fn rest(&self) -> Option<u64> {
        Some(self.taken.saturating_sub(self.second()?.began.start))
    }

    fn last_bytes(&self) -> u64 {
        self.taken.saturating_sub(self.list.back().map_or(0, |last| last.began.start))
    }

    fn next_number(&self) -> u64 {
        self.list.back().map_or(0, |last| last.number + 1)
    }

    /// What follows the oldest one, where that is not the last.
    pub(super) fn second(&self) -> Option<&Segment> {
        self.list.get(1)
    }

    /// Takes the oldest one out, unless it is the last.
    pub(super) fn pop(&mut self) -> Option<Segment> {
        if self.list.len() > 1 { self.list.pop_front() } else { None }
    }

    /// The first offset that is kept of a partition.
    pub(super) fn low(&self, partition: u32) -> u64 {
        self.list.front().map_or(0, |first| first.base(partition))
    }

    /// All keyspaces, also the one that was made ahead.
    pub(super) fn keyspaces(&self) -> Vec<Keyspace> {
        let ahead = if let Ahead::Ready(log) = self.ahead { Some(log) } else { None };
        self.list.iter().map(|segment| segment.log).chain(ahead).collect()
    }

    /// Numbers and records of all.
    pub(super) fn records(&self) -> impl Iterator<Item = (u64, &SegmentRecord)> {
        self.list.iter().map(|segment| (segment.number, &segment.began))
    }
}

/// How large a segment gets of a topic that holds so many `bytes`; `most`: the setting.
pub(super) fn segment_bytes(most: u64, bound: Option<u64>, bytes: u64) -> u64 {
    match bound {
        Some(bound) => {
            let small = (bound / u64::from(PARTS)).max(LEAST_BYTES.min(most));
            small.min(most).max(bound / MOST_PARTS)
        }
        None => most.max(bytes / MOST_PARTS),
    }
}

/// How old a segment gets in which something lies.
pub(super) fn segment_age(retention: &Retention) -> Option<Duration> {
    retention.age.map(|age| (age / PARTS).max(LEAST_AGE))
}

impl TopicState {
    /// The bound of all its bytes, where it has one.
    pub(super) fn bound(&self) -> Option<u64> {
        let each = self.retention.bytes?;
        Some(each.saturating_mul(self.count().into()))
    }

    /// All that it has is removed, by a purge.
    pub(super) fn is_purged(&self) -> bool {
        self.partitions.iter().all(|part| part.low >= part.next)
    }
}

impl Core {
    /// Looks after the topics to which this step appended.
    pub(super) fn note_appended(&mut self, step: &mut Step) {
        if self.writable().is_err() {
            return;
        }
        let mut lives: Vec<Life> = step.touched.iter().map(|(life, _)| *life).collect();
        lives.sort_unstable();
        lives.dedup();
        for life in lives {
            let Some(topic) = self.topics.get_mut(&life) else { continue };
            let segments = &mut topic.segments;
            if segments.noted == segments.taken {
                continue;
            }
            segments.noted = segments.taken;
            segments.newest = step.now;
            segments.oldest.get_or_insert(step.now);
            if let Some(ends) = segments.ends(&topic.retention) {
                self.timers.set_by(Timer::Retention(life), ends);
            }
            if self.rotate(step, life, false) {
                self.trim(step, life);
            }
        }
    }

    /// Begins the next segment where it is time and its keyspace is there; has that made where it soon will be. `now`: it is time whatever lies
    /// in the last one. Answers whether it began.
    pub(super) fn rotate(&mut self, step: &mut Step, life: Life, now: bool) -> bool {
        let most = self.rules.segment;
        let Some(topic) = self.topics.get_mut(&life) else { return false };
        let bound = topic.bound();
        let segments = &mut topic.segments;
        let (bytes, size) = (segments.last_bytes(), segment_bytes(most, bound, segments.bytes()));
        if bytes == 0 || segments.list.len() >= MAX_SEGMENTS {
            return false;
        }
        let old = segment_age(&topic.retention)
            .zip(segments.oldest)
            .is_some_and(|(age, oldest)| step.now.since(oldest) >= age);
        let wanted = bytes >= size || old || now;
        match segments.ahead {
            Ahead::Ready(log) if wanted => {
                let number = segments.next_number();
                let began = SegmentRecord {
                    since: step.now,
                    newest: segments.newest,
                    start: segments.taken,
                    bases: topic.partitions.iter().map(|part| part.next).collect(),
                };
                step.batch.put(self.spaces.state, segment_key(life, number), began.encode());
                segments.list.push_back(Segment::new(number, log, began));
                (segments.log, segments.arena) = (log, Arena::default());
                (segments.ahead, segments.oldest) = (Ahead::None, None);
                topic.flush_sealed(step);
                return true;
            }
            Ahead::None if wanted || bytes >= size - size / 4 => {
                segments.ahead = Ahead::Asked;
                step.chores.push(Chore::Open { life, number: segments.next_number() });
            }
            Ahead::None | Ahead::Asked | Ahead::Ready(_) | Ahead::Failed => {}
        }
        false
    }

    /// The keyspace of a segment was made, or could not be.
    pub(in crate::embedded) fn opened(&mut self, step: &mut Step, opened: Opened) {
        let Opened { life, number, log } = opened;
        let writable = self.writable();
        if let Some(making) = self.making.remove(&life) {
            return self.finish_topic(step, life, making, writable.and(log));
        }
        let known = self.topics.get_mut(&life).filter(|topic| topic.segments.next_number() == number);
        match (known, log) {
            (Some(topic), Ok(log)) => {
                topic.segments.ahead = Ahead::Ready(log);
                if writable.is_ok() {
                    self.retain(step, life);
                }
            }
            (Some(topic), Err(error)) => {
                tracing::error!(%error, topic = %topic.topic, "the next segment cannot be made, so the last one grows; it is tried again");
                topic.segments.ahead = Ahead::Failed;
                self.timers.set_by(Timer::Retention(life), step.now + super::AGAIN);
            }
            // The topic was deleted meanwhile.
            (None, Ok(log)) => step.chores.push(Chore::Drop(log)),
            (None, Err(_)) => {}
        }
    }
}

impl TopicState {
    /// Makes whole what was stored, once the partitions are loaded. `newest`: when the last message was appended.
    pub(super) fn check_segments(&mut self, newest: Steady) -> Result<()> {
        let wrong = |what: &str| {
            let text = format!("the stored segments of topic {:?} do not fit {what}", self.topic);
            Err(Error::new(ErrorKind::Corrupt, text))
        };
        let list = &self.segments.list;
        let (Some(first), Some(last)) = (list.front(), list.back()) else { return wrong("anything") };
        for (partition, part) in (0..).zip(&self.partitions) {
            let ordered = list.iter().is_sorted_by_key(|segment| segment.base(partition));
            if !ordered || part.low < first.base(partition) || last.base(partition) > part.next {
                return wrong(&format!("partition {partition}"));
            }
        }
        let taken: u64 = self.partitions.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
        if !list.iter().is_sorted_by_key(|segment| segment.began.start) || last.began.start > taken {
            return wrong("its bytes");
        }
        // Nobody knows when the first message of the last one came; not before that began.
        self.segments.oldest = (taken > last.began.start).then_some(last.began.since);
        (self.segments.taken, self.segments.noted, self.segments.newest) = (taken, taken, newest);
        Ok(())
    }

    /// Has what takes no more messages moved out of memory.
    pub(super) fn flush_sealed(&mut self, step: &mut Step) {
        let sealed = self.segments.list.len().saturating_sub(1);
        for segment in self.segments.list.iter_mut().take(sealed).filter(|segment| !segment.flushed) {
            segment.flushed = true;
            step.chores.push(Chore::Flush(segment.log));
        }
    }
}

/// Opens the keyspace of a segment, and makes it where there is none.
pub(in crate::embedded) fn open_segment(store: &dyn KeyValue, life: Life, number: u64) -> Result<Keyspace> {
    store.open_keyspace(&log_name(life, number), Purpose::Log).map_err(store_error)
}
