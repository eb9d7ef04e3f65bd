//! What a check stands on: a broker that can be made to fail, names that nobody else uses, and short ways to publish, process and look.
//!
//! Not here: the handlers of checks and their calls (`calls.rs`).

use super::subject::{Processing, Route, Subject, Task};
use crate::{FailureRecord, ProcessorSettings, RetryPolicy, Unknown};
use ropeway_broker::conformance::promise::{Ought, broken, cut, promised};
use ropeway_broker::{
    Clock, Event, Group, GroupPartition, Message, MessageBroker, MessageId, Position, ReaderExt, Receipt,
    Start, Statistics, Subscription, Target, Timestamp, Topic, TopicInfo, TopicSpec,
    conformance::{Backend, Setup, Store},
    wrap::Fault,
};
use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The longest wait for what must come: it is there for busy machines, and what is judged by time has limits of its own.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must come.
const QUIET: Duration = Duration::from_millis(250);
/// The type of messages that say no other.
pub(super) const TYPE: &str = "thing.happened";

/// A broker and a subject under test.
#[derive(Debug)]
pub(super) struct Stage {
    store: Arc<dyn Store>,
    /// The broker without faults.
    plain: Arc<dyn MessageBroker>,
    broker: Arc<Fault>,
    pub(super) subject: Arc<dyn Subject>,
    tag: String,
    names: AtomicU32,
    slack: Duration,
}

impl Stage {
    pub(super) async fn open(backend: &dyn Backend, subject: Arc<dyn Subject>) -> Result<Self, String> {
        let store =
            backend.store(Setup::default()).map_err(|error| format!("there is no store: {error:?}"))?;
        let broker = timeout(PATIENCE, store.open())
            .await
            .map_err(|_| format!("the broker did not open within {PATIENCE:?}"))?
            .map_err(|error| format!("the broker did not open: {error:?}"))?;
        Ok(Self {
            store: store.into(),
            broker: Fault::around(broker.clone()),
            plain: broker,
            subject,
            tag: format!("{:08x}", MessageId::new().as_u128() as u32),
            names: AtomicU32::new(0),
            slack: backend.slack(),
        })
    }

    /// The broker, and what makes it fail.
    pub(super) const fn broker(&self) -> &Arc<Fault> {
        &self.broker
    }

    /// How late a promise about time may be kept.
    pub(super) const fn slack(&self) -> Duration {
        self.slack
    }

    /// Whether time is exact, so that it costs nothing to wait.
    pub(super) fn is_exact(&self) -> bool {
        self.slack < Duration::from_secs(1)
    }

    /// What time it is for the broker.
    pub(super) fn now(&self) -> Timestamp {
        self.store.now()
    }

    fn name(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.tag, self.names.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn no_topic(&self) -> Topic {
        Topic::new(self.name("topic")).ought("a name of letters, digits and '-' is taken")
    }

    /// A new topic.
    pub(super) async fn topic(&self, partitions: u32) -> Topic {
        let topic = self.no_topic();
        let created = self.broker.admin().create_topic(&topic, TopicSpec::partitions(partitions));
        within("a topic can be made", created).await.ought("a topic can be made");
        topic
    }

    pub(super) async fn describe(&self, topic: &Topic) -> TopicInfo {
        let promise = "a topic that exists can be described";
        within(promise, self.broker.admin().describe_topic(topic)).await.ought(promise)
    }

    /// All topics there are.
    pub(super) async fn topics(&self) -> Vec<Topic> {
        within("topics can be listed", self.broker.admin().topics()).await.ought("topics can be listed")
    }

    /// Publishes; all of it must be acked.
    pub(super) async fn put(&self, to: impl Into<Target>, batch: Vec<Message>) -> Vec<Receipt> {
        let promise = "publish acks what is in order";
        let outcomes = within(promise, self.broker.publish(&to.into(), batch)).await;
        let receipt = |outcome| match outcome {
            ropeway_broker::Published::Acked { partition, position, durability } => {
                Receipt { partition, position, durability }
            }
            other => broken(promise, cut(format!("{other:?}"))),
        };
        outcomes.0.into_iter().map(receipt).collect()
    }

    /// A task for a new group on that topic.
    pub(super) fn task(&self, topic: &Topic, routes: impl Into<Vec<Route>>) -> Task {
        let group = Group::new(self.name("group")).ought("a name of letters, digits and '-' is taken");
        let mut subscription = Subscription::new(group, [topic.clone()]);
        subscription.ack_interval = Duration::from_millis(10);
        Task {
            broker: self.broker.clone(),
            subscription,
            routes: routes.into(),
            unknown: Unknown::default(),
            settings: ProcessorSettings {
                retry: RetryPolicy { first_delay: Duration::from_millis(5), ..RetryPolicy::default() },
                dead_letter_retry: RetryPolicy {
                    first_delay: Duration::from_millis(20),
                    max_delay: Duration::from_millis(100),
                    ..RetryPolicy::default()
                },
                node: "node-of-the-check".to_owned(),
                seed: Some(1),
                ..ProcessorSettings::default()
            },
            dead_letters: None,
            clock: Arc::new(StoreClock(self.store.clone())),
        }
    }

    /// Starts the subject.
    pub(super) async fn start(&self, task: &Task) -> Box<dyn Processing> {
        let promise = "a processor starts where all is in order";
        within(promise, self.subject.process(task.clone())).await.ought(promise)
    }

    /// Shuts down with time to spare, and lets it go.
    pub(super) async fn stop(&self, processing: Box<dyn Processing>) {
        within("shutdown answers", processing.shutdown(PATIENCE - Duration::from_secs(5))).await;
    }

    /// The dead letters of a task by now, partition by partition.
    pub(super) async fn letters(&self, task: &Task) -> Vec<Letter> {
        let topic = task.dead_letters.clone().unwrap_or_else(|| {
            let topics = &task.subscription.topics;
            topics.first().ought("a task has a topic").dead_letters_of(&task.subscription.group)
        });
        self.content(&topic)
            .await
            .into_iter()
            .map(|message| {
                let record = FailureRecord::parse(&message);
                let record = record.ought("the record of a dead letter can be read");
                Letter { record: record.ought("a dead letter has a record of its failure"), message }
            })
            .collect()
    }

    /// Waits until that many messages are dead-lettered; the first letter of each. A repeat is no matter here.
    pub(super) async fn buried(&self, task: &Task, count: usize) -> Vec<Letter> {
        let promise = format!("{count} messages are dead-lettered");
        let ask = async || {
            let mut letters = self.letters(task).await;
            let mut seen = BTreeSet::new();
            letters.retain(|letter| seen.insert((letter.record.partition, letter.record.position)));
            letters
        };
        let letters = eventually(&promise, ask, |letters| letters.len() >= count).await;
        promised(letters.len() == count, &promise, || format!("{} are: {letters:?}", letters.len()));
        letters
    }

    /// What lies in a topic by now, as a reader sees it.
    pub(super) async fn content(&self, topic: &Topic) -> Vec<Message> {
        let promise = "a topic can be read";
        let partitions = self.describe(topic).await.partitions;
        let mut reader = within(promise, self.broker.read()).await.ought(promise);
        within(promise, reader.follow(topic, None, Start::Earliest)).await.ought(promise);
        let (mut messages, mut caught_up) = (Vec::new(), 0);
        while caught_up < partitions.len() {
            match within(promise, reader.next()).await.ought(promise) {
                Event::Batch(batch) => {
                    let of = batch.of.partition;
                    messages.extend(batch.deliveries.into_iter().map(|d| (of, d.position, d.message)));
                }
                Event::CaughtUp(_) => caught_up += 1,
                _ => {}
            }
        }
        messages.sort_by_key(|(partition, position, _)| (*partition, *position));
        messages.into_iter().map(|(_, _, message)| message).collect()
    }

    /// What the group of a task has of its partitions.
    pub(super) async fn progress(&self, task: &Task) -> Vec<GroupPartition> {
        let promise = "a group with members can be described";
        let described = within(promise, self.broker.admin().describe_group(&task.subscription.group)).await;
        described.ought(promise).partitions
    }

    /// How many messages the group of a task has not finished.
    pub(super) async fn unfinished(&self, task: &Task) -> u64 {
        let promise = "an embedded group knows what is not finished";
        let unfinished = self.progress(task).await.into_iter().map(|of| of.unfinished.or(of.lag));
        unfinished.map(|of| of.ought(promise)).sum()
    }

    /// Waits until the group has finished everything.
    pub(super) async fn all_acked(&self, task: &Task) {
        let promise = "what is handled or dead-lettered is acked";
        eventually(promise, async || self.unfinished(task).await, |left| *left == 0).await;
    }

    pub(super) fn broker_statistics(&self) -> Statistics {
        self.broker.statistics()
    }

    /// Waits long enough for what must not come.
    pub(super) async fn quiet(&self) {
        sleep(QUIET).await;
    }

    /// Plants a record that is no message.
    pub(super) async fn plant_unreadable(&self, topic: &Topic, raw: &[u8]) -> Position {
        let planted = self.store.plant_unreadable(&self.plain, topic, 0, raw);
        within("an unreadable record can be planted", planted).await.ought("it can be planted")
    }
}

/// A dead letter and its record.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) message: Message,
    pub(super) record: FailureRecord,
}

impl Letter {
    pub(super) fn number(&self) -> usize {
        number_of(&self.message)
    }
}

/// The clock of a store.
#[derive(Debug)]
struct StoreClock(Arc<dyn Store>);

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn steady(&self) -> Duration {
        self.0.now().since(Timestamp::from_millis(0))
    }

    fn origin(&self) -> u128 {
        0
    }
}

/// A message of that key whose payload is the number.
pub(super) fn keyed(key: &str, number: usize) -> Message {
    Message::builder().key(key.to_owned()).event_type(TYPE).payload(number.to_string()).build()
}

/// A message without key whose payload is the number.
pub(super) fn numbered(number: usize) -> Message {
    Message::builder().event_type(TYPE).payload(number.to_string()).build()
}

/// The number in a payload; the largest where there is none.
pub(super) fn number_of(message: &Message) -> usize {
    let text = message.payload.as_deref().and_then(|payload| std::str::from_utf8(payload).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(usize::MAX)
}

/// What `future` brings, or the check fails after [`PATIENCE`].
pub(super) async fn within<T>(promise: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => broken(promise, format!("no answer within {PATIENCE:?}")),
    }
}

/// Asks again and again until it is true.
pub(super) async fn eventually<T: std::fmt::Debug>(
    promise: &str,
    mut ask: impl AsyncFnMut() -> T,
    mut holds: impl FnMut(&T) -> bool,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let seen = ask().await;
        if holds(&seen) {
            return seen;
        }
        if start.elapsed() > PATIENCE {
            broken(promise, cut(format!("after {PATIENCE:?} still {seen:?}")));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
