//! The broker as its users see it.

use super::{
    consumer::GroupConsumer,
    core::{Quota, Rules},
    engine::{Engine, Lease},
    publish,
    queue::{Cost, Lane},
    reader::LogReader,
    settings::EmbeddedSettings,
};
use crate::{
    Admin, Answer, Capabilities, Consumer, Durability, Health, Message, MessageBroker, Outcomes, Reader,
    Result, Statistics, Subscription, Target,
};
#[cfg(feature = "embedded")]
use crate::{Error, ErrorKind, Timestamp};
#[cfg(feature = "embedded")]
use ropeway_store::{FjallSettings, FjallStore};
use ropeway_store::{KeyValue, MemoryStore};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// How long a health request may take.
const HEALTH: Duration = Duration::from_secs(5);

/// A broker in this process: `memory:` or `embedded:DIR`.
///
/// It is closed when it is dropped and no consumer or reader of it is left.
#[derive(Debug)]
pub struct Embedded {
    pub(super) lease: Arc<Lease>,
    deadline: Duration,
}

impl Embedded {
    /// A broker in memory, gone with the process. Nothing runs in the background: with a [`TokioClock`](crate::TokioClock) it is
    /// deterministic under tokio's paused time.
    ///
    /// # Errors
    /// None today.
    pub fn memory(settings: EmbeddedSettings) -> Result<Arc<Self>> {
        Self::on_store(Arc::new(MemoryStore::new()), settings, Durability::Volatile, true)
    }

    /// A broker in a directory, which is made where there is none. Blocks while what is stored is loaded.
    ///
    /// # Errors
    /// `Conflict` names the process that has the directory open; `Unsupported` for a format of another version; `Corrupt`; `Unavailable`
    /// where the file system refuses, or the machine's clock shows a time before 1970, which the files cannot hold.
    #[cfg(feature = "embedded")]
    pub fn open(dir: impl AsRef<std::path::Path>, settings: EmbeddedSettings) -> Result<Arc<Self>> {
        check_clock(crate::clock::wall())?;
        let store =
            FjallStore::open(dir.as_ref(), &FjallSettings::default()).map_err(super::core::store_error)?;
        Self::on_store(Arc::new(store), settings, Durability::PowerLoss, false)
    }

    /// A broker on any store that can keep what it is given as safe as `possible`; `inline`: steps are run by who calls.
    pub(super) fn on_store(
        store: Arc<dyn KeyValue>,
        settings: EmbeddedSettings,
        possible: Durability,
        inline: bool,
    ) -> Result<Arc<Self>> {
        let rules = Rules {
            backend: if inline { "memory" } else { "embedded" },
            durability: settings.durability.min(possible),
            possible,
            max_message: settings.max_message,
            dedup: settings.dedup_window.map(|window| (window, settings.dedup_count.max(1))),
            group_expiry: settings.group_expiry,
            segment: settings.segment,
            quota: if inline {
                Quota { setting: "max_memory", most: settings.max_memory, min_free: 0, at_once: true }
            } else {
                Quota {
                    setting: "max_disk",
                    most: settings.max_disk,
                    min_free: settings.min_free,
                    at_once: false,
                }
            },
        };
        let most = Cost { messages: settings.queue_messages, bytes: settings.queue_bytes };
        let engine = Arc::new(Engine::open(store, settings.clock, rules, most, inline)?);
        #[cfg(feature = "embedded")]
        let lease = if inline { Lease::new(engine) } else { Lease::with_threads(engine)? };
        #[cfg(not(feature = "embedded"))]
        let lease = Lease::new(engine);
        Ok(Arc::new(Self { lease: Arc::new(lease), deadline: settings.publish_deadline }))
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.lease.engine
    }

    /// A broker on a store in memory that outlives it, so that a test opens it again. Nothing runs in the background, as for [`Self::memory`].
    ///
    /// # Errors
    /// Those of what is stored.
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub fn over(store: Arc<dyn KeyValue>, settings: EmbeddedSettings) -> Result<Arc<Self>> {
        Self::on_store(store, settings, Durability::ProcessCrash, true)
    }

    /// Appends bytes that may be no message to a partition, so that a test sees what becomes of a record that cannot be read.
    ///
    /// # Errors
    /// `NotFound`; those of a publish.
    #[cfg(any(test, feature = "conformance"))]
    #[doc(hidden)]
    pub fn plant_unreadable(
        &self,
        topic: &crate::Topic,
        partition: u32,
        bytes: bytes::Bytes,
    ) -> Answer<Result<crate::Position>> {
        let topic = topic.clone();
        self.engine().call(move |core, step| core.plant(step, &topic, partition, bytes))
    }
}

#[cfg(feature = "embedded")]
fn check_clock(now: Timestamp) -> Result<()> {
    if now >= Timestamp::from_millis(0) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "the machine's clock shows a time before 1970; set it")
        .on("embedded"))
}

impl MessageBroker for Embedded {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: self.engine().rules.backend,
            atomic_forward: true,
            replay: true,
            compaction: false,
            shared_by_processes: false,
        }
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        if batch.is_empty() {
            return Box::pin(std::future::ready(Outcomes(Vec::new())));
        }
        let cost = Cost { messages: batch.len(), bytes: batch.iter().map(Message::size).sum() };
        let to = to.clone();
        publish::hand_over(
            self.engine(),
            batch,
            std::convert::identity,
            Lane::Publish,
            cost,
            self.deadline,
            move |core, step, batch| core.publish(step, &to, batch),
        )
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let lease = self.lease.clone();
        let deadline = self.deadline;
        // The consumer is made with the member: wherever the answer is dropped, it is dropped with it and the member leaves.
        self.engine().call(move |core, step| {
            let member = core.subscribe(step, &subscription)?;
            Ok(Box::new(GroupConsumer::new(lease, member, deadline)) as Box<dyn Consumer>)
        })
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        let opened = self.engine().core().open_reader();
        let reader = opened.map(|id| Box::new(LogReader::new(self.lease.clone(), id)) as Box<dyn Reader>);
        Box::pin(std::future::ready(reader))
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    fn health(&self) -> Answer<Health> {
        let answer = self.engine().call(|core, step| {
            core.probe(step)?;
            Ok(core.degraded())
        });
        Box::pin(async move {
            match tokio::time::timeout(HEALTH, answer).await {
                Ok(Ok(None)) => Health::Up,
                Ok(Ok(Some(why))) => Health::Degraded(why),
                Ok(Err(error)) => Health::Down(error.to_string()),
                Err(_) => Health::Down(format!("no answer within {HEALTH:?}")),
            }
        })
    }

    fn statistics(&self) -> Statistics {
        self.engine().core().statistics()
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        let (done, answer) = oneshot::channel();
        self.engine().end(move || _ = done.send(()));
        Box::pin(async move {
            _ = tokio::time::timeout(deadline, answer).await;
        })
    }
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_is_refused_by_name() {
        assert!(check_clock(Timestamp::from_millis(0)).is_ok());
        let error = check_clock(Timestamp::from_millis(-1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("1970"), "{error}");
    }
}
