//! One step: what a number of commands decided, to be committed at once and then made visible.

use super::{Life, MemberId, ShareId, appends::Appends, member::Told};
use crate::{
    Error, MessageId, Timestamp,
    embedded::{
        housekeeping::Chore,
        time::{Mark, Steady},
    },
};
use bytes::Bytes;
use ropeway_store::{Durability, WriteBatch};
use std::collections::{BTreeSet, HashSet};

/// What is done when the commit is over; it is told how the commit failed, if it did.
pub(in crate::embedded) type After = Box<dyn FnOnce(Option<&Error>) + Send>;

/// What is decided and not yet committed.
pub(in crate::embedded) struct Step {
    /// When it is decided: what deadlines, ages and windows go by.
    pub(in crate::embedded) now: Steady,
    /// When it is decided, by the machine's clock: what delays go by and messages are stamped with.
    pub(in crate::embedded) time_of_day: Timestamp,
    /// Both, as they are stored.
    pub(super) mark: Mark,
    /// What will be written, but for what is appended to logs.
    pub(in crate::embedded) batch: WriteBatch,
    /// What is appended to logs.
    pub(super) appends: Appends,
    /// What the commit must survive.
    pub(in crate::embedded) durability: Durability,
    /// Partitions that changed.
    pub(super) touched: Vec<(Life, u32)>,
    /// Topics whose own record changed.
    pub(super) topics: BTreeSet<Life>,
    /// Cursors that are to be stored.
    pub(super) cursors: BTreeSet<ShareId>,
    /// What members will be told.
    pub(super) told: Vec<(MemberId, Told)>,
    /// Ids published by this step, where they are remembered.
    pub(super) seen: HashSet<(Life, MessageId)>,
    /// Delayed messages taken back by this step, by their place.
    pub(super) cancelled: HashSet<Bytes>,
    /// How many bytes it writes.
    pub(super) bytes: u64,
    /// How many messages it writes.
    pub(in crate::embedded) published: u64,
    /// Ids forgotten by this step, by their `forget_key`.
    pub(super) forgotten: HashSet<Bytes>,
    /// What is to be done when it is committed, on the disk.
    pub(in crate::embedded) chores: Vec<Chore>,
    after: Vec<After>,
}

impl Step {
    pub(in crate::embedded) fn new(mark: Mark, durability: Durability) -> Self {
        Self {
            now: mark.steady,
            time_of_day: mark.time_of_day,
            mark,
            batch: WriteBatch::new(),
            appends: Appends::default(),
            durability,
            touched: Vec::new(),
            topics: BTreeSet::new(),
            cursors: BTreeSet::new(),
            told: Vec::new(),
            seen: HashSet::new(),
            cancelled: HashSet::new(),
            bytes: 0,
            published: 0,
            forgotten: HashSet::new(),
            chores: Vec::new(),
            after: Vec::new(),
        }
    }

    /// Does something when the commit is over, outside of all locks.
    pub(in crate::embedded) fn after(&mut self, then: impl FnOnce(Option<&Error>) + Send + 'static) {
        self.after.push(Box::new(then));
    }

    pub(in crate::embedded) fn take_after(&mut self) -> Vec<After> {
        std::mem::take(&mut self.after)
    }

    /// The commit must survive at least that.
    pub(super) fn at_least(&mut self, durability: Durability) {
        self.durability = self.durability.max(durability);
    }

    pub(super) fn tell(&mut self, member: MemberId, told: Told) {
        self.told.push((member, told));
    }
}
