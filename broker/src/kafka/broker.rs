//! The broker on Kafka as its users see it, and what its parts share.

use super::{
    counted::Counted,
    damage::Damages,
    delay,
    distance::{Distance, FAR},
    failure::{self, BACKEND, closed, failed, late},
    members::{self, Members},
    publish::Publishing,
    raw::{self, Notes, Trouble},
    reader::{self, Readers},
    settings::KafkaSettings,
    topics::{ANSWER, Topics},
};
use crate::{
    Admin, Answer, Capabilities, Consumer, Error, Health, Message, MessageBroker, Outcomes, Part, Reader,
    Result, Statistics, Subscription, Target, delay::Delay,
};
use rdkafka::{admin::AdminClient, client::DefaultClientContext};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

/// How long a health request may take.
const HEALTH: Duration = Duration::from_secs(5);
/// How long it is tried to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it is tried where no server can be reached at all.
const UNREACHABLE: Duration = Duration::from_secs(3);
/// How long one attempt to connect takes.
const ATTEMPT: Duration = Duration::from_millis(500);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(30);

/// The longest that a close waits.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A broker on Kafka.
#[derive(Debug)]
pub struct Kafka {
    pub(super) shared: Arc<Shared>,
    moves: Arc<Moves>,
    /// The one in which it was connected: who closes it may do so from outside of any.
    runtime: Handle,
}

/// What the parts of a broker share.
pub(super) struct Shared {
    pub(super) settings: KafkaSettings,
    pub(super) servers: Arc<str>,
    pub(super) topics: Arc<Topics>,
    /// Questions that the crate does not know.
    pub(super) raw: Arc<raw::Admin>,
    /// Questions that the crate knows.
    pub(super) admin: Arc<AdminClient<DefaultClientContext>>,
    pub(super) notes: Arc<Notes>,
    pub(super) counted: Arc<Counted>,
    pub(super) readers: Readers,
    pub(super) damages: Damages,
    pub(super) members: Members,
    pub(super) distance: Arc<Distance>,
    pub(super) delay: Arc<Delay>,
    publishing: Publishing,
    closed: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.readers.end();
    }
}

impl Shared {
    /// The servers as the URL names them: for errors.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What a call answers, within the time that the contract gives it; `Closed` after close.
    ///
    /// # Errors
    /// `Closed`, `Unavailable`, those of the call.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_closed() {
            return Err(closed().on(BACKEND));
        }
        let answer = timeout(CALL, call).await.unwrap_or_else(|_| Err(late(&self.servers)));
        answer.map_err(|error| error.on(BACKEND))
    }

    /// Asks the servers something that blocks, with the time that it may take.
    ///
    /// # Errors
    /// Those of the servers and of the connection.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&raw::Admin, Duration) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let admin = Arc::clone(&self.raw);
        let asked = tokio::task::spawn_blocking(move || question(&admin, ANSWER)).await;
        asked.map_err(|_| late(&self.servers))?.map_err(|trouble| self.failed(&trouble))
    }

    /// Looks how far away a server is, which takes [`FAR`] at the most.
    pub(super) async fn look_how_far(&self) {
        let distance = Arc::clone(&self.distance);
        let asked = self.ask(move |admin, wait| {
            let start = Instant::now();
            admin.nodes(wait)?;
            distance.took(start.elapsed());
            Ok(())
        });
        _ = timeout(FAR, asked).await;
    }

    /// The error of the contract. Where a call was just out of time, the reason that the clients were told is the better one.
    pub(super) fn failed(&self, trouble: &Trouble) -> Error {
        failure::told(&self.servers, trouble, &self.notes)
    }

    /// Publishes a batch: what is due later waits in an internal topic.
    pub(super) fn publish(self: &Arc<Self>, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        if batch.iter().all(|message| message.deliver_at.is_none()) {
            return self.put(to, batch);
        }
        self.delay.publish(&delay::below(self), to, batch)
    }

    /// The same in parts, one for each partition where that is worth it.
    fn publish_in_parts(self: &Arc<Self>, to: &Target, batch: &Arc<Vec<Message>>) -> Vec<Part> {
        if batch.iter().all(|message| message.deliver_at.is_none()) {
            return self.publishing.take_in_parts(to, batch);
        }
        vec![Part::whole(batch.len(), self.delay.publish(&delay::below(self), to, batch.to_vec()))]
    }

    /// Publishes a batch at once.
    pub(super) fn put(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.publishing.take(to, batch)
    }
}

/// What is delayed is moved as long as somebody holds this: the broker, and members, which may outlive it.
#[derive(Debug)]
pub(super) struct Moves(Arc<Shared>);

impl Drop for Moves {
    fn drop(&mut self) {
        // Its tasks hold what the parts share.
        self.0.delay.stop();
    }
}

impl Kafka {
    /// Connects to the servers.
    ///
    /// # Errors
    /// `Unavailable`, `Unauthorized`, `Invalid` for settings or a certificate that cannot be meant; the text names the servers and the way out.
    pub async fn connect(settings: KafkaSettings) -> Result<Arc<Self>> {
        Self::open(settings).await.map_err(|error| error.during("connect").on(BACKEND))
    }

    async fn open(settings: KafkaSettings) -> Result<Arc<Self>> {
        settings.check()?;
        settings.check_files().await?;
        let servers: Arc<str> = settings.named().into();
        let notes = Arc::<Notes>::default();
        let counted = Arc::<Counted>::default();
        let conf = settings.admin().conf()?;
        let raw = raw::Admin::open(conf, Arc::clone(&notes)).map_err(|trouble| failed(&servers, &trouble))?;
        let raw = Arc::new(raw);
        let admin = settings.admin().config().create::<AdminClient<DefaultClientContext>>();
        let admin = Arc::new(admin.map_err(|error| failure::failed_by_crate(&servers, &error))?);
        let topics = Arc::new(Topics::new(Arc::clone(&raw), Arc::clone(&admin), Arc::clone(&servers)));
        // It begins to ask for its number while we wait for a server.
        let publishing = Publishing::open(&settings, &topics, &notes, &counted)?;
        reach(&servers, &raw, &notes).await?;
        let shared = Shared {
            settings,
            servers,
            topics,
            raw,
            admin,
            notes,
            counted,
            readers: Readers::default(),
            damages: Damages::default(),
            members: Members::default(),
            distance: Arc::default(),
            delay: Arc::default(),
            publishing,
            closed: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let moves = Arc::new(Moves(Arc::clone(&shared)));
        Ok(Arc::new(Self { shared, moves, runtime: Handle::current() }))
    }

    /// Opens the broker that a URL names, so that a test can do more with it than the contract.
    ///
    /// # Errors
    /// As [`crate::connect`].
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub async fn of_url(url: &str) -> Result<Arc<Self>> {
        Self::connect(super::check(&crate::BrokerUrl::parse(url)?)?).await
    }

    /// Makes the clients that publish give up for good, as they do when the servers refuse their sequence.
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub fn break_publisher(&self) {
        self.shared.publishing.break_off();
    }

    /// What an answer to a member is to bring at the most, in bytes, for how far away the servers are.
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    #[must_use]
    pub fn answer(&self) -> usize {
        self.shared.distance.answer()
    }

    /// Ends it as the end of the process would: nothing is flushed or told.
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub fn kill(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.publishing.kill();
        self.shared.delay.stop();
        self.shared.readers.end();
        self.shared.members.kill();
    }
}

/// Waits until a server answers.
///
/// # Errors
/// What the clients were told last, or `Unavailable`.
async fn reach(servers: &Arc<str>, admin: &Arc<raw::Admin>, notes: &Arc<Notes>) -> Result<()> {
    let start = Instant::now();
    loop {
        let asked = Arc::clone(admin);
        let asked = tokio::task::spawn_blocking(move || asked.nodes(ATTEMPT)).await;
        let trouble = match asked {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(trouble)) => trouble,
            Err(_) => return Err(late(servers)),
        };
        let over = start.elapsed() >= if notes.brokers_down() { UNREACHABLE } else { CONNECT };
        if over || notes.refused().is_some() || failure::is_permanent(trouble.code) {
            return Err(failure::told(servers, &trouble, notes));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl MessageBroker for Kafka {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: BACKEND,
            atomic_forward: false,
            replay: true,
            compaction: true,
            shared_by_processes: true,
        }
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        if self.shared.is_closed() {
            // While it closes, what is delayed is still published.
            return Box::pin(std::future::ready(self.shared.publishing.refuse(to, closed(), batch)));
        }
        self.shared.publish(to, batch)
    }

    fn publish_in_parts(&self, to: &Target, batch: &Arc<Vec<Message>>) -> Vec<Part> {
        if self.shared.is_closed() {
            let refused = self.shared.publishing.refuse(to, closed(), batch.to_vec());
            return vec![Part::whole(batch.len(), Box::pin(std::future::ready(refused)))];
        }
        self.shared.publish_in_parts(to, batch)
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let (shared, moves) = (Arc::clone(&self.shared), Arc::clone(&self.moves));
        Box::pin(async move { shared.call(members::subscribe(&shared, subscription, Some(moves))).await })
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.call(async { reader::open(&shared) }).await })
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    fn health(&self) -> Answer<Health> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let asked = shared.call(shared.ask(|admin, _| admin.nodes(HEALTH - ATTEMPT)));
            match timeout(HEALTH, asked).await {
                Ok(Ok(_)) => Health::Up,
                Ok(Err(error)) => Health::Down(error.to_string()),
                Err(_) => Health::Down(format!("no answer within {HEALTH:?}")),
            }
        })
    }

    fn statistics(&self) -> Statistics {
        self.shared.counted.statistics()
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        let deadline = deadline.min(LONGEST);
        self.shared.closed.store(true, Ordering::Release);
        self.shared.readers.end();
        let shared = Arc::clone(&self.shared);
        let end = Instant::now() + deadline;
        // Who moves delayed messages finishes first: it is a member, and publishes.
        let idle = self.shared.delay.is_idle().then(|| self.shared.members.close(deadline));
        if idle.is_some() {
            self.shared.publishing.stop();
        }
        // A task, so that a dropped answer takes nothing back.
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let closed = runtime.spawn(async move {
            match idle {
                Some(members) => members.await,
                None => {
                    shared.delay.close(deadline / 2).await;
                    shared.publishing.stop();
                    shared.members.close(end.saturating_duration_since(Instant::now())).await;
                }
            }
            shared.publishing.close(end.saturating_duration_since(Instant::now())).await;
        });
        Box::pin(async move { _ = closed.await })
    }
}
