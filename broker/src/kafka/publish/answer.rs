//! The answer to a publish: what was reported, or what is known at the deadline.
//!
//! **At our own deadline a batch that was not reported is answered *unknown*, and stays where it is.** Purging it would be the only way to force reports, but that
//! takes back what every other caller has under way, also what was sent a moment ago, and in exchange the sequence of the publisher
//! has a hole that it must begin anew for. So the client library is told to stop trying before our deadline (`message.timeout.ms`): what was never sent
//! is reported as not written in time, and only what is under way at a server that does not answer is left to be unknown. It takes room until its
//! report comes. Not here: what a report means (`outcome.rs`), batches that were not handed over yet (`lane.rs`).

use super::{super::counted::Counted, outcome::Batch};
use crate::Outcomes;
use std::sync::Arc;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::super::raw::Report;

/// A batch that was handed to the client library.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) batch: Batch,
    /// Absent where all of it was refused.
    pub(super) reports: Option<oneshot::Receiver<Vec<Report>>>,
    pub(super) deadline: Instant,
    pub(super) counted: Arc<Counted>,
}

impl Answering {
    /// What became of each message.
    pub(super) async fn outcomes(self) -> Outcomes {
        let Self { batch, reports, deadline, counted } = self;
        let reported = match reports {
            None => Vec::new(),
            Some(mut reports) => match timeout_at(deadline, &mut reports).await {
                Ok(Ok(reports)) => reports,
                // It ended without a word: with the process.
                Ok(Err(_)) => Vec::new(),
                Err(_) => {
                    // Whoever reports later finds somebody who listens, and does not count it again.
                    tokio::spawn(reports);
                    Vec::new()
                }
            },
        };
        let mut reports = reported.into_iter();
        let outcomes = batch.outcomes(|| reports.next());
        counted.count(&outcomes);
        outcomes
    }
}
