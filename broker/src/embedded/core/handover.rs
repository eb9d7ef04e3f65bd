//! How a partition changes hands: assigned, revoked, given up, lost.
//!
//! An owner's epoch and where it starts are committed before the owner is told. An owner that is to give up gets no more batches, and
//! time to drain. The state here changes at once; what members are told waits for the commit.

use super::{
    Core, MemberId, ShareId, Step,
    member::{Told, Unacked},
    store_error,
    timers::Timer,
};
use crate::{
    AckWindow, Assignment, Epoch, Error, ErrorKind, Event, GoneReason, Owned, Position,
    embedded::time::Steady,
};
use std::time::Duration;

use tokio::sync::oneshot;

/// How long a static member must own a partition before it is its own rather than that of the one who left it.
const SETTLED: Duration = Duration::from_secs(60);

impl Core {
    /// Gives a free partition to a member. `fresh`: the group has no position in this topic at all.
    pub(super) fn assign(
        &mut self,
        step: &mut Step,
        id: ShareId,
        to: MemberId,
        fresh: bool,
    ) -> Option<Assignment> {
        let (topic, partition) = self.shares.get(&id).map(|share| (share.topic.clone(), share.partition))?;
        let life = self.life(&topic).ok()?;
        let start = self.members.get(&to)?.start;
        let (low, end) = self.topics.get(&life)?.partition(partition).map(|part| (part.low, part.next))?;
        let has_window = self.shares.get(&id)?.window.is_some();
        let begin = match (has_window, fresh) {
            (true, _) => 0,
            (false, false) => low,
            (false, true) => match self.resolve(life, partition, start) {
                Ok(offset) => offset,
                Err(error) => {
                    tracing::warn!(%error, %topic, partition, "the start of a subscription cannot be found; starting with the first message");
                    low
                }
            },
        };
        let share = self.shares.get_mut(&id)?;
        let member = self.members.get_mut(&to)?;
        let resumed = share.position();
        let window = match share.window.take() {
            None => AckWindow::new(Position(life, begin)),
            Some(old) if old.position().0 != life => {
                share.before.get_or_insert_with(|| old.position());
                AckWindow::new(Position(life, low))
            }
            Some(old) => reopen(&old),
        };
        let stored = share.epoch.max((self.last_epoch > 0).then_some(Epoch(self.last_epoch)));
        share.epoch = Some(Epoch::after(stored, step.time_of_day));
        share.life = life;
        share.next = window.position().1;
        share.window = Some(window);
        share.owner = Some(to);
        share.since = step.now;
        share.caught = Some(end);
        share.last_owner = if member.is_static { member.name.clone() } else { share.home.clone() };
        (share.live, share.revoking, share.paused) = (false, false, false);
        (share.queued, share.waiting) = (false, false);
        share.next_size = 0;
        member.owned.insert((topic, partition), id);
        step.cursors.insert(id);
        let of = share.owned();
        let from = Position(life, share.next);
        self.topics.get_mut(&life)?.partition_mut(partition)?.shares.push(id);
        Some(Assignment { of, resumed, from })
    }

    /// Asks a member to give partitions up.
    pub(super) fn revoke(&mut self, step: &mut Step, id: MemberId, shares: Vec<ShareId>) {
        let Some(member) = self.members.get(&id) else { return };
        let (drain, leaving) = (member.drain, member.leaving);
        let mut list = Vec::with_capacity(shares.len());
        for share_id in shares {
            let Some(share) = self.shares.get_mut(&share_id) else { continue };
            share.revoking = true;
            // One that is closing gives up by itself, and was told so by who closed it.
            if !leaving {
                list.push((share_id, share.owned()));
                self.timers.set(Timer::Drain(share_id), step.now + drain);
            }
        }
        if !list.is_empty() {
            step.tell(id, Told::Revoking(list));
        }
    }

    /// The member was told that these are to be given up: its time runs from now on.
    pub(super) fn told_revoking(
        &mut self,
        list: Vec<(ShareId, Owned)>,
        drain: Duration,
        now: Steady,
    ) -> Option<Event> {
        let mut partitions = Vec::with_capacity(list.len());
        for (id, owned) in list {
            let holds = |share: &super::Share| share.owner.is_some() && share.epoch == Some(owned.epoch);
            if self.shares.get(&id).is_some_and(holds) {
                self.timers.set(Timer::Drain(id), now + drain);
                partitions.push(owned);
            }
        }
        (!partitions.is_empty()).then_some(Event::Revoking { partitions, left: drain })
    }

    /// Takes a partition from its owner; answers what was in flight. Acks given before are stored by this step.
    pub(super) fn release(&mut self, step: &mut Step, id: ShareId, why: GoneReason) -> Vec<Position> {
        let Some(share) = self.shares.get_mut(&id) else { return Vec::new() };
        let Some(owner) = share.owner.take() else { return Vec::new() };
        let owned = share.owned();
        let unacked = share.window.iter().flat_map(AckWindow::open_positions).collect();
        share.window = share.window.as_ref().map(reopen);
        if !share.revoking {
            share.target = None;
        }
        let in_flight = std::mem::take(&mut share.flight).total;
        (share.live, share.revoking, share.paused) = (false, false, false);
        (share.queued, share.waiting) = (false, false);
        step.cursors.insert(id);
        self.timers.clear(Timer::Drain(id));
        if let Some(member) = self.members.get_mut(&owner) {
            member.owned.remove(&(share.topic.clone(), share.partition));
            member.in_flight.messages = member.in_flight.messages.saturating_sub(in_flight.messages);
            member.in_flight.bytes = member.in_flight.bytes.saturating_sub(in_flight.bytes);
            member.waiting.retain(|waiting| *waiting != id);
            if member.leaving && member.is_static {
                let others = self.groups.get(&share.group).map(|group| &group.members);
                let elsewhere = others.is_some_and(|members| members.contains_key(&share.home));
                // What somebody else left behind and this one held in passing goes back to that other.
                if share.home.is_empty() || elsewhere || step.now.since(share.since) >= SETTLED {
                    share.home.clone_from(&member.name);
                }
                share.last_owner.clone_from(&share.home);
            }
        }
        let part = self.topics.get_mut(&share.life).and_then(|topic| topic.partition_mut(share.partition));
        if let Some(part) = part {
            part.shares.retain(|other| *other != id);
        }
        self.make_room(owner);
        self.tell_event(step, owner, Event::Gone(owned, why));
        unacked
    }

    /// The owner hands a partition over.
    pub(in crate::embedded) fn give_up(&mut self, step: &mut Step, member: MemberId, of: &Owned) {
        let Ok(id) = self.owned_share(member, of) else { return };
        let Some((asked, group)) = self.shares.get(&id).map(|share| (share.revoking, share.group.clone()))
        else {
            return;
        };
        let Some((name, leaving)) = self.members.get(&member).map(|m| (m.name.clone(), m.leaving)) else {
            return;
        };
        let unacked = self.release(step, id, GoneReason::GivenUp);
        if leaving {
            self.note_unacked(member, of.clone(), unacked);
            self.finish_close(step, member);
            self.rebalance(step, &group, None);
            return;
        }
        let key = (of.topic.clone(), of.partition);
        self.rebalance(step, &group, (!asked).then_some((key, name.as_str())));
    }

    /// The time to drain a partition is over.
    pub(super) fn drain_over(&mut self, step: &mut Step, id: ShareId) {
        let Some(share) = self.shares.get(&id).filter(|share| share.owner.is_some() && share.revoking) else {
            return;
        };
        let group = share.group.clone();
        self.release(step, id, GoneReason::DrainOver);
        self.rebalance(step, &group, None);
    }

    /// Starts to end a member: what is idle goes at once, the rest when it is done or at the deadline.
    pub(in crate::embedded) fn close_member(
        &mut self,
        step: &mut Step,
        id: MemberId,
        deadline: Steady,
        reply: oneshot::Sender<Unacked>,
    ) {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.ended.is_none()) else {
            step.after(move |_| _ = reply.send(Vec::new()));
            return;
        };
        member.closers.push(reply);
        member.leaving = true;
        self.timers.set_by(Timer::Close(id), deadline);
        for share in self.shares_of(id) {
            let idle = self.shares.get(&share).is_some_and(|share| share.flight.total.messages == 0);
            if idle {
                self.release(step, share, GoneReason::Closed);
            }
        }
        self.detach(step, id);
        self.finish_close(step, id);
        if deadline <= step.now {
            self.close_over(step, id);
        }
    }

    /// The time to close a member is over.
    pub(super) fn close_over(&mut self, step: &mut Step, id: MemberId) {
        for share in self.shares_of(id) {
            let Some(of) = self.shares.get(&share).map(super::Share::owned) else { continue };
            let unacked = self.release(step, share, GoneReason::Closed);
            self.note_unacked(id, of, unacked);
        }
        self.finish_close(step, id);
    }

    /// A partition of a member that is closing has nothing in flight any more.
    pub(in crate::embedded) fn drained(&mut self, step: &mut Step, id: ShareId) {
        let Some(share) = self.shares.get(&id).filter(|share| share.flight.total.messages == 0) else {
            return;
        };
        let (Some(owner), group) = (share.owner, share.group.clone()) else { return };
        if self.members.get(&owner).is_some_and(|member| member.leaving) {
            self.release(step, id, GoneReason::Closed);
            self.finish_close(step, owner);
            self.rebalance(step, &group, None);
        }
    }

    fn note_unacked(&mut self, id: MemberId, of: Owned, unacked: Vec<Position>) {
        if let Some(member) = self.members.get_mut(&id).filter(|_| !unacked.is_empty()) {
            member.unacked.push((of, unacked));
        }
    }

    /// Ends a member that is closing and owns nothing any more.
    pub(super) fn finish_close(&mut self, step: &mut Step, id: MemberId) {
        if self.end_member(step, id) {
            self.detach(step, id);
        }
    }

    /// Ends a member that owns nothing any more, without a word to its group.
    pub(super) fn end_member(&mut self, step: &mut Step, id: MemberId) -> bool {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.owned.is_empty()) else {
            return false;
        };
        let backend = self.rules.backend;
        let closed = || Error::new(ErrorKind::Closed, "the consumer was closed").on(backend);
        member.ended.get_or_insert_with(closed);
        step.tell(id, Told::Over);
        self.timers.clear(Timer::Close(id));
        self.timers.clear(Timer::Acks(id));
        let unacked: Unacked = member.unacked.clone();
        for closer in member.closers.drain(..) {
            let unacked = unacked.clone();
            step.after(move |_| _ = closer.send(unacked));
        }
        true
    }

    /// One fenced commit on a partition.
    pub(in crate::embedded) fn confirm(
        &mut self,
        step: &mut Step,
        member: MemberId,
        of: &Owned,
    ) -> crate::Result<()> {
        self.writable()?;
        let id = self.owned_share(member, of)?;
        step.cursors.insert(id);
        Ok(())
    }

    /// Writes something, to see whether that works.
    pub(in crate::embedded) fn probe(&self, step: &mut Step) -> crate::Result<()> {
        use crate::embedded::state::{HEALTH, encode_number};
        self.writable()?;
        self.store.get(self.spaces.state, HEALTH).map_err(store_error)?;
        let now = u64::try_from(step.time_of_day.as_millis()).unwrap_or(0);
        step.batch.put(self.spaces.state, bytes::Bytes::from_static(HEALTH), encode_number(now));
        Ok(())
    }
}

/// The window as the next owner gets it: what was in flight will be delivered again.
fn reopen(window: &AckWindow) -> AckWindow {
    let (position, (map, _)) = (window.position(), window.encode(usize::MAX));
    AckWindow::restore(position, &map).unwrap_or_else(|_| AckWindow::new(position))
}
