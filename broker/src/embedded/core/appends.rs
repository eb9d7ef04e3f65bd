//! What a step appends to logs, until it is written.
//!
//! Not here: which record goes where (`append.rs`), what else a step writes (`step.rs`).

use bytes::Bytes;
use ropeway_store::{Keyspace, WriteBatch};

/// Records that a step appends to logs, in the order in which it decided so. They are written partition by partition, as a store writes a
/// row of keys with less work than keys here and there.
#[derive(Debug, Default)]
pub(super) struct Appends {
    records: Vec<Record>,
    bytes: usize,
}

#[derive(Debug)]
struct Record {
    log: Keyspace,
    key: Bytes,
    value: Bytes,
    /// It is the first of its partition.
    first: bool,
    /// The next of its partition.
    next: Option<Appended>,
}

/// A record among those that a step appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appended(usize);

impl Appends {
    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, records: usize) {
        self.records.reserve(records);
    }

    /// Bytes of keys and records.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record; `last`: the one before it of its partition, if this step has one.
    pub(super) fn push(
        &mut self,
        last: Option<Appended>,
        log: Keyspace,
        key: Bytes,
        value: Bytes,
    ) -> Appended {
        let this = Appended(self.records.len());
        self.bytes += key.len() + value.len();
        let last = last.and_then(|Appended(last)| self.records.get_mut(last));
        let first = last.is_none();
        if let Some(last) = last {
            last.next = Some(this);
        }
        self.records.push(Record { log, key, value, first, next: None });
        this
    }

    /// Moves all of them to a batch.
    pub(super) fn write(&mut self, batch: &mut WriteBatch) {
        let mut records = std::mem::take(self).records;
        batch.reserve(records.len());
        for first in 0..records.len() {
            let mut at = records.get(first).filter(|record| record.first).map(|_| Appended(first));
            while let Some(record) = at.and_then(|Appended(at)| records.get_mut(at)) {
                batch.put(record.log, std::mem::take(&mut record.key), std::mem::take(&mut record.value));
                at = record.next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_store::{Direction, Durability, KeyValue, Limit, MemoryStore, Purpose};

    #[test]
    fn all_that_is_appended_is_written_once_each_partition_in_its_order() {
        let store = MemoryStore::new();
        let logs = ["a", "b"].map(|name| store.open_keyspace(name, Purpose::Log).unwrap());
        let (mut appends, mut last) = (Appends::default(), [None; 3]);
        let mut expected: [Vec<(Bytes, Bytes)>; 2] = Default::default();
        for n in 0..200usize {
            // The partitions in turn, and without turn; in the middle the next segment begins.
            let (partition, log) = (n * n % 7 % 3, usize::from(n >= 100));
            let key = Bytes::copy_from_slice(&[partition as u8, n as u8]);
            let value = Bytes::from(n.to_string());
            last[partition] = Some(appends.push(last[partition], logs[log], key.clone(), value.clone()));
            expected[log].push((key, value));
        }
        let all = expected.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        assert_eq!(appends.bytes(), all);
        let mut batch = WriteBatch::new();
        appends.write(&mut batch);
        assert_eq!((batch.len(), batch.bytes(), appends.bytes()), (200, all, 0));
        store.commit(batch, Durability::None).unwrap();
        for (log, mut expected) in logs.into_iter().zip(expected) {
            expected.sort();
            let page = store.scan(log, b"", None, Direction::Forward, Limit::items(1000)).unwrap();
            assert_eq!(page.items, expected);
        }
    }
}
