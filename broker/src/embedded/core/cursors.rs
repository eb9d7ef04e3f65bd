//! Acks: which are taken, when they are stored.
//!
//! An ack counts at once for what is delivered and for reports; it is stored with the member's ack interval, or with the next
//! step that stores the cursor anyway.

use super::{Core, MemberId, ShareId, Step, timers::Timer};
use crate::{Error, ErrorKind, Owned, Position, Result, embedded::time::Steady};
use std::task::Waker;

/// What acks set in motion.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Settled {
    waker: Option<Waker>,
    /// When they are to be stored, where that is the next thing that is due.
    pub(in crate::embedded) due: Option<Steady>,
    /// The partition has nothing in flight, and its owner is closing: see [`Core::drained`].
    pub(in crate::embedded) drained: Option<ShareId>,
}

impl Settled {
    /// Wakes the consumer that has room again.
    pub(in crate::embedded) fn wake(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

impl Core {
    /// The share that a member owns in that very epoch.
    pub(super) fn owned_share(&self, member: MemberId, of: &Owned) -> Result<ShareId> {
        let key = (of.topic.clone(), of.partition);
        let id = self.members.get(&member).and_then(|member| member.owned.get(&key)).copied();
        id.filter(|id| self.shares.get(id).is_some_and(|share| share.epoch == Some(of.epoch)))
            .ok_or_else(|| fenced(of))
    }

    /// Takes acks.
    pub(in crate::embedded) fn ack(
        &mut self,
        member: MemberId,
        of: &Owned,
        done: &[Position],
        now: Steady,
    ) -> Result<Settled> {
        let id = self.owned_share(member, of)?;
        self.check_delivered(id, of, done)?;
        let mut settled = self.settle(member, id, done);
        if self.rules.possible != crate::Durability::Volatile {
            self.note_dirty(member, id, now);
            settled.due = self.timers.next();
            // Where consumers keep the time, this one has to look at it again.
            if settled.due < self.armed.steady || self.armed.steady.is_none() {
                let waker = self.members.get_mut(&member).and_then(|member| member.waker.take());
                settled.waker = settled.waker.or(waker);
            }
        }
        Ok(settled)
    }

    /// Checks acks without doing them: all of it was delivered in this epoch.
    pub(super) fn check_delivered(&self, id: ShareId, of: &Owned, done: &[Position]) -> Result<()> {
        let share = self.shares.get(&id).ok_or_else(|| fenced(of))?;
        let window = share.window.as_ref().ok_or_else(|| fenced(of))?;
        window.never_delivered(done).map_or(Ok(()), |wrong| Err(never_delivered(of, wrong)))
    }

    /// Does acks that were checked.
    pub(super) fn settle(&mut self, member_id: MemberId, id: ShareId, done: &[Position]) -> Settled {
        let mut settled = Settled::default();
        let (Some(member), Some(share)) = (self.members.get_mut(&member_id), self.shares.get_mut(&id)) else {
            return settled;
        };
        let Some(window) = share.window.as_mut() else { return settled };
        let (acked, freed) = window.ack_all(done);
        if acked == 0 {
            return settled;
        }
        share.flight.hand_in(acked, freed);
        self.statistics.acked += acked as u64;
        let was_full = member.in_flight.messages >= member.bound.messages
            || member.in_flight.bytes >= member.bound.bytes;
        member.in_flight.messages = member.in_flight.messages.saturating_sub(acked);
        member.in_flight.bytes = member.in_flight.bytes.saturating_sub(freed);
        if share.flight.total.messages == 0 && member.leaving {
            settled.drained = Some(id);
        }
        let ready = was_full && !member.ready.is_empty();
        let woken = self.make_room(member_id) || ready;
        if woken && let Some(member) = self.members.get_mut(&member_id) {
            settled.waker = member.waker.take();
        }
        settled
    }

    /// Less is in flight: partitions that waited for room are looked at again. Answers whether one has it.
    pub(super) fn make_room(&mut self, member: MemberId) -> bool {
        let Some(member) = self.members.get_mut(&member) else { return false };
        let mut found = false;
        for id in std::mem::take(&mut member.waiting) {
            let Some(share) = self.shares.get_mut(&id) else { continue };
            let room = member.room(share);
            if room.is_empty() || (share.next_size > 0 && !room.clone().take(share.next_size)) {
                member.waiting.push(id);
            } else {
                share.waiting = false;
                member.queue(id, share);
                found = true;
            }
        }
        found
    }

    fn note_dirty(&mut self, member_id: MemberId, id: ShareId, now: Steady) {
        let (Some(member), Some(share)) = (self.members.get_mut(&member_id), self.shares.get_mut(&id)) else {
            return;
        };
        if !share.dirty {
            share.dirty = true;
            member.dirty.push(id);
            if member.dirty.len() == 1 {
                self.timers.set_by(Timer::Acks(member_id), now + member.ack_interval);
            }
        }
    }

    /// Stores the acks of a member.
    pub(super) fn store_acks(&mut self, step: &mut Step, member: MemberId) {
        let Some(member) = self.members.get_mut(&member) else { return };
        for id in member.dirty.drain(..) {
            if self.shares.get(&id).is_some_and(|share| share.dirty) {
                step.cursors.insert(id);
            }
        }
    }

    /// Stores the acks of a member now; answers what is about to be stored.
    pub(in crate::embedded) fn flush(&mut self, step: &mut Step, id: MemberId) -> Vec<Owned> {
        let dirty = self.members.get(&id).map(|member| member.dirty.clone()).unwrap_or_default();
        let owned = dirty
            .iter()
            .filter_map(|share| self.shares.get(share))
            .filter(|share| share.dirty && share.owner == Some(id))
            .map(super::Share::owned)
            .collect();
        self.timers.clear(Timer::Acks(id));
        self.store_acks(step, id);
        owned
    }

    /// Holds or lets flow what a member owns.
    pub(in crate::embedded) fn pause(&mut self, member: MemberId, of: &Owned, paused: bool) -> Settled {
        let mut settled = Settled::default();
        let Ok(id) = self.owned_share(member, of) else { return settled };
        let (Some(member), Some(share)) = (self.members.get_mut(&member), self.shares.get_mut(&id)) else {
            return settled;
        };
        share.paused = paused;
        if share.flows() {
            member.queue(id, share);
            settled.waker = member.waker.take();
        }
        settled
    }
}

fn fenced(of: &Owned) -> Error {
    Error::new(
        ErrorKind::Fenced,
        format!(
            "{:?}[{}] is not owned in epoch {} any more; stop working on it",
            of.topic, of.partition, of.epoch
        ),
    )
}

fn never_delivered(of: &Owned, position: Position) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!(
            "{position} of {:?}[{}] was never delivered in this epoch, so nothing was acked",
            of.topic, of.partition
        ),
    )
}
