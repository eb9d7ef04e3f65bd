//! How what a member owns goes: revoked, ended and told once its last acks are stored, lost, or given up because a time is over.
//!
//! Pure. Not here: who asks for it (`owner.rs`, the backend).

use super::{
    owner::{Owner, Told},
    share::{Ending, Log, NONE, Share, fenced},
};
use crate::{Bound, Error, Event, GoneReason, Owned, balance::TopicPartition};
#[cfg(any(test, feature = "conformance"))]
use std::task::Waker;
use std::time::Duration;
use tokio::time::Instant;

/// How long a last commit may take before its owner is told without it.
const GRACE: Duration = Duration::from_secs(1);

impl<L: Log> Owner<L> {
    /// These are to be given up within the drain time; what was read ahead of them is forgotten.
    pub(crate) fn revoke<'a>(&mut self, keys: impl IntoIterator<Item = &'a TopicPartition>, now: Instant) {
        let mut list = Vec::new();
        for key in keys {
            let Some(share) = self.shares.get_mut(key).filter(|share| share.is_kept()) else { continue };
            share.revoking = Some(now + self.rules.drain);
            let ahead = share.clear();
            list.push(share.of.clone());
            self.forget(ahead, NONE);
        }
        if !list.is_empty() {
            self.tell(Told::Revoking(list));
        }
    }

    pub(crate) fn end_share(&mut self, key: &TopicPartition, why: GoneReason, now: Instant) {
        let Some(share) = self.shares.get_mut(key).filter(|share| share.ending.is_none()) else { return };
        if !share.claimed {
            // Nobody was told of it.
            self.drop_share(key);
            return;
        }
        let unacked = share.unacked();
        if self.closing.is_some() && !unacked.is_empty() {
            self.unacked.push((share.of.clone(), unacked));
        }
        let committed = !share.is_dirty();
        share.ending = Some(Ending { why, at: now, committed, told: false });
        share.revoking = None;
        let (ahead, flight) = (share.clear(), std::mem::replace(&mut share.flight, NONE));
        self.forget(ahead, flight);
        self.room_was_made();
        self.tell_ended(now);
    }

    /// Forgets it without a word.
    fn drop_share(&mut self, key: &TopicPartition) -> Option<Share<L>> {
        let mut share = self.shares.remove(key)?;
        let (ahead, flight) = (share.clear(), share.flight);
        self.forget(ahead, flight);
        self.room_was_made();
        Some(share)
    }

    fn forget(&mut self, ahead: Bound, flight: Bound) {
        self.ahead.messages -= ahead.messages;
        self.ahead.bytes -= ahead.bytes;
        self.in_flight.messages = self.in_flight.messages.saturating_sub(flight.messages);
        self.in_flight.bytes = self.in_flight.bytes.saturating_sub(flight.bytes);
    }

    /// Tells of what has gone and whose last acks are stored, or cannot be stored in time; and forgets what is done with.
    pub(crate) fn tell_ended(&mut self, now: Instant) {
        let (mut gone, mut done) = (Vec::new(), Vec::new());
        for (key, share) in &mut self.shares {
            let Some(ending) = &mut share.ending else { continue };
            if !ending.told && (ending.committed || now >= ending.at + GRACE) {
                ending.told = true;
                gone.push((share.of.clone(), ending.why));
            }
            let is_done = |last| ending.committed || now >= ending.at + last;
            if ending.told && L::LAST.is_some_and(is_done) {
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

    /// Answers who waits for acks of it that cannot be stored any more.
    fn refuse(&mut self, mut share: Share<L>, why: &'static str) {
        let error = fenced(&share.of);
        share.confirms.drain(..).for_each(|answer| _ = answer.send(Err(error.clone())));
        let mut lost = false;
        for flush in &mut self.flushes {
            let waits = flush.left.remove(&share.of).is_some_and(|changes| changes > share.saved);
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

    /// It is another's by now, or its positions mean other messages. Whether it was there.
    pub(crate) fn lose(&mut self, key: &TopicPartition) -> bool {
        let Some(share) = self.drop_share(key) else { return false };
        let told = share.ending.is_some_and(|ending| ending.told);
        let (of, claimed) = (share.of.clone(), share.claimed);
        self.refuse(share, "the partition was lost");
        if claimed && !told {
            self.tell_gone(of, GoneReason::Lost);
        }
        true
    }

    /// What goes because a time is over: a drain, or what a close waits for.
    pub(crate) fn run_out(&mut self, now: Instant) {
        let drained = |share: &Share<L>| share.revoking.is_some_and(|until| until <= now);
        let keys: Vec<_> =
            self.shares.iter().filter(|(_, share)| drained(share)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.end_share(key, GoneReason::DrainOver, now));
        if self.closing.is_none_or(|until| until > now) {
            return;
        }
        let keys: Vec<_> = self.shares.keys().cloned().collect();
        keys.iter().for_each(|key| self.end_share(key, GoneReason::Closed, now));
    }

    /// Ends it for good: `error` is what is told last, unless there was one before.
    pub(crate) fn end(&mut self, error: Error) {
        self.ended.get_or_insert(error);
        self.over = true;
        self.flushes.iter_mut().for_each(|flush| flush.left.clear());
        self.answer_flushes();
        let unacked = std::mem::take(&mut self.unacked);
        self.closers.drain(..).for_each(|closer| _ = closer.send(unacked.clone()));
    }

    /// Ends it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn kill(&mut self, error: Error) -> Option<Waker> {
        self.ended.get_or_insert(error);
        self.over = true;
        self.told.clear();
        self.shares.clear();
        self.flushes.clear();
        self.closers.clear();
        self.waker.take()
    }

    /// When something is due by the clock.
    pub(crate) fn due(&self) -> Option<Instant> {
        let drains = self.shares.values().filter_map(|share| share.revoking);
        let endings = self.shares.values().filter_map(|share| {
            let ending = share.ending?;
            let wait = if ending.told { L::LAST } else { Some(GRACE) };
            Some(ending.at + wait?)
        });
        let open = self.shares.values().any(|share| share.ending.is_none());
        drains.chain(endings).chain(self.closing.filter(|_| open)).min()
    }
}
