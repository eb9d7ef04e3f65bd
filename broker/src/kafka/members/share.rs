//! A partition that a member owns: what was read ahead, what is in flight, what is done, and what is to be committed of it.
//!
//! Pure. Not here: what it begins with (`taking.rs`), when it is taken, revoked and given back (`core.rs`, `going.rs`), the commit itself (`poller.rs`).

use super::super::metadata::{MAX_MAP, Metadata};
use crate::{
    AckWindow, Batch, Bound, Delivery, Error, ErrorKind, Event, GapReason, GoneReason, Message, Owned,
    Position, Result, Room, Timestamp,
};
use bytes::Bytes;
use std::{collections::VecDeque, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// The most messages of a batch.
const BATCH: usize = 256;
/// Nothing.
pub(super) const NONE: Bound = Bound { messages: 0, bytes: 0 };

/// What a partition begins with.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) of: Owned,
    pub(super) life: u64,
    pub(super) window: AckWindow,
    /// The group's position, where it had one.
    pub(super) resumed: Option<Position>,
    /// The first offset that is read.
    pub(super) from: u64,
    /// Behind the last message that was there when this began.
    pub(super) end: u64,
    /// What is missing, which is told first.
    pub(super) gap: Option<Gap>,
}

/// Messages that will not be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: Option<Position>,
    pub(super) to: Option<Position>,
    pub(super) why: GapReason,
}

impl Gap {
    /// Whether positions mean other messages behind it.
    pub(super) const fn is_another_log(&self) -> bool {
        matches!(self.why, GapReason::Recreated | GapReason::Truncated)
    }
}

/// A record that was read, copied out of the client.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) offset: u64,
    /// By the record, in milliseconds.
    pub(super) at: i64,
    pub(super) what: Result<Message, (Bytes, Error)>,
}

impl Read {
    fn size(&self) -> usize {
        match &self.what {
            Ok(message) => message.size(),
            Err((raw, _)) => raw.len(),
        }
    }
}

/// What is ready to be told, in order.
#[derive(Debug)]
enum Ready {
    Read(Read, usize),
    Gap(Gap),
    CaughtUp,
}

/// How a partition goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) why: GoneReason,
    /// Since when.
    pub(super) at: Instant,
    /// Its last acks are committed.
    pub(super) committed: bool,
    /// Its owner was told.
    pub(super) told: bool,
}

/// A commit that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) of: Owned,
    /// Everything before it is done.
    pub(super) position: Position,
    pub(super) metadata: String,
    /// Which acks it covers.
    pub(super) changes: u64,
    /// Holes that had no place in the metadata.
    pub(super) left_out: usize,
}

/// A partition that a member owns.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) of: Owned,
    pub(super) life: u64,
    resumed: Option<Position>,
    /// Where reading began, and where the group was before where that is another log.
    began: Position,
    before: Option<Position>,
    window: AckWindow,
    /// When what is handed out was written, as far as it may be what is oldest of what is not done.
    times: VecDeque<(Position, i64)>,
    buffer: VecDeque<Ready>,
    /// The next offset that is read.
    pub(super) next: u64,
    /// Behind the last message that was there at the start, until that was told.
    end: Option<u64>,
    /// What was read ahead.
    pub(super) ahead: Bound,
    /// What is handed out and not acked.
    pub(super) flight: Bound,
    /// The epoch is stored.
    pub(super) claimed: bool,
    /// Its owner knows that it owns it.
    pub(super) live: bool,
    pub(super) paused: bool,
    /// The client reads it for this epoch.
    pub(super) placed: bool,
    /// Since when too much lies ready.
    pub(super) full: Option<Instant>,
    /// When something of it was read last.
    pub(super) read_at: Instant,
    /// What lies ready may be of another topic of that name: it waits for the look behind that one.
    pub(super) parked: Option<u64>,
    /// The client cannot go on from there; it is to be looked why.
    pub(super) stuck: Option<u64>,
    /// It is to be given up until then.
    pub(super) revoking: Option<Instant>,
    pub(super) ending: Option<Ending>,
    /// It is in the queue of those that have something.
    pub(super) queued: bool,
    /// The next message has no room.
    pub(super) waiting: bool,
    /// Goes up with each ack; the first stands for the epoch.
    pub(super) changes: u64,
    /// Which are committed.
    pub(super) saved: u64,
    /// Since when there are acks that are not committed.
    pub(super) dirty: Option<Instant>,
    pub(super) confirms: Vec<oneshot::Sender<Result<()>>>,
}

impl Share {
    pub(super) fn new(taken: Taken, now: Instant) -> Self {
        let began = taken.window.position();
        let mut share = Self {
            life: taken.life,
            resumed: taken.resumed,
            began,
            before: taken.gap.filter(Gap::is_another_log).and_then(|gap| gap.from),
            window: taken.window,
            times: VecDeque::new(),
            buffer: taken.gap.into_iter().map(Ready::Gap).collect(),
            next: taken.from,
            end: Some(taken.end),
            ahead: NONE,
            flight: NONE,
            claimed: false,
            live: false,
            paused: false,
            placed: false,
            full: None,
            read_at: now,
            parked: None,
            stuck: None,
            revoking: None,
            ending: None,
            queued: false,
            waiting: false,
            changes: 1,
            saved: 0,
            dirty: None,
            confirms: Vec::new(),
            of: taken.of,
        };
        share.catch_up();
        share
    }

    /// What its owner is told first.
    pub(super) fn assignment(&self) -> crate::Assignment {
        let from = self.began.max(Position(self.life, self.next));
        crate::Assignment { of: self.of.clone(), resumed: self.resumed, from }
    }

    /// Whether something may be returned.
    pub(super) const fn flows(&self) -> bool {
        self.live && !self.paused && self.parked.is_none() && self.revoking.is_none() && self.ending.is_none()
    }

    /// Whether what is read is for it.
    pub(super) const fn takes(&self) -> bool {
        self.placed && self.stuck.is_none() && self.revoking.is_none() && self.ending.is_none()
    }

    pub(super) fn has_something(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn catch_up(&mut self) {
        if self.end.is_some_and(|end| end <= self.next) {
            self.end = None;
            self.buffer.push_back(Ready::CaughtUp);
        }
    }

    /// Takes what was read. A jump of offsets is no gap: compaction, and markers of transactions.
    pub(super) fn put(&mut self, reads: Vec<Read>) {
        for read in reads {
            if read.offset < self.next {
                continue;
            }
            let size = read.size();
            self.next = read.offset + 1;
            self.ahead.messages += 1;
            self.ahead.bytes += size;
            self.buffer.push_back(Ready::Read(read, size));
            self.catch_up();
        }
    }

    /// What is missing, from the next offset that is read up to there: reading goes on there.
    pub(super) fn trimmed(&mut self, to: u64) {
        let gap = Gap {
            from: Some(Position(self.life, self.next)),
            to: Some(Position(self.life, to)),
            why: GapReason::Trimmed,
        };
        self.next = to;
        self.buffer.push_back(Ready::Gap(gap));
        self.catch_up();
    }

    /// Forgets what was read ahead; answers how much that was.
    pub(super) fn clear(&mut self) -> Bound {
        self.buffer.clear();
        std::mem::replace(&mut self.ahead, NONE)
    }

    /// What is returned next, where there is room. What is known to be done is left out. `None` where there is nothing, or no room
    /// (`waiting`).
    pub(super) fn next(&mut self, mut room: Room) -> Option<Event> {
        self.waiting = false;
        let mut deliveries = Vec::new();
        while deliveries.len() < BATCH {
            let Some(Ready::Read(read, size)) = self.buffer.front() else { break };
            if read.what.is_err() && !deliveries.is_empty() {
                break;
            }
            let size = *size;
            if !room.clone().take(size) {
                self.waiting = true;
                break;
            }
            let Some(Ready::Read(read, _)) = self.buffer.pop_front() else { break };
            self.ahead.messages -= 1;
            self.ahead.bytes -= size;
            let position = Position(self.life, read.offset);
            if !self.window.deliver_sized(position, size) {
                continue;
            }
            room.take(size);
            self.times.push_back((position, read.at));
            self.flight.messages += 1;
            self.flight.bytes += size;
            match read.what {
                Ok(message) => deliveries.push(Delivery { position, message }),
                Err((raw, why)) => {
                    let of = self.of.clone();
                    return Some(Event::Unreadable { of, position, raw: Some(raw), why });
                }
            }
        }
        if !deliveries.is_empty() {
            return Some(Event::Batch(Batch { of: self.of.clone(), deliveries }));
        }
        if self.waiting {
            return None;
        }
        match self.buffer.pop_front()? {
            Ready::Gap(Gap { from, to, why }) => {
                if let (Some(to), GapReason::Trimmed) = (to, why) {
                    self.window.skip_to(to);
                }
                Some(Event::Gap { of: self.of.clone(), from, to, why })
            }
            Ready::CaughtUp => Some(Event::CaughtUp(self.of.clone())),
            Ready::Read(..) => None,
        }
    }

    /// Takes acks: how much they free. All or nothing.
    ///
    /// # Errors
    /// `Invalid`.
    pub(super) fn ack(&mut self, done: &[Position], now: Instant) -> Result<Bound> {
        self.check(done)?;
        let mut freed = NONE;
        for position in done {
            if let Some(size) = self.window.ack_sized(*position) {
                freed.messages += 1;
                freed.bytes += size;
            }
        }
        if freed.messages > 0 {
            self.flight.messages = self.flight.messages.saturating_sub(freed.messages);
            self.flight.bytes = self.flight.bytes.saturating_sub(freed.bytes);
            self.changes += 1;
            self.dirty.get_or_insert(now);
            let position = self.window.position();
            while self.times.front().is_some_and(|(at, _)| *at < position) {
                self.times.pop_front();
            }
        }
        Ok(freed)
    }

    /// # Errors
    /// `Invalid` for what was never delivered.
    pub(super) fn check(&self, done: &[Position]) -> Result<()> {
        self.window.never_delivered(done).map_or(Ok(()), |wrong| Err(never_delivered(&self.of, wrong)))
    }

    /// What is handed out and not acked.
    pub(super) fn unacked(&self) -> Vec<Position> {
        self.window.open_positions().collect()
    }

    /// Whether there is something to commit at all.
    pub(super) const fn is_dirty(&self) -> bool {
        self.saved < self.changes
    }

    /// Whether acks are to be committed by now.
    pub(super) fn is_due(&self, interval: Duration, now: Instant) -> bool {
        self.dirty.is_some_and(|since| since + interval <= now)
    }

    /// What is to be committed: always with the metadata, which a commit without would erase.
    pub(super) fn commit(&self) -> Commit {
        let position = self.window.position();
        let (map, left_out) = self.window.encode(MAX_MAP);
        let oldest = self.times.front().filter(|(at, _)| *at == position);
        let metadata = Metadata {
            life: self.life,
            epoch: self.of.epoch,
            oldest: oldest.map(|(_, at)| Timestamp::from_millis(*at)),
            // Until something of this log is done: who comes next would not know what is missing.
            before: self.before.filter(|_| position == self.began && map.is_empty()),
            map,
        };
        Commit { of: self.of.clone(), position, metadata: metadata.encode(), changes: self.changes, left_out }
    }

    /// Notes that a commit took effect.
    pub(super) fn committed(&mut self, commit: &Commit, now: Instant) {
        self.saved = self.saved.max(commit.changes);
        self.claimed = true;
        self.dirty = self.is_dirty().then_some(now);
        if let Some(ending) = &mut self.ending {
            ending.committed = self.saved == self.changes;
        }
        self.confirms.drain(..).for_each(|answer| _ = answer.send(Ok(())));
    }
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
