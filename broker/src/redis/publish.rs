//! Publishing, as far as it is a queue: taking batches over in the order of the calls, and bounding what waits.
//!
//! Not here: writing them (`writer.rs`), what a message looks like in the log (`layout.rs`), single and background publishing
//! (`../publisher/`).

use super::{failure::closed, settings::RedisStreamsSettings};
use crate::{
    Answer, Error, ErrorKind, Group, Message, Outcomes, Result, Target, Timestamp,
    counted::Counted,
    queued::{Held, Queued},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// A batch that was taken over.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) to: Target,
    pub(super) batch: Vec<Message>,
    /// The group that forwards it.
    pub(super) from: Option<Group>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Outcomes>,
    /// Given back when the job is answered, or dropped.
    _held: Held,
}

impl Job {
    /// When the last of its messages is due that are not due yet.
    pub(super) fn last_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.batch.iter().filter_map(|message| message.deliver_at).filter(|due| *due > now).max()
    }
}

/// Batches that were taken over, in the order of the calls.
#[derive(Debug)]
pub(super) struct Jobs {
    receiver: mpsc::UnboundedReceiver<Job>,
    queued: Arc<Queued>,
}

impl Jobs {
    /// The next; `None` when nobody can publish any more. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Job> {
        self.receiver.recv().await
    }

    /// The next, if it is there.
    pub(super) fn try_recv(&mut self) -> Option<Job> {
        self.receiver.try_recv().ok()
    }

    /// How much waits here, in messages and bytes, where so much that was taken out is not answered. What a group forwards at once counts, too.
    pub(super) fn waiting(&self, taken: (usize, usize)) -> (usize, usize) {
        let (messages, bytes) = self.queued.held();
        (messages.saturating_sub(taken.0), bytes.saturating_sub(taken.1))
    }
}

/// Where batches are taken over.
#[derive(Debug)]
pub(super) struct Intake {
    sender: mpsc::UnboundedSender<Job>,
    queued: Arc<Queued>,
    deadline: std::time::Duration,
    closed: AtomicBool,
    counted: Arc<Counted>,
}

impl Intake {
    /// A queue, and its other end. It is bounded by what it takes in.
    pub(super) fn new(settings: &RedisStreamsSettings, counted: Arc<Counted>) -> (Self, Jobs) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queued = Queued::new(settings.queue_messages, settings.queue_bytes);
        let deadline = settings.publish_deadline;
        let jobs = Jobs { receiver, queued: Arc::clone(&queued) };
        (Self { sender, queued, deadline, closed: AtomicBool::new(false), counted }, jobs)
    }

    /// Takes a batch over.
    pub(super) fn take(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        self.take_from(None, to, batch)
    }

    /// Takes a batch over that a group forwards, if it is one.
    pub(super) fn take_from(
        &self,
        from: Option<&Group>,
        to: &Target,
        batch: Vec<Message>,
    ) -> Answer<Outcomes> {
        if batch.is_empty() {
            return Box::pin(std::future::ready(Outcomes(Vec::new())));
        }
        let refuse = |error: Error, batch| {
            let error = error.during(format!("publish to topic {:?}", to.topic)).on(super::failure::BACKEND);
            let outcomes = Outcomes::all_not_written(&error, batch);
            self.counted.count(&outcomes);
            Box::pin(std::future::ready(outcomes)) as Answer<Outcomes>
        };
        let (held, deadline) = match self.admit(batch.iter()) {
            Ok(admitted) => admitted,
            Err(error) => return refuse(error, batch),
        };
        let (answer, answered) = oneshot::channel();
        let job = Job { to: to.clone(), batch, from: from.cloned(), deadline, answer, _held: held };
        if let Err(mpsc::error::SendError(job)) = self.sender.send(job) {
            return refuse(closed(), job.batch);
        }
        // Who writes answers every job; it is dropped only with the runtime.
        Box::pin(async move { answered.await.unwrap_or_else(|_| Outcomes(Vec::new())) })
    }

    /// Room for messages, and when their outcome is due.
    ///
    /// # Errors
    /// `Closed`, `Throttled`.
    pub(super) fn admit<'a>(&self, batch: impl Iterator<Item = &'a Message>) -> Result<(Held, Instant)> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let (messages, bytes) =
            batch.fold((0, 0), |(messages, bytes), message| (messages + 1, bytes + message.size()));
        let held = self.queued.hold(messages, bytes).ok_or_else(|| {
            let (messages, bytes) = self.queued.most();
            let context = format!(
                "{messages} messages and {bytes} bytes may wait for the server; wait for outcomes, or raise `queue_messages` and `queue_bytes`"
            );
            Error::new(ErrorKind::Throttled, context)
        })?;
        Ok((held, Instant::now() + self.deadline))
    }

    /// Takes nothing over any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether all that was taken over is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topic;

    fn intake(messages: usize, bytes: usize) -> (Intake, Jobs) {
        let settings = RedisStreamsSettings {
            queue_messages: messages,
            queue_bytes: bytes,
            ..RedisStreamsSettings::default()
        };
        Intake::new(&settings, Arc::default())
    }

    fn batch(count: usize) -> Vec<Message> {
        (0..count).map(|_| Message::builder().payload("0123456789").build()).collect()
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_what_is_answered_makes_room() {
        let to = Target::from(Topic::new("t").unwrap());
        for (messages, bytes) in [(3, 1000), (1000, 35)] {
            let (intake, mut jobs) = intake(messages, bytes);
            let _first = intake.take(&to, batch(2));
            assert_eq!((jobs.waiting((0, 0)), jobs.waiting((1, 99))), ((2, 20), (1, 0)));
            let refused = intake.take(&to, batch(2)).await;
            assert_eq!(refused.0[1].failed().unwrap().error.kind(), ErrorKind::Throttled);
            drop(jobs.recv().await);
            assert!(intake.is_empty());
            let _second = intake.take(&to, batch(3));
            drop(jobs.recv().await);
            // A batch larger than the queue is taken over alone.
            let _third = intake.take(&to, batch(9));
            assert_eq!(jobs.recv().await.unwrap().batch.len(), 9);
        }
    }

    #[tokio::test]
    async fn after_close_nothing_is_taken_over() {
        let (intake, _jobs) = intake(9, 900);
        intake.close();
        let refused = intake.take(&Target::from(Topic::new("t").unwrap()), batch(1)).await;
        assert_eq!(refused.0[0].failed().unwrap().error.kind(), ErrorKind::Closed);
        assert!(intake.take(&Target::from(Topic::new("t").unwrap()), Vec::new()).await.0.is_empty());
    }
}
