//! A partition that a member owns: what was read ahead, what is in flight, what is done, and what is to be committed of it.
//!
//! Pure. Not here: when it is taken over, revoked and given back (`core.rs`), the commit itself (`run.rs`).

use super::super::{
    follow::{self, Counts, Followed, Told},
    keys::PartitionKeys,
};
use crate::{
    AckWindow, Acked, Batch, Bound, Delivery, Error, ErrorKind, Event, GapReason, GoneReason, Owned,
    Position, Result, Room,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// The most messages of a batch.
const BATCH: usize = 256;
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

/// How a partition goes.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) why: GoneReason,
    /// Since when.
    pub(super) at: Instant,
    /// Who is to have it; `None`: whoever should.
    pub(super) to: Option<String>,
    /// Its last acks are committed.
    pub(super) committed: bool,
    /// Its owner was told.
    pub(super) told: bool,
}

/// What is ready to be told of a partition, in order.
#[derive(Debug)]
enum Ready {
    Message(Delivery, usize, Option<u64>),
    Unreadable(Position, bytes::Bytes, Error, Option<u64>),
    Gap(Option<Position>, Option<Position>, GapReason),
    CaughtUp,
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
}

/// What a commit stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) position: Position,
    pub(super) read: Option<u64>,
    pub(super) map: Vec<u8>,
    pub(super) beyond: Option<u64>,
}

/// A partition that a member owns.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) of: Owned,
    pub(super) life: Option<u64>,
    pub(super) followed: Followed,
    window: AckWindow,
    /// What is handed out: how many entries were added up to it, where that is known.
    counts: BTreeMap<Position, Option<u64>>,
    /// Behind the last that was handed out or is known to be done, and how many entries were added before.
    seen: (Position, Option<u64>),
    /// What was committed last.
    stored: (Position, Option<u64>),
    buffer: VecDeque<Ready>,
    /// What was read ahead.
    pub(super) ahead: Bound,
    /// What is handed out and not acked.
    pub(super) flight: Bound,
    /// Its owner knows that it owns it.
    pub(super) live: bool,
    pub(super) paused: bool,
    /// It is to be given up until then.
    pub(super) revoking: Option<Instant>,
    pub(super) ending: Option<Ending>,
    /// It is in the queue of those that have something.
    pub(super) queued: bool,
    /// The next message has no room.
    pub(super) waiting: bool,
    /// It was left out of the read that is under way.
    pub(super) left_out: bool,
    /// Goes up with each ack.
    pub(super) changes: u64,
    /// Which acks are committed.
    pub(super) saved: u64,
    /// Since when there are acks that are not committed.
    pub(super) dirty: Option<Instant>,
    pub(super) confirms: Vec<oneshot::Sender<Result<()>>>,
}

impl Share {
    pub(super) fn new(taken: Taken) -> Self {
        let window = AckWindow::restore(taken.position, &taken.map).unwrap_or_else(|error| {
            tracing::warn!(topic = %taken.of.topic, partition = taken.of.partition, %error, "what was done beyond the position comes again");
            AckWindow::new(taken.position)
        });
        let mut buffer = VecDeque::new();
        if let Some(before) = taken.before {
            buffer.push_back(Ready::Gap(Some(before), Some(taken.position), GapReason::Recreated));
        }
        let known = (taken.position, taken.read);
        Self {
            followed: Followed::resuming(
                taken.of.clone(),
                taken.keys,
                taken.life,
                taken.position,
                taken.read,
                taken.counts.last.next(),
            ),
            of: taken.of,
            life: taken.life,
            window,
            counts: BTreeMap::new(),
            seen: known,
            stored: known,
            buffer,
            ahead: Bound { messages: 0, bytes: 0 },
            flight: Bound { messages: 0, bytes: 0 },
            live: false,
            paused: false,
            revoking: None,
            ending: None,
            queued: false,
            waiting: false,
            left_out: false,
            changes: 0,
            saved: 0,
            dirty: None,
            confirms: Vec::new(),
        }
    }

    /// Tells first that the log lost its end, which ended the epoch before.
    pub(super) fn lost_its_end(&mut self, from: Option<Position>, to: Option<Position>) {
        self.buffer.push_front(Ready::Gap(from, to, GapReason::Truncated));
    }

    /// Tells first that this is another topic than the one before, of which nothing is known any more.
    pub(super) fn begins_anew(&mut self) {
        self.buffer.push_front(Ready::Gap(None, Some(self.window.position()), GapReason::Recreated));
    }

    /// Where reading begins.
    pub(super) fn from(&self) -> Position {
        self.window.position()
    }

    /// Whether something may be returned.
    pub(super) const fn flows(&self) -> bool {
        self.live && !self.paused && self.revoking.is_none() && self.ending.is_none()
    }

    /// Whether it is read.
    pub(super) const fn is_read(&self) -> bool {
        !self.paused && self.revoking.is_none() && self.ending.is_none()
    }

    pub(super) fn has_something(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes what was read.
    pub(super) fn put(&mut self, told: Vec<Told>) {
        // Entries were counted one by one; a gap, which ends the counting, comes before them.
        let mut left =
            told.iter().filter(|told| matches!(told, Told::Message(_) | Told::Unreadable { .. })).count();
        let count = self.followed.count();
        let mut next = || {
            left -= 1;
            count.and_then(|count| count.checked_sub(left as u64))
        };
        for told in told {
            let (ready, size) = match told {
                Told::Message(delivery) => {
                    let size = delivery.message.size();
                    (Ready::Message(delivery, size, next()), size)
                }
                Told::Unreadable { at, raw, why } => {
                    let size = raw.len();
                    (Ready::Unreadable(at, raw, why, next()), size)
                }
                Told::Gap { from, to, why } => (Ready::Gap(from, to, why), 0),
                Told::CaughtUp => (Ready::CaughtUp, 0),
                // Its owner loses it.
                Told::Deleted => continue,
            };
            self.ahead.messages += usize::from(matches!(ready, Ready::Message(..) | Ready::Unreadable(..)));
            self.ahead.bytes += size;
            self.buffer.push_back(ready);
        }
    }

    /// Forgets what was read ahead; answers how much that was.
    pub(super) fn clear(&mut self) -> Bound {
        self.buffer.clear();
        std::mem::replace(&mut self.ahead, Bound { messages: 0, bytes: 0 })
    }

    /// What is returned next, where there is room. What is known to be done is left out. `None` where there is nothing, or no room
    /// (`waiting`).
    pub(super) fn next(&mut self, mut room: Room) -> Option<Event> {
        self.waiting = false;
        let mut deliveries = Vec::new();
        while deliveries.len() < BATCH {
            let (position, size, count) = match self.buffer.front() {
                Some(Ready::Message(delivery, size, count)) => (delivery.position, *size, *count),
                Some(Ready::Unreadable(at, raw, _, count)) if deliveries.is_empty() => {
                    (*at, raw.len(), *count)
                }
                _ => break,
            };
            if !room.clone().take(size) {
                self.waiting = true;
                break;
            }
            let Some(ready) = self.buffer.pop_front() else { break };
            self.ahead.messages -= 1;
            self.ahead.bytes -= size;
            self.seen = (position.next(), count);
            if !self.window.deliver_sized(position, size) {
                continue;
            }
            self.counts.insert(position, count);
            room.take(size);
            self.flight.messages += 1;
            self.flight.bytes += size;
            match ready {
                Ready::Message(delivery, ..) => deliveries.push(delivery),
                Ready::Unreadable(position, raw, why, _) => {
                    let of = self.of.clone();
                    return Some(Event::Unreadable { of, position, raw: Some(raw), why });
                }
                Ready::Gap(..) | Ready::CaughtUp => {}
            }
        }
        if !deliveries.is_empty() {
            return Some(Event::Batch(Batch { of: self.of.clone(), deliveries }));
        }
        if self.waiting {
            return None;
        }
        match self.buffer.pop_front()? {
            Ready::Gap(from, to, why) => {
                if let (Some(to), GapReason::Trimmed) = (to, why) {
                    self.window.skip_to(to);
                    self.seen = (self.seen.0.max(to), None);
                }
                Some(Event::Gap { of: self.of.clone(), from, to, why })
            }
            Ready::CaughtUp => Some(Event::CaughtUp(self.of.clone())),
            Ready::Message(..) | Ready::Unreadable(..) => None,
        }
    }

    /// Takes acks: how much they free. All or nothing.
    ///
    /// # Errors
    /// `Invalid`.
    pub(super) fn ack(&mut self, done: &[Position], now: Instant) -> Result<Bound> {
        self.check(done)?;
        let mut freed = Bound { messages: 0, bytes: 0 };
        for position in done {
            if let Some(size) = self.window.ack_sized(*position) {
                self.counts.remove(position);
                freed.messages += 1;
                freed.bytes += size;
            }
        }
        if freed.messages > 0 {
            self.flight.messages = self.flight.messages.saturating_sub(freed.messages);
            self.flight.bytes = self.flight.bytes.saturating_sub(freed.bytes);
            self.changes += 1;
            self.dirty.get_or_insert(now);
        }
        Ok(freed)
    }

    /// # Errors
    /// `Invalid` for what was never delivered.
    pub(super) fn check(&self, done: &[Position]) -> Result<()> {
        let unknown = |position: &&Position| self.window.would_ack(**position) == Acked::NeverDelivered;
        done.iter().find(unknown).map_or(Ok(()), |wrong| Err(never_delivered(&self.of, *wrong)))
    }

    /// What is handed out and not acked.
    pub(super) fn unacked(&self) -> Vec<Position> {
        self.window.open_positions().collect()
    }

    /// Whether acks are to be committed by now.
    pub(super) fn is_due(&self, interval: Duration, now: Instant) -> bool {
        self.dirty.is_some_and(|since| since + interval <= now)
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
        let whole = window.until() == self.seen.0;
        let beyond = || {
            let behind = self.seen.1.filter(|_| whole)?.checked_sub(read?)?;
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
        let none = Bound { messages: 0, bytes: 0 };
        let freed = self.ack(done, now).unwrap_or(none);
        // Acks that came meanwhile are not stored yet.
        self.saved = self.saved.max(if others { changes } else { self.changes });
        self.stored = (store.position, store.read);
        self.dirty = self.dirty.filter(|_| self.saved < self.changes);
        if let Some(ending) = &mut self.ending {
            ending.committed = self.saved == self.changes;
        }
        freed
    }

    /// What is to be committed.
    pub(super) fn commit(&self) -> Commit {
        let store = (self.saved < self.changes).then(|| self.store(&self.window, &[]));
        Commit {
            of: self.of.clone(),
            keys: self.followed.keys.clone(),
            life: self.life,
            store,
            changes: self.changes,
        }
    }

    /// Notes that a commit took effect.
    pub(super) fn committed(&mut self, commit: &Commit, now: Instant) {
        self.saved = self.saved.max(commit.changes);
        if let Some(store) = &commit.store {
            self.stored = (store.position, store.read);
        }
        self.dirty = (self.saved < self.changes).then_some(now);
        if let Some(ending) = &mut self.ending {
            ending.committed = self.saved == self.changes;
        }
        self.confirms.drain(..).for_each(|answer| _ = answer.send(Ok(())));
    }

    /// How many entries were ever added before the position, where it is known, once these are done.
    fn read_before(&self, position: Position, done: &[Position]) -> Option<u64> {
        if position == self.stored.0 && self.stored.1.is_some() {
            return self.stored.1;
        }
        match self.counts.iter().find(|(open, _)| !done.contains(open)) {
            Some((first, count)) if *first == position => count.and_then(|count| count.checked_sub(1)),
            _ if position == self.seen.0 => self.seen.1,
            _ => None,
        }
    }
}

/// Where the mirror of a position stands.
pub(super) const fn done_before(position: Position) -> Position {
    follow::before(position)
}

pub(super) fn fenced(of: &Owned) -> Error {
    let context = format!(
        "{:?}[{}] is not owned in epoch {} any more; stop working on it",
        of.topic, of.partition, of.epoch
    );
    Error::new(ErrorKind::Fenced, context)
}

fn never_delivered(of: &Owned, position: Position) -> Error {
    let context = format!(
        "{position} of {:?}[{}] was never delivered in this epoch, so nothing was acked",
        of.topic, of.partition
    );
    Error::new(ErrorKind::Invalid, context)
}
