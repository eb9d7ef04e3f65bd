//! Workers over lanes: at most so many at a time, at most one of a key.
//!
//! Not here: what becomes of a result (the processor's `runtime/`, the pool's `worker_pool.rs`).

use crate::{
    lanes::{Finished, Lanes, Ticket},
    layer::catch_panic,
    metrics::{Level, PoolMetrics},
};
use futures::FutureExt;
use std::{future::Future, hash::Hash};
use tokio::{task::JoinSet, time::Instant};

/// Work in lanes, and the tasks that run it. Dropping it drops all of them.
#[derive(Debug)]
pub(crate) struct Core<K, T, R> {
    lanes: Lanes<K, T>,
    workers: JoinSet<(Ticket, Result<R, String>)>,
    concurrency: usize,
    queue: Level,
    busy: Level,
    _workers: Level,
}

impl<K: Hash + Eq + Clone, T, R: Send + 'static> Core<K, T, R> {
    pub(crate) fn new(concurrency: usize, metrics: &PoolMetrics) -> Self {
        let mut workers = Level::new(metrics.workers.clone());
        workers.set(concurrency);
        Self {
            lanes: Lanes::new(),
            workers: JoinSet::new(),
            concurrency,
            queue: Level::new(metrics.queue.clone()),
            busy: Level::new(metrics.busy.clone()),
            _workers: workers,
        }
    }

    /// Takes work in.
    pub(crate) fn push(&mut self, key: Option<K>, value: T) {
        self.lanes.push(key, value);
    }

    /// The next that may run, where a worker is free for it.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Ticket> {
        if self.has_room() { self.lanes.next(now) } else { None }
    }

    /// Whether a worker is free.
    pub(crate) fn has_room(&self) -> bool {
        self.workers.len() < self.concurrency
    }

    /// Gives it to a worker.
    pub(crate) fn run(&mut self, ticket: Ticket, work: impl Future<Output = R> + Send + 'static) {
        // Nothing should get past the layers; if it does, the key must not be blocked for ever.
        self.workers.spawn(catch_panic(work).map(move |result| (ticket, result)));
    }

    /// Waits for the next result; for ever where nothing runs. An `Err` is a panic. Cancel safe.
    pub(crate) async fn finished(&mut self) -> (Ticket, Result<R, String>) {
        loop {
            match self.workers.join_next().await {
                Some(Ok(finished)) => return finished,
                // A task is aborted only with the runtime itself.
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }

    /// The next result, if there is one.
    pub(crate) fn try_finished(&mut self) -> Option<(Ticket, Result<R, String>)> {
        self.workers.try_join_next()?.ok()
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.workers.len()
    }

    /// The lanes, to look at.
    pub(crate) const fn lanes(&self) -> &Lanes<K, T> {
        &self.lanes
    }

    /// The work that is out.
    pub(crate) fn get_mut(&mut self, ticket: &Ticket) -> Option<&mut T> {
        self.lanes.get_mut(ticket)
    }

    /// Ends work that was out.
    pub(crate) fn finish(&mut self, ticket: Ticket) -> Option<Finished<T>> {
        self.lanes.finish(ticket)
    }

    /// Lets work that was out run again at `due`; gives it back where it was forgotten.
    pub(crate) fn retry(&mut self, ticket: Ticket, due: Instant) -> Option<T> {
        self.lanes.retry(ticket, due)
    }

    /// Takes away all that `which` names and that is not out; with `late`, results of what is out do not count any more.
    pub(crate) fn forget(&mut self, late: bool, which: impl FnMut(&T) -> bool) -> Vec<T> {
        self.lanes.forget(late, which)
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&mut self) {
        self.queue.set(self.lanes.len().saturating_sub(self.workers.len()));
        self.busy.set(self.workers.len());
    }
}
