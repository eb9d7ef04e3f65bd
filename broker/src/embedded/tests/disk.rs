//! A disk for tests: a store in memory that outlives who closes it, counts its commits, and fails or waits when it is told to.

use ropeway_store::{
    Direction, Durability, Error, KeyValue, Keyspace, Limit, MemoryStore, Page, Purpose, Result, Usage,
    WriteBatch,
};
use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

#[derive(Debug, Default)]
pub(super) struct Disk {
    inner: MemoryStore,
    pub(super) commits_fail: AtomicBool,
    pub(super) reads_fail: AtomicBool,
    pub(super) drops_fail: AtomicBool,
    /// How many drops of keyspaces failed.
    pub(super) failed_drops: AtomicUsize,
    /// How many writes each commit had that has begun, from the first one on.
    begun: Mutex<Vec<usize>>,
    changed: Condvar,
    /// How many commits may still end; `None`: all.
    allowed: Mutex<Option<usize>>,
    closed: AtomicUsize,
}

impl Disk {
    fn begun(&self) -> MutexGuard<'_, Vec<usize>> {
        self.begun.lock().unwrap()
    }

    /// How many commits have begun.
    pub(super) fn commits(&self) -> usize {
        self.begun().len()
    }

    /// From now on commits wait.
    pub(super) fn hold(&self) {
        *self.allowed.lock().unwrap() = Some(0);
    }

    /// Lets so many commits end.
    pub(super) fn let_end(&self, commits: usize) {
        if let Some(allowed) = self.allowed.lock().unwrap().as_mut() {
            *allowed += commits;
        }
        self.changed.notify_all();
    }

    /// Commits do not wait any more.
    pub(super) fn release(&self) {
        *self.allowed.lock().unwrap() = None;
        self.changed.notify_all();
    }

    /// Waits until so many commits have begun.
    pub(super) async fn until_begun(&self, commits: usize) {
        let wait = async {
            while self.commits() < commits {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(super::support::PATIENCE, wait).await.expect("the commit begins");
    }

    /// How often it was closed.
    pub(super) fn closed(&self) -> usize {
        self.closed.load(SeqCst)
    }

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
        if self.drops_fail.load(SeqCst) {
            self.failed_drops.fetch_add(1, SeqCst);
            return Err(on_fire("drop a keyspace"));
        }
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
        self.begun().push(batch.len());
        let mut allowed = self.allowed.lock().unwrap();
        while *allowed == Some(0) {
            allowed = self.changed.wait(allowed).unwrap();
        }
        if let Some(allowed) = allowed.as_mut() {
            *allowed -= 1;
        }
        drop(allowed);
        if self.commits_fail.load(SeqCst) {
            return Err(on_fire("commit"));
        }
        self.inner.commit(batch, durability)
    }
    fn close(&self) -> Result<()> {
        self.closed.fetch_add(1, SeqCst);
        Ok(())
    }
}
