//! What delivery reports add to the numbers of a broker.
//!
//! Not here: the numbers (`../counted.rs`).

pub(super) use crate::counted::Counted;

use super::raw::{Report, Written};

impl Counted {
    /// Counts what was reported of records: `None` is one of which nothing was.
    pub(super) fn count_reports(&self, reports: impl Iterator<Item = Option<Report>>) {
        let (mut acked, mut not_written, mut unknown) = (0, 0, 0);
        for report in reports {
            match report.map(|report| report.written) {
                Some(Written::Yes) => acked += 1,
                Some(Written::No) => not_written += 1,
                Some(Written::Perhaps) | None => unknown += 1,
            }
        }
        self.count_published(acked, not_written, unknown);
    }
}
