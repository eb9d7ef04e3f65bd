//! What a check stands on: a broker on a store of its own, names that nobody else uses, and short ways to publish and join.
//!
//! Not here: what consumers and readers tell (`watch.rs`).

use super::{
    Backend, Publishing, Setup, Store,
    promise::{Ought, broken, cut},
    watch::Watched,
};
use crate::{
    Group, GroupInfo, GroupPartition, Message, MessageBroker, MessageBrokerExt, MessageId, Position,
    PublisherSettings, Receipt, Subscription, Target, Timestamp, Topic, TopicSpec,
};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The longest wait for what must come: it is there for busy machines, and what is judged by time has limits of its own.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must come.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// A broker under test.
#[derive(Debug)]
pub(super) struct Stage {
    store: Box<dyn Store>,
    broker: Mutex<Arc<dyn MessageBroker>>,
    tag: String,
    names: AtomicU32,
    backend: Arc<dyn Backend>,
    ignored: Mutex<Option<String>>,
}

impl Stage {
    pub(super) async fn open(backend: &Arc<dyn Backend>, setup: Setup) -> Result<Self, String> {
        let store = backend.store(setup).map_err(|error| format!("there is no store: {error:?}"))?;
        let broker = timeout(PATIENCE, store.open())
            .await
            .map_err(|_| format!("the broker did not open within {PATIENCE:?}"))?
            .map_err(|error| format!("the broker did not open: {error:?}"))?;
        Ok(Self {
            store,
            broker: Mutex::new(broker),
            tag: format!("{:08x}", MessageId::new().as_u128() as u32),
            names: AtomicU32::new(0),
            backend: Arc::clone(backend),
            ignored: Mutex::new(None),
        })
    }

    pub(super) fn broker(&self) -> Arc<dyn MessageBroker> {
        Arc::clone(&self.broker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What time it is for the broker.
    pub(super) fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// How late a promise about time may be kept.
    pub(super) fn slack(&self) -> Duration {
        self.backend.slack()
    }

    /// Says that the check could not be made, and why.
    pub(super) fn ignore(&self, why: &str) {
        *self.ignored.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    pub(super) fn ignored(&self) -> Option<String> {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A name that nobody used before.
    pub(super) fn name(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.tag, self.names.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn group(&self) -> Group {
        Group::new(self.name("group")).ought("a name of letters, digits and '-' is taken")
    }

    /// The name of a topic that does not exist.
    pub(super) fn no_topic(&self) -> Topic {
        Topic::new(self.name("topic")).ought("a name of letters, digits and '-' is taken")
    }

    /// A new topic.
    pub(super) async fn topic(&self, partitions: u32) -> Topic {
        let topic = self.no_topic();
        self.create(&topic, partitions).await;
        topic
    }

    pub(super) async fn create(&self, topic: &Topic, partitions: u32) {
        let broker = self.broker();
        let created = broker.admin().create_topic(topic, TopicSpec::partitions(partitions));
        within("a topic can be made", created).await.ought("a topic can be made");
    }

    /// Publishes; all of it must be acked.
    pub(super) async fn put(&self, to: impl Into<Target>, batch: Vec<Message>) -> Vec<Receipt> {
        let promise = "publish acks what is in order, one outcome per message";
        let count = batch.len();
        let outcomes = within(promise, self.broker().publish(&to.into(), batch)).await;
        if outcomes.0.len() != count {
            broken(promise, format!("{} outcomes for {count} messages", outcomes.0.len()));
        }
        let receipts = outcomes.0.into_iter().map(crate::ext::receipt);
        receipts.map(|receipt| receipt.ought(promise)).collect()
    }

    /// Publishes the numbers as texts into one partition; where each lies.
    pub(super) async fn number(
        &self,
        topic: &Topic,
        partition: u32,
        numbers: std::ops::Range<usize>,
    ) -> Vec<Position> {
        let receipts = self.put(at(topic, partition), numbers.map(text).collect()).await;
        let positions = receipts.iter().map(|receipt| receipt.position);
        positions.map(|p| p.ought("an ack of a message that is not delayed tells its position")).collect()
    }

    /// Publishes one message without waiting for more than its outcome.
    pub(super) async fn put_one(&self, to: impl Into<Target>, message: Message) -> Receipt {
        let promise = "publish acks what is in order";
        within(promise, self.broker().publish_one(to, message)).await.ought(promise)
    }

    /// A publisher over the broker.
    pub(super) fn publisher(&self, settings: PublisherSettings) -> crate::Result<Arc<dyn Publishing>> {
        self.backend.publisher(self.broker(), settings)
    }

    /// Joins a group.
    pub(super) async fn join(&self, subscription: Subscription) -> Watched {
        let promise = "subscribe answers with a consumer";
        let consumer = within(promise, self.broker().subscribe(subscription)).await.ought(promise);
        Watched::consumer(consumer)
    }

    /// Joins a new group on one topic, with the defaults.
    pub(super) async fn join_new(&self, topic: &Topic) -> Watched {
        self.join(Subscription::new(self.group(), [topic.clone()])).await
    }

    /// A reader that follows nothing yet.
    pub(super) async fn reader(&self) -> Watched {
        let promise = "read answers with a reader";
        Watched::reader(within(promise, self.broker().read()).await.ought(promise))
    }

    /// A reader of all of a topic from its beginning.
    pub(super) async fn follow(&self, topic: &Topic) -> Watched {
        let mut reader = self.reader().await;
        reader
            .follow(topic, None, crate::Start::Earliest)
            .await
            .ought("a reader follows a topic that exists");
        reader
    }

    /// What lies in a topic by now, as a reader sees it, partition by partition.
    pub(super) async fn content(&self, topic: &Topic) -> Vec<super::watch::Got> {
        let mut reader = self.follow(topic).await;
        let described = self.describe(topic).await.partitions.len();
        reader.until("a reader catches up", |r| r.caught_up().len() >= described).await;
        let mut got = reader.got().cloned().collect::<Vec<_>>();
        got.sort_by_key(|got| (got.of.partition, got.position));
        got
    }

    pub(super) async fn describe(&self, topic: &Topic) -> crate::TopicInfo {
        let promise = "a topic that exists can be described";
        within(promise, self.broker().admin().describe_topic(topic)).await.ought(promise)
    }

    pub(super) async fn describe_group(&self, group: &Group) -> GroupInfo {
        let promise = "a group with members or positions can be described";
        within(promise, self.broker().admin().describe_group(group)).await.ought(promise)
    }

    /// What a group has of a partition.
    pub(super) async fn group_partition(
        &self,
        group: &Group,
        topic: &Topic,
        partition: u32,
    ) -> GroupPartition {
        let found = self.describe_group(group).await.partitions;
        let mut found = found.into_iter().filter(|p| p.topic == *topic && p.partition == partition);
        found.next().ought("describe_group tells each partition it has a member on or a position in")
    }

    /// Closes the broker in order and opens its store again.
    pub(super) async fn reopen(&self) {
        within("close ends within its deadline", self.broker().close(Duration::from_secs(5))).await;
        self.open_again().await;
    }

    /// Ends the broker without a word and opens its store again.
    pub(super) async fn crash(&self) {
        within("a crash", self.store.crash(self.broker())).await;
        self.open_again().await;
    }

    async fn open_again(&self) {
        let promise = "a store can be opened again";
        let broker = within(promise, self.store.open()).await.ought(promise);
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = broker;
    }

    pub(super) async fn plant_unreadable(&self, topic: &Topic, partition: u32, raw: &[u8]) -> Position {
        let planted = self.store.plant_unreadable(&self.broker(), topic, partition, raw);
        within("an unreadable record can be planted", planted).await.ought("it can be planted")
    }
}

/// A partition of one's own choice.
pub(super) fn at(topic: &Topic, partition: u32) -> Target {
    Target { partition: Some(partition), ..topic.into() }
}

/// A message without key whose payload is the number.
pub(super) fn text(number: usize) -> Message {
    Message::builder().payload(number.to_string()).build()
}

/// A message of that key whose payload is the number.
pub(super) fn keyed(key: &str, number: usize) -> Message {
    Message::builder().key(key.to_owned()).payload(number.to_string()).build()
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
    loop {
        let seen = ask().await;
        if holds(&seen) {
            return seen;
        }
        if start.elapsed() > PATIENCE {
            broken(promise, cut(format!("after {PATIENCE:?} still {seen:?}")));
        }
        sleep(Duration::from_millis(10)).await;
    }
}
