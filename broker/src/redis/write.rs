//! What is written at once: messages, where each of them goes, the commands that write them, and what became of them.
//!
//! Not here: the connection, and what an answer means (`writer.rs`); the queue before it (`publish.rs`).

use super::{failure::BACKEND, keys::PartitionKeys, layout, publish::Job, request::Request, scripts};
use crate::{Error, ErrorKind, Message, Outcomes, Position, Published, Target, Timestamp};
use ropeway_store::redis::Reply;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How many entries are looked at for a message that is sent again; 64 MiB of them at the most (`search.lua`).
pub(super) const LOOKED_AT: u32 = 20_000;

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
    /// The server did not do it when it was sent last, in passing.
    pub(super) refused: bool,
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
        for entry in &mut self.entries {
            entry.refused = false;
            entry.put(&mut request);
        }
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

    /// Something was written to a log: what was refused before it is not sent again, as it would come behind. What is held has no place in the log yet.
    pub(super) fn not_behind(&mut self, log: &str, server: &str) {
        let is_behind = |entry: &Entry| entry.later.is_none() && entry.keys.log() == log;
        if self.entries.iter().any(is_behind) {
            self.give_back_if(&overtaken(server), |entry, _| is_behind(entry));
        }
    }

    /// When all that was sent is settled as far as it will be: gives back what was refused, where nobody knows whether something that was sent
    /// behind it is in its log.
    pub(super) fn hold_back(&mut self, server: &str) {
        let mut unknown = HashSet::new();
        let mut behind = vec![false; self.entries.len()];
        for (at, entry) in self.entries.iter().enumerate().rev().filter(|(_, entry)| entry.later.is_none()) {
            match entry.refused {
                true => behind[at] = unknown.contains(entry.keys.log()),
                false if entry.unknown.is_some() => _ = unknown.insert(entry.keys.log()),
                false => {}
            }
        }
        let mut behind = behind.into_iter();
        self.give_back_if(&overtaken(server), |_, _| behind.next().unwrap_or(false));
    }

    /// After a failure: gives back what is out of time `pause` from now, and what cannot be sent again.
    pub(super) fn give_back(&mut self, error: &Error, pause: Duration) {
        let latest = Instant::now() + pause;
        self.give_back_if(error, |entry, deadline| {
            latest >= deadline || !error.is_retryable() && entry.unknown.is_none()
        });
    }

    /// Gives back what is not settled and meant; `which` is told the entry and its deadline.
    fn give_back_if(&mut self, error: &Error, mut which: impl FnMut(&Entry, Instant) -> bool) {
        for entry in std::mem::take(&mut self.entries) {
            if which(&entry, self.batches[entry.batch].job.deadline) {
                self.give_back_one(entry, error);
            } else {
                self.entries.push(entry);
            }
        }
    }

    /// Gives back what was taken out of the entries.
    pub(super) fn give_back_one(&mut self, entry: Entry, error: &Error) {
        let Batch { job, outcomes } = &mut self.batches[entry.batch];
        let error = told(&job.to, error.clone());
        outcomes[entry.at] = Some(match entry.unknown {
            None => Published::not_written(error, entry.message),
            Some(_) => Published::unknown(error, entry.message),
        });
    }

    /// Puts back what was withheld, where it was.
    pub(super) fn put_back(&mut self, withheld: Vec<Entry>) {
        self.entries.extend(withheld);
        self.entries.sort_by_key(|entry| (entry.batch, entry.at));
    }

    /// Answers all batches. Every message has its outcome.
    pub(super) fn answer(self, mut count: impl FnMut(&Outcomes)) {
        let outcomes = |Batch { job, outcomes }| {
            let outcomes = Outcomes(outcomes.into_iter().flatten().collect());
            count(&outcomes);
            (job, outcomes)
        };
        // All are put together before the first is told: so those who wait are woken together, and a thread that helps them is woken once.
        let answers: Vec<(Job, Outcomes)> = self.batches.into_iter().map(outcomes).collect();
        for (job, outcomes) in answers {
            _ = job.answer.send(outcomes);
        }
    }
}

/// Why something is given back that would come behind what was sent after it.
pub(super) fn overtaken(server: &str) -> Error {
    let context = format!(
        "redis {server} did not take it (a replica became the primary, or it read its data), and may have taken what was sent behind it; send it again, if it may come behind that"
    );
    Error::new(ErrorKind::Unavailable, context)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Topic,
        redis::{keys::Keys, publish::Intake, searching, settings::RedisStreamsSettings},
    };
    use futures::FutureExt as _;
    use proptest::prelude::*;

    const LOGS: usize = 3;

    /// Writes of messages that are numbered in the order in which they were taken over, each with the log it goes to.
    fn writes(sizes: &[Vec<usize>]) -> Vec<Write> {
        let topic = Topic::new("t").unwrap();
        let keys: Vec<_> = (0..3).map(|at| Arc::new(Keys::new("x").unwrap().partition(&topic, at))).collect();
        let (intake, mut jobs) = Intake::new(&RedisStreamsSettings::default(), Arc::default());
        let mut number = 0;
        let mut of = |logs: &Vec<usize>| {
            let mut write = Write::default();
            for (at, log) in logs.iter().enumerate() {
                let message = Message::builder().payload(number.to_string()).build();
                number += 1;
                drop(intake.take(&topic.clone().into(), vec![message.clone()]));
                let job = jobs.try_recv().unwrap();
                write.batches.push(Batch { job, outcomes: vec![None] });
                let (partition, keys) = (*log as u32, Arc::clone(&keys[*log]));
                write.entries.push(Entry {
                    batch: at,
                    at: 0,
                    message,
                    partition,
                    keys,
                    later: None,
                    replicated: false,
                    unknown: None,
                    refused: false,
                });
            }
            write
        };
        sizes.iter().map(&mut of).collect()
    }

    fn number(message: &Message) -> u64 {
        std::str::from_utf8(message.payload.as_ref().unwrap()).unwrap().parse().unwrap()
    }

    /// What a server does with what is sent over a connection, and what of that is seen.
    struct Connection {
        /// It refuses that many, and does what comes behind.
        refuses: usize,
        /// The answers to so many are seen; then it is cut.
        seen: usize,
        /// So many reach the server.
        reach: usize,
    }

    impl Connection {
        /// Sends all that is not settled in `write`, behind what is left `before` it. What is done lies in the logs, in their order.
        fn send(
            &self,
            sent: &mut usize,
            write: &mut Write,
            before: &mut Write,
            logs: &mut [Vec<u64>],
            acked: &mut Vec<(usize, u64)>,
        ) {
            for mut entry in std::mem::take(&mut write.entries) {
                let (at, log, number) = (*sent, entry.partition as usize, number(&entry.message));
                *sent += 1;
                let done = at >= self.refuses && at < self.reach;
                if done && !(entry.unknown.is_some() && logs[log].contains(&number)) {
                    logs[log].push(number);
                }
                if at >= self.seen {
                    entry.unknown.get_or_insert(Position(0, 0));
                    write.entries.push(entry);
                } else if done {
                    acked.push((log, number));
                    before.not_behind(entry.keys.log(), "h:1");
                    write.not_behind(entry.keys.log(), "h:1");
                } else {
                    entry.refused = true;
                    write.entries.push(entry);
                }
            }
        }
    }

    /// The log is searched for what may be there before it is sent again.
    fn search(write: &mut Write, logs: &[Vec<u64>]) {
        let searches = searching::needed(write);
        let mut asked: Vec<(usize, Vec<u64>)> = Vec::new();
        for entry in write.entries.iter().filter(|entry| entry.unknown.is_some()) {
            let log = entry.partition as usize;
            match asked.iter_mut().find(|(of, _)| *of == log) {
                Some((_, numbers)) => numbers.push(number(&entry.message)),
                None => asked.push((log, vec![number(&entry.message)])),
            }
        }
        let word = |is: bool| Reply::Bulk(if is { "7-1" } else { "" }.into());
        let answer = |(log, numbers): (usize, Vec<u64>)| {
            let there = numbers.iter().map(|number| word(logs[log].contains(number)));
            Ok(Reply::Array(
                ["found", "9-0"].map(|word| Reply::Bulk(word.into())).into_iter().chain(there).collect(),
            ))
        };
        let answers = asked.into_iter().filter(|(_, numbers)| numbers.len() > 1).map(answer).collect();
        let (withheld, failure) = searching::settle(searches, answers, write, "h:1");
        assert!(withheld.is_empty() && failure.is_none());
    }

    #[test]
    fn nobody_is_told_of_a_write_before_all_its_answers_are_put_together() {
        let topic = Topic::new("t").unwrap();
        let (intake, mut jobs) = Intake::new(&RedisStreamsSettings::default(), Arc::default());
        let mut write = Write::default();
        let mut told: Vec<_> = (0..3)
            .map(|_| {
                let answer =
                    intake.take(&topic.clone().into(), vec![Message::builder().payload("p").build()]);
                let outcome = Published::Acked {
                    partition: 0,
                    position: None,
                    durability: crate::Durability::Volatile,
                };
                let job = jobs.try_recv().unwrap();
                write.batches.push(Batch { job, outcomes: vec![Some(outcome)] });
                answer
            })
            .collect();
        let mut counted = 0;
        write.answer(|outcomes| {
            counted += outcomes.0.len();
            assert!(told.iter_mut().all(|answer| answer.now_or_never().is_none()));
        });
        assert_eq!(counted, 3);
        assert!(told.into_iter().all(|answer| answer.now_or_never().unwrap().all_acked()));
        assert!(intake.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_acked_lies_once_and_in_order_whenever_a_server_begins_to_take_writes(
            sizes in prop::collection::vec(prop::collection::vec(0..LOGS, 1..6), 1..4),
            cuts in prop::collection::vec((0..16_usize, 0..16_usize, 0..8_usize), 0..4),
        ) {
            let (mut logs, mut acked) = (vec![Vec::new(); LOGS], Vec::new());
            let (mut open, mut kept) = (writes(&sizes), Write::default());
            let (all, calm) = (sizes.iter().flatten().count(), (0, usize::MAX, 0));
            for (refuses, seen, more) in cuts.into_iter().chain([calm]) {
                open.iter_mut().for_each(|write| search(write, &logs));
                let connection = Connection { refuses, seen, reach: seen.saturating_add(more) };
                let mut sent = 0;
                for mut write in open {
                    connection.send(&mut sent, &mut write, &mut kept, &mut logs, &mut acked);
                    kept.append(write);
                }
                kept.hold_back("h:1");
                for entry in &mut kept.entries {
                    entry.refused = false;
                }
                open = vec![std::mem::take(&mut kept)];
            }
            let left: usize = open.iter().map(|write| write.entries.len()).sum();
            let given: usize = open.iter().flat_map(|write| &write.batches).filter(|batch| batch.outcomes[0].is_some()).count();
            prop_assert_eq!((left, given + acked.len()), (0, all));
            for (log, numbers) in logs.iter().enumerate() {
                let mine: Vec<usize> = acked.iter().filter(|(of, _)| *of == log)
                    .map(|(_, number)| numbers.iter().position(|at| at == number).unwrap()).collect();
                let mut order: Vec<u64> = acked.iter().filter(|(of, _)| *of == log).map(|(_, number)| *number).collect();
                prop_assert!(numbers.iter().all(|number| numbers.iter().filter(|other| *other == number).count() == 1));
                order.sort_unstable();
                let in_order: Vec<usize> =
                    order.iter().map(|number| numbers.iter().position(|at| at == number).unwrap()).collect();
                prop_assert!(in_order.is_sorted(), "log {}: {:?} of {:?} {:?}", log, order, numbers, mine);
            }
        }
    }
}
