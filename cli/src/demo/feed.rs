//! Publishes the reports of a run, in order and as fast as the bus takes them unless told slower.

use super::{handling::Handling, record::Reported};
use ropeway_broker::{
    Message, MessageBroker, PublishFailed, Publisher, PublisherSettings, Result, Topic, wire,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The type of the events.
pub(crate) const EVENT_TYPE: &str = "strike.reported";

/// What became of the publishing, so far.
#[derive(Debug, Default)]
pub(crate) struct Fed {
    acked: AtomicU64,
    failed: AtomicU64,
    /// Why the first one failed.
    why: Mutex<Option<String>>,
}

impl Fed {
    /// How many were acked.
    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// How many were not, and why the first of them.
    pub(crate) fn failed(&self) -> Option<(u64, String)> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some((self.failed.load(Ordering::Relaxed), why))
    }

    fn told(&self, failed: Option<&PublishFailed>) {
        let Some(failed) = failed else {
            self.acked.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| failed.to_string());
    }
}

/// Where a feed goes and how.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) broker: Arc<dyn MessageBroker>,
    pub(crate) topic: Topic,
    /// Reports a second; `None`: no limit.
    pub(crate) rate: Option<u32>,
    /// How long the last outcomes may take.
    pub(crate) deadline: Duration,
}

impl Feed {
    /// Publishes them; ends early when `stop` is asked for or one fails: what comes later would overtake it.
    ///
    /// # Errors
    /// Where the last outcomes do not come within the deadline.
    pub(crate) async fn run(
        self,
        reports: Vec<Reported>,
        handling: Arc<Handling>,
        fed: Arc<Fed>,
        stop: CancellationToken,
    ) -> Result<()> {
        let publisher = Publisher::new(self.broker, PublisherSettings::default())?;
        let mut due = Instant::now();
        for report in reports {
            if let Some(rate) = self.rate {
                due += Duration::from_secs(1) / rate.max(1);
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = stop.cancelled() => break,
                }
            }
            if stop.is_cancelled() || fed.failed().is_some() {
                break;
            }
            handling.publishing(report.number);
            let told = Arc::clone(&fed);
            let tell = move |outcome: Result<_, PublishFailed>| told.told(outcome.err().as_ref());
            if let Err(failed) = publisher.publish_with(&self.topic, message(&report), tell).await {
                fed.told(Some(&failed));
                break;
            }
        }
        publisher.close(self.deadline).await
    }
}

fn message(report: &Reported) -> Message {
    // A struct of strings and a number is always JSON.
    let payload = serde_json::to_vec(report).unwrap_or_default();
    Message::builder()
        .key(report.record.airport.clone())
        .event_type(EVENT_TYPE)
        .header(wire::SOURCE, "https://wildlife.faa.gov")
        .header(wire::CONTENT_TYPE, "application/json")
        .payload(payload)
        .build()
}
