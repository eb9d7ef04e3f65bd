//! What a member of a group is returned next.
//!
//! A consumer asks [`Core::poll_member`]; where messages are to be read it reads them without holding the state
//! ([`Plan::read`]) and brings them back ([`Core::deliver`]), which looks again whether they may be returned. Each partition that has
//! something stands in its member's queue once, so that nothing is ever searched for.

use super::{
    Core, MemberId, ShareId, Step,
    member::{Share, Told},
    store_error,
    topic::TopicState,
};
use crate::{
    AckWindow, Batch, Delivery, Error, ErrorKind, Event, GapReason, GoneReason, Owned, Position, Result,
    Room,
    embedded::{
        batch::{self, Stored},
        record::{self, Unreadable},
        state::{log_key, log_offset},
        time::Steady,
    },
};
use bytes::Bytes;
use ropeway_store::{Direction, KeyValue, Keyspace, Limit};
use std::task::Waker;

/// The most messages of a batch.
const BATCH: usize = 256;
/// The most bytes that are read for a batch, unless its first message has more.
const BLOCK: usize = 64 * 1024;

/// What a poll comes to.
#[derive(Debug)]
pub(in crate::embedded) enum Next {
    /// This is returned.
    Event(Event),
    /// This ends it.
    End(Error),
    /// This is to be read and brought back.
    Read(Plan),
    /// Nothing: the waker will be woken.
    Wait,
}

/// Messages that are to be read.
#[derive(Clone, Debug)]
pub(in crate::embedded) struct Plan {
    pub(super) share: ShareId,
    pub(super) life: u64,
    pub(super) log: Keyspace,
    pub(super) partition: u32,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) limit: Limit,
}

impl Plan {
    /// Of these offsets, those that lie in one segment.
    pub(super) fn new(topic: &TopicState, partition: u32, offsets: std::ops::Range<u64>) -> Self {
        let limit = Limit { items: BATCH, bytes: BLOCK };
        let (log, end) = topic.segments.locate(partition, offsets.start);
        let to = offsets.end.min(end);
        Self { share: 0, life: topic.life, log, partition, from: offsets.start, to, limit }
    }

    /// Reads them. What was removed meanwhile is none.
    pub(in crate::embedded) fn read(&self, store: &dyn KeyValue) -> Result<Found> {
        let (from, to) = (log_key(self.partition, self.from), log_key(self.partition, self.to));
        let page = match store.scan(self.log, &from, Some(&to), Direction::Forward, self.limit) {
            Err(ropeway_store::Error::Dropped) => return Ok(Found::default()),
            page => page.map_err(store_error)?,
        };
        let there: usize = page.items.iter().map(|(_, record)| batch::count(record)).sum();
        let deliveries = Vec::with_capacity(there.min(self.limit.items));
        let found = Found { deliveries, unreadable: None };
        let mut reading = Reading { plan: self, next: self.from, bytes: 0, found };
        for (key, record) in page.items {
            let Some(last) = log_offset(&key) else { break };
            if !reading.take(last, record) {
                break;
            }
        }
        if reading.found.deliveries.is_empty() && reading.found.unreadable.is_none() {
            reading.refuse("the record is missing in the log");
        }
        Ok(reading.found)
    }
}

/// What of a plan has been read so far.
struct Reading<'a> {
    plan: &'a Plan,
    /// The offset of the message that comes next.
    next: u64,
    bytes: usize,
    found: Found,
}

impl Reading<'_> {
    /// Takes the messages of a record; `last`: the offset of the last of them. Answers whether to go on.
    fn take(&mut self, last: u64, record: Bytes) -> bool {
        let Some(stored) = Stored::of(record) else {
            return self.refuse("the batch that holds the record is cut or damaged");
        };
        // The first record may begin before what is wanted.
        let Some(begun) = stored.first(last).and_then(|first| self.next.checked_sub(first)) else {
            return false;
        };
        for at in stored.messages(begun as usize) {
            let Some(at) = at else {
                return self.refuse("the batch that holds the record is cut or damaged");
            };
            let bytes = self.bytes + at.len();
            let found = &mut self.found;
            let is_first = found.deliveries.is_empty();
            if !is_first && (found.deliveries.len() >= self.plan.limit.items || bytes > self.plan.limit.bytes)
            {
                return false;
            }
            let position = Position(self.plan.life, self.next);
            let Some(message) = record::decode(stored.bytes().slice(at.clone())) else {
                found.unreadable = Some((position, record::unreadable(stored.bytes().slice(at))));
                return false;
            };
            found.deliveries.push(Delivery { position, message });
            self.bytes = bytes;
            self.next += 1;
        }
        true
    }

    /// The next message cannot be read, which ends it.
    fn refuse(&mut self, why: &'static str) -> bool {
        let why = Error::new(ErrorKind::Corrupt, why);
        self.found.unreadable =
            Some((Position(self.plan.life, self.next), Unreadable { raw: Bytes::new(), why }));
        false
    }
}

/// What was read: messages that lie behind each other, and the record behind them where that is none.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Found {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) unreadable: Option<(Position, Unreadable)>,
}

/// What a consumer or reader is told of a record that is no message.
pub(super) fn told(of: Owned, position: Position, unreadable: Unreadable) -> Event {
    let raw = (!unreadable.raw.is_empty()).then_some(unreadable.raw);
    Event::Unreadable { of, position, raw, why: unreadable.why }
}

impl Core {
    /// What a member is returned next.
    pub(in crate::embedded) fn poll_member(&mut self, id: MemberId, waker: &Waker, now: Steady) -> Next {
        loop {
            let Some(member) = self.members.get_mut(&id) else {
                return Next::End(super::closed(self.rules.backend));
            };
            let event = match member.told.pop_front() {
                None => break,
                Some(Told::Event(event)) => Some(event),
                // It was noted when it was told.
                Some(Told::Over) => None,
                Some(Told::Assigned(list)) => {
                    Some(Event::Assigned(list.into_iter().map(|(_, assignment)| assignment).collect()))
                }
                Some(Told::Revoking(list)) => {
                    let drain = member.drain;
                    self.told_revoking(list, drain, now)
                }
            };
            if let Some(event) = event {
                return Next::Event(event);
            }
        }
        let Some(member) = self.members.get_mut(&id) else { return Next::Wait };
        if let Some(error) = member.ended.as_ref().filter(|_| member.over) {
            return Next::End(error.clone());
        }
        if !member.leaving
            && let Some(next) = self.next_ready(id)
        {
            return next;
        }
        if let Some(member) = self.members.get_mut(&id)
            && member.waker.as_ref().is_none_or(|known| !known.will_wake(waker))
        {
            member.waker = Some(waker.clone());
        }
        Next::Wait
    }

    fn next_ready(&mut self, id: MemberId) -> Option<Next> {
        let member = self.members.get_mut(&id)?;
        for _ in 0..member.ready.len() {
            let share_id = member.ready.pop_front()?;
            let Some(share) = self.shares.get_mut(&share_id).filter(|share| share.owner == Some(id)) else {
                continue;
            };
            share.queued = false;
            let topic = self.topics.get(&share.life);
            let Some((topic, part)) =
                topic.and_then(|topic| Some((topic, topic.partition(share.partition)?)))
            else {
                continue;
            };
            if !share.flows() {
                continue;
            }
            if let Some(event) = share.notice(part.low) {
                self.statistics.gaps += u64::from(matches!(event, Event::Gap { .. }));
                member.queue(share_id, share);
                return Some(Next::Event(event));
            }
            if share.next >= part.end {
                continue;
            }
            let room = member.room(share);
            if room.is_empty() || (share.next_size > 0 && !room.clone().take(share.next_size)) {
                let full = member.in_flight.messages >= member.bound.messages
                    || member.in_flight.bytes >= member.bound.bytes;
                if full {
                    // Nothing of any partition has room: all stay where they are.
                    share.queued = true;
                    member.ready.push_front(share_id);
                    return None;
                }
                if !share.waiting {
                    share.waiting = true;
                    member.waiting.push(share_id);
                }
                continue;
            }
            let mut plan = Plan::new(topic, share.partition, share.next..part.end);
            plan.share = share_id;
            plan.limit.items = plan.limit.items.min(room.messages());
            plan.limit.bytes = plan.limit.bytes.min(room.bytes().max(1024).saturating_mul(2));
            return Some(Next::Read(plan));
        }
        None
    }

    /// Returns what was read, if it still may be; `None`: ask again.
    pub(in crate::embedded) fn deliver(&mut self, id: MemberId, plan: &Plan, found: Found) -> Option<Event> {
        let member = self.members.get_mut(&id)?;
        let share = self.shares.get_mut(&plan.share).filter(|share| share.owner == Some(id))?;
        let part = self.topics.get(&plan.life)?.partition(plan.partition)?;
        let unchanged = share.life == plan.life && share.next == plan.from && part.low <= plan.from;
        if !share.flows() || member.leaving || !unchanged {
            if share.flows() {
                member.queue(plan.share, share);
            }
            return None;
        }
        let room = member.room(share);
        let window = share.window.as_mut()?;
        let Found { mut deliveries, unreadable } = found;
        let mut handing = HandingOut { room, next: share.next, messages: 0, bytes: 0, too_large: 0 };
        deliveries.retain(|delivery| handing.out(window, delivery.position, delivery.message.size()));
        // Behind messages it waits for the next call.
        let unreadable = unreadable
            .filter(|(position, one)| deliveries.is_empty() && handing.out(window, *position, one.raw.len()));
        let unreadable = unreadable.map(|(position, one)| told(share.owned(), position, one));
        share.next = handing.next;
        share.next_size = handing.too_large;
        share.flight.hand_out(handing.messages, handing.bytes);
        member.in_flight.messages += handing.messages;
        member.in_flight.bytes += handing.bytes;
        self.statistics.delivered += deliveries.len() as u64;
        self.statistics.unreadable += u64::from(unreadable.is_some());
        if share.next < part.end || share.caught.is_some() {
            member.queue(plan.share, share);
        }
        if unreadable.is_some() {
            return unreadable;
        }
        (!deliveries.is_empty()).then(|| Event::Batch(Batch { of: share.owned(), deliveries }))
    }

    /// A consumer cannot read any more: it gets nothing until [`Self::fail_member`] has ended it.
    pub(in crate::embedded) fn stop_member(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.leaving = true;
        }
    }

    /// Ends a member by an error: all it owned is for the next owner.
    pub(in crate::embedded) fn fail_member(&mut self, step: &mut Step, id: MemberId, error: Error) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.leaving = true;
        member.ended.get_or_insert(error);
        for share in self.shares_of(id) {
            self.release(step, share, GoneReason::Lost);
        }
        self.finish_close(step, id);
    }
}

/// What is handed out at once.
struct HandingOut {
    room: Room,
    /// The offset that comes next.
    next: u64,
    messages: usize,
    bytes: usize,
    /// The size of the next message, where it has no room: it is looked at again when there is some.
    too_large: usize,
}

impl HandingOut {
    /// Whether the next message is handed out: all before it had room, it has some, and it is not known to be done, from before a restart.
    #[inline]
    fn out(&mut self, window: &mut AckWindow, position: Position, size: usize) -> bool {
        let mut left = self.room;
        if self.too_large > 0 {
            return false;
        }
        if !left.take(size) {
            self.too_large = size.max(1);
            return false;
        }
        self.next = position.1 + 1;
        let new = window.deliver_sized(position, size);
        if new {
            self.room = left;
            self.messages += 1;
            self.bytes += size;
        }
        new
    }
}

impl Share {
    /// What is to be told before the next message: a gap, or that all was returned that there was.
    fn notice(&mut self, low: u64) -> Option<Event> {
        if let Some(before) = self.before.take() {
            let to = self.window.as_ref().map(AckWindow::position);
            let of = self.owned();
            return Some(Event::Gap { of, from: Some(before), to, why: GapReason::Recreated });
        }
        if self.next < low {
            let (from, to) = (Position(self.life, self.next), Position(self.life, low));
            self.next = low;
            self.next_size = 0;
            if let Some(window) = &mut self.window {
                window.skip_to(to);
            }
            let of = self.owned();
            return Some(Event::Gap { of, from: Some(from), to: Some(to), why: GapReason::Trimmed });
        }
        if self.caught.is_some_and(|end| self.next >= end) {
            self.caught = None;
            return Some(Event::CaughtUp(self.owned()));
        }
        None
    }
}
