//! A disk for tests: a store in memory that outlives who closes it, and fails when it is told to.

use ropeway_store::{
    Direction, Durability, Error, KeyValue, Keyspace, Limit, MemoryStore, Page, Purpose, Result, Usage,
    WriteBatch,
};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

#[derive(Debug, Default)]
pub(super) struct Disk {
    inner: MemoryStore,
    pub(super) commits_fail: AtomicBool,
    pub(super) reads_fail: AtomicBool,
}

impl Disk {
    fn read(&self) -> Result<()> {
        if self.reads_fail.load(SeqCst) { Err(on_fire("read")) } else { Ok(()) }
    }
}

fn on_fire(doing: &str) -> Error {
    Error::Io { doing: doing.into(), source: std::io::Error::other("the disk is on fire") }
}

impl KeyValue for Disk {
    fn open_keyspace(&self, name: &str, purpose: Purpose) -> Result<Keyspace> {
        self.inner.open_keyspace(name, purpose)
    }
    fn drop_keyspace(&self, keyspace: Keyspace) -> Result<()> {
        self.inner.drop_keyspace(keyspace)
    }
    fn keyspaces(&self) -> Result<Vec<String>> {
        self.inner.keyspaces()
    }
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<bytes::Bytes>> {
        self.read()?;
        self.inner.get(keyspace, key)
    }
    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> Result<Page> {
        self.read()?;
        self.inner.scan(keyspace, from, to, direction, limit)
    }
    fn flush(&self, keyspace: Keyspace) -> Result<()> {
        self.inner.flush(keyspace)
    }
    fn usage(&self) -> Result<Usage> {
        self.inner.usage()
    }
    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        if self.commits_fail.load(SeqCst) {
            return Err(on_fire("commit"));
        }
        self.inner.commit(batch, durability)
    }
    fn close(&self) -> Result<()> {
        Ok(())
    }
}
