//! What these tests share: names, brokers, and waiting for an event.

use crate::{
    Assignment, Clock, Consumer, ConsumerExt, Embedded, EmbeddedSettings, Event, Group, Message,
    MessageBroker, Owned, Position, Reader, ReaderExt, Subscription, Target, Timestamp, TokioClock, Topic,
    TopicSpec,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// A patience that only a broken broker exhausts.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub(super) struct HandClock {
    time_of_day: AtomicI64,
    passed: AtomicU64,
    origin: u128,
}

impl HandClock {
    pub(super) fn starting_at(millis: i64) -> Arc<Self> {
        Self::booted(millis, 1)
    }

    /// The clock of a machine that was started again; another number is another start.
    pub(super) fn booted(millis: i64, origin: u128) -> Arc<Self> {
        Arc::new(Self { time_of_day: AtomicI64::new(millis), passed: AtomicU64::new(0), origin })
    }

    /// Sets the time of day.
    pub(super) fn set(&self, millis: i64) {
        self.time_of_day.store(millis, SeqCst);
    }

    /// Lets time pass.
    pub(super) fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.passed.fetch_add(millis, SeqCst);
        self.time_of_day.fetch_add(i64::try_from(millis).unwrap(), SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time_of_day.load(SeqCst))
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.passed.load(SeqCst))
    }

    fn origin(&self) -> u128 {
        self.origin
    }
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(super) fn group(name: &str) -> Group {
    Group::new(name).unwrap()
}

/// A broker in memory, under a clock that tokio's paused time moves.
pub(super) fn memory() -> Arc<Embedded> {
    memory_with(|_| ())
}

pub(super) fn memory_with(change: impl FnOnce(&mut EmbeddedSettings)) -> Arc<Embedded> {
    let mut settings = EmbeddedSettings {
        clock: Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000))),
        ..EmbeddedSettings::default()
    };
    change(&mut settings);
    Embedded::memory(settings).unwrap()
}

pub(super) async fn make(broker: &Embedded, name: &str, partitions: u32) -> Topic {
    let topic = topic(name);
    broker.admin().create_topic(&topic, TopicSpec::partitions(partitions)).await.unwrap();
    topic
}

pub(super) fn text(payload: &str) -> Message {
    Message::builder().payload(payload.to_owned()).build()
}

/// Publishes to one partition and answers the positions.
pub(super) async fn publish(
    broker: &Embedded,
    topic: &Topic,
    partition: u32,
    payloads: &[&str],
) -> Vec<Position> {
    let to = Target { topic: topic.clone(), partition: Some(partition), at_least: None };
    let outcomes = broker.publish(&to, payloads.iter().map(|p| text(p)).collect()).await;
    outcomes
        .0
        .into_iter()
        .map(|published| match published {
            crate::Published::Acked { position, .. } => position.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect()
}

pub(super) async fn subscribe(
    broker: &Embedded,
    change: impl FnOnce(&mut Subscription),
    group_name: &str,
    topics: &[&Topic],
) -> Box<dyn Consumer> {
    let mut subscription = Subscription::new(group(group_name), topics.iter().map(|topic| (*topic).clone()));
    change(&mut subscription);
    broker.subscribe(subscription).await.unwrap()
}

pub(super) async fn next(consumer: &mut dyn Consumer) -> Event {
    let event = tokio::time::timeout(PATIENCE, consumer.next()).await;
    event.expect("an event in time").unwrap()
}

pub(super) async fn next_read(reader: &mut dyn Reader) -> Event {
    let event = tokio::time::timeout(PATIENCE, reader.next()).await;
    event.expect("an event in time").unwrap()
}

/// Nothing comes for a while.
pub(super) async fn nothing(consumer: &mut dyn Consumer) {
    let event = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await;
    assert!(event.is_err(), "{event:?}");
}

pub(super) async fn assigned(consumer: &mut dyn Consumer) -> Vec<Assignment> {
    match next(consumer).await {
        Event::Assigned(list) => list,
        other => panic!("{other:?} instead of an assignment"),
    }
}

/// The next messages, past whatever says that all was read.
pub(super) async fn batch(consumer: &mut dyn Consumer) -> (Owned, Vec<(Position, String)>) {
    loop {
        match next(consumer).await {
            Event::Batch(batch) => return (batch.of.clone(), contents(&batch)),
            Event::CaughtUp(_) => {}
            other => panic!("{other:?} instead of a batch"),
        }
    }
}

pub(super) fn contents(batch: &crate::Batch) -> Vec<(Position, String)> {
    let text =
        |message: &Message| String::from_utf8(message.payload.clone().unwrap_or_default().to_vec()).unwrap();
    batch.deliveries.iter().map(|d| (d.position, text(&d.message))).collect()
}

pub(super) fn texts(list: &[(Position, String)]) -> Vec<&str> {
    list.iter().map(|(_, text)| text.as_str()).collect()
}
