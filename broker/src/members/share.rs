//! A partition that a member owns: what was read ahead, what is in flight, and what is done.
//!
//! Pure. Not here: when it is taken, revoked and given back (`owner.rs`, `going.rs`), what is stored of it (the backend).

use crate::{
    AckWindow, Batch, Bound, Delivery, Error, ErrorKind, Event, GapReason, GoneReason, Message, Owned,
    Position, Result, Room,
};
use bytes::Bytes;
use std::{collections::VecDeque, fmt::Debug, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// The most messages of a batch.
const BATCH: usize = 256;
/// Nothing.
pub(crate) const NONE: Bound = Bound { messages: 0, bytes: 0 };

/// What a backend knows of the log behind a share.
pub(crate) trait Log: Debug + Send + 'static {
    /// What it notes with each message.
    type Mark: Copy + Debug + Send;

    /// For how long the last acks of what went are tried to be stored, before it is forgotten without; it is forgotten, too, once they are stored and its
    /// end is told. `None`: the backend forgets it.
    const LAST: Option<Duration>;

    /// Whether what lies ready may be handed out.
    fn flows(&self) -> bool {
        true
    }

    /// A message leaves what lies ready: it is handed out (`is_new`), or known to be done.
    fn passed(&mut self, position: Position, mark: Self::Mark, is_new: bool);

    /// These are acked.
    fn acked(&mut self, done: &[Position], window: &AckWindow);

    /// Nothing before that is handed out any more: it is missing.
    fn skipped(&mut self, _to: Position) {}

    /// So much lies ready after some was handed out, and so many partitions are owned: whether who reads is to be called.
    fn wants_more(&mut self, ahead: Bound, owned: usize) -> bool;
}

/// Messages that will not be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: Option<Position>,
    pub(crate) to: Option<Position>,
    pub(crate) why: GapReason,
}

/// What was read: a message, or the bytes of what is none, where they can be told apart from others, and why.
#[derive(Debug)]
pub(crate) struct Read<M> {
    pub(crate) position: Position,
    pub(crate) mark: M,
    pub(crate) what: Result<Message, (Option<Bytes>, Error)>,
}

impl<M> Read<M> {
    fn size(&self) -> usize {
        match &self.what {
            Ok(message) => message.size(),
            Err((raw, _)) => raw.as_ref().map_or(0, Bytes::len),
        }
    }
}

/// What is ready to be told, in order.
#[derive(Debug)]
enum Ready<M> {
    Read(Read<M>, usize),
    Gap(Gap),
    CaughtUp,
}

/// How a partition goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) why: GoneReason,
    /// Since when.
    pub(crate) at: Instant,
    /// Its last acks are stored.
    pub(crate) committed: bool,
    /// Its owner was told.
    pub(crate) told: bool,
}

/// A partition that a member owns.
#[derive(Debug)]
pub(crate) struct Share<L: Log> {
    pub(crate) of: Owned,
    pub(crate) log: L,
    pub(crate) window: AckWindow,
    buffer: VecDeque<Ready<L::Mark>>,
    /// What was read ahead.
    pub(crate) ahead: Bound,
    /// What is handed out and not acked.
    pub(crate) flight: Bound,
    /// The epoch is stored.
    pub(crate) claimed: bool,
    /// Its owner knows that it owns it.
    pub(crate) live: bool,
    pub(crate) paused: bool,
    /// It is to be given up until then.
    pub(crate) revoking: Option<Instant>,
    pub(crate) ending: Option<Ending>,
    /// It is in the queue of those that have something.
    pub(crate) queued: bool,
    /// The next message has no room.
    pub(crate) waiting: bool,
    /// Goes up with each ack; the first stands for the epoch where that is to be stored.
    pub(crate) changes: u64,
    /// Which are stored.
    pub(crate) saved: u64,
    /// Since when there are acks that are not stored.
    pub(crate) dirty: Option<Instant>,
    pub(crate) confirms: Vec<oneshot::Sender<Result<()>>>,
}

impl<L: Log> Share<L> {
    /// `claimed`: the epoch is stored; else it is nobody's until a commit stores that.
    pub(crate) const fn new(of: Owned, window: AckWindow, claimed: bool, log: L) -> Self {
        Self {
            of,
            log,
            window,
            buffer: VecDeque::new(),
            ahead: NONE,
            flight: NONE,
            claimed,
            live: false,
            paused: false,
            revoking: None,
            ending: None,
            queued: false,
            waiting: false,
            changes: if claimed { 0 } else { 1 },
            saved: 0,
            dirty: None,
            confirms: Vec::new(),
        }
    }

    /// Whether something may be returned.
    pub(crate) fn flows(&self) -> bool {
        self.live && !self.paused && self.log.flows() && self.is_kept()
    }

    /// Whether it stays, as far as is known.
    pub(crate) const fn is_kept(&self) -> bool {
        self.revoking.is_none() && self.ending.is_none()
    }

    pub(crate) fn has_something(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes what was read.
    pub(crate) fn put(&mut self, read: Read<L::Mark>) {
        let size = read.size();
        self.ahead.messages += 1;
        self.ahead.bytes += size;
        self.buffer.push_back(Ready::Read(read, size));
    }

    /// What is missing behind what was read.
    pub(crate) fn put_gap(&mut self, gap: Gap) {
        self.buffer.push_back(Ready::Gap(gap));
    }

    /// What is missing before all that was read.
    pub(crate) fn begin_with(&mut self, gap: Gap) {
        self.buffer.push_front(Ready::Gap(gap));
    }

    /// All that was there is read.
    pub(crate) fn put_caught_up(&mut self) {
        self.buffer.push_back(Ready::CaughtUp);
    }

    /// Forgets what was read ahead; answers how much that was.
    pub(crate) fn clear(&mut self) -> Bound {
        self.buffer.clear();
        std::mem::replace(&mut self.ahead, NONE)
    }

    /// What is returned next, where there is room. What is known to be done is left out. `None` where there is nothing, or no room
    /// (`waiting`).
    pub(crate) fn next(&mut self, mut room: Room, now: Instant) -> Option<Event> {
        self.waiting = false;
        let mut deliveries = Vec::with_capacity(self.buffer.len().min(BATCH).min(room.messages()));
        while deliveries.len() < BATCH {
            let Some(Ready::Read(read, size)) = self.buffer.front() else { break };
            if read.what.is_err() && !deliveries.is_empty() {
                break;
            }
            let (position, mark, size) = (read.position, read.mark, *size);
            if !room.clone().take(size) {
                self.waiting = true;
                break;
            }
            self.ahead.messages -= 1;
            self.ahead.bytes -= size;
            let is_new = self.window.deliver_sized(position, size);
            self.log.passed(position, mark, is_new);
            if !is_new {
                drop(self.buffer.pop_front());
                // With nothing open before it the position moves, though nobody acks anything.
                if self.window.holes() == 0 {
                    self.changed(now);
                }
                continue;
            }
            room.take(size);
            self.flight.messages += 1;
            self.flight.bytes += size;
            // Last of all: a message with nothing between where it lay and where it goes is moved once less.
            match self.buffer.pop_front() {
                Some(Ready::Read(Read { what: Ok(message), .. }, _)) => {
                    deliveries.push(Delivery { position, message });
                }
                Some(Ready::Read(Read { what: Err((raw, why)), .. }, _)) => {
                    let of = self.of.clone();
                    return Some(Event::Unreadable { of, position, raw, why });
                }
                _ => break,
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
                if let (Some(to), GapReason::Trimmed | GapReason::Damaged) = (to, why) {
                    self.window.skip_to(to);
                    self.log.skipped(to);
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
    pub(crate) fn ack(&mut self, done: &[Position], now: Instant) -> Result<Bound> {
        self.check(done)?;
        let (messages, bytes) = self.window.ack_all(done);
        let freed = Bound { messages, bytes };
        if freed.messages > 0 {
            self.log.acked(done, &self.window);
            self.flight.messages = self.flight.messages.saturating_sub(freed.messages);
            self.flight.bytes = self.flight.bytes.saturating_sub(freed.bytes);
            self.changed(now);
        }
        Ok(freed)
    }

    /// There is something new to store.
    fn changed(&mut self, now: Instant) {
        self.changes += 1;
        self.dirty.get_or_insert(now);
    }

    /// # Errors
    /// `Invalid` for what was never delivered.
    pub(crate) fn check(&self, done: &[Position]) -> Result<()> {
        self.window.never_delivered(done).map_or(Ok(()), |wrong| Err(never_delivered(&self.of, wrong)))
    }

    /// What is handed out and not acked.
    pub(crate) fn unacked(&self) -> Vec<Position> {
        self.window.open_positions().collect()
    }

    /// Whether there is something to store at all.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.saved < self.changes
    }

    /// Whether acks are to be stored by now.
    pub(crate) fn is_due(&self, interval: Duration, now: Instant) -> bool {
        self.dirty.is_some_and(|since| since + interval <= now)
    }

    /// Notes that the epoch held, and that acks are stored up to these. Those who asked before that was sent are told: of what was sent before somebody asked
    /// the answer may be old, and the epoch over.
    pub(crate) fn stored(&mut self, changes: u64, confirms: usize, now: Instant) {
        self.saved = self.saved.max(changes);
        self.claimed = true;
        self.dirty = self.is_dirty().then_some(now);
        self.end_if_stored();
        let asked = confirms.min(self.confirms.len());
        self.confirms.drain(..asked).for_each(|answer| _ = answer.send(Ok(())));
    }

    /// What goes is done once its last acks are stored.
    pub(crate) fn end_if_stored(&mut self) {
        let committed = !self.is_dirty();
        if let Some(ending) = &mut self.ending {
            ending.committed = committed;
        }
    }
}

pub(crate) fn fenced(of: &Owned) -> Error {
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
