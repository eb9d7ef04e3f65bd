//! Publishing so that each message survives a power cut: ours beside a rival that writes the same messages.
//!
//! Ours is the public way, a `Publisher` over `embedded:` with so many tasks, each with one message on its way. fjall and the file are loops
//! on one thread with nothing around them, which write as many messages at once as ours did. redb and SQLite are used as a service would
//! use them: so many tasks hand their messages to one thread, which writes all that wait in one transaction and answers them (`gathered.rs`).
//! Each turn writes some messages before the watch starts, and reads all of them back when it has stopped. The first of them fill more than
//! one journal, many at a time: a store that was opened goes on in a journal that grows with each commit, whose syncs cost more, until that is full.

use super::{embedded, file, fjall, gathered, redb, sqlite};
use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    work::Work,
};
use ropeway_broker::Message;
use std::{ops::Range, path::Path, time::Duration};

/// Beside whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    Fjall,
    File,
    /// The file, with as many messages at once as would be there if none were ever on their way: half are written while the others come back.
    Limit,
    Redb,
    Sqlite,
}

/// How many messages are written before the others, and how many at once: more than the 64 MiB of a journal.
const FIRST: u64 = 80_000;
pub(super) const FIRST_AT_ONCE: u64 = 1024;

/// Messages `0..first` are written many at a time, those up to `timed` as the cell says, and then by the watch those of `timed`.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) first: u64,
    pub(super) timed: Range<u64>,
}

/// A rival that stores messages.
pub(super) trait Store: Send {
    /// Writes these messages, with their numbers, as one, and so that they survive a power cut when it returns.
    fn write(&mut self, batch: &[(u64, Message)]) -> Result<()>;
    /// Reads everything back, in any order.
    fn read(&mut self, each: &mut dyn FnMut(&Message)) -> Result<()>;
}

/// Writes the messages in parts as long as `batch`, one after the other; answers how many parts there were.
fn in_a_loop(store: &mut dyn Store, work: &Work, messages: Range<u64>, batch: u64) -> Result<u64> {
    let (mut parts, end) = (0, messages.end);
    let mut part = Vec::with_capacity(batch as usize);
    for from in messages.step_by(batch as usize) {
        part.clear();
        part.extend((from..end.min(from + batch)).map(|i| (i, work.message(i))));
        store.write(&part)?;
        parts += 1;
    }
    Ok(parts)
}

/// The pair of such a cell.
pub(crate) struct Publish {
    work: Work,
    at_once: u64,
    parts: Parts,
    against: Against,
    /// How many messages ours had in a commit, in its last turn.
    per_commit: f64,
}

impl Publish {
    pub(crate) fn pair(plan: &Plan, at_once: u64, messages: u64, against: Against) -> Box<dyn Pair> {
        let (first, messages) = (plan.messages(FIRST), plan.messages(messages));
        let begin = first + messages / 5;
        let parts = Parts { first, timed: begin..begin + messages };
        Box::new(Self { work: Work::new(1024), at_once, parts, against, per_commit: at_once as f64 })
    }

    /// How many messages a loop writes as one: as many as ours did, or as anybody could.
    fn batch(&self) -> u64 {
        match self.against {
            Against::Limit => (self.at_once / 2).max(1),
            _ => (self.per_commit.round() as u64).max(1),
        }
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Store>> {
        Ok(match self.against {
            Against::Fjall => Box::new(fjall::Bare::open(dir)?),
            Against::File | Against::Limit => Box::new(file::Bare::open(dir)?),
            Against::Redb => Box::new(redb::Bare::open(dir)?),
            Against::Sqlite => Box::new(sqlite::Bare::open(dir)?),
        })
    }

    fn in_a_loop(&self, mut store: Box<dyn Store>) -> Result<Written> {
        let (batch, Parts { first, timed }) = (self.batch(), self.parts.clone());
        in_a_loop(&mut *store, &self.work, 0..first, FIRST_AT_ONCE / 2)?;
        in_a_loop(&mut *store, &self.work, first..timed.start, batch)?;
        let watch = Stopwatch::start();
        let commits = in_a_loop(&mut *store, &self.work, timed, batch)?;
        let (wall, cpu) = watch.stop();
        Ok((store, wall, cpu, commits))
    }
}

impl Pair for Publish {
    fn ours(&mut self, dir: &Path) -> Result<Turn> {
        let turn = embedded::publish(dir, &self.work, self.at_once, &self.parts)?;
        self.per_commit = turn.facts.first().map_or(self.per_commit, |(_, value)| *value);
        Ok(turn)
    }

    fn rival(&mut self, dir: &Path) -> Result<Turn> {
        let store = self.open(dir)?;
        let (mut store, wall, cpu, commits) = match self.against {
            Against::Fjall | Against::File | Against::Limit => self.in_a_loop(store)?,
            Against::Redb | Against::Sqlite => {
                gathered::publish(store, &self.work, self.at_once, &self.parts)?
            }
        };
        let mut seen = crate::work::Seen::default();
        let watch = Stopwatch::start();
        store.read(&mut |message| seen.add(message))?;
        let read = seen.count as f64 / watch.stop().0.as_secs_f64();
        let Range { start, end } = self.parts.timed;
        seen.check(self.work.expected(end), "the rival")?;
        let messages = end - start;
        let per_commit = messages as f64 / commits.max(1) as f64;
        let facts = vec![("messages a commit", per_commit), ("read back/s", read)];
        Ok(Turn { messages, wall, cpu, facts })
    }
}

/// A store, how long it took by the clock and of the processor, and how many commits it made.
pub(super) type Written = (Box<dyn Store>, Duration, Duration, u64);
