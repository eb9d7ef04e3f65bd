//! The broker on Redis as its users see it, and what its parts share.

use super::{
    commands::{self, Commands},
    facts::{Facts, durability},
    failure::{BACKEND, closed, failed, late, named},
    health,
    keeper::Keeper,
    keys::Keys,
    members::{self, Members},
    mover::Mover,
    publish::Intake,
    reader::{Following, LogReader},
    settings::RedisStreamsSettings,
    topics::Topics,
    writer::Writer,
};
use crate::{
    Admin, Answer, Capabilities, Consumer, Durability, Health, Message, MessageBroker, Outcomes, Reader,
    Result, Statistics, Subscription, Target, counted::Counted,
};
use ropeway_store::redis::{Redis, RedisSettings, Server};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// How long a health request may take.
const HEALTH: Duration = Duration::from_secs(5);
/// How long it is tried to connect to a node of a cluster.
const NODE: Duration = Duration::from_secs(2);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(30);

/// The longest that a close waits.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A broker on Redis: one server, the primary that sentinels name, or a cluster.
#[derive(Debug)]
pub struct RedisStreams {
    shared: Arc<Shared>,
}

/// What the parts of a broker share.
#[derive(Debug)]
pub(super) struct Shared {
    redis: Redis,
    topics: Arc<Topics>,
    settings: RedisStreamsSettings,
    intake: Intake,
    facts: Arc<Facts>,
    pub(super) tasks: Arc<Tasks>,
    #[cfg(any(test, feature = "conformance"))]
    writer: tokio::task::AbortHandle,
    pub(super) counted: Arc<Counted>,
    pub(super) readers: Readers,
    pub(super) members: Members,
    closed: AtomicBool,
}

/// The tasks that look after topics.
#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) mover: Mover,
    pub(super) keeper: Keeper,
}

impl Tasks {
    fn start(topics: &Arc<Topics>, settings: &RedisStreamsSettings) -> Self {
        let keeper = Keeper::start(Arc::clone(topics), settings);
        Self { mover: Mover::start(Arc::clone(topics)), keeper }
    }

    /// Looks after a topic from now on.
    pub(super) fn watch(&self, topic: &crate::Topic) {
        self.mover.watch(topic);
        self.keeper.watch(topic);
    }

    fn stop(&self) {
        self.mover.stop();
        self.keeper.stop();
    }
}

/// The readers that are open.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Vec<Weak<Following>>>);

impl Readers {
    pub(super) fn add(&self, reader: &Arc<Following>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|reader| reader.strong_count() > 0);
        all.push(Arc::downgrade(reader));
    }

    fn end(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.iter().filter_map(Weak::upgrade).for_each(|reader| reader.end(closed().on(BACKEND)));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What was taken over and not answered by now has nobody who waits for it: it is written, if the runtime lives.
        self.readers.end();
    }
}

impl Shared {
    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(super) fn settings(&self) -> &RedisStreamsSettings {
        &self.settings
    }

    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }

    /// What the server said of itself when it was connected to last.
    pub(super) fn server(&self) -> Arc<Server> {
        self.facts.server()
    }

    /// Whether one script can touch all keys, so that a forward is one step. Not in a cluster, where they lie in different slots.
    pub(super) fn is_one_place(&self) -> bool {
        !self.redis.is_cluster()
    }

    /// What a call answers, within the time that the contract gives it; `Closed` after close.
    ///
    /// # Errors
    /// `Closed`, `Unavailable`, those of the call.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed().on(BACKEND));
        }
        let answer = timeout(CALL, call).await.unwrap_or_else(|_| Err(late(self.topics.commands.server())));
        answer.map_err(|error| error.on(BACKEND))
    }
}

impl RedisStreams {
    /// Connects to a server.
    ///
    /// # Errors
    /// `Unavailable`, `Unauthorized`, `Unsupported` for a server that is too old or a node of a cluster under the URL of a single server, `Invalid` for
    /// settings that cannot be meant, with the server and the way out.
    pub async fn connect(server: RedisSettings, settings: RedisStreamsSettings) -> Result<Arc<Self>> {
        Self::open(server, settings).await.map_err(|error| error.during("connect").on(BACKEND))
    }

    async fn open(mut server: RedisSettings, settings: RedisStreamsSettings) -> Result<Arc<Self>> {
        let settings = settings.checked()?;
        let keys = Keys::new(&settings.prefix)?;
        // Everything here goes over connections of one's own, which keep their order.
        server.pool_size = 1;
        server.min_idle = 0;
        if matches!(server.target, ropeway_store::redis::Target::Cluster(_)) {
            // What other nodes do waits for one that cannot be reached.
            server.connect_timeout = server.connect_timeout.min(NODE);
        }
        let redis = Redis::connect(server).await.map_err(failed)?;
        let first = commands::open(&redis).await.map_err(failed)?;
        if first.server().cluster && !redis.is_cluster() {
            let context = format!(
                "redis {}: it is a node of a cluster, of which it has a part only; use redis+cluster://",
                named(&redis)
            );
            return Err(crate::Error::new(crate::ErrorKind::Unsupported, context));
        }
        let facts = Arc::new(Facts::new(first.server()));
        let topics = Arc::new(Topics::new(Commands::over(redis.clone(), first), keys));
        let counted = Arc::<Counted>::default();
        let (intake, jobs) = Intake::new(&settings, Arc::clone(&counted));
        let connection = commands::open(&redis).await.map_err(failed)?;
        let tasks = Arc::new(Tasks::start(&topics, &settings));
        let writer = Writer::new(
            redis.clone(),
            connection,
            Arc::clone(&topics),
            settings.clone(),
            Arc::clone(&counted),
            Arc::clone(&tasks),
            Arc::clone(&facts),
        );
        let writing = tokio::spawn(writer.run(jobs));
        #[cfg(any(test, feature = "conformance"))]
        let writer = writing.abort_handle();
        drop(writing);
        let shared = Shared {
            redis,
            topics,
            settings,
            intake,
            facts,
            tasks,
            #[cfg(any(test, feature = "conformance"))]
            writer,
            counted,
            readers: Readers::default(),
            members: Members::default(),
            closed: AtomicBool::new(false),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.shared.call(call).await
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.shared.topics
    }

    pub(super) fn settings(&self) -> &RedisStreamsSettings {
        &self.shared.settings
    }

    /// What an acked message survives.
    pub(super) fn durability(&self) -> Durability {
        durability(&self.shared.facts.server())
    }

    /// Opens the broker that a URL names, so that a test can do more with it than the contract.
    ///
    /// # Errors
    /// As [`crate::connect`].
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub async fn of_url(url: &str) -> Result<Arc<Self>> {
        let (server, settings) = super::check(&crate::BrokerUrl::parse(url)?)?;
        Self::connect(server, settings).await
    }

    /// The scripts that run in Redis: name and text.
    #[cfg(feature = "conformance")]
    #[doc(hidden)]
    pub fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        super::scripts::ALL.iter().map(|script| (script.name, script.text))
    }

    /// Ends it as the end of the process would: nothing is flushed or told.
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub fn kill(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.intake.close();
        self.shared.writer.abort();
        self.shared.tasks.stop();
        self.shared.readers.end();
        self.shared.members.kill();
    }

    /// Appends an entry that is no message, so that a test sees what becomes of it.
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub fn plant_unreadable(
        &self,
        topic: &crate::Topic,
        partition: u32,
        raw: bytes::Bytes,
    ) -> Answer<Result<crate::Position>> {
        let (shared, topic) = (Arc::clone(&self.shared), topic.clone());
        Box::pin(async move {
            let log = shared.topics.keys.partition(&topic, partition);
            let words = [b"XADD", log.log().as_bytes(), b"NOMKSTREAM", b"*", b"raw", &raw];
            let id = shared.topics.commands.one(&words).await?;
            super::topics::position(&id).ok_or_else(|| super::topics::not_found(&topic))
        })
    }
}

impl MessageBroker for RedisStreams {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: BACKEND,
            atomic_forward: self.shared.is_one_place(),
            replay: true,
            compaction: false,
            shared_by_processes: true,
        }
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.shared.intake.take(to, batch)
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.call(async { members::subscribe(&shared, subscription).await }).await })
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let opened = Arc::clone(&shared);
            shared.call(async { Ok(Box::new(LogReader::open(opened)) as Box<dyn Reader>) }).await
        })
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    fn health(&self) -> Answer<Health> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            match timeout(
                HEALTH,
                Box::pin(shared.call(health::look(&shared.redis, &shared.topics, &shared.settings))),
            )
            .await
            {
                Ok(Ok(health)) => health,
                Ok(Err(error)) => Health::Down(error.to_string()),
                Err(_) => Health::Down(late(shared.topics.commands.server()).to_string()),
            }
        })
    }

    fn statistics(&self) -> Statistics {
        self.shared.counted.statistics()
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.intake.close();
        self.shared.tasks.stop();
        self.shared.readers.end();
        let members = self.shared.members.close(deadline);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let end = Instant::now() + deadline.min(LONGEST);
            members.await;
            while !shared.intake.is_empty() && Instant::now() < end {
                sleep(Duration::from_millis(1)).await;
            }
        })
    }
}
