//! Publishing above the contract: single messages, in the background, with a callback, in batches nobody has to make.
//!
//! A [`Publisher`] is one concrete type over any broker, so that batching, bounds and ordered publishing mean the same everywhere. What
//! goes into which batch is decided in `queue.rs`; here are the calls, the waiting and the answers.

mod queue;
mod settings;

pub use settings::{PublishOrder, PublisherSettings};

use crate::{
    Error, ErrorKind, Failed, Message, MessageBroker, PublishFailed, Published, Receipt, Result, Target,
    ext::no_outcome,
};
use queue::{Entry, Next, Queue};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, timeout},
};

/// Publishes single messages, and makes batches of what is published at the same time.
///
/// Clones share everything. A message that was taken over is published even if nobody waits for it and all clones are dropped, as
/// long as the tokio runtime in which it was published runs. Where that runtime ends first, what waits is answered as possibly written
/// (`Closed`); the messages themselves are gone with it.
///
/// # Examples
/// ```
/// # use ropeway_broker::{*};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let broker = connect("memory:").await?;
/// let topic = Topic::new("orders")?;
/// broker.admin().create_topic(&topic, TopicSpec::partitions(2)).await?;
/// let publisher = Publisher::new(broker, PublisherSettings::default())?;
/// publisher.publish(&topic, Message::builder().key("a").payload("1").build()).await?;
/// let pending = publisher.enqueue(&topic, Message::builder().key("a").payload("2").build()).await?;
/// pending.await?;
/// publisher.close(std::time::Duration::from_secs(5)).await?;
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    broker: Arc<dyn MessageBroker>,
    settings: PublisherSettings,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Default)]
struct State {
    targets: HashMap<Target, Lane>,
    /// Messages that were taken over and not answered, by the number of flushes begun before them.
    open: BTreeMap<u64, usize>,
    flushes: u64,
    /// How many flushes wait: nobody lingers meanwhile.
    urged: usize,
}

/// What is on its way to one target.
struct Lane {
    queue: Queue<Waiting>,
    /// When the earliest timer that was started looks again.
    timer: Option<Instant>,
}

/// Whom to answer, and what to count then.
struct Waiting {
    tell: Option<Tell>,
    flush: u64,
    permits: (u32, u32),
}

type Tell = Box<dyn FnOnce(Result<Receipt, PublishFailed>) + Send>;

impl Publisher {
    /// A publisher over `broker`.
    ///
    /// # Errors
    /// `Invalid` names the setting that is out of bounds.
    pub fn new(broker: Arc<dyn MessageBroker>, settings: PublisherSettings) -> Result<Self> {
        settings.check()?;
        Ok(Self(Arc::new(Inner {
            broker,
            settings,
            messages: Arc::new(Semaphore::new(settings.in_flight.messages)),
            bytes: Arc::new(Semaphore::new(settings.in_flight.bytes)),
            state: Mutex::default(),
            answered: Notify::new(),
        })))
    }

    /// Publishes a message and waits for its outcome.
    ///
    /// # Errors
    /// The reason and the message; [`PublishFailed::may_be_written`] tells whether sending again may duplicate.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room: not published. Dropped later: published.
    pub async fn publish(&self, to: impl Into<Target>, message: Message) -> Result<Receipt, PublishFailed> {
        self.enqueue(to, message).await?.await
    }

    /// Waits for room, takes the message over, and answers with a handle to its outcome. Calls made one after the other keep their order.
    ///
    /// # Errors
    /// `Closed` after [`Self::close`], with the message.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room: not published.
    pub async fn enqueue(&self, to: impl Into<Target>, message: Message) -> Result<Pending, PublishFailed> {
        let (tell, outcome) = oneshot::channel();
        let tell: Tell = Box::new(move |result| _ = tell.send(result));
        self.take_over(to.into(), message, tell).await?;
        Ok(Pending(outcome))
    }

    /// Waits for room and takes the message over; `tell` is called with the outcome, on the runtime, once. It should be quick: what is
    /// published next waits for it.
    ///
    /// # Errors
    /// `Closed` after [`Self::close`], with the message; `tell` is not called then.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room: not published, and `tell` is not called.
    pub async fn publish_with(
        &self,
        to: impl Into<Target>,
        message: Message,
        tell: impl FnOnce(Result<Receipt, PublishFailed>) + Send + 'static,
    ) -> Result<(), PublishFailed> {
        self.take_over(to.into(), message, Box::new(tell)).await
    }

    /// Waits until everything that was taken over before the call has its outcome. What lingers goes at once.
    ///
    /// # Errors
    /// `Unavailable` says how many have none when the deadline is over; they go on.
    pub async fn flush(&self, deadline: Duration) -> Result<()> {
        let before = {
            let mut state = self.0.lock();
            let before = state.flushes;
            state.flushes += 1;
            before
        };
        let _urge = Urge::new(&self.0);
        self.0.pump_all();
        let left = || self.0.lock().open.range(..=before).map(|(_, count)| *count).sum::<usize>();
        let wait = async {
            loop {
                let answered = self.0.answered.notified();
                if left() == 0 {
                    return;
                }
                answered.await;
            }
        };
        timeout(deadline, wait).await.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                format!("{} messages have no outcome after {deadline:?}", left()),
            )
            .during("flush the publisher")
        })
    }

    /// Takes nothing more over, then flushes. Twice is once.
    ///
    /// # Errors
    /// As for [`Self::flush`].
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        self.0.messages.close();
        self.0.bytes.close();
        self.flush(deadline).await
    }

    /// How many messages are taken over and have no outcome.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.lock().open.values().sum()
    }

    async fn take_over(&self, to: Target, message: Message, tell: Tell) -> Result<(), PublishFailed> {
        let inner = &self.0;
        let size = u32::try_from(message.size().clamp(1, inner.settings.in_flight.bytes)).unwrap_or(u32::MAX);
        let permits = async {
            let one = inner.messages.acquire().await.ok()?;
            let bytes = inner.bytes.acquire_many(size).await.ok()?;
            one.forget();
            bytes.forget();
            Some((1, size))
        };
        let Some(permits) = permits.await else {
            let error = Error::new(ErrorKind::Closed, "the publisher is closed; make a new one");
            let failed = Box::new(Failed { error, message });
            return Err(PublishFailed { may_be_written: false, failed });
        };
        let mut state = inner.lock();
        let flush = state.flushes;
        *state.open.entry(flush).or_default() += 1;
        let entry = Entry::new(message, Instant::now(), Waiting { tell: Some(tell), flush, permits });
        let lane = state.targets.entry(to.clone());
        lane.or_insert_with(|| Lane { queue: Queue::new(inner.settings), timer: None }).queue.push(entry);
        inner.pump(&mut state, &to);
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pump_all(self: &Arc<Self>) {
        let mut state = self.lock();
        let targets: Vec<Target> = state.targets.keys().cloned().collect();
        for to in &targets {
            self.pump(&mut state, to);
        }
    }

    /// Publishes what is ready. The broker is called under the lock, so that calls keep the order of the queue.
    fn pump(self: &Arc<Self>, state: &mut State, to: &Target) {
        let urged = state.urged > 0;
        let Some(lane) = state.targets.get_mut(to) else {
            return;
        };
        loop {
            match lane.queue.next(Instant::now(), urged) {
                Next::Batch(batch) => {
                    let (messages, tracks): (Vec<_>, Vec<_>) =
                        batch.into_iter().map(|entry| (entry.message, entry.track)).unzip();
                    let answer = self.broker.publish(to, messages);
                    let (inner, to) = (Arc::clone(self), to.clone());
                    tokio::spawn(async move {
                        let outcomes = answer.await;
                        let missing = std::iter::repeat_with(no_outcome);
                        inner.settle(&to, tracks.into_iter().zip(outcomes.0.into_iter().chain(missing)));
                    });
                }
                Next::Wait(at) => {
                    if lane.timer.is_none_or(|timer| at < timer) {
                        lane.timer = Some(at);
                        tokio::spawn(look_again(Arc::clone(self), to.clone(), at));
                    }
                    return;
                }
                Next::Idle => break,
            }
        }
        if lane.queue.is_empty() {
            state.targets.remove(to);
        }
    }

    fn settle(
        self: &Arc<Self>,
        to: &Target,
        batch: impl IntoIterator<Item = (queue::Track<Waiting>, Published)>,
    ) {
        let done = {
            let mut state = self.lock();
            let done = state.targets.get_mut(to).map(|lane| lane.queue.settle(batch, Instant::now()));
            self.pump(&mut state, to);
            done.unwrap_or_default()
        };
        let mut flushes: BTreeMap<u64, usize> = BTreeMap::new();
        for (mut track, result) in done {
            *flushes.entry(track.answer.flush).or_default() += 1;
            let (messages, bytes) = track.answer.permits;
            if let Some(tell) = track.answer.tell.take() {
                tell(result);
            }
            self.messages.add_permits(messages as usize);
            self.bytes.add_permits(bytes as usize);
        }
        let mut state = self.lock();
        for (flush, count) in flushes {
            if let Some(open) = state.open.get_mut(&flush) {
                *open -= count;
                if *open == 0 {
                    state.open.remove(&flush);
                }
            }
        }
        drop(state);
        self.answered.notify_waiters();
    }
}

async fn look_again(inner: Arc<Inner>, to: Target, at: Instant) {
    tokio::time::sleep_until(at).await;
    let mut state = inner.lock();
    if let Some(lane) = state.targets.get_mut(&to).filter(|lane| lane.timer == Some(at)) {
        lane.timer = None;
    }
    inner.pump(&mut state, &to);
}

/// Nobody lingers while one of these lives.
struct Urge<'a>(&'a Inner);

impl<'a> Urge<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.lock().urged += 1;
        Self(inner)
    }
}

impl Drop for Urge<'_> {
    fn drop(&mut self) {
        self.0.lock().urged -= 1;
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("broker", &self.0.broker)
            .field("settings", &self.0.settings)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("flush", &self.flush).finish_non_exhaustive()
    }
}

/// The outcome of a message that was taken over: a future. Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "what was not acked is lost if nobody looks"]
pub struct Pending(oneshot::Receiver<Result<Receipt, PublishFailed>>);

impl Future for Pending {
    type Output = Result<Receipt, PublishFailed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| {
            told.unwrap_or_else(|_| {
                let error = Error::new(
                    ErrorKind::Closed,
                    "the runtime in which the message was published ended before there was an outcome",
                );
                let message = Message::builder().build();
                Err(PublishFailed { may_be_written: true, failed: Box::new(Failed { error, message }) })
            })
        })
    }
}
