//! Names and sizes of what delay makes of one topic.
//!
//! Not here: what names may be (`../names.rs`).

use super::tier::WAITS;
use crate::{Group, INTERNAL_PREFIX, MessageId, Result, Topic, partition_for_key};

/// How many partitions of the internal topic hold messages by when they are due. The number is for ever: which one an id belongs to follows from it.
pub(super) const SHELVES: u32 = 4;
/// How many partitions an internal topic has: behind those come the ones for what is put away.
pub(super) const PARTITIONS: u32 = SHELVES + WAITS.len() as u32;

/// The internal topic of one life of a topic, and the hidden group of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) topic: Topic,
    pub(super) life: u64,
    pub(super) internal: Topic,
    pub(super) group: Group,
}

impl Names {
    pub(super) fn new(topic: &Topic, life: u64) -> Result<Self> {
        let internal = Topic::internal("delay", &[topic.as_str(), &format!("{life:016x}")])?;
        let group = Group::new(internal.as_str())?;
        Ok(Self { topic: topic.clone(), life, internal, group })
    }

    /// The partition in which a message of that id waits, and is taken back.
    pub(super) fn shelf_of(&self, id: MessageId) -> u32 {
        partition_for_key(&id.as_u128().to_be_bytes(), SHELVES)
    }
}

/// Whether a topic is one that delay made.
pub(super) fn is_own(topic: &Topic) -> bool {
    is_delays(topic.as_str())
}

/// Whether a group is one that delay made: it is not shown among those of users.
#[cfg(feature = "kafka")]
pub(crate) fn is_own_group(group: &Group) -> bool {
    is_delays(group.as_str())
}

fn is_delays(name: &str) -> bool {
    name.strip_prefix(INTERNAL_PREFIX).is_some_and(|rest| rest.starts_with("delay."))
}
