//! The key-value store in a directory, on fjall (a log-structured merge tree with one journal for all keyspaces).
//!
//! A commit is one entry of the journal, synced where it must survive a power cut. In the directory lie `lock` (who has it open), `format` (which
//! version of this layout it is) and `db/`, which is fjall's.
//! Not here: what owns a directory and which format it has (`directory.rs`).

mod directory;

use crate::{
    Direction, Durability, Error, KeyValue, Keyspace, Limit, Page, Purpose, Result, Usage, WriteBatch,
    key_value::Collector,
};
use ::fjall::{Database, Keyspace as Tree, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use bytes::Bytes;
use directory::Directory;
use std::{
    collections::HashMap,
    fmt,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// How a store on disk is set up. The defaults are small: about 60 MiB resident under load.
#[derive(Clone, Debug)]
pub struct FjallSettings {
    /// How much of a keyspace is gathered in memory before it is written to a table, in bytes. Default: 16 MiB.
    pub memtable_bytes: u64,
    /// How much the journal may hold before tables are written, in bytes; at least 64 MiB. Default: 128 MiB.
    pub journal_bytes: u64,
    /// The cache of blocks, in bytes. Default: 16 MiB.
    pub cache_bytes: u64,
    /// Threads that write and merge tables. Default: 2.
    pub workers: usize,
}

impl Default for FjallSettings {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self { memtable_bytes: 16 * MIB, journal_bytes: 128 * MIB, cache_bytes: 16 * MIB, workers: 2 }
    }
}

/// A [`KeyValue`] store in a directory that this process owns while it is open.
pub struct FjallStore {
    path: PathBuf,
    memtable_bytes: u64,
    open: RwLock<Option<Open>>,
    poisoned: AtomicBool,
}

struct Open {
    // Dropped in this order: the trees before the database, the directory last.
    names: HashMap<String, Keyspace>,
    trees: Vec<Option<Tree>>,
    database: Database,
    _directory: Directory,
}

impl fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FjallStore {
    /// Opens a directory, and makes it where there is none.
    ///
    /// # Errors
    /// `Locked` names the process that has it open; `Version` where another format is in it; `Corrupt`; those of the file system.
    pub fn open(path: &Path, settings: &FjallSettings) -> Result<Self> {
        let directory = Directory::own(path)?;
        let open = |database: &Path| {
            Database::builder(database)
                .cache_size(settings.cache_bytes)
                .max_journaling_size(settings.journal_bytes.max(64 * 1024 * 1024))
                .worker_threads(settings.workers.max(1))
                .open()
                .map_err(|error| of_fjall(error, "open the store", path))
        };
        directory.make(|aside| open(aside).map(drop))?;
        let database = open(&directory.database())?;
        let open = Open { names: HashMap::new(), trees: Vec::new(), database, _directory: directory };
        Ok(Self {
            path: path.to_owned(),
            memtable_bytes: settings.memtable_bytes,
            open: RwLock::new(Some(open)),
            poisoned: AtomicBool::new(false),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Open>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &'static str) -> impl Fn(::fjall::Error) -> Error {
        move |error| of_fjall(error, doing, &self.path)
    }
}

impl Open {
    fn tree(&self, keyspace: Keyspace) -> Result<&Tree> {
        self.trees.get(keyspace.0 as usize).and_then(Option::as_ref).ok_or(Error::Dropped)
    }
}

impl KeyValue for FjallStore {
    fn open_keyspace(&self, name: &str, _purpose: Purpose) -> Result<Keyspace> {
        let mut open = self.write();
        let open = open.as_mut().ok_or(Error::Closed)?;
        if let Some(keyspace) = open.names.get(name) {
            return Ok(*keyspace);
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(self.memtable_bytes);
        let tree = open.database.keyspace(name, options).map_err(self.failed("open a keyspace"))?;
        let keyspace = Keyspace(u32::try_from(open.trees.len()).unwrap_or(u32::MAX));
        open.trees.push(Some(tree));
        open.names.insert(name.to_owned(), keyspace);
        Ok(keyspace)
    }

    fn drop_keyspace(&self, keyspace: Keyspace) -> Result<()> {
        let mut open = self.write();
        let open = open.as_mut().ok_or(Error::Closed)?;
        let tree = open.trees.get_mut(keyspace.0 as usize).and_then(Option::take).ok_or(Error::Dropped)?;
        open.names.retain(|_, other| *other != keyspace);
        open.database.delete_keyspace(tree).map_err(self.failed("drop a keyspace"))
    }

    fn keyspaces(&self) -> Result<Vec<String>> {
        let open = self.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        let mut names: Vec<String> =
            open.database.list_keyspace_names().iter().map(|name| name.to_string()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        let open = self.read();
        let tree = open.as_ref().ok_or(Error::Closed)?.tree(keyspace)?;
        Ok(tree.get(key).map_err(self.failed("read"))?.map(Bytes::from))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> Result<Page> {
        let open = self.read();
        let tree = open.as_ref().ok_or(Error::Closed)?.tree(keyspace)?;
        let mut found = Collector::new(limit);
        if to.is_some_and(|to| to <= from) {
            return Ok(found.finish());
        }
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let mut entries = tree.range::<&[u8], _>(range);
        loop {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Backward => entries.next_back(),
            };
            let Some(entry) = entry else { return Ok(found.finish()) };
            let (key, value) = entry.into_inner().map_err(self.failed("read"))?;
            if !found.take(key.into(), value.into()) {
                return Ok(found.finish());
            }
        }
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let open = self.read();
        let open = open.as_ref().ok_or(Error::Closed)?;
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        batch.check()?;
        let mode = match durability {
            Durability::None => None,
            Durability::ProcessCrash => Some(PersistMode::Buffer),
            Durability::PowerLoss => Some(PersistMode::SyncData),
        };
        let mut writes = OwnedWriteBatch::with_capacity(open.database.clone(), batch.len()).durability(mode);
        for (keyspace, key, value) in batch.writes {
            let tree = open.tree(keyspace)?;
            match value {
                Some(value) => writes.insert(tree, key, value),
                None => writes.remove(tree, key),
            }
        }
        writes.commit().map_err(|error| {
            self.poisoned.store(true, Ordering::Release);
            of_fjall(error, "commit", &self.path)
        })
    }

    fn flush(&self, keyspace: Keyspace) -> Result<()> {
        // Taken out of the lock: this waits for the disk.
        let tree = self.read().as_ref().ok_or(Error::Closed)?.tree(keyspace)?.clone();
        tree.rotate_memtable_and_wait().map_err(self.failed("write a keyspace out"))
    }

    fn usage(&self) -> Result<Usage> {
        let open = self.read();
        let bytes = open.as_ref().ok_or(Error::Closed)?.database.disk_space();
        let bytes = bytes.map_err(self.failed("measure the store"))?;
        Ok(Usage { bytes, free: free_bytes(&self.path)? })
    }

    fn close(&self) -> Result<()> {
        let Some(open) = self.write().take() else { return Ok(()) };
        let persisted = if self.poisoned.load(Ordering::Acquire) {
            Ok(())
        } else {
            open.database.persist(PersistMode::SyncAll)
        };
        drop(open);
        persisted.map_err(self.failed("close the store"))
    }
}

impl Drop for FjallStore {
    fn drop(&mut self) {
        // Who wants to know how closing went calls `close`.
        _ = self.close();
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

fn of_fjall(error: ::fjall::Error, doing: &str, path: &Path) -> Error {
    use ::fjall::{Error as Fjall, LsmError as Tree};
    match error {
        Fjall::Io(source) | Fjall::Storage(Tree::Io(source)) => of_io(source, doing, path),
        Fjall::Poisoned => Error::Poisoned,
        Fjall::KeyspaceDeleted => Error::Dropped,
        Fjall::Locked => Error::Locked { path: path.to_owned(), owner: "another process".into() },
        other => Error::Corrupt { what: format!("{other} (in {})", path.display()) },
    }
}

fn of_io(source: std::io::Error, doing: &str, path: &Path) -> Error {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Full { source },
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
            Error::Corrupt { what: format!("{source} (in {})", path.display()) }
        }
        _ => Error::Io { doing: format!("{doing} in {}", path.display()), source },
    }
}
