//! How much lies ready of what a member reads: when its client is not asked for more, and when it is told to stop reading partitions.
//!
//! Pure, and knows of a partition how much of it lies ready and whether it could do with more. Not to ask costs nothing: the client fetches little ahead, and keeps that.
//! To stop reading a partition throws away what the client has fetched of it, which servers send again. So it is only done where not asking would do harm:
//! * Nothing can be handed out, and a partition of which nothing lies ready has room in what is in flight: what comes of it lies behind what is fetched of the others.
//!   Those of which much lies ready, which nobody can take, are stopped until little of them is left.
//! * Nobody takes anything for long: from time to time a record is asked for all the same, since changes of the assignment come only with records, and these
//!   pile up. All are stopped until little lies ready, or the above is so.
//!
//! Not here: who is told (`reading.rs`, `poller.rs`).

use crate::Bound;
use std::time::Duration;
use tokio::time::Instant;

/// What lies ready at the most, over all partitions that are read.
const AHEAD: Bound = Bound { messages: 16 * 1024, bytes: 16 * 1024 * 1024 };
/// What of a partition that is stopped may lie ready, however many there are.
const LEAST: Bound = Bound { messages: 64, bytes: 64 * 1024 };
/// More is asked for when that part of the most is left.
const LOW: usize = 4;
/// For how long a partition goes without.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often a record is asked for though too much lies ready.
const TASTE: Duration = Duration::from_millis(500);
/// How many records are asked for at once.
const MOST: usize = 1024;
/// How large they are taken to be before the first came, in bytes.
const GUESS: usize = AHEAD.bytes / MOST;
const NONE: Bound = Bound { messages: 0, bytes: 0 };

/// A partition that the client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// What of it lies ready.
    pub(super) ahead: Bound,
    /// The client was told to stop reading it.
    pub(super) held: bool,
    /// Nothing lies ready, and something could be handed out at once.
    pub(super) dry: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<K> {
    /// Ask the client for so many records, waiting for them.
    Ask(usize),
    /// Ask it for one, without waiting.
    Taste,
    /// Do not ask it until then.
    Moment(Instant),
    Hold(Vec<K>),
    Resume(Vec<K>),
}

/// Too much lies ready.
#[derive(Debug)]
struct Shut {
    taste: Instant,
    /// Of what is read: all is stopped when there is more.
    most: Bound,
}

/// Whether the client is asked for more.
#[derive(Debug)]
pub(super) struct Gate {
    shut: Option<Shut>,
    /// All that was read then was stopped.
    stopped: bool,
    /// Since when a partition goes without while nothing can be handed out.
    starving: Option<Instant>,
    /// When so much lies ready who reads is called.
    low: Option<Bound>,
    /// How large records are, in bytes: of late the largest on average.
    size: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { shut: None, stopped: false, starving: None, low: None, size: GUESS }
    }
}

impl Gate {
    /// How many records are asked for where little lies ready and nothing is stopped: no partition needs to be looked at then.
    pub(super) fn calm(&mut self, ahead: Bound) -> Option<usize> {
        if self.shut.is_some() || self.stopped || is_above(ahead, AHEAD) {
            return None;
        }
        (self.starving, self.low) = (None, None);
        Some(self.room(AHEAD, ahead))
    }

    /// What is to be done. `idle`: nothing can be handed out.
    pub(super) fn step<K>(
        &mut self,
        parts: impl Iterator<Item = (K, Part)> + Clone,
        idle: bool,
        now: Instant,
    ) -> Step<K> {
        let (mut open, mut held, mut count, mut dry) = (NONE, NONE, 0, false);
        for (_, part) in parts.clone() {
            let sum = if part.held { &mut held } else { &mut open };
            *sum = plus(*sum, part.ahead);
            (count, dry) = (count + 1, dry || part.dry);
        }
        self.starving = (idle && dry).then(|| self.starving.unwrap_or(now));
        let starves = self.starving.is_some_and(|since| since + PATIENCE <= now);
        let mark = mark(count);
        let drained = |part: &Part| !is_above(part.ahead, divided(mark, LOW));
        self.stopped &= !starves && is_above(plus(open, held), divided(AHEAD, LOW));
        if self.stopped {
            self.low = Some(divided(AHEAD, LOW));
        } else {
            let resume: Vec<K> = named(parts.clone(), |part| part.held && drained(part)).collect();
            if !resume.is_empty() {
                return Step::Resume(resume);
            }
        }
        // What is stopped takes its part, but leaves some to the others.
        let bound = most(minus(AHEAD, held), mark);
        let low = divided(bound, LOW);
        if !is_above(open, if self.shut.is_some() { low } else { bound }) {
            self.shut = None;
            self.low = self.low.filter(|_| self.stopped);
            return Step::Ask(self.room(bound, open));
        }
        if starves {
            let full: Vec<K> = named(parts, |part| !part.held && !drained(part)).collect();
            if full.is_empty() {
                return Step::Ask(self.room(bound, open));
            }
            (self.shut, self.starving) = (None, None);
            return Step::Hold(full);
        }
        let shut = self
            .shut
            .get_or_insert_with(|| Shut { taste: now + TASTE, most: plus(open, divided(AHEAD, LOW)) });
        if is_above(open, shut.most) {
            (self.shut, self.stopped) = (None, true);
            return Step::Hold(named(parts, |part| !part.held).collect());
        }
        if shut.taste <= now {
            shut.taste = now + TASTE;
            return Step::Taste;
        }
        self.low = Some(plus(low, held));
        Step::Moment(shut.taste.min(now + PATIENCE))
    }

    /// So much came at once.
    pub(super) fn brought(&mut self, came: Bound) {
        if let Some(size) = came.bytes.checked_div(came.messages) {
            self.size = size.max(self.size - self.size / 8);
        }
    }

    /// So much lies ready: whether who reads is to be called.
    pub(super) fn wants_more(&self, ahead: Bound) -> bool {
        self.low.is_some_and(|low| !is_above(ahead, low))
    }

    /// When it is to be looked again, where nothing is read that would tell.
    pub(super) fn look(&self, now: Instant) -> Option<Instant> {
        self.stopped.then(|| now + PATIENCE)
    }

    const fn room(&self, bound: Bound, open: Bound) -> usize {
        let left = bound.bytes.saturating_sub(open.bytes);
        let room = match left.checked_div(self.size) {
            Some(room) if room < MOST => room + 1,
            _ => MOST,
        };
        if room < MOST { room } else { MOST }
    }
}

/// Whether little is left of a partition that was stopped, of so many.
pub(super) fn has_drained(ahead: Bound, owned: usize) -> bool {
    !is_above(ahead, divided(mark(owned), LOW))
}

fn named<K>(
    parts: impl Iterator<Item = (K, Part)>,
    which: impl Fn(&Part) -> bool,
) -> impl Iterator<Item = K> {
    parts.filter(move |(_, part)| which(part)).map(|(key, _)| key)
}

/// The part of one partition in what lies ready, of so many.
fn mark(count: usize) -> Bound {
    most(divided(AHEAD, count.max(1)), LEAST)
}

const fn is_above(ahead: Bound, bound: Bound) -> bool {
    ahead.messages > bound.messages || ahead.bytes > bound.bytes
}

const fn divided(bound: Bound, by: usize) -> Bound {
    Bound { messages: bound.messages / by, bytes: bound.bytes / by }
}

const fn plus(one: Bound, other: Bound) -> Bound {
    Bound { messages: one.messages + other.messages, bytes: one.bytes + other.bytes }
}

const fn minus(one: Bound, other: Bound) -> Bound {
    let messages = one.messages.saturating_sub(other.messages);
    Bound { messages, bytes: one.bytes.saturating_sub(other.bytes) }
}

fn most(one: Bound, other: Bound) -> Bound {
    Bound { messages: one.messages.max(other.messages), bytes: one.bytes.max(other.bytes) }
}
