//! Shutting down: nothing more is fetched, what was delivered is finished, and what is left at the deadline is given up.
//!
//! In order: the consumer is closed (no more batches); what was taken in goes on, retries that are due in time included; when nothing
//! more can be done in time, or the grace before the deadline begins, what does not run is given up and handlers are cancelled; at the
//! deadline they are dropped. What is given up burns no attempt and is never dead-lettered: its next owner has it.
//! Not here: partitions that go one by one (`events.rs`, `ending.rs`).

use super::{driver::Driver, ending::grace, partitions::Turn};
use ropeway_broker::{Answer, Error, ErrorKind, Owned, Position, Result};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};
use tracing::{info, warn};

/// How long after the deadline a processor waits for its consumer to end, and for handlers that cannot be dropped because they do not yield.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// A shutdown that was asked for.
#[derive(Debug)]
pub(crate) struct Shutdown {
    pub(crate) deadline: Duration,
    pub(crate) reply: oneshot::Sender<ShutdownReport>,
}

/// What became of the work that a processor had when it was told to shut down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Events that were handled, skipped or dead-lettered since then.
    pub finished: u64,
    /// Events that were given up, for their next owner; those whose handlers finished too late for their ack are among them.
    pub given_up: u64,
    /// What was delivered and not acked, by partition, as the consumer tells it.
    pub unacked: Vec<(Owned, Vec<Position>)>,
    /// Handlers that had to be dropped at the deadline.
    pub dropped_handlers: usize,
    /// How long it took.
    pub took: Duration,
}

impl ShutdownReport {
    /// Whether all that was delivered was finished and acked.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.given_up == 0 && self.unacked.is_empty() && self.dropped_handlers == 0
    }
}

/// A shutdown under way.
pub(crate) struct Drain {
    since: Instant,
    cancel_at: Instant,
    stop_at: Instant,
    cancelled: bool,
    dropped: usize,
    before: (u64, u64),
    closing: Answer<Vec<(Owned, Vec<Position>)>>,
    replies: Vec<oneshot::Sender<ShutdownReport>>,
}

impl Drain {
    /// When something is to be done next.
    pub(super) fn due(&self) -> Instant {
        if self.cancelled { self.stop_at + LINGER } else { self.cancel_at }
    }
}

impl Driver {
    pub(super) fn begin_drain(&mut self, shutdown: Shutdown, now: Instant) {
        let Shutdown { deadline, reply } = shutdown;
        let stop_at = now + deadline;
        let cancel_at = stop_at - grace(self.settings.cancel_grace, deadline);
        if let Some(drain) = &mut self.drain {
            // The nearer deadline holds.
            drain.stop_at = drain.stop_at.min(stop_at);
            drain.cancel_at = drain.cancel_at.min(cancel_at);
            drain.replies.push(reply);
            return;
        }
        info!(group = %self.group, ?deadline, in_flight = self.core.lanes().len(), "shutting down");
        let closing = self.control.close(deadline);
        let turns: Vec<Arc<Turn>> = self.partitions.turns().cloned().collect();
        for turn in &turns {
            self.partitions.leave(turn);
        }
        self.drain = Some(Drain {
            since: now,
            cancel_at,
            stop_at,
            cancelled: false,
            dropped: 0,
            before: (self.finished(), self.given_up()),
            closing,
            replies: vec![reply],
        });
    }

    /// Gives up what is left when it is time, or when nothing more can be done in time.
    pub(super) fn advance_drain(&mut self, now: Instant) {
        let Some(drain) = &self.drain else { return };
        let (cancel_at, stop_at) = (drain.cancel_at, drain.stop_at);
        if !drain.cancelled {
            let lanes = self.core.lanes();
            let nothing_more = self.core.running() == 0
                && self.burials.is_empty()
                && lanes.ready() == 0
                && lanes.next_due().is_none_or(|due| due >= cancel_at);
            if now < cancel_at && !nothing_more {
                return;
            }
            self.forget(false, |_| true);
            let turns: Vec<Arc<Turn>> = self.partitions.turns().cloned().collect();
            for turn in &turns {
                self.partitions.leave(turn);
                self.endings.end(turn, now, stop_at);
            }
            self.expire(now);
        }
        let running = self.core.running();
        if let Some(drain) = &mut self.drain {
            drain.cancelled = true;
            if now >= stop_at && drain.dropped == 0 {
                drain.dropped = running;
            }
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let stop_at = self.drain.as_ref().map(|drain| drain.stop_at);
        let letters = !self.burials.is_empty() && stop_at.is_none_or(|stop_at| now < stop_at);
        if self.ended.is_some() && self.core.running() == 0 && !letters {
            return true;
        }
        let late =
            stop_at.is_some_and(|stop_at| now >= stop_at + LINGER) || self.end_by.is_some_and(|by| now >= by);
        if late {
            warn!(group = %self.group, running = self.core.running(), "ended without waiting any longer for handlers or the consumer");
        }
        late
    }

    /// Tells what became of the rest. Handlers that still run are aborted with the driver.
    pub(super) async fn finish(mut self) -> Result<()> {
        let now = Instant::now();
        if let Some(drain) = self.drain.take() {
            let left = drain.stop_at.saturating_duration_since(now) + Duration::from_secs(1);
            let unacked = tokio::time::timeout(left, drain.closing).await.unwrap_or_else(|_| {
                warn!(group = %self.group, "the consumer did not say in time what was not acked");
                Vec::new()
            });
            let out = self.core.lanes().len() as u64;
            let report = ShutdownReport {
                finished: self.finished() - drain.before.0,
                given_up: self.given_up() - drain.before.1 + out,
                unacked,
                dropped_handlers: drain.dropped,
                took: now.duration_since(drain.since),
            };
            info!(group = %self.group, finished = report.finished, given_up = report.given_up, took = ?report.took, "shut down");
            for reply in drain.replies {
                // Nobody has to wait for it.
                let _ = reply.send(report.clone());
            }
        }
        match self.ended.take() {
            Some(error) if error.kind() != ErrorKind::Closed => Err::<(), Error>(error),
            _ => Ok(()),
        }
    }

    /// Events that the next owner has.
    fn given_up(&self) -> u64 {
        self.counters.given_up.get() + self.counters.late.get()
    }

    /// Events that are over for good.
    fn finished(&self) -> u64 {
        let counters = &self.counters;
        counters.handled.get() + counters.skipped.get() + counters.dead_lettered.get()
    }
}
