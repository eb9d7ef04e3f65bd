//! What a step appends to logs, until it is written.
//!
//! Not here: which message goes where (`append.rs`), what a record of a log looks like (`batch.rs`), what else a step writes (`step.rs`).

use crate::embedded::{
    batch::{self, Arena},
    state::log_key,
};
use ropeway_store::{Keyspace, WriteBatch};

/// How much of a step's room is kept for the next one, in bytes.
const KEPT: usize = 1024 * 1024;
/// The same, in messages.
const KEPT_MESSAGES: usize = 32 * 1024;

/// Messages that a step appends to logs, in the order in which it decided so. What it appends to one partition is written as few records: a store
/// has less work with a record of many messages than with many records.
#[derive(Debug, Default)]
pub(super) struct Appends {
    /// All messages, one behind the other, as they are stored.
    bytes: Vec<u8>,
    messages: Vec<Appended>,
}

#[derive(Clone, Copy, Debug)]
struct Appended {
    log: Keyspace,
    /// Where it lies in `bytes`.
    start: usize,
    end: usize,
    /// The next one of its partition.
    next: Option<usize>,
}

/// What a step appends to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The offset of the first message.
    offset: u64,
    first: usize,
    last: usize,
}

impl Appends {
    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, messages: usize) {
        self.messages.reserve(messages);
    }

    /// Bytes of all messages.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a message, which `write` puts behind what is there; answers its row, and how many bytes it has. `row`: what comes before it of its
    /// partition, if this step has something; else it lies at `offset`.
    pub(super) fn push(
        &mut self,
        row: Option<Row>,
        offset: u64,
        log: Keyspace,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> (Row, usize) {
        let (start, this) = (self.bytes.len(), self.messages.len());
        write(&mut self.bytes);
        let end = self.bytes.len();
        self.messages.push(Appended { log, start, end, next: None });
        let Some(row) = row else { return (Row { offset, first: this, last: this }, end - start) };
        if let Some(last) = self.messages.get_mut(row.last) {
            last.next = Some(this);
        }
        (Row { last: this, ..row }, end - start)
    }

    /// Moves a row of a partition to a batch.
    pub(super) fn write(&self, partition: u32, row: Row, arena: &mut Arena, batch: &mut WriteBatch) {
        let (mut offset, mut at) = (row.offset, Some(row.first));
        while let Some(first) = at.take() {
            let (mut log, mut count, mut bytes) = (None, 0, 0);
            for message in self.row(first) {
                let more = bytes + message.end - message.start;
                let fits = count < batch::MOST && more <= batch::MOST_BYTES;
                if log.is_some_and(|log| log != message.log || !fits) {
                    break;
                }
                (log, at) = (Some(message.log), message.next);
                (count, bytes) = (count + 1, more);
            }
            let Some(log) = log else { return };
            offset += count as u64;
            let messages = self.row(first).take(count).map(|message| &self.bytes[message.start..message.end]);
            let (key, value) = arena.record(&log_key(partition, offset - 1), messages, count, bytes);
            batch.put(log, key, value);
        }
    }

    /// A message and those behind it of its partition.
    fn row(&self, first: usize) -> impl Iterator<Item = &Appended> + Clone {
        std::iter::successors(self.messages.get(first), |message| self.messages.get(message.next?))
    }

    /// Nothing any more; its room is for the next step, where it is not too much.
    pub(super) fn cleared(mut self) -> Self {
        if self.bytes.capacity() > KEPT || self.messages.capacity() > KEPT_MESSAGES {
            return Self::default();
        }
        self.bytes.clear();
        self.messages.clear();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::batch::Stored;
    use ropeway_store::{Direction, Durability, KeyValue, Limit, MemoryStore, Purpose};
    use std::ops::Range;

    /// Appends messages of such sizes to 3 partitions of 2 segments, and answers the offsets of each record there.
    fn written(sizes: impl Fn(usize) -> usize, messages: usize) -> Vec<(usize, u32, Range<u64>)> {
        let store = MemoryStore::new();
        let logs = ["a", "b"].map(|name| store.open_keyspace(name, Purpose::Log).unwrap());
        let (mut appends, mut rows, mut next) = (Appends::default(), [None; 3], [5_u64; 3]);
        let mut expected: [Vec<(usize, Vec<u8>)>; 3] = Default::default();
        for n in 0..messages {
            // The partitions in turn, and without turn; in the middle the next segment begins.
            let (partition, log) = (n * n % 7 % 3, usize::from(n >= messages / 2));
            let message = [&n.to_be_bytes()[..], &vec![b'x'; sizes(n)]].concat();
            let (row, bytes) = appends
                .push(rows[partition], next[partition], logs[log], |out| out.extend_from_slice(&message));
            assert_eq!(bytes, message.len());
            rows[partition] = Some(row);
            next[partition] += 1;
            expected[partition].push((log, message));
        }
        let all: usize = expected.iter().flatten().map(|(_, message)| message.len()).sum();
        assert_eq!(appends.bytes(), all);
        let mut batch = WriteBatch::new();
        for (partition, row) in (0..).zip(rows) {
            if let Some(row) = row {
                appends.write(partition, row, &mut Arena::default(), &mut batch);
            }
        }
        store.commit(batch, Durability::None).unwrap();
        let mut records = Vec::new();
        for partition in 0..3_u32 {
            let mut found = Vec::new();
            for (segment, log) in logs.iter().enumerate() {
                let (from, to) = (log_key(partition, 0), log_key(partition + 1, 0));
                let page =
                    store.scan(*log, &from, Some(&to), Direction::Forward, Limit::items(10_000)).unwrap();
                for (key, value) in page.items {
                    let last = crate::embedded::state::log_offset(&key).unwrap();
                    let stored = Stored::of(value).unwrap();
                    let first = stored.first(last).unwrap();
                    assert_eq!(first, 5 + found.len() as u64, "no gap");
                    found
                        .extend(stored.messages(0).map(|at| (segment, stored.bytes()[at.unwrap()].to_vec())));
                    records.push((segment, partition, first..last + 1));
                }
            }
            assert_eq!(found, expected[partition as usize]);
        }
        records
    }

    #[test]
    fn all_that_is_appended_is_written_once_each_partition_in_its_order() {
        let records = written(|n| n % 50, 200);
        assert_eq!(records.len(), 6, "one for each partition and segment: {records:?}");
        assert_eq!(written(|_| 10, 1), [(1, 0, 5..6)]);
    }

    #[test]
    fn a_record_has_no_more_than_it_may() {
        let count = |records: &[(usize, u32, Range<u64>)]| -> Vec<u64> {
            records.iter().map(|(_, _, at)| at.end - at.start).collect()
        };
        assert_eq!(count(&written(|_| 0, 4200)).into_iter().max(), Some(batch::MOST as u64));
        // With the number in it a message has a quarter of the most.
        let quarter = batch::MOST_BYTES / 4 - 8;
        assert_eq!(count(&written(|_| quarter, 200)).into_iter().max(), Some(4));
        assert_eq!(count(&written(|_| quarter + 1, 200)).into_iter().max(), Some(3));
        let large = count(&written(|n| if n % 10 == 0 { batch::MOST_BYTES } else { 1 }, 200));
        assert!(large.iter().filter(|count| **count == 1).count() >= 20, "{large:?}");
    }

    #[test]
    fn room_is_kept_for_the_next_step_up_to_a_bound() {
        let store = MemoryStore::new();
        let log = store.open_keyspace("a", Purpose::Log).unwrap();
        for (size, kept) in [(100, true), (KEPT + 1, false)] {
            let mut appends = Appends::default();
            appends.push(None, 0, log, |out| out.resize(size, 0));
            let cleared = appends.cleared();
            assert_eq!((cleared.bytes(), cleared.bytes.capacity() > 0), (0, kept));
        }
        // Of what was only looked at, such as repeats and what is delayed, nothing is appended.
        let mut appends = Appends::default();
        appends.push(None, 0, log, |out| out.push(0));
        appends.reserve(10 * KEPT_MESSAGES);
        assert!(appends.cleared().messages.capacity() <= KEPT_MESSAGES);
    }
}
