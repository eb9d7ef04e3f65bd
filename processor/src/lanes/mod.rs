//! Which work may run now: one lane per live key.
//!
//! [`Lanes`] decides and nothing else: it takes `now`, starts nothing and waits for nothing. A lane is the queue of one key; its head runs,
//! waits for its next attempt, or is ready to run, and everything behind it waits. Lanes are exact: two keys never share one, so a slow
//! key never delays another. Work without key has a lane of its own. Of ready lanes the one has its turn whose work came first, so that a key
//! with more to do than others does not stay behind; but after [`TURNS`] turns a lane is behind all that are ready then, so that
//! nobody waits long for those with much to do.
//!
//! Some of what is behind a head may be sent out with it ([`Lanes::follow`]), to be run in that order without asking again; what of it was
//! not started can be taken back ([`Lanes::take_back`]).
//!
//! Costs: a hash to push, the logarithm of how many are ready for a turn, and of how many wait for a retry, all else constant; [`Lanes::forget`]
//! looks at everything. About 100 bytes for each piece of work and 60 for each live key, beside the work itself.
//!
//! Invariants: work of a key goes out in the order it came in, and is given back in that order; what is out of a key lies before all else
//! of it; a ticket is given back exactly once.
//! Not here: how much may run at a time and running it (`pool/`), how long to wait before a retry (`retry.rs`).

#[cfg(test)]
mod tests;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{BuildHasher, Hash},
};
use tokio::time::Instant;

/// So many turns a lane has before those whose work came later.
const TURNS: u8 = 16;

/// Work that is out. Give it back with [`Lanes::finish`] or [`Lanes::retry`].
#[derive(Debug)]
#[must_use = "a ticket that is not given back blocks its key for ever"]
pub(crate) struct Ticket(usize);

/// The lanes of all live keys.
#[derive(Debug)]
pub(crate) struct Lanes<K, T> {
    work: Slab<Work<T>>,
    lanes: Slab<Lane<K>>,
    /// Places of lanes with a key. A lane keeps the hash of its key, so that a key is hashed once for each piece of work.
    by_key: HashTable<usize>,
    /// Seeded, and much quicker than the standard one.
    hasher: DefaultHashBuilder,
    /// Lanes whose head may run, by when that came.
    ready: BinaryHeap<Reverse<(u64, usize)>>,
    /// Heads that wait for their next attempt, the earliest first; the number keeps those of the same instant in order.
    waiting: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    retries: u64,
    /// The number of what came last, or had to stand behind it.
    came: u64,
    out: usize,
}

#[derive(Debug)]
struct Work<T> {
    value: T,
    lane: usize,
    /// Its number in the order of coming.
    came: u64,
    behind: Option<usize>,
    /// It is out, and was forgotten meanwhile.
    forgotten: bool,
}

#[derive(Debug)]
struct Lane<K> {
    /// The key and its hash.
    key: Option<(K, u64)>,
    head: usize,
    tail: usize,
    /// How many are out, from the head on.
    out: usize,
    /// The last of them; the head where none is.
    last_out: usize,
    /// Turns that it had since it was behind all others.
    turns: u8,
}

impl<K> Lane<K> {
    fn hash(&self) -> u64 {
        self.key.as_ref().map_or(0, |(_, hash)| *hash)
    }
}

fn is_of<K: Eq>(lane: Option<&Lane<K>>, key: &K) -> bool {
    lane.and_then(|lane| lane.key.as_ref()).is_some_and(|(other, _)| other == key)
}

/// Work that was given back and is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finished<T> {
    /// It counts.
    Current(T),
    /// It was forgotten while it was out: whatever it did is somebody else's now.
    Late(T),
}

impl<K: Hash + Eq, T> Lanes<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            work: Slab::new(),
            lanes: Slab::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            ready: BinaryHeap::new(),
            waiting: BinaryHeap::new(),
            retries: 0,
            came: 0,
            out: 0,
        }
    }

    /// Puts work at the end of its key's lane; without key it has a lane of its own.
    pub(crate) fn push(&mut self, key: Option<K>, value: T) {
        let (_, lane, is_new) = self.insert(key, value);
        if is_new {
            self.is_ready(lane);
        }
    }

    /// Takes in work that is out already. Its key must not be open.
    pub(crate) fn push_out(&mut self, key: Option<K>, value: T) -> Ticket {
        let (at, lane, is_new) = self.insert(key, value);
        debug_assert!(is_new, "two of a key would be out at once");
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.out = 1;
        }
        self.out += 1;
        Ticket(at)
    }

    /// Whether there is work of a key that hashes like `key`, and of which `is` says that it is that.
    pub(crate) fn is_open(&self, key: &impl Hash, is: impl Fn(&K) -> bool) -> bool {
        let known = |index: &usize| {
            let lane = self.lanes.get(*index).and_then(|lane| lane.key.as_ref());
            lane.is_some_and(|(other, _)| is(other))
        };
        !self.by_key.is_empty() && self.by_key.find(self.hasher.hash_one(key), known).is_some()
    }

    /// Puts work into a lane: its place, its lane, and whether that is a new one.
    fn insert(&mut self, key: Option<K>, value: T) -> (usize, usize, bool) {
        let key = key.map(|key| {
            let hash = self.hasher.hash_one(&key);
            (key, hash)
        });
        let lane = key.as_ref().and_then(|(key, hash)| {
            let is_its = |index: &usize| is_of(self.lanes.get(*index), key);
            self.by_key.find(*hash, is_its).copied()
        });
        let at = self.work.vacant_key();
        let (lane, is_new) = match lane.and_then(|index| Some((index, self.lanes.get_mut(index)?))) {
            Some((index, lane)) => {
                if let Some(tail) = self.work.get_mut(lane.tail) {
                    tail.behind = Some(at);
                }
                lane.tail = at;
                (index, false)
            }
            None => {
                let hash = key.as_ref().map(|(_, hash)| *hash);
                let index =
                    self.lanes.insert(Lane { key, head: at, tail: at, out: 0, last_out: at, turns: 0 });
                if let Some(hash) = hash {
                    let lanes = &self.lanes;
                    let hash_of = |index: &usize| lanes.get(*index).map_or(0, Lane::hash);
                    self.by_key.insert_unique(hash, index, hash_of);
                }
                (index, true)
            }
        };
        self.came += 1;
        self.work.insert(Work { value, lane, came: self.came, behind: None, forgotten: false });
        (at, lane, is_new)
    }

    /// Takes out the next that may run at `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Ticket> {
        while let Some(Reverse((due, _, lane))) = self.waiting.peek().copied() {
            if due > now {
                break;
            }
            self.waiting.pop();
            self.is_ready(lane);
        }
        let Reverse((_, lane)) = self.ready.pop()?;
        let lane = self.lanes.get_mut(lane)?;
        lane.out = 1;
        lane.last_out = lane.head;
        self.out += 1;
        Some(Ticket(lane.head))
    }

    /// Takes out what is behind the last of its lane that is out. It must not be started before that is over, nor where that failed.
    pub(crate) fn follow(&mut self, ticket: &Ticket) -> Option<Ticket> {
        let lane = self.lanes.get_mut(self.work.get(ticket.0)?.lane)?;
        let behind = self.work.get(lane.last_out)?.behind?;
        lane.out += 1;
        lane.last_out = behind;
        self.out += 1;
        Some(Ticket(behind))
    }

    /// Takes the last of its lane that is out back in: it was not started. What was sent out last comes back first.
    pub(crate) fn take_back(&mut self, ticket: Ticket) {
        let Some(index) = self.work.get(ticket.0).map(|work| work.lane) else { return };
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.out = lane.out.saturating_sub(1);
        self.out = self.out.saturating_sub(1);
        lane.last_out = lane.head;
        for _ in 1..lane.out {
            lane.last_out = self.work.get(lane.last_out).and_then(|work| work.behind).unwrap_or(lane.head);
        }
        if lane.out == 0 {
            self.is_ready(index);
        }
    }

    /// The work that is out.
    pub(crate) fn get(&self, ticket: &Ticket) -> Option<&T> {
        self.work.get(ticket.0).map(|work| &work.value)
    }

    /// The work that is out.
    pub(crate) fn get_mut(&mut self, ticket: &Ticket) -> Option<&mut T> {
        self.work.get_mut(ticket.0).map(|work| &mut work.value)
    }

    /// Whether it was forgotten while it was out.
    pub(crate) fn is_late(&self, ticket: &Ticket) -> bool {
        self.work.get(ticket.0).is_none_or(|work| work.forgotten)
    }

    /// Ends it: the next of its key may run.
    pub(crate) fn finish(&mut self, ticket: Ticket) -> Option<Finished<T>> {
        let work = self.work.try_remove(ticket.0)?;
        self.out = self.out.saturating_sub(1);
        match (work.behind, self.lanes.get_mut(work.lane)) {
            (Some(behind), Some(lane)) => {
                lane.head = behind;
                lane.out = lane.out.saturating_sub(1);
                if lane.out == 0 {
                    lane.last_out = behind;
                    self.goes_on(work.lane);
                }
            }
            _ => self.close_lane(work.lane),
        }
        Some(if work.forgotten { Finished::Late(work.value) } else { Finished::Current(work.value) })
    }

    /// The head of a lane may run.
    fn is_ready(&mut self, index: usize) {
        let came =
            self.lanes.get(index).and_then(|lane| self.work.get(lane.head)).map_or(0, |work| work.came);
        self.ready.push(Reverse((came, index)));
    }

    /// A lane had a turn and may have its next.
    fn goes_on(&mut self, index: usize) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.turns += 1;
        if lane.turns < TURNS {
            return self.is_ready(index);
        }
        lane.turns = 0;
        self.came += 1;
        self.ready.push(Reverse((self.came, index)));
    }

    /// Lets it wait and run again at `due`; its key waits with it. One that was forgotten is finished instead. Nothing behind it may be out.
    pub(crate) fn retry(&mut self, ticket: Ticket, due: Instant) -> Option<T> {
        if self.is_late(&ticket) {
            return match self.finish(ticket)? {
                Finished::Current(value) | Finished::Late(value) => Some(value),
            };
        }
        let lane = self.work.get(ticket.0)?.lane;
        self.lanes.get_mut(lane)?.out = 0;
        self.out = self.out.saturating_sub(1);
        self.retries += 1;
        self.waiting.push(Reverse((due, self.retries, lane)));
        None
    }

    /// Takes away all the work that `which` names and that is not out, in the order of each key. What is out stays at the head of its
    /// lane, so that nothing of its key runs beside it; with `late` it comes back as [`Finished::Late`].
    pub(crate) fn forget(&mut self, late: bool, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        let indices: Vec<usize> = self.lanes.iter().map(|(index, _)| index).collect();
        for index in indices {
            self.forget_in(index, late, &mut which, &mut taken);
        }
        let lanes = &self.lanes;
        self.ready.retain(|Reverse((_, lane))| lanes.contains(*lane));
        self.waiting.retain(|Reverse((_, _, lane))| lanes.contains(*lane));
        taken
    }

    fn forget_in(
        &mut self,
        index: usize,
        late: bool,
        which: &mut impl FnMut(&T) -> bool,
        taken: &mut Vec<T>,
    ) {
        let Some(lane) = self.lanes.get(index) else { return };
        let (mut out, head) = (lane.out, lane.head);
        let mut kept: Option<usize> = None;
        let mut first = None;
        let mut at = Some(head);
        let mut head_changed = false;
        while let Some(current) = at {
            let Some(work) = self.work.get_mut(current) else { break };
            at = work.behind;
            let named = which(&work.value);
            let is_out = out > 0;
            out = out.saturating_sub(1);
            if named && !is_out {
                taken.push(self.work.remove(current).value);
                head_changed |= current == head;
                continue;
            }
            work.forgotten |= named && late;
            work.behind = None;
            if let Some(before) = kept.and_then(|before| self.work.get_mut(before)) {
                before.behind = Some(current);
            }
            first = first.or(Some(current));
            kept = Some(current);
        }
        let (Some(head), Some(tail)) = (first, kept) else {
            self.close_lane(index);
            return;
        };
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.head = head;
            lane.tail = tail;
            if lane.out == 0 {
                lane.last_out = head;
            }
        }
        // The new head waits for nothing.
        if head_changed && !self.ready.iter().any(|Reverse((_, lane))| *lane == index) {
            self.waiting.retain(|Reverse((_, _, lane))| *lane != index);
            self.is_ready(index);
        }
    }

    fn close_lane(&mut self, index: usize) {
        if let Some((_, hash)) = self.lanes.try_remove(index).and_then(|lane| lane.key)
            && let Ok(entry) = self.by_key.find_entry(hash, |other| *other == index)
        {
            entry.remove();
        }
    }

    /// When the earliest that waits for a retry is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((due, _, _))| *due)
    }

    /// Everything that is here, out or not.
    pub(crate) fn len(&self) -> usize {
        self.work.len()
    }

    /// What is out.
    #[cfg(test)]
    pub(crate) const fn out(&self) -> usize {
        self.out
    }

    /// Keys and keyless work with something to do.
    pub(crate) fn live(&self) -> usize {
        self.lanes.len()
    }

    /// Lanes whose head may run now.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Lanes whose head waits for its next attempt.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
