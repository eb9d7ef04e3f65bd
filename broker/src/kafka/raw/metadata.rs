//! What servers say there is: brokers, topics, partitions and their leaders.
//!
//! Not here: ids of topics, which these answers do not have (`admin.rs`).

#![expect(unsafe_code, reason = "asks for metadata by the C library, and reads what it answers")]

use super::{
    client::Client,
    code::{Code, Trouble, text},
    list::c_text,
    native,
    queue::millis,
};
use rdkafka_sys::rd_kafka_topic_t;
use std::{ptr, slice, time::Duration};

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Node {
    pub(in crate::kafka) id: i32,
    pub(in crate::kafka) host: String,
    pub(in crate::kafka) port: i32,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Metadata {
    pub(in crate::kafka) nodes: Vec<Node>,
    pub(in crate::kafka) topics: Vec<TopicMetadata>,
}

/// A topic. One that does not exist has a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct TopicMetadata {
    pub(in crate::kafka) name: String,
    pub(in crate::kafka) code: Code,
    pub(in crate::kafka) partitions: Vec<PartitionMetadata>,
}

/// A partition. The leader is -1 while there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct PartitionMetadata {
    pub(in crate::kafka) id: i32,
    pub(in crate::kafka) code: Code,
    pub(in crate::kafka) leader: i32,
    pub(in crate::kafka) replicas: Vec<i32>,
    pub(in crate::kafka) isr: Vec<i32>,
}

/// Asks. Blocks, for `wait` at most.
pub(super) fn ask(client: &Client, topic: Option<&str>, wait: Duration) -> Result<Metadata, Trouble> {
    let name = topic.map(c_text).transpose()?;
    // SAFETY: the client is alive. The topic is ours while the call lasts, and destroyed after it.
    unsafe {
        let only = name.as_ref().map_or(ptr::null_mut(), |name| {
            native::rd_kafka_topic_new(client.native(), name.as_ptr(), ptr::null_mut())
        });
        if only.is_null() && name.is_some() {
            return Err(Trouble::new(
                Code::INVALID_ARG,
                format!("{} cannot be the name of a topic", topic.unwrap_or_default()),
            ));
        }
        let answer = of(client, only, wait);
        if !only.is_null() {
            native::rd_kafka_topic_destroy(only);
        }
        answer
    }
}

/// Asks for one topic, or (null) for all.
///
/// # Safety
/// The topic is null, or one of this client and alive.
unsafe fn of(client: &Client, only: *mut rd_kafka_topic_t, wait: Duration) -> Result<Metadata, Trouble> {
    let mut answer: *const native::Metadata = ptr::null();
    let all = i32::from(only.is_null());
    // SAFETY: client and topic are alive. What is answered is ours, and is copied before it is destroyed.
    unsafe {
        Code(native::rd_kafka_metadata(client.native(), all, only, &raw mut answer, millis(wait))).check()?;
        let metadata = copy(&*answer);
        native::rd_kafka_metadata_destroy(answer);
        // One that says that there are none has just come back, and takes from the client all that it knew.
        if !metadata.nodes.is_empty() {
            client.told().heard();
        }
        Ok(metadata)
    }
}

/// # Safety
/// It is an answer of the library that is alive.
unsafe fn copy(answer: &native::Metadata) -> Metadata {
    // SAFETY: each count is that of the array beside it; texts end in NUL.
    unsafe {
        let node =
            |node: &native::MetadataBroker| Node { id: node.id, host: text(node.host), port: node.port };
        let partition = |partition: &native::MetadataPartition| PartitionMetadata {
            id: partition.id,
            code: Code(partition.err),
            leader: partition.leader,
            replicas: array(partition.replicas, partition.replica_cnt).to_vec(),
            isr: array(partition.isrs, partition.isr_cnt).to_vec(),
        };
        let topic = |topic: &native::MetadataTopic| TopicMetadata {
            name: text(topic.topic),
            code: Code(topic.err),
            partitions: array(topic.partitions, topic.partition_cnt).iter().map(partition).collect(),
        };
        Metadata {
            nodes: array(answer.brokers, answer.broker_cnt).iter().map(node).collect(),
            topics: array(answer.topics, answer.topic_cnt).iter().map(topic).collect(),
        }
    }
}

/// # Safety
/// `at` is null, or an array of `count` that is alive while `'a` lasts.
unsafe fn array<'a, T>(at: *const T, count: i32) -> &'a [T] {
    match usize::try_from(count) {
        // SAFETY: as the caller promises.
        Ok(count) if count > 0 && !at.is_null() => unsafe { slice::from_raw_parts(at, count) },
        _ => &[],
    }
}
