//! What a member reads, and how much of it lies ready.
//!
//! Pure. Not here: the connection (`../feed.rs`), what a read comes to (`../follow.rs`), what is handed out of it (`share.rs`).

use super::core::Core;
use crate::{
    Bound, Error, GapReason, Owned,
    batched::Size,
    members::{NONE, key_of, owned, queue},
    redis::{
        feed::{Ask, Brought},
        follow::Told,
        start::Extent,
    },
};
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// How many messages of a partition are read at once.
const AT_ONCE: usize = 512;
/// With fewer lying ready it is read on, so that what comes next is on its way while these are handled.
pub(super) const FEW: usize = AT_ONCE;
/// What lies read ahead at the most beyond what is in flight, over all partitions: messages. Those that have less than their part of as much again
/// ([`part`]) are read beyond it.
const AHEAD_MESSAGES: usize = 4096;
/// The same in bytes; the last message may go beyond it. Where messages grow suddenly a read brings more, and what is beyond is read again.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;

/// What lies ready of one of so many partitions may always be as much, so that none waits for others that are stuck: as much as there may be beyond what is
/// in flight, shared by all, and at least one message.
fn part(owned: usize) -> Size {
    let owned = owned.max(1);
    Size { messages: (AHEAD_MESSAGES / owned).max(1), bytes: (AHEAD_BYTES / owned).max(1) }
}

/// Until when one of so many is left out while there is no room for all: until no more than half of its part lies ready. Reading it for each message that
/// leaves would cost a read for each.
fn half_of_part(owned: usize) -> Bound {
    let part = part(owned);
    Bound { messages: (part.messages / 2 + 1).min(FEW), bytes: part.bytes / 2 + 1 }
}

/// A read that is under way.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) asks: Vec<Ask>,
    pub(super) of: Vec<Owned>,
    pub(super) count: usize,
    pub(super) wait: Duration,
}

impl Core {
    /// What there is room for.
    const fn room(&self) -> Size {
        let ahead = self.owner.ahead;
        Size {
            messages: AHEAD_MESSAGES.saturating_sub(ahead.messages),
            bytes: AHEAD_BYTES.saturating_sub(ahead.bytes),
        }
    }

    /// Whether there is no room for all: from when there is not one message for each, until there is half of it. Else all would be read again and again for
    /// the one message that there is room for.
    fn is_full(&self) -> bool {
        let (room, owned) = (self.room(), self.owner.shares.len());
        let (messages, bytes) = if self.full { (AHEAD_MESSAGES / 2, AHEAD_BYTES / 2) } else { (1, 1) };
        room.messages < messages.max(owned) || room.bytes < bytes
    }

    /// Whether there is room for all again, of which who reads does not know.
    pub(super) fn has_room_again(&mut self) -> bool {
        let was = self.full;
        self.full = was && self.is_full();
        was && !self.full
    }

    /// Whether nothing is left that can be handed out, for which who reads waits.
    pub(super) fn has_nothing_else(&mut self) -> bool {
        let was = self.slow;
        self.slow = was && !self.owner.ready.is_empty();
        was && !self.slow
    }

    /// What to read next.
    pub(super) fn plan(&mut self, longest: Duration, now: Instant) -> Plan {
        self.full = self.is_full();
        let owned = self.owner.shares.len();
        let ahead = self.owner.ahead;
        let much = ahead.messages >= AHEAD_MESSAGES / 2 || ahead.bytes >= AHEAD_BYTES / 2;
        // Else what lies ready would be as much as one message of each, though its user is only slow.
        self.slow = self.full && much && !self.owner.ready.is_empty();
        let until = match (self.slow, self.full) {
            (true, _) => NONE,
            (false, true) => half_of_part(owned),
            (false, false) => Bound { messages: FEW, bytes: usize::MAX },
        };
        let is_old = self.turns.is_old(now);
        for share in self.owner.shares.values_mut() {
            let few = share.ahead.messages < until.messages && share.ahead.bytes < until.bytes;
            share.log.left_out = (!share.is_read() || !few).then_some(until);
            if is_old || share.log.left_out.is_some() {
                share.log.followed.pace.forget_end();
            }
        }
        let asked = self.owner.shares.iter().filter(|(_, share)| share.log.left_out.is_none());
        let (logs, shares): (Vec<_>, Vec<_>) =
            asked.map(|(key, share)| ((key, share.log.followed.pace), share)).unzip();
        let mut room = self.room();
        if self.full {
            let part = part(owned);
            let each = Size { messages: part.messages.div_ceil(2), bytes: part.bytes.div_ceil(2) };
            room = Size { messages: each.messages * logs.len(), bytes: each.bytes * logs.len() };
        }
        let turn = self.turns.next(&logs, room, AT_ONCE);
        let mut plan = Plan {
            asks: Vec::with_capacity(turn.logs.len()),
            of: Vec::with_capacity(turn.logs.len()),
            count: turn.count,
            wait: if turn.others { Duration::ZERO } else { longest },
        };
        for share in turn.logs.into_iter().map(|at| shares[at]) {
            let followed = &share.log.followed;
            plan.asks.push(Ask { keys: followed.keys.clone(), after: followed.after() });
            plan.of.push(share.of.clone());
            if !followed.is_caught_up() {
                plan.wait = Duration::ZERO;
            }
        }
        plan
    }

    /// The answer to a read was too large: whether the next asks for less.
    pub(super) fn can_do_with_less(&mut self, error: &Error) -> bool {
        let less = self.turns.can_do_with_less(error);
        if less {
            self.owner.shares.values_mut().for_each(|share| share.log.followed.pace.forget_end());
        }
        less
    }

    /// Takes what a read brought, as far as there is room: what there is none for is read again.
    pub(super) fn take(&mut self, plan: &Plan, brought: Vec<Brought>, now: Instant) -> (Option<Waker>, bool) {
        let (mut lost, mut came) = (Vec::new(), Size::default());
        let part = part(self.owner.shares.len());
        for (of, mut brought) in plan.of.iter().zip(brought) {
            let common = self.room();
            let Ok(share) = owned(&mut self.owner.shares, of) else { continue };
            if share.revoking.is_some() {
                continue;
            }
            // Positions of another life mean other messages: that is another epoch.
            let gone = brought.marks.life.is_none() && brought.entries.is_empty();
            if share.log.life.is_some()
                && share.log.life != brought.marks.life
                && (gone || brought.marks.life.is_some())
            {
                lost.push(key_of(of));
                continue;
            }
            let room = Size {
                messages: common.messages.max(part.messages.saturating_sub(share.ahead.messages)),
                bytes: common.bytes.max(part.bytes.saturating_sub(share.ahead.bytes)),
            };
            let read = brought.entries.len();
            let (fits, bytes) = share.log.followed.pace.fitting(&brought.entries, plan.count, room);
            came.add(Size { messages: read, bytes });
            brought.entries.truncate(fits);
            let asked = if fits < read { fits } else { plan.count };
            let before = share.ahead;
            let told = share.log.followed.take(brought.entries, brought.marks, asked);
            share.put_all(told);
            self.owner.ahead.messages += share.ahead.messages - before.messages;
            self.owner.ahead.bytes += share.ahead.bytes - before.bytes;
            if share.has_something() {
                queue(&mut self.owner.ready, &key_of(of), share);
            }
        }
        self.turns.came(came.messages, came.bytes, now);
        lost.iter().for_each(|key| self.lose(key));
        (self.owner.wake_if_told(), !lost.is_empty())
    }

    /// Whether it is owned, and of a topic of ours: then its log must be there.
    pub(super) fn is_ours(&mut self, of: &Owned) -> bool {
        owned(&mut self.owner.shares, of).is_ok_and(|share| share.log.life.is_some())
    }

    /// Compares what was counted with what partitions say of themselves, which was asked after the last read: what somebody else trimmed is told.
    /// A log that lost its end is lost, and taken over again: positions of what comes may be those of what was acked. Whether one is.
    pub(super) fn verify(&mut self, extents: &[(Owned, Extent)]) -> (Option<Waker>, bool) {
        let mut lost = Vec::new();
        for (of, extent) in extents {
            let Ok(share) = owned(&mut self.owner.shares, of) else { continue };
            // Another life, or what we removed ourselves: the next read tells.
            let removed = extent.marks.removed.is_some_and(|removed| removed > share.log.followed.after());
            if !share.is_read() || extent.marks.life != share.log.life || removed {
                continue;
            }
            let told = share.log.followed.verify(extent.counts);
            if let Some(Told::Gap { from, to, why: GapReason::Truncated }) = told {
                self.truncated.insert(key_of(of), (from, to));
                lost.push(key_of(of));
                continue;
            }
            share.put_all(told.into_iter().collect());
            if share.has_something() {
                queue(&mut self.owner.ready, &key_of(of), share);
            }
        }
        lost.iter().for_each(|key| self.lose(key));
        (self.owner.wake_if_told(), !lost.is_empty())
    }
}
