//! `memory:` from publish to handled, beside a bounded channel of tokio between two tasks.
//!
//! Both on a runtime of as many threads as there are processors, as everybody has it.

use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    work::Work,
};
use ropeway_broker::{
    Embedded, EmbeddedSettings, Group, Message, MessageBroker, Subscription, Target, Topic, TopicSpec,
};
use ropeway_processor::{BoxError, Processor, Router, Verdict, raw};
use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

/// Messages of one call to publish.
const BATCH: u64 = 256;
/// Messages that the channel takes before who sends waits.
const CHANNEL: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(120);

/// The pair of that cell.
pub(crate) struct Hop {
    work: Arc<Work>,
    warm: u64,
    messages: u64,
}

impl Hop {
    pub(crate) fn pair(plan: &Plan, messages: u64) -> Box<dyn Pair> {
        let messages = plan.messages(messages);
        Box::new(Self { work: Arc::new(Work::new(64)), warm: messages / 5, messages })
    }

    fn turn(&self, watch: &Stopwatch) -> Turn {
        let (wall, cpu) = watch.stop();
        Turn { messages: self.messages, wall, cpu, facts: Vec::new() }
    }
}

/// Counts messages, and tells when so many came.
#[derive(Debug, Default)]
struct Handled {
    count: AtomicU64,
    sum: AtomicU64,
    until: AtomicU64,
    reached: Notify,
}

impl Handled {
    fn note(&self, message: &Message) {
        self.sum.fetch_add(message.id.as_u128() as u64, Relaxed);
        // The sum is added first, and this thread wakes who reads it.
        if self.count.fetch_add(1, Relaxed) + 1 == self.until.load(Relaxed) {
            self.reached.notify_one();
        }
    }

    /// Waits until messages `0..until` were handled, each once.
    async fn wait(&self, until: u64) -> Result<()> {
        let late =
            |_| format!("{} messages of {until} were handled within {PATIENCE:?}", self.count.load(Relaxed));
        timeout(PATIENCE, self.reached.notified()).await.map_err(late)?;
        let sum = (0..until).sum::<u64>();
        let same = self.count.load(Relaxed) == until && self.sum.load(Relaxed) == sum;
        if same { Ok(()) } else { Err("a message was handled twice or never".into()) }
    }
}

impl Pair for Hop {
    fn ours(&mut self, _: &Path) -> Result<Turn> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let broker = Embedded::memory(EmbeddedSettings::default())?;
            let topic = Topic::new("orders")?;
            broker.admin().create_topic(&topic, TopicSpec::default()).await?;
            let handled = Arc::new(Handled::default());
            let noting = handled.clone();
            let router = Router::new().on(
                "*",
                raw(move |event, _| {
                    noting.note(event.message());
                    async { Ok::<_, BoxError>(Verdict::Done) }
                }),
            );
            let subscription = Subscription::new(Group::new("counters")?, [topic.clone()]);
            let processor = Processor::builder(broker.clone(), subscription).router(router).start().await?;
            let send = async |range: Range<u64>| -> Result<()> {
                handled.until.store(range.end, Relaxed);
                let (broker, work) = (broker.clone(), self.work.clone());
                let target = Target::from(&topic);
                let until = range.end;
                tokio::spawn(publish(broker, target, work, range)).await??;
                handled.wait(until).await
            };
            send(0..self.warm).await?;
            let watch = Stopwatch::start();
            send(self.warm..self.warm + self.messages).await?;
            let turn = self.turn(&watch);
            processor.shutdown(PATIENCE).await;
            Ok(turn)
        })
    }

    fn rival(&mut self, _: &Path) -> Result<Turn> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let handled = Arc::new(Handled::default());
            let (sender, mut receiver) = mpsc::channel::<Message>(CHANNEL);
            let noting = handled.clone();
            tokio::spawn(async move {
                while let Some(message) = receiver.recv().await {
                    noting.note(&message);
                }
            });
            let send = async |range: Range<u64>| -> Result<()> {
                handled.until.store(range.end, Relaxed);
                let (sender, work, until) = (sender.clone(), self.work.clone(), range.end);
                tokio::spawn(async move {
                    for i in range {
                        sender.send(work.message(i)).await?;
                    }
                    Ok::<_, BoxError>(())
                })
                .await??;
                handled.wait(until).await
            };
            send(0..self.warm).await?;
            let watch = Stopwatch::start();
            send(self.warm..self.warm + self.messages).await?;
            Ok(self.turn(&watch))
        })
    }
}

async fn publish(broker: Arc<Embedded>, target: Target, work: Arc<Work>, range: Range<u64>) -> Result<()> {
    for from in range.clone().step_by(BATCH as usize) {
        let batch = (from..range.end.min(from + BATCH)).map(|i| work.message(i)).collect();
        let outcomes = broker.publish(&target, batch).await;
        if let Some(failed) =
            outcomes.0.into_iter().find_map(|outcome| outcome.failed().map(|f| f.error.clone()))
        {
            return Err(failed.into());
        }
    }
    Ok(())
}
