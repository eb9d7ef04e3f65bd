//! What happened at a backend, in numbers that only grow, and how much is open.
//!
//! Not here: what the numbers mean (`facts.rs`), what a member counts under its lock (`members/owner.rs`).

use crate::{Event, Outcomes, Published, Statistics};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the broker was opened.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) published: AtomicU64,
    pub(crate) not_written: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) readers: AtomicU64,
    pub(crate) consumers: AtomicU64,
    pub(crate) gone: AtomicU64,
    pub(crate) assigned: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) left_out: AtomicU64,
}

impl Counted {
    pub(crate) fn statistics(&self) -> Statistics {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            published: number(&self.published),
            not_written: number(&self.not_written),
            unknown: number(&self.unknown),
            commits: number(&self.commits),
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
        }
    }

    /// Counts what a reader is told.
    pub(crate) fn count_read(&self, event: &Event) {
        let (counter, number) = match event {
            Event::Batch(batch) => (&self.read, batch.deliveries.len() as u64),
            Event::Unreadable { .. } => (&self.unreadable, 1),
            Event::Gap { .. } => (&self.gaps, 1),
            _ => return,
        };
        counter.fetch_add(number, Ordering::Relaxed);
    }

    /// Counts what a batch came to.
    pub(crate) fn count(&self, outcomes: &Outcomes) {
        let (mut acked, mut not_written, mut unknown) = (0, 0, 0);
        for outcome in &outcomes.0 {
            match outcome {
                Published::Acked { .. } => acked += 1,
                Published::NotWritten(_) => not_written += 1,
                Published::Unknown(_) => unknown += 1,
            }
        }
        self.count_published(acked, not_written, unknown);
    }

    /// Counts what messages came to that were published.
    pub(crate) fn count_published(&self, acked: u64, not_written: u64, unknown: u64) {
        self.published.fetch_add(acked, Ordering::Relaxed);
        self.not_written.fetch_add(not_written, Ordering::Relaxed);
        self.unknown.fetch_add(unknown, Ordering::Relaxed);
    }
}
