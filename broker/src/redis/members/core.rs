//! What a member of a group knows and decides: what it owns, what it tells, what is to be done next on the server.
//!
//! Pure: time is told, nothing is awaited. Who calls it: the consumer (`consumer.rs`), the control (`control.rs`), and the two tasks that act
//! (`run.rs`). Here is what the user sees and asks for. Not here: what is to be done on the server (`duty.rs`), how partitions go (`going.rs`),
//! reading (`reading.rs`), one partition (`share.rs`).

use super::{
    duty::Job,
    rounds::Rounds,
    share::{Share, fenced},
    table::{Counts, Membership, Table},
};
use crate::{
    Assignment, Bound, Error, ErrorKind, Event, GoneReason, InFlight, Owned, Position, Result, Topic,
    balance::TopicPartition,
    redis::{follow::Followed, lasting::Refusals},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    mem::Discriminant,
    sync::Arc,
    task::Waker,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// What [`crate::Control::close`] answers with.
pub(super) type Unacked = Vec<(Owned, Vec<Position>)>;

/// What does not change.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) name: String,
    /// As errors call it.
    pub(super) server: Arc<str>,
    pub(super) bound: Bound,
    pub(super) ack_interval: Duration,
    pub(super) drain: Duration,
    pub(super) lease: Duration,
}

impl Rules {
    /// For how long after it was renewed messages are handed out: the rest is for clocks that differ and answers that are late.
    pub(super) fn hands_out(&self) -> Duration {
        self.lease - Duration::from_secs(2).min(self.lease / 4)
    }
}

/// Who is to be called after something changed.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    pub(super) waker: Option<Waker>,
    /// The task that acts on the server has something to do earlier than it thinks.
    pub(super) keeper: bool,
    /// The task that reads has more to read.
    pub(super) feed: bool,
}

#[derive(Debug)]
pub(super) enum Told {
    Assigned(Vec<(TopicPartition, Assignment)>),
    Revoking(Vec<Owned>),
    Event(Event),
}

#[derive(Debug)]
pub(super) struct Flush {
    pub(super) left: Vec<(Owned, u64)>,
    pub(super) failed: Vec<(Owned, Error)>,
    pub(super) answer: oneshot::Sender<Vec<(Owned, Error)>>,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) delivered: u64,
    pub(super) unreadable: u64,
    pub(super) gaps: u64,
    pub(super) assigned: u64,
    pub(super) gone: u64,
}

/// A member.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) rules: Rules,
    pub(super) topics: BTreeSet<Topic>,
    /// The server that all which is owned was taken over from ([`crate::redis::commands::Home`]), by its number.
    pub(super) home: u64,
    /// What was followed on the server before, until it is taken over from this one.
    pub(super) before: BTreeMap<TopicPartition, Followed>,
    pub(super) shares: BTreeMap<TopicPartition, Share>,
    pub(super) told: VecDeque<Told>,
    pub(super) ready: VecDeque<TopicPartition>,
    pub(super) waiting: BTreeSet<TopicPartition>,
    pub(super) in_flight: Bound,
    pub(super) ahead: Bound,
    pub(super) waker: Option<Waker>,
    pub(super) table: Table,
    /// What was decided from it.
    pub(super) wanted: BTreeMap<TopicPartition, String>,
    pub(super) membership: Option<Membership>,
    /// With this membership nothing is revoked: another handed us something, and it is not to come back to it.
    pub(super) calm: Option<Membership>,
    pub(super) counts: Counts,
    /// Logs that lost their end, from where to where, until who consumes them here is told.
    pub(super) truncated: BTreeMap<TopicPartition, (Option<Position>, Option<Position>)>,
    /// Which life each topic had when something of it was taken over last, and how many partitions.
    pub(super) lives: BTreeMap<Topic, (u64, u32)>,
    /// What is taken over because we claimed it, or had it before.
    pub(super) ours: BTreeSet<TopicPartition>,
    /// The first round is over.
    pub(super) settled: bool,
    /// What was assigned first was told, even if it is nothing.
    pub(super) first_told: bool,
    /// When the lease was renewed last: when that was sent.
    pub(super) renewed: Instant,
    pub(super) look: bool,
    pub(super) ask: bool,
    pub(super) lost: bool,
    pub(super) next_renew: Instant,
    pub(super) retry: Option<Instant>,
    pub(super) pause: Duration,
    /// What is refused, by what was to be done.
    pub(super) refused: HashMap<Discriminant<Job>, Refusals>,
    pub(super) flushes: Vec<Flush>,
    pub(super) rounds: Rounds,
    pub(super) closing: Option<Instant>,
    /// Nobody polls any more.
    pub(super) dropped: bool,
    pub(super) ended: Option<Error>,
    pub(super) over: bool,
    pub(super) unacked: Unacked,
    pub(super) closers: Vec<oneshot::Sender<Unacked>>,
    pub(super) numbers: Numbers,
}

impl Core {
    pub(super) fn new(rules: Rules, topics: BTreeSet<Topic>, now: Instant) -> Self {
        let none = Bound { messages: 0, bytes: 0 };
        Self {
            next_renew: now,
            renewed: now,
            rules,
            topics,
            home: 0,
            before: BTreeMap::new(),
            shares: BTreeMap::new(),
            told: VecDeque::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            in_flight: none,
            ahead: none,
            waker: None,
            table: Table::default(),
            wanted: BTreeMap::new(),
            membership: None,
            calm: None,
            counts: Counts::new(),
            truncated: BTreeMap::new(),
            lives: BTreeMap::new(),
            ours: BTreeSet::new(),
            settled: false,
            first_told: false,
            look: false,
            ask: false,
            lost: false,
            retry: None,
            pause: super::duty::FIRST_PAUSE,
            refused: HashMap::new(),
            flushes: Vec::new(),
            rounds: Rounds::default(),
            closing: None,
            dropped: false,
            ended: None,
            over: false,
            unacked: Unacked::new(),
            closers: Vec::new(),
            numbers: Numbers::default(),
        }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn topics(&self) -> String {
        if self.closing.is_some() {
            return String::new();
        }
        self.topics.iter().map(Topic::as_str).collect::<Vec<_>>().join(",")
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// What is returned next; `None`: the waker will be called.
    pub(super) fn poll(&mut self, waker: &Waker, now: Instant) -> (Option<Result<Event>>, Stirred) {
        let mut stirred = Stirred::default();
        loop {
            let event = match self.told.pop_front() {
                None => break,
                Some(Told::Event(event)) => Some(event),
                Some(Told::Assigned(list)) => Some(self.tell_assigned(list, &mut stirred)),
                Some(Told::Revoking(list)) => self.tell_revoking(list, now),
            };
            if let Some(event) = event {
                stirred.keeper = true;
                return (Some(Ok(event)), stirred);
            }
        }
        if self.over
            && let Some(error) = &self.ended
        {
            return (Some(Err(error.clone())), stirred);
        }
        if self.closing.is_none()
            && now < self.renewed + self.rules.hands_out()
            && let Some(event) = self.next_ready(&mut stirred)
        {
            return (Some(Ok(event)), stirred);
        }
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        (None, stirred)
    }

    pub(super) fn tell_assigned(
        &mut self,
        list: Vec<(TopicPartition, Assignment)>,
        stirred: &mut Stirred,
    ) -> Event {
        for (key, assignment) in &list {
            if let Some(share) = self.shares.get_mut(key).filter(|share| share.of == assignment.of) {
                share.live = true;
                queue(&mut self.ready, key, share);
            }
        }
        stirred.feed = true;
        Event::Assigned(list.into_iter().map(|(_, assignment)| assignment).collect())
    }

    pub(super) fn tell_revoking(&mut self, list: Vec<Owned>, now: Instant) -> Option<Event> {
        let left = self.rules.drain;
        let mut partitions = Vec::with_capacity(list.len());
        for of in list {
            if let Ok(share) = owned(&mut self.shares, &of)
                && share.revoking.is_some()
            {
                share.revoking = Some(now + left);
                partitions.push(of);
            }
        }
        (!partitions.is_empty()).then_some(Event::Revoking { partitions, left })
    }

    pub(super) fn next_ready(&mut self, stirred: &mut Stirred) -> Option<Event> {
        let bound = InFlight::new(self.rules.bound, self.shares.len());
        for _ in 0..self.ready.len() {
            let key = self.ready.pop_front()?;
            let Some(share) = self.shares.get_mut(&key) else { continue };
            share.queued = false;
            if !share.flows() {
                continue;
            }
            let (ahead, flight) = (share.ahead, share.flight);
            let event = share.next(bound.room(self.in_flight, share.flight));
            self.ahead.messages -= ahead.messages - share.ahead.messages;
            self.ahead.bytes -= ahead.bytes - share.ahead.bytes;
            self.in_flight.messages += share.flight.messages - flight.messages;
            self.in_flight.bytes += share.flight.bytes - flight.bytes;
            if share.left_out && share.ahead.messages < super::reading::FEW {
                share.left_out = false;
                stirred.feed = true;
            }
            if share.waiting {
                self.waiting.insert(key);
            } else if share.has_something() {
                queue(&mut self.ready, &key, share);
            }
            match &event {
                Some(Event::Batch(batch)) => self.numbers.delivered += batch.deliveries.len() as u64,
                Some(Event::Unreadable { .. }) => self.numbers.unreadable += 1,
                Some(Event::Gap { .. }) => self.numbers.gaps += 1,
                _ => {}
            }
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// Partitions that waited for room are looked at again. Who polls is to be called then ([`Core::wake_if_told`]).
    pub(super) fn room_was_made(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            if let Some(share) = self.shares.get_mut(&key) {
                share.waiting = false;
                queue(&mut self.ready, &key, share);
            }
        }
    }

    /// # Errors
    /// `Fenced`, `Invalid`.
    pub(super) fn ack(&mut self, of: &Owned, done: &[Position], now: Instant) -> Result<(usize, Stirred)> {
        let share = owned(&mut self.shares, of)?;
        let clean = share.dirty.is_none();
        let freed = share.ack(done, now)?;
        let idle = share.flight.messages == 0;
        let mut stirred = Stirred::default();
        if freed.messages == 0 {
            return Ok((0, stirred));
        }
        self.in_flight.messages = self.in_flight.messages.saturating_sub(freed.messages);
        self.in_flight.bytes = self.in_flight.bytes.saturating_sub(freed.bytes);
        stirred.keeper = clean;
        if self.closing.is_some() && idle {
            self.end_share(&key_of(of), GoneReason::Closed, None, now);
            stirred.keeper = true;
        }
        self.room_was_made();
        stirred.waker = self.wake_if_told();
        Ok((freed.messages, stirred))
    }

    /// # Errors
    /// `Fenced`, `Invalid`: what an ack would answer.
    pub(super) fn check(&mut self, of: &Owned, done: &[Position]) -> Result<()> {
        owned(&mut self.shares, of)?.check(done)
    }

    pub(super) fn pause(&mut self, of: &Owned, paused: bool) -> Stirred {
        let Ok(share) = owned(&mut self.shares, of) else { return Stirred::default() };
        share.paused = paused;
        if paused {
            return Stirred::default();
        }
        queue(&mut self.ready, &key_of(of), share);
        Stirred { waker: self.waker.take(), keeper: false, feed: true }
    }

    pub(super) fn give_up(&mut self, of: &Owned, now: Instant) -> Stirred {
        let key = key_of(of);
        let Ok(share) = owned(&mut self.shares, of) else { return Stirred::default() };
        let asked = share.revoking.is_some();
        let unacked = share.unacked();
        let to = if asked { None } else { self.table.taker(&key, &self.rules.name).map(str::to_owned) };
        if self.closing.is_some() && !unacked.is_empty() {
            self.unacked.push((of.clone(), unacked));
        }
        self.end_share(&key, GoneReason::GivenUp, to, now);
        Stirred { waker: self.wake_if_told(), keeper: true, feed: false }
    }

    /// `answer` is sent when it is known whether the epoch holds.
    pub(super) fn confirm(&mut self, of: &Owned, answer: oneshot::Sender<Result<()>>) -> Stirred {
        match owned(&mut self.shares, of) {
            Ok(share) => share.confirms.push(answer),
            Err(error) => _ = answer.send(Err(error)),
        }
        Stirred { keeper: true, ..Stirred::default() }
    }

    pub(super) fn flush(&mut self, answer: oneshot::Sender<Vec<(Owned, Error)>>) -> Stirred {
        let dirty = self.shares.values().filter(|share| share.saved < share.changes);
        let left = dirty.map(|share| (share.of.clone(), share.changes)).collect();
        self.flushes.push(Flush { left, failed: Vec::new(), answer });
        self.answer_flushes();
        Stirred { keeper: true, ..Stirred::default() }
    }

    pub(super) fn answer_flushes(&mut self) {
        let (done, left) =
            std::mem::take(&mut self.flushes).into_iter().partition(|flush| flush.left.is_empty());
        self.flushes = left;
        let done: Vec<Flush> = done;
        done.into_iter().for_each(|flush| _ = flush.answer.send(flush.failed));
    }

    /// # Errors
    /// `Closed`.
    pub(super) fn set_topics(&mut self, topics: BTreeSet<Topic>) -> Result<Stirred> {
        if self.closing.is_some() || self.ended.is_some() {
            return Err(Error::new(ErrorKind::Closed, "the consumer is closed; subscribe again"));
        }
        self.topics = topics;
        (self.ask, self.look) = (true, true);
        Ok(Stirred { keeper: true, ..Stirred::default() })
    }

    pub(super) fn close(
        &mut self,
        deadline: Duration,
        answer: Option<oneshot::Sender<Unacked>>,
        now: Instant,
    ) -> Stirred {
        if self.over {
            answer.into_iter().for_each(|answer| _ = answer.send(Unacked::new()));
            return Stirred::default();
        }
        self.closers.extend(answer);
        let until = now + deadline.min(Duration::from_secs(86_400));
        self.closing = Some(self.closing.map_or(until, |closing| closing.min(until)));
        (self.ask, self.look) = (true, true);
        let idle = |share: &Share| share.flight.messages == 0;
        let keys: Vec<_> =
            self.shares.iter().filter(|(_, share)| idle(share)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.end_share(key, GoneReason::Closed, None, now));
        let waker = self.tick(now).or_else(|| self.waker.take());
        Stirred { waker, keeper: true, feed: true }
    }

    /// Nobody polls any more: all is given up now.
    pub(super) fn abandon(&mut self, now: Instant) -> Stirred {
        self.dropped = true;
        self.close(Duration::ZERO, None, now)
    }

    /// Ends it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&mut self, error: Error) -> Option<Waker> {
        self.ended.get_or_insert(error);
        self.over = true;
        self.told.clear();
        self.shares.clear();
        self.flushes.clear();
        self.rounds = Rounds::default();
        self.closers.clear();
        self.waker.take()
    }
}

pub(super) fn key_of(of: &Owned) -> TopicPartition {
    (of.topic.clone(), of.partition)
}

pub(super) fn queue(ready: &mut VecDeque<TopicPartition>, key: &TopicPartition, share: &mut Share) {
    if !share.queued && share.has_something() {
        share.queued = true;
        ready.push_back(key.clone());
    }
}

/// The share of that very epoch.
pub(super) fn find<'a>(shares: &'a mut BTreeMap<TopicPartition, Share>, of: &Owned) -> Result<&'a mut Share> {
    shares.get_mut(&key_of(of)).filter(|share| share.of == *of).ok_or_else(|| fenced(of))
}

/// The share that is owned in that very epoch, and is not going.
pub(super) fn owned<'a>(
    shares: &'a mut BTreeMap<TopicPartition, Share>,
    of: &Owned,
) -> Result<&'a mut Share> {
    find(shares, of).ok().filter(|share| share.ending.is_none()).ok_or_else(|| fenced(of))
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer was closed").on(crate::redis::failure::BACKEND)
}
