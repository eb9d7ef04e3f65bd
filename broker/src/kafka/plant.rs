//! What goes wrong on purpose, for tests that see what becomes of it: a record that is no message, metadata that is lost.
//!
//! Not here: what makes a record one (`layout.rs`).

use super::{
    broker::{Kafka, Shared},
    failure::BACKEND,
    raw::{HeaderList, Producer, Record, Report, Trouble, Written},
    settings::BATCH,
};
use crate::{Answer, Error, ErrorKind, Headers, Message, Position, Result, Timestamp, Topic};
use bytes::Bytes;
use std::{iter, sync::Arc};
use tokio::sync::oneshot;

impl Kafka {
    /// Appends a record that has more headers than a message may have.
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    #[doc(hidden)]
    pub fn plant_unreadable(&self, topic: &Topic, partition: u32, raw: Bytes) -> Answer<Result<Position>> {
        let (shared, topic) = (Arc::clone(&self.shared), topic.clone());
        Box::pin(async move { shared.call(plant(&shared, &topic, partition, raw)).await })
    }

    /// From now on members store of what goes from them the offset alone, and not what is done beyond it: a double, which the suite must notice.
    #[doc(hidden)]
    pub fn lose_metadata(&self) {
        self.shared.members.lose_metadata();
    }
}

async fn plant(shared: &Shared, topic: &Topic, partition: u32, raw: Bytes) -> Result<Position> {
    let described = shared.topics.describe(topic).await?;
    let told = send(shared, topic, partition, raw)?;
    let reports = told.await.unwrap_or_default();
    match reports.as_slice() {
        [Report { written: Written::Yes, offset, .. }] => described.at(*offset).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "it was written nobody knows where").on(BACKEND)
        }),
        other => {
            Err(Error::new(ErrorKind::Unavailable, format!("it was not written: {other:?}")).on(BACKEND))
        }
    }
}

/// Begins to write it, by a producer of its own.
fn send(
    shared: &Shared,
    topic: &Topic,
    partition: u32,
    raw: Bytes,
) -> Result<oneshot::Receiver<Vec<Report>>> {
    let failed = |trouble: Trouble| shared.failed(&trouble);
    let conf = shared.settings.producer(BATCH).conf()?;
    let producer = Producer::open(conf, Arc::clone(&shared.notes)).map_err(failed)?;
    let target = producer.topic(topic.as_str()).map_err(failed)?;
    let values = Arc::new(vec![Message::builder().payload(raw).build()]);
    let record = Record {
        at: 0,
        partition: i32::try_from(partition).unwrap_or(i32::MAX),
        key: None,
        timestamp: Timestamp::now().as_millis(),
        headers: |headers: &mut HeaderList| (0..=Headers::MAX_COUNT).for_each(|_| headers.add(b"h", None)),
    };
    let (tell, told) = oneshot::channel();
    // What is not written when the last producer goes is purged.
    let kept = producer.clone();
    let done = Box::new(move |reports| {
        drop(kept);
        _ = tell.send(reports);
    });
    producer.send(&target, &values, iter::once(record), done);
    Ok(told)
}
