//! Lines that a process wrote later than what they say: a thread that was about to write had been stopped (SIGSTOP), or had no processor.
//!
//! A member begins a handler, or hands a batch out, and writes that down a moment later. Where its partition went in that moment the line stands behind the one that says so.
//! That may be once for each partition that goes, and for each time that a process was stopped; what comes again, or later, is wrong.
//! Pure. Not here: who flags (`judge.rs`).

use std::collections::{HashMap, HashSet};

/// How long a thread that may run waits for a processor, at the most, in milliseconds.
const WAITS: u64 = 500;

/// A member, and a partition that it had in an epoch.
type Turn = (u32, u32, u64);

/// What went, and who was stopped.
#[derive(Debug, Default)]
pub(super) struct Slips {
    /// When a member was told.
    gone: HashMap<Turn, u64>,
    /// Of which partitions that are gone one handler was begun.
    begun: HashSet<Turn>,
    /// When members that had been stopped went on, and did not hand out anything since that was no longer theirs.
    went_on: HashMap<u32, u64>,
}

impl Slips {
    /// A partition is gone.
    pub(super) fn gone(&mut self, turn: Turn, at: u64) {
        self.gone.insert(turn, at);
    }

    /// A member that was stopped goes on.
    pub(super) fn goes_on(&mut self, member: u32, at: u64) {
        self.went_on.insert(member, at);
    }

    /// Whether a handler may be begun.
    pub(super) fn begins(&mut self, turn: Turn, at: u64) -> bool {
        self.gone.get(&turn).is_none_or(|gone| at <= gone + WAITS && self.begun.insert(turn))
    }

    /// Whether a member may hand out what another has by now: it had, before it was stopped.
    pub(super) fn hands(&mut self, member: u32, at: u64) -> bool {
        self.went_on.remove(&member).is_some_and(|went_on| at <= went_on + WAITS)
    }
}
