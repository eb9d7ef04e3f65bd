//! An ordered map of bytes in chunks: cheap to append to at many places, as a log with several partitions is.
//!
//! What is appended behind the last key of a chunk costs one search among the chunks; a map with a node per few keys would search, move and
//! compare several times as much. Not here: keyspaces and commits (`memory.rs`).

use bytes::Bytes;
use std::{collections::BTreeMap, ops::Bound};

/// The most entries of a chunk.
const CHUNK: usize = 256;

type Entry = (Bytes, Bytes);

/// Keys and values, in the order of the keys.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// By the first key that may lie in it: entries of a chunk are sorted, and lie before the next chunk's key.
    chunks: BTreeMap<Bytes, Vec<Entry>>,
    /// Bytes of keys and values.
    bytes: u64,
}

impl Chunks {
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let (_, chunk) = self.chunks.range::<[u8], _>(up_to(key)).next_back()?;
        let at = find(chunk, key).ok()?;
        Some(&chunk[at].1)
    }

    pub(crate) fn insert(&mut self, key: Bytes, value: Bytes) {
        self.bytes += (key.len() + value.len()) as u64;
        let Some((_, chunk)) = self.chunks.range_mut::<[u8], _>(up_to(&key)).next_back() else {
            // It lies before everything: the chunk that was first keeps its place.
            self.chunks.insert(key.clone(), vec![(key, value)]);
            return;
        };
        if chunk.last().is_none_or(|(last, _)| *last < key) {
            if chunk.len() < CHUNK {
                chunk.push((key, value));
            } else {
                self.chunks.insert(key.clone(), vec![(key, value)]);
            }
            return;
        }
        match find(chunk, &key) {
            Ok(at) => {
                let old = std::mem::replace(&mut chunk[at].1, value);
                self.bytes -= (key.len() + old.len()) as u64;
            }
            Err(at) => {
                chunk.insert(at, (key, value));
                if chunk.len() > CHUNK {
                    let upper = chunk.split_off(CHUNK / 2);
                    self.chunks.insert(upper[0].0.clone(), upper);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        let Some((first, chunk)) = self.chunks.range_mut::<[u8], _>(up_to(key)).next_back() else { return };
        let Ok(at) = find(chunk, key) else { return };
        let (key, value) = chunk.remove(at);
        self.bytes -= (key.len() + value.len()) as u64;
        if chunk.is_empty() {
            let first = first.clone();
            self.chunks.remove(&first);
        }
    }

    /// The entries from `from` up to but without `to`.
    pub(crate) fn range<'a>(
        &'a self,
        from: &'a [u8],
        to: Option<&'a [u8]>,
    ) -> impl DoubleEndedIterator<Item = &'a Entry> {
        let before = self.chunks.range::<[u8], _>(up_to(from)).next_back();
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.chunks.range::<[u8], _>((Bound::Excluded(from), end));
        before.into_iter().chain(behind).flat_map(move |(_, chunk)| {
            let start = chunk.partition_point(|(key, _)| &key[..] < from);
            let end = to.map_or(chunk.len(), |to| chunk.partition_point(|(key, _)| &key[..] < to));
            &chunk[start..end.max(start)]
        })
    }
}

const fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

fn find(chunk: &[Entry], key: &[u8]) -> Result<usize, usize> {
    chunk.binary_search_by(|(other, _)| other[..].cmp(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of its own, so that each run is the same.
    struct Random(u64);

    impl Random {
        fn below(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % below
        }

        fn key(&mut self, below: u64) -> Bytes {
            Bytes::copy_from_slice(&self.below(below).to_be_bytes()[5..])
        }
    }

    #[test]
    fn it_is_an_ordered_map_through_splits_appends_and_removals() {
        let mut random = Random(7);
        let (mut chunks, mut model) = (Chunks::default(), BTreeMap::new());
        for round in 0..30_000u64 {
            let key = if round % 3 == 0 { random.key(1 << 16) } else { random.key(round / 3 + 1) };
            if random.below(3) == 0 {
                chunks.remove(&key);
                model.remove(&key);
            } else {
                let value = Bytes::copy_from_slice(&round.to_be_bytes()[..(round % 9) as usize]);
                chunks.insert(key.clone(), value.clone());
                model.insert(key.clone(), value);
            }
            assert_eq!(chunks.get(&key), model.get(&key));
            if round % 64 == 0 {
                let (a, b) = (random.key(1 << 16), random.key(1 << 16));
                let (from, to) = if a < b { (a, b) } else { (b, a) };
                if from < to {
                    let expected: Vec<_> = model.range(from.clone()..to.clone()).collect();
                    let found = || chunks.range(&from, Some(&to)).map(|(key, value)| (key, value));
                    assert!(found().eq(expected.iter().copied()));
                    assert!(found().rev().eq(expected.iter().rev().copied()));
                }
            }
        }
        assert!(chunks.range(b"", None).map(|(key, value)| (key, value)).eq(&model));
        let bytes: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(chunks.bytes(), bytes as u64);
        assert!(chunks.chunks.len() > 8 && chunks.chunks.values().all(|chunk| chunk.len() <= CHUNK));
    }
}
