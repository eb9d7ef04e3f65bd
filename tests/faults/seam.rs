//! A broker that is another one, and writes down what is settled through it: acks, their confirmation, dead letters; in a history that
//! several processes share also what is owned and handed out.
//!
//! An ack counts as confirmed when a flush that was asked for after it told nothing of its partition, and its owner is confirmed to own it still:
//! a flush says nothing of what was lost before it. A forward that is not one step is an ack like any other.
//! That a partition is gone is written down when the next event is asked for: then whoever was told has dealt with it.
//! It sits below the processor, so that what the processor tells the bus is seen and not what it says about itself.
//! Not here: publishes and handlers, which the worker writes down (`worker.rs`).

use crate::{
    history::{Event as Line, Id, Writer},
    traffic,
};
use futures::future::FutureExt;
use ropeway_broker::{
    Admin, Answer, Capabilities, Consumer, Control, Error, ErrorKind, Event, Health, Message, MessageBroker,
    Outcomes, Owned, Position, Published, Reader, Result, Statistics, Subscription, Target, Topic,
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
/// The same of several processes.
const CONFIRM_SHARED: Duration = Duration::from_millis(250);

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
            let state = Arc::default();
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
        self.control.note_gone();
        let event = self.inner.poll_next(cx);
        if let Poll::Ready(Ok(event)) = &event {
            self.control.see(event);
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
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What lies where, until it is acked.
    delivered: HashMap<(Owned, Position), Id>,
    /// Acked, and not known to be durable yet.
    given: Vec<(Owned, Id)>,
    /// What is gone, and not written down yet.
    gone: Vec<String>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// These are acked.
    fn give(&mut self, of: &Owned, done: &[Position]) -> Vec<Id> {
        let taken = |position: &Position| self.delivered.remove(&(of.clone(), *position));
        let ids: Vec<Id> = done.iter().filter_map(taken).collect();
        self.given.extend(ids.iter().map(|id| (of.clone(), id.clone())));
        ids
    }
}

impl Drop for WatchedConsumer {
    fn drop(&mut self) {
        self.control.note_gone();
    }
}

impl WatchedControl {
    fn note_gone(&self) {
        let gone = std::mem::take(&mut lock(&self.state).gone);
        gone.iter().for_each(|line| self.history.note(format_args!("{line}")));
    }

    fn see(&self, event: &Event) {
        let note = |what: &str, of: &Owned, more: &dyn std::fmt::Display| {
            self.history.note(format_args!("{what} {} {} {more}", of.partition, of.epoch));
        };
        match event {
            Event::Assigned(list) => {
                list.iter().for_each(|assigned| note("owns", &assigned.of, &self.member))
            }
            Event::Gone(of, why) => {
                let mut state = lock(&self.state);
                state.delivered.retain(|(owned, _), _| owned != of);
                state.gone.push(format!("gone {} {} {} {why:?}", of.partition, of.epoch, self.member));
            }
            // Nothing here makes a record that is no message; a gap is a loss, and judged where servers may lose something.
            Event::Gap { of, from, to, why } if self.history.is_shared() => {
                let said = |at: &Option<Position>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
                note("gap", of, &format_args!("{} {} {}", why.as_str(), said(from), said(to)));
            }
            Event::Unreadable { .. } | Event::Gap { .. } => {
                traffic::stop(&format!("a member was told {event:?}"));
            }
            Event::Batch(batch) => {
                note("hand", &batch.of, &batch.deliveries.len());
                let mut state = lock(&self.state);
                for delivery in &batch.deliveries {
                    match traffic::id(&delivery.message) {
                        Ok(id) => {
                            state.delivered.insert((batch.of.clone(), delivery.position), id);
                        }
                        Err(why) => traffic::stop(&why),
                    }
                }
            }
            Event::Revoking { .. } | Event::CaughtUp(_) => {}
        }
    }

    /// Writes down what is durably acked; what is not known yet stays.
    async fn settle(&self) {
        let given = std::mem::take(&mut lock(&self.state).given);
        if given.is_empty() {
            return;
        }
        let failed = self.inner.flush().await;
        let mut owners: HashMap<&Owned, Option<bool>> = HashMap::new();
        for (of, _) in &given {
            if !owners.contains_key(of) {
                let holds = match failed.iter().find(|(owned, _)| owned == of) {
                    Some((_, error)) => Err(error.clone()),
                    None => self.inner.confirm(of).await,
                };
                let is_known = match holds {
                    Ok(()) => Some(true),
                    Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Closed) => {
                        Some(false)
                    }
                    Err(_) => None,
                };
                owners.insert(of, is_known);
            }
        }
        let holds = |of: &Owned| owners.get(of).copied().flatten();
        let sure = given.iter().filter(|(of, _)| holds(of) == Some(true));
        let sure: Vec<Id> = sure.map(|(_, id)| id.clone()).collect();
        let again: Vec<_> = given.iter().filter(|(of, _)| holds(of).is_none()).cloned().collect();
        if !sure.is_empty() {
            self.history.write(&Line::Confirmed(sure));
        }
        lock(&self.state).given.extend(again);
    }
}

impl Control for WatchedControl {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        self.inner.ack(of, done)?;
        let mut state = lock(&self.state);
        let ids = state.give(of, done);
        if !ids.is_empty() {
            self.history.write(&Line::Ack(self.member, ids));
        }
        Ok(())
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let known = |position: &Position| lock(&self.state).delivered.get(&(of.clone(), *position)).cloned();
        let known: Vec<Id> = done.iter().filter_map(known).collect();
        let answer = self.inner.forward(of, done, out);
        let (state, history) = (Arc::clone(&self.state), self.history.clone());
        let (atomic, member, of, done) = (self.atomic, self.member, of.clone(), done.to_vec());
        async move {
            let outcomes = answer.await;
            if outcomes.all_acked() {
                if atomic {
                    known.into_iter().for_each(|id| history.write(&Line::Forwarded(id)));
                    return outcomes;
                }
                let mut state = lock(&state);
                let ids = state.give(&of, &done);
                if !ids.is_empty() {
                    history.write(&Line::Ack(member, ids));
                }
            } else if outcomes.0.iter().any(|outcome| matches!(outcome, Published::Unknown(_))) {
                // It may be written, and is written again.
                known.iter().for_each(|id| history.note(format_args!("doubted {id}")));
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
    loop {
        tokio::time::sleep(if control.history.is_shared() { CONFIRM_SHARED } else { CONFIRM }).await;
        control.settle().await;
    }
}
