//! What takes the disk a while and nobody waits for: making, flushing and dropping keyspaces, and measuring what is taken.
//!
//! The core asks for it in a step; it is done once that step is committed. `embedded:` has a thread for it; for `memory:` it is done by who runs
//! the step.
//! Not here: what is to be done (`core/segments.rs`, `core/retention.rs`).

use super::core::{Life, open_segment};
use crate::Result;
use ropeway_store::{Error, KeyValue, Keyspace};
#[cfg(feature = "embedded")]
use std::time::Duration;
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Of how many times that there is too little room it is tried once to get some.
#[cfg(feature = "embedded")]
pub(super) const RELIEF: u32 = 10;

/// How often it is measured what the store takes, or after each chore.
#[cfg(feature = "embedded")]
pub(super) const PACE: Duration = Duration::from_secs(1);

/// Something to be done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chore {
    /// Make the keyspace of a segment; the core waits for it.
    Open { life: Life, number: u64 },
    /// Remove a keyspace and all that it holds. What is not removed is an orphan, which the next open removes.
    Drop(Keyspace),
    /// Move a keyspace out of memory.
    Flush(Keyspace),
}

/// The answer to [`Chore::Open`].
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) life: Life,
    pub(super) number: u64,
    pub(super) log: Result<Keyspace>,
}

/// What a chore comes to.
#[derive(Debug)]
pub(super) enum Done {
    /// The core is told that.
    Opened(Opened),
    /// It is over.
    Over,
    /// It failed and is to be tried again: until then its room is not given back.
    Failed(Error),
}

impl Chore {
    /// Does it.
    pub(super) fn run(self, store: &dyn KeyValue) -> Done {
        let done = match self {
            Self::Open { life, number } => {
                return Done::Opened(Opened { life, number, log: open_segment(store, life, number) });
            }
            Self::Drop(log) => store.drop_keyspace(log),
            Self::Flush(log) => store.flush(log),
        };
        match done {
            // Dropped already, the broker is closed meanwhile, or the store takes nothing any more: the next open removes what is left over.
            Ok(()) | Err(Error::Dropped | Error::Closed | Error::Poisoned { .. }) => Done::Over,
            Err(error) => Done::Failed(error),
        }
    }
}

/// The chores of the thread that does them. There are never more than segments and callers.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the core waits for comes first.
    urgent: VecDeque<Chore>,
    others: VecDeque<Chore>,
    /// One is being done.
    busy: bool,
    ended: bool,
}

impl Housekeeping {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these done.
    pub(super) fn add(&self, chores: Vec<Chore>) {
        let mut state = self.state();
        for chore in chores {
            match chore {
                Chore::Open { .. } => state.urgent.push_back(chore),
                Chore::Drop(_) | Chore::Flush(_) => state.others.push_back(chore),
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The next chore, where one comes within a time, and who does it; `None` at the end.
    #[cfg(feature = "embedded")]
    pub(super) fn next(&self, within: Duration) -> Option<(Option<Chore>, Busy<'_>)> {
        let mut state = self.state();
        if state.urgent.is_empty() && state.others.is_empty() && !state.ended {
            let waited = self.changed.wait_timeout(state, within);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        if state.ended {
            return None;
        }
        let chore = state.urgent.pop_front().or_else(|| state.others.pop_front());
        state.busy = true;
        Some((chore, Busy(self)))
    }

    /// Nothing more is done. What is being done is waited for, as long as the disk takes for one keyspace.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        self.changed.notify_all();
        while state.busy {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Somebody does a chore.
#[cfg(feature = "embedded")]
pub(super) struct Busy<'a>(&'a Housekeeping);

#[cfg(feature = "embedded")]
impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state().busy = false;
        self.0.changed.notify_all();
    }
}
