//! What lies in a log under one key: a message, or a batch of messages of one partition that lie behind each other.
//!
//! A key has the offset of the last message under it, so that what holds an offset is the first record whose key is not before it. A message
//! alone is stored as it is (`record.rs`), unless it begins as a batch does. A batch is `2, how many (2), where each ends (4 each), messages`, all
//! numbers big-endian; where a message ends is counted from the begin of the first one.
//! A message that is kept keeps the record that it lies in, so a batch has its bounds.
//! Not here: what is appended together (`core/appends.rs`), a message alone (`record.rs`).

use super::state::LogKey;
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// The most messages of a batch.
pub(super) const MOST: usize = 256;
/// The most bytes of the messages of a batch. A message that has more lies alone.
pub(super) const MOST_BYTES: usize = 32 * 1024;

const BATCH: u8 = 2;
/// Version and how many.
const HEAD: usize = 3;
/// Where a message ends.
const END: usize = 4;

/// Blocks that records of logs are written into, so that a small one costs no allocation of its own.
///
/// A block stays in memory until the last of what was written into it goes, so an arena is for what goes together. A block is as large as all before
/// it together, 64 KiB at most: what is written into many arenas takes no more than twice its size.
#[derive(Debug, Default)]
pub(super) struct Arena {
    block: BytesMut,
    /// Bytes of all blocks.
    taken: usize,
}

impl Arena {
    const BLOCK: usize = 64 * 1024;

    /// A piece of `size` bytes, which `write` puts there.
    fn piece(&mut self, size: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        if self.block.capacity() - self.block.len() < size {
            let usual = self.taken.min(Self::BLOCK);
            let block = if size > usual / 4 { size } else { usual };
            self.block = BytesMut::with_capacity(block);
            self.taken = self.taken.saturating_add(block);
        }
        write(&mut self.block);
        self.block.split().freeze()
    }

    /// Messages that are one record, and its key; `bytes`: of all of them, which [`MOST_BYTES`] bounds, or one alone.
    pub(super) fn record<'a>(
        &mut self,
        key: &LogKey,
        messages: impl Iterator<Item = &'a [u8]> + Clone,
        count: usize,
        bytes: usize,
    ) -> (Bytes, Bytes) {
        let alone = count == 1 && messages.clone().all(|message| message.first() != Some(&BATCH));
        let head = if alone { 0 } else { HEAD + END * count };
        let mut record = self.piece(key.len() + head + bytes, |out| {
            out.put_slice(key);
            if !alone {
                out.put_u8(BATCH);
                out.put_u16(count as u16);
                let mut end = 0;
                for message in messages.clone() {
                    end += message.len() as u32;
                    out.put_u32(end);
                }
            }
            for message in messages {
                out.put_slice(message);
            }
        });
        (record.split_to(key.len()), record)
    }
}

/// How many messages a record says that it has.
pub(super) fn count(record: &[u8]) -> usize {
    match record {
        [BATCH, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 1,
    }
}

/// A record of a log.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    bytes: Bytes,
    /// How many messages a batch has; `None`: it is a message.
    batch: Option<usize>,
}

impl Stored {
    /// A record as it was read; `None` where it is a batch, and cut or damaged. Whether a message is whole is not looked at.
    pub(super) fn of(bytes: Bytes) -> Option<Self> {
        if bytes.first() != Some(&BATCH) {
            return Some(Self { bytes, batch: None });
        }
        let count = count(&bytes);
        let stored = Self { bytes, batch: Some(count) };
        (stored.end(count.checked_sub(1)?)? == stored.bytes.len()).then_some(stored)
    }

    /// How many messages it has, at least one.
    pub(super) fn len(&self) -> usize {
        self.batch.unwrap_or(1)
    }

    /// All of it.
    pub(super) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where its messages lie in it, from one on, counted from 0; `None` in the place of one where it does not tell that.
    pub(super) fn messages(&self, from: usize) -> impl Iterator<Item = Option<Range<usize>>> + '_ {
        let mut start = from.checked_sub(1).map_or_else(|| Some(self.head()), |before| self.end(before));
        (from..self.len()).map(move |at| {
            let end = self.end(at);
            let (start, end) = (std::mem::replace(&mut start, end)?, end?);
            (start <= end && end <= self.bytes.len()).then_some(start..end)
        })
    }

    /// The offset of its first message; `last`: that of its last one, which its key has.
    pub(super) fn first(&self, last: u64) -> Option<u64> {
        last.checked_sub(self.len() as u64 - 1)
    }

    /// Where its first message begins.
    fn head(&self) -> usize {
        self.batch.map_or(0, |count| HEAD + END * count)
    }

    /// Where a message ends.
    fn end(&self, at: usize) -> Option<usize> {
        if self.batch.is_none() {
            return Some(self.bytes.len());
        }
        let end = self.bytes.get(HEAD + END * at..)?.first_chunk()?;
        Some(self.head() + u32::from_be_bytes(*end) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::state::log_key;
    use proptest::prelude::*;

    fn record(messages: &[Vec<u8>]) -> (Bytes, Bytes) {
        let bytes = messages.iter().map(Vec::len).sum();
        let list = messages.iter().map(Vec::as_slice);
        Arena::default().record(&log_key(3, 9), list, messages.len(), bytes)
    }

    proptest! {
        #[test]
        fn what_is_written_as_one_record_is_read_message_by_message(
            mut messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..MOST), looks in 0..3_u8,
        ) {
            if looks > 0 { messages[0].insert(0, looks); }
            let (key, value) = record(&messages);
            prop_assert_eq!(&key[..], log_key(3, 9));
            if messages.len() == 1 && messages[0].first() != Some(&BATCH) {
                prop_assert_eq!(&value[..], &messages[0][..]);
            }
            prop_assert_eq!(count(&value), messages.len());
            let stored = Stored::of(value).unwrap();
            prop_assert_eq!(stored.len(), messages.len());
            let first = 9_u64.checked_sub(messages.len() as u64 - 1);
            prop_assert_eq!(stored.first(9), first);
            for from in 0..=messages.len() {
                let found = stored.messages(from).map(|at| stored.bytes()[at.unwrap()].to_vec());
                prop_assert_eq!(&found.collect::<Vec<_>>()[..], &messages[from..]);
            }
        }

        #[test]
        fn a_batch_that_is_cut_is_none(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 2..9), cut in any::<prop::sample::Index>()) {
            let (_, value) = record(&messages);
            let cut = 1 + cut.index(value.len() - 1);
            prop_assert!(Stored::of(value.slice(..cut)).is_none());
        }

        #[test]
        fn hostile_records_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), count in any::<Option<u8>>()) {
            if let Some(count) = count {
                bytes.splice(0..0, [BATCH, 0, count % 8]);
            }
            let len = bytes.len();
            if let Some(stored) = Stored::of(bytes.into()) {
                prop_assert!(stored.len() > 0);
                let _ = stored.first(u64::from(count.unwrap_or(0)));
                for from in 0..stored.len() + 1 {
                    prop_assert_eq!(stored.messages(from).count(), stored.len() - from);
                    prop_assert!(stored.messages(from).flatten().all(|at| at.start <= at.end && at.end <= len));
                }
            }
        }
    }
}
