//! What happened, in numbers.
//!
//! Not here: what the numbers mean (`../facts.rs`).

use super::raw::{Report, Written};
use crate::{Outcomes, Published, Statistics};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the broker was opened.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) published: AtomicU64,
    pub(super) not_written: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) read: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) readers: AtomicU64,
    pub(super) consumers: AtomicU64,
    pub(super) gone: AtomicU64,
    pub(super) assigned: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) left_out: AtomicU64,
}

impl Counted {
    pub(super) fn statistics(&self) -> Statistics {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            published: number(&self.published),
            not_written: number(&self.not_written),
            unknown: number(&self.unknown),
            read: number(&self.read),
            unreadable: number(&self.unreadable),
            gaps: number(&self.gaps),
            readers: number(&self.readers),
            consumers: number(&self.consumers),
            gone: number(&self.gone),
            assigned: number(&self.assigned),
            acked: number(&self.acked),
            delivered: number(&self.delivered),
            left_out: number(&self.left_out),
            ..Statistics::default()
        }
    }

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

    /// Counts what a batch came to.
    pub(super) fn count(&self, outcomes: &Outcomes) {
        let (mut acked, mut not_written, mut unknown) = (0, 0, 0);
        for outcome in &outcomes.0 {
            match outcome {
                Published::Acked { .. } => acked += 1,
                Published::NotWritten(_) => not_written += 1,
                Published::Unknown(_) => unknown += 1,
            }
        }
        self.published.fetch_add(acked, Ordering::Relaxed);
        self.not_written.fetch_add(not_written, Ordering::Relaxed);
        self.unknown.fetch_add(unknown, Ordering::Relaxed);
    }
}
