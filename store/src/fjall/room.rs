//! Bounds what is in memory: who waits, what is written out, and for how long.
//!
//! Not here: the thread that looks after it (`keeper.rs`).

use super::{
    Inner, Open,
    failure::{of_fjall, of_io},
};
use crate::{Error, Result};
use ::fjall::{AbstractTree, Database, Keyspace as Tree, PersistMode};
use std::{
    io,
    path::Path,
    sync::atomic::Ordering,
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

impl Inner {
    /// Waits until there is room for another commit to `trees`.
    pub(super) fn wait_for_room(&self, open: &Open, trees: &[Tree]) -> Result<()> {
        if self.has_room(open, trees) {
            return Ok(());
        }
        let since = now();
        loop {
            self.bell.ring();
            thread::sleep(PACE);
            self.failure.check()?;
            // fjall says only so that a thread of it has failed.
            let failed = |error| self.failure.note(of_fjall(error, "write a table", &self.path));
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

    /// Has what is largest written out until less than the bound is left. Answers when that is under way.
    pub(super) fn make_room(&self, open: &Open) -> Result<()> {
        let bound = self.settings.memory_bytes;
        if open.memory() < bound {
            return Ok(());
        }
        let mut trees: Vec<Tree> = open.trees().slots.iter().flatten().cloned().collect();
        trees.push(open.commits.clone());
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
