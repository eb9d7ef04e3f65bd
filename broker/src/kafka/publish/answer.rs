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
    pub(super) sent: Option<(Sent, oneshot::Receiver<Vec<Report>>)>,
    pub(super) deadline: Instant,
    pub(super) counted: Arc<Counted>,
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Answering {
    /// What became of each message.
    pub(super) async fn outcomes(self) -> Outcomes {
        let Self { batch, sent, deadline, counted } = self;
        let mut reported = match sent {
            None => Vec::new().into_iter(),
            Some((sent, mut reports)) => match timeout_at(deadline, &mut reports).await {
                Ok(Ok(reports)) => {
                    let mut reports = reports.into_iter();
                    let outcomes = batch.outcomes(|| reports.next());
                    counted.count(&outcomes);
                    return outcomes;
                }
                // It ended without a word: with the process.
                Ok(Err(_)) => sent.so_far().into_iter(),
                Err(_) => {
                    // Whoever reports later finds somebody who listens, and does not count it again.
                    tokio::spawn(reports);
                    sent.so_far().into_iter()
                }
            },
        };
        let outcomes = batch.outcomes(|| reported.next().flatten());
        counted.count(&outcomes);
        outcomes
    }
}
