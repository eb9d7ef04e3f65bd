//! The processor: runs handlers over a subscription.
//!
//! Here is the handle. [`driver`] is the one task behind it; `events` and `outcome` are what it does, `partitions` and `work` what it
//! does it with. Not here: running work in the order of its key (`pool/core.rs`), what lies around an attempt (`layer/`).

mod builder;
mod drain;
mod driver;
mod ending;
mod events;
mod letters;
mod look;
mod outcome;
mod partitions;
mod snapshot;
mod tally;
mod work;

#[cfg(test)]
mod tests;

pub use builder::ProcessorBuilder;
pub use drain::ShutdownReport;
pub use snapshot::Snapshot;

use crate::settings::LONGEST_DRAIN;
use drain::{LINGER, Shutdown};
use ropeway_broker::{Error, ErrorKind, MessageBroker, Result, Subscription};
use snapshot::Counters;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::Instant,
};
use tracing::warn;

/// How much longer than [`LINGER`] a shutdown waits for a driver that says nothing.
const HELD_UP: Duration = Duration::from_secs(2);

/// Runs the handlers of a router over a subscription.
///
/// * Events of one key are handled one at a time, in order, and their acks are given in that order; keys go on beside each other, up to
///   [`ProcessorSettings::concurrency`](crate::ProcessorSettings::concurrency). Events without key have no order.
/// * What fails is retried in place while its key waits and others go on; after the last attempt, or when it is rejected, it is
///   written to the dead-letter topic and acked, in one step where the backend can. While that cannot be written, the event is held
///   and its key waits, for ever if need be.
/// * At least once: what is handled and not acked when the process or the partition is lost is handled again by the next owner.
/// * A slow key delays others only when unfinished messages fill its partition's share of what may be in flight; then that
///   partition waits alone.
///
/// Dropping it aborts it in the background, as [`Self::abort`] does.
#[derive(Debug)]
pub struct Processor {
    commands: mpsc::Sender<Shutdown>,
    task: AbortHandle,
    counters: Arc<Counters>,
    ended: watch::Receiver<Option<Result<()>>>,
}

impl Processor {
    /// Starts to describe one.
    pub fn builder(broker: Arc<dyn MessageBroker>, subscription: Subscription) -> ProcessorBuilder {
        ProcessorBuilder::new(broker, subscription)
    }

    /// What it has done and does right now. Cheap; figures may be a few events apart.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// Fetches nothing more, finishes what was delivered, and ends within the deadline, give or take 5 s for a handler or backend that
    /// hangs. Handlers are cancelled `cancel_grace` before the deadline and dropped at it. What is then left is given up: it burns no attempt, is
    /// not dead-lettered, and its next owner has it. Twice is once, with the nearer deadline; after the end the report is empty. A deadline
    /// is a year at most.
    ///
    /// A handler that blocks its thread while the processor's own task runs it cannot be told anything: then that task is aborted 7 s after
    /// the deadline, as by [`Self::abort`], and the report counts what was known last.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing back.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let (since, deadline) = (Instant::now(), deadline.min(LONGEST_DRAIN));
        let (reply, report) = oneshot::channel();
        let told = async {
            match self.commands.send(Shutdown { deadline, reply }).await {
                Ok(()) => report.await.unwrap_or_default(),
                Err(_) => ShutdownReport::default(),
            }
        };
        let longest = deadline.saturating_add(LINGER).saturating_add(HELD_UP);
        // On the heap, so that callers stay small.
        match Box::pin(tokio::time::timeout(longest, told)).await {
            Ok(report) => report,
            Err(_) => self.held_up(since),
        }
    }

    /// A handler blocks the driver, which cannot be told anything.
    fn held_up(&self, since: Instant) -> ShutdownReport {
        warn!("a handler blocks the processor's own task; aborted without waiting any longer for it");
        self.abort();
        let Snapshot { in_flight, running, .. } = self.snapshot();
        ShutdownReport {
            given_up: in_flight + 1,
            dropped_handlers: usize::try_from(running).unwrap_or(usize::MAX).saturating_add(1),
            took: since.elapsed(),
            ..ShutdownReport::default()
        }
    }

    /// Drops everything at once: handlers half-way, acks that were not given, the membership. As a crash would, but for the process.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What ended it, unless it was shut down or its broker closed: `Fenced` where another member of its name took over; `Closed`
    /// where it was aborted.
    ///
    /// # Cancel safety
    /// Nothing is lost: it may be asked again.
    pub async fn finished(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        let aborted = || Error::new(ErrorKind::Closed, "the processor was aborted");
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(aborted())),
            Err(_) => Err(aborted()),
        }
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.task.abort();
    }
}
