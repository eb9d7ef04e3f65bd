//! What happens to one report: the handler, and what its runs leave behind.
//!
//! The effect (a line in the ledger, a step of the totals) is made before the message is acked and counts once, however often the message
//! comes. Rejecting is an effect too.
//! Not here: which members run it (`members.rs`).

use super::{
    books::Books,
    fault,
    ledger::{Entry, Ledger},
    record::Reported,
};
use hdrhistogram::Histogram;
use ropeway_processor::{Context, Verdict};
use std::{
    fmt, io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::time::Instant;

/// Shared by the handlers of all members.
#[derive(Debug)]
pub(crate) struct Handling {
    seed: u64,
    /// How many reports the demo has published or will.
    reports: u64,
    begun: Instant,
    /// Number of the first report of which `published_at` knows.
    first: u64,
    /// When a report was handed to the publisher, in microseconds since `begun`, plus one; 0: not in this run.
    published_at: Vec<AtomicU64>,
    failed_attempts: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    books: Books,
    run: Run,
}

/// What happened in this run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) processed: u64,
    pub(crate) rejected: u64,
    /// Finished after more than one attempt.
    pub(crate) retried: u64,
    pub(crate) duplicates: u64,
    /// From the publisher to the end of the handler, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// When the last report was finished.
    pub(crate) last: Option<Instant>,
}

impl Handling {
    /// The numbers from `first` on, `count` of them, may be published in this run.
    ///
    /// # Errors
    /// Never in practice: the bounds of the histogram are constants.
    pub(crate) fn new(
        seed: u64,
        (ledger, books): (Ledger, Books),
        (first, count): (u64, usize),
    ) -> Result<Self, hdrhistogram::CreationError> {
        /// One hour, in microseconds.
        const LONGEST: u64 = 3_600_000_000;
        let latency = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let run = Run { processed: 0, rejected: 0, retried: 0, duplicates: 0, latency, last: None };
        Ok(Self {
            seed,
            reports: books.reports(),
            begun: Instant::now(),
            first,
            published_at: std::iter::repeat_with(AtomicU64::default).take(count).collect(),
            failed_attempts: AtomicU64::new(0),
            state: Mutex::new(State { ledger, books, run }),
        })
    }

    /// Notes that a report is handed to the publisher now.
    pub(crate) fn publishing(&self, number: u64) {
        if let Some(at) = self.at(number) {
            at.store(self.since_begun() + 1, Ordering::Relaxed);
        }
    }

    /// Handles a report. An error is a fault that the demo makes itself, or a ledger that cannot be written: both are tried again.
    pub(crate) async fn handle(
        &self,
        member: &str,
        report: Reported,
        cx: Context,
    ) -> Result<Verdict, Failed> {
        let (number, attempt) = (report.number, cx.attempt());
        if number >= self.reports {
            return Ok(Verdict::reject(format!("the demo has published no report with the number {number}")));
        }
        // A handler that waits for its database can be dropped here.
        tokio::task::yield_now().await;
        if attempt == 1 && fault::strikes(self.seed, number) {
            self.failed_attempts.fetch_add(1, Ordering::Relaxed);
            return Err(Failed::Seeded);
        }
        let member = member.to_owned();
        match report.record.check() {
            Ok(strike) => {
                self.finish(&Entry::Done { number, attempt, member, strike })?;
                Ok(Verdict::Done)
            }
            Err(why) => {
                let airport = report.record.airport;
                self.finish(&Entry::Rejected { number, attempt, member, airport })?;
                Ok(Verdict::reject(why))
            }
        }
    }

    fn finish(&self, entry: &Entry) -> Result<(), Failed> {
        let mut state = self.lock();
        state.ledger.append(entry).map_err(Failed::Ledger)?;
        let first = state.books.enter(entry);
        let run = &mut state.run;
        run.last = Some(Instant::now());
        let (number, attempt) = match entry {
            Entry::Done { number, attempt, .. } => {
                run.processed += u64::from(first);
                (*number, *attempt)
            }
            Entry::Rejected { number, attempt, .. } => {
                run.rejected += u64::from(first);
                (*number, *attempt)
            }
            Entry::Round(_) => return Ok(()),
        };
        if !first {
            run.duplicates += 1;
            return Ok(());
        }
        run.retried += u64::from(attempt > 1);
        let published = self.at(number).map_or(0, |at| at.load(Ordering::Relaxed));
        if let Some(published) = published.checked_sub(1) {
            run.latency.saturating_record(self.since_begun().saturating_sub(published).max(1));
        }
        Ok(())
    }

    /// How many reports are finished, since the reset.
    pub(crate) fn finished(&self) -> u64 {
        self.lock().books.finished.len() as u64
    }

    /// How many first attempts failed in this run because the demo wanted it.
    pub(crate) fn failed_attempts(&self) -> u64 {
        self.failed_attempts.load(Ordering::Relaxed)
    }

    /// What happened so far, all and in this run.
    pub(crate) fn so_far<T>(&self, see: impl FnOnce(&Books, &Run) -> T) -> T {
        let state = self.lock();
        see(&state.books, &state.run)
    }

    fn at(&self, number: u64) -> Option<&AtomicU64> {
        self.published_at.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn since_begun(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX - 1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// On purpose.
    Seeded,
    /// The ledger takes nothing.
    Ledger(io::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeded => write!(f, "the demo makes this first attempt fail on purpose"),
            Self::Ledger(_) => write!(f, "could not write to the demo's ledger"),
        }
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Seeded => None,
            Self::Ledger(error) => Some(error),
        }
    }
}
