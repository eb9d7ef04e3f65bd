//! A member of a group, as its user sees it; and the sleep of those who wait where nobody else keeps the time.

use super::{
    control::GroupControl,
    core::{Next, Plan},
    engine::{Engine, Lease},
};
use crate::{Consumer, Control, Event, Result};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// How often a poll looks for something before it lets others run.
const ROUNDS: usize = 32;

#[derive(Debug)]
pub(super) struct GroupConsumer {
    lease: Arc<Lease>,
    member: u64,
    alarm: Alarm,
    control: Arc<GroupControl>,
}

impl GroupConsumer {
    pub(super) fn new(lease: Arc<Lease>, member: u64, deadline: Duration) -> Self {
        let control = Arc::new(GroupControl::new(lease.engine.clone(), member, deadline));
        Self { lease, member, alarm: Alarm::default(), control }
    }

    fn bring(&self, plan: &Plan) -> Option<Event> {
        let engine = &self.lease.engine;
        match plan.read(engine.store()) {
            Ok(found) => engine.core().deliver(self.member, plan, found),
            Err(error) => {
                engine.core().stop_member(self.member);
                let (member, error) = (self.member, error.on(engine.rules.backend));
                engine.order(move |core, step| core.fail_member(step, member, error));
                None
            }
        }
    }
}

impl Consumer for GroupConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let engine = self.lease.engine.clone();
        for _ in 0..ROUNDS {
            let now = engine.steady();
            let next = engine.core().poll_member(self.member, cx.waker(), now);
            match next {
                Next::Event(event) => return Poll::Ready(Ok(event)),
                Next::End(error) => return Poll::Ready(Err(error)),
                Next::Read(plan) => {
                    if let Some(event) = self.bring(&plan) {
                        return Poll::Ready(Ok(event));
                    }
                }
                Next::Wait => {
                    if self.alarm.poll_due(&engine, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn control(&self) -> Arc<dyn Control> {
        self.control.clone()
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        let member = self.member;
        // Refused only after close, when there are no members any more.
        self.lease.engine.order(move |core, step| core.leave(step, member));
    }
}

/// Keeps the time for the core where it has no thread of its own.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready where something was due and is done; else pending, woken when something is due.
    pub(super) fn poll_due(&mut self, engine: &Engine, cx: &mut Context<'_>) -> Poll<()> {
        if !engine.inline {
            return Poll::Pending;
        }
        let due = engine.core().arm();
        let Some(left) = due.left(&engine.now()) else { return Poll::Pending };
        if left.is_zero() {
            engine.pump();
            return Poll::Ready(());
        }
        let at = Instant::now() + left.min(Duration::from_secs(86_400));
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        let slept = sleep.as_mut().poll(cx);
        if slept.is_ready() {
            self.0 = None;
            engine.pump();
        }
        slept
    }

    /// Sleeps until something is due, and does it.
    pub(super) async fn ring(engine: &Engine) {
        let mut alarm = Self::default();
        std::future::poll_fn(|cx| alarm.poll_due(engine, cx)).await;
    }
}
