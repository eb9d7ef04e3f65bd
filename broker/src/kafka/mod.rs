//! Apache Kafka behind the contract, 3.7 or newer: `kafka://HOST:PORT,HOST:PORT`, and `kafka+ssl://` over TLS.
//!
//! | Parameter | Default | Means |
//! |---|---|---|
//! | `ca`, `cert`, `key`, `key_password` | those of the machine | TLS: files in PEM form, whom to trust and what to show |
//! | `mechanism` | `plain` | how `USER:PASSWORD@` before the hosts is shown: `plain`, `scram-sha-256`, `scram-sha-512` |
//! | `client_id` | `ropeway` | how the clients name themselves to the servers |
//! | `replication`, `min_insync_replicas` | what the servers are configured for | of topics that are made here: how many replicas, and how many of them must have a message before it is acked |
//! | `publish_deadline` | `30s` | when a publish is answered at the latest |
//! | `queue_messages`, `queue_bytes` | `65536`, `64MiB` | what may wait to be acked by the servers; more is answered *not written* (`Throttled`) |
//! | `linger` | `0` | how long a message waits for others to go with it |
//! | `compression` | `none` | of record batches: `none`, `gzip`, `snappy`, `lz4`, `zstd` |
//! | `session` | `30s` | for how long a member that is not heard of keeps what it owns |
//! | `max_poll_interval` | `5m` | how long a member may be too busy to ask for more before it loses what it owns |
//! | `release` | `2s` | how long a revoked partition may be kept at the most: the other partitions of the member wait meanwhile |
//! | `group_protocol` | `classic` | who decides which member owns what: `classic` (the members), `consumer` (the servers, KIP-848) |
//! | `rdkafka.NAME` | | a setting of the client library (librdkafka), of a list; those that run code, read files, reach out or break what is promised are refused by name |
//!
//! # What lies in Kafka
//! * A **message** is a record, as `layout.rs` says. Clients that are not ours read and write the same topics.
//! * A **position** is a fold of the topic's id, and the offset. The id is new when a topic is made again, so that a position of another life is recognised.
//! * A key goes to the partition where Kafka's Java client puts it.
//!
//! # Publishing
//! Idempotent, and acked by all replicas in sync. The persistence status that the library gives each record decides between *acked*, *not written* and
//! *unknown*. What would be refused with its whole batch is refused before: its size and its time are measured against what the topic takes.
//!
//! **Durability** is what the topic gives: with two replicas or more, and `min.insync.replicas` of two or more, `Replicated`; else `PowerLoss` where
//! `flush.messages` is 1, and `ProcessCrash` elsewhere, as a server acks before it writes to the disk.
//!
//! # Reading without a group
//! A reader is one client of its own, in no group: it is given partitions with offsets, commits nothing, and asks for no partition EOF (with reads of many records
//! that loses messages); what was there at the start is known by where partitions ended then. Where it holds all it may, its client is not asked
//! for more, and stops by itself. An offset that is out of range is asked about: purged (a gap from there to where messages begin), truncated, or of a topic that was made
//! again. A topic that was made again and is as long as before is read on by the client library at the old offset, without a word: so what comes after a
//! pause is told only when the topic's id was looked at since it came. New partitions are noticed within about a second.
//!
//! # Administration
//! Topics are made to keep everything unless asked for less, with the times that producers give. Creating and deleting answer when the nodes know. Topics
//! that Kafka keeps for itself (`__consumer_offsets` and its like) are not shown and not touched. Beside a committed offset stands, as text, what `metadata.rs` says:
//! so a group's epoch, what it did beyond its position, and which life of the topic it is of are seen without joining.
//!
//! # Delay
//! Kafka has none, so it is made of the rest (`../delay`, over `delay.rs`): for each topic with delayed messages an internal topic of 8 partitions,
//! `__ropeway.delay.<topic>.<life>`, made when the first one is published, and a hidden group of the same name. Each process that publishes for later, takes back, or
//! consumes the topic is a member of it, with a client of its own. A member that is killed holds its delayed messages back for `session`.
//!
//! # Where things are
//! Pure: `settings/`, `layout.rs` (records; their headers in `packed.rs`), `facts.rs` (what follows from how a topic is configured), `failure.rs` (errors), `follow.rs` and
//! `following/` (what a reader reads, and is told), `start.rs` (where reading starts), `metadata.rs` and `group_lag.rs` (what a group has of a partition), `retention.rs` (what
//! is kept). `raw/` is the only unsafe code: the
//! client library made safe. The contract on top: `broker.rs`, `publish/`, `members/`, `reader.rs` with `reader_watch.rs`, `admin.rs` with `change.rs`, and `group_admin.rs`; `topics.rs`,
//! `offsets.rs`, `damage.rs`, `standing.rs` and `probe.rs` are what they know of topics and partitions, `distance.rs` how far away they are. Not here:
//! what all backends share.

mod admin;
mod broker;
mod change;
mod counted;
mod damage;
mod delay;
mod distance;
mod facts;
mod failure;
mod follow;
mod following;
mod group_admin;
mod group_lag;
mod layout;
mod members;
mod metadata;
mod offsets;
mod packed;
#[cfg(any(test, feature = "conformance"))]
mod plant;
mod probe;
mod publish;
#[expect(
    dead_code,
    unused_imports,
    reason = "its table of codes, and how many clients live, which its trials look at (`broker/tests/kafka`)"
)]
mod raw;
mod reader;
mod reader_watch;
mod retention;
mod settings;
mod standing;
mod start;
mod survey;
mod topics;

pub use broker::Kafka;
pub use settings::{
    KafkaCompression, KafkaGroupProtocol, KafkaLogin, KafkaMechanism, KafkaPassword, KafkaSettings, KafkaTls,
};

pub use survey::{KafkaSurvey, SurveyedBroker, SurveyedPartition, SurveyedTopic};

use crate::{BrokerUrl, MessageBroker, Result};
use std::sync::Arc;

/// Opens every URL of Kafka.
pub(crate) async fn open(url: &BrokerUrl) -> Result<Arc<dyn MessageBroker>> {
    Ok(Kafka::connect(check(url)?).await?)
}

/// The settings of a URL.
pub(crate) fn check(url: &BrokerUrl) -> Result<KafkaSettings> {
    KafkaSettings::of_url(url)
}
