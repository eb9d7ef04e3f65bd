//! Twists of the worker pool.
//!
//! Not here: the processor (the other files).

use super::twist::{Twist, renamed};
use futures::{FutureExt, future::BoxFuture};
use ropeway_processor::{
    DrainReport, JobFailed,
    conformance::{Job, Jobs, Pool},
};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A difference in how the pool is set up.
#[derive(Debug)]
pub(crate) struct PoolSetup(pub(crate) fn(&mut Jobs));

impl Twist for PoolSetup {
    fn jobs(&self, jobs: &mut Jobs) {
        (self.0)(jobs);
    }
}

pub(crate) fn larger_buffer(jobs: &mut Jobs) {
    jobs.settings.buffer += 1;
}

pub(crate) fn more_workers(jobs: &mut Jobs) {
    jobs.settings.concurrency *= 2;
}

pub(crate) fn waits_alike(jobs: &mut Jobs) {
    jobs.settings.retry.factor = 1.0;
}

/// Every job has its own lane.
#[derive(Debug, Default)]
pub(crate) struct NoLanes(AtomicUsize);

impl Twist for NoLanes {
    /// Otherwise right: the key that is told is the job's.
    fn jobs(&self, jobs: &mut Jobs) {
        let told = jobs.on_error.clone();
        let right = |key: &str| key.rsplit_once('#').map_or(key, |(key, _)| key).to_owned();
        jobs.on_error = Arc::new(move |failed: &JobFailed<String>| told(&renamed(failed, right)));
    }

    fn job(&self, key: Option<String>, job: Job) -> (Option<String>, Job) {
        (key.map(|key| format!("{key}#{}", self.0.fetch_add(1, Ordering::Relaxed))), job)
    }
}

/// A panic is as good as done.
#[derive(Debug)]
pub(crate) struct PanicEndsWell;

impl Twist for PanicEndsWell {
    fn job(&self, key: Option<String>, job: Job) -> (Option<String>, Job) {
        let bent: Job = Arc::new(move |attempt| {
            let job = job.clone();
            Box::pin(async move { AssertUnwindSafe(job(attempt)).catch_unwind().await.unwrap_or(Ok(())) })
        });
        (key, bent)
    }
}

/// It waits no longer than 3 s, whatever it was given.
#[derive(Debug)]
pub(crate) struct DrainsBriefly;

impl Twist for DrainsBriefly {
    fn drain<'a>(&'a self, pool: &'a dyn Pool, deadline: Duration) -> BoxFuture<'a, DrainReport> {
        pool.drain(deadline.min(Duration::from_secs(3)))
    }
}

/// It ends late when it could not finish.
#[derive(Debug)]
pub(crate) struct DrainsLate;

impl Twist for DrainsLate {
    fn drain<'a>(&'a self, pool: &'a dyn Pool, deadline: Duration) -> BoxFuture<'a, DrainReport> {
        Box::pin(async move {
            let report = pool.drain(deadline).await;
            if report.dropped > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            report
        })
    }
}

/// It lets jobs finish when it is told to stop.
#[derive(Debug)]
pub(crate) struct StopsNothing;

impl Twist for StopsNothing {
    fn stop(&self, _: &dyn Pool) {}
}
