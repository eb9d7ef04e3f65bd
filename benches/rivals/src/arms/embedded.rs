//! Ours: the embedded broker, used as everybody uses it.

use super::publish::{FIRST_AT_ONCE, Parts};
use crate::{
    Result,
    machine::Stopwatch,
    rounds::Turn,
    work::{Seen, Work},
};
use ropeway_broker::{
    Durability, Embedded, EmbeddedSettings, Event, MessageBroker, Publisher, PublisherSettings, ReaderExt,
    Start, Topic, TopicSpec,
};
use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// The topic of every cell that publishes.
pub(super) const TOPIC: &str = "orders";
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes them, `at_once` at a time but for the first; reads all of them back.
pub(super) fn publish(dir: &Path, work: &Work, at_once: u64, parts: &Parts) -> Result<Turn> {
    let Parts { first, timed } = parts.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Tasks outlive what they borrow, so they share it.
    let work = Arc::new(work.clone());
    runtime.block_on(async {
        let broker = Embedded::open(dir, EmbeddedSettings::default())?;
        let topic = Topic::new(TOPIC)?;
        broker.admin().create_topic(&topic, TopicSpec::default()).await?;
        let publisher = Publisher::new(broker.clone(), PublisherSettings::default())?;
        send(&publisher, &topic, &work, FIRST_AT_ONCE, 0..first).await?;
        send(&publisher, &topic, &work, at_once, first..timed.start).await?;
        let before = broker.statistics();
        let watch = Stopwatch::start();
        send(&publisher, &topic, &work, at_once, timed.clone()).await?;
        let (wall, cpu) = watch.stop();
        let after = broker.statistics();
        let commits = (after.commits - before.commits).max(1);
        let per_commit = (after.published - before.published) as f64 / commits as f64;
        let expected = work.expected(timed.end);
        let watch = Stopwatch::start();
        let seen = read(&*broker, &topic, timed.end).await?;
        let rate = seen.count as f64 / watch.stop().0.as_secs_f64();
        seen.check(expected, "the embedded broker")?;
        publisher.close(PATIENCE).await?;
        broker.close(PATIENCE).await;
        let facts = vec![("messages a commit", per_commit), ("read back/s", rate)];
        Ok(Turn { messages: timed.end - timed.start, wall, cpu, facts })
    })
}

/// So many tasks, each with one message on its way, until all are acked as safe from a power cut.
pub(super) async fn send(
    publisher: &Publisher,
    topic: &Topic,
    work: &Arc<Work>,
    at_once: u64,
    messages: Range<u64>,
) -> Result<()> {
    let next = Arc::new(AtomicU64::new(messages.start));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (publisher, topic, work, next) = (publisher.clone(), topic.clone(), work.clone(), next.clone());
        let end = messages.end;
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Relaxed);
                if i >= end {
                    return Ok::<_, ropeway_broker::PublishFailed>(true);
                }
                if publisher.publish(&topic, work.message(i)).await?.durability < Durability::PowerLoss {
                    return Ok(false);
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if !ended?? {
            return Err("a message was acked that would not survive a power cut".into());
        }
    }
    Ok(())
}

/// Reads so many messages of a topic, from its beginning.
async fn read(broker: &dyn MessageBroker, topic: &Topic, count: u64) -> Result<Seen> {
    let mut reader = broker.read().await?;
    reader.follow(topic, None, Start::Earliest).await?;
    let mut seen = Seen::default();
    while seen.count < count {
        match tokio::time::timeout(PATIENCE, reader.next()).await?? {
            Event::Batch(batch) => batch.deliveries.iter().for_each(|delivery| seen.add(&delivery.message)),
            Event::Unreadable { why, .. } => return Err(why.into()),
            Event::Gap { .. } => return Err("there is a gap in what was read back".into()),
            _ => {}
        }
    }
    Ok(seen)
}
