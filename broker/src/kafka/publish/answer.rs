//! The answer to a publish: what was reported, or what is known at the deadline.
//!
//! **At our own deadline what was not reported is answered *unknown*, and stays where it is.** Purging it would be the only way to force reports, but that
//! takes back what every other caller has under way, also what was sent a moment ago, and in exchange the sequence of the publisher
//! has a hole that it must begin anew for. So the client library is told to stop trying before our deadline (`message.timeout.ms`): what was never sent
//! is reported as not written in time, and only what is under way at a server that does not answer is left to be unknown. It takes room until its
//! report comes. Not here: what a report means (`outcome.rs`), batches that were not handed over yet (`lane.rs`).

use super::{
    super::{
        counted::Counted,
        raw::{Report, Sent},
    },
    outcome::Batch,
};
use crate::Outcomes;
use std::{fmt, sync::Arc};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// A batch that was handed to the client library.
pub(super) struct Answering {
    pub(super) batch: Batch,
    /// What was handed over; absent where all of it was refused.
    pub(super) sent: Option<(Sent, Reports)>,
    pub(super) deadline: Instant,
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Answering {
    /// What became of each message.
    pub(super) async fn outcomes(self) -> Outcomes {
        let Self { batch, sent, deadline } = self;
        let Some((sent, mut reports)) = sent else { return batch.outcomes(|| None) };
        let late = match timeout_at(deadline, reports.heard()).await {
            Ok(Some(reports)) => {
                let mut reports = reports.into_iter();
                return batch.outcomes(|| reports.next());
            }
            // It ended without a word: with the process.
            Ok(None) => false,
            Err(_) => true,
        };
        let so_far = reports.so_far(&sent);
        if late {
            reports.expect();
        }
        let mut so_far = so_far.into_iter();
        batch.outcomes(|| so_far.next().flatten())
    }
}

/// The reports of what was handed over, all at once. Each is counted once, also where nobody waits for them.
pub(super) struct Reports {
    receiver: oneshot::Receiver<Vec<Report>>,
    counted: Arc<Counted>,
}

impl Reports {
    pub(super) const fn new(receiver: oneshot::Receiver<Vec<Report>>, counted: Arc<Counted>) -> Self {
        Self { receiver, counted }
    }

    /// `None`: they never come. Dropped it loses nothing.
    async fn heard(&mut self) -> Option<Vec<Report>> {
        let reports = (&mut self.receiver).await.ok()?;
        self.counted.count_reports(reports.iter().copied().map(Some));
        Some(reports)
    }

    /// What is known by now; of the rest it stays unknown what became.
    fn so_far(&self, sent: &Sent) -> Vec<Option<Report>> {
        let so_far = sent.so_far();
        self.counted.count_reports(so_far.iter().copied());
        so_far
    }

    /// Whoever reports later finds somebody who listens, and does not count it again.
    fn expect(mut self) {
        tokio::spawn(async move { _ = (&mut self.receiver).await });
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        // They may have come, and nobody looked; from here on who reports finds nobody.
        self.receiver.close();
        if let Ok(reports) = self.receiver.try_recv() {
            self.counted.count_reports(reports.iter().copied().map(Some));
        }
    }
}
