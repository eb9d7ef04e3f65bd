//! When the handlers of a partition that goes are cancelled, and when they are dropped.
//!
//! Not here: what makes it go (`events.rs`), the end of all of them (`drain.rs`).

use super::partitions::Turn;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// The ends that are to come. One for each turn at the most.
#[derive(Debug, Default)]
pub(crate) struct Endings(Vec<Ending>);

#[derive(Debug)]
struct Ending {
    turn: Arc<Turn>,
    cancel_at: Instant,
    stop_at: Instant,
}

impl Endings {
    /// Handlers of this turn are cancelled at `cancel_at` and dropped at `stop_at`, or sooner where that was said before.
    pub(crate) fn end(&mut self, turn: &Arc<Turn>, cancel_at: Instant, stop_at: Instant) {
        if let Some(ending) = self.0.iter_mut().find(|ending| Arc::ptr_eq(&ending.turn, turn)) {
            ending.cancel_at = ending.cancel_at.min(cancel_at);
            ending.stop_at = ending.stop_at.min(stop_at);
        } else {
            self.0.push(Ending { turn: turn.clone(), cancel_at, stop_at });
        }
    }

    /// Does what is due. Answers whether handlers were stopped, whose workers are to be polled then.
    #[must_use]
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|ending| {
            if now >= ending.cancel_at {
                ending.turn.reins.cancel();
            }
            if now >= ending.stop_at {
                ending.turn.reins.stop.stop();
            }
            now < ending.stop_at
        });
        self.0.len() < before
    }

    /// When something is due next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let due = |ending: &Ending| {
            if ending.turn.reins.cancel.is_cancelled() { ending.stop_at } else { ending.cancel_at }
        };
        self.0.iter().map(due).min()
    }
}

/// The part of the time there is that handlers have between being cancelled and being dropped.
pub(crate) fn grace(asked: Duration, left: Duration) -> Duration {
    asked.min(left / 2)
}
