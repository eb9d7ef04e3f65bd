//! A subject that is the processor and the worker pool but for one twist.
//!
//! Not here: the twists (the files beside this one), the broker that is twisted under the processor (`bus.rs`).

use super::bus::{BentBroker, Letter, Line};
use futures::future::BoxFuture;
use ropeway_broker::{Answer, Error, Event as BusEvent, Message, Outcomes, Owned, Result};
use ropeway_processor::{
    BoxError, Context, DrainReport, Event, Handler, JobFailed, PoolSnapshot, ShutdownReport, Snapshot,
    SubmitError, Verdict,
    conformance::{Job, Jobs, Original, Pool, Processing, Subject, Task},
};
use std::{fmt::Debug, sync::Arc, time::Duration};

/// What a handler answers.
pub(crate) type Acted = Result<Verdict, BoxError>;

/// What becomes of an event of the bus.
pub(crate) enum Passed {
    Now(BusEvent),
    /// That much later, and everything after it too.
    Later(Duration, BusEvent),
    Never,
}

/// One difference from a correct processor or pool. Everything left out is correct.
pub(crate) trait Twist: Debug + Send + Sync + 'static {
    /// How the processor is set up.
    fn task(&self, _: &mut Task) {}

    /// How a handler is run.
    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        Box::pin(async move { handler.handle(event, cx).await })
    }

    /// What a handler publishes.
    fn publish(&self, message: Message) -> Message {
        message
    }

    /// What the processor hears of the bus.
    fn deliver(&self, _: &Line, event: BusEvent) -> Passed {
        Passed::Now(event)
    }

    /// How a dead letter is written.
    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        line.forward(letter)
    }

    /// How a partition is given up.
    fn give_up(&self, line: &Line, of: &Owned) {
        line.control.give_up(of);
    }

    /// What it says of itself.
    fn snapshot(&self, snapshot: Snapshot) -> Snapshot {
        snapshot
    }

    /// How it is shut down.
    fn shutdown<'a>(
        &'a self,
        processing: &'a dyn Processing,
        deadline: Duration,
    ) -> BoxFuture<'a, ShutdownReport> {
        processing.shutdown(deadline)
    }

    /// How it is aborted.
    fn abort(&self, _: &[Arc<Line>], processing: &dyn Processing) {
        processing.abort();
    }

    /// How a pool is set up.
    fn jobs(&self, _: &mut Jobs) {}

    /// How a job is taken in.
    fn job(&self, key: Option<String>, job: Job) -> (Option<String>, Job) {
        (key, job)
    }

    /// How a pool is drained.
    fn drain<'a>(&'a self, pool: &'a dyn Pool, deadline: Duration) -> BoxFuture<'a, DrainReport> {
        pool.drain(deadline)
    }

    /// How a pool is stopped.
    fn stop(&self, pool: &dyn Pool) {
        pool.stop();
    }
}

/// A correct subject but for its twist.
#[derive(Debug)]
pub(crate) struct Bent(pub(crate) Arc<dyn Twist>);

impl Subject for Bent {
    fn process(&self, mut task: Task) -> Answer<Result<Box<dyn Processing>>> {
        let twist = self.0.clone();
        twist.task(&mut task);
        for route in &mut task.routes {
            route.handler = Arc::new(BentHandler { handler: route.handler.clone(), twist: twist.clone() });
        }
        let broker = Arc::new(BentBroker::new(task.broker, twist.clone()));
        task.broker = broker.clone();
        Box::pin(async move {
            let processing = Original.process(task).await?;
            let bent: Box<dyn Processing> = Box::new(BentProcessing { processing, broker, twist });
            Ok::<_, Error>(bent)
        })
    }

    fn pool(&self, mut jobs: Jobs) -> Result<Box<dyn Pool>> {
        self.0.jobs(&mut jobs);
        Ok(Box::new(BentPool { pool: Original.pool(jobs)?, twist: self.0.clone() }))
    }
}

struct BentHandler {
    handler: Arc<dyn Handler>,
    twist: Arc<dyn Twist>,
}

impl Handler for BentHandler {
    fn handle(&self, event: Event, cx: Context) -> BoxFuture<'_, Acted> {
        self.twist.clone().handle(self.handler.clone(), event, cx)
    }
}

#[derive(Debug)]
struct BentProcessing {
    processing: Box<dyn Processing>,
    broker: Arc<BentBroker>,
    twist: Arc<dyn Twist>,
}

impl Processing for BentProcessing {
    fn snapshot(&self) -> Snapshot {
        self.twist.snapshot(self.processing.snapshot())
    }

    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, ShutdownReport> {
        self.twist.shutdown(&*self.processing, deadline)
    }

    fn abort(&self) {
        self.twist.abort(&self.broker.lines(), &*self.processing);
    }
}

#[derive(Debug)]
struct BentPool {
    pool: Box<dyn Pool>,
    twist: Arc<dyn Twist>,
}

impl Pool for BentPool {
    fn submit(&self, key: Option<String>, job: Job) -> BoxFuture<'_, Result<(), SubmitError>> {
        let (key, job) = self.twist.job(key, job);
        self.pool.submit(key, job)
    }

    fn try_submit(&self, key: Option<String>, job: Job) -> Result<(), SubmitError> {
        let (key, job) = self.twist.job(key, job);
        self.pool.try_submit(key, job)
    }

    fn snapshot(&self) -> PoolSnapshot {
        self.pool.snapshot()
    }

    fn drain(&self, deadline: Duration) -> BoxFuture<'_, DrainReport> {
        self.twist.drain(&*self.pool, deadline)
    }

    fn stop(&self) {
        self.twist.stop(&*self.pool);
    }
}

/// Told of a failed job under another key.
pub(crate) fn renamed(failed: &JobFailed<String>, key: impl FnOnce(&str) -> String) -> JobFailed<String> {
    JobFailed { key: failed.key.as_deref().map(key), ..failed.clone() }
}
