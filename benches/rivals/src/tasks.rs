//! What the cells on servers have in common: a runtime, tasks that each do one thing after the other, and processors that handle what lies there.
//!
//! Not here: the servers (`redis/server.rs`, `kafka/ground.rs`), what is done (`redis/`, `kafka/`).

use crate::{Result, machine::Stopwatch, rounds::Turn};
use ropeway_broker::{Group, MessageBroker, Subscription, Topic};
use ropeway_processor::{BoxError, Processor, Router, Verdict, raw};
use std::{
    future::pending,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A runtime of as many threads as there are processors, as everybody has it.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// What is awaited, or an error where it takes too long.
pub(crate) async fn patiently<T>(what: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::time::timeout(PATIENCE, what).await?)
}

/// `at_once` tasks, each of which does one piece of `messages` after the other, `step` messages long. `one` answers whether they were acked.
pub(crate) async fn many<F: Future<Output = bool> + Send>(
    at_once: usize,
    messages: Range<u64>,
    step: u64,
    one: impl Fn(Range<u64>) -> F + Clone + Send + 'static,
) -> Result<()> {
    let next = Arc::new(AtomicU64::new(messages.start));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (next, one, end) = (next.clone(), one.clone(), messages.end);
        tasks.spawn(async move {
            loop {
                let from = next.fetch_add(step, Relaxed);
                if from >= end {
                    return true;
                }
                if !one(from..end.min(from + step)).await {
                    return false;
                }
            }
        });
    }
    let done = patiently(tasks.join_all()).await?;
    if done.into_iter().all(|acked| acked) { Ok(()) } else { Err("a message was not acked".into()) }
}

/// Counts messages, and tells when so many came and how long those behind the first ones took.
#[derive(Debug)]
pub(crate) struct Handled {
    count: AtomicU64,
    warm: u64,
    until: u64,
    watch: Mutex<Option<Stopwatch>>,
    took: Mutex<Option<(Duration, Duration)>>,
    reached: Notify,
}

impl Handled {
    /// Those behind the first `warm` of `until` are timed.
    pub(crate) fn new(warm: u64, until: u64) -> Arc<Self> {
        let (count, watch, took, reached) =
            (AtomicU64::new(0), Mutex::default(), Mutex::default(), Notify::new());
        Arc::new(Self { count, warm, until, watch, took, reached })
    }

    /// So many more came.
    pub(crate) fn add(&self, messages: u64) {
        let before = self.count.fetch_add(messages, Relaxed);
        let passes = |mark| before < mark && before + messages >= mark;
        if passes(self.warm.max(1)) {
            *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stopwatch::start());
        }
        if passes(self.until) {
            let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
            *self.took.lock().unwrap_or_else(PoisonError::into_inner) = watch.map(|watch| watch.stop());
            self.reached.notify_one();
        }
    }

    /// Whether all came.
    pub(crate) fn is_reached(&self) -> bool {
        self.count.load(Relaxed) >= self.until
    }

    /// What those took that were timed.
    pub(crate) fn turn(&self) -> Result<Turn> {
        let took = self.took.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (wall, cpu) = took.ok_or("the messages were not all seen")?;
        Ok(Turn { messages: self.until - self.warm.max(1), wall, cpu, facts: Vec::new() })
    }
}

/// Runs a processor whose handler does nothing until it has handled all, and ends it, so that all its acks are stored.
pub(crate) async fn handle(
    broker: Arc<dyn MessageBroker>,
    subscription: Subscription,
    handled: Arc<Handled>,
) -> Result<()> {
    let noting = handled.clone();
    let router = Router::new().on(
        "*",
        raw(move |_, _| {
            noting.add(1);
            async { Ok::<_, BoxError>(Verdict::Done) }
        }),
    );
    let processor = Processor::builder(broker, subscription).router(router).start().await?;
    patiently(handled.reached.notified()).await?;
    processor.shutdown(PATIENCE).await;
    Ok(())
}

/// Messages of a group that are not acked.
pub(crate) async fn unacked(broker: &dyn MessageBroker, group: &str) -> Result<u64> {
    let group = broker.admin().describe_group(&Group::new(group)?).await?;
    Ok(group.partitions.iter().filter_map(|partition| partition.lag).sum())
}

/// A process that handles slowly what lies in a topic, until it is killed.
pub(crate) fn slowly(url: &str, topic: &str) -> Result<()> {
    runtime()?.block_on(async {
        let broker = ropeway_broker::connect(url).await?;
        let router = Router::new().on(
            "*",
            raw(|_, _| async {
                sleep(Duration::from_millis(50)).await;
                Ok::<_, BoxError>(Verdict::Done)
            }),
        );
        let subscription = Subscription::new(Group::new(topic)?, [Topic::new(topic)?]);
        let _processor = Processor::builder(broker, subscription).router(router).start().await?;
        pending().await
    })
}
