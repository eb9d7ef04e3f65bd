//! A disk that outlives its brokers and stops by script: at any change that is made to it, before or after it is applied, with or without
//! an answer; and at any read.
//!
//! What it holds is in memory. Each broker gets a handle of its own, which is good for one process: once that is killed nothing comes through
//! it any more. Not here: programs (`tests/model/crashes/`).

use crate::backends::lock;
use bytes::Bytes;
use ropeway_store::{
    Direction, Durability, Error, KeyValue, Keyspace, Limit, MemoryStore, Page, Purpose, Result, Usage,
    WriteBatch,
};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

/// What happens at a change: a commit, a keyspace made or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process is killed before it is applied.
    Before,
    /// The process is killed when it is applied, and before that is answered.
    After,
    /// It is applied, and answered with an error.
    FailsApplied,
    /// It is not applied, and answered with an error.
    Fails,
}

/// When something goes wrong, counted from 0 over the life of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// At that change.
    Change(u64, Stop),
    /// That read answers an error; later ones work.
    Read(u64),
}

/// A record that a change wrote or removed, as a [`Flaw`] is asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// The name of the keyspace.
    pub keyspace: &'a str,
    /// The key.
    pub key: &'a [u8],
    /// Whether it was removed.
    pub removed: bool,
}

/// How a disk is wrong: which records are not as they should be after a crash, although what changed them was answered.
#[derive(Clone, Copy, Debug)]
pub enum Flaw {
    /// That part of the last commit is not there.
    Loses(fn(&Written<'_>) -> bool),
    /// What one commit removed of these is all there again, unless something was written in its place; keyspaces are never dropped.
    Revives(fn(&Written<'_>) -> bool),
}

/// A record as it was before a change: its keyspace, key and value.
type Before = (String, Bytes, Option<Bytes>);

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    store: MemoryStore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Which process may use it.
    process: u64,
    killed: bool,
    failed: bool,
    read_failed: bool,
    changes: u64,
    reads: u64,
    faults: Vec<Fault>,
    flaw: Option<Flaw>,
    /// What the last commit changed, as it was before.
    last: Vec<Before>,
    /// What each commit removed that comes back.
    removed: Vec<Vec<Before>>,
}

impl Disk {
    /// An empty disk on which these things go wrong.
    #[must_use]
    pub fn with_faults(faults: Vec<Fault>) -> Self {
        let disk = Self::default();
        disk.state().faults = faults;
        disk
    }

    /// Makes it wrong in that way whenever a process is killed.
    #[must_use]
    pub fn flawed(self, flaw: Option<Flaw>) -> Self {
        self.state().flaw = flaw;
        self
    }

    /// What a new process sees of it; the process before is over.
    #[must_use]
    pub fn start(&self) -> Arc<dyn KeyValue> {
        self.kill();
        let mut state = self.state();
        state.process += 1;
        (state.killed, state.failed, state.read_failed) = (false, false, false);
        Arc::new(Handle { disk: self.clone(), process: state.process })
    }

    /// Kills the process.
    pub fn kill(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.killed, true) {
            self.forget(&mut state);
        }
    }

    /// Whether the process was killed.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.state().killed
    }

    /// Whether a change of this process failed, so that no more are taken.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Whether a read failed since this was asked.
    #[must_use]
    pub fn take_failed_read(&self) -> bool {
        std::mem::take(&mut self.state().read_failed)
    }

    /// How many changes and reads there were.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.changes, state.reads)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Makes a change, or not, as the script says.
    fn change(&self, process: u64, apply: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let mut state = self.state();
        alive(&state, process)?;
        if state.failed {
            return Err(Error::Poisoned { why: "the disk is on fire".into() });
        }
        let now = state.changes;
        state.changes += 1;
        let stop = state.faults.iter().find_map(|fault| match fault {
            Fault::Change(at, stop) if *at == now => Some(*stop),
            _ => None,
        });
        match stop {
            None => apply(&mut state),
            Some(Stop::Before) => {
                state.killed = true;
                self.forget(&mut state);
                Err(gone())
            }
            Some(Stop::After) => {
                apply(&mut state)?;
                state.killed = true;
                self.forget(&mut state);
                Err(gone())
            }
            Some(Stop::FailsApplied) => {
                apply(&mut state)?;
                state.failed = true;
                Err(on_fire("write"))
            }
            Some(Stop::Fails) => {
                state.failed = true;
                Err(on_fire("write"))
            }
        }
    }

    fn read(&self, process: u64) -> Result<()> {
        let mut state = self.state();
        alive(&state, process)?;
        let now = state.reads;
        state.reads += 1;
        if state.faults.contains(&Fault::Read(now)) {
            state.read_failed = true;
            return Err(on_fire("read"));
        }
        Ok(())
    }

    /// Takes back what the flaw names.
    fn forget(&self, state: &mut State) {
        let last = std::mem::take(&mut state.last);
        let changes = match state.flaw {
            None => return,
            Some(Flaw::Loses(flaw)) => vec![self.of(last, flaw)],
            Some(Flaw::Revives(_)) => std::mem::take(&mut state.removed),
        };
        for change in changes {
            if matches!(state.flaw, Some(Flaw::Revives(_))) && change.iter().any(|record| self.there(record))
            {
                continue;
            }
            let mut batch = WriteBatch::new();
            for (keyspace, key, before) in change {
                let Ok(space) = self.0.store.open_keyspace(&keyspace, Purpose::State) else { continue };
                match before {
                    Some(value) => batch.put(space, key, value),
                    None => batch.delete(space, key),
                }
            }
            _ = self.0.store.commit(batch, Durability::None);
        }
    }

    /// What a flaw names of a change that was made.
    fn of(&self, change: Vec<Before>, flaw: fn(&Written<'_>) -> bool) -> Vec<Before> {
        let named = |record: &Before| {
            flaw(&Written { keyspace: &record.0, key: &record.1, removed: !self.there(record) })
        };
        change.into_iter().filter(named).collect()
    }

    /// Whether there is a record of that key.
    fn there(&self, (keyspace, key, _): &Before) -> bool {
        let space = self.0.store.open_keyspace(keyspace, Purpose::State).ok();
        space.is_some_and(|space| self.0.store.get(space, key).ok().flatten().is_some())
    }

    /// All that it holds, for a disk that is wrong.
    fn everything(&self) -> Result<BTreeMap<(String, Bytes), Bytes>> {
        let all = Limit { items: usize::MAX, bytes: usize::MAX };
        let mut found = BTreeMap::new();
        for name in self.0.store.keyspaces()? {
            let space = self.0.store.open_keyspace(&name, Purpose::State)?;
            let page = self.0.store.scan(space, &[], None, Direction::Forward, all)?;
            found.extend(page.items.into_iter().map(|(key, value)| ((name.clone(), key), value)));
        }
        Ok(found)
    }

    /// Commits, and notes what that changed.
    fn commit(&self, state: &mut State, batch: WriteBatch, durability: Durability) -> Result<()> {
        if state.flaw.is_none() {
            return self.0.store.commit(batch, durability);
        }
        let before = self.everything()?;
        self.0.store.commit(batch, durability)?;
        let after = self.everything()?;
        let of = |(name, key): &(String, Bytes), value: Option<&Bytes>| {
            (name.clone(), key.clone(), value.cloned())
        };
        let changed = before.iter().filter(|(at, value)| after.get(*at) != Some(*value));
        state.last = changed.map(|(at, value)| of(at, Some(value))).collect();
        state.last.extend(after.keys().filter(|at| !before.contains_key(*at)).map(|at| of(at, None)));
        if let Some(Flaw::Revives(flaw)) = state.flaw {
            let last = std::mem::take(&mut state.last);
            state.removed.push(self.of(last, flaw));
        }
        Ok(())
    }
}

fn alive(state: &State, process: u64) -> Result<()> {
    if state.process == process && !state.killed { Ok(()) } else { Err(gone()) }
}

fn gone() -> Error {
    Error::Io { doing: "reach the disk".into(), source: io::Error::other("the process was killed") }
}

fn on_fire(doing: &str) -> Error {
    Error::Io { doing: doing.into(), source: io::Error::other("the disk is on fire") }
}

/// What one process sees of a disk.
#[derive(Debug)]
struct Handle {
    disk: Disk,
    process: u64,
}

impl KeyValue for Handle {
    fn open_keyspace(&self, name: &str, purpose: Purpose) -> Result<Keyspace> {
        let store = &self.disk.0.store;
        if !store.keyspaces()?.iter().any(|there| there == name) {
            self.disk.change(self.process, |_| store.open_keyspace(name, purpose).map(drop))?;
        }
        alive(&self.disk.state(), self.process)?;
        store.open_keyspace(name, purpose)
    }

    fn drop_keyspace(&self, keyspace: Keyspace) -> Result<()> {
        self.disk.change(self.process, |state| match state.flaw {
            Some(Flaw::Revives(_)) => Ok(()),
            _ => self.disk.0.store.drop_keyspace(keyspace),
        })
    }

    fn keyspaces(&self) -> Result<Vec<String>> {
        self.disk.read(self.process)?;
        self.disk.0.store.keyspaces()
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.disk.read(self.process)?;
        self.disk.0.store.get(keyspace, key)
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> Result<Page> {
        self.disk.read(self.process)?;
        self.disk.0.store.scan(keyspace, from, to, direction, limit)
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.disk.change(self.process, |state| self.disk.commit(state, batch, durability))
    }

    fn flush(&self, keyspace: Keyspace) -> Result<()> {
        self.disk.0.store.flush(keyspace)
    }

    fn usage(&self) -> Result<Usage> {
        self.disk.0.store.usage()
    }

    /// What it holds is for the next process.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}
