//! Bounds what is in memory: who waits, what is written out, and for how long.
//!
//! Not here: the thread that looks after it (`keeper.rs`).

use super::{
    Inner, Open,
    failure::{of_fjall, of_io},
    journal, lock,
};
use crate::{Error, Result};
use ::fjall::{AbstractTree, Database, Keyspace as Tree, OwnedWriteBatch, PersistMode};
use std::{
    io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How many memtables of a keyspace may wait to be written. fjall itself waits at 4, for ever where the thread is gone that writes them.
const MAX_SEALED: usize = 3;

/// How many tables may lie side by side unmerged. fjall itself waits at 20, and at 30 for ever.
const MAX_SIDE_BY_SIDE: usize = 19;

/// How long anybody waits for tables to be written.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked whether they were.
const PACE: Duration = Duration::from_millis(2);

/// How much the journals may hold beyond their bound: the one that is written to, and one that is being put into tables.
const MORE_JOURNAL: u64 = 128 * 1024 * 1024;

/// After how many bytes of commits journals are measured.
const MEASURE_EVERY: u64 = 8 * 1024 * 1024;

/// How long the oldest journal may stay while they hold more than they should, before it is looked who keeps it.
const STAY: Duration = Duration::from_secs(1);

/// How long a commit waits at most for journals to get shorter.
const BRAKE: Duration = Duration::from_secs(1);

/// What is known of the journals on the disk.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// Bytes of commits since they were measured.
    since: AtomicU64,
    /// They hold more than they may.
    are_full: AtomicBool,
    /// The oldest of them, and since when it was seen while they hold more than they should.
    oldest: Mutex<Option<(u64, Instant)>>,
}

impl Inner {
    /// Waits until there is room for another commit of so many `bytes` to `trees`.
    pub(super) fn wait_for_room(&self, open: &Open, trees: &[Tree], bytes: u64) -> Result<()> {
        if self.journals.since.fetch_add(bytes, Ordering::Relaxed) > MEASURE_EVERY {
            self.journals.since.store(0, Ordering::Relaxed);
            self.bell.ring();
        }
        let full = || self.journals.are_full.load(Ordering::Relaxed);
        if full() {
            // A bound of its own, because it is the disk's room and not its life that is at stake.
            let since = now();
            while full() && since.elapsed() < BRAKE {
                self.bell.ring();
                thread::sleep(PACE);
            }
        }
        if self.has_room(open, trees) {
            return Ok(());
        }
        let since = now();
        loop {
            self.bell.ring();
            thread::sleep(PACE);
            self.failure.check()?;
            // fjall says only so that a thread of it has failed.
            let failed = |error| self.broken(error, "write a table");
            open.database.persist(PersistMode::Buffer).map_err(failed)?;
            if self.has_room(open, trees) {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(self.failure.note(late(&self.path)));
            }
        }
    }

    fn has_room(&self, open: &Open, trees: &[Tree]) -> bool {
        let memory = open.memory();
        if memory >= self.settings.memory_bytes {
            self.bell.ring();
        }
        memory < self.settings.memory_bytes.saturating_mul(2)
            && trees.iter().all(|tree| {
                tree.sealed_memtable_count() < MAX_SEALED && tree.tree.l0_run_count() < MAX_SIDE_BY_SIDE
            })
    }

    /// Measures the journals; where they hold more than they may, has all written out that may keep the oldest.
    pub(super) fn shorten_journals(&self, open: &Open) -> Result<()> {
        let failed = |error| of_io(error, "measure the journals", &self.path);
        let journals = journal::list(&self.database).map_err(failed)?;
        let bytes: u64 =
            journals.iter().map(|(_, path)| path.metadata().map_or(0, |about| about.len())).sum();
        let bound = self.settings.journal_bytes.max(MORE_JOURNAL / 2) + MORE_JOURNAL;
        let are_full = bytes > bound;
        self.journals.are_full.store(are_full, Ordering::Relaxed);
        if are_full {
            for tree in open.all_trees().iter().filter(|tree| tree.sealed_memtable_count() == 0) {
                tree.rotate_memtable().map_err(self.failed("write a keyspace out"))?;
            }
        }
        match &journals[..] {
            [(oldest, path), _, ..] => self.release(open, (*oldest, path), bytes > bound - MORE_JOURNAL / 2),
            _ => Ok(()),
        }
    }

    /// Has the oldest journal given up, where it stays although there are `many`.
    fn release(&self, open: &Open, (oldest, path): (u64, &Path), many: bool) -> Result<()> {
        let mut seen = lock(&self.journals.oldest);
        match &mut *seen {
            _ if !many => *seen = None,
            Some((id, since)) if *id == oldest => {
                if since.elapsed() > STAY {
                    *since = now();
                    self.renew(open, path)?;
                }
            }
            _ => *seen = Some((oldest, now())),
        }
        Ok(())
    }

    /// Writes to each keyspace that keeps a journal although all it has is in tables.
    ///
    /// fjall knows what is in tables by the highest sequence number in them. Where the newest records are deletes, they are merged away in the
    /// end, and with them the trace that the journal is not needed any more; only a newer record brings it back.
    fn renew(&self, open: &Open, journal: &Path) -> Result<()> {
        let newest = journal::newest(journal);
        let newest = newest.map_err(|error| of_io(error, "read a journal", &self.path))?;
        // While this is held, none of them is dropped.
        let _mark = lock(&self.mark);
        for tree in open.all_trees() {
            let is_kept = newest
                .get(&tree.id())
                .is_some_and(|newest| tree.tree.get_highest_persisted_seqno() < Some(*newest));
            let is_written = tree.tree.get_highest_memtable_seqno().is_none();
            if is_kept && is_written {
                self.delete_nothing(open, &tree)?;
                tree.rotate_memtable().map_err(self.failed("write a keyspace out"))?;
            }
        }
        Ok(())
    }

    /// Commits the delete of a key that is not there.
    fn delete_nothing(&self, open: &Open, tree: &Tree) -> Result<()> {
        // Nobody commits while this is held.
        let mut number = lock(&open.number);
        let mut key = vec![0];
        while tree.contains_key(&key).map_err(self.failed("read"))? {
            key.push(0);
        }
        let mut writes = OwnedWriteBatch::with_capacity(open.database.clone(), 2);
        writes.remove(tree, key);
        self.append(open, writes, &mut number)
    }

    /// Has what is largest written out until less than the bound is left. Answers when that is under way.
    pub(super) fn make_room(&self, open: &Open) -> Result<()> {
        let bound = self.settings.memory_bytes;
        if open.memory() < bound {
            return Ok(());
        }
        let trees = open.all_trees();
        let exact: u64 = trees.iter().map(|tree| tree.tree.version_memtable_size_sum()).sum();
        let counted = open.database.write_buffer_size();
        open.forgotten.store(counted.saturating_sub(exact), Ordering::Relaxed);
        if exact < bound {
            return Ok(());
        }
        let mut active: Vec<(u64, Tree)> =
            trees.into_iter().map(|tree| (tree.tree.active_memtable().size(), tree)).collect();
        active.sort_unstable_by_key(|(size, _)| *size);
        let mut left: u64 = active.iter().map(|(size, _)| *size).sum();
        // What is not active is being written already.
        while let Some((size, tree)) = active.pop().filter(|_| left > bound / 2) {
            if tree.sealed_memtable_count() < MAX_SEALED {
                tree.rotate_memtable().map_err(self.failed("write a keyspace out"))?;
                left -= size;
            }
        }
        Ok(())
    }

    /// Writes what of a tree is in memory to a table.
    pub(super) fn write_out(&self, open: &Open, tree: &Tree) -> Result<()> {
        self.failure.check()?;
        let written = write_out(tree, &open.database, &self.path);
        written.map_err(|error| match error {
            Error::Poisoned { .. } => self.failure.note(error),
            other => other,
        })
    }
}

/// Writes what of a tree is in memory to a table, and answers when it is there.
///
/// # Errors
/// `Poisoned` where fjall takes no more; `Io` where it takes too long.
pub(super) fn write_out(tree: &Tree, database: &Database, path: &Path) -> Result<()> {
    let failed = |error| of_fjall(error, "write a keyspace out", path);
    let goal = tree.tree.get_highest_memtable_seqno();
    tree.rotate_memtable().map_err(failed)?;
    let since = now();
    // Where it is written to meanwhile, there may always be something.
    while tree.sealed_memtable_count() > 0 && tree.tree.get_highest_persisted_seqno() < goal {
        database.persist(PersistMode::Buffer).map_err(failed)?;
        if since.elapsed() > PATIENCE {
            return Err(late(path));
        }
        thread::sleep(PACE);
    }
    Ok(())
}

impl Open {
    /// Bytes of records in memory that are not in tables yet, at least that.
    fn memory(&self) -> u64 {
        self.database.write_buffer_size().saturating_sub(self.forgotten.load(Ordering::Relaxed))
    }
}

fn late(path: &Path) -> Error {
    let why = format!("no table was written for {} seconds", PATIENCE.as_secs());
    of_io(io::Error::new(io::ErrorKind::TimedOut, why), "write a keyspace out", path)
}

#[expect(clippy::disallowed_methods, reason = "this bounds a wait for the disk, which no test's clock moves")]
fn now() -> Instant {
    Instant::now()
}
