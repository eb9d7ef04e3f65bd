//! What takes too long is found by looking at all workers when the earliest of their times is over, so that no attempt needs a timer of its own:
//! what begins later cannot be over before the limit has passed once more.
//!
//! Not here: what ends an attempt then (`layer/limit.rs`).

use super::{Execute, Shared, Workers};
use crate::layer::Seen;
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// Workers are not looked at more often, however their times lie.
const LOOK: Duration = Duration::from_millis(1);

impl<X: Execute> Workers<X> {
    /// Tells what takes too long, where that may be.
    pub(in crate::pool) fn watch(&mut self, now: Instant) {
        let Some(limit) = self.shared.execute.limit() else { return };
        if self.out == 0 {
            self.look = None;
            return;
        }
        // What began at or after `now` is over then at the earliest.
        let later = now.checked_add(limit);
        if let Some(look) = self.look
            && now >= look
        {
            let (first, over) = self.shared.look(now);
            let next = later.into_iter().chain(first).min();
            self.look = next.map(|next| next.max(now + LOOK));
            over.into_iter().for_each(Waker::wake);
        } else if self.look.is_none() {
            self.look = later;
        }
    }

    /// When [`Self::watch`] has something to do next.
    pub(in crate::pool) const fn next_watch(&self) -> Option<Instant> {
        self.look
    }
}

impl<X: Execute> Shared<X> {
    /// When work that was begun elsewhere has to be over, where it has to.
    pub(super) fn end_of(&self, job: &X::Job) -> Option<Instant> {
        X::begun(job)?.checked_add(self.execute.limit()?)
    }

    /// Tells workers that what they run takes too long; answers the earliest time of the others, and who is to be polled.
    fn look(&self, now: Instant) -> (Option<Instant>, Vec<Waker>) {
        let mut over = Vec::new();
        let state = self.state();
        // What was begun and waits for its worker has to be over sooner than what begins now.
        let mut first = state.queue.iter().filter_map(|queued| self.end_of(&queued.job)).min();
        for (_, worker) in &state.workers {
            match worker.watch.look(now) {
                Seen::Nothing => {}
                Seen::Until(end) => first = first.into_iter().chain([end]).min(),
                Seen::Over => over.extend(worker.waker.clone()),
            }
        }
        (first, over)
    }
}
