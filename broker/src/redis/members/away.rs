//! Partitions of which the server did not do what was asked, and when each is asked for again: the others go on meanwhile.
//!
//! Pure. Not here: what is asked (`duty.rs`), failures of all that was asked (`core.rs`).

use super::duty::{FIRST_PAUSE, PAUSE};
use crate::{Error, balance::TopicPartition, redis::lasting::Refusals};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Those that are left alone for a while, or were when they were asked for last.
#[derive(Debug, Default)]
pub(super) struct Away(BTreeMap<TopicPartition, Left>);

#[derive(Debug)]
struct Left {
    until: Instant,
    pause: Duration,
    refusals: Refusals,
}

impl Away {
    /// It was asked for in vain. Whether that is the end: nobody but the user can change it, and it lasts.
    pub(super) fn failed(&mut self, key: &TopicPartition, error: &Error, now: Instant) -> bool {
        let new = || Left { until: now, pause: FIRST_PAUSE, refusals: Refusals::default() };
        let left = self.0.entry(key.clone()).or_insert_with(new);
        left.until = now + left.pause;
        left.pause = (left.pause * 2).min(PAUSE);
        left.refusals.last(error, now)
    }

    /// It was done, or is nothing of ours any more.
    pub(super) fn over(&mut self, key: &TopicPartition) {
        self.0.remove(key);
    }

    pub(super) fn retain(&mut self, ours: impl Fn(&TopicPartition) -> bool) {
        self.0.retain(|key, _| ours(key));
    }

    /// Whether it is asked for now.
    pub(super) fn is_due(&self, key: &TopicPartition, now: Instant) -> bool {
        self.0.get(key).is_none_or(|left| left.until <= now)
    }

    /// When the next of them is asked for.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|left| left.until).filter(|until| *until > now).min()
    }
}
