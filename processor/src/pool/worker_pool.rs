//! A bounded pool of workers for jobs of any kind, in the order of their keys.
//!
//! Here is the handle. Not here: the task behind it (`driver.rs`), lanes and workers (`core.rs`), the settings (`settings.rs`).

use super::{
    core::Core,
    driver::{Attempt, Counters, Drain, DrainReport, Driver, Hook, JobFailed, Jobs, Run, Taken},
    settings::PoolSettings,
};
use crate::{BoxError, Metrics, layer::Reins, retry::Backoff, settings::LONGEST_DRAIN};
use ropeway_broker::Result;
use std::{fmt, future::Future, hash::Hash, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot},
    task::AbortHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Runs jobs: so many at a time, those of one key one after the other in the order they were submitted, failed ones again by policy.
///
/// It lives in memory: what is not finished is lost with the process. What must not be lost belongs on the bus.
/// Dropping it, or [`Self::stop`], drops all jobs at once: [`Self::drain`] first.
///
/// ```
/// use ropeway_processor::{BoxError, PoolSettings, WorkerPool};
/// use std::time::Duration;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let pool = WorkerPool::<String>::builder("mail").settings(PoolSettings { buffer: 100, ..Default::default() }).start()?;
/// for n in 0..10 {
///     pool.submit(Some(format!("user-{}", n % 3)), move |attempt| async move {
///         println!("mail {n}, attempt {}", attempt.number);
///         Ok::<_, BoxError>(())
///     }).await?;
/// }
/// assert_eq!(pool.drain(Duration::from_secs(10)).await.finished, 10);
/// # Ok::<_, BoxError>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct WorkerPool<K> {
    jobs: mpsc::Sender<Taken<K>>,
    drains: mpsc::Sender<Drain>,
    room: Arc<Semaphore>,
    task: AbortHandle,
    counters: Arc<Counters>,
}

/// What a pool has done since its start and does right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// Jobs that ended well.
    pub finished: u64,
    /// Jobs that failed for the last time.
    pub failed: u64,
    /// Failed attempts that were or will be repeated.
    pub retried: u64,
    /// Jobs taken in and not over.
    pub in_pool: u64,
    /// Of them, those that run.
    pub running: u64,
    /// Of them, those that wait for their next attempt.
    pub waiting: u64,
    /// Keys with jobs, and jobs without key.
    pub keys: u64,
}

/// A job was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The buffer is full: wait with [`WorkerPool::submit`], or try again.
    Full,
    /// The pool is drained or stopped.
    Closed,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the pool's buffer is full; wait with `submit`, or try again",
            Self::Closed => "the pool is drained or stopped and takes no jobs",
        })
    }
}

impl std::error::Error for SubmitError {}

impl<K: Hash + Eq + Clone + Send + 'static> WorkerPool<K> {
    /// Starts to describe a pool. The name is its label in metrics and logs.
    pub fn builder(name: &str) -> WorkerPoolBuilder<K> {
        WorkerPoolBuilder { name: name.into(), settings: PoolSettings::default(), metrics: None, hook: None }
    }

    /// Takes a job in, and waits while the buffer is full. The job is called once for each attempt; without key it has no order.
    ///
    /// # Errors
    /// `Closed`.
    ///
    /// # Cancel safety
    /// Dropped before it answers: the job was not taken in.
    pub async fn submit<F, U, E>(&self, key: impl Into<Option<K>>, job: F) -> Result<(), SubmitError>
    where
        F: Fn(Attempt) -> U + Send + Sync + 'static,
        U: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let place = self.room.clone().acquire_owned().await.map_err(|_| SubmitError::Closed)?;
        self.take_in(key.into(), job, place)
    }

    /// Takes a job in, if there is room for it now.
    ///
    /// # Errors
    /// `Full`, `Closed`.
    pub fn try_submit<F, U, E>(&self, key: impl Into<Option<K>>, job: F) -> Result<(), SubmitError>
    where
        F: Fn(Attempt) -> U + Send + Sync + 'static,
        U: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let place = self.room.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => SubmitError::Full,
            TryAcquireError::Closed => SubmitError::Closed,
        })?;
        self.take_in(key.into(), job, place)
    }

    fn take_in<F, U, E>(&self, key: Option<K>, job: F, place: OwnedSemaphorePermit) -> Result<(), SubmitError>
    where
        F: Fn(Attempt) -> U + Send + Sync + 'static,
        U: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run: Run = Arc::new(move |attempt| {
            let work = job(attempt);
            Box::pin(async move { work.await.map_err(Into::into) })
        });
        let taken = Taken { key, run, since: Instant::now(), attempt: 1, _place: place };
        // There is a place in the channel for every place in the buffer.
        self.jobs.try_send(taken).map_err(|_| SubmitError::Closed)
    }

    /// What it has done and does right now. Cheap; figures may be a few jobs apart.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        let counters = &self.counters;
        PoolSnapshot {
            finished: counters.finished.get(),
            failed: counters.failed.get(),
            retried: counters.retried.get(),
            in_pool: counters.in_pool.get(),
            running: counters.running.get(),
            waiting: counters.waiting.get(),
            keys: counters.keys.get(),
        }
    }

    /// Takes nothing more in, finishes what is there, retries included, and ends within the deadline. Jobs are cancelled `cancel_grace`
    /// before it, and those that are not over at it are dropped and counted. Twice is once, with the nearer deadline. A deadline is a year
    /// at most.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing back.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.room.close();
        let (reply, report) = oneshot::channel();
        let deadline = deadline.min(LONGEST_DRAIN);
        if self.drains.send(Drain { deadline, reply }).await.is_err() {
            return DrainReport::default();
        }
        report.await.unwrap_or_default()
    }

    /// Drops all jobs at once.
    pub fn stop(&self) {
        self.room.close();
        self.task.abort();
    }
}

impl<K> Drop for WorkerPool<K> {
    fn drop(&mut self) {
        self.room.close();
        self.task.abort();
    }
}

/// Describes a [`WorkerPool`].
#[must_use = "a pool runs once it is started"]
pub struct WorkerPoolBuilder<K> {
    name: Arc<str>,
    settings: PoolSettings,
    metrics: Option<Metrics>,
    hook: Option<Hook<K>>,
}

impl<K> fmt::Debug for WorkerPoolBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPoolBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + Send + 'static> WorkerPoolBuilder<K> {
    /// All settings at once.
    pub fn settings(mut self, settings: PoolSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Where it counts. Left out: nowhere.
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Is told of every failed attempt. It holds the pool up while it runs, so it should be quick; left out, failures are logged.
    pub fn on_error(mut self, hook: impl Fn(&JobFailed<K>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Starts it, on the tokio runtime this is called in.
    ///
    /// # Errors
    /// `Invalid` that names the setting.
    pub fn start(self) -> Result<WorkerPool<K>> {
        self.settings.check()?;
        let metrics = self.metrics.map_or_else(Metrics::unregistered, Ok)?.of_pool(&self.name);
        let (jobs, inbox) = mpsc::channel(self.settings.buffer);
        let (drains, asked) = mpsc::channel(4);
        let counters = Arc::new(Counters::default());
        let cancel = CancellationToken::new();
        let room = Arc::new(Semaphore::new(self.settings.buffer));
        let reins = Reins { cancel: cancel.clone(), ..Reins::default() };
        let running =
            Jobs { reins: reins.clone(), timeout: self.settings.attempt_timeout, wait: metrics.wait.clone() };
        let driver = Driver {
            name: self.name,
            core: Core::new(running, self.settings.concurrency, &metrics),
            inbox,
            drains: asked,
            hook: self.hook,
            counters: counters.clone(),
            metrics,
            backoff: Backoff::new(self.settings.seed),
            settings: self.settings,
            reins,
            _all: cancel.drop_guard(),
        };
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(WorkerPool { jobs, drains, room, task, counters })
    }
}
