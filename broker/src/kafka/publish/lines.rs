//! The clients that publish: one for most topics, and one more for each size of record batch that some topics take at the most.
//!
//! The library puts what waits for a partition into one record batch, up to a size that is set for the client; a server refuses a batch that is larger than
//! the topic's `max.message.bytes`, with all its records. So topics that take less than the usual batch have a client with smaller batches. A client
//! whose sequence the servers refused (a fatal error of the library) is replaced. Not here: which topic uses which (`lane.rs`).

use super::super::{
    failure,
    raw::{Notes, Producer},
    settings::{BATCH, KafkaSettings},
};
use crate::{Error, Result};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A client that publishes.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) producer: Producer,
    /// The servers refused its sequence: it can publish nothing any more.
    broken: AtomicBool,
}

impl Line {
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Nothing goes over it any more.
    pub(super) fn break_off(&self) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            let why = self.producer.fatal().map(|trouble| trouble.text).unwrap_or_default();
            tracing::error!(
                why,
                "the servers refused the sequence of a Kafka publisher: a new one is made; what was open may be written"
            );
        }
    }
}

/// The clients that publish, by the size of their batches.
#[derive(Debug)]
pub(super) struct Lines {
    settings: KafkaSettings,
    notes: Arc<Notes>,
    open: Mutex<HashMap<usize, Arc<Line>>>,
}

/// How large a record batch may be for topics that take so many bytes.
const fn batch_size(max_message_bytes: usize) -> usize {
    match max_message_bytes {
        BATCH.. => BATCH,
        0 => 1,
        // Few sizes, so that there are few clients.
        _ => 1 << max_message_bytes.ilog2(),
    }
}

impl Lines {
    /// With the client for most topics: the first message waits for the number that a server gives it, which takes a second.
    ///
    /// # Errors
    /// `Invalid` for settings that the library does not take.
    pub(super) fn open(settings: KafkaSettings, notes: Arc<Notes>) -> Result<Self> {
        let lines = Self { settings, notes, open: Mutex::default() };
        lines.line(BATCH)?;
        Ok(lines)
    }

    /// The client for topics that take so many bytes at once.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub(super) fn line(&self, max_message_bytes: usize) -> Result<Arc<Line>> {
        let batch = batch_size(max_message_bytes);
        let mut open = self.all();
        if let Some(line) = open.get(&batch).filter(|line| !line.is_broken()) {
            return Ok(Arc::clone(line));
        }
        let conf = self.settings.producer(batch).conf()?;
        let failed = |trouble| -> Error { failure::failed(&self.settings.named(), &trouble) };
        let producer = Producer::open(conf, Arc::clone(&self.notes)).map_err(failed)?;
        let line = Arc::new(Line { producer, broken: AtomicBool::new(false) });
        open.insert(batch, Arc::clone(&line));
        Ok(line)
    }

    /// Gives up all that waits and all that is under way: their reports come at once.
    pub(super) fn purge(&self) {
        self.all().values().for_each(|line| line.producer.purge(true, true));
    }

    /// Makes all of them give up for good.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn break_off(&self) {
        for line in self.all().values() {
            _ = line.producer.break_it();
        }
    }

    /// Writes what waits, for so long at the most, on a thread that nobody waits for.
    pub(super) fn flush(&self, wait: Duration) {
        let all: Vec<_> = self.all().values().map(|line| line.producer.clone()).collect();
        if all.iter().all(|producer| producer.queued() == 0) {
            return;
        }
        let flush = move || {
            for producer in all {
                if let Err(trouble) = producer.flush(wait) {
                    tracing::warn!(%trouble, "what was published last may not be written");
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-flush".into()).spawn(flush) {
            tracing::warn!(%error, "what was published last may not be written");
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<usize, Arc<Line>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_never_larger_than_what_a_topic_takes_and_have_few_sizes() {
        for (takes, size) in [
            (2_000_000, BATCH),
            (1_048_588, BATCH),
            (BATCH, BATCH),
            (BATCH - 1, 1 << 19),
            (1000, 512),
            (1, 1),
            (0, 1),
        ] {
            assert_eq!(batch_size(takes), size, "{takes}");
        }
        for takes in 1..3000 {
            assert!(batch_size(takes * 777) <= takes * 777);
        }
    }
}
