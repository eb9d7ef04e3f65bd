//! What a member of a group knows and decides: what it owns, what it tells, what its user asks for.
//!
//! Pure: time is told, nothing is awaited. Who calls it: the consumer (`consumer.rs`), the control (`control.rs`) and the thread that polls the client
//! (`poller.rs`). Not here: what is to be done with the client (`duty.rs`), what is stored (`storing.rs`), what is read (`reading.rs`), how partitions go (`going.rs`), one partition
//! (`share.rs`).

use super::{
    share::{NONE, Share, fenced},
    taking::Before,
};
use crate::{
    Assignment, Bound, Error, ErrorKind, Event, GoneReason, InFlight, Owned, Position, Result, Start, Topic,
    balance::TopicPartition, kafka::failure::BACKEND,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::Waker,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// What [`crate::Control::close`] answers with.
pub(super) type Unacked = Vec<(Owned, Vec<Position>)>;

/// What does not change.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) group: String,
    pub(super) bound: Bound,
    pub(super) ack_interval: Duration,
    /// How long a revoked partition may be kept.
    pub(super) drain: Duration,
    /// For how long the group keeps a member that is not heard of.
    pub(super) session: Duration,
    /// Whether the client does not tell by itself that the session is over (KIP-848).
    pub(super) watched: bool,
}

/// Who is to be called after something changed.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    pub(super) waker: Option<Waker>,
    /// The thread that polls the client has something to do earlier than it thinks.
    pub(super) poller: bool,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) delivered: u64,
    pub(super) unreadable: u64,
    pub(super) gaps: u64,
    pub(super) assigned: u64,
    pub(super) gone: u64,
    /// Holes that had no place in the metadata of a commit.
    pub(super) left_out: u64,
    /// Metadata of somebody else that was passed over.
    pub(super) foreign: u64,
}

/// A member.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) rules: Rules,
    /// What is consumed, and where the group starts in it.
    pub(super) topics: BTreeMap<Topic, Start>,
    /// The client is to subscribe to them.
    pub(super) subscribe: bool,
    /// What the group gave to this member.
    pub(super) ours: BTreeSet<TopicPartition>,
    /// What the client reads.
    pub(super) placed: BTreeSet<TopicPartition>,
    /// What the client was told to stop reading for a while.
    pub(super) held: BTreeSet<TopicPartition>,
    /// What the group wants back, which was not answered yet.
    pub(super) revoked: Option<BTreeSet<TopicPartition>>,
    pub(super) shares: BTreeMap<TopicPartition, Share>,
    /// What was known of logs that were lost, for who takes them again here.
    pub(super) before: BTreeMap<TopicPartition, Before>,
    pub(super) told: VecDeque<Told>,
    pub(super) ready: VecDeque<TopicPartition>,
    pub(super) waiting: BTreeSet<TopicPartition>,
    pub(super) in_flight: Bound,
    pub(super) ahead: Bound,
    pub(super) waker: Option<Waker>,
    /// The group answered: this is a member.
    pub(super) joined: Option<Instant>,
    /// What was assigned first was told, even if it is nothing.
    pub(super) first_told: bool,
    /// It is being looked what partitions begin with.
    pub(super) looking: bool,
    /// How often it was.
    pub(super) looks: u64,
    /// Which topic of that name the client knows.
    pub(super) lives: BTreeMap<Topic, u64>,
    pub(super) next_look: Instant,
    /// When it is looked next whether topics are the same.
    pub(super) next_check: Instant,
    /// Since when partitions wait for who owns the first one to store where the group starts.
    pub(super) fresh: BTreeMap<Topic, Instant>,
    /// Starts that go with the next commit.
    pub(super) starts: Vec<(TopicPartition, u64, String)>,
    /// The commit that is under way, by its number.
    pub(super) committing: Option<u64>,
    pub(super) commits: u64,
    pub(super) next_commit: Instant,
    pub(super) pause: Duration,
    pub(super) commit_pause: Duration,
    /// When the group last took something from this member: when that was sent.
    pub(super) evidence: Instant,
    /// When the client was polled last: who was stopped for long must not hand out what may be another's by now.
    pub(super) polled: Instant,
    /// The server knows this member no more: since when.
    pub(super) expelled: Option<Instant>,
    /// The client is no use any more.
    pub(super) useless: bool,
    pub(super) flushes: Vec<Flush>,
    pub(super) closing: Option<Instant>,
    /// When it ends at the latest.
    pub(super) leave_by: Option<Instant>,
    /// Nobody polls any more.
    pub(super) dropped: bool,
    pub(super) ended: Option<Error>,
    pub(super) over: bool,
    pub(super) killed: bool,
    pub(super) unacked: Unacked,
    pub(super) closers: Vec<oneshot::Sender<Unacked>>,
    pub(super) numbers: Numbers,
}

impl Core {
    pub(super) fn new(rules: Rules, topics: BTreeMap<Topic, Start>, now: Instant) -> Self {
        Self {
            rules,
            topics,
            subscribe: true,
            ours: BTreeSet::new(),
            placed: BTreeSet::new(),
            held: BTreeSet::new(),
            revoked: None,
            shares: BTreeMap::new(),
            before: BTreeMap::new(),
            told: VecDeque::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            in_flight: NONE,
            ahead: NONE,
            waker: None,
            joined: None,
            first_told: false,
            looking: false,
            looks: 0,
            lives: BTreeMap::new(),
            next_look: now,
            next_check: now + super::duty::CHECK,
            fresh: BTreeMap::new(),
            starts: Vec::new(),
            committing: None,
            commits: 0,
            next_commit: now,
            pause: super::duty::FIRST_PAUSE,
            commit_pause: super::storing::FIRST_PAUSE,
            evidence: now,
            polled: now,
            expelled: None,
            useless: false,
            flushes: Vec::new(),
            closing: None,
            leave_by: None,
            dropped: false,
            ended: None,
            over: false,
            killed: false,
            unacked: Unacked::new(),
            closers: Vec::new(),
            numbers: Numbers::default(),
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Whether it may be that all is another's by now, and nobody noticed.
    fn is_unsure(&self, now: Instant) -> bool {
        let late = self.rules.session - (self.rules.session / 4).min(Duration::from_secs(2));
        now >= self.polled + late || (self.rules.watched && now >= self.evidence + late)
    }

    /// What is returned next; `None`: the waker will be called.
    pub(super) fn poll(&mut self, waker: &Waker, now: Instant) -> (Option<Result<Event>>, Stirred) {
        let mut stirred = Stirred::default();
        loop {
            let event = match self.told.pop_front() {
                None => break,
                Some(Told::Event(event)) => Some(event),
                Some(Told::Assigned(list)) => Some(self.tell_assigned(list)),
                Some(Told::Revoking(list)) => self.tell_revoking(list, now),
            };
            if let Some(event) = event {
                stirred.poller = true;
                return (Some(Ok(event)), stirred);
            }
        }
        if self.over
            && let Some(error) = &self.ended
        {
            return (Some(Err(error.clone())), stirred);
        }
        if self.closing.is_none()
            && !self.is_unsure(now)
            && let Some(event) = self.next_ready(&mut stirred)
        {
            return (Some(Ok(event)), stirred);
        }
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        (None, stirred)
    }

    fn tell_assigned(&mut self, list: Vec<(TopicPartition, Assignment)>) -> Event {
        for (key, assignment) in &list {
            if let Some(share) = self.shares.get_mut(key).filter(|share| share.of == assignment.of) {
                share.live = true;
                queue(&mut self.ready, key, share);
            }
        }
        Event::Assigned(list.into_iter().map(|(_, assignment)| assignment).collect())
    }

    fn tell_revoking(&mut self, list: Vec<Owned>, now: Instant) -> Option<Event> {
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

    fn next_ready(&mut self, stirred: &mut Stirred) -> Option<Event> {
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
            if share.waiting {
                self.waiting.insert(key.clone());
            } else if share.has_something() {
                queue(&mut self.ready, &key, share);
            }
            stirred.poller |= self.has_drained(&key);
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
        stirred.poller = clean;
        if self.closing.is_some() && idle {
            self.end_share(&key_of(of), GoneReason::Closed, now);
            stirred.poller = true;
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
            return Stirred { waker: None, poller: share.full.is_some() };
        }
        queue(&mut self.ready, &key_of(of), share);
        Stirred { waker: self.waker.take(), poller: false }
    }

    pub(super) fn give_up(&mut self, of: &Owned, now: Instant) -> Stirred {
        let Ok(share) = owned(&mut self.shares, of) else { return Stirred::default() };
        let unacked = share.unacked();
        if self.closing.is_some() && !unacked.is_empty() {
            self.unacked.push((of.clone(), unacked));
        }
        self.end_share(&key_of(of), GoneReason::GivenUp, now);
        Stirred { waker: self.wake_if_told(), poller: true }
    }

    /// `answer` is sent when it is known whether the epoch holds.
    pub(super) fn confirm(&mut self, of: &Owned, answer: oneshot::Sender<Result<()>>) -> Stirred {
        match owned(&mut self.shares, of) {
            Ok(share) => share.confirms.push(answer),
            Err(error) => _ = answer.send(Err(error)),
        }
        Stirred { poller: true, ..Stirred::default() }
    }

    pub(super) fn flush(&mut self, answer: oneshot::Sender<Vec<(Owned, Error)>>) -> Stirred {
        let dirty = self.shares.values().filter(|share| share.claimed && share.is_dirty());
        let left = dirty.map(|share| (share.of.clone(), share.changes)).collect();
        self.flushes.push(Flush { left, failed: Vec::new(), answer });
        self.answer_flushes();
        Stirred { poller: true, ..Stirred::default() }
    }

    pub(super) fn answer_flushes(&mut self) {
        let (done, left) =
            std::mem::take(&mut self.flushes).into_iter().partition(|flush| flush.left.is_empty());
        self.flushes = left;
        let done: Vec<Flush> = done;
        done.into_iter().for_each(|flush| _ = flush.answer.send(flush.failed));
    }

    /// What has acks that are not committed.
    pub(super) fn dirty(&self) -> Vec<Owned> {
        let dirty = self.shares.values().filter(|share| share.claimed && share.is_dirty());
        dirty.map(|share| share.of.clone()).collect()
    }

    /// # Errors
    /// `Closed`.
    pub(super) fn set_topics(&mut self, topics: Vec<Topic>) -> Result<Stirred> {
        if self.closing.is_some() || self.ended.is_some() {
            return Err(Error::new(ErrorKind::Closed, "the consumer is closed; subscribe again"));
        }
        let start = |topic: &Topic| self.topics.get(topic).copied().unwrap_or(Start::Earliest);
        self.topics = topics.into_iter().map(|topic| (topic.clone(), start(&topic))).collect();
        self.subscribe = true;
        Ok(Stirred { poller: true, ..Stirred::default() })
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
        let until = self.closing.map_or(until, |closing| closing.min(until));
        self.closing = Some(until);
        self.leave_by = Some(until + super::going::LAST);
        let idle = |share: &Share| share.flight.messages == 0;
        let keys: Vec<_> =
            self.shares.iter().filter(|(_, share)| idle(share)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.end_share(key, GoneReason::Closed, now));
        let waker = self.tick(now).or_else(|| self.waker.take());
        Stirred { waker, poller: true }
    }

    /// Nobody polls any more: all is given up now.
    pub(super) fn abandon(&mut self, now: Instant) -> Stirred {
        self.dropped = true;
        self.close(Duration::ZERO, None, now)
    }

    /// Ends it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&mut self, error: Error) -> Stirred {
        self.ended.get_or_insert(error);
        (self.over, self.killed) = (true, true);
        self.told.clear();
        self.shares.clear();
        self.flushes.clear();
        self.closers.clear();
        Stirred { waker: self.waker.take(), poller: true }
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
    find(shares, of).ok().filter(|share| share.claimed && share.ending.is_none()).ok_or_else(|| fenced(of))
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer was closed").on(BACKEND)
}
