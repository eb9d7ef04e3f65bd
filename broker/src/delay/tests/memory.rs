//! A broker in memory that delays by this folder instead of on its own: several may share a log, as processes share a server.
//!
//! The broker below runs on a clock that is a hundred years ahead, so that to it everything is due. Not here: what is tried on it (`conforms.rs`,
//! `moves.rs`).

use crate::{
    Admin, Answer, Capabilities, Clock, Consumer, Embedded, EmbeddedSettings, Error, ErrorKind, Group,
    GroupInfo, Health, Message, MessageBroker, MessageId, Outcomes, Position, Reader, Result, Start,
    Statistics, Subscription, Target, Timestamp, TokioClock, Topic, TopicInfo, TopicSpec,
    delay::{Delay, Ground, Seen, names::is_own},
};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// For how long a process believes what it was told of a topic.
const FRESH: Duration = Duration::from_secs(1);

/// A clock that is ahead of another.
#[derive(Debug)]
struct Ahead(Arc<TokioClock>);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now() + CENTURY
    }

    fn steady(&self) -> Duration {
        self.0.steady()
    }

    fn origin(&self) -> u128 {
        self.0.origin()
    }
}

/// What goes wrong when something is published; `true`: it is not written, without a word.
pub(super) type Loses = fn(&Target, &Message) -> bool;

/// What is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangs {
    Look,
    Put,
    /// Making the internal topic of this one.
    Make(&'static str),
}

/// What servers say of a topic that know it no more, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Missing,
    Other,
}

/// The log below.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) inner: Arc<Embedded>,
    pub(super) clock: Arc<TokioClock>,
    /// How far the clock of who moves is ahead.
    pub(super) ahead: Duration,
    pub(super) loses: Loses,
    /// What this process has no right to publish.
    pub(super) forbids: Loses,
    /// The servers answer nothing: to the question for a topic, or to what is put into an internal one.
    pub(super) hangs: Option<Hangs>,
    /// What they say of topics that are not internal, where that is wrong.
    pub(super) says: Mutex<Option<Says>>,
    pub(super) deadline: Duration,
    /// How often topics were asked for.
    pub(super) looks: Mutex<usize>,
    /// How many readers were opened.
    pub(super) readers: Mutex<usize>,
    /// What this process was told of topics, and when.
    kept: Arc<Mutex<BTreeMap<Topic, (Instant, Seen)>>>,
}

impl Log {
    /// Needs a runtime.
    pub(super) fn new() -> Result<Self> {
        let clock = Arc::<TokioClock>::default();
        let ahead = Arc::new(Ahead(Arc::clone(&clock)));
        let inner = Embedded::memory(EmbeddedSettings { clock: ahead, ..EmbeddedSettings::default() })?;
        Ok(Self {
            inner,
            clock,
            ahead: Duration::ZERO,
            loses: |_, _| false,
            forbids: |_, _| false,
            hangs: None,
            says: Mutex::default(),
            deadline: Duration::from_secs(30),
            looks: Mutex::new(0),
            readers: Mutex::new(0),
            kept: Arc::default(),
        })
    }

    /// The same log for another process.
    pub(super) fn shared(&self) -> Self {
        let (inner, clock) = (Arc::clone(&self.inner), Arc::clone(&self.clock));
        Self {
            inner,
            clock,
            ahead: self.ahead,
            loses: self.loses,
            forbids: self.forbids,
            hangs: None,
            says: Mutex::default(),
            deadline: Duration::from_secs(30),
            looks: Mutex::new(0),
            readers: Mutex::new(0),
            kept: Arc::default(),
        }
    }
}

impl Ground for Log {
    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn put(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        if self.hangs == Some(Hangs::Put) {
            return Box::pin(std::future::pending());
        }
        if batch.first().is_some_and(|message| (self.forbids)(to, message)) {
            let error = Error::new(ErrorKind::Unauthorized, "this process has no right to do that");
            return Box::pin(std::future::ready(Outcomes::all_not_written(&error, batch)));
        }
        let lost = batch.first().is_some_and(|message| (self.loses)(to, message));
        if !lost {
            return self.inner.publish(to, batch);
        }
        let durability = crate::Durability::Volatile;
        let acked = |_| crate::Published::Acked { partition: 0, position: None, durability };
        let outcomes = Outcomes(batch.into_iter().map(acked).collect());
        Box::pin(std::future::ready(outcomes))
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        self.inner.subscribe(subscription)
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        *self.readers.lock().unwrap() += 1;
        self.inner.read()
    }

    fn grow(&self, topic: &Topic, partitions: u32) -> Answer<Result<()>> {
        let (inner, topic) = (Arc::clone(&self.inner), topic.clone());
        Box::pin(async move { inner.admin().grow_topic(&topic, partitions).await })
    }

    fn purge(&self, topic: &Topic, partition: u32, before: Position) -> Answer<Result<()>> {
        let (inner, topic) = (Arc::clone(&self.inner), topic.clone());
        let before = Start::At(before);
        Box::pin(async move { inner.admin().purge_topic(&topic, Some(partition), before).await })
    }

    fn delete(&self, topic: &Topic) -> Answer<Result<()>> {
        let (inner, topic) = (Arc::clone(&self.inner), topic.clone());
        Box::pin(async move { inner.admin().delete_topic(&topic).await })
    }

    fn look(&self, topic: &Topic) -> Answer<Result<Seen>> {
        *self.looks.lock().unwrap() += 1;
        let is_wrong = self.says.lock().unwrap().is_some();
        let is_fresh = |at: &Instant| !is_wrong && at.elapsed() < FRESH;
        let kept = self.kept.lock().unwrap().get(topic).filter(|(at, _)| is_fresh(at)).copied();
        match kept {
            Some((_, seen)) => Box::pin(std::future::ready(Ok(seen))),
            None => self.look_now(topic),
        }
    }

    fn look_now(&self, topic: &Topic) -> Answer<Result<Seen>> {
        if self.hangs == Some(Hangs::Look) {
            return Box::pin(std::future::pending());
        }
        let (inner, topic, kept) = (Arc::clone(&self.inner), topic.clone(), Arc::clone(&self.kept));
        let says = self.says.lock().unwrap().filter(|_| !is_own(&topic));
        Box::pin(async move {
            let info = inner.admin().describe_topic(&topic).await?;
            let seen = Seen {
                life: info.partitions[0].low.0,
                partitions: info.partitions.len() as u32,
                max_message: info.max_message,
            };
            kept.lock().unwrap().insert(topic.clone(), (Instant::now(), seen));
            match says {
                Some(Says::Missing) => Err(Error::new(ErrorKind::NotFound, "there is no such topic")),
                Some(Says::Other) => Ok(Seen { life: seen.life - 1, ..seen }),
                None => Ok(seen),
            }
        })
    }

    fn lives(&self, topics: Vec<Topic>) -> Answer<Result<BTreeMap<Topic, Option<u64>>>> {
        *self.looks.lock().unwrap() += 1;
        let asks: Vec<_> = topics.into_iter().map(|topic| (self.look_now(&topic), topic)).collect();
        Box::pin(async move {
            let mut lives = BTreeMap::new();
            for (ask, topic) in asks {
                lives.insert(topic, ask.await.ok().map(|seen| seen.life));
            }
            Ok(lives)
        })
    }

    fn make(&self, topic: &Topic, partitions: u32, _: usize) -> Answer<Result<()>> {
        if matches!(self.hangs, Some(Hangs::Make(name)) if topic.as_str().contains(name)) {
            return Box::pin(std::future::pending());
        }
        let (inner, topic) = (Arc::clone(&self.inner), topic.clone());
        Box::pin(async move { inner.admin().create_topic(&topic, TopicSpec::partitions(partitions)).await })
    }

    fn now(&self) -> Timestamp {
        self.clock.now() + self.ahead
    }
}

/// One process.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) log: Arc<Log>,
    pub(super) ground: Arc<dyn Ground>,
    pub(super) delay: Arc<Delay>,
    /// The log below is closed with it.
    pub(super) closes: bool,
}

impl Memory {
    /// A process that leaves the log below open when it is closed.
    pub(super) fn new(log: Log) -> Self {
        let log = Arc::new(log);
        let ground: Arc<dyn Ground> = Arc::<Log>::clone(&log);
        Self { log, ground, delay: Arc::default(), closes: false }
    }

    /// Ends as if it was killed, as far as delay goes.
    pub(super) fn kill(&self) {
        self.delay.stop();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.delay.stop();
    }
}

impl MessageBroker for Memory {
    fn capabilities(&self) -> Capabilities {
        self.log.inner.capabilities()
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.delay.publish(&self.ground, to, batch)
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        subscription.topics.iter().for_each(|topic| self.delay.watch(&self.ground, topic));
        self.log.inner.subscribe(subscription)
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        self.log.inner.read()
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    fn health(&self) -> Answer<Health> {
        self.log.inner.health()
    }

    fn statistics(&self) -> Statistics {
        self.log.inner.statistics()
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        let (delay, inner) = (Arc::clone(&self.delay), Arc::clone(&self.log.inner));
        let closes = self.closes;
        Box::pin(async move {
            delay.close(deadline).await;
            if closes {
                inner.close(deadline).await;
            }
        })
    }
}

#[async_trait]
impl Admin for Memory {
    async fn create_topic(&self, topic: &Topic, spec: TopicSpec) -> Result<()> {
        self.log.inner.admin().create_topic(topic, spec).await
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo> {
        let delayed = self.delay.count(&self.ground, topic).await?;
        Ok(TopicInfo { delayed, ..self.log.inner.admin().describe_topic(topic).await? })
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        self.log.inner.admin().topics().await
    }

    async fn grow_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        self.log.inner.admin().grow_topic(topic, partitions).await
    }

    async fn purge_topic(&self, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()> {
        self.log.inner.admin().purge_topic(topic, partition, before).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        let life = self.ground.look_now(topic).await?.life;
        self.log.inner.admin().delete_topic(topic).await?;
        self.delay.deleted(&self.ground, topic, life).await;
        Ok(())
    }

    async fn cancel_delayed(&self, topic: &Topic, id: MessageId) -> Result<bool> {
        self.delay.cancel(&self.ground, topic, id).await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.log.inner.admin().groups().await
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupInfo> {
        self.log.inner.admin().describe_group(group).await
    }

    async fn seek_group(
        &self,
        group: &Group,
        topic: &Topic,
        partition: Option<u32>,
        to: Start,
    ) -> Result<()> {
        self.log.inner.admin().seek_group(group, topic, partition, to).await
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.log.inner.admin().delete_group(group).await
    }
}
