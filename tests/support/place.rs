//! A broker on a server as a store of the conformance suites: opened by its URL, ended as `kill -9` would.
//!
//! Not here: which server, and what is new in each trial (`redis.rs`, `kafka.rs`).

use crate::backends::lock;
use bytes::Bytes;
use ropeway_broker::{
    Answer, Error, ErrorKind, Kafka, MessageBroker, Position, RedisStreams, Result, Topic, conformance::Store,
};
use std::{
    fmt::Debug,
    future::ready,
    sync::{Arc, Mutex},
};

/// What a broker on a server can do for tests, beside the contract.
pub(crate) trait OnServer: MessageBroker + Debug + Sized + 'static {
    /// Opens it.
    fn at(url: String) -> Answer<Result<Arc<Self>>>;

    /// Ends it without a word.
    fn kill(&self);

    /// Appends a record that is no message.
    fn plant(&self, topic: &Topic, partition: u32, raw: Bytes) -> Answer<Result<Position>>;
}

/// Passes on to what both have under the same names.
macro_rules! on_server {
    ($($broker:ty),*) => {$(
        impl OnServer for $broker {
            fn at(url: String) -> Answer<Result<Arc<Self>>> {
                Box::pin(async move { Self::of_url(&url).await })
            }

            fn kill(&self) {
                Self::kill(self);
            }

            fn plant(&self, topic: &Topic, partition: u32, raw: Bytes) -> Answer<Result<Position>> {
                self.plant_unreadable(topic, partition, raw)
            }
        }
    )*};
}

on_server!(RedisStreams, Kafka);

/// A URL, and the broker that was opened there last.
#[derive(Debug)]
pub(crate) struct Place<B> {
    url: String,
    /// What is done to a broker before anybody has it.
    prepare: fn(&B),
    opened: Arc<Mutex<Option<Arc<B>>>>,
}

impl<B: OnServer> Place<B> {
    pub(crate) fn at(url: String, prepare: fn(&B)) -> Self {
        Self { url, prepare, opened: Arc::default() }
    }
}

impl<B: OnServer> Store for Place<B> {
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>> {
        let (opening, prepare, opened) = (B::at(self.url.clone()), self.prepare, Arc::clone(&self.opened));
        Box::pin(async move {
            let broker = opening.await?;
            prepare(&broker);
            *lock(&opened) = Some(Arc::clone(&broker));
            Ok(broker as Arc<dyn MessageBroker>)
        })
    }

    fn crash(&self, broker: Arc<dyn MessageBroker>) -> Answer<()> {
        if let Some(opened) = lock(&self.opened).take() {
            opened.kill();
        }
        drop(broker);
        Box::pin(ready(()))
    }

    fn plant_unreadable(
        &self,
        _: &Arc<dyn MessageBroker>,
        topic: &Topic,
        partition: u32,
        raw: &[u8],
    ) -> Answer<Result<Position>> {
        match &*lock(&self.opened) {
            Some(broker) => broker.plant(topic, partition, Bytes::copy_from_slice(raw)),
            None => Box::pin(ready(Err(Error::new(ErrorKind::Closed, "no broker is open")))),
        }
    }
}
