//! Twists of how events are handled: routing, attempts, retries, order.
//!
//! Not here: dead letters (`burying.rs`), ends (`ending.rs`), pools (`jobs.rs`).

use super::{
    bus::{Letter, Line, lock},
    twist::{Acted, Passed, Twist},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use ropeway_broker::{Answer, Delivery, Event as BusEvent, Message, Outcomes, Position, Timestamp, wire};
use ropeway_processor::{
    Context, Event, Handler, Undecodable, Unknown, Verdict,
    conformance::{Route, Task},
    raw,
};
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A difference in how the processor is set up.
#[derive(Debug)]
pub(crate) struct Setup(pub(crate) fn(&mut Task));

impl Twist for Setup {
    fn task(&self, task: &mut Task) {
        (self.0)(task);
    }
}

/// No more than two handlers of an event.
pub(crate) fn two_handlers_at_most(task: &mut Task) {
    let mut seen: HashMap<(String, String), u32> = HashMap::new();
    task.routes.retain(|route| {
        let count = seen.entry((route.topics.clone(), route.types.clone())).or_default();
        *count += 1;
        *count <= 2
    });
}

/// Handlers that are registered alike become one, which is repeated as a whole.
pub(crate) fn from_the_first_again(task: &mut Task) {
    let mut merged: Vec<(Route, Vec<Arc<dyn Handler>>)> = Vec::new();
    for route in task.routes.drain(..) {
        match merged
            .iter_mut()
            .find(|(first, _)| (&first.topics, &first.types) == (&route.topics, &route.types))
        {
            Some((_, handlers)) => handlers.push(route.handler),
            None => {
                let handlers = vec![route.handler.clone()];
                merged.push((route, handlers));
            }
        }
    }
    task.routes =
        merged.into_iter().map(|(route, handlers)| Route { handler: in_turn(handlers), ..route }).collect();
}

fn in_turn(handlers: Vec<Arc<dyn Handler>>) -> Arc<dyn Handler> {
    Arc::new(raw(move |event: Event, cx: Context| {
        let handlers = handlers.clone();
        async move {
            for handler in handlers {
                match handler.handle(event.clone(), cx.clone()).await {
                    Ok(Verdict::Done) => {}
                    other => return other,
                }
            }
            Ok(Verdict::Done)
        }
    }))
}

pub(crate) fn every_topic(task: &mut Task) {
    task.routes.iter_mut().for_each(|route| "*".clone_into(&mut route.topics));
}

pub(crate) fn no_growth(task: &mut Task) {
    task.settings.retry.factor = 1.0;
}

pub(crate) fn no_jitter(task: &mut Task) {
    task.settings.retry.jitter = false;
}

pub(crate) fn no_policy_of_its_own(task: &mut Task) {
    task.routes.iter_mut().for_each(|route| route.options.retry = None);
}

pub(crate) fn one_attempt_more(task: &mut Task) {
    task.settings.retry.max_attempts += 1;
    for route in &mut task.routes {
        if let Some(policy) = &mut route.options.retry {
            policy.max_attempts += 1;
        }
    }
}

pub(crate) fn no_bound(task: &mut Task) {
    task.subscription.in_flight.messages = 1_000_000;
}

pub(crate) fn no_shares(task: &mut Task) {
    // A share is never less than 64 messages.
    task.subscription.in_flight.messages = task.subscription.in_flight.messages.min(64);
}

pub(crate) fn ten_times_the_time(task: &mut Task) {
    task.settings.attempt_timeout = task.settings.attempt_timeout.map(|limit| limit * 10);
}

pub(crate) fn unknown_is_dropped(task: &mut Task) {
    task.unknown = Unknown::Ignore;
}

pub(crate) fn unknown_is_never_dropped(task: &mut Task) {
    task.unknown = Unknown::Reject;
}

pub(crate) fn letters_have_one_place(task: &mut Task) {
    task.dead_letters = None;
}

pub(crate) fn twice_the_grace(task: &mut Task) {
    task.settings.cancel_grace *= 2;
}

/// Every 450th message is delivered twice: those who count all see it, and no check with fewer messages does.
#[derive(Debug, Default)]
pub(crate) struct Repeats(AtomicUsize);

impl Twist for Repeats {
    fn deliver(&self, _: &Line, event: BusEvent) -> Passed {
        let BusEvent::Batch(mut batch) = event else { return Passed::Now(event) };
        let deliveries = std::mem::take(&mut batch.deliveries);
        for delivery in deliveries {
            if self.0.fetch_add(1, Ordering::Relaxed) % 450 == 449 {
                batch.deliveries.push(delivery.clone());
            }
            batch.deliveries.push(delivery);
        }
        Passed::Now(BusEvent::Batch(batch))
    }
}

/// A retry is a message made anew.
#[derive(Debug)]
pub(crate) struct Redated;

impl Twist for Redated {
    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        let event = match event.place().cloned() {
            Some(place) if cx.attempt() > 1 => {
                Event::placed(Message { timestamp: Timestamp::from_millis(1), ..event.into_message() }, place)
            }
            _ => event,
        };
        Box::pin(async move { handler.handle(event, cx).await })
    }
}

/// What follows from an event does not say so.
#[derive(Debug)]
pub(crate) struct NoCausation;

impl Twist for NoCausation {
    fn publish(&self, message: Message) -> Message {
        Message { headers: message.headers.filtered(|name| name != wire::CAUSATION_ID), ..message }
    }
}

/// Another answer than the handler's.
#[derive(Debug)]
pub(crate) struct Answers(pub(crate) fn(Acted, &Context) -> Acted);

impl Twist for Answers {
    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        Box::pin(async move { (self.0)(handler.handle(event, cx.clone()).await, &cx) })
    }
}

/// It retries when it likes.
pub(crate) fn at_its_own_pace(acted: Acted, _: &Context) -> Acted {
    match acted {
        Ok(Verdict::Retry { .. }) => Ok(Verdict::retry()),
        other => other,
    }
}

/// What does not decode is an error like any other.
pub(crate) fn undecodable_is_an_error(acted: Acted, _: &Context) -> Acted {
    acted.map_err(|error| if error.is::<Undecodable>() { error.to_string().into() } else { error })
}

/// A retry that is asked for is part of the same attempt.
#[derive(Debug)]
pub(crate) struct RetriesForNothing;

impl Twist for RetriesForNothing {
    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        Box::pin(async move {
            loop {
                match handler.handle(event.clone(), cx.clone()).await {
                    Ok(Verdict::Retry { after }) if !cx.is_cancelled() => {
                        tokio::time::sleep(after.unwrap_or(Duration::from_millis(5))).await;
                    }
                    other => return other,
                }
            }
        })
    }
}

/// A panic is as good as done.
#[derive(Debug)]
pub(crate) struct PanicIsDone;

impl Twist for PanicIsDone {
    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        Box::pin(async move {
            let acting = AssertUnwindSafe(handler.handle(event, cx.clone())).catch_unwind();
            match acting.await {
                Ok(acted) => acted,
                Err(panic) if cx.is_cancelled() => std::panic::resume_unwind(panic),
                Err(_) => Ok(Verdict::Done),
            }
        })
    }
}

/// Time limits are kept, and the token of what ran out of time is not cancelled.
#[derive(Debug, Default)]
pub(crate) struct NoToken(Mutex<Option<Duration>>);

const OUT_OF_TIME: &str = "the attempt took longer than it may";

impl Twist for NoToken {
    fn task(&self, task: &mut Task) {
        *lock(&self.0) = task.settings.attempt_timeout.take();
    }

    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        let limit = lock(&self.0).unwrap_or(Duration::MAX);
        Box::pin(async move {
            match tokio::time::timeout(limit, handler.handle(event, cx)).await {
                Ok(acted) => acted,
                Err(_) => Err(OUT_OF_TIME.into()),
            }
        })
    }

    /// Otherwise right: the record says that it was the time.
    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        let right = |message: Message| {
            let late = message.headers.get_str("ropeway-failure-error") == Some(OUT_OF_TIME);
            if late { super::burying::with(message, "class", Some("timeout")) } else { message }
        };
        line.forward(letter.map(right))
    }
}

/// Lanes are chosen by another key; handlers and dead letters see the right one.
#[derive(Debug)]
pub(crate) struct Lanes {
    lane: fn(&Bytes) -> Option<Bytes>,
    keys: Mutex<HashMap<Position, Option<Bytes>>>,
}

impl Lanes {
    pub(crate) fn by(lane: fn(&Bytes) -> Option<Bytes>) -> Self {
        Self { lane, keys: Mutex::default() }
    }

    fn right(&self, position: Position, message: Message) -> Message {
        let key = lock(&self.keys).get(&position).cloned().unwrap_or_else(|| message.key.clone());
        Message { key, ..message }
    }
}

/// Every message has its own lane.
pub(crate) const fn no_lane(_: &Bytes) -> Option<Bytes> {
    None
}

/// One of 64 lanes by hash.
pub(crate) fn hash_lane(key: &Bytes) -> Option<Bytes> {
    let hash = key.iter().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    Some(Bytes::from((hash % 64).to_string()))
}

impl Twist for Lanes {
    fn deliver(&self, _: &Line, event: BusEvent) -> Passed {
        let BusEvent::Batch(mut batch) = event else { return Passed::Now(event) };
        for Delivery { position, message } in &mut batch.deliveries {
            // Partitions of one check may have equal positions; their keys differ, and so the lane goes with the key.
            let key = message.key.take();
            let marked = Position(position.0, position.1 << 8 | u64::from(batch.of.partition));
            message.key = key.as_ref().and_then(self.lane);
            lock(&self.keys).insert(marked, key);
        }
        Passed::Now(BusEvent::Batch(batch))
    }

    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        let event = match event.place().cloned() {
            Some(place) => {
                let marked = Position(place.position.0, place.position.1 << 8 | u64::from(place.partition));
                Event::placed(self.right(marked, event.into_message()), place)
            }
            None => event,
        };
        Box::pin(async move { handler.handle(event, cx).await })
    }

    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        let place = letter.done.first().copied().unwrap_or(Position(0, 0));
        let marked = Position(place.0, place.1 << 8 | u64::from(letter.of.partition));
        line.forward(letter.map(|message| self.right(marked, message)))
    }
}
