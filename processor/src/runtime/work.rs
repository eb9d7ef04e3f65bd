//! One message on its way through the processor.
//!
//! Not here: what moves it (`driver.rs`, `outcome.rs`, `letters.rs`).

use super::partitions::Turn;
use crate::{
    Event, Failure, FailureRecord,
    dead_letter::Letter,
    durations::Durations,
    event::Place,
    layer::{Begun, Ended, Progress, Ran, Runner, Spare, Watch},
    metrics::GroupMetrics,
    pool::workers::Execute,
    router::{Bounds, Plan},
};
use bytes::Bytes;
use ropeway_broker::{Delivery, Group, Message, MessageId, Position, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// The lane of a key: its partition, and the key itself. Exact: two keys never share one.
pub(crate) type LaneKey = (usize, Bytes);

/// A message and how far it is.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) turn: Arc<Turn>,
    pub(crate) event: Event,
    pub(crate) position: Position,
    pub(crate) size: usize,
    /// When it was taken in.
    pub(crate) since: Instant,
    pub(crate) step: Step,
    /// When it failed first.
    pub(crate) first_failure: Option<Timestamp>,
}

/// A run of a message through its handlers, as a worker gets it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) turn: Arc<Turn>,
    pub(crate) event: Event,
    pub(crate) plan: Plan,
    pub(crate) progress: Progress,
    pub(crate) first: Option<First>,
    /// Where the driver began it.
    pub(crate) begun: Option<Box<Begun>>,
}

/// What is measured of the first run of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    /// Since when it waits for it.
    pub(crate) since: Instant,
    /// How old it was at `at`.
    pub(crate) age: Duration,
    pub(crate) at: Instant,
}

/// How a processor's workers run messages.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) runner: Arc<Runner>,
    pub(crate) metrics: GroupMetrics,
    /// How long messages waited in their lanes.
    pub(crate) waited: Durations,
    /// Which handlers are quick.
    pub(crate) bounds: Bounds,
}

impl Execute for Running {
    type Job = Run;
    type Output = Ran;
    type Kept = Spare;

    fn limit(&self) -> Option<Duration> {
        self.runner.timeout
    }

    fn begun(run: &Run) -> Option<Instant> {
        run.begun.as_ref().map(|begun| begun.started)
    }

    async fn execute(&self, run: Run, now: Instant, watch: &Watch, spare: &mut Spare) -> Ran {
        let Run { turn, event, plan, progress, first, begun } = run;
        if let Some(First { since, age, at }) = first {
            self.metrics.age(&turn.owned.topic, age + now.duration_since(at));
            self.waited.observe(now.duration_since(since));
        }
        let ran = self.runner.run(&plan, progress, begun, &event, &turn.reins, (now, watch, spare)).await;
        // Only whole runs tell how quick all of its handlers are.
        if first.is_some() && matches!(ran.ended, Ended::Done) {
            plan.pace().worked(ran.at.duration_since(now), self.bounds);
        }
        ran
    }

    fn ended(ran: &Ran) -> Option<Instant> {
        Some(ran.at)
    }

    fn goes_on(ran: &Ran) -> bool {
        matches!(ran.ended, Ended::Done)
    }
}

/// What is to be done with a message next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Find its handlers.
    New,
    /// Run them from there on.
    Handle(Plan, Progress),
    /// Write its dead letter.
    Bury(Box<Burial>),
}

/// A dead letter on its way.
#[derive(Debug)]
pub(crate) struct Burial {
    pub(crate) letter: Letter,
    pub(crate) failure: Failure,
    /// How often it could not be written.
    pub(crate) refused: u32,
    /// Its topic was not there.
    pub(crate) create: bool,
}

impl Work {
    /// A message that was delivered.
    pub(crate) fn delivered(turn: Arc<Turn>, delivery: Delivery, since: Instant) -> (Option<LaneKey>, Self) {
        let key = delivery.message.key.clone().map(|key| (turn.place, key));
        let size = delivery.message.size();
        let position = delivery.position;
        let event = Event::placed(delivery.message, Place::of(&turn.owned, position));
        (key, Self { turn, event, position, size, since, step: Step::New, first_failure: None })
    }

    /// A record that is no message, as a message of its bytes.
    pub(crate) fn unreadable(
        turn: Arc<Turn>,
        position: Position,
        raw: Option<Bytes>,
        now: Timestamp,
        since: Instant,
    ) -> Self {
        let owned = &turn.owned;
        let id = MessageId::derived(&[
            b"unreadable",
            owned.topic.as_str().as_bytes(),
            &owned.partition.to_be_bytes(),
            &position.0.to_be_bytes(),
            &position.1.to_be_bytes(),
        ]);
        let size = raw.as_ref().map_or(0, Bytes::len);
        let mut message = Message::builder().id(id).timestamp(now).build();
        message.payload = raw;
        let event = Event::placed(message, Place::of(owned, position));
        Self { turn, event, position, size, since, step: Step::New, first_failure: None }
    }

    /// The record of its failure. `attempts` is 0 where no handler ran.
    pub(crate) fn record(
        &self,
        failure: &Failure,
        attempts: u32,
        now: Timestamp,
        group: &Group,
        node: &str,
    ) -> FailureRecord {
        let owned = &self.turn.owned;
        FailureRecord {
            class: failure.class,
            error: failure.why.clone(),
            fingerprint: FailureRecord::fingerprint_of(
                failure.class,
                failure.handler.as_deref(),
                &failure.why,
            ),
            handler: failure.handler.clone(),
            attempts,
            first: self.first_failure.unwrap_or(now),
            last: now,
            node: node.to_owned(),
            group: group.clone(),
            topic: owned.topic.clone(),
            partition: owned.partition,
            position: self.position,
            id: self.event.id(),
            timestamp: self.event.timestamp(),
            round: 1,
            payload_left_out: None,
            cut: Vec::new(),
        }
    }
}
