//! What handles events: a trait, and closures that implement it.
//!
//! Not here: which handler gets which event (`router/`).

use crate::{BoxError, Context, Event, RetryPolicy, Verdict};
use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Fuse},
};
use serde::de::DeserializeOwned;
use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};
use tokio_util::sync::ReusableBoxFuture;

/// What a handler answers.
pub(crate) type Handled = Result<Verdict, BoxError>;

/// Handles events. Implement it for a type with state, or use [`json`] or [`raw`] for a closure.
///
/// It may be called for many keys at a time, for one key only one at a time. At least once: after a crash or a lost
/// partition the same event comes again, so what it does should bear repeating.
///
/// An error is tried again by policy; [`Undecodable`](crate::Undecodable) as an error is a rejection. A panic is caught and counts as an
/// error. Runs are spread over tasks on the caller's tokio runtime, so computing is fine where that has several threads; handlers that
/// were seen to return within a few microseconds are run by the processor's own task, as far as they go at once. What blocks a thread belongs in `tokio::task::spawn_blocking`. The future is dropped when an attempt takes too long, or some time after [`Context::cancelled`].
pub trait Handler: Send + Sync + 'static {
    /// Handles one event.
    fn handle(&self, event: Event, cx: Context) -> BoxFuture<'_, Result<Verdict, BoxError>>;

    /// Starts to do what [`Self::handle`] does in memory that is used again and again: what processors call. There is no need to implement it.
    /// What [`raw`] and [`json`] make does, since it knows its future, and so asks for no memory for an event.
    fn start(self: Arc<Self>, event: Event, cx: Context, slot: Slot) -> Started {
        slot.start(async move { self.handle(event, cx).await })
    }
}

impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn handle(&self, event: Event, cx: Context) -> BoxFuture<'_, Handled> {
        (**self).handle(event, cx)
    }

    fn start(self: Arc<Self>, event: Event, cx: Context, slot: Slot) -> Started {
        H::start((*self).clone(), event, cx, slot)
    }
}

/// A place for the future of an attempt: the memory of the one before it, which is used again where the next one is of the same size.
#[derive(Debug, Default)]
pub struct Slot(Option<ReusableBoxFuture<'static, Handled>>);

impl Slot {
    /// Puts a future there. It is dropped as soon as it is ready.
    pub fn start<F>(self, attempt: F) -> Started
    where
        F: Future<Output = Result<Verdict, BoxError>> + Send + 'static,
    {
        // What is ready is dropped then, and not when the next one takes its place.
        let attempt: Fuse<F> = attempt.fuse();
        Started(Some(match self.0 {
            Some(mut place) => {
                place.set(attempt);
                place
            }
            None => ReusableBoxFuture::new(attempt),
        }))
    }
}

/// An attempt in its [`Slot`]. Made by [`Slot::start`].
#[derive(Debug)]
#[must_use = "an attempt does nothing unless it is polled"]
pub struct Started(Option<ReusableBoxFuture<'static, Handled>>);

impl Started {
    /// What the handler answers, once.
    #[inline]
    pub(crate) fn poll_handled(&mut self, cx: &mut TaskContext<'_>) -> Poll<Handled> {
        self.0.as_mut().map_or(Poll::Pending, |attempt| attempt.poll(cx))
    }

    /// The slot for the next.
    #[inline]
    pub(crate) fn into_slot(self) -> Slot {
        Slot(self.0)
    }
}

/// What the handler answers, and the slot for the next.
impl Future for Started {
    type Output = (Handled, Slot);

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.poll_handled(cx).map(|handled| (handled, Slot(self.0.take())))
    }
}

/// What distinguishes a handler where it is registered.
#[derive(Clone, Debug, Default)]
pub struct HandlerOptions {
    /// The name in metrics, logs and dead letters; at most 128 bytes. `None`: the patterns it is registered for.
    pub name: Option<String>,
    /// How often and how soon it is tried again. `None`: as the processor says.
    pub retry: Option<RetryPolicy>,
}

impl HandlerOptions {
    /// With that name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), retry: None }
    }

    /// With a retry policy of its own.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }
}

/// A handler of events as they are.
///
/// ```
/// use ropeway_processor::{Router, Verdict, raw};
/// let router = Router::new().on("order.*", raw(|event, cx| async move {
///     println!("attempt {} with {} bytes", cx.attempt(), event.payload().map_or(0, |p| p.len()));
///     Ok::<_, std::io::Error>(Verdict::Done)
/// }));
/// ```
pub fn raw<F, U, E>(handle: F) -> Raw<F>
where
    F: Fn(Event, Context) -> U + Send + Sync + 'static,
    U: Future<Output = Result<Verdict, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    Raw(handle)
}

/// Made by [`raw`].
pub struct Raw<F>(F);

impl<F> fmt::Debug for Raw<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw")
    }
}

impl<F, U, E> Handler for Raw<F>
where
    F: Fn(Event, Context) -> U + Send + Sync + 'static,
    U: Future<Output = Result<Verdict, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    fn handle(&self, event: Event, cx: Context) -> BoxFuture<'_, Handled> {
        Box::pin(async move { (self.0)(event, cx).await.map_err(Into::into) })
    }

    fn start(self: Arc<Self>, event: Event, cx: Context, slot: Slot) -> Started {
        slot.start((self.0)(event, cx).map_err(Into::into))
    }
}

/// A handler of events whose payload is JSON of a type. What does not decode is rejected with the place in the document; the
/// event itself is in [`Context::event`].
///
/// ```
/// use ropeway_processor::{Context, Router, Verdict, json};
/// #[derive(serde::Deserialize)]
/// struct Order { total: f64 }
/// let router = Router::new().on("order.created", json(|order: Order, _: Context| async move {
///     if order.total < 0.0 { return Ok(Verdict::reject("the total is negative")); }
///     Ok::<_, std::io::Error>(Verdict::Done)
/// }));
/// ```
pub fn json<T, F, U, E>(handle: F) -> Json<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Context) -> U + Send + Sync + 'static,
    U: Future<Output = Result<Verdict, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    Json(handle, PhantomData)
}

/// Made by [`json`].
pub struct Json<T, F>(F, PhantomData<fn(T)>);

impl<T, F> fmt::Debug for Json<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<T, F, U, E> Json<T, F>
where
    T: DeserializeOwned,
    F: Fn(T, Context) -> U,
    U: Future<Output = Result<Verdict, E>>,
    E: Into<BoxError>,
{
    async fn decoded(&self, event: Event, cx: Context) -> Handled {
        let value = event.json::<T>()?;
        drop(event);
        (self.0)(value, cx).await.map_err(Into::into)
    }
}

impl<T, F, U, E> Handler for Json<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Context) -> U + Send + Sync + 'static,
    U: Future<Output = Result<Verdict, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    fn handle(&self, event: Event, cx: Context) -> BoxFuture<'_, Handled> {
        Box::pin(self.decoded(event, cx))
    }

    fn start(self: Arc<Self>, event: Event, cx: Context, slot: Slot) -> Started {
        slot.start(async move { self.decoded(event, cx).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    /// The place of an attempt.
    fn place(started: &mut Started) -> *const () {
        std::ptr::from_ref(&*started.0.as_mut().unwrap().get_pin()).cast()
    }

    #[tokio::test]
    async fn attempts_of_one_size_have_the_same_memory_and_what_is_ready_is_dropped() {
        let held = Arc::new(AtomicUsize::new(0));
        let attempt = |answer: &Verdict| {
            let (held, answer) = (held.clone(), answer.clone());
            // A future that keeps what it has when it is ready.
            poll_fn(move |_| {
                held.fetch_add(1, Relaxed);
                Poll::Ready(Ok(answer.clone()))
            })
        };
        let mut slot = Slot::default();
        let mut first = None;
        for answer in [Verdict::Done, Verdict::retry(), Verdict::reject("no")] {
            let mut started = slot.start(attempt(&answer));
            let at = place(&mut started);
            assert_eq!(*first.get_or_insert(at), at);
            let handled;
            (handled, slot) = started.await;
            assert_eq!(handled.unwrap(), answer);
            assert_eq!(Arc::strong_count(&held), 1, "what was ready is still there");
        }
        // One of another size has memory of its own.
        let large = [7_u8; 1000];
        let (handled, _) = slot.start(async move { Ok(Verdict::reject(format!("{}", large.len()))) }).await;
        assert_eq!((handled.unwrap(), held.load(Relaxed)), (Verdict::reject("1000"), 3));
    }

    #[tokio::test]
    async fn what_is_handled_is_the_same_in_a_slot_and_without_one() {
        let raw =
            raw(
                |event: Event, _| async move { Ok::<_, BoxError>(Verdict::reject(event.key_str().unwrap())) },
            );
        let json = json(|n: u8, _| async move { Ok::<_, BoxError>(Verdict::reject(n.to_string())) });
        let handlers: [Arc<dyn Handler>; 3] = [Arc::new(raw), Arc::new(json), Arc::new(Arc::new(Plain))];
        let event = |payload: &str| -> Event {
            ropeway_broker::Message::builder().key("k").payload(payload.to_owned()).build().into()
        };
        let mut slot = Slot::default();
        for (handler, payload) in handlers.iter().flat_map(|handler| [(handler, "7"), (handler, "x")]) {
            let cx = || Context::new(event(payload), 1, Arc::default(), None);
            let plain = handler.handle(event(payload), cx()).await.map_err(|error| error.to_string());
            let handled;
            (handled, slot) = handler.clone().start(event(payload), cx(), slot).await;
            assert_eq!(handled.map_err(|error| error.to_string()), plain, "{payload}");
        }
    }

    /// Boxes its future, as whoever implements the one method does.
    struct Plain;

    impl Handler for Plain {
        fn handle(&self, event: Event, _: Context) -> BoxFuture<'_, Handled> {
            Box::pin(async move { event.payload().map(|_| Verdict::Done).ok_or_else(|| "no payload".into()) })
        }
    }
}
