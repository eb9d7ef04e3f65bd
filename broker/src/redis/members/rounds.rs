//! Forwards that wait, and the round of them that is sent at once: each round is one script, which takes effect whole or not at all.
//!
//! One round is under way at a time, with a higher number than all before, so that it is known by its number when it is sent again. What
//! waits is bounded by the queue of what is published (`../publish.rs`). Pure. Not here: who sends it (`forward.rs`), what the script does
//! (`../scripts/forward.lua`).

use super::share::{Store, done_before};
use crate::{
    Error, Group, Message, Outcomes, Owned, Position, Target, Timestamp, Topic,
    counted::Counted,
    queued::Held,
    redis::{keys::PartitionKeys, layout, request::Request, scripts},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// The most messages of a round, unless one forward has more.
const MOST_MESSAGES: usize = 256;
/// The same in bytes.
const MOST_BYTES: usize = 1 << 20;

/// A forward that was taken over.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) of: Owned,
    pub(super) done: Vec<Position>,
    pub(super) out: Vec<(Target, Message)>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Outcomes>,
    pub(super) counted: Arc<Counted>,
    /// Given back with the answer.
    pub(super) _held: Held,
}

impl Forward {
    /// Answers that nothing of it was written, or that nobody knows.
    fn fail(self, error: &Error, unknown: bool) {
        let batch = self.out.into_iter().map(|(_, message)| message).collect();
        let outcomes = if unknown {
            Outcomes::all_unknown(error, batch)
        } else {
            Outcomes::all_not_written(error, batch)
        };
        self.counted.count(&outcomes);
        _ = self.answer.send(outcomes);
    }

    fn size(&self) -> usize {
        self.out.iter().map(|(_, message)| message.size()).sum()
    }
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    waiting: VecDeque<Forward>,
    /// What was sent, and nobody knows what became of it.
    open: Option<Round>,
    number: u64,
    /// Nobody sends them any more.
    left: bool,
}

impl Rounds {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.open.is_none()
    }

    pub(super) fn push(&mut self, forward: Forward) {
        // Who waits for a forward that is dropped is told that it may be written.
        if !self.left {
            self.waiting.push_back(forward);
        }
    }

    /// The one of which nobody knows what became, or as much as fits of what waits.
    pub(super) fn take(&mut self) -> Option<Round> {
        if let Some(open) = self.open.take() {
            return Some(open);
        }
        let mut forwards = Vec::new();
        let (mut messages, mut bytes) = (0, 0);
        while let Some(next) = self.waiting.front() {
            messages += next.out.len();
            bytes += next.size();
            if !forwards.is_empty() && (messages > MOST_MESSAGES || bytes > MOST_BYTES) {
                break;
            }
            forwards.extend(self.waiting.pop_front());
        }
        self.number += 1;
        (!forwards.is_empty()).then(|| Round { number: self.number, forwards, ..Round::default() })
    }

    /// To be sent again: the very same where nobody knows what became of it.
    pub(super) fn put_back(&mut self, round: Round) {
        if round.unknown {
            self.open = Some(round);
        } else {
            round.forwards.into_iter().rev().for_each(|forward| self.waiting.push_front(forward));
        }
    }

    /// Answers what is out of time. Of which partitions nobody knows what is stored by it.
    pub(super) fn expire(&mut self, now: Instant, error: impl Fn() -> Error) -> Vec<Owned> {
        let is_late = |forward: &Forward| forward.deadline <= now;
        let mut unknown = Vec::new();
        if let Some(round) = self.open.take_if(|round| round.forwards.iter().any(is_late)) {
            unknown.extend(round.sources.iter().map(|source| source.of.clone()));
            round.fail(&error());
        }
        while self.waiting.front().is_some_and(is_late) {
            self.waiting.pop_front().into_iter().for_each(|forward| forward.fail(&error(), false));
        }
        unknown
    }

    /// When something is out of time.
    pub(super) fn due(&self) -> Option<Instant> {
        let open = self.open.iter().flat_map(|round| &round.forwards);
        open.chain(&self.waiting).map(|forward| forward.deadline).min()
    }

    /// Who sent them is gone, perhaps in the middle of it: drops what waits, and what comes.
    pub(super) fn leave(&mut self) {
        *self = Self { left: true, ..Self::default() };
    }

    /// Nothing is sent any more.
    pub(super) fn end(&mut self, error: &Error) {
        self.open.take().into_iter().for_each(|round| round.fail(error));
        self.waiting.drain(..).for_each(|forward| forward.fail(error, false));
    }
}

/// Forwards that are sent at once.
#[derive(Debug, Default)]
pub(super) struct Round {
    number: u64,
    pub(super) forwards: Vec<Forward>,
    /// Where the messages of each forward go.
    pub(super) places: Vec<Vec<Place>>,
    pub(super) goals: Vec<Goal>,
    pub(super) sources: Vec<Source>,
    /// It was sent, and nobody knows what became of it.
    pub(super) unknown: bool,
    /// The server that its sources were taken over from, by its number: it is sent to no other.
    pub(super) home: u64,
}

/// Where a message goes.
#[derive(Debug)]
pub(super) struct Place {
    /// Which of the goals.
    pub(super) goal: usize,
    pub(super) partition: u32,
    pub(super) due: Option<Timestamp>,
}

/// A partition that is written to.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) topic: Topic,
    pub(super) keys: Arc<PartitionKeys>,
    pub(super) life: String,
}

/// A partition that something is acked of.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) of: Owned,
    pub(super) keys: PartitionKeys,
    pub(super) life: Option<u64>,
    /// What is stored of it; `None` where it is another's by now.
    pub(super) store: Option<Store>,
    /// Which acks that covers, beside those of the round.
    pub(super) changes: u64,
}

impl Round {
    /// Whether a replica is to have it.
    pub(super) fn is_replicated(&self) -> bool {
        let targets = self.forwards.iter().flat_map(|forward| &forward.out).map(|(target, _)| target);
        targets.into_iter().any(|target| target.at_least == Some(crate::Durability::Replicated))
    }

    /// When its outcome is due.
    pub(super) fn deadline(&self) -> Instant {
        self.forwards.iter().map(|forward| forward.deadline).min().unwrap_or_else(Instant::now)
    }

    /// What is acked of a partition.
    pub(super) fn done_of(&self, of: &Owned) -> Vec<Position> {
        let mine = self.forwards.iter().filter(|forward| forward.of == *of);
        mine.flat_map(|forward| forward.done.iter().copied()).collect()
    }

    /// Answers those that cannot be, by their place in it: nothing of them is written.
    pub(super) fn refuse(&mut self, error: &Error, which: impl Fn(usize, &Forward) -> bool) {
        let mut places = std::mem::take(&mut self.places).into_iter();
        for (at, forward) in std::mem::take(&mut self.forwards).into_iter().enumerate() {
            let place = places.next();
            if which(at, &forward) {
                forward.fail(error, false);
            } else {
                self.forwards.push(forward);
                self.places.extend(place);
            }
        }
    }

    /// Answers all of it: not written, or unknown where it may be.
    pub(super) fn fail(self, error: &Error) {
        let unknown = self.unknown;
        self.forwards.into_iter().for_each(|forward| forward.fail(error, unknown));
    }

    /// The keys of the script.
    pub(super) fn keys(&self, group: &Group) -> Vec<String> {
        let mut keys = Vec::new();
        for source in &self.sources {
            keys.extend([source.keys.log().to_owned(), source.keys.part(), source.keys.group(group)]);
        }
        for goal in &self.goals {
            let of = &goal.keys;
            keys.extend([of.log().to_owned(), of.part(), of.delayed(), of.held()]);
        }
        keys
    }

    /// The call of the script.
    pub(super) fn request(&self, group: &Group, replicas: u32, wait: Duration) -> Request {
        let keys = self.keys(group);
        let messages: usize = self.forwards.iter().map(|forward| forward.out.len()).sum();
        let args = 4 + 7 * self.sources.len() + self.goals.len() + 4 * messages;
        let mut request = Request::default();
        let call = request.call(&scripts::FORWARD, &keys, args);
        call.word(group.as_str()).word(self.number.to_string());
        call.word(self.sources.len().to_string()).word(self.goals.len().to_string());
        self.sources.iter().for_each(|source| source.put(call));
        self.goals.iter().for_each(|goal| _ = call.word(&goal.life));
        for (forward, places) in self.forwards.iter().zip(&self.places) {
            for ((_, message), place) in forward.out.iter().zip(places) {
                let due = place.due.map(|due| due.as_millis().to_string()).unwrap_or_default();
                call.word((place.goal + 1).to_string()).word(message.id.as_u128().to_be_bytes()).word(due);
                call.word(layout::packed(message));
            }
        }
        if self.is_replicated() {
            request.command(&["WAIT", &replicas.to_string(), &wait.as_millis().max(1).to_string()]);
        }
        request
    }
}

impl Source {
    fn put(&self, call: &mut Request) {
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        call.word(number(self.life)).word(self.of.epoch.to_string());
        match &self.store {
            None => (0..5).for_each(|_| _ = call.word("")),
            Some(store) => {
                call.word(store.position.to_string()).word(number(store.read)).word(&store.map);
                call.word(number(store.beyond)).word(done_before(store.position).to_string());
            }
        }
    }
}
