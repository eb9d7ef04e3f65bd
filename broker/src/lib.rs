//! The message bus of Ropeway: one contract, [`MessageBroker`], and its backends.
//!
//! ```
//! use ropeway_broker::{Message, MessageBrokerExt, Topic, TopicSpec, connect};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let broker = connect("memory:").await?;
//! let orders = Topic::new("orders")?;
//! broker.admin().create_topic(&orders, TopicSpec::partitions(4)).await?;
//! let receipt = broker.publish_one(&orders, Message::builder().key("c-7").payload("{}").build()).await?;
//! assert!(receipt.position.is_some());
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Where things are
//! The contract: [`MessageBroker`], [`Consumer`] and [`Control`], [`Reader`], [`Admin`]. What travels: [`Message`], [`Headers`],
//! [`Position`]. Above the contract: [`Publisher`], the extension traits. Around it: [`wrap`], brokers that wrap a broker. Below it:
//! `embedded` (schemes `memory:` and `embedded:`). Pure code that backends share: [`AckWindow`], [`balance`], [`InFlight`].
//! `conformance` (feature) is the suite that decides whether a backend keeps the contract.
//!
//! This crate never decodes a payload, and never reads the environment.
//!
//! # Features
//! | Feature | Default | Brings |
//! |---|---|---|
//! | `embedded` | yes | `embedded:DIR`, durable, on fjall |
//! | `conformance` | no | the conformance suite |
//! | `kafka` | no | `kafka://HOST`: Apache Kafka |
//! | `redis` | no | `redis://HOST`: Redis Streams |

mod ack_window;
mod admin;
pub mod balance;
#[cfg(any(feature = "kafka", feature = "redis"))]
mod batched;
mod broker;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
mod consume;
#[cfg(any(feature = "kafka", feature = "redis"))]
mod counted;
#[cfg(any(test, feature = "kafka"))]
mod delay;
mod embedded;
mod error;
mod ext;
mod facts;
mod headers;
mod id;
mod in_flight;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(any(feature = "kafka", feature = "redis"))]
#[cfg_attr(
    not(all(feature = "kafka", feature = "redis")),
    allow(dead_code, unused_imports, reason = "some of it is for one of the two")
)]
mod members;
mod message;
mod names;
mod partitioner;
mod publish;
mod publisher;
#[cfg(any(feature = "kafka", feature = "redis"))]
mod queued;
mod read;
#[cfg(feature = "redis")]
mod redis;
mod ring;
mod varint;
pub mod wire;
pub mod wrap;

pub use ack_window::{AckWindow, Acked};
pub use admin::{
    Admin, GroupInfo, GroupPartition, MemberInfo, PartitionInfo, Retention, TopicInfo, TopicSpec,
};
pub use broker::{Answer, MessageBroker};
pub use clock::{Clock, SystemClock, TokioClock};
pub use connect::{BACKENDS, BrokerUrl, check_url, connect, nearest};
pub use consume::{
    Assignment, Batch, Bound, Consumer, Control, Delivery, Event, GapReason, GoneReason, Owned, Start,
    Subscription,
};
#[cfg(feature = "embedded")]
pub use embedded::salvage;
pub use embedded::{Embedded, EmbeddedSettings};
pub use error::{Error, ErrorKind, Result};
pub use ext::{ConsumerExt, MessageBrokerExt, PublishFailed, ReaderExt, Receipt};
pub use facts::{Capabilities, Health, Statistics};
pub use headers::{Headers, HeadersBuilder};
pub use id::MessageId;
pub use in_flight::{InFlight, Room};
#[cfg(feature = "kafka")]
pub use kafka::{
    Kafka, KafkaCompression, KafkaGroupProtocol, KafkaLogin, KafkaMechanism, KafkaPassword, KafkaSettings,
    KafkaSurvey, KafkaTls, SurveyedBroker, SurveyedPartition, SurveyedTopic,
};
pub use message::{Epoch, Message, MessageBuilder, Position, Timestamp};
pub use names::{Group, INTERNAL_PREFIX, MAX_NAME, Topic};
pub use partitioner::{murmur2, partition_for_key};
pub use publish::{Durability, Failed, Outcomes, Part, Published, Target};
pub use publisher::{Pending, PublishOrder, Publisher, PublisherSettings};
pub use read::Reader;
#[cfg(feature = "redis")]
pub use redis::{RedisStreams, RedisStreamsSettings};
