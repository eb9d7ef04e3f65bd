//! What acts: producers that keep a timetable, and members or handlers that take what comes.
//!
//! Here: a load from its start to its end. Not here: publishing (`producer.rs`), consuming (`member.rs`), what a handler does (`work.rs`),
//! what is counted (`recorder.rs`), the disk without a bus (`../disk.rs`).

mod member;
mod producer;
mod recorder;
mod work;

pub use producer::run_of;
pub use recorder::{Counting, Measured, Recorder};
pub use work::Work;

use crate::{keys::KeySpread, pace::Rate, payload::Sizes};
use member::Members;
use ropeway_broker::{Bound, Error, Group, MessageBroker, Publisher, PublisherSettings, Result, Topic};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much is sent, warm-up apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many messages, by all producers together.
    Messages(u64),
    /// For so long.
    Time(Duration),
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Sending {
    /// How many producers share the load; at least 1.
    pub producers: u32,
    /// Messages a second, all producers together; `None`: as fast as the bus takes them (closed loop).
    pub rate: Option<Rate>,
    /// How much.
    pub amount: Amount,
    /// Which keys.
    pub keys: KeySpread,
    /// How large.
    pub sizes: Sizes,
    /// What may wait for acks, all producers together.
    pub in_flight: Bound,
}

/// Who takes what is sent.
#[derive(Clone, Debug)]
pub struct Taking {
    /// The group; it is made, and not deleted.
    pub group: Group,
    /// Members of the group; at least 1.
    pub members: u32,
    /// What one member may have delivered and not acked.
    pub in_flight: Bound,
    /// Handlers in the processor's pool; `None`: what comes is acked where it is received.
    pub handling: Option<Handling>,
    /// It ends when so many came, where nobody sends.
    pub expected: Option<u64>,
}

/// Handlers.
#[derive(Clone, Copy, Debug)]
pub struct Handling {
    /// What each does.
    pub work: Work,
    /// How many run at a time, for each member.
    pub concurrency: usize,
}

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// The bus.
    pub broker: Arc<dyn MessageBroker>,
    /// The topic; it exists.
    pub topic: Topic,
    /// What is sent; `None`: nothing.
    pub sending: Option<Sending>,
    /// Who takes it; `None`: nobody.
    pub taking: Option<Taking>,
    /// How long at the start nothing counts for rates and latencies.
    pub warm_up: Duration,
    /// How long nothing may come before what is missing is given up, and how long an orderly end may take.
    pub patience: Duration,
    /// Ends it early: nothing more is sent, what is under way is waited for.
    pub stop: CancellationToken,
}

impl Load {
    /// Runs it; `recorder` is told all that happens, and can be looked at meanwhile.
    ///
    /// # Errors
    /// Those of joining the group; `Unavailable` where publishes have no outcome within the patience. Messages that are not acked are no
    /// error but counted; the first error ends the run where it would meet every message, as do too many of others.
    ///
    /// # Cancel safety
    /// Dropping the future leaves tasks running that end with the runtime.
    pub async fn run(&self, recorder: &Arc<Recorder>) -> Result<()> {
        if self.sending.is_none() {
            // What is there may come as soon as there is a member.
            recorder.begin();
        }
        let members = match &self.taking {
            Some(taking) => Some(Members::join(self, taking, recorder).await?),
            None => None,
        };
        recorder.begin();
        let sent = match &self.sending {
            Some(sending) => self.send(sending, recorder).await,
            None => Ok(()),
        };
        if let Some(members) = members {
            if sent.is_ok() {
                self.wait(recorder).await;
            }
            members.leave(self.patience).await;
        }
        sent
    }

    async fn send(&self, sending: &Sending, recorder: &Arc<Recorder>) -> Result<()> {
        let settings = PublisherSettings { in_flight: sending.in_flight, ..PublisherSettings::default() };
        let publisher = Publisher::new(self.broker.clone(), settings)?;
        let running = (0..sending.producers).map(|number| {
            let producer = producer::Producer::new(self, sending, number, &publisher, recorder);
            tokio::spawn(producer.run())
        });
        for ended in futures::future::join_all(running.collect::<Vec<_>>()).await {
            ended.map_err(|error| {
                Error::new(ropeway_broker::ErrorKind::Closed, format!("a producer ended: {error}"))
            })?;
        }
        publisher.close(self.patience).await
    }

    /// Until everything came, nothing comes any more, or there is no sense in waiting.
    async fn wait(&self, recorder: &Recorder) {
        const LOOK: Duration = Duration::from_millis(5);
        let end = match &self.sending {
            None => self.stop.clone(),
            // What was sent before it was stopped is waited for.
            Some(_) => CancellationToken::new(),
        };
        let (mut moved, mut last) = (Instant::now(), recorder.received());
        while !recorder.is_halted() && !end.is_cancelled() {
            let received = recorder.received();
            let expected = self.taking.as_ref().and_then(|taking| taking.expected);
            if expected.map_or_else(|| recorder.is_complete(), |expected| received >= expected) {
                return;
            }
            if received > last {
                (moved, last) = (Instant::now(), received);
            } else if moved.elapsed() > self.patience {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
