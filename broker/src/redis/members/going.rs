//! How what a member owns goes: ended and told once its last acks are stored, lost, or given up because a time is over.
//!
//! Pure. Not here: who asks for it (`core.rs`, `duty.rs`).

use super::{
    core::{Core, Told, find, key_of},
    share::{Ending, Share, fenced},
};
use crate::{
    Bound, Event, GoneReason, Owned,
    balance::TopicPartition,
    redis::failure::{BACKEND, late},
};
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// How long a last commit may take before its owner is told without it.
const GRACE: Duration = Duration::from_secs(1);

impl Core {
    pub(super) fn end_share(
        &mut self,
        key: &TopicPartition,
        why: GoneReason,
        to: Option<String>,
        now: Instant,
    ) {
        let Some(share) = self.shares.get_mut(key).filter(|share| share.ending.is_none()) else { return };
        let committed = share.saved == share.changes;
        share.ending = Some(Ending { why, at: now, to, committed, told: false });
        share.revoking = None;
        let (ahead, flight) =
            (share.clear(), std::mem::replace(&mut share.flight, Bound { messages: 0, bytes: 0 }));
        self.forget(ahead, flight);
        self.room_was_made();
        self.tell_ended(now);
    }

    pub(super) fn forget(&mut self, ahead: Bound, flight: Bound) {
        self.ahead.messages -= ahead.messages;
        self.ahead.bytes -= ahead.bytes;
        self.in_flight.messages = self.in_flight.messages.saturating_sub(flight.messages);
        self.in_flight.bytes = self.in_flight.bytes.saturating_sub(flight.bytes);
    }

    /// Tells of what has gone and whose last acks are stored, or cannot be stored in time.
    pub(super) fn tell_ended(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for share in self.shares.values_mut() {
            if let Some(ending) = &mut share.ending
                && !ending.told
                && (ending.committed || now >= ending.at + GRACE)
            {
                ending.told = true;
                gone.push((share.of.clone(), ending.why));
            }
        }
        gone.into_iter().for_each(|(of, why)| self.tell_gone(of, why));
    }

    pub(super) fn tell_gone(&mut self, of: Owned, why: GoneReason) {
        self.numbers.gone += 1;
        self.tell(Told::Event(Event::Gone(of, why)));
    }

    pub(super) fn tell(&mut self, told: Told) {
        if !self.dropped {
            self.told.push_back(told);
        }
    }

    /// It is another's by now.
    pub(super) fn lose(&mut self, key: &TopicPartition) {
        let Some(mut share) = self.shares.remove(key) else { return };
        let (ahead, flight) = (share.clear(), share.flight);
        self.forget(ahead, flight);
        if self.table.owner(key) == Some(&self.rules.name) {
            self.ours.insert(key.clone());
        }
        self.look = true;
        let error = fenced(&share.of);
        share.confirms.drain(..).for_each(|answer| _ = answer.send(Err(error.clone())));
        for flush in &mut self.flushes {
            let lost = flush.left.iter().any(|(of, changes)| *of == share.of && *changes > share.saved);
            flush.left.retain(|(of, _)| *of != share.of);
            if lost {
                flush.failed.push((share.of.clone(), error.clone()));
            }
        }
        self.answer_flushes();
        if share.ending.is_none_or(|ending| !ending.told) {
            self.tell_gone(share.of, GoneReason::Lost);
        }
        self.room_was_made();
    }

    /// Another server is asked by now, which need not have all that the one before had: positions mean other messages there. All is lost, and taken
    /// over again from what that server has stored.
    pub(super) fn moved(&mut self, home: u64) -> Option<Waker> {
        if home <= self.home {
            return None;
        }
        (self.home, self.look) = (home, true);
        let keys: Vec<_> = self.shares.keys().cloned().collect();
        for key in keys {
            let followed = self.shares.get(&key).map(|share| share.followed.clone());
            self.before.extend(followed.map(|followed| (key.clone(), followed)));
            self.lose(&key);
        }
        self.wake_if_told()
    }

    pub(super) fn lose_all(&mut self) {
        let keys: Vec<_> = self.shares.keys().cloned().collect();
        keys.iter().for_each(|key| self.lose(key));
        self.ours.clear();
    }

    /// What is due by the clock alone.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Waker> {
        if self.over {
            return None;
        }
        let drained = |share: &Share| share.revoking.is_some_and(|until| until <= now);
        let keys: Vec<_> =
            self.shares.iter().filter(|(_, share)| drained(share)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.end_share(key, GoneReason::DrainOver, None, now));
        if self.closing.is_some_and(|until| until <= now) {
            let keys: Vec<_> = self.shares.keys().cloned().collect();
            for key in keys {
                if let Some(share) = self.shares.get(&key).filter(|share| share.ending.is_none()) {
                    let (of, unacked) = (share.of.clone(), share.unacked());
                    if !unacked.is_empty() {
                        self.unacked.push((of, unacked));
                    }
                    self.end_share(&key, GoneReason::Closed, None, now);
                }
            }
        }
        self.tell_ended(now);
        for of in self.rounds.expire(now, || late(&self.rules.server).on(BACKEND)) {
            // More may be stored than is known here, and what is acked from now on would look late beside it: it is taken over again, with what is
            // stored. Then the round cannot come late either.
            if find(&mut self.shares, &of).is_ok() {
                self.lose(&key_of(&of));
            }
        }
        self.wake_if_told()
    }

    /// Who is to see the end.
    pub(super) fn end_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// What has acks that are not committed.
    pub(super) fn dirty(&self) -> Vec<Owned> {
        let dirty = self.shares.values().filter(|share| share.saved < share.changes);
        dirty.map(|share| share.of.clone()).collect()
    }

    pub(super) fn wake_if_told(&mut self) -> Option<Waker> {
        let something = !self.told.is_empty() || !self.ready.is_empty() || self.over;
        something.then(|| self.waker.take()).flatten()
    }

    /// When something is due by the clock.
    pub(super) fn due(&self) -> Option<Instant> {
        let drains = self.shares.values().filter_map(|share| share.revoking);
        let graces = self.shares.values().filter_map(|share| {
            share.ending.as_ref().filter(|ending| !ending.told).map(|ending| ending.at + GRACE)
        });
        let open = self.shares.values().any(|share| share.ending.is_none());
        drains.chain(graces).chain(self.closing.filter(|_| open)).chain(self.rounds.due()).min()
    }
}
