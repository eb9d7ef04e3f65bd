//! What is counted while a load runs: shared by producers, callbacks and members.
//!
//! What happened when is decided in [`State`], which takes the time; [`Recorder`] adds the lock and the clock. Memory is that of the
//! histograms, the integrity and a row a second. Not here: who tells it (`producer.rs`, `member.rs`).

use crate::{
    figures,
    integrity::{Integrity, Verdict},
    payload::Stamp,
    record::Latencies,
    report::{Latency, LatencySet, Phase, Rates, Row},
};
use ropeway_broker::{Error, ErrorKind};
use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// More messages than that are not refused one by one: the run ends.
const MOST_FAILURES: u64 = 10_000;

/// Counts what happens in a run. All methods may be called from any thread.
#[derive(Debug)]
pub struct Recorder {
    start: OnceLock<Instant>,
    halt: CancellationToken,
    state: Mutex<State>,
}

/// When a message counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// When it was acked to its publisher.
    Acked,
    /// When it came, or was handled.
    Arrived,
    /// When it came; it was sent earlier, so that it has no latency.
    Drained,
}

#[derive(Debug)]
struct State {
    warm_up: Duration,
    counting: Counting,
    integrity: Option<Integrity>,
    phases: [PhaseCounts; 2],
    publish: Latencies,
    delay: Latencies,
    e2e: Latencies,
    window: Latencies,
    row: Row,
    rows: Vec<Row>,
    received: u64,
    failed: u64,
    gaps: u64,
    error: Option<Error>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PhaseCounts {
    acked: u64,
    received: u64,
    bytes: u64,
    last: Duration,
}

/// What a run came to.
#[derive(Debug)]
pub struct Measured {
    /// Warm-up, where there was one, and run.
    pub phases: Vec<Phase>,
    /// Of the run.
    pub rates: Option<Rates>,
    /// Of all.
    pub series: Vec<Row>,
    /// Of the run.
    pub latency: LatencySet,
    /// Of all; `None` where nobody knows what was sent.
    pub integrity: Option<Verdict>,
    /// Messages that were not acked.
    pub failed: u64,
    /// Times that messages were gone before they were seen.
    pub gaps: u64,
    /// The first thing that went wrong.
    pub error: Option<Error>,
}

impl Recorder {
    /// Before anything happens. `integrity`: where it is known what is sent.
    #[must_use]
    pub fn new(warm_up: Duration, counting: Counting, integrity: Option<Integrity>) -> Self {
        let state = State {
            warm_up,
            counting,
            integrity,
            phases: [PhaseCounts::default(); 2],
            publish: Latencies::new(),
            delay: Latencies::new(),
            e2e: Latencies::new(),
            window: Latencies::new(),
            row: Row { seconds: row_seconds(0.0), ..Row::default() },
            rows: Vec::new(),
            received: 0,
            failed: 0,
            gaps: 0,
            error: None,
        };
        Self { start: OnceLock::new(), halt: CancellationToken::new(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) {
        self.start.get_or_init(Instant::now);
    }

    /// When it began; now, where it did not.
    pub(super) fn start(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    /// How long it runs.
    pub fn elapsed(&self) -> Duration {
        self.start.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    pub(super) fn sent(&self, producer: u32, intended: Duration, delay: Duration) {
        let mut state = self.lock();
        if let Some(integrity) = &mut state.integrity {
            integrity.sent(producer);
        }
        if intended >= state.warm_up {
            state.delay.record(delay);
        }
    }

    pub(super) fn acked(&self, intended: Duration, bytes: usize) {
        let now = self.elapsed();
        self.lock().acked(now, intended, bytes);
    }

    /// Counts a message that was not acked; ends the run where that will happen to all of them, or happened too often.
    pub(super) fn not_acked(&self, stamp: &Stamp, may_be_written: bool, error: Option<&Error>) {
        let mut state = self.lock();
        let remembered = state
            .integrity
            .as_mut()
            .is_none_or(|integrity| integrity.not_acked(stamp.producer, stamp.number, may_be_written));
        let Some(error) = error else { return };
        state.failed += 1;
        state.row.failed += 1;
        let hopeless = matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::Unauthorized
                | ErrorKind::Closed
                | ErrorKind::Corrupt
                | ErrorKind::Invalid
                | ErrorKind::Unsupported
        );
        state.error.get_or_insert_with(|| error.clone());
        if hopeless || !remembered || state.failed >= MOST_FAILURES {
            self.halt.cancel();
        }
    }

    /// Messages came: the stamp and the size of each.
    pub(super) fn came(&self, messages: impl IntoIterator<Item = (Option<Stamp>, usize)>) {
        let now = self.elapsed();
        let mut state = self.lock();
        for (stamp, bytes) in messages {
            state.came(now, stamp, bytes);
        }
    }

    pub(super) fn gap(&self) {
        self.lock().gaps += 1;
    }

    pub(super) fn broken(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.halt.cancel();
    }

    /// Whether it makes no sense to go on.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halt.is_cancelled()
    }

    pub(super) fn halt(&self) -> &CancellationToken {
        &self.halt
    }

    /// Whether everything came that was sent. Never so where nobody knows what was.
    pub(super) fn is_complete(&self) -> bool {
        self.lock().integrity.as_ref().is_some_and(|integrity| integrity.missing() == 0)
    }

    pub(super) fn received(&self) -> u64 {
        self.lock().received
    }

    /// How many messages are done, for progress.
    #[must_use]
    pub fn done(&self) -> u64 {
        let state = self.lock();
        match state.counting {
            Counting::Acked => state.phases.iter().map(|phase| phase.acked).sum(),
            Counting::Arrived | Counting::Drained => state.received,
        }
    }

    /// What it came to. `intended`: messages a second and how many seconds were planned without warm-up.
    #[must_use]
    pub fn measured(&self, intended: Option<(f64, f64)>) -> Measured {
        let now = self.elapsed();
        let mut state = self.lock();
        state.roll(now);
        state.measured(intended)
    }
}

/// How long a row is that begins then: at the start something may happen in less than a second.
fn row_seconds(start: f64) -> f64 {
    if start < 10.0 - 1e-9 { 0.1 } else { 1.0 }
}

impl State {
    fn phase(&mut self, intended: Duration) -> &mut PhaseCounts {
        &mut self.phases[usize::from(intended >= self.warm_up)]
    }

    /// Ends the rows whose time is over.
    fn roll(&mut self, now: Duration) {
        let now = figures::seconds(now);
        // Rows of a tenth do not add up exactly.
        while now >= self.row.start + self.row.seconds {
            let start = ((self.row.start + self.row.seconds) * 10.0).round() / 10.0;
            let next = Row { start, seconds: row_seconds(start), ..Row::default() };
            let mut row = std::mem::replace(&mut self.row, next);
            row.p50 = self.window.percentile(50.0).map(figures::seconds);
            row.p99 = self.window.percentile(99.0).map(figures::seconds);
            if self.window.count() > 0 {
                self.window.clear();
            }
            self.rows.push(row);
        }
    }

    fn acked(&mut self, now: Duration, intended: Duration, bytes: usize) {
        self.roll(now);
        self.row.acked += 1;
        let by_ack = self.counting == Counting::Acked;
        let phase = self.phase(intended);
        phase.acked += 1;
        if by_ack {
            phase.bytes += bytes as u64;
            phase.last = phase.last.max(now);
            self.row.bytes += bytes as u64;
            self.window.record(now.saturating_sub(intended));
        }
        if intended >= self.warm_up {
            self.publish.record(now.saturating_sub(intended));
        }
    }

    fn came(&mut self, now: Duration, stamp: Option<Stamp>, bytes: usize) {
        self.roll(now);
        self.received += 1;
        self.row.received += 1;
        self.row.bytes += bytes as u64;
        let timed = self.counting != Counting::Drained;
        let ours = match &mut self.integrity {
            // Of what others sent one knows nothing but that it came.
            None => None,
            Some(integrity) => {
                if !integrity.received(stamp.as_ref()) {
                    return;
                }
                stamp.filter(|_| timed)
            }
        };
        let intended = ours.map_or(now, |stamp| stamp.intended);
        let phase = self.phase(intended);
        phase.received += 1;
        phase.bytes += bytes as u64;
        phase.last = phase.last.max(now);
        if ours.is_some() {
            self.window.record(now.saturating_sub(intended));
            if intended >= self.warm_up {
                self.e2e.record(now.saturating_sub(intended));
            }
        }
    }

    fn measured(&mut self, intended: Option<(f64, f64)>) -> Measured {
        const GRACE: Duration = Duration::from_millis(100);
        let run = self.phases[1];
        let took = figures::seconds(run.last.saturating_sub(self.warm_up));
        let (messages, latency) = if self.counting == Counting::Acked {
            (run.acked, &self.publish)
        } else {
            (run.received, &self.e2e)
        };
        let grace = latency.percentile(50.0).unwrap_or_default().max(GRACE);
        let rates = Rates::of(messages, run.bytes, took, intended, figures::seconds(grace));
        let phase = |name: &str, seconds: Duration, counts: &PhaseCounts| Phase {
            name: name.to_owned(),
            seconds: figures::seconds(seconds),
            acked: counts.acked,
            received: counts.received,
        };
        let mut phases = Vec::new();
        if !self.warm_up.is_zero() {
            phases.push(phase(
                "warm-up",
                self.warm_up.min(self.phases[0].last.max(run.last)),
                &self.phases[0],
            ));
        }
        phases.push(phase("run", run.last.saturating_sub(self.warm_up), &run));
        let mut series = std::mem::take(&mut self.rows);
        let busy = |row: &Row| row.acked + row.received + row.failed > 0;
        if busy(&self.row) {
            let mut row = std::mem::take(&mut self.row);
            // It ends with what was the last, and not with a time that was not over.
            let last = figures::seconds(run.last.max(self.phases[0].last)) - row.start;
            row.seconds = last.clamp(0.001, row.seconds);
            row.p50 = self.window.percentile(50.0).map(figures::seconds);
            row.p99 = self.window.percentile(99.0).map(figures::seconds);
            series.push(row);
        }
        // Waiting for the last to come is no part of the picture.
        series.truncate(series.iter().rposition(busy).map_or(0, |last| last + 1));
        Measured {
            phases,
            rates,
            series,
            latency: LatencySet {
                publish: Latency::of(&self.publish),
                delay: Latency::of(&self.delay),
                e2e: Latency::of(&self.e2e),
            },
            integrity: self.integrity.as_ref().map(Integrity::verdict),
            failed: self.failed,
            gaps: self.gaps,
            error: self.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn stamp(number: u64, intended: Duration) -> Stamp {
        Stamp { run: 1, producer: 0, key: None, number, intended }
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_warm_up_does_not_count() {
        let recorder = Recorder::new(at(100), Counting::Arrived, Some(Integrity::new(1, 1, 0).unwrap()));
        let mut state = recorder.lock();
        for number in 0..20 {
            state.integrity.as_mut().unwrap().sent(0);
            let intended = at(number * 10);
            state.acked(intended + at(1), intended, 100);
            state.came(intended + at(3), Some(stamp(number, intended)), 100);
        }
        let measured = state.measured(None);
        assert_eq!((measured.phases[0].received, measured.phases[1].received), (10, 10));
        let e2e = measured.latency.e2e.unwrap();
        assert!(e2e.count == 10 && (e2e.max / 0.003 - 1.0).abs() < 0.01, "{e2e:?}");
        // Ten messages from 100 ms to 193 ms.
        let rates = measured.rates.unwrap();
        assert!((rates.throughput - 10.0 / 0.093).abs() < 0.01, "{rates:?}");
        assert!((rates.bytes - 1000.0 / 0.093).abs() < 1.0);
        assert_eq!(measured.integrity.unwrap().lost, 0);
    }

    #[test]
    fn rows_are_tenths_at_first_and_seconds_later_and_hold_everything() {
        let recorder = Recorder::new(Duration::ZERO, Counting::Acked, None);
        let mut state = recorder.lock();
        for millis in (0..12_500).step_by(5) {
            state.acked(at(millis), at(millis), 1);
        }
        state.roll(at(20_000));
        let rows = state.measured(None).series;
        assert_eq!(rows.len(), 103);
        assert!((rows[99].seconds - 0.1).abs() < 1e-9 && (rows[100].seconds - 1.0).abs() < 1e-9);
        assert!((rows[100].start - 10.0).abs() < 1e-9 && (rows[102].start - 12.0).abs() < 1e-9);
        assert_eq!(rows.iter().map(|row| row.acked).sum::<u64>(), 2_500);
        assert_eq!((rows[0].acked, rows[101].acked), (20, 200));
    }

    #[test]
    fn what_is_hopeless_ends_the_run_and_what_may_pass_does_not() {
        let recorder = Recorder::new(Duration::ZERO, Counting::Acked, None);
        let busy = Error::new(ErrorKind::Throttled, "busy");
        recorder.not_acked(&stamp(0, at(0)), false, Some(&busy));
        assert!(!recorder.is_halted());
        recorder.not_acked(&stamp(1, at(0)), false, Some(&Error::new(ErrorKind::NotFound, "gone")));
        assert!(recorder.is_halted());
        let measured = recorder.measured(None);
        assert_eq!((measured.failed, measured.error.unwrap().kind()), (2, ErrorKind::Throttled));
        assert!(measured.rates.is_none() && measured.latency.publish.is_none());
    }
}
