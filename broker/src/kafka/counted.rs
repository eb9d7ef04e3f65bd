//! What delivery reports add to the numbers of a broker.
//!
//! Not here: the numbers (`../counted.rs`).

pub(super) use crate::counted::Counted;

use super::raw::{Report, Written};
use std::sync::atomic::Ordering;

impl Counted {
    /// Counts what was reported of records that nobody waits for.
    pub(super) fn count_reports(&self, reports: &[Report]) {
        for report in reports {
            let counter = match report.written {
                Written::Yes => &self.published,
                Written::No => &self.not_written,
                Written::Perhaps => &self.unknown,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}
