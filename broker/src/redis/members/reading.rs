//! What a member reads, and how much of it lies ready.
//!
//! Pure. Not here: the connection (`../feed.rs`), what a read comes to (`../follow.rs`), what is handed out of it (`share.rs`).

use super::core::Core;
use crate::{
    GapReason, Owned,
    batched::Size,
    members::{key_of, owned, queue},
    redis::{
        feed::{Ask, Brought},
        follow::Told,
        pace::Pace,
        start::Extent,
    },
};
use std::{task::Waker, time::Duration};

/// How many messages of a partition are read at once.
const AT_ONCE: usize = 512;
/// With fewer lying ready it is read on, so that what comes next is on its way while these are handled.
pub(super) const FEW: usize = AT_ONCE;
/// What lies read ahead at the most beyond what is in flight, over all partitions: messages.
const AHEAD_MESSAGES: usize = 4096;
/// The same in bytes; the last message may go beyond it. Where messages grow suddenly a read brings more, and what is beyond is read again.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;

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

    /// What to read next.
    pub(super) fn plan(&mut self, longest: Duration) -> Plan {
        let room = self.room();
        let full = room.messages == 0 || room.bytes == 0;
        let mut paces = Vec::new();
        let mut plan = Plan { asks: Vec::new(), of: Vec::new(), count: 1, wait: longest };
        for share in self.owner.shares.values_mut() {
            share.log.left_out = full || !share.is_read() || share.ahead.messages >= FEW;
            if share.log.left_out {
                continue;
            }
            plan.asks.push(Ask { keys: share.log.followed.keys.clone(), after: share.log.followed.after() });
            plan.of.push(share.of.clone());
            paces.push(share.log.followed.pace);
            if !share.log.followed.is_caught_up() {
                plan.wait = Duration::ZERO;
            }
        }
        plan.count = Pace::count(paces.into_iter(), room, AT_ONCE);
        plan
    }

    /// Takes what a read brought, as far as there is room: what there is none for is read again.
    pub(super) fn take(&mut self, plan: &Plan, brought: Vec<Brought>) -> (Option<Waker>, bool) {
        let mut lost = Vec::new();
        for (of, mut brought) in plan.of.iter().zip(brought) {
            let room = self.room();
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
            let read = brought.entries.len();
            let fits = share.log.followed.pace.fitting(&brought.entries, room);
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
