//! Copies what the client hands over: records in runs of one partition, and what else it tells, in order.
//!
//! Not here: how a message lies in a record (`../layout.rs`), what becomes of it (`reading.rs`).

use super::{reading::Run, share::Read};
use crate::{
    Error, ErrorKind, Position, Timestamp, Topic,
    balance::TopicPartition,
    kafka::{
        layout::{Blocks, Lies},
        raw::{Place, RecordRef},
    },
};
use std::collections::BTreeMap;

/// Of how many runs the memory is kept for those that follow.
const SPARE: usize = 8;

/// A partition that is read, and the memory that its records are copied to.
#[derive(Debug)]
struct Slot {
    key: TopicPartition,
    life: u64,
    blocks: Blocks,
}

/// What was read since this was emptied.
#[derive(Debug, Default)]
pub(super) struct Gather {
    slots: Vec<Slot>,
    /// By name and partition: where in `slots`.
    index: BTreeMap<String, BTreeMap<i32, usize>>,
    /// The slot of the last record, and where its run is.
    last: Option<(usize, usize)>,
    runs: Vec<Run>,
    /// Memory of runs that were taken over.
    spare: Vec<Vec<Read>>,
}

impl Gather {
    /// Reads of these partitions mean something from now on.
    pub(super) fn begin(&mut self, key: &TopicPartition, life: u64) {
        self.end(key);
        let partition = i32::try_from(key.1).unwrap_or(i32::MAX);
        self.index.entry(key.0.as_str().to_owned()).or_default().insert(partition, self.slots.len());
        self.slots.push(Slot { key: key.clone(), life, blocks: Blocks::default() });
    }

    /// They mean nothing from now on.
    pub(super) fn end(&mut self, key: &TopicPartition) {
        self.last = None;
        let partition = |key: &TopicPartition| i32::try_from(key.1).unwrap_or(i32::MAX);
        let Some(of_topic) = self.index.get_mut(key.0.as_str()) else { return };
        let Some(at) = of_topic.remove(&partition(key)) else { return };
        if of_topic.is_empty() {
            self.index.remove(key.0.as_str());
        }
        self.slots.swap_remove(at);
        // The last one took its place.
        if let Some(Slot { key: moved, .. }) = self.slots.get(at)
            && let Some(of_topic) = self.index.get_mut(moved.0.as_str())
        {
            of_topic.insert(partition(moved), at);
        }
    }

    /// Nothing is read any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What was read, which is empty after that: [`Gather::again`] when it was taken over.
    pub(super) fn take(&mut self) -> Vec<Run> {
        self.last = None;
        std::mem::take(&mut self.runs)
    }

    /// Keeps the memory of what was taken over.
    pub(super) fn again(&mut self, runs: Vec<Run>) {
        let room = SPARE.saturating_sub(self.spare.len());
        self.spare.extend(runs.into_iter().take(room).map(|mut run| {
            run.reads.clear();
            run.reads
        }));
    }

    /// Copies a record. One of a partition that is not read any more is left out.
    pub(super) fn record(&mut self, record: &RecordRef<'_>) {
        let Some((slot, run)) = self.place(record.topic, record.partition) else { return };
        let Ok(offset) = u64::try_from(record.offset) else { return };
        let Slot { key, life, blocks } = &mut self.slots[slot];
        let lies = Lies { topic: &key.0, partition: key.1, at: Position(*life, offset) };
        let at = record.timestamp.unwrap_or_default();
        let reads = &mut self.runs[run].reads;
        // Each in its place, since a message that is made to something else is moved once more.
        match blocks.read(lies, record) {
            Ok(message) => reads.push(Read { offset, at, what: Ok(message) }),
            Err(why) => {
                let raw = blocks.copy(record.value.unwrap_or_default());
                reads.push(Read { offset, at, what: Err((Some(raw), why)) });
            }
        }
    }

    /// A batch of records that begins there cannot be read. In its turn, so that it is known what lies before and behind it.
    pub(super) fn damaged(&mut self, place: &Place, text: &str) {
        let Some((_, run)) = self.place(&place.topic, place.partition) else { return };
        let Ok(offset) = u64::try_from(place.offset) else { return };
        let why = Error::new(ErrorKind::Corrupt, format!("a batch of records is damaged: {text}"));
        self.runs[run].reads.push(Read { offset, at: Timestamp::now().as_millis(), what: Err((None, why)) });
    }

    fn place(&mut self, topic: &str, partition: i32) -> Option<(usize, usize)> {
        if let Some((slot, run)) = self.last {
            let key = &self.slots[slot].key;
            if i64::from(key.1) == i64::from(partition) && key.0.as_str() == topic {
                return Some((slot, run));
            }
        }
        let slot = *self.index.get(topic)?.get(&partition)?;
        self.runs
            .push(Run { key: self.slots[slot].key.clone(), reads: self.spare.pop().unwrap_or_default() });
        let place = (slot, self.runs.len() - 1);
        self.last = Some(place);
        Some(place)
    }
}

/// The topic of that name, where it is one.
pub(super) fn topic(name: &str) -> Option<Topic> {
    Topic::new(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_of_the_partition_they_came_of_whichever_end() {
        let keys =
            || ["a", "b"].into_iter().flat_map(|name| (0..4).map(move |at| (topic(name).unwrap(), at)));
        for first in 0..8 {
            for second in 0..8 {
                let mut gather = Gather::default();
                keys().for_each(|key| gather.begin(&key, 1));
                let mut left: Vec<_> = keys().collect();
                for at in [first, second] {
                    let key = keys().nth(at).unwrap();
                    gather.end(&key);
                    left.retain(|other| *other != key);
                }
                // Again, which changes nothing but its life.
                gather.begin(&left[0], 2);
                for key in keys() {
                    let placed = gather.place(key.0.as_str(), i32::try_from(key.1).unwrap());
                    let slot = placed.map(|(slot, _)| gather.slots[slot].key.clone());
                    assert_eq!(slot, left.contains(&key).then_some(key));
                }
                assert_eq!(gather.slots.len(), left.len());
            }
        }
    }
}
