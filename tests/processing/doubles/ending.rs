//! Twists of ends: partitions that go, shutting down, aborting.
//!
//! Not here: how a consumer's end is told (`bus.rs`).

use super::{
    bus::{Line, lock},
    twist::{Acted, Passed, Twist},
};
use futures::future::BoxFuture;
use ropeway_broker::{
    Event as BusEvent, GoneReason, MessageBroker, MessageBrokerExt, MessageId, Owned, Topic,
};
use ropeway_processor::{
    Context, Event, Handler, ShutdownReport, Snapshot, Verdict,
    conformance::{Processing, Task},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// It does not hear that a partition is wanted back.
#[derive(Debug)]
pub(crate) struct DeafToRevoking;

impl Twist for DeafToRevoking {
    fn deliver(&self, _: &Line, event: BusEvent) -> Passed {
        if matches!(event, BusEvent::Revoking { .. }) { Passed::Never } else { Passed::Now(event) }
    }
}

/// It gives up at once what is wanted back, whatever runs.
#[derive(Debug)]
pub(crate) struct GivesUpAtOnce;

impl Twist for GivesUpAtOnce {
    fn deliver(&self, line: &Line, event: BusEvent) -> Passed {
        if let BusEvent::Revoking { partitions, .. } = &event {
            partitions.iter().for_each(|of| line.control.give_up(of));
        }
        Passed::Now(event)
    }
}

/// It hears late that a partition is lost.
#[derive(Debug)]
pub(crate) struct HearsLate;

impl Twist for HearsLate {
    fn deliver(&self, _: &Line, event: BusEvent) -> Passed {
        if matches!(event, BusEvent::Gone(_, GoneReason::Lost)) {
            return Passed::Later(Duration::from_secs(3), event);
        }
        Passed::Now(event)
    }
}

/// What is given up counts as an attempt.
#[derive(Debug, Default)]
pub(crate) struct BurnsAttempts {
    burnt: Mutex<HashMap<MessageId, u32>>,
    most: Mutex<u32>,
}

impl Twist for BurnsAttempts {
    fn task(&self, task: &mut Task) {
        *lock(&self.most) = task.settings.retry.max_attempts;
    }

    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        Box::pin(async move {
            let id = event.id();
            let acted = handler.handle(event, cx.clone()).await;
            if cx.is_cancelled() {
                *lock(&self.burnt).entry(id).or_default() += 1;
                return acted;
            }
            let burnt = lock(&self.burnt).get(&id).copied().unwrap_or(0);
            if acted.is_err() && burnt > 0 && cx.attempt() + burnt >= *lock(&self.most) {
                return Ok(Verdict::reject("no attempts are left"));
            }
            acted
        })
    }
}

/// What it cancelled has failed.
#[derive(Debug, Default)]
pub(crate) struct BuriesCancelled(Mutex<Option<(Arc<dyn MessageBroker>, Topic)>>);

impl Twist for BuriesCancelled {
    fn task(&self, task: &mut Task) {
        let letters =
            task.subscription.topics.first().map(|topic| topic.dead_letters_of(&task.subscription.group));
        *lock(&self.0) = letters.map(|letters| (task.broker.clone(), letters));
    }

    fn handle(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        event: Event,
        cx: Context,
    ) -> BoxFuture<'static, Acted> {
        Box::pin(async move {
            let acted = handler.handle(event.clone(), cx.clone()).await;
            let failed = !matches!(acted, Ok(Verdict::Done));
            let to = lock(&self.0).clone();
            if let Some((broker, letters)) = to
                && failed
                && cx.is_cancelled()
            {
                // Whether it is written is for the check to see.
                let _ = broker.publish_one(letters, event.into_message()).await;
            }
            acted
        })
    }
}

/// It ends late when it could not finish.
#[derive(Debug)]
pub(crate) struct EndsLate;

impl Twist for EndsLate {
    fn shutdown<'a>(
        &'a self,
        processing: &'a dyn Processing,
        deadline: Duration,
    ) -> BoxFuture<'a, ShutdownReport> {
        Box::pin(async move {
            let report = processing.shutdown(deadline).await;
            if !report.is_clean() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            report
        })
    }
}

/// It waits no longer than 3 s, whatever it was given.
#[derive(Debug)]
pub(crate) struct EndsEarly;

impl Twist for EndsEarly {
    fn shutdown<'a>(
        &'a self,
        processing: &'a dyn Processing,
        deadline: Duration,
    ) -> BoxFuture<'a, ShutdownReport> {
        processing.shutdown(deadline.min(Duration::from_secs(3)))
    }
}

/// When it is shut down, it acks what it gives up.
#[derive(Debug)]
pub(crate) struct AcksAtTheEnd;

impl Twist for AcksAtTheEnd {
    fn give_up(&self, line: &Line, of: &Owned) {
        if line.is_closing() {
            line.ack_all(|open| open == of);
        }
        line.control.give_up(of);
    }
}

/// When it is aborted, it acks all it has.
#[derive(Debug)]
pub(crate) struct AcksAtAnAbort;

impl Twist for AcksAtAnAbort {
    fn abort(&self, lines: &[Arc<Line>], processing: &dyn Processing) {
        lines.iter().for_each(|line| line.ack_all(|_| true));
        processing.abort();
    }
}

/// It does not count what it gave up.
#[derive(Debug)]
pub(crate) struct ForgetsWhatItGaveUp;

impl Twist for ForgetsWhatItGaveUp {
    fn snapshot(&self, mut snapshot: Snapshot) -> Snapshot {
        snapshot.given_up = 0;
        snapshot
    }
}
