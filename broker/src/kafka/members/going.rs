//! How what a member owns goes: ended and told once its last acks are stored, lost, or given up because a time is over.
//!
//! Pure. Not here: who asks for it (`core.rs`, `duty.rs`).

use super::{
    core::{Core, Told},
    share::{NONE, Share, fenced},
};
use crate::{Bound, Error, Event, GoneReason, Owned, balance::TopicPartition};
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// How long a last commit may take before its owner is told without it.
const GRACE: Duration = Duration::from_secs(1);
/// How long a last commit is tried before a partition goes without it: what it would have stored comes again.
pub(super) const LAST: Duration = Duration::from_secs(10);

impl Core {
    pub(super) fn end_share(&mut self, key: &TopicPartition, why: GoneReason, now: Instant) {
        let Some(share) = self.shares.get_mut(key).filter(|share| share.ending.is_none()) else { return };
        if !share.claimed {
            // Nobody was told of it.
            self.drop_share(key);
            return;
        }
        let committed = !share.is_dirty();
        share.ending = Some(super::share::Ending { why, at: now, committed, told: false });
        share.revoking = None;
        let (ahead, flight) = (share.clear(), std::mem::replace(&mut share.flight, NONE));
        self.forget(ahead, flight);
        self.room_was_made();
        self.tell_ended(now);
    }

    /// Forgets it without a word.
    fn drop_share(&mut self, key: &TopicPartition) -> Option<Share> {
        let mut share = self.shares.remove(key)?;
        let (ahead, flight) = (share.clear(), share.flight);
        self.forget(ahead, flight);
        self.room_was_made();
        Some(share)
    }

    pub(super) fn forget(&mut self, ahead: Bound, flight: Bound) {
        self.ahead.messages -= ahead.messages;
        self.ahead.bytes -= ahead.bytes;
        self.in_flight.messages = self.in_flight.messages.saturating_sub(flight.messages);
        self.in_flight.bytes = self.in_flight.bytes.saturating_sub(flight.bytes);
    }

    /// Tells of what has gone and whose last acks are stored, or cannot be stored in time; and forgets what is done with.
    pub(super) fn tell_ended(&mut self, now: Instant) {
        let (mut gone, mut done) = (Vec::new(), Vec::new());
        for (key, share) in &mut self.shares {
            let Some(ending) = &mut share.ending else { continue };
            if !ending.told && (ending.committed || now >= ending.at + GRACE) {
                ending.told = true;
                gone.push((share.of.clone(), ending.why));
            }
            if ending.told && (ending.committed || now >= ending.at + LAST) {
                done.push(key.clone());
            }
        }
        gone.into_iter().for_each(|(of, why)| self.tell_gone(of, why));
        for key in done {
            if let Some(share) = self.drop_share(&key) {
                self.refuse(share, "its last acks could not be stored in time");
            }
        }
    }

    fn tell_gone(&mut self, of: Owned, why: GoneReason) {
        self.numbers.gone += 1;
        self.tell(Told::Event(Event::Gone(of, why)));
    }

    pub(super) fn tell(&mut self, told: Told) {
        if !self.dropped {
            self.told.push_back(told);
        }
    }

    /// Answers who waits for acks of it that cannot be stored any more.
    fn refuse(&mut self, mut share: Share, why: &'static str) {
        let error = fenced(&share.of);
        share.confirms.drain(..).for_each(|answer| _ = answer.send(Err(error.clone())));
        let mut lost = false;
        for flush in &mut self.flushes {
            let waits = flush.left.iter().any(|(of, changes)| *of == share.of && *changes > share.saved);
            flush.left.retain(|(of, _)| *of != share.of);
            if waits {
                lost = true;
                flush.failed.push((share.of.clone(), error.clone()));
            }
        }
        if lost || (share.claimed && share.is_dirty()) {
            tracing::debug!(of = ?share.of, why, "acks were not stored: their messages come again");
        }
        self.answer_flushes();
    }

    /// It is another's by now, or its positions mean other messages.
    pub(super) fn lose(&mut self, key: &TopicPartition) {
        let Some(share) = self.drop_share(key) else { return };
        let told = share.ending.is_some_and(|ending| ending.told);
        let (of, claimed) = (share.of.clone(), share.claimed);
        self.refuse(share, "the partition was lost");
        if claimed && !told {
            self.tell_gone(of, GoneReason::Lost);
        }
    }

    pub(super) fn lose_all(&mut self) {
        let keys: Vec<_> = self.shares.keys().cloned().collect();
        keys.iter().for_each(|key| self.lose(key));
    }

    /// The server knows this member no more: all is another's. The client joins again by itself.
    pub(super) fn expel(&mut self, now: Instant) {
        self.lose_all();
        self.ours.clear();
        self.starts.clear();
        self.expelled.get_or_insert(now);
    }

    /// What is due by the clock alone.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Waker> {
        if self.over {
            return None;
        }
        let drained = |share: &Share| share.revoking.is_some_and(|until| until <= now);
        let keys: Vec<_> =
            self.shares.iter().filter(|(_, share)| drained(share)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.end_share(key, GoneReason::DrainOver, now));
        if self.closing.is_some_and(|until| until <= now) {
            let keys: Vec<_> = self.shares.keys().cloned().collect();
            for key in keys {
                if let Some(share) = self.shares.get(&key).filter(|share| share.ending.is_none()) {
                    let (of, unacked) = (share.of.clone(), share.unacked());
                    if !unacked.is_empty() {
                        self.unacked.push((of, unacked));
                    }
                    self.end_share(&key, GoneReason::Closed, now);
                }
            }
        }
        if self.rules.watched && now >= self.evidence + self.rules.session {
            // Nobody would tell: the server may have given it all away. What is to be taken waits for its epoch to be stored.
            let claimed = self.shares.iter().filter(|(_, share)| share.claimed);
            let keys: Vec<_> = claimed.map(|(key, _)| key.clone()).collect();
            keys.iter().for_each(|key| self.lose(key));
        }
        self.tell_ended(now);
        self.wake_if_told()
    }

    /// Ends it for good: `error` is what is told last.
    pub(super) fn end(&mut self, error: Error) {
        self.lose_all();
        self.ended.get_or_insert(error);
        self.over = true;
        self.flushes.iter_mut().for_each(|flush| flush.left.clear());
        self.answer_flushes();
        let unacked = std::mem::take(&mut self.unacked);
        self.closers.drain(..).for_each(|closer| _ = closer.send(unacked.clone()));
    }

    pub(super) fn wake_if_told(&mut self) -> Option<Waker> {
        let something = !self.told.is_empty() || !self.ready.is_empty() || self.over;
        something.then(|| self.waker.take()).flatten()
    }

    /// When something is due by the clock.
    pub(super) fn due(&self) -> Option<Instant> {
        let drains = self.shares.values().filter_map(|share| share.revoking);
        let endings = self.shares.values().filter_map(|share| {
            let ending = share.ending?;
            Some(ending.at + if ending.told { LAST } else { GRACE })
        });
        let open = self.shares.values().any(|share| share.ending.is_none());
        drains.chain(endings).chain(self.closing.filter(|_| open)).min()
    }
}
