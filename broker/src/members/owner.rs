//! What a member of a group owns, what it tells, and what its user asks for.
//!
//! Pure: time is told, nothing is awaited. Not here: how partitions go (`going.rs`), which acks are to be stored (`storing.rs`), one partition
//! (`share.rs`), what is to be done on the servers (the backend).

use super::share::{Log, NONE, Share, fenced};
use crate::{
    Assignment, Bound, Error, ErrorKind, Event, GoneReason, InFlight, Owned, Position, Result,
    balance::TopicPartition,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::Waker,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// What [`crate::Control::close`] answers with.
pub(crate) type Unacked = Vec<(Owned, Vec<Position>)>;

/// The longest that a close waits.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What does not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) bound: Bound,
    pub(crate) ack_interval: Duration,
    /// How long a revoked partition may be kept.
    pub(crate) drain: Duration,
}

/// Who is to be called after something changed.
#[derive(Debug, Default)]
pub(crate) struct Stirred {
    pub(crate) waker: Option<Waker>,
    /// Who acts on the servers has something to do earlier than it thinks.
    pub(crate) keeper: bool,
    /// Who reads has more to read.
    pub(crate) feed: bool,
}

#[derive(Debug)]
pub(super) enum Told {
    Assigned(Vec<(TopicPartition, Assignment)>),
    Revoking(Vec<Owned>),
    Event(Event),
}

/// A flush that is not answered yet: which acks are not stored.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) left: BTreeMap<Owned, u64>,
    pub(super) failed: Vec<(Owned, Error)>,
    pub(super) answer: oneshot::Sender<Vec<(Owned, Error)>>,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) delivered: u64,
    pub(crate) unreadable: u64,
    pub(crate) gaps: u64,
    pub(crate) assigned: u64,
    pub(crate) gone: u64,
    /// Holes that had no place in what is stored of a partition.
    pub(crate) left_out: u64,
}

/// What a member owns.
#[derive(Debug)]
pub(crate) struct Owner<L: Log> {
    pub(crate) rules: Rules,
    pub(crate) shares: BTreeMap<TopicPartition, Share<L>>,
    pub(super) told: VecDeque<Told>,
    pub(crate) ready: VecDeque<TopicPartition>,
    pub(super) waiting: BTreeSet<TopicPartition>,
    pub(crate) in_flight: Bound,
    pub(crate) ahead: Bound,
    pub(crate) waker: Option<Waker>,
    /// What was assigned first was told, even if it is nothing.
    pub(super) first_told: bool,
    pub(super) flushes: Vec<Flush>,
    /// It is closing, and waits for acks until then.
    pub(crate) closing: Option<Instant>,
    /// Nobody polls any more.
    pub(super) dropped: bool,
    /// What is told last.
    pub(crate) ended: Option<Error>,
    pub(crate) over: bool,
    pub(super) unacked: Unacked,
    pub(super) closers: Vec<oneshot::Sender<Unacked>>,
    pub(crate) numbers: Numbers,
}

impl<L: Log> Owner<L> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            shares: BTreeMap::new(),
            told: VecDeque::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            in_flight: NONE,
            ahead: NONE,
            waker: None,
            first_told: false,
            flushes: Vec::new(),
            closing: None,
            dropped: false,
            ended: None,
            over: false,
            unacked: Unacked::new(),
            closers: Vec::new(),
            numbers: Numbers::default(),
        }
    }

    /// What is returned next; `None`: the waker will be called. `sure`: messages may be handed out.
    pub(crate) fn poll(
        &mut self,
        waker: &Waker,
        sure: bool,
        now: Instant,
    ) -> (Option<Result<Event>>, Stirred) {
        let mut stirred = Stirred::default();
        while let Some(told) = self.told.pop_front() {
            let event = match told {
                Told::Event(event) => Some(event),
                Told::Assigned(list) => Some(self.tell_assigned(list, &mut stirred)),
                Told::Revoking(list) => self.tell_revoking(list, now),
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
        if sure
            && self.closing.is_none()
            && let Some(event) = self.next_ready(&mut stirred, now)
        {
            return (Some(Ok(event)), stirred);
        }
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        (None, stirred)
    }

    fn tell_assigned(&mut self, list: Vec<(TopicPartition, Assignment)>, stirred: &mut Stirred) -> Event {
        for (key, assignment) in &list {
            if let Some(share) = self.shares.get_mut(key).filter(|share| share.of == assignment.of) {
                share.live = true;
                queue(&mut self.ready, key, share);
            }
        }
        stirred.feed = true;
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

    fn next_ready(&mut self, stirred: &mut Stirred, now: Instant) -> Option<Event> {
        let owned = self.shares.len();
        let bound = InFlight::new(self.rules.bound, owned);
        for _ in 0..self.ready.len() {
            let key = self.ready.pop_front()?;
            let Some(share) = self.shares.get_mut(&key) else { continue };
            share.queued = false;
            if !share.flows() {
                continue;
            }
            let (ahead, flight, clean) = (share.ahead, share.flight, share.dirty.is_none());
            let event = share.next(bound.room(self.in_flight, share.flight), now);
            stirred.keeper |= clean && share.dirty.is_some();
            self.ahead.messages -= ahead.messages - share.ahead.messages;
            self.ahead.bytes -= ahead.bytes - share.ahead.bytes;
            self.in_flight.messages += share.flight.messages - flight.messages;
            self.in_flight.bytes += share.flight.bytes - flight.bytes;
            stirred.feed |= share.log.wants_more(share.ahead, owned);
            if share.waiting {
                self.waiting.insert(key);
            } else if share.has_something() {
                share.queued = true;
                self.ready.push_back(key);
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

    /// Partitions that waited for room are looked at again. Who polls is to be called then ([`Owner::wake_if_told`]).
    pub(crate) fn room_was_made(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            if let Some(share) = self.shares.get_mut(&key) {
                share.waiting = false;
                queue(&mut self.ready, &key, share);
            }
        }
    }

    /// Takes acks: of how many messages.
    ///
    /// # Errors
    /// `Fenced`, `Invalid`.
    pub(crate) fn ack(&mut self, of: &Owned, done: &[Position], now: Instant) -> Result<(usize, Stirred)> {
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
            self.end_share(&key_of(of), GoneReason::Closed, now);
            stirred.keeper = true;
        }
        self.room_was_made();
        stirred.waker = self.wake_if_told();
        Ok((freed.messages, stirred))
    }

    /// # Errors
    /// `Fenced`, `Invalid`: what an ack would answer.
    pub(crate) fn check(&mut self, of: &Owned, done: &[Position]) -> Result<()> {
        owned(&mut self.shares, of)?.check(done)
    }

    pub(crate) fn pause(&mut self, of: &Owned, paused: bool) -> Stirred {
        let Ok(share) = owned(&mut self.shares, of) else { return Stirred::default() };
        share.paused = paused;
        if paused {
            return Stirred::default();
        }
        queue(&mut self.ready, &key_of(of), share);
        Stirred { waker: self.waker.take(), keeper: false, feed: true }
    }

    pub(crate) fn give_up(&mut self, of: &Owned, now: Instant) -> Stirred {
        if owned(&mut self.shares, of).is_err() {
            return Stirred::default();
        }
        self.end_share(&key_of(of), GoneReason::GivenUp, now);
        Stirred { waker: self.wake_if_told(), keeper: true, feed: false }
    }

    /// `answer` is sent when it is known whether the epoch holds.
    pub(crate) fn confirm(&mut self, of: &Owned, answer: oneshot::Sender<Result<()>>) -> Stirred {
        match owned(&mut self.shares, of) {
            Ok(share) => share.confirms.push(answer),
            Err(error) => _ = answer.send(Err(error)),
        }
        Stirred { keeper: true, ..Stirred::default() }
    }

    pub(crate) fn flush(&mut self, answer: oneshot::Sender<Vec<(Owned, Error)>>) -> Stirred {
        let left = self.unstored().map(|share| (share.of.clone(), share.changes)).collect();
        self.flushes.push(Flush { left, failed: Vec::new(), answer });
        self.answer_flushes();
        Stirred { keeper: true, ..Stirred::default() }
    }

    /// What has acks that are not stored.
    pub(crate) fn dirty(&self) -> Vec<Owned> {
        self.unstored().map(|share| share.of.clone()).collect()
    }

    fn unstored(&self) -> impl Iterator<Item = &Share<L>> {
        self.shares.values().filter(|share| share.claimed && share.is_dirty())
    }

    /// # Errors
    /// `Closed`.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closing.is_some() || self.ended.is_some() {
            return Err(Error::new(ErrorKind::Closed, "the consumer is closed; subscribe again"));
        }
        Ok(())
    }

    /// Closes: what has nothing in flight goes now, the rest when that is acked or the time is over. Whether there was something to close.
    pub(super) fn close(
        &mut self,
        deadline: Duration,
        answer: Option<oneshot::Sender<Unacked>>,
        now: Instant,
    ) -> bool {
        if self.over {
            answer.into_iter().for_each(|answer| _ = answer.send(Unacked::new()));
            return false;
        }
        self.closers.extend(answer);
        let until = now + deadline.min(LONGEST);
        self.closing = Some(self.closing.map_or(until, |closing| closing.min(until)));
        let idle = |share: &Share<L>| share.flight.messages == 0;
        let keys: Vec<_> =
            self.shares.iter().filter(|(_, share)| idle(share)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.end_share(key, GoneReason::Closed, now));
        true
    }

    pub(super) fn tell(&mut self, told: Told) {
        if !self.dropped {
            self.told.push_back(told);
        }
    }

    /// Tells what was assigned.
    pub(crate) fn tell_new(&mut self, list: Vec<(TopicPartition, Assignment)>) {
        self.first_told = true;
        self.numbers.assigned += list.len() as u64;
        self.tell(Told::Assigned(list));
    }

    /// Tells who was assigned nothing so far that this is so, once.
    pub(crate) fn tell_nothing(&mut self) {
        if !std::mem::replace(&mut self.first_told, true) {
            self.tell(Told::Assigned(Vec::new()));
        }
    }

    pub(crate) fn wake_if_told(&mut self) -> Option<Waker> {
        let something = !self.told.is_empty() || !self.ready.is_empty() || self.over;
        something.then(|| self.waker.take()).flatten()
    }
}

pub(crate) fn key_of(of: &Owned) -> TopicPartition {
    (of.topic.clone(), of.partition)
}

pub(crate) fn queue<L: Log>(
    ready: &mut VecDeque<TopicPartition>,
    key: &TopicPartition,
    share: &mut Share<L>,
) {
    if !share.queued && share.has_something() {
        share.queued = true;
        ready.push_back(key.clone());
    }
}

/// The share of that very epoch.
pub(crate) fn find<'a, L: Log>(
    shares: &'a mut BTreeMap<TopicPartition, Share<L>>,
    of: &Owned,
) -> Result<&'a mut Share<L>> {
    shares.get_mut(&key_of(of)).filter(|share| share.of == *of).ok_or_else(|| fenced(of))
}

/// The share that is owned in that very epoch, and is not going.
pub(crate) fn owned<'a, L: Log>(
    shares: &'a mut BTreeMap<TopicPartition, Share<L>>,
    of: &Owned,
) -> Result<&'a mut Share<L>> {
    find(shares, of).ok().filter(|share| share.claimed && share.ending.is_none()).ok_or_else(|| fenced(of))
}
