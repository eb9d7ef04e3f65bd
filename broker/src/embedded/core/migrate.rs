//! From an earlier format to this one, when the broker is opened.
//!
//! All in one commit: killed before it the directory is as it was, killed after it is migrated.
//! Not here: loading what is stored (`recover.rs`), the records (`state.rs`).

use super::{
    recover::{at, damaged, entries},
    store_error,
};
use crate::{
    Error, ErrorKind, Result,
    embedded::state::{
        FORMAT, FORMAT_KEY, PARTITIONS, PartitionRecord, SegmentRecord, TOPICS, TopicRecord, decode_number,
        encode_number, segment_key,
    },
};
use bytes::Bytes;
use ropeway_store::{Durability, KeyValue, Keyspace, WriteBatch};

/// Brings what is stored to this format. A store that holds nothing gets it.
pub(super) fn migrate(store: &dyn KeyValue, state: Keyspace) -> Result<()> {
    let mut batch = WriteBatch::new();
    match store.get(state, FORMAT_KEY).map_err(store_error)? {
        None => {}
        Some(bytes) => match decode_number(&bytes)? {
            FORMAT => return Ok(()),
            1 => from_1(store, state, &mut batch)?,
            // All its records are read as they are.
            2 => {}
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the directory holds format {other} of the embedded broker, and this build knows up to format {FORMAT}; open it with the version that wrote it"
                    ),
                ));
            }
        },
    }
    batch.put(state, Bytes::from_static(FORMAT_KEY), encode_number(FORMAT));
    store.commit(batch, Durability::PowerLoss).map_err(store_error)
}

/// The keyspace of each life becomes its first segment. What is left in it of messages that were purged goes with it.
fn from_1(store: &dyn KeyValue, state: Keyspace, batch: &mut WriteBatch) -> Result<()> {
    for (key, value) in entries(store, state, TOPICS)? {
        let topic = TopicRecord::decode(&value).map_err(|error| at(error, &key))?;
        batch.put(state, segment_key(topic.life, 0), SegmentRecord::default().encode());
    }
    for (key, value) in entries(store, state, PARTITIONS)? {
        crate::embedded::state::parse_partition_key(&key).ok_or_else(|| damaged(&key))?;
        let record = PartitionRecord::decode_format_1(&value).map_err(|error| at(error, &key))?;
        batch.put(state, key, record.encode());
    }
    Ok(())
}
