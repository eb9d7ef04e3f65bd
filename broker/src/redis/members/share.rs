//! What a member knows of the log of a partition that it owns, and what is to be committed of it.
//!
//! Pure. Not here: what all backends do with an owned partition (`../../members/share.rs`), what is read (`reading.rs`), the commit itself (`run.rs`).

use super::super::{
    follow::{self, Counts, Followed, Told},
    keys::PartitionKeys,
};
use crate::{
    AckWindow, Bound, GapReason, Owned, Position,
    members::{self, Gap, Log, NONE, Read},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// The most bytes of a map of what is done beyond the position.
const MAX_MAP: usize = 64 * 1024;

/// What `take_over.lua` answered.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) of: Owned,
    pub(super) keys: PartitionKeys,
    pub(super) life: Option<u64>,
    pub(super) position: Position,
    /// Entries ever added before the position, where it is known.
    pub(super) read: Option<u64>,
    pub(super) map: Vec<u8>,
    /// Whether the group had a position.
    pub(super) resumed: bool,
    /// Its position in an earlier life, where nobody was told yet that this is another.
    pub(super) before: Option<Position>,
    /// What the log said of itself.
    pub(super) counts: Counts,
}

/// A commit that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) of: Owned,
    pub(super) keys: PartitionKeys,
    pub(super) life: Option<u64>,
    /// `None`: only to see whether the epoch holds.
    pub(super) store: Option<Store>,
    /// Which acks it covers.
    pub(super) changes: u64,
    /// How many had asked whether the epoch holds.
    pub(super) confirms: usize,
}

/// What a commit stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) position: Position,
    pub(super) read: Option<u64>,
    pub(super) map: Vec<u8>,
    pub(super) beyond: Option<u64>,
}

/// The log of a partition that a member owns.
#[derive(Debug)]
pub(in crate::redis) struct Stream {
    pub(super) life: Option<u64>,
    pub(super) followed: Followed,
    /// What is handed out: how many entries were added up to it, where that is known.
    counts: BTreeMap<Position, Option<u64>>,
    /// Behind the last that was handed out or is known to be done, and how many entries were added before.
    seen: (Position, Option<u64>),
    /// What was committed last.
    stored: (Position, Option<u64>),
    /// It was left out of the read that is under way, until less than this lies ready.
    pub(super) left_out: Option<Bound>,
    /// Who is to have it when it has gone; `None`: whoever should.
    pub(super) to: Option<String>,
}

impl Log for Stream {
    /// How many entries were added up to it, where that is known.
    type Mark = Option<u64>;

    /// It is given back first.
    const LAST: Option<Duration> = None;

    fn passed(&mut self, position: Position, count: Option<u64>, is_new: bool) {
        self.seen = (position.next(), count);
        if is_new {
            self.counts.insert(position, count);
        }
    }

    fn acked(&mut self, done: &[Position], _window: &AckWindow) {
        done.iter().for_each(|position| _ = self.counts.remove(position));
    }

    fn skipped(&mut self, to: Position) {
        self.seen = (self.seen.0.max(to), None);
    }

    fn wants_more(&mut self, ahead: Bound, _owned: usize) -> bool {
        let few = |until: &mut Bound| ahead.messages < until.messages && ahead.bytes < until.bytes;
        self.left_out.take_if(few).is_some()
    }
}

/// A partition that a member owns.
pub(super) type Share = members::Share<Stream>;

impl Share {
    pub(super) fn begin(taken: Taken) -> Self {
        let window = AckWindow::restore(taken.position, &taken.map).unwrap_or_else(|error| {
            tracing::warn!(topic = %taken.of.topic, partition = taken.of.partition, %error, "what was done beyond the position comes again");
            AckWindow::new(taken.position)
        });
        let known = (taken.position, taken.read);
        let followed = Followed::resuming(
            taken.of.clone(),
            taken.keys,
            taken.life,
            taken.position,
            taken.read,
            taken.counts.last.next(),
        );
        let log = Stream {
            life: taken.life,
            followed,
            counts: BTreeMap::new(),
            seen: known,
            stored: known,
            left_out: None,
            to: None,
        };
        let mut share = Self::new(taken.of, window, true, log);
        if taken.before.is_some() {
            share.put_gap(Gap { from: taken.before, to: Some(taken.position), why: GapReason::Recreated });
        }
        share
    }

    /// Tells first that the log lost its end, which ended the epoch before.
    pub(super) fn lost_its_end(&mut self, from: Option<Position>, to: Option<Position>) {
        self.begin_with(Gap { from, to, why: GapReason::Truncated });
    }

    /// Tells first that this is another topic than the one before, of which nothing is known any more.
    pub(super) fn begins_anew(&mut self) {
        self.begin_with(Gap { from: None, to: Some(self.from()), why: GapReason::Recreated });
    }

    /// Where reading begins.
    pub(super) fn from(&self) -> Position {
        self.window.position()
    }

    /// Whether it is read.
    pub(super) const fn is_read(&self) -> bool {
        !self.paused && self.is_kept()
    }

    /// Takes what was read.
    pub(super) fn put_all(&mut self, told: Vec<Told>) {
        // Entries were counted one by one; a gap, which ends the counting, comes before them.
        let mut left =
            told.iter().filter(|told| matches!(told, Told::Message(_) | Told::Unreadable { .. })).count();
        let count = self.log.followed.count();
        let mut next = || {
            left -= 1;
            count.and_then(|count| count.checked_sub(left as u64))
        };
        for told in told {
            match told {
                Told::Message(delivery) => {
                    let (position, what) = (delivery.position, Ok(delivery.message));
                    self.put(Read { position, mark: next(), what });
                }
                Told::Unreadable { at, raw, why } => {
                    self.put(Read { position: at, mark: next(), what: Err((Some(raw), why)) });
                }
                Told::Gap { from, to, why } => self.put_gap(Gap { from, to, why }),
                Told::CaughtUp => self.put_caught_up(),
                // Its owner loses it.
                Told::Deleted => {}
            }
        }
    }

    /// What is stored once these are done as well.
    pub(super) fn store_with(&self, done: &[Position]) -> Store {
        let mut window = self.window.clone();
        for position in done {
            window.ack(*position);
        }
        self.store(&window, done)
    }

    fn store(&self, window: &AckWindow, done: &[Position]) -> Store {
        let position = window.position();
        let read = self.read_before(position, done);
        let (map, _) = window.encode(MAX_MAP);
        let whole = window.until() == self.log.seen.0;
        let beyond = || {
            let behind = self.log.seen.1.filter(|_| whole)?.checked_sub(read?)?;
            behind.checked_sub(window.holes() as u64)
        };
        Store { position, read, map, beyond: beyond() }
    }

    /// Notes that a forward took effect, which acks `done`: `store` is stored, with the acks up to `changes`. How much that frees.
    pub(super) fn forwarded(
        &mut self,
        done: &[Position],
        store: &Store,
        changes: u64,
        now: Instant,
    ) -> Bound {
        let others = self.changes > changes;
        let freed = self.ack(done, now).unwrap_or(NONE);
        // Acks that came meanwhile are not stored yet.
        self.saved = self.saved.max(if others { changes } else { self.changes });
        self.log.stored = (store.position, store.read);
        self.dirty = self.dirty.filter(|_| self.is_dirty());
        self.end_if_stored();
        freed
    }

    /// What is to be committed.
    pub(super) fn commit(&self) -> Commit {
        let store = (self.is_dirty()).then(|| self.store(&self.window, &[]));
        Commit {
            of: self.of.clone(),
            keys: self.log.followed.keys.clone(),
            life: self.log.life,
            store,
            changes: self.changes,
            confirms: self.confirms.len(),
        }
    }

    /// Notes that a commit took effect.
    pub(super) fn committed(&mut self, commit: &Commit, now: Instant) {
        if let Some(store) = &commit.store {
            self.log.stored = (store.position, store.read);
        }
        self.stored(commit.changes, commit.confirms, now);
    }

    /// How many entries were ever added before the position, where it is known, once these are done.
    fn read_before(&self, position: Position, done: &[Position]) -> Option<u64> {
        if position == self.log.stored.0 && self.log.stored.1.is_some() {
            return self.log.stored.1;
        }
        match self.log.counts.iter().find(|(open, _)| !done.contains(open)) {
            Some((first, count)) if *first == position => count.and_then(|count| count.checked_sub(1)),
            _ if position == self.log.seen.0 => self.log.seen.1,
            _ => None,
        }
    }
}

/// Where the mirror of a position stands.
pub(super) const fn done_before(position: Position) -> Position {
    follow::before(position)
}
