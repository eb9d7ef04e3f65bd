//! The server that `ROPEWAY_TEST_KAFKA_URL` names, and a topic of its own on it for each turn or cell, deleted at the end.
//!
//! Not here: servers (`cargo xtask servers`).

use crate::{
    Result,
    tasks::{patiently, runtime},
    work::{Seen, Work},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
};
use ropeway_broker::{Event, MessageBroker, ReaderExt, Start, Target, Topic, TopicSpec};
use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

const VARIABLE: &str = "ROPEWAY_TEST_KAFKA_URL";
/// How long a broker may take to close.
const CLOSE: Duration = Duration::from_secs(20);

/// What both are told, beyond what either does by itself: the settings of ours, which are the library's but for these. Only ours has one request under way to each
/// server; the other has what the library does by itself, five.
pub(super) const PRODUCER: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("linger.ms", "0"),
    ("batch.size", "1000000"),
    ("compression.codec", "none"),
    ("partitioner", "murmur2_random"),
];
/// The same of consumers. Offsets are stored as records are taken, and committed by the library, which costs least.
pub(super) const CONSUMER: &[(&str, &str)] = &[
    ("auto.offset.reset", "earliest"),
    ("check.crcs", "true"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "30000"),
    ("heartbeat.interval.ms", "3000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.max.bytes", "16777216"),
    ("fetch.queue.backoff.ms", "10"),
];

/// A topic on the server.
pub(super) struct Ground {
    pub(super) url: String,
    pub(super) topic: Topic,
}

/// What keeps the cells on Kafka from running.
pub(crate) fn missing() -> Option<String> {
    let reason =
        format!("there is no server: {VARIABLE} is not set (`cargo xtask servers up kafka` prints it)");
    env::var(VARIABLE).ok().filter(|url| !url.is_empty()).is_none().then_some(reason)
}

impl Ground {
    /// Makes the topic.
    pub(super) fn make(partitions: u32) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let url = env::var(VARIABLE)?.split('?').next().unwrap_or_default().to_owned();
        let name = format!("rivals-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let ground = Self { url, topic: Topic::new(name)? };
        runtime()?.block_on(async {
            let broker = ground.broker().await?;
            broker.admin().create_topic(&ground.topic, TopicSpec::partitions(partitions)).await?;
            broker.close(CLOSE).await;
            Result::Ok(())
        })?;
        Ok(ground)
    }

    /// Our broker on it.
    pub(super) async fn broker(&self) -> Result<Arc<dyn MessageBroker>> {
        Ok(ropeway_broker::connect(&self.url).await?)
    }

    pub(super) fn target(&self) -> Target {
        Target::from(&self.topic)
    }

    /// Where the server is, for clients of others.
    pub(super) fn servers(&self) -> &str {
        self.url.split_once("://").map_or(&*self.url, |(_, servers)| servers)
    }

    /// Writes messages `0..count`.
    pub(super) fn fill(&self, work: &Work, count: u64) -> Result<()> {
        runtime()?.block_on(async {
            let broker = self.broker().await?;
            for from in (0..count).step_by(8192) {
                let batch = (from..count.min(from + 8192)).map(|i| work.message(i)).collect();
                if !broker.publish(&self.target(), batch).await.all_acked() {
                    return Err("the topic could not be filled".into());
                }
            }
            broker.close(CLOSE).await;
            Result::Ok(())
        })
    }

    /// Reads messages `0..count` back, and compares them with what was to be written.
    pub(super) fn check(&self, work: &Work, count: u64, who: &str) -> Result<()> {
        let seen = runtime()?.block_on(async {
            let broker = self.broker().await?;
            let mut reader = broker.read().await?;
            reader.follow(&self.topic, None, Start::Earliest).await?;
            let mut seen = Seen::default();
            let all = async {
                while seen.count < count {
                    if let Event::Batch(batch) = reader.next().await? {
                        batch.deliveries.iter().for_each(|delivery| seen.add(&delivery.message));
                    }
                }
                Result::Ok(())
            };
            patiently(all).await??;
            drop(reader);
            broker.close(CLOSE).await;
            Result::Ok(seen)
        })?;
        let length = self.length()?;
        if length != count {
            return Err(format!("{length} messages are there, and {who} was to write {count}").into());
        }
        seen.check(work.expected(count), who)
    }

    /// How many messages are there.
    pub(super) fn length(&self) -> Result<u64> {
        runtime()?.block_on(async {
            let broker = self.broker().await?;
            let info = broker.admin().describe_topic(&self.topic).await?;
            broker.close(CLOSE).await;
            Ok(info.partitions.iter().filter_map(|partition| partition.messages).sum())
        })
    }
}

impl Drop for Ground {
    /// By the client of rdkafka: ours keeps a topic whose group has a member, and a process that was killed is one for a while.
    fn drop(&mut self) {
        let deleted = runtime().and_then(|runtime| {
            let admin: AdminClient<_> =
                ClientConfig::new().set("bootstrap.servers", self.servers()).create()?;
            runtime.block_on(admin.delete_topics(&[self.topic.as_str()], &AdminOptions::new()))?;
            Ok(())
        });
        if let Err(error) = deleted {
            eprintln!("topic {} is left behind: {error}", self.topic);
        }
    }
}
