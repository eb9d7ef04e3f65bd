//! A broker with a twist between it and the processor: a wrapper that passes everything on, and asks the twist on the way.
//!
//! Not here: what is twisted (`twist.rs`).

use super::twist::{Passed, Twist};
use ropeway_broker::{
    Admin, Answer, Capabilities, Consumer, Control, Error, Event, Health, Message, MessageBroker, Outcomes,
    Owned, Position, Reader, Result, Statistics, Subscription, Target, Topic,
};
use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A broker that asks a twist.
#[derive(Debug)]
pub(crate) struct BentBroker {
    inner: Arc<dyn MessageBroker>,
    twist: Arc<dyn Twist>,
    lines: Arc<Mutex<Vec<Arc<Line>>>>,
}

impl BentBroker {
    pub(crate) fn new(inner: Arc<dyn MessageBroker>, twist: Arc<dyn Twist>) -> Self {
        Self { inner, twist, lines: Arc::default() }
    }

    /// The consumers so far.
    pub(crate) fn lines(&self) -> Vec<Arc<Line>> {
        lock(&self.lines).clone()
    }
}

impl MessageBroker for BentBroker {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.inner.publish(to, batch.into_iter().map(|message| self.twist.publish(message)).collect())
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let answer = self.inner.subscribe(subscription);
        let (lines, twist) = (self.lines.clone(), self.twist.clone());
        Box::pin(async move {
            let inner = answer.await?;
            let line =
                Arc::new(Line { control: inner.control(), open: Mutex::default(), closing: false.into() });
            lock(&lines).push(line.clone());
            let consumer: Box<dyn Consumer> = Box::new(BentConsumer { inner, line, twist, held: None });
            Ok(consumer)
        })
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

/// A consumer's way to the broker, and what was delivered on it and not acked.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) control: Arc<dyn Control>,
    open: Mutex<HashMap<Owned, BTreeSet<Position>>>,
    closing: AtomicBool,
}

/// A forward: whose, what is done with it, what is written.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) of: Owned,
    pub(crate) done: Vec<Position>,
    pub(crate) out: Vec<(Target, Message)>,
}

impl Letter {
    /// The same, with other messages.
    pub(crate) fn map(self, change: impl Fn(Message) -> Message) -> Self {
        let out = self.out.into_iter().map(|(to, message)| (to, change(message))).collect();
        Self { out, ..self }
    }
}

impl Line {
    pub(crate) fn forward(&self, letter: Letter) -> Answer<Outcomes> {
        self.control.forward(&letter.of, &letter.done, letter.out)
    }

    /// Whether the consumer is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Acks all that was delivered of those partitions, finished or not.
    pub(crate) fn ack_all(&self, which: impl Fn(&Owned) -> bool) {
        for (of, positions) in lock(&self.open).iter().filter(|(of, _)| which(of)) {
            // What is fenced cannot be acked, which does not matter here.
            let _ = self.control.ack(of, &positions.iter().copied().collect::<Vec<_>>());
        }
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Batch(batch) => {
                let positions = batch.deliveries.iter().map(|delivery| delivery.position);
                lock(&self.open).entry(batch.of.clone()).or_default().extend(positions);
            }
            Event::Gone(of, _) => {
                lock(&self.open).remove(of);
            }
            _ => {}
        }
    }

    fn acked(&self, of: &Owned, done: &[Position]) {
        if let Some(open) = lock(&self.open).get_mut(of) {
            done.iter().for_each(|position| {
                open.remove(position);
            });
        }
    }
}

#[derive(Debug)]
struct BentConsumer {
    inner: Box<dyn Consumer>,
    line: Arc<Line>,
    twist: Arc<dyn Twist>,
    /// What is told later.
    held: Option<(Pin<Box<Sleep>>, Option<Event>)>,
}

impl Consumer for BentConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        loop {
            if let Some((sleep, event)) = &mut self.held {
                ready!(sleep.as_mut().poll(cx));
                let event = event.take();
                self.held = None;
                if let Some(event) = event {
                    return Poll::Ready(Ok(event));
                }
            }
            let event = ready!(self.inner.poll_next(cx))?;
            self.line.note(&event);
            match self.twist.deliver(&self.line, event) {
                Passed::Now(event) => return Poll::Ready(Ok(event)),
                Passed::Later(delay, event) => self.held = Some((Box::pin(sleep(delay)), Some(event))),
                Passed::Never => {}
            }
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(BentControl { line: self.line.clone(), twist: self.twist.clone() })
    }
}

#[derive(Debug)]
struct BentControl {
    line: Arc<Line>,
    twist: Arc<dyn Twist>,
}

impl Control for BentControl {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        self.line.acked(of, done);
        self.line.control.ack(of, done)
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        self.line.acked(of, done);
        let letter = Letter { of: of.clone(), done: done.to_vec(), out };
        self.twist.clone().bury(self.line.clone(), letter)
    }

    fn pause(&self, of: &Owned, paused: bool) {
        self.line.control.pause(of, paused);
    }

    fn give_up(&self, of: &Owned) {
        self.twist.give_up(&self.line, of);
    }

    fn confirm(&self, of: &Owned) -> Answer<Result<()>> {
        self.line.control.confirm(of)
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        self.line.control.flush()
    }

    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>> {
        self.line.control.set_topics(topics)
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        self.line.closing.store(true, Ordering::Relaxed);
        self.line.control.close(deadline)
    }
}
