//! What is checked: something that processes, and something that runs jobs.
//!
//! The processor and the worker pool are the subjects that matter; doubles, which break one promise each, are others.
//! Not here: what is checked (the files of the groups), who runs it (`suite.rs`).

use crate::{
    Attempt, BoxError, DrainReport, Handler, HandlerOptions, JobFailed, PoolSettings, PoolSnapshot,
    Processor, ProcessorSettings, Router, ShutdownReport, Snapshot, SubmitError, Unknown, WorkerPool,
};
use futures::future::BoxFuture;
use ropeway_broker::{Answer, Clock, MessageBroker, Result, Subscription, Topic};
use std::{
    fmt::{self, Debug},
    sync::Arc,
    time::Duration,
};

/// Something that processes what comes over the bus, and runs jobs.
pub trait Subject: Debug + Send + Sync + 'static {
    /// Starts to process.
    fn process(&self, task: Task) -> Answer<Result<Box<dyn Processing>>>;

    /// Starts a pool for jobs.
    ///
    /// # Errors
    /// `Invalid` that names the setting.
    fn pool(&self, jobs: Jobs) -> Result<Box<dyn Pool>>;
}

/// What is to be processed, and how.
#[derive(Clone, Debug)]
pub struct Task {
    /// Where it comes from.
    pub broker: Arc<dyn MessageBroker>,
    /// What is consumed.
    pub subscription: Subscription,
    /// The handlers, in the order of registration.
    pub routes: Vec<Route>,
    /// What becomes of events that no handler takes.
    pub unknown: Unknown,
    /// How.
    pub settings: ProcessorSettings,
    /// Where dead letters go, where that was named.
    pub dead_letters: Option<Topic>,
    /// The clock of the dead letters.
    pub clock: Arc<dyn Clock>,
}

/// A handler and what it is registered for.
#[derive(Clone)]
pub struct Route {
    /// The pattern of topics.
    pub topics: String,
    /// The pattern of types.
    pub types: String,
    /// Its name and its policy.
    pub options: HandlerOptions,
    /// What handles.
    pub handler: Arc<dyn Handler>,
}

impl Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({} / {}, {:?})", self.topics, self.types, self.options)
    }
}

/// A subject that processes. Dropping it drops everything at once.
pub trait Processing: Debug + Send + Sync {
    /// What it has done and does right now.
    fn snapshot(&self) -> Snapshot;

    /// Ends within the deadline.
    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, ShutdownReport>;

    /// Drops everything at once.
    fn abort(&self);
}

/// One attempt of a job, as often as it has to be run.
pub type Job = Arc<dyn Fn(Attempt) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// Who is told of failed attempts of jobs.
pub type OnError = Arc<dyn Fn(&JobFailed<String>) + Send + Sync>;

/// How a pool is to run jobs.
pub struct Jobs {
    /// How.
    pub settings: PoolSettings,
    /// Who is told of failed attempts.
    pub on_error: OnError,
}

impl Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jobs({:?})", self.settings)
    }
}

/// A subject that runs jobs.
pub trait Pool: Debug + Send + Sync {
    /// Takes a job in, and waits while the buffer is full.
    fn submit(&self, key: Option<String>, job: Job) -> BoxFuture<'_, Result<(), SubmitError>>;

    /// Takes a job in, if there is room for it now.
    ///
    /// # Errors
    /// `Full`, `Closed`.
    fn try_submit(&self, key: Option<String>, job: Job) -> Result<(), SubmitError>;

    /// What it has done and does right now.
    fn snapshot(&self) -> PoolSnapshot;

    /// Takes nothing more in, and finishes what is there within the deadline.
    fn drain(&self, deadline: Duration) -> BoxFuture<'_, DrainReport>;

    /// Drops all jobs at once.
    fn stop(&self);
}

/// The processor and the worker pool of this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Original;

impl Subject for Original {
    fn process(&self, task: Task) -> Answer<Result<Box<dyn Processing>>> {
        let router = task.routes.into_iter().fold(Router::new().unknown(task.unknown), |router, route| {
            router.register(&route.topics, &route.types, route.options, route.handler)
        });
        let mut builder = Processor::builder(task.broker, task.subscription)
            .router(router)
            .settings(task.settings)
            .clock(task.clock);
        if let Some(topic) = task.dead_letters {
            builder = builder.dead_letter_topic(topic);
        }
        Box::pin(async move {
            let processor: Box<dyn Processing> = Box::new(builder.start().await?);
            Ok(processor)
        })
    }

    fn pool(&self, jobs: Jobs) -> Result<Box<dyn Pool>> {
        let hook = jobs.on_error;
        let builder = WorkerPool::builder("conformance").settings(jobs.settings);
        Ok(Box::new(builder.on_error(move |failed| hook(failed)).start()?))
    }
}

impl Processing for Processor {
    fn snapshot(&self) -> Snapshot {
        Self::snapshot(self)
    }

    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, ShutdownReport> {
        Box::pin(Self::shutdown(self, deadline))
    }

    fn abort(&self) {
        Self::abort(self);
    }
}

impl Pool for WorkerPool<String> {
    fn submit(&self, key: Option<String>, job: Job) -> BoxFuture<'_, Result<(), SubmitError>> {
        Box::pin(Self::submit(self, key, move |attempt| job(attempt)))
    }

    fn try_submit(&self, key: Option<String>, job: Job) -> Result<(), SubmitError> {
        Self::try_submit(self, key, move |attempt| job(attempt))
    }

    fn snapshot(&self) -> PoolSnapshot {
        Self::snapshot(self)
    }

    fn drain(&self, deadline: Duration) -> BoxFuture<'_, DrainReport> {
        Box::pin(Self::drain(self, deadline))
    }

    fn stop(&self) {
        Self::stop(self);
    }
}
