//! A broker that is another one, and writes down what is settled through it: acks, their confirmation, dead letters.
//!
//! It sits below the processor, so that what the processor tells the bus is seen and not what it says about itself.
//! Not here: publishes and handlers, which the worker writes down (`worker.rs`).

use crate::{
    history::{Event as Line, Id, Writer},
    traffic,
};
use futures::future::FutureExt;
use ropeway_broker::{
    Admin, Answer, Capabilities, Consumer, Control, Error, Event, Health, Message, MessageBroker, Outcomes,
    Owned, Position, Reader, Result, Statistics, Subscription, Target, Topic,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

/// How often a member asks for its acks to be made durable: often enough to confirm many, seldom enough to leave some open.
const CONFIRM: Duration = Duration::from_millis(60);

/// The broker.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn MessageBroker>,
    history: Writer,
    members: AtomicU32,
}

impl Watched {
    pub(crate) fn around(inner: Arc<dyn MessageBroker>, history: Writer) -> Arc<Self> {
        Arc::new(Self { inner, history, members: AtomicU32::new(0) })
    }
}

impl MessageBroker for Watched {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.inner.publish(to, batch)
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let answer = self.inner.subscribe(subscription);
        let member = self.members.fetch_add(1, Ordering::Relaxed);
        let history = self.history.clone();
        let atomic = self.capabilities().atomic_forward;
        async move {
            let inner = answer.await?;
            let state = Mutex::default();
            let control = Arc::new(WatchedControl { inner: inner.control(), atomic, member, history, state });
            tokio::spawn(confirm(Arc::clone(&control)));
            Ok(Box::new(WatchedConsumer { inner, control }) as Box<dyn Consumer>)
        }
        .boxed()
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        self.inner.read()
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    fn health(&self) -> Answer<Health> {
        self.inner.health()
    }

    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        self.inner.close(deadline)
    }
}

#[derive(Debug)]
struct WatchedConsumer {
    inner: Box<dyn Consumer>,
    control: Arc<WatchedControl>,
}

impl Consumer for WatchedConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let event = self.inner.poll_next(cx);
        // Nothing here makes a gap or a record that is no message: one that is told is a loss.
        if let Poll::Ready(Ok(Event::Unreadable { .. } | Event::Gap { .. })) = &event {
            traffic::stop(&format!("a member was told {event:?}"));
        }
        if let Poll::Ready(Ok(Event::Batch(batch))) = &event {
            let mut state = self.control.lock();
            for delivery in &batch.deliveries {
                match traffic::id(&delivery.message) {
                    Ok(id) => {
                        state.delivered.insert((batch.of.clone(), delivery.position), id);
                    }
                    Err(why) => traffic::stop(&why),
                }
            }
        }
        event
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::clone(&self.control) as Arc<dyn Control>
    }
}

#[derive(Debug)]
struct WatchedControl {
    inner: Arc<dyn Control>,
    /// Whether publishing and acking are one step.
    atomic: bool,
    member: u32,
    history: Writer,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What lies where, until it is acked.
    delivered: HashMap<(Owned, Position), Id>,
    /// How many acks are written down.
    given: usize,
}

impl WatchedControl {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control for WatchedControl {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        self.inner.ack(of, done)?;
        let mut state = self.lock();
        let taken = |position: &Position| state.delivered.remove(&(of.clone(), *position));
        let ids: Vec<Id> = done.iter().filter_map(taken).collect();
        if !ids.is_empty() {
            state.given += ids.len();
            self.history.write(&Line::Ack(self.member, ids));
        }
        Ok(())
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let ids: Vec<Id> = {
            let state = self.lock();
            done.iter()
                .filter_map(|position| state.delivered.get(&(of.clone(), *position)).cloned())
                .collect()
        };
        let answer = self.inner.forward(of, done, out);
        let (history, atomic) = (self.history.clone(), self.atomic);
        async move {
            let outcomes = answer.await;
            // Elsewhere the ack follows, and a kill between the two has it delivered again.
            if outcomes.all_acked() && atomic {
                ids.into_iter().for_each(|id| history.write(&Line::Forwarded(id)));
            }
            outcomes
        }
        .boxed()
    }

    fn pause(&self, of: &Owned, paused: bool) {
        self.inner.pause(of, paused);
    }

    fn give_up(&self, of: &Owned) {
        self.inner.give_up(of);
    }

    fn confirm(&self, of: &Owned) -> Answer<Result<()>> {
        self.inner.confirm(of)
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        self.inner.flush()
    }

    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>> {
        self.inner.set_topics(topics)
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        self.inner.close(deadline)
    }
}

/// Confirms what was acked, again and again, as long as the process lives.
async fn confirm(control: Arc<WatchedControl>) {
    let mut confirmed = 0;
    loop {
        tokio::time::sleep(CONFIRM).await;
        let given = control.lock().given;
        if given > confirmed && control.inner.flush().await.is_empty() {
            confirmed = given;
            control.history.write(&Line::Confirmed(control.member, confirmed));
        }
    }
}
