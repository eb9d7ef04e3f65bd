//! The consumer's side of [`Fault`](super::Fault): revokes, refused acks, lost forwards.
//!
//! Not here: which call fails (`script.rs`), the publishing side (`wrap/fault/mod.rs`).

use super::{Injection, Operation, Shared, injected, lock};
use crate::{
    Answer, Consumer, Control, Error, Event, GoneReason, Message, Outcomes, Owned, Position, Published,
    Result, Target, Topic,
};
use futures::FutureExt;
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// How a partition is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoke {
    /// `Revoking` with that time left; gone when it is given up or the time is over.
    Drain(Duration),
    /// Gone at once, as `Lost`.
    Lost,
}

/// What a consumer is asked to lose.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    revokes: Vec<(Topic, u32, Revoke)>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(super) fn put(&self, topic: Topic, partition: u32, how: Revoke) {
        lock(&self.0).revokes.push((topic, partition, how));
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = lock(&self.0).waker.take() {
            waker.wake();
        }
    }

    fn take(&self, waker: &Waker) -> Vec<(Topic, u32, Revoke)> {
        let mut inbox = lock(&self.0);
        inbox.waker = Some(waker.clone());
        std::mem::take(&mut inbox.revokes)
    }
}

#[derive(Debug)]
pub(super) struct FaultConsumer {
    inner: Box<dyn Consumer>,
    control: Arc<FaultControl>,
    inbox: Arc<Inbox>,
    events: VecDeque<Event>,
    /// What was told to drain, and until when.
    draining: BTreeMap<Owned, Pin<Box<Sleep>>>,
    /// Why a partition went that this wrapper took away.
    reasons: BTreeMap<Owned, GoneReason>,
    end: Option<Error>,
}

impl FaultConsumer {
    pub(super) fn new(inner: Box<dyn Consumer>, shared: Arc<Shared>) -> Self {
        let inbox = Arc::<Inbox>::default();
        lock(&shared.consumers).push(Arc::downgrade(&inbox));
        let control = Arc::new(FaultControl { inner: inner.control(), shared, held: Mutex::default() });
        let (events, draining, reasons) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Self { inner, control, inbox, events, draining, reasons, end: None }
    }

    fn revoke(&mut self, of: Owned, how: Revoke) {
        match how {
            Revoke::Lost => {
                self.reasons.insert(of.clone(), GoneReason::Lost);
                self.control.inner.give_up(&of);
            }
            Revoke::Drain(left) => {
                self.control.inner.pause(&of, true);
                self.draining.insert(of.clone(), Box::pin(sleep_until(Instant::now() + left)));
                self.events.push_back(Event::Revoking { partitions: vec![of], left });
            }
        }
    }

    /// Ends by an error: everything is given up, and each `Gone` comes before it.
    fn finish(&mut self, end: Error) {
        self.events.clear();
        for of in std::mem::take(&mut *lock(&self.control.held)).into_keys() {
            self.control.inner.give_up(&of);
            self.events.push_back(Event::Gone(of, GoneReason::Lost));
        }
        drop(self.control.inner.close(Duration::ZERO));
        self.end = Some(end);
    }

    fn drain(&mut self, cx: &mut Context<'_>) {
        let over: Vec<Owned> = self
            .draining
            .iter_mut()
            .filter_map(|(of, sleep)| sleep.as_mut().poll(cx).is_ready().then(|| of.clone()))
            .collect();
        for of in over {
            self.draining.remove(&of);
            self.reasons.insert(of.clone(), GoneReason::DrainOver);
            self.control.inner.give_up(&of);
        }
    }

    /// Keeps what is owned up to date. `false`: not to be told, as it was told already.
    fn note(&mut self, event: &mut Event) -> bool {
        let mut held = lock(&self.control.held);
        match event {
            Event::Revoking { partitions, .. } => {
                partitions.retain(|of| held.insert(of.clone(), true) == Some(false));
                return !partitions.is_empty();
            }
            Event::Assigned(assigned) => held.extend(assigned.iter().map(|a| (a.of.clone(), false))),
            Event::Gone(of, reason) => {
                held.remove(of);
                self.draining.remove(of);
                // What was asked for and has not been told yet would come after the end.
                self.events.retain(
                    |event| !matches!(event, Event::Revoking { partitions, .. } if partitions.contains(of)),
                );
                if let Some(real) = self.reasons.remove(of) {
                    *reason = real;
                }
            }
            _ => {}
        }
        true
    }
}

impl Consumer for FaultConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        if self.end.is_none()
            && let Err(end) = self.control.shared.allow(Operation::Poll)
        {
            self.finish(end);
        }
        if let Some(end) = &self.end {
            return Poll::Ready(self.events.pop_front().map_or_else(|| Err(end.clone()), Ok));
        }
        for (topic, partition, how) in self.inbox.take(cx.waker()) {
            let owned = lock(&self.control.held)
                .iter_mut()
                .find(|(of, revoking)| of.topic == topic && of.partition == partition && !**revoking)
                .map(|(of, revoking)| {
                    *revoking = true;
                    of.clone()
                });
            if let Some(of) = owned {
                self.revoke(of, how);
            }
        }
        self.drain(cx);
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(Ok(event));
        }
        loop {
            let mut event = ready!(self.inner.poll_next(cx))?;
            if self.note(&mut event) {
                return Poll::Ready(Ok(event));
            }
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::clone(&self.control) as Arc<dyn Control>
    }
}

#[derive(Debug)]
struct FaultControl {
    inner: Arc<dyn Control>,
    shared: Arc<Shared>,
    /// What is owned, and whether it is being revoked by this wrapper.
    held: Mutex<BTreeMap<Owned, bool>>,
}

impl Control for FaultControl {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        self.shared.allow(Operation::Ack)?;
        self.inner.ack(of, done)
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let messages = |out: Vec<(Target, Message)>| out.into_iter().map(|(_, message)| message).collect();
        let now = |outcomes| futures::future::ready(outcomes).boxed();
        match self.shared.next(Operation::Forward) {
            Some(Injection::Refuse(kind)) => now(Outcomes::all_not_written(&injected(kind), messages(out))),
            Some(Injection::LoseRequest(kind)) => now(Outcomes::all_unknown(&injected(kind), messages(out))),
            Some(Injection::LoseAnswer(kind)) => {
                let copies: Vec<Message> = messages(out.clone());
                self.inner
                    .forward(of, done, out)
                    .map(move |outcomes| {
                        let lost = |(published, message): (Published, Message)| match published {
                            Published::Acked { .. } => Published::unknown(injected(kind), message),
                            refused => refused,
                        };
                        Outcomes(outcomes.0.into_iter().zip(copies).map(lost).collect())
                    })
                    .boxed()
            }
            Some(Injection::Delay(delay)) => later(delay, self.inner.forward(of, done, out)),
            _ => self.inner.forward(of, done, out),
        }
    }

    fn pause(&self, of: &Owned, paused: bool) {
        let revoking = lock(&self.held).get(of).copied().unwrap_or(false);
        if !revoking {
            self.inner.pause(of, paused);
        }
    }

    fn give_up(&self, of: &Owned) {
        self.inner.give_up(of);
    }

    fn confirm(&self, of: &Owned) -> Answer<Result<()>> {
        match self.shared.next(Operation::Confirm) {
            Some(Injection::Refuse(kind)) => futures::future::ready(Err(injected(kind))).boxed(),
            Some(Injection::Delay(delay)) => later(delay, self.inner.confirm(of)),
            _ => self.inner.confirm(of),
        }
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        match self.shared.next(Operation::Flush) {
            Some(Injection::Refuse(kind)) => {
                let held = lock(&self.held).keys().map(|of| (of.clone(), injected(kind))).collect();
                futures::future::ready(held).boxed()
            }
            Some(Injection::Delay(delay)) => later(delay, self.inner.flush()),
            _ => self.inner.flush(),
        }
    }

    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>> {
        self.inner.set_topics(topics)
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        self.inner.close(deadline)
    }
}

fn later<T: Send + 'static>(delay: Duration, answer: Answer<T>) -> Answer<T> {
    async move {
        let told = answer.await;
        tokio::time::sleep(delay).await;
        told
    }
    .boxed()
}
