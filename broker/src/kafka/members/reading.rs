//! What a member reads, how much of it lies ready, and when the client is to stop reading.
//!
//! Pure. What lies ready is bounded: above a mark the client is not asked for more for a moment, since that costs nothing; then it stops reading the
//! partitions that are full, which throws away what it has fetched of them, until they are down to a lower mark. Those that have a lot stop with the first that is full, and all
//! begin again together, when little lies ready or one of them is nearly empty: one that is read alone would have all the room that the client fetches into, and throw that away when it is full.
//! Not here: copying records (`records.rs`), what is handed out (`share.rs`).

use super::{core::Core, duty::Job, share::Read};
use crate::{Bound, balance::TopicPartition, members::queue};
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// What lies ready at the most, over all partitions; what the client hands over at once may be on top.
const AHEAD: Bound = Bound { messages: 16 * 1024, bytes: 16 * 1024 * 1024 };
/// What may lie ready of one partition, however many there are.
const LEAST: Bound = Bound { messages: 64, bytes: 64 * 1024 };
/// The lower mark, and what is nearly empty: that part of the most.
const LOW: usize = 4;
/// See above.
const DRY: usize = 16;
/// For how long the client is not asked for more before it stops reading.
const PATIENCE: Duration = Duration::from_millis(50);

/// After so long a pause what comes may be of another topic of that name: the client goes on at its offset, and says nothing.
const IDLE: Duration = Duration::from_millis(200);

/// What was read of a partition.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) key: TopicPartition,
    pub(super) reads: Vec<Read>,
}

impl Core {
    /// Takes what was read out of `runs`.
    pub(super) fn take(&mut self, runs: &mut [Run], now: Instant) -> Option<Waker> {
        let mark = mark(self.owner.shares.len());
        for Run { key, reads } in runs {
            let Some(share) = self.owner.shares.get_mut(key).filter(|share| share.takes()) else { continue };
            if now >= share.log.read_at + IDLE {
                share.log.parked = Some(self.looks);
            }
            share.log.read_at = now;
            let before = share.ahead;
            share.put_all(reads.drain(..));
            self.owner.ahead.messages += share.ahead.messages - before.messages;
            self.owner.ahead.bytes += share.ahead.bytes - before.bytes;
            if is_above(share.ahead, mark) {
                share.log.full.get_or_insert(now);
            }
            if share.flows() && share.has_something() {
                queue(&mut self.owner.ready, key, share);
            }
        }
        self.owner.wake_if_told()
    }

    /// What the client is to stop reading, or to read again. Where something is full only for a moment: until when it is not asked.
    pub(super) fn flow(&mut self, now: Instant) -> Flow {
        let (mut hold, mut resume, mut moment) = (Vec::new(), Vec::new(), None::<Instant>);
        let dry = part(mark(self.owner.shares.len()), DRY);
        let mut begins = !is_above(self.owner.ahead, part(AHEAD, LOW));
        for (key, share) in self.owner.shares.iter().filter(|(_, share)| share.log.placed) {
            match share.log.full {
                Some(since) if !self.held.contains(key) => {
                    let until = since + PATIENCE;
                    // Who works on it may be done with it soon, unless nobody does.
                    if until <= now || !share.flows() {
                        hold.push(key.clone());
                    } else {
                        moment = Some(moment.map_or(until, |moment| moment.min(until)));
                    }
                }
                None if self.held.contains(key) => {
                    begins |= !is_above(share.ahead, dry);
                    resume.push(key.clone());
                }
                _ => {}
            }
        }
        if !hold.is_empty() {
            // Those that have a lot as well: each that went on would have all that the client may fetch, and throw it away a moment later.
            let low = part(mark(self.owner.shares.len()), LOW);
            for (key, share) in self.owner.shares.iter_mut().filter(|(_, share)| share.log.placed) {
                if share.log.full.is_none() && is_above(share.ahead, low) && !self.held.contains(key) {
                    share.log.full = Some(now);
                    hold.push(key.clone());
                }
            }
            self.held.extend(hold.iter().cloned());
            return Flow::Job(Job::Hold(hold));
        }
        if begins && !resume.is_empty() {
            for key in &resume {
                self.held.remove(key);
                self.owner.shares.get_mut(key).into_iter().for_each(|share| share.log.drained = false);
            }
            return Flow::Job(Job::Resume(resume));
        }
        moment.map_or(Flow::On, Flow::Moment)
    }
}

/// What is to be done about how much lies ready.
#[derive(Debug)]
pub(super) enum Flow {
    /// Nothing.
    On,
    /// The client is not to be asked for records until then.
    Moment(Instant),
    Job(Job),
}

/// The most that lies ready of a partition, of so many.
fn mark(owned: usize) -> Bound {
    let owned = owned.max(1);
    Bound {
        messages: (AHEAD.messages / owned).max(LEAST.messages),
        bytes: (AHEAD.bytes / owned).max(LEAST.bytes),
    }
}

const fn is_above(ahead: Bound, mark: Bound) -> bool {
    ahead.messages > mark.messages || ahead.bytes > mark.bytes
}

const fn part(bound: Bound, of: usize) -> Bound {
    Bound { messages: bound.messages / of, bytes: bound.bytes / of }
}

/// Whether a partition that was full (`drained`, from then on) is down to the lower mark, or nearly empty.
pub(super) fn has_drained(
    full: &mut Option<Instant>,
    drained: &mut bool,
    ahead: Bound,
    owned: usize,
) -> bool {
    if full.is_none() && !*drained {
        return false;
    }
    let mark = mark(owned);
    if full.is_some() && !is_above(ahead, part(mark, LOW)) {
        (*full, *drained) = (None, true);
        return true;
    }
    full.is_none() && !is_above(ahead, part(mark, DRY))
}
