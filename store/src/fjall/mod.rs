//! The key-value store in a directory, on fjall (a log-structured merge tree with one journal for all keyspaces).
//!
//! A commit is one entry of the journal, synced where it must survive a power cut. In the directory lie `lock` (who has it open), `format` (which
//! version of this layout it is), `mark` (what must be there when it is opened again), `reserve` (room for the time when the disk is full) and `db/`,
//! which is fjall's.
//! fjall is pinned to one version: its journals and trees are read here before it opens them, because it repairs damage by forgetting, and
//! says nothing.
//! Not here: how a directory is opened (`opening.rs`), what damage is and how it is found (`damage.rs`, `inspect.rs`, `journal.rs`, `tree.rs`,
//! `mark.rs`), which tree holds which keyspace (`spaces.rs`), what is read out of a damaged store (`salvage.rs`), what runs in the background
//! (`keeper.rs`), who owns a directory (`directory.rs`).

mod damage;
mod directory;
mod failure;
mod inspect;
mod journal;
mod keeper;
mod look;
mod mark;
mod opening;
mod reserve;
mod room;
mod salvage;
mod settings;
#[cfg(test)]
mod several;
mod spaces;
mod tree;

pub use damage::Damage;
pub use look::{Look, look};
pub use salvage::{KeyspaceReport, Report, SalvagedStore, check, salvage};

pub use settings::FjallSettings;

use crate::{
    Direction, Durability, Error, KeyValue, Keyspace, Limit, Page, Purpose, Result, Usage, WriteBatch,
    key_value::{Collector, check_name},
};
use ::fjall::{Database, Keyspace as Tree, OwnedWriteBatch, PersistMode};
use bytes::Bytes;
use directory::Directory;
use failure::{of_fjall, of_io};
use keeper::Keeper;
use opening::Damaged;
use spaces::{Space, Spaces};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// The keyspace in which each commit puts its number. No user's name begins like this.
const COMMITS: &str = "\0commits";

/// How many keyspaces that were dropped are emptied at most when a store is closed.
const MAX_LAST: usize = 8;

/// A [`KeyValue`] store in a directory that this process owns while it is open.
///
/// What of it is damaged is an error, [`Error::Corrupt`], with place and count, when it is opened or when it is read; what then can be read is
/// read with [`salvage`].
pub struct FjallStore {
    inner: Arc<Inner>,
    keeper: Mutex<Option<Keeper>>,
}

/// What the store and its keeper share.
struct Inner {
    path: PathBuf,
    settings: FjallSettings,
    /// Where it is another directory than its own.
    database: PathBuf,
    open: RwLock<Option<Open>>,
    failure: Failure,
    /// What must be there, as it was written last. Held while keyspaces are made and dropped.
    mark: Mutex<mark::Mark>,
    /// The number of the newest commit that survives the machine losing power.
    synced: AtomicU64,
    bell: keeper::Bell,
    journals: room::Journals,
}

struct Open {
    // Dropped in this order: the trees before the database, the directory last.
    trees: RwLock<Trees>,
    spaces: Mutex<Spaces>,
    commits: Tree,
    /// The number of the last commit.
    number: Mutex<u64>,
    database: Database,
    /// Bytes that fjall counts as in memory, of keyspaces that were dropped with them.
    forgotten: AtomicU64,
    directory: Directory,
}

#[derive(Default)]
struct Trees {
    names: HashMap<String, Keyspace>,
    slots: BTreeMap<u32, Space>,
    next: u32,
}

/// The first failure of a commit: after it, nothing is promised any more.
#[derive(Debug, Default)]
struct Failure {
    is: AtomicBool,
    why: Mutex<String>,
}

impl Failure {
    fn check(&self) -> Result<()> {
        if !self.is.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::Poisoned { why: lock(&self.why).clone() })
    }

    /// Keeps the first error as the reason for all that follow.
    fn note(&self, error: Error) -> Error {
        let mut why = lock(&self.why);
        if !self.is.load(Ordering::Acquire) {
            *why = match &error {
                Error::Poisoned { why } => why.clone(),
                Error::Io { doing, source } => format!("could not {doing}: {source}"),
                Error::Full { source } => format!("the disk is full: {source}"),
                other => other.to_string(),
            };
            self.is.store(true, Ordering::Release);
        }
        error
    }
}

/// A thread that panics with one of these locks leaves a whole state behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl FjallStore {
    /// Opens a directory, and makes it where there is none. An older format is brought up to date.
    ///
    /// What is damaged in it is refused before anything in it is changed. Where a process was killed or the machine lost power, all is there
    /// that a commit promised.
    ///
    /// # Errors
    /// `Locked` names the process that has it open; `Version` where another format is in it; `Corrupt` says what is damaged, where, and how
    /// many commits are missing; those of the file system.
    pub fn open(path: &Path, settings: &FjallSettings) -> Result<Self> {
        let inner = opening::open(path, settings, &Damaged::Refuse)?;
        if let Some(open) = inner.read().as_ref() {
            inner.tidy_spaces(open)?;
        }
        reserve::restore(path);
        inner.bell.ring();
        Ok(Self::run(inner))
    }

    fn run(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        let keeper = Keeper::start(&inner);
        Self { inner, keeper: Mutex::new(keeper) }
    }
}

impl Inner {
    fn read(&self) -> RwLockReadGuard<'_, Option<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What nothing can be promised after. That a thread of fjall failed is all that it says of it, so the likely cause is looked for.
    fn broken(&self, error: ::fjall::Error, doing: &str) -> Error {
        let mut error = of_fjall(error, doing, &self.path);
        if let (Error::Poisoned { why }, Ok(Some(free))) = (&mut error, free_bytes(&self.path)) {
            why.push_str(&format!("; the disk has {free} bytes left"));
        }
        self.failure.note(error)
    }

    /// Commits under the next number.
    fn append(&self, open: &Open, mut writes: OwnedWriteBatch, number: &mut u64) -> Result<()> {
        self.failure.check()?;
        let next = *number + 1;
        writes.insert(&open.commits, journal::COMMIT_KEY, journal::encode_number(next).as_slice());
        writes.commit().map_err(|error| self.broken(error, "commit"))?;
        *number = next;
        Ok(())
    }

    fn failed(&self, doing: &'static str) -> impl Fn(::fjall::Error) -> Error {
        move |error| of_fjall(error, doing, &self.path)
    }

    /// Says that `keyspaces` must be there, and all that was synced.
    fn write_mark(&self, mark: &mut mark::Mark, keyspaces: Option<(u64, Option<(&str, u32)>)>) -> Result<()> {
        let mut next = mark.clone();
        match keyspaces {
            Some((id, Some((name, generation)))) => {
                next.keyspaces.insert(id, name.to_owned());
                match generation {
                    0 => next.generations.remove(&id),
                    generation => next.generations.insert(id, generation),
                };
            }
            Some((id, None)) => {
                next.keyspaces.remove(&id);
                next.generations.remove(&id);
            }
            None => {}
        }
        next.commit = self.synced.load(Ordering::Acquire);
        // Read after the number: the commit lies in one of these journals.
        next.journals = mark::journals(&self.database, next.commits, &mark.journals)
            .map_err(|error| of_io(error, "list the journals", &self.path))?;
        next.versions = None;
        next.write(&self.path).map_err(|error| of_io(error, "write the high-water mark", &self.path))?;
        *mark = next;
        Ok(())
    }
}

impl Open {
    fn trees(&self) -> RwLockReadGuard<'_, Trees> {
        self.trees.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn space(&self, keyspace: Keyspace) -> Result<Space> {
        self.trees().get(keyspace).cloned()
    }

    /// Whoever read a keyspace until it was dropped may have read what was left of it.
    fn still_holds(&self, keyspace: Keyspace) -> Result<()> {
        self.trees().get(keyspace).map(|_| ())
    }

    /// All trees there are.
    fn all_trees(&self) -> Vec<Tree> {
        let mut trees: Vec<Tree> = self.trees().slots.values().map(|space| space.tree.clone()).collect();
        trees.extend(lock(&self.spaces).unused().cloned());
        trees.push(self.commits.clone());
        trees
    }

    fn change(&self, change: impl FnOnce(&mut Trees)) {
        change(&mut self.trees.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Trees {
    fn get(&self, keyspace: Keyspace) -> Result<&Space> {
        self.slots.get(&keyspace.0).ok_or(Error::Dropped)
    }

    fn insert(&mut self, name: &str, space: Space) -> Keyspace {
        let keyspace = Keyspace(self.next);
        self.next += 1;
        self.slots.insert(keyspace.0, space);
        self.names.insert(name.to_owned(), keyspace);
        keyspace
    }
}

impl KeyValue for FjallStore {
    fn open_keyspace(&self, name: &str, purpose: Purpose) -> Result<Keyspace> {
        check_name(name)?;
        let inner = &self.inner;
        let open = inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        if let Some(keyspace) = open.trees().names.get(name) {
            return Ok(*keyspace);
        }
        let mut mark = lock(&inner.mark);
        if let Some(keyspace) = open.trees().names.get(name) {
            return Ok(*keyspace);
        }
        inner.failure.check()?;
        let held = lock(&open.spaces).held.get(name).cloned();
        let space = match held {
            Some(space) => space,
            None => inner.make_keyspace(open, &mut mark, name, purpose)?,
        };
        let mut keyspace = None;
        open.change(|trees| keyspace = Some(trees.insert(name, space)));
        keyspace.ok_or(Error::Dropped)
    }

    fn drop_keyspace(&self, keyspace: Keyspace) -> Result<()> {
        let inner = &self.inner;
        let open = inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        let mut mark = lock(&inner.mark);
        let space = open.space(keyspace)?;
        inner.failure.check()?;
        inner.drop_space(open, &mut mark, keyspace, space)?;
        inner.bell.ring();
        Ok(())
    }

    fn keyspaces(&self) -> Result<Vec<String>> {
        let open = self.inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        let spaces = lock(&open.spaces);
        Ok(spaces.held.keys().cloned().collect())
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        let open = self.inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        let space = open.space(keyspace)?;
        let value = space.tree.get(space.key(key)).map_err(self.inner.failed("read"))?;
        open.still_holds(keyspace)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> Result<Page> {
        let open = self.inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        let space = open.space(keyspace)?;
        let mut found = Collector::new(limit);
        if to.is_some_and(|to| to <= from) {
            return Ok(found.finish());
        }
        let (from, to) = (space.key(from), to.map(|to| space.key(to)).or_else(|| space.end()));
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let mut entries = space.tree.range(range);
        loop {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Backward => entries.next_back(),
            };
            let Some(entry) = entry else { break };
            let (key, value) = entry.into_inner().map_err(self.inner.failed("read"))?;
            if !found.take(Bytes::from(key).slice(space.prefix()..), value.into()) {
                break;
            }
        }
        open.still_holds(keyspace)?;
        Ok(found.finish())
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let inner = &self.inner;
        let open = inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        inner.failure.check()?;
        batch.check()?;
        let bytes = batch.bytes() as u64;
        let mode = match durability {
            Durability::None => None,
            Durability::ProcessCrash => Some(PersistMode::Buffer),
            Durability::PowerLoss => Some(PersistMode::SyncData),
        };
        let writes = OwnedWriteBatch::with_capacity(open.database.clone(), batch.len() + 1);
        let mut writes = writes.durability(mode);
        let touched: Vec<Tree> = {
            let trees = open.trees();
            let mut touched = Vec::new();
            for (keyspace, key, value) in batch.writes {
                let space = trees.get(keyspace)?;
                let tree = &space.tree;
                // A copy: a key that was read would keep the block it lies in.
                let key = space.key(&key);
                match value {
                    Some(value) => writes.insert(tree, key, value),
                    None => writes.remove(tree, key),
                }
                if touched.last() != Some(&keyspace) {
                    touched.push(keyspace);
                }
            }
            touched.sort_unstable();
            touched.dedup();
            touched
                .into_iter()
                .map(|keyspace| Ok(trees.get(keyspace)?.tree.clone()))
                .collect::<Result<_>>()?
        };
        inner.wait_for_room(open, &touched, bytes)?;
        inner.write(open, writes, durability == Durability::PowerLoss)
    }

    fn flush(&self, keyspace: Keyspace) -> Result<()> {
        // This waits for the disk, and holds up nobody but who closes the store.
        let open = self.inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        self.inner.write_out(open, &open.space(keyspace)?.tree)?;
        // Each commit puts its number there, which would keep every journal.
        self.inner.write_out(open, &open.commits)
    }

    fn usage(&self) -> Result<Usage> {
        let open = self.inner.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        if !open.directory.is_in_place() {
            return Err(Error::Replaced { path: self.inner.path.clone() });
        }
        let bytes = open.database.disk_space().map_err(self.inner.failed("measure the store"))?;
        Ok(Usage { bytes, free: free_bytes(&self.inner.path)? })
    }

    fn close(&self) -> Result<()> {
        let keeper = lock(&self.keeper).take();
        if let Some(keeper) = keeper {
            keeper.stop(&self.inner.bell);
        }
        if let Some(open) = self.inner.read().as_ref() {
            // What is left of it is done by who opens it next.
            for _ in 0..MAX_LAST {
                if !self.inner.empty_one(open).unwrap_or_default() {
                    break;
                }
            }
        }
        self.inner.close()
    }
}

impl Drop for FjallStore {
    fn drop(&mut self) {
        // Who wants to know how closing went calls `close`.
        _ = self.close();
    }
}

impl Inner {
    /// Commits what is written, with its number.
    fn write(&self, open: &Open, writes: OwnedWriteBatch, is_synced: bool) -> Result<()> {
        // One at a time, so that numbers lie in the journal in their order.
        let mut number = lock(&open.number);
        self.append(open, writes, &mut number)?;
        if is_synced {
            self.synced.store(*number, Ordering::Release);
        }
        Ok(())
    }

    /// Commits something of the store's own.
    fn record(
        &self,
        open: &Open,
        mode: Option<PersistMode>,
        add: impl FnOnce(&mut OwnedWriteBatch),
    ) -> Result<()> {
        let mut writes = OwnedWriteBatch::with_capacity(open.database.clone(), 2).durability(mode);
        add(&mut writes);
        self.write(open, writes, mode == Some(PersistMode::SyncData))
    }

    /// Ends fjall, and leaves an exact mark behind.
    fn close(&self) -> Result<()> {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(open) = open else { return Ok(()) };
        let persisted = match self.failure.check() {
            Err(_) => Ok(()),
            Ok(()) => open.database.persist(PersistMode::SyncAll).map_err(self.failed("close the store")),
        };
        let in_place = open.directory.is_in_place();
        let Open { trees, spaces, commits, number, database, directory, .. } = open;
        if persisted.is_ok() && self.failure.check().is_ok() {
            self.synced.store(*lock(&number), Ordering::Release);
        }
        drop((trees, spaces, commits, database));
        let marked = if in_place { self.write_last_mark() } else { Ok(()) };
        drop(directory);
        persisted.and(marked)
    }

    /// Nobody writes any more: what is there now must be there when it is opened again.
    fn write_last_mark(&self) -> Result<()> {
        let mut mark = lock(&self.mark);
        let write = |mark: &mut mark::Mark| {
            mark.commit = self.synced.load(Ordering::Acquire);
            mark.journals = mark::journals(&self.database, mark.commits, &mark.journals)?;
            mark.versions = Some(mark::versions(&self.database)?);
            mark.write(&self.path)
        };
        write(&mut mark).map_err(|error| of_io(error, "write the high-water mark", &self.path))
    }
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> Result<Option<u64>> {
    let about = rustix::fs::statvfs(path);
    let about = about.map_err(|error| of_io(error.into(), "measure the disk", path))?;
    Ok(Some(about.f_bavail.saturating_mul(about.f_frsize)))
}

#[cfg(not(unix))]
const fn free_bytes(_: &Path) -> Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_the_reason_of_all_that_follow() {
        let failure = Failure::default();
        failure.check().unwrap();
        let full = || Error::Full { source: std::io::ErrorKind::StorageFull.into() };
        assert!(matches!(failure.note(full()), Error::Full { .. }));
        failure.note(Error::Closed);
        let Err(Error::Poisoned { why }) = failure.check() else { panic!("it takes more") };
        assert!(why.contains("the disk is full"), "{why}");
    }
}
