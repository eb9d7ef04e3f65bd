//! Many tasks that each await one message, beside the same tasks over the `FutureProducer` of rdkafka; and beside it the client library alone with as
//! many under way, which nobody can be quicker than who uses that.
//!
//! Not here: the server and what others are told (`ground.rs`), the loop (`bare.rs`).

use super::{
    bare,
    ground::{Ground, PRODUCER},
};
use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    tasks::{many, runtime},
    work::Work,
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};
use ropeway_broker::{Publisher, PublisherSettings};
use std::{ops::Range, path::Path, sync::Arc, time::Duration};

const AT_ONCE: usize = 1024;
const PARTITIONS: u32 = 4;

/// Who is beside the `FutureProducer`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beside {
    /// As many tasks over a `Publisher`.
    Publisher,
    /// One thread that produces while fewer are under way, and awaits nothing by itself.
    Loop,
}

/// The pair of such a cell.
pub(crate) struct Awaited {
    work: Arc<Work>,
    messages: u64,
    beside: Beside,
}

impl Awaited {
    pub(crate) fn pair(plan: &Plan, payload: usize, messages: u64, beside: Beside) -> Box<dyn Pair> {
        let work = Arc::new(Work::new(payload));
        Box::new(Self { work, messages: plan.messages(messages), beside })
    }

    /// Those before the watch starts, and those that are timed.
    fn parts(&self) -> (Range<u64>, Range<u64>) {
        let warm = self.messages / 5;
        (0..warm, warm..warm + self.messages)
    }

    async fn timed<F: Future<Output = bool> + Send>(
        &self,
        one: impl Fn(u64) -> F + Clone + Send + 'static,
    ) -> Result<Turn> {
        let (warm, timed) = self.parts();
        let each = move |piece: Range<u64>| one(piece.start);
        many(AT_ONCE, warm, 1, each.clone()).await?;
        let watch = Stopwatch::start();
        many(AT_ONCE, timed, 1, each).await?;
        let (wall, cpu) = watch.stop();
        Ok(Turn { messages: self.messages, wall, cpu, facts: Vec::new() })
    }

    fn looped(&self, ground: &Ground) -> Result<Turn> {
        let (warm, timed) = self.parts();
        let mut producer = bare::Producer::open(ground, AT_ONCE, &self.work.message(0))?;
        producer.send(&self.work, warm)?;
        let watch = Stopwatch::start();
        producer.send(&self.work, timed)?;
        let (wall, cpu) = watch.stop();
        Ok(Turn { messages: self.messages, wall, cpu, facts: Vec::new() })
    }

    fn published(&self, ground: &Ground) -> Result<Turn> {
        runtime()?.block_on(async {
            let broker = ground.broker().await?;
            let publisher = Publisher::new(broker.clone(), PublisherSettings::default())?;
            let (topic, work) = (ground.topic.clone(), self.work.clone());
            let turn = self.timed(move |i| {
                let (publisher, topic, message) = (publisher.clone(), topic.clone(), work.message(i));
                async move { publisher.publish(&topic, message).await.is_ok() }
            });
            let turn = turn.await?;
            broker.close(Duration::from_secs(5)).await;
            Result::Ok(turn)
        })
    }
}

impl Pair for Awaited {
    fn ours(&mut self, _: &Path) -> Result<Turn> {
        let ground = Ground::make(PARTITIONS)?;
        let (turn, who) = match self.beside {
            Beside::Publisher => (self.published(&ground)?, "ropeway"),
            Beside::Loop => (self.looped(&ground)?, "the loop"),
        };
        ground.check(&self.work, self.parts().1.end, who)?;
        Ok(turn)
    }

    fn rival(&mut self, _: &Path) -> Result<Turn> {
        let ground = Ground::make(PARTITIONS)?;
        let turn = runtime()?.block_on(async {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", ground.servers());
            PRODUCER.iter().for_each(|(name, value)| _ = config.set(*name, *value));
            let producer: FutureProducer = config.create()?;
            let (publisher, topic, work) = (producer.clone(), ground.topic.clone(), self.work.clone());
            let turn = self.timed(move |i| {
                let (producer, topic, message) = (publisher.clone(), topic.clone(), work.message(i));
                async move {
                    let id = message.id.to_string();
                    let mut headers = OwnedHeaders::new_with_capacity(4);
                    for (key, value) in message.headers.iter() {
                        headers = headers.insert(Header { key, value });
                    }
                    let headers = headers.insert(Header { key: "ropeway-id", value: Some(&id) });
                    let record = FutureRecord::to(topic.as_str())
                        .key(message.key.as_deref().unwrap_or_default())
                        .payload(message.payload.as_deref().unwrap_or_default())
                        .timestamp(message.timestamp.as_millis())
                        .headers(headers);
                    producer.send(record, Duration::from_secs(30)).await.is_ok()
                }
            });
            let turn = turn.await?;
            producer.flush(Duration::from_secs(30))?;
            Result::Ok(turn)
        })?;
        ground.check(&self.work, self.parts().1.end, "the FutureProducer")?;
        Ok(turn)
    }
}
