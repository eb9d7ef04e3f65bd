//! What is written at once: messages, where each of them goes, the commands that write them, and what became of them.
//!
//! Not here: the connection, and what an answer means (`writer.rs`); the queue before it (`publish.rs`).

use super::{
    failure::{BACKEND, late},
    keys::PartitionKeys,
    layout,
    publish::Job,
    request::Request,
    scripts,
};
use crate::{Error, Message, Outcomes, Position, Published, Target, Timestamp};
use ropeway_store::redis::Reply;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How many entries are looked at for a message that is sent again.
const LOOKED_AT: u32 = 20_000;

/// Whole batches, in the order in which they were taken over.
#[derive(Debug, Default)]
pub(super) struct Write {
    pub(super) batches: Vec<Batch>,
    /// What is not settled yet, in order.
    pub(super) entries: Vec<Entry>,
    /// What the server answered, in order.
    pub(super) answers: Vec<Reply>,
    /// How many answers there will be.
    pub(super) expected: usize,
    pub(super) bytes: usize,
}

/// A batch under way.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) job: Job,
    pub(super) outcomes: Vec<Option<Published>>,
}

/// A message that is to be written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) batch: usize,
    pub(super) at: usize,
    pub(super) message: Message,
    pub(super) partition: u32,
    pub(super) keys: Arc<PartitionKeys>,
    /// Not to be in the log yet.
    pub(super) later: Option<Later>,
    /// Asked to survive the loss of the machine.
    pub(super) replicated: bool,
    /// Since when nobody knows whether it is in the log, and behind which position it would lie.
    pub(super) unknown: Option<Position>,
}

/// When a message is due, and in which life of its topic it is held.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) due: Timestamp,
    pub(super) life: String,
}

impl Write {
    /// The commands that write what is not settled. Whoever asks for a replica waits for it behind all of them.
    pub(super) fn request(&mut self, replicas: u32, wait: Duration) -> Request {
        let mut request = Request::with_room(self.bytes + 160 * self.entries.len());
        self.entries.iter().for_each(|entry| entry.put(&mut request));
        if self.is_replicated() {
            request.command(&["WAIT", &replicas.to_string(), &wait.as_millis().max(1).to_string()]);
        }
        self.answers.clear();
        self.expected = request.commands();
        request
    }

    /// Whether one of them is to survive the loss of the machine.
    pub(super) fn is_replicated(&self) -> bool {
        self.entries.iter().any(|entry| entry.replicated)
    }

    /// Whether all that was asked is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.answers.len() >= self.expected
    }

    /// When the first message that is not settled is to have its outcome: batches come in the order of their deadlines.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = self.entries.first()?;
        self.batches.get(first.batch).map(|batch| batch.job.deadline)
    }

    /// Adds another one behind.
    pub(super) fn append(&mut self, other: Self) {
        let first = self.batches.len();
        self.batches.extend(other.batches);
        self.entries
            .extend(other.entries.into_iter().map(|entry| Entry { batch: entry.batch + first, ..entry }));
        self.bytes += other.bytes;
    }

    /// Something was written to a log: what was refused before it is not sent again, as it would come behind.
    pub(super) fn not_behind(&mut self, log: &str) {
        if self.entries.iter().all(|entry| entry.keys.log() != log) {
            return;
        }
        for entry in std::mem::take(&mut self.entries) {
            if entry.keys.log() != log {
                self.entries.push(entry);
                continue;
            }
            let Batch { job, outcomes } = &mut self.batches[entry.batch];
            let error = told(&job.to, late("the server"));
            outcomes[entry.at] = Some(match entry.unknown {
                None => Published::not_written(error, entry.message),
                Some(_) => Published::unknown(error, entry.message),
            });
        }
    }

    /// After a failure: gives back what is out of time `pause` from now, and what cannot be sent again.
    pub(super) fn give_back(&mut self, error: &Error, pause: Duration) {
        let latest = Instant::now() + pause;
        for entry in std::mem::take(&mut self.entries) {
            let Batch { job, outcomes } = &mut self.batches[entry.batch];
            let hopeless = !error.is_retryable() && entry.unknown.is_none();
            if latest < job.deadline && !hopeless {
                self.entries.push(entry);
                continue;
            }
            let error = told(&job.to, error.clone());
            outcomes[entry.at] = Some(match entry.unknown {
                None => Published::not_written(error, entry.message),
                Some(_) => Published::unknown(error, entry.message),
            });
        }
    }

    /// Answers all batches. Every message has its outcome.
    pub(super) fn answer(self, count: impl Fn(&Outcomes)) {
        for Batch { job, outcomes } in self.batches {
            let outcomes = Outcomes(outcomes.into_iter().flatten().collect());
            count(&outcomes);
            _ = job.answer.send(outcomes);
        }
    }
}

/// An error of publishing there.
pub(super) fn told(to: &Target, error: Error) -> Error {
    error.during(format!("publish to topic {:?}", to.topic)).on(BACKEND)
}

impl Entry {
    fn put(&self, request: &mut Request) {
        if let Some(later) = &self.later {
            let keys = [self.keys.log(), &self.keys.part(), &self.keys.delayed(), &self.keys.held()];
            let packed = layout::packed(&self.message);
            let id = self.message.id.as_u128().to_be_bytes();
            let due = later.due.as_millis().to_string();
            let again = if self.unknown.is_some() { "again" } else { "" };
            let call = request.call(&scripts::HOLD, &keys, 5);
            call.word(&later.life).word(id).word(due).word(packed).word(again);
            return;
        }
        let Some(behind) = self.unknown else { return request.add(self.keys.log(), &self.message) };
        let args = 3 + layout::field_count(&self.message);
        // In full: a server that forgot the script would do what comes behind it first.
        request
            .call_in_full(&scripts::ADD_ONCE, &[self.keys.log()], args)
            .word(self.message.id.as_u128().to_be_bytes())
            .word(behind.to_string())
            .word(LOOKED_AT.to_string());
        layout::fields(&self.message, |word| _ = request.word(word));
    }
}
