//! What a member reads, how much of it lies ready, and when the client is to stop reading.
//!
//! Pure. What lies ready is bounded: above a mark the client is not asked for more for a moment, since that costs nothing; then it stops reading the
//! partitions that are full, which throws away what it has fetched of them, until they are down to a lower mark.
//! Not here: copying records (`records.rs`), what is handed out (`share.rs`).

use super::{core::Core, duty::Job, share::Read};
use crate::{Bound, balance::TopicPartition, members::queue};
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// What lies ready at the most, over all partitions; what the client hands over at once may be on top.
const AHEAD: Bound = Bound { messages: 16 * 1024, bytes: 16 * 1024 * 1024 };
/// What may lie ready of one partition, however many there are.
const LEAST: Bound = Bound { messages: 64, bytes: 64 * 1024 };
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
                None if self.held.contains(key) => resume.push(key.clone()),
                _ => {}
            }
        }
        if !hold.is_empty() {
            self.held.extend(hold.iter().cloned());
            return Flow::Job(Job::Hold(hold));
        }
        if !resume.is_empty() {
            resume.iter().for_each(|key| _ = self.held.remove(key));
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

/// Whether a partition that was full is down to the lower mark.
pub(super) fn has_drained(full: &mut Option<Instant>, ahead: Bound, owned: usize) -> bool {
    if full.is_none() {
        return false;
    }
    let mark = mark(owned);
    let low = Bound { messages: mark.messages / 4, bytes: mark.bytes / 4 };
    if is_above(ahead, low) {
        return false;
    }
    *full = None;
    true
}
