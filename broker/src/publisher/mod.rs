//! Publishing above the contract: single messages, in the background, with a callback, in batches nobody has to make.
//!
//! A [`Publisher`] is one concrete type over any broker, so that batching, bounds and ordered publishing mean the same everywhere. What
//! goes into which batch is decided in `queue.rs`, batches that the broker has are in `asked.rs`; here are the calls, the waiting and the answers.

mod asked;
mod queue;
mod settings;

pub use settings::{PublishOrder, PublisherSettings};

use crate::{
    Answer, Error, ErrorKind, Failed, Message, MessageBroker, Outcomes, PublishFailed, Receipt, Result,
    Target, Topic,
};
use asked::Asked;
use queue::{Batch, Entry, Next, Queue};
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, timeout},
};

/// Publishes single messages, and makes batches of what is published at the same time.
///
/// Clones share everything. A message that was taken over is published even if nobody waits for it and all clones are dropped, as
/// long as the tokio runtime in which it was published runs. Where that runtime ends first, every message is given back (`Closed`): those
/// the broker had as possibly written, the others as not written.
///
/// Order is kept among messages of one topic, and apart from them among those for one partition of one's own choice.
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
    messages: Semaphore,
    bytes: Semaphore,
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Default)]
struct State {
    /// Few: to compare names costs less than to hash one.
    lanes: BTreeMap<Lane, OnTheWay>,
    /// Messages that were taken over and not answered, by the number of flushes begun before them.
    open: BTreeMap<u64, usize>,
    flushes: u64,
    /// How many flushes wait: nobody lingers meanwhile.
    urged: usize,
    closed: bool,
}

/// What keeps its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    topic: Topic,
    partition: Option<u32>,
}

struct OnTheWay {
    queue: Queue<Waiting>,
    /// When the timer that runs looks again.
    timer: Option<Instant>,
}

/// Whom to answer, and what to count then.
struct Waiting {
    tell: Tell,
    flush: u64,
    bytes: u32,
}

/// Who is told the outcome.
enum Tell {
    /// Who has a [`Pending`].
    Pending(oneshot::Sender<Result<Receipt, PublishFailed>>),
    Callback(Box<dyn FnOnce(Result<Receipt, PublishFailed>) + Send>),
}

type Done = queue::Done<Waiting>;

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
            messages: Semaphore::new(settings.in_flight.messages),
            bytes: Semaphore::new(settings.in_flight.bytes),
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
        self.take_over(to.into(), message, Tell::Pending(tell)).await?;
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
        self.take_over(to.into(), message, Tell::Callback(Box::new(tell))).await
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
        let lanes: Vec<Lane> = self.0.lock().lanes.keys().cloned().collect();
        for lane in &lanes {
            self.0.pump(lane);
        }
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
        self.0.lock().closed = true;
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
        let bytes =
            u32::try_from(message.size().clamp(1, inner.settings.in_flight.bytes)).unwrap_or(u32::MAX);
        let room = async {
            let one = inner.messages.acquire().await.ok()?;
            Some((one, inner.bytes.acquire_many(bytes).await.ok()?))
        };
        let room = room.await;
        let lane = Lane { topic: to.topic, partition: to.partition };
        let mut ready = Ready::default();
        let mut state = inner.lock();
        let Some((one, many)) = room.filter(|_| !state.closed) else {
            let error = Error::new(ErrorKind::Closed, "the publisher is closed; make a new one");
            let failed = Box::new(Failed { error, message });
            return Err(PublishFailed { may_be_written: false, failed });
        };
        one.forget();
        many.forget();
        let flush = state.flushes;
        *state.open.entry(flush).or_default() += 1;
        let now = Instant::now();
        let entry = Entry::new(message, to.at_least, now, Waiting { tell, flush, bytes });
        let urged = state.urged > 0;
        // Not by `entry`, which wants a key of its own for each message.
        let on_the_way = match state.lanes.get_mut(&lane) {
            Some(on_the_way) => on_the_way,
            None => {
                let new = OnTheWay { queue: Queue::new(inner.settings), timer: None };
                state.lanes.entry(lane.clone()).or_insert(new)
            }
        };
        on_the_way.queue.push(entry);
        inner.publish(&lane, on_the_way, now, urged, &mut ready);
        drop(state);
        ready.start();
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what is ready.
    fn pump(self: &Arc<Self>, lane: &Lane) {
        let mut ready = Ready::default();
        let mut state = self.lock();
        let urged = state.urged > 0;
        let Some(on_the_way) = state.lanes.get_mut(lane) else { return };
        self.publish(lane, on_the_way, Instant::now(), urged, &mut ready);
        if on_the_way.queue.is_empty() && on_the_way.timer.is_none() {
            state.lanes.remove(lane);
        }
        drop(state);
        ready.start();
    }

    /// Publishes what is ready of a lane. The broker is called under the lock, so that calls keep the order of the queue; tasks are
    /// started outside of it, as a runtime that is ending drops them at once. So is `ready` dropped where the backend panics.
    fn publish(
        self: &Arc<Self>,
        lane: &Lane,
        on_the_way: &mut OnTheWay,
        now: Instant,
        urged: bool,
        ready: &mut Ready,
    ) {
        // Most messages wait for a batch that is on its way.
        if on_the_way.queue.is_busy() {
            return;
        }
        // Outside of a runtime nothing can be started: what is queued waits for the next call from inside one.
        if Handle::try_current().is_err() {
            return;
        }
        loop {
            match on_the_way.queue.next(now, urged) {
                Next::Batch(Batch { messages, tickets, at_least }) => {
                    let to = Target { topic: lane.topic.clone(), partition: lane.partition, at_least };
                    let messages = Arc::new(messages);
                    let parts = asked::deal(tickets, self.broker.publish_in_parts(&to, &messages));
                    let left = Arc::new(AtomicUsize::new(parts.len()));
                    ready.asked.extend(parts.into_iter().map(|(tickets, answer)| {
                        let (inner, messages, left) =
                            (Arc::clone(self), Arc::clone(&messages), Arc::clone(&left));
                        (answer, Asked { inner, lane: lane.clone(), messages, tickets, left })
                    }));
                }
                Next::Wait(at) => {
                    if on_the_way.timer.is_none_or(|running| at < running) {
                        on_the_way.timer = Some(at);
                        ready.timer = Some(Timer { inner: Arc::clone(self), lane: lane.clone(), at });
                    }
                    return;
                }
                Next::Idle => return,
            }
        }
    }

    /// Tells what is final. A callback that panics harms nobody else.
    fn tell(&self, done: impl IntoIterator<Item = Done>) {
        let (mut count, mut bytes) = (0, 0);
        // Those that follow each other mostly have the same number.
        let mut flushes: Vec<(u64, usize)> = Vec::new();
        for (waiting, result) in done {
            count += 1;
            bytes += waiting.bytes as usize;
            match flushes.last_mut() {
                Some((flush, count)) if *flush == waiting.flush => *count += 1,
                _ => flushes.push((waiting.flush, 1)),
            }
            let tell = || match waiting.tell {
                // Who dropped it does not want to know.
                Tell::Pending(pending) => _ = pending.send(result),
                Tell::Callback(tell) => tell(result),
            };
            if catch_unwind(AssertUnwindSafe(tell)).is_err() {
                tracing::error!("the callback of a published message panicked");
            }
        }
        self.messages.add_permits(count);
        self.bytes.add_permits(bytes);
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

/// What is to be started, and dropped, without the lock of the state.
#[derive(Default)]
struct Ready {
    asked: Vec<(Answer<Outcomes>, Asked)>,
    timer: Option<Timer>,
}

impl Ready {
    fn start(self) {
        for (answer, asked) in self.asked {
            tokio::spawn(async move {
                let asked = asked;
                let outcomes = answer.await;
                if let Some(gathering) = asked.answered(outcomes) {
                    gathering.gather().await;
                }
            });
        }
        if let Some(timer) = self.timer {
            tokio::spawn(async move {
                tokio::time::sleep_until(timer.at).await;
                let (inner, lane) = (Arc::clone(&timer.inner), timer.lane.clone());
                drop(timer);
                inner.pump(&lane);
            });
        }
    }
}

/// Looks at a lane again later. Dropped with its runtime, it leaves room for another.
struct Timer {
    inner: Arc<Inner>,
    lane: Lane,
    at: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if let Some(on_the_way) = state.lanes.get_mut(&self.lane)
            && on_the_way.timer == Some(self.at)
        {
            on_the_way.timer = None;
        }
    }
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
        // The sender is only dropped untold when the publisher itself is torn down together with its runtime.
        Pin::new(&mut self.0).poll(cx).map(|told| {
            told.unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::Closed, "the publisher is gone, and the message with it");
                let failed = Box::new(Failed { error, message: Message::builder().build() });
                Err(PublishFailed { may_be_written: true, failed })
            })
        })
    }
}

#[cfg(test)]
mod tests;
