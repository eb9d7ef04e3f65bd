//! Where a double may differ from the broker it wraps.
//!
//! A [`Double`] sets one of the [`Hooks`]; everything else is passed on. Not here: the passing on (`wrap.rs`), the doubles (a file per
//! group of checks).

#![expect(clippy::type_complexity, reason = "a hook is as long as the call it stands in for")]

use ropeway_broker::{
    Answer, Consumer, Control, Event, Group, GroupInfo, Health, Message, MessageBroker, MessageId, Outcomes,
    Owned, Part, Position, PublisherSettings, Reader, Result, Start, Statistics, Subscription, Target,
    Timestamp, Topic, TopicInfo, TopicSpec,
    conformance::{Publishing, Store},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

/// A broker that differs from a correct one in one behaviour.
pub(crate) struct Double {
    /// What it does wrong, in words.
    pub name: &'static str,
    /// The check that must catch it.
    pub caught_by: &'static str,
    /// Checks that must fail with it, and why no double can do without.
    pub implied: &'static [(&'static str, &'static str)],
    /// Its difference, made anew for each store.
    pub hooks: fn() -> Hooks,
}

/// A double that is caught by one check and no other.
pub(crate) fn double(caught_by: &'static str, name: &'static str, hooks: fn() -> Hooks) -> Double {
    Double { name, caught_by, implied: &[], hooks }
}

/// The correct broker below, and what was done to its store.
#[derive(Debug)]
pub(crate) struct Scene {
    pub broker: Arc<dyn MessageBroker>,
    pub store: Arc<dyn Store>,
    /// How often the store was opened, this time included.
    pub opens: usize,
    /// Whether the last broker on it was crashed, not closed.
    pub crashed: bool,
    /// How many consumers joined each group, over all brokers on the store.
    pub joins: Arc<Mutex<HashMap<Group, usize>>>,
}

impl Scene {
    /// What time it is for the broker.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }
}

/// One consumer, from the side of the double.
#[derive(Debug)]
pub(crate) struct Side {
    pub scene: Arc<Scene>,
    pub control: Arc<dyn Control>,
    pub subscription: Subscription,
    /// Which of the consumers of its group it is, from 1.
    pub nth: usize,
}

/// What stands between a consumer or reader and who polls it.
pub(crate) type Tap = Box<dyn FnMut(&mut Source<'_>, &mut Context<'_>) -> Poll<Result<Event>> + Send>;
pub(crate) type Source<'a> = dyn FnMut(&mut Context<'_>) -> Poll<Result<Event>> + 'a;
pub(crate) type Joined = Result<Box<dyn Consumer>>;

type Hook<F> = Option<Box<F>>;

/// Where a double may differ; what is not set is passed on.
#[derive(Default)]
pub(crate) struct Hooks {
    pub publish: Hook<dyn Fn(&Scene, &Target, Vec<Message>) -> Answer<Outcomes> + Send + Sync>,
    pub publish_in_parts: Hook<dyn Fn(&Scene, &Target, &Arc<Vec<Message>>) -> Vec<Part> + Send + Sync>,
    pub subscribe: Hook<dyn Fn(&Scene, Subscription) -> Answer<Joined> + Send + Sync>,
    /// Runs when a store is opened again, before anybody uses it.
    pub reopened: Hook<dyn Fn(&Scene) -> Answer<()> + Send + Sync>,
    pub close: Hook<dyn Fn(&Scene, Duration) -> Answer<()> + Send + Sync>,
    pub health: Hook<dyn Fn(Health) -> Health + Send + Sync>,
    pub statistics: Hook<dyn Fn(Statistics) -> Statistics + Send + Sync>,
    pub publisher: Hook<dyn Fn(Arc<dyn Publishing>, &PublisherSettings) -> Arc<dyn Publishing> + Send + Sync>,
    pub consume: Hook<dyn Fn(&Arc<Side>) -> Tap + Send + Sync>,
    pub dropped: Hook<dyn Fn(&Side) + Send + Sync>,
    pub read: Hook<dyn Fn(&Arc<Scene>) -> Tap + Send + Sync>,
    pub control: ControlHooks,
    pub reader: ReaderHooks,
    pub admin: AdminHooks,
}

type Forward = dyn Fn(&Side, &Owned, &[Position], Vec<(Target, Message)>) -> Answer<Outcomes> + Send + Sync;

/// Where the control of a consumer may differ.
#[derive(Default)]
pub(crate) struct ControlHooks {
    pub ack: Hook<dyn Fn(&Side, &Owned, &[Position]) -> Result<()> + Send + Sync>,
    pub forward: Hook<Forward>,
    pub pause: Hook<dyn Fn(&Side, &Owned, bool) + Send + Sync>,
    pub give_up: Hook<dyn Fn(&Side, &Owned) + Send + Sync>,
    pub confirm: Hook<dyn Fn(&Side, Answer<Result<()>>) -> Answer<Result<()>> + Send + Sync>,
    pub flush: Hook<dyn Fn(&Side) -> Answer<Vec<(Owned, ropeway_broker::Error)>> + Send + Sync>,
    pub set_topics: Hook<dyn Fn(&Side, Vec<Topic>) -> Answer<Result<()>> + Send + Sync>,
    pub close: Hook<dyn Fn(&Side, Duration) -> Answer<Vec<(Owned, Vec<Position>)>> + Send + Sync>,
}

type Follow = dyn Fn(&Scene, &mut dyn Reader, &Topic, Option<u32>, Start) -> Answer<Result<()>> + Send + Sync;

/// Where a reader may differ.
#[derive(Default)]
pub(crate) struct ReaderHooks {
    pub follow: Hook<Follow>,
    pub unfollow: Hook<dyn Fn(&mut dyn Reader, &Topic, Option<u32>) + Send + Sync>,
}

type Purge = dyn Fn(&Scene, Topic, Option<u32>, Start) -> Answer<Result<()>> + Send + Sync;
type Seek = dyn Fn(&Scene, Group, Topic, Option<u32>, Start) -> Answer<Result<()>> + Send + Sync;

/// Where administration may differ. Those that take a result are asked after the correct broker answered.
#[derive(Default)]
pub(crate) struct AdminHooks {
    pub create: Hook<dyn Fn(&Scene, Topic, TopicSpec) -> Answer<Result<()>> + Send + Sync>,
    pub describe: Hook<dyn Fn(Result<TopicInfo>) -> Result<TopicInfo> + Send + Sync>,
    pub topics: Hook<dyn Fn(Result<Vec<Topic>>) -> Result<Vec<Topic>> + Send + Sync>,
    pub grow: Hook<dyn Fn(Result<()>) -> Result<()> + Send + Sync>,
    pub purge: Hook<Purge>,
    pub delete: Hook<dyn Fn(&Scene, Topic) -> Answer<Result<()>> + Send + Sync>,
    pub cancel: Hook<dyn Fn(&Scene, Topic, MessageId) -> Answer<Result<bool>> + Send + Sync>,
    pub groups: Hook<dyn Fn(Result<Vec<Group>>) -> Result<Vec<Group>> + Send + Sync>,
    pub describe_group: Hook<dyn Fn(Result<GroupInfo>) -> Result<GroupInfo> + Send + Sync>,
    pub seek: Hook<Seek>,
    pub delete_group: Hook<dyn Fn(&Scene, Group) -> Answer<Result<()>> + Send + Sync>,
}

/// A value that closures share.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is there.
pub(crate) fn now<T: Send + 'static>(value: T) -> Answer<T> {
    Box::pin(std::future::ready(value))
}

/// A tap that makes each event into some.
pub(crate) fn each_event(mut map: impl FnMut(Event) -> Vec<Event> + Send + 'static) -> Tap {
    let mut ready: VecDeque<Event> = VecDeque::new();
    Box::new(move |source, cx| {
        loop {
            if let Some(event) = ready.pop_front() {
                return Poll::Ready(Ok(event));
            }
            match source(cx) {
                Poll::Ready(Ok(event)) => ready.extend(map(event)),
                other => return other,
            }
        }
    })
}

/// A tap that changes the deliveries of each batch; a batch that has none left is not told.
pub(crate) fn each_batch(mut change: impl FnMut(&mut ropeway_broker::Batch) + Send + 'static) -> Tap {
    each_event(move |event| match event {
        Event::Batch(mut batch) => {
            change(&mut batch);
            if batch.deliveries.is_empty() { Vec::new() } else { vec![Event::Batch(batch)] }
        }
        other => vec![other],
    })
}

/// The payload of a message as text.
pub(crate) fn text(message: &Message) -> &str {
    message.payload.as_deref().and_then(|payload| std::str::from_utf8(payload).ok()).unwrap_or("")
}

/// An error of that kind that names nothing.
pub(crate) fn nameless(error: &ropeway_broker::Error) -> ropeway_broker::Error {
    ropeway_broker::Error::new(error.kind(), "it cannot be done")
}
