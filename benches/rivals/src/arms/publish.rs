//! Publishing so that each message survives a power cut: ours beside a rival that writes the same messages.
//!
//! Ours is the public way, a `Publisher` over `embedded:` with so many tasks, each with one message on its way. The rivals are loops
//! on one thread, with nothing around them. Each turn writes some messages before the watch starts, and reads all of them back when it has
//! stopped.

use super::{embedded, file, fjall, redb, sqlite};
use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    work::Work,
};
use std::{ops::Range, path::Path};

/// Beside whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    Fjall,
    File,
    Redb,
    Sqlite,
}

/// A rival that stores messages.
pub(super) trait Store {
    /// Writes these messages, so many as one, and each of these so that it survives a power cut before the next begins.
    fn write(&mut self, work: &Work, messages: Range<u64>, batch: u64) -> Result<()>;
    /// Reads everything back, in any order.
    fn read(&mut self, each: &mut dyn FnMut(&ropeway_broker::Message)) -> Result<()>;
}

/// The parts of `messages`, as long as `batch` but for the last one.
pub(super) fn batches(messages: Range<u64>, batch: u64) -> impl Iterator<Item = Range<u64>> {
    let end = messages.end;
    messages.step_by(batch as usize).map(move |from| from..end.min(from + batch))
}

/// The pair of such a cell.
pub(crate) struct Publish {
    work: Work,
    at_once: u64,
    /// Written before the watch starts.
    warm: u64,
    messages: u64,
    against: Against,
    /// How many messages ours had in a commit, in its last turn.
    per_commit: f64,
}

impl Publish {
    pub(crate) fn pair(plan: &Plan, at_once: u64, messages: u64, against: Against) -> Box<dyn Pair> {
        let messages = plan.messages(messages);
        let per_commit = at_once as f64;
        Box::new(Self { work: Work::new(1024), at_once, warm: messages / 5, messages, against, per_commit })
    }

    /// How many messages the rival writes as one: as many as ours did.
    fn batch(&self) -> u64 {
        (self.per_commit.round() as u64).max(1)
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Store>> {
        Ok(match self.against {
            Against::Fjall => Box::new(fjall::Bare::open(dir)?),
            Against::File => Box::new(file::Bare::open(dir)?),
            Against::Redb => Box::new(redb::Bare::open(dir)?),
            Against::Sqlite => Box::new(sqlite::Bare::open(dir)?),
        })
    }

    fn all(&self) -> u64 {
        self.warm + self.messages
    }
}

impl Pair for Publish {
    fn ours(&mut self, dir: &Path) -> Result<Turn> {
        let turn = embedded::publish(dir, &self.work, self.at_once, self.warm..self.all())?;
        self.per_commit = turn.facts.first().map_or(self.per_commit, |(_, value)| *value);
        Ok(turn)
    }

    fn rival(&mut self, dir: &Path) -> Result<Turn> {
        let batch = self.batch();
        let mut store = self.open(dir)?;
        store.write(&self.work, 0..self.warm, batch)?;
        let watch = Stopwatch::start();
        store.write(&self.work, self.warm..self.all(), batch)?;
        let (wall, cpu) = watch.stop();
        let mut seen = crate::work::Seen::default();
        let watch = Stopwatch::start();
        store.read(&mut |message| seen.add(message))?;
        let read = seen.count as f64 / watch.stop().0.as_secs_f64();
        seen.check(self.work.expected(self.all()), "the rival")?;
        let facts = vec![("messages a commit", batch as f64), ("read back/s", read)];
        Ok(Turn { messages: self.messages, wall, cpu, facts })
    }
}
