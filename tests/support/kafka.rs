//! Kafka as the conformance suite wants it: on the server that `server.rs` finds. Names of topics and groups are new in each trial.
//!
//! Not here: what is checked (`broker/src/conformance`).

use crate::{backends::lock, server::Server};
use bytes::Bytes;
use ropeway_broker::{
    Answer, Error, ErrorKind, Kafka, MessageBroker, Position, Result, Topic,
    conformance::{Backend, Provides, Setup, Store},
};
use std::sync::{Arc, Mutex};

/// Kafka on a real server.
#[derive(Clone, Copy, Debug)]
pub enum OnKafka {
    /// Members decide who owns what: the classic cooperative protocol.
    Classic,
    /// The servers decide it: KIP-848.
    Consumer,
}

impl Backend for OnKafka {
    fn name(&self) -> &str {
        match self {
            Self::Classic => "kafka",
            Self::Consumer => "kafka-consumer",
        }
    }

    fn absent(&self) -> Option<String> {
        Server::Kafka.url().err()
    }

    fn runs_on(&self) -> String {
        match self {
            Self::Classic => "Apache Kafka, one broker".into(),
            Self::Consumer => "Apache Kafka, one broker, `group_protocol=consumer`".into(),
        }
    }

    fn provides(&self) -> Provides {
        Provides {
            reopen: true,
            crash: true,
            unreadable: true,
            assigns: true,
            holds_names: matches!(self, Self::Consumer),
            keeps_names: true,
            ..Provides::default()
        }
    }

    fn store(&self, _: Setup) -> Result<Box<dyn Store>> {
        let url = Server::Kafka.url().map_err(|why| Error::new(ErrorKind::Unavailable, why))?;
        let protocol = match self {
            // The shortest that the test servers take.
            Self::Classic => "session=3s",
            Self::Consumer => "group_protocol=consumer",
        };
        let url = format!("{}?{protocol}", url.split('?').next().unwrap_or_default());
        Ok(Box::new(Place { url, opened: Arc::default() }))
    }
}

/// The server.
#[derive(Debug)]
struct Place {
    url: String,
    opened: Arc<Mutex<Option<Arc<Kafka>>>>,
}

impl Store for Place {
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>> {
        let (url, opened) = (self.url.clone(), Arc::clone(&self.opened));
        Box::pin(async move {
            let broker = Kafka::of_url(&url).await?;
            *lock(&opened) = Some(Arc::clone(&broker));
            Ok(broker as Arc<dyn MessageBroker>)
        })
    }

    fn crash(&self, broker: Arc<dyn MessageBroker>) -> Answer<()> {
        if let Some(opened) = lock(&self.opened).take() {
            opened.kill();
        }
        drop(broker);
        Box::pin(std::future::ready(()))
    }

    fn plant_unreadable(
        &self,
        _: &Arc<dyn MessageBroker>,
        topic: &Topic,
        partition: u32,
        raw: &[u8],
    ) -> Answer<Result<Position>> {
        match &*lock(&self.opened) {
            Some(broker) => broker.plant_unreadable(topic, partition, Bytes::copy_from_slice(raw)),
            None => Box::pin(std::future::ready(Err(Error::new(ErrorKind::Closed, "no broker is open")))),
        }
    }
}
