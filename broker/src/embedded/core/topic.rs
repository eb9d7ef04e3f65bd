//! A topic and its partitions, as they are kept in memory.

use super::{ReaderId, ShareId, appends::Row, segments::Segments};
use crate::{
    Group, Position, Retention, Timestamp, Topic,
    embedded::state::{PartitionRecord, TopicRecord},
};

/// A topic in one of its lives.
#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) topic: Topic,
    pub(super) life: u64,
    pub(super) retention: Retention,
    pub(super) segments: Segments,
    pub(super) partitions: Vec<PartitionState>,
    /// Why the oldest segment stays that should go.
    pub(super) held_by: Option<Holder>,
    /// How many messages wait for their time.
    pub(super) delayed: u64,
    pub(super) delay_seq: u64,
    /// Nothing that is delayed is due before then.
    pub(super) delay_floor: Timestamp,
    /// Where the next message without a key goes.
    pub(super) spread: u32,
}

/// A live group that has not finished a partition's part of the oldest segment.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) group: Group,
    pub(super) partition: u32,
}

impl TopicState {
    pub(super) fn record(&self) -> TopicRecord {
        TopicRecord {
            life: self.life,
            partitions: self.partitions.len() as u32,
            retention: self.retention.clone(),
            delayed: self.delayed,
            delay_seq: self.delay_seq,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.partitions.len() as u32
    }

    pub(super) fn partition(&self, partition: u32) -> Option<&PartitionState> {
        self.partitions.get(partition as usize)
    }

    pub(super) fn partition_mut(&mut self, partition: u32) -> Option<&mut PartitionState> {
        self.partitions.get_mut(partition as usize)
    }

    pub(super) const fn at(&self, offset: u64) -> Position {
        Position(self.life, offset)
    }
}

/// A partition: messages lie from `low` up to `end`.
#[derive(Debug, Default)]
pub(super) struct PartitionState {
    pub(super) low: u64,
    /// Behind the last message that is committed, and so visible.
    pub(super) end: u64,
    /// Behind the last message that is decided.
    pub(super) next: u64,
    pub(super) last: Timestamp,
    /// Bytes of all messages it ever took.
    pub(super) bytes: u64,
    /// Whether the step at hand changed it.
    pub(super) touched: bool,
    /// What the step at hand appends to it.
    pub(super) appended: Option<Row>,
    /// Who waits for messages.
    pub(super) shares: Vec<ShareId>,
    pub(super) readers: Vec<ReaderId>,
}

impl PartitionState {
    pub(super) fn restore(record: &PartitionRecord) -> Self {
        Self {
            low: record.low,
            end: record.next,
            next: record.next,
            last: record.last,
            bytes: record.bytes,
            ..Self::default()
        }
    }

    pub(super) const fn record(&self) -> PartitionRecord {
        PartitionRecord { low: self.low, next: self.next, last: self.last, bytes: self.bytes }
    }
}
