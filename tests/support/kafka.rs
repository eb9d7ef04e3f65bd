//! Kafka as the conformance suite wants it: on the server that `server.rs` finds. Names of topics and groups are new in each trial.
//!
//! Not here: what is checked (`broker/src/conformance`), opening and ending a broker there (`place.rs`).

use crate::{place::Place, server::Server};
use ropeway_broker::{
    Error, ErrorKind, Kafka, Result,
    conformance::{Backend, Provides, Setup, Store},
};

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
        self.place(|_| {})
    }
}

impl OnKafka {
    /// A place for a trial whose brokers are prepared so, such as to do something wrong.
    ///
    /// # Errors
    /// `Unavailable`: there is no server.
    pub fn place(self, prepare: fn(&Kafka)) -> Result<Box<dyn Store>> {
        let url = Server::Kafka.url().map_err(|why| Error::new(ErrorKind::Unavailable, why))?;
        let protocol = match self {
            // Short, since some checks wait until who was killed is given up; long enough for a member to be heard of on a busy machine: with the
            // shortest that servers take (3 s) members were given up that lived. Rebalances are heard of as soon as with the shortest.
            Self::Classic => "session=8s&rdkafka.heartbeat.interval.ms=300",
            Self::Consumer => "group_protocol=consumer",
        };
        let url = format!("{}?{protocol}", url.split('?').next().unwrap_or_default());
        Ok(Box::new(Place::at(url, prepare)))
    }
}
