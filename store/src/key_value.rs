//! The seam: what a key-value store can do.
//!
//! Not here: the stores (`memory.rs`, `fjall/`).

use crate::{Error, Result};
use bytes::Bytes;
use std::fmt::Debug;

/// Ordered keys in named keyspaces, and one atomic commit over several of them.
///
/// Calls block: on a disk, reads take microseconds where the block is cached, and a synced commit takes what the disk takes.
/// All calls may be made from any thread; commits are applied in the order in which they are called.
pub trait KeyValue: Debug + Send + Sync + 'static {
    /// Opens a keyspace, and makes it where there is none. Once this answers, it is there after a restart. What it is for counts when it
    /// is made.
    ///
    /// # Errors
    /// `Name` where the name is empty, longer than 255 bytes, or begins with a NUL; those of the file system; `Closed`.
    fn open_keyspace(&self, name: &str, purpose: Purpose) -> Result<Keyspace>;

    /// Removes a keyspace with all it holds, at a cost that does not depend on how much that is.
    ///
    /// # Errors
    /// `Dropped` where it is gone already; those of the file system; `Closed`.
    fn drop_keyspace(&self, keyspace: Keyspace) -> Result<()>;

    /// The names of all keyspaces, sorted.
    ///
    /// # Errors
    /// `Closed`.
    fn keyspaces(&self) -> Result<Vec<String>>;

    /// The value of a key.
    ///
    /// # Errors
    /// `Dropped`, `Corrupt`, `Closed`; those of the file system.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>>;

    /// The entries from `from` up to but without `to` (`None`: to the end), in order of their keys or the reverse, as many as `limit` allows.
    /// What a page shows was true at one moment.
    ///
    /// # Errors
    /// `Dropped`, `Corrupt`, `Closed`; those of the file system.
    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> Result<Page>;

    /// Applies all of a batch or, after a crash, nothing. When it answers, it survives what `durability` says, and so does
    /// every commit before it. It waits where more is in memory than may be, on a disk for at most 120 s in which nothing is written out; then that
    /// is an error.
    ///
    /// # Errors
    /// After an error it is unknown whether the batch will be there after a restart; every later commit answers `Poisoned`, which says what
    /// failed first. `Dropped` and `Key` are the exceptions: nothing was applied, and later commits work.
    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// Moves what of a keyspace is in memory to its place on the disk, so that it costs no memory any more. Takes as long as the disk does.
    ///
    /// # Errors
    /// `Dropped`, `Closed`; those of the file system.
    fn flush(&self, keyspace: Keyspace) -> Result<()>;

    /// How much room all of it takes, and how much there is.
    ///
    /// # Errors
    /// `Replaced` where the directory is not the one any more that was opened; `Closed`; those of the file system.
    fn usage(&self) -> Result<Usage>;

    /// Ends it: what was committed is written out, and the directory is free for another. Twice is once.
    ///
    /// # Errors
    /// Those of the file system.
    fn close(&self) -> Result<()>;
}

/// The longest key, in bytes.
const MAX_KEY: usize = 65_535;

/// A name that a keyspace may have.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('\0');
    if fits { Ok(()) } else { Err(Error::Name { name: name.chars().take(40).collect() }) }
}

/// The longest name of a keyspace, in bytes.
const MAX_NAME: usize = 255;

/// A keyspace of an open store: valid until it is dropped or the store is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Keyspace(pub(crate) u32);

/// What a keyspace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Records that are read one by one, changed and removed.
    State,
    /// Records that are written once, read in order, and removed together with the keyspace.
    Log,
}

/// How much room a store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes it takes, in memory or on the disk.
    pub bytes: u64,
    /// Bytes that the file system it lies on has left; `None` where it lies on none.
    pub free: Option<u64>,
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Perhaps nothing.
    None,
    /// The process being killed.
    ProcessCrash,
    /// The machine losing power.
    PowerLoss,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key.
    Forward,
    /// From the largest key.
    Backward,
}

/// How much a scan may return. The first entry always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Entries.
    pub items: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Limit {
    /// So many entries, in at most 1 MiB.
    #[must_use]
    pub const fn items(items: usize) -> Self {
        Self { items, bytes: 1024 * 1024 }
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in the order of the scan.
    pub items: Vec<(Bytes, Bytes)>,
    /// Whether there was more in the range.
    pub more: bool,
}

/// Collects a page up to its limit.
#[derive(Debug)]
pub(crate) struct Collector {
    page: Page,
    limit: Limit,
    bytes: usize,
}

impl Collector {
    pub(crate) fn new(limit: Limit) -> Self {
        Self { page: Page::default(), limit, bytes: 0 }
    }

    /// Takes an entry; `false` where it did not fit, which ends the scan.
    pub(crate) fn take(&mut self, key: Bytes, value: Bytes) -> bool {
        let size = key.len() + value.len();
        let full = self.page.items.len() >= self.limit.items || self.bytes + size > self.limit.bytes;
        if full && !self.page.items.is_empty() {
            self.page.more = true;
            return false;
        }
        self.bytes += size;
        self.page.items.push((key, value));
        true
    }

    pub(crate) fn finish(self) -> Page {
        self.page
    }
}

/// Puts and deletes that are committed together. Of several for one key the last one holds.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub(crate) writes: Vec<(Keyspace, Bytes, Option<Bytes>)>,
    bytes: usize,
    /// The length of a key that no store takes.
    wrong_key: Option<usize>,
}

impl WriteBatch {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { writes: Vec::new(), bytes: 0, wrong_key: None }
    }

    /// Makes room for so many more writes.
    pub fn reserve(&mut self, writes: usize) {
        self.writes.reserve(writes);
    }

    /// Sets a key.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.note(&key);
        self.bytes += value.len();
        self.writes.push((keyspace, key, Some(value)));
    }

    /// Removes a key.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Bytes>) {
        let key = key.into();
        self.note(&key);
        self.writes.push((keyspace, key, None));
    }

    fn note(&mut self, key: &Bytes) {
        self.bytes += key.len();
        if !(1..=MAX_KEY).contains(&key.len()) {
            self.wrong_key.get_or_insert(key.len());
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.wrong_key.map_or(Ok(()), |len| Err(Error::Key { len }))
    }

    /// How many writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The smallest key that is greater than all keys with this prefix; `None` where there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_carries_over() {
        assert_eq!(prefix_end(b"a"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff, 0xff]), None);
        assert_eq!(prefix_end(b""), None);
    }
}
