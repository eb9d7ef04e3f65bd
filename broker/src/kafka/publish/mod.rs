//! Publishing: taking batches over in the order of the calls, bounding what waits, and ending.
//!
//! `lane.rs` is one topic, `placing.rs` where messages go and what is answered together, `lines.rs` the clients, `answer.rs` and `outcome.rs` what becomes of a batch. Not here: the bound of what waits (`../../queued.rs`), what a
//! record looks like (`../layout.rs`), where it goes (`../facts.rs`), messages for later (`../../delay`), single and background publishing
//! (`../../publisher`).

mod answer;
mod lane;
mod lines;
mod outcome;
mod placing;

use super::{
    counted::Counted,
    failure::{BACKEND, closed},
    raw::{Notes, Valued},
    settings::KafkaSettings,
    topics::Topics,
};
use crate::{
    Answer, Error, ErrorKind, Message, Outcomes, Part, Result, Target, Topic,
    queued::{Held, Queued},
};
use lane::{Lane, Means, Parcel, Taken};
use lines::Lines;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Of how many topics it is remembered how to publish to them.
const LANES: usize = 4096;
/// How long what is given up takes to be reported.
const GIVEN_UP: Duration = Duration::from_millis(500);

impl Valued for Message {
    fn value(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }
}

/// Publishes to all topics.
#[derive(Debug)]
pub(super) struct Publishing {
    means: Arc<Means>,
    lanes: Mutex<HashMap<Topic, Arc<Lane>>>,
    queued: Arc<Queued>,
    deadline: Duration,
    closed: AtomicBool,
}

impl Publishing {
    /// Opens the client that publishes.
    ///
    /// # Errors
    /// `Invalid` for settings that the client library does not take.
    pub(super) fn open(
        settings: &KafkaSettings,
        topics: &Arc<Topics>,
        notes: &Arc<Notes>,
        counted: &Arc<Counted>,
    ) -> Result<Self> {
        let lines = Lines::open(settings.clone(), Arc::clone(notes))?;
        let (topics, counted) = (Arc::clone(topics), Arc::clone(counted));
        let means = Arc::new(Means { topics, lines, counted, servers: settings.named().into() });
        Ok(Self {
            means,
            lanes: Mutex::default(),
            queued: Queued::new(settings.queue_messages, settings.queue_bytes),
            deadline: settings.publish_deadline,
            closed: AtomicBool::new(false),
        })
    }

    /// Takes a batch over.
    pub(super) fn take(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        if batch.is_empty() {
            return Box::pin(std::future::ready(Outcomes(Vec::new())));
        }
        let now = Instant::now();
        let parcel = match self.parcel(to, Arc::new(batch), now) {
            Ok(parcel) => parcel,
            Err(refused) => return Box::pin(std::future::ready(refused)),
        };
        match self.lane(&to.topic).take(parcel, now) {
            Taken::Sent(answering) => Box::pin(answering.outcomes()),
            Taken::Waits(waiting) => Box::pin(waiting.outcomes()),
        }
    }

    /// Takes a batch over that is answered in parts, one for each partition where that is worth it.
    pub(super) fn take_in_parts(&self, to: &Target, batch: &Arc<Vec<Message>>) -> Vec<Part> {
        let now = Instant::now();
        match self.parcel(to, Arc::clone(batch), now) {
            Ok(parcel) => self.lane(&to.topic).take_in_parts(parcel, now),
            Err(refused) => vec![Part::whole(batch.len(), Box::pin(std::future::ready(refused)))],
        }
    }

    /// A batch for which there is room, or what it is answered.
    fn parcel(&self, to: &Target, messages: Arc<Vec<Message>>, now: Instant) -> Result<Parcel, Outcomes> {
        match self.admit(&messages) {
            Ok(held) => Ok(Parcel { to: to.clone(), messages, deadline: now + self.deadline, held }),
            Err(error) => Err(self.refuse(to, error, Arc::unwrap_or_clone(messages))),
        }
    }

    /// Gives a batch back.
    pub(super) fn refuse(&self, to: &Target, error: Error, batch: Vec<Message>) -> Outcomes {
        let outcomes = Outcomes::all_not_written(&outcome::told(to, error), batch);
        self.means.counted.count(&outcomes);
        outcomes
    }

    /// Room for messages.
    ///
    /// # Errors
    /// `Closed`, `Throttled`.
    fn admit(&self, batch: &[Message]) -> Result<Held> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let bytes = batch.iter().map(Message::size).sum();
        self.queued.hold(batch.len(), bytes).ok_or_else(|| {
            let (messages, bytes) = self.queued.most();
            let context = format!(
                "{messages} messages and {bytes} bytes may wait for the servers; wait for outcomes, or raise `queue_messages` and `queue_bytes`"
            );
            Error::new(ErrorKind::Throttled, context)
        })
    }

    fn lane(&self, topic: &Topic) -> Arc<Lane> {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get(topic) {
            return Arc::clone(lane);
        }
        if lanes.len() >= LANES {
            // One that somebody just found stays: its messages go first.
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.is_idle());
        }
        let lane = Lane::new(topic.clone(), Arc::clone(&self.means));
        lanes.insert(topic.clone(), Arc::clone(&lane));
        lane
    }

    /// Takes nothing over any more, and answers all that was taken over, within the deadline: what the servers do not answer in time is given up.
    pub(super) async fn close(&self, deadline: Duration) {
        self.closed.store(true, Ordering::Release);
        let end = Instant::now() + deadline;
        let given_up = end - GIVEN_UP.min(deadline / 4);
        if !self.is_empty_by(given_up).await {
            let error = closed().on(BACKEND);
            self.lanes().values().for_each(|lane| lane.end(&error));
            self.means.lines.purge();
            self.is_empty_by(end).await;
        }
    }

    /// Takes nothing over any more.
    pub(super) fn stop(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Ends it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&self) {
        self.stop();
        self.means.lines.purge();
    }

    /// Makes the client that publishes give up for good, as it does when the servers refuse its sequence.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn break_off(&self) {
        self.means.lines.break_off();
    }

    /// Whether all is answered, by then.
    async fn is_empty_by(&self, end: Instant) -> bool {
        while !self.queued.is_empty() {
            if Instant::now() >= end {
                return false;
            }
            sleep(Duration::from_millis(1)).await;
        }
        true
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Topic, Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        // What was taken over and not answered has nobody who waits for it: it is written.
        if !self.closed.load(Ordering::Acquire) {
            self.means.lines.flush(self.deadline);
        }
    }
}
