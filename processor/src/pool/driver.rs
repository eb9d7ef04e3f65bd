//! The one task that drives a stand-alone pool.
//!
//! Not here: the handle and submitting (`worker_pool.rs`), workers and lanes (`core.rs`).

use super::{core::Core, settings::PoolSettings, workers::Execute};
use crate::{
    BoxError, Failure, FailureClass,
    counter::Counter,
    durations::Durations,
    lanes::Ticket,
    layer::{Cut, Limits, Reins, Watch, catch_panic},
    metrics::PoolMetrics,
    retry::{After, Backoff},
};
use futures::future::BoxFuture;
use std::{
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

/// What a job is told about its attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// Cancelled when the attempt should end: it took too long, or the pool stops.
    pub cancellation: CancellationToken,
}

/// A job, as often as it has to be run.
pub(super) type Run = Arc<dyn Fn(Attempt) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// An attempt of a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailed<K> {
    /// The key of the job.
    pub key: Option<K>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// What kind of failure: `Error`, `Panic` or `Timeout`.
    pub class: FailureClass,
    /// What went wrong, in one line.
    pub why: String,
    /// When it is tried again; `None`: never, that was the last attempt.
    pub retry_in: Option<Duration>,
}

/// What is told of every failed attempt.
pub(super) type Hook<K> = Arc<dyn Fn(&JobFailed<K>) + Send + Sync>;

/// What a drained pool leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Jobs that ended well since the drain began.
    pub finished: u64,
    /// Jobs that failed for the last time since then.
    pub failed: u64,
    /// Jobs that were dropped at the deadline, half-way or not started.
    pub dropped: u64,
}

/// A job that was taken in.
pub(super) struct Taken<K> {
    pub(super) key: Option<K>,
    pub(super) run: Run,
    pub(super) since: Instant,
    pub(super) attempt: u32,
    /// Its place in the buffer, given back when it is over.
    pub(super) _place: OwnedSemaphorePermit,
}

/// What a pool has done and does.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) finished: Counter,
    pub(super) failed: Counter,
    pub(super) retried: Counter,
    pub(super) in_pool: Counter,
    pub(super) running: Counter,
    pub(super) waiting: Counter,
    pub(super) keys: Counter,
}

/// To be drained by then.
pub(super) struct Drain {
    pub(super) deadline: Duration,
    pub(super) reply: oneshot::Sender<DrainReport>,
}

pub(super) struct Driver<K> {
    pub(super) name: Arc<str>,
    pub(super) settings: PoolSettings,
    pub(super) core: Core<K, Taken<K>, Jobs>,
    pub(super) inbox: mpsc::Receiver<Taken<K>>,
    pub(super) drains: mpsc::Receiver<Drain>,
    pub(super) hook: Option<Hook<K>>,
    pub(super) counters: Arc<Counters>,
    pub(super) metrics: PoolMetrics,
    pub(super) backoff: Backoff,
    pub(super) reins: Reins,
    pub(super) _all: DropGuard,
}

struct Draining {
    cancel_at: Instant,
    stop_at: Instant,
    before: (u64, u64),
    replies: Vec<oneshot::Sender<DrainReport>>,
}

impl<K: Hash + Eq + Clone + Send + 'static> Driver<K> {
    pub(super) async fn run(mut self) {
        let mut timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        let mut draining: Option<Draining> = None;
        let mut open = true;
        loop {
            let now = Instant::now();
            self.start(now);
            self.core.watch(now);
            self.show();
            if let Some(drain) = &draining {
                if now >= drain.cancel_at && !self.reins.cancel.is_cancelled() {
                    // In this order, so that a job that ends at once is not followed by the next of its key.
                    self.core.hold();
                    self.reins.cancel.cancel();
                }
                if now >= drain.stop_at {
                    self.reins.stop.stop();
                    self.core.poll_all();
                }
                let cancelled = self.reins.cancel.is_cancelled() && self.core.running() == 0;
                if now >= drain.stop_at || cancelled {
                    break;
                }
            }
            if !open && self.core.lanes().len() == 0 {
                break;
            }
            let due = self.due(draining.as_ref());
            if let Some(due) = due {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                Some(drain) = self.drains.recv() => self.begin_drain(drain, &mut draining, now),
                taken = self.inbox.recv(), if open => match taken {
                    Some(taken) => self.core.push(taken.key.clone(), taken),
                    None => open = false,
                },
                (ticket, result) = self.core.finished() => self.ran(ticket, result),
                () = timer.as_mut(), if due.is_some() => {}
            }
            while let Some((ticket, result)) = self.core.try_finished() {
                self.ran(ticket, result);
            }
        }
        self.finish(draining);
    }

    fn due(&self, draining: Option<&Draining>) -> Option<Instant> {
        // Once cancelled nothing is started, so no retry is waited for: its time would come again and again.
        let starts = self.core.has_room() && !self.reins.cancel.is_cancelled();
        let retry = starts.then(|| self.core.lanes().next_due()).flatten();
        let drain = draining
            .map(|drain| if self.reins.cancel.is_cancelled() { drain.stop_at } else { drain.cancel_at });
        [retry, drain, self.core.next_watch()].into_iter().flatten().min()
    }

    fn start(&mut self, now: Instant) {
        if self.reins.cancel.is_cancelled() {
            return;
        }
        while let Some(ticket) = self.core.next(now) {
            let Some(job) = self.core.get_mut(&ticket) else { continue };
            let next = job.next();
            self.core.run(ticket, next, |job| Some(job.next()));
        }
        self.core.send();
    }

    fn ran(&mut self, ticket: Ticket, result: Result<Result<(), Failure>, String>) {
        let result = result.unwrap_or_else(|panic| Err(Failure::new(FailureClass::Panic, panic)));
        let Some(job) = self.core.get_mut(&ticket) else { return };
        let Err(failure) = result else {
            self.counters.finished.inc();
            self.metrics.ok.inc();
            self.core.finish(ticket);
            return;
        };
        if self.reins.cancel.is_cancelled() {
            // It was told to end: that is no failure. It stays, is not started again, and counts as dropped.
            self.core.retry(ticket, Instant::now());
            return;
        }
        let (key, number) = (job.key.clone(), job.attempt);
        let after = self.backoff.after(&self.settings.retry, number, failure.retry_after);
        let retry_in = match after {
            After::Wait(wait) => Some(wait),
            After::Exhausted => None,
        };
        job.attempt = number.saturating_add(1);
        self.tell(&JobFailed { key, attempt: number, class: failure.class, why: failure.why, retry_in });
        if let Some(wait) = retry_in {
            self.counters.retried.inc();
            self.metrics.retried.inc();
            self.core.retry(ticket, Instant::now() + wait);
        } else {
            self.counters.failed.inc();
            self.metrics.failed.inc();
            self.core.finish(ticket);
        }
    }

    /// Tells the hook; without one the log.
    fn tell(&self, failed: &JobFailed<K>) {
        match &self.hook {
            Some(hook) => {
                if catch_unwind(AssertUnwindSafe(|| hook(failed))).is_err() {
                    warn!(pool = &*self.name, "the error hook panicked");
                }
            }
            None => warn!(
                pool = &*self.name, attempt = failed.attempt, class = failed.class.as_str(), retry_in = ?failed.retry_in,
                "a job failed: {}", failed.why
            ),
        }
    }

    fn begin_drain(&mut self, drain: Drain, draining: &mut Option<Draining>, now: Instant) {
        self.inbox.close();
        let stop_at = now + drain.deadline;
        let cancel_at = stop_at - self.settings.cancel_grace.min(drain.deadline / 2);
        let counters = &self.counters;
        let draining = draining.get_or_insert_with(|| Draining {
            cancel_at,
            stop_at,
            before: (counters.finished.get(), counters.failed.get()),
            replies: Vec::new(),
        });
        draining.cancel_at = draining.cancel_at.min(cancel_at);
        draining.stop_at = draining.stop_at.min(stop_at);
        draining.replies.push(drain.reply);
    }

    fn finish(mut self, draining: Option<Draining>) {
        while let Ok(taken) = self.inbox.try_recv() {
            self.core.push(taken.key.clone(), taken);
        }
        self.show();
        let dropped = self.core.lanes().len() as u64;
        if dropped > 0 {
            warn!(pool = &*self.name, dropped, "jobs were not finished by the deadline and are dropped");
        }
        let Some(draining) = draining else { return };
        let report = DrainReport {
            finished: self.counters.finished.get() - draining.before.0,
            failed: self.counters.failed.get() - draining.before.1,
            dropped,
        };
        for reply in draining.replies {
            // Nobody has to wait for it.
            let _ = reply.send(report);
        }
    }

    fn show(&mut self) {
        self.core.show();
        let lanes = self.core.lanes();
        self.counters.in_pool.set(lanes.len());
        self.counters.running.set(self.core.running());
        self.counters.waiting.set(lanes.waiting());
        self.counters.keys.set(lanes.live());
    }
}

impl<K> Taken<K> {
    /// Its next attempt.
    fn next(&self) -> Next {
        Next { run: self.run.clone(), number: self.attempt, first: (self.attempt == 1).then_some(self.since) }
    }
}

/// An attempt of a job, as a worker gets it.
pub(super) struct Next {
    run: Run,
    number: u32,
    /// Where it is the first one: since when it waits for it.
    first: Option<Instant>,
}

/// How a pool's workers run jobs: inside the same layers as a handler's attempt.
pub(super) struct Jobs {
    pub(super) reins: Reins,
    pub(super) timeout: Option<Duration>,
    pub(super) wait: Durations,
}

impl Execute for Jobs {
    type Job = Next;
    type Output = Result<(), Failure>;
    type Kept = ();

    fn limit(&self) -> Option<Duration> {
        self.timeout
    }

    async fn execute(&self, next: Next, now: Instant, watch: &Watch, (): &mut ()) -> Result<(), Failure> {
        let Next { run, number, first } = next;
        if let Some(since) = first {
            self.wait.observe(now.duration_since(since));
        }
        let cancel = self.reins.cancel.child_token();
        let attempt = Attempt { number, cancellation: cancel.clone() };
        let limits = Limits { stop: &self.reins.stop, watch, timeout: self.timeout, started: now, now };
        match catch_panic(limits.run(|| run(attempt), || cancel.cancel())).await {
            Ok(Ok(result)) => result.map_err(|error| Failure::from_error(&error)),
            Ok(Err(Cut::Elapsed(limit))) => {
                Err(Failure::new(FailureClass::Timeout, format!("the attempt took longer than {limit:?}")))
            }
            // The pool ends: nobody looks at this.
            Ok(Err(Cut::Stopped)) => Err(Failure::new(FailureClass::Timeout, "the pool was stopped")),
            Err(panic) => Err(Failure::new(FailureClass::Panic, panic)),
        }
    }

    fn goes_on(result: &Result<(), Failure>) -> bool {
        result.is_ok()
    }
}
