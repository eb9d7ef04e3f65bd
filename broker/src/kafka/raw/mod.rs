//! The client library of Kafka (librdkafka), made safe: the only unsafe code of this crate.
//!
//! # Where things are
//! `native.rs` and `native_admin.rs` are prototypes. `code.rs`, `conf.rs`, `list.rs`, `queue.rs`, `headers.rs`, `message.rs`, `metadata.rs` own or copy one kind of
//! thing each. `client.rs` makes and ends clients and is called back by them, `notes.rs` keeps what they say. `producer.rs` and `reports.rs` write.
//! `consumer.rs` reads, with `rebalance.rs`, `assign.rs`, `commit.rs`, `offsets.rs`. `admin.rs` asks, with `admin_offsets.rs` and `admin_groups.rs`. Not here: what any of it means for the contract (the folder above).

mod admin;
mod admin_groups;
mod admin_offsets;
mod assign;
mod client;
mod code;
mod commit;
mod conf;
mod consumer;
mod headers;
mod list;
mod message;
mod metadata;
mod native;
mod native_admin;
mod notes;
mod offsets;
mod producer;
mod queue;
mod rebalance;
mod reports;

pub(in crate::kafka) use admin::{Admin, PartitionDescription, TopicDescription};
pub(in crate::kafka) use admin_groups::{GroupDescription, MemberDescription};
pub(in crate::kafka) use admin_offsets::Spec;
pub(in crate::kafka) use client::living;
pub(in crate::kafka) use code::{Code, Trouble};
pub(in crate::kafka) use conf::Conf;
pub(in crate::kafka) use consumer::{Consumer, Told, Waker};
pub(in crate::kafka) use headers::HeadersOf;
pub(in crate::kafka) use list::{
    Answered, MAX_METADATA, OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Place,
};
pub(in crate::kafka) use message::RecordRef;
pub(in crate::kafka) use metadata::{Metadata, Node, PartitionMetadata, TopicMetadata};
pub(in crate::kafka) use notes::Notes;
pub(in crate::kafka) use producer::{Producer, ProducerTopic, Record};
pub(in crate::kafka) use reports::{Done, Report, Sent, Written};
