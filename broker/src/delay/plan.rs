//! What the owner of a partition does next. Pure.
//!
//! Not here: what it knows (`shelf.rs`), how it is done (`job.rs`).

use super::{
    record::{Held, MOST_PLACES},
    shelf::{Job, Shelf, State},
};
use crate::{Position, Timestamp};
use std::time::Duration;

/// How long before it is due a message is closed: as much later than asked it can be taken back no more.
pub(super) const LEAD: Duration = Duration::from_millis(200);
/// What is due sooner is not put away.
pub(super) const LEAST_AWAY: Duration = Duration::from_secs(90);
/// What is due sooner is not written again.
const LEAST_COPY: Duration = Duration::from_secs(60);
/// How many more records may lie behind a message that waits for each that waits.
const GARBAGE: u64 = 4;
/// How many messages are written again at once.
const COPIES: usize = 256;
/// How many tries fail before a message is written again as one that cannot be taken back.
const STUCK: u8 = 6;
/// How many bytes are moved at once.
const MOVE_BYTES: usize = 1024 * 1024;

/// How much is held and left behind in one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many messages are held in memory before those that are farthest from due are put away.
    pub(super) messages: usize,
    /// How many bytes of messages, about, are held in memory before that.
    pub(super) bytes: usize,
    /// How many records may lie behind the oldest message that waits, beside four for each that waits, before it is written again.
    pub(super) window: u64,
    /// After how many acks the log is purged.
    pub(super) purge: u64,
}

impl Limits {
    /// Those of every broker.
    pub(super) const ALL: Self =
        Self { messages: 32_768, bytes: 8 * 1024 * 1024, window: 4096, purge: 16_384 };
}

impl Shelf {
    /// What to do now.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<Job> {
        if self.deposed || self.busy.gave_up {
            return Vec::new();
        }
        if self.uncertain {
            self.busy.gave_up = true;
            return vec![Job::GiveUp];
        }
        let mut jobs = std::mem::take(&mut self.ready);
        jobs.extend(self.answers(now));
        let rested = self.busy.rest <= now;
        let renew = self.take.is_some_and(|(.., number)| self.is_old(number));
        if (!self.taken || renew) && !self.busy.taking && rested {
            self.busy.taking = true;
            jobs.push(Job::Take);
        }
        if self.acts() {
            if rested {
                jobs.extend(self.close_due(now));
                jobs.extend(self.put_away(now));
            }
            jobs.extend(self.move_due(now));
        }
        if self.taken && rested {
            jobs.extend(self.copy_old(now));
            jobs.extend(self.purge());
        }
        jobs
    }

    /// When to ask again, where nothing happens before.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        if self.deposed || self.busy.gave_up {
            return None;
        }
        let acts = self.acts();
        let open = self.open.first().filter(|_| acts && !self.busy.closing).map(|(when, _)| *when - LEAD);
        let closed = self.closed.first().filter(|_| acts && !self.busy.moving).map(|(when, _)| *when);
        let take = (!self.taken && !self.busy.taking).then_some(self.busy.rest);
        let open = open.map(|when| when.max(self.busy.rest));
        [open, closed, take, self.answer_again()].into_iter().flatten().min()
    }

    /// Whether messages are closed and moved. Before all is known, only where memory is so short that reading on would stop.
    fn acts(&self) -> bool {
        let half =
            self.entries.len() > self.limits.messages / 2 * 3 || self.bytes > self.limits.bytes / 2 * 3;
        self.taken || half
    }

    /// Whether there is more than is to be held in memory.
    pub(super) fn is_crowded(&self) -> bool {
        self.entries.len() > self.limits.messages || self.bytes > self.limits.bytes
    }

    /// Whether a record of that number holds the group's position back too long.
    fn is_old(&self, number: u64) -> bool {
        self.read.saturating_sub(number) > self.limits.window + GARBAGE * self.entries.len() as u64
    }

    fn close_due(&mut self, now: Timestamp) -> Option<Job> {
        if self.busy.closing {
            return None;
        }
        let soon = now + LEAD;
        let mut of: Vec<Position> = self
            .open
            .iter()
            .take_while(|(when, _)| *when <= soon)
            .map(|(_, at)| *at)
            .take(MOST_PLACES)
            .collect();
        let going = self.busy.away || self.closed.last().is_some_and(|(_, at)| self.goes_away(*at));
        if of.is_empty() && self.is_crowded() && !going {
            // From the farthest on, until a quarter is free.
            let spare = self.entries.len().saturating_sub(self.limits.messages / 4 * 3).max(1);
            let far = self.open.iter().rev().take_while(|(when, _)| *when >= now + LEAST_AWAY);
            of = far.map(|(_, at)| *at).take(spare.min(MOST_PLACES)).collect();
            for at in &of {
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.away = true;
                }
            }
        }
        if of.is_empty() {
            return None;
        }
        for at in &of {
            if let Some(entry) = self.entries.get_mut(at) {
                self.open.remove(&(entry.when, *at));
                entry.state = State::Closing;
            }
        }
        of.sort_unstable();
        self.busy.closing = true;
        Some(Job::Close(of))
    }

    fn move_due(&mut self, now: Timestamp) -> Option<Job> {
        if self.busy.moving {
            return None;
        }
        let due = self.closed.iter().take_while(|(when, _)| *when <= now).map(|(_, at)| *at);
        let of = self.departing(due.take(MOST_PLACES).collect(), false);
        self.busy.moving = !of.is_empty();
        self.busy.moving.then_some(Job::Move(of))
    }

    /// What is closed to be put away.
    fn put_away(&mut self, now: Timestamp) -> Option<Job> {
        if self.busy.away {
            return None;
        }
        let far = now + LEAST_AWAY;
        let crowded = self.is_crowded();
        let goes = |(when, at): &&(Timestamp, Position)| self.goes_away(*at) || crowded && *when >= far;
        let of = self.closed.iter().rev().take_while(goes).map(|(_, at)| *at).take(MOST_PLACES).collect();
        let of = self.departing(of, true);
        self.busy.away = !of.is_empty();
        self.busy.away.then_some(Job::Away(of))
    }

    fn goes_away(&self, at: Position) -> bool {
        self.entries.get(&at).is_some_and(|entry| entry.away)
    }

    /// Those are published from now on, as many as fit.
    fn departing(&mut self, of: Vec<Position>, away: bool) -> Vec<(Position, Held)> {
        let mut bytes = 0;
        let mut out = Vec::new();
        for at in of {
            let Some(entry) = self.entries.get_mut(&at) else { continue };
            bytes += entry.held.weight();
            if bytes > MOVE_BYTES && !out.is_empty() {
                break;
            }
            self.closed.remove(&(entry.when, at));
            entry.state = State::Moving;
            entry.away = away;
            out.push((at, entry.held.clone()));
        }
        out
    }

    /// Writes the oldest again at the end of the log, so that the group's position gets on.
    fn copy_old(&mut self, now: Timestamp) -> Vec<Job> {
        let oldest = self.entries.values().next().map(|entry| entry.number);
        if self.busy.copies > 0 || !oldest.is_some_and(|number| self.is_old(number)) {
            return Vec::new();
        }
        let middle = self.read - self.read.saturating_sub(oldest.unwrap_or(self.read)) / 2;
        let old = self.entries.iter().take_while(|(_, entry)| entry.number < middle);
        let of: Vec<Position> = old
            .filter(|(_, entry)| match entry.state {
                State::Open => entry.when >= now + LEAST_COPY,
                State::Closed => entry.tries >= STUCK && !entry.away,
                _ => false,
            })
            .map(|(at, _)| *at)
            .take(COPIES)
            .collect();
        let mut jobs = Vec::with_capacity(of.len());
        for from in of {
            let Some(entry) = self.entries.get_mut(&from) else { continue };
            self.open.remove(&(entry.when, from));
            self.closed.remove(&(entry.when, from));
            let sealed = entry.held.sealed || entry.state == State::Closed;
            entry.state = State::Copying;
            entry.held.sealed = sealed;
            let held = Held { copy: Some((self.epoch, from)), ..entry.held.clone() };
            self.busy.copies += 1;
            jobs.push(Job::Copy { from, held });
        }
        jobs
    }

    fn purge(&mut self) -> Option<Job> {
        if self.busy.purging || self.settled < self.limits.purge {
            return None;
        }
        let before = self.settled_before()?;
        self.settled = 0;
        self.busy.purging = true;
        Some(Job::Purge(before))
    }
}
