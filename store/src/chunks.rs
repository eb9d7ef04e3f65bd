//! An ordered map of bytes in chunks: cheap to append to at many places, as a log with several partitions is.
//!
//! What is appended behind the last key of a chunk costs one search among the chunks, and a row of writes that lie behind each other costs
//! one for the whole row; a map with a node per few keys would search, move and compare several times as much.
//! Not here: keyspaces and commits (`memory.rs`).

use bytes::Bytes;
use std::{collections::BTreeMap, ops::Bound};

/// The most entries of a chunk.
const CHUNK: usize = 256;

type Entry = (Bytes, Bytes);
/// A key, and what it is set to; `None`: it is removed.
type Write = (Bytes, Option<Bytes>);

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

    /// Does writes in the order in which they come.
    pub(crate) fn apply(&mut self, mut writes: impl Iterator<Item = Write>) {
        let mut next = writes.next();
        while let Some((key, value)) = next {
            let Some(value) = value else {
                self.remove(&key);
                next = writes.next();
                continue;
            };
            let appended = self.insert(key, value);
            next = writes.next();
            if appended && let Some(write) = next {
                next = self.append(write, &mut writes);
            }
        }
    }

    /// Appends writes to the chunk in which the first of them lies, as long as they lie behind its last key; answers the first that does not.
    fn append(&mut self, first: Write, writes: &mut impl Iterator<Item = Write>) -> Option<Write> {
        let behind = (Bound::Excluded(&first.0[..]), Bound::Unbounded);
        let end = self.chunks.range::<[u8], _>(behind).next().map(|(end, _)| end.clone());
        let Some((_, chunk)) = self.chunks.range_mut::<[u8], _>(up_to(&first.0)).next_back() else {
            return Some(first);
        };
        let mut next = Some(first);
        loop {
            match next {
                Some((key, Some(value)))
                    if chunk.len() < CHUNK
                        && chunk.last().is_some_and(|(last, _)| *last < key)
                        && end.as_ref().is_none_or(|end| key < *end) =>
                {
                    self.bytes += (key.len() + value.len()) as u64;
                    chunk.push((key, value));
                }
                other => return other,
            }
            next = writes.next();
        }
    }

    /// Sets a key. Answers whether it lies behind all that its chunk held, so that more may follow it.
    fn insert(&mut self, key: Bytes, value: Bytes) -> bool {
        self.bytes += (key.len() + value.len()) as u64;
        let Some((_, chunk)) = self.chunks.range_mut::<[u8], _>(up_to(&key)).next_back() else {
            // It lies before everything: the chunk that was first keeps its place.
            self.chunks.insert(key.clone(), vec![(key, value)]);
            return true;
        };
        if chunk.last().is_none_or(|(last, _)| *last < key) {
            if chunk.len() < CHUNK {
                chunk.push((key, value));
            } else {
                let mut next = Vec::with_capacity(CHUNK);
                next.push((key.clone(), value));
                self.chunks.insert(key, next);
            }
            return true;
        }
        match find(chunk, &key) {
            Ok(at) => {
                let old = std::mem::replace(&mut chunk[at].1, value);
                self.bytes -= (key.len() + old.len()) as u64;
            }
            Err(at) if chunk.len() < CHUNK => chunk.insert(at, (key, value)),
            Err(at) => {
                // What comes next mostly lies behind it, and is appended then.
                let upper = chunk.split_off(at);
                chunk.push((key, value));
                if let Some((first, _)) = upper.first() {
                    self.chunks.insert(first.clone(), upper);
                }
            }
        }
        false
    }

    fn remove(&mut self, key: &[u8]) {
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
        assert!(chunks.chunks.len() > 8);
        agree(&chunks, &model);
    }

    /// They hold the same, and a chunk only what may lie in it.
    fn agree(chunks: &Chunks, model: &BTreeMap<Bytes, Bytes>) {
        assert!(chunks.range(b"", None).map(|(key, value)| (key, value)).eq(model));
        let bytes: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(chunks.bytes(), bytes as u64);
        for (first, chunk) in &chunks.chunks {
            let mut behind = chunks.chunks.range::<Bytes, _>((Bound::Excluded(first), Bound::Unbounded));
            let end = behind.next().map(|(end, _)| end);
            assert!((1..=CHUNK).contains(&chunk.len()), "{} entries", chunk.len());
            assert!(chunk.iter().all(|(key, _)| end.is_none_or(|end| key < end)));
        }
    }

    #[test]
    fn rows_of_writes_do_what_single_ones_do() {
        let mut random = Random(11);
        let (mut chunks, mut model) = (Chunks::default(), BTreeMap::new());
        for round in 0..400u64 {
            let mut writes = Vec::new();
            for _ in 0..1 + random.below(4) {
                // A row of a few partitions, as a log is written; it stumbles now and then.
                let (mut at, long) =
                    ((random.below(4) << 20) + round * 8 + random.below(4000), random.below(600));
                for _ in 0..long {
                    let key = Bytes::copy_from_slice(&at.to_be_bytes()[4..]);
                    let kept = random.below(50) > 0;
                    writes.push((key, kept.then(|| Bytes::copy_from_slice(&round.to_be_bytes()))));
                    at = if random.below(100) == 0 { at.saturating_sub(3) } else { at + 1 };
                }
            }
            for (key, value) in &writes {
                match value {
                    Some(value) => _ = model.insert(key.clone(), value.clone()),
                    None => _ = model.remove(key),
                }
            }
            chunks.apply(writes.into_iter());
            if round % 8 == 0 {
                agree(&chunks, &model);
            }
        }
        agree(&chunks, &model);
        assert!(chunks.chunks.len() > 50);
    }

    #[test]
    fn partitions_that_grow_side_by_side_come_to_lie_in_full_chunks_of_their_own() {
        const EACH: u64 = 40 * CHUNK as u64;
        let mut chunks = Chunks::default();
        for n in (0..EACH).step_by(32) {
            for partition in 0..4 {
                let key = |n: u64| Bytes::copy_from_slice(&((partition << 32) + n).to_be_bytes());
                chunks.apply((n..n + 32).map(|n| (key(n), Some(Bytes::new()))));
            }
        }
        let least = (4 * EACH) as usize / CHUNK;
        assert!(chunks.chunks.len() <= least + 8, "{} chunks", chunks.chunks.len());
    }
}
