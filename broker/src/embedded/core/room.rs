//! How much room there is: what the store takes against what it may, and topics that are at their bound because a live group lags.
//!
//! Publishing is refused first. What is forwarded has a reserve, because it acks as well and consumers would stop without it. Acks, forwards that
//! only ack, purges and deletes are never refused: they are small, and make room. Where even those have little left, delayed messages that are due
//! wait as well. It all goes on by itself when room is there.
//! Not here: what is removed (`retention.rs`), who measures (`housekeeping.rs`).

use super::{
    Core, Life, ShareId, Step,
    segments::segment_bytes,
    store_error,
    topic::{Holder, PartitionState, TopicState},
};
use crate::{Error, ErrorKind, Result};
#[cfg(feature = "embedded")]
use ropeway_store::Keyspace;
use ropeway_store::Usage;

/// What the store may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::embedded) struct Quota {
    /// The name of the setting.
    pub(in crate::embedded) setting: &'static str,
    /// Bytes that it may take.
    pub(in crate::embedded) most: u64,
    /// Bytes that must stay free on the file system.
    pub(in crate::embedded) min_free: u64,
    /// It is cheap to measure, so that is done when it seems to be too much; else housekeeping measures.
    pub(in crate::embedded) at_once: bool,
}

impl Quota {
    /// What forwards may take: a sixteenth more than publishing, and half of what is kept free.
    const fn of_forwards(self) -> Self {
        Self { most: self.most.saturating_add(self.most / 16), min_free: self.min_free / 2, ..self }
    }
}

/// What the store takes, as far as is known.
#[derive(Clone, Debug)]
pub(super) struct Room {
    measured: Usage,
    /// Why something that is to be removed still takes its room.
    failing: Option<String>,
    /// What was written when that was measured.
    since: u64,
    /// Bytes that were written since the broker was opened.
    pub(super) written: u64,
}

impl Room {
    pub(super) const fn new(measured: Usage) -> Self {
        Self { measured, failing: None, since: 0, written: 0 }
    }

    /// Why nothing more may be published, if so. `more`: what is about to be written.
    fn short(&self, quota: &Quota, more: u64) -> Option<String> {
        let new = self.written.saturating_sub(self.since).saturating_add(more);
        let taken = self.measured.bytes.saturating_add(new);
        if taken > quota.most {
            return Some(format!(
                "{taken} bytes are taken, and `{}` allows {}; purge or delete what is not needed, or allow more",
                quota.setting, quota.most
            ));
        }
        let free = self.measured.free?.saturating_sub(new);
        (free < quota.min_free).then(|| {
            format!(
                "the file system has {free} bytes left, and `min_free` keeps {} for acks and for removing; make room on it",
                quota.min_free
            )
        })
    }
}

impl Core {
    /// What was written so far: [`Self::measured`] wants it, as it was before measuring.
    #[cfg(feature = "embedded")]
    pub(in crate::embedded) const fn written(&self) -> u64 {
        self.room.written
    }

    /// The store was measured, when that much was written.
    pub(in crate::embedded) const fn measured(&mut self, usage: Usage, written: u64) {
        (self.room.measured, self.room.since) = (usage, written);
    }

    /// The keyspaces that are written to, where there is no room.
    #[cfg(feature = "embedded")]
    pub(in crate::embedded) fn in_memory(&self) -> Vec<Keyspace> {
        if self.room.short(&self.rules.quota, 0).is_none() {
            return Vec::new();
        }
        let logs = self.topics.values().map(|topic| topic.segments.active());
        logs.chain([self.spaces.state, self.spaces.schedule]).chain(self.spaces.dedup).collect()
    }

    /// The store has lost what it keeps: nothing is written any more.
    #[cfg(feature = "embedded")]
    pub(in crate::embedded) fn lose(&mut self, error: &Error) {
        self.refuse_writes("the store cannot be used any more", error);
    }

    /// Less than half is left of what is kept free: what can wait does.
    pub(super) fn is_critical(&self) -> bool {
        let half = self.rules.quota.min_free / 2;
        let new = self.room.written.saturating_sub(self.room.since);
        self.room.measured.free.is_some_and(|free| free.saturating_sub(new) < half)
    }

    /// Refuses to publish, or to forward, where there is no room.
    pub(super) fn check_room(&mut self, step: &Step, forwards: bool) -> Result<()> {
        let quota = if forwards { self.rules.quota.of_forwards() } else { self.rules.quota };
        let more = (step.batch.bytes() + step.appends.bytes()) as u64;
        if self.room.short(&quota, more).is_none() {
            return Ok(());
        }
        if quota.at_once {
            self.measured(self.store.usage().map_err(store_error)?, self.room.written);
        }
        let short = self.room.short(&quota, more);
        short.map_or(Ok(()), |why| Err(Error::new(ErrorKind::Throttled, why)))
    }

    /// Refuses to publish to a topic that is at its bound, where a live group has not finished what would go. What that very group forwards
    /// back is let in: it acks as it forwards, and could finish nothing otherwise.
    pub(super) fn check_bound(
        &mut self,
        step: &mut Step,
        life: Life,
        settles: Option<ShareId>,
    ) -> Result<()> {
        let most = self.rules.segment;
        let Some(topic) = self.topics.get(&life).filter(|topic| topic.is_full(most)) else { return Ok(()) };
        // As long as one that was found holds it back, no other is looked for.
        if topic.held_by.as_ref().is_none_or(|holder| !self.holds(step.now, life, holder)) {
            self.trim(step, life);
        }
        let Some(topic) = self.topics.get(&life).filter(|topic| topic.is_full(most)) else { return Ok(()) };
        let settling = settles.and_then(|share| self.shares.get(&share)).map(|share| &share.group);
        if settling.is_some() && settling == topic.held_by.as_ref().map(|holder| &holder.group) {
            return Ok(());
        }
        let Some(why) = topic.held_by.as_ref().and_then(|holder| self.lagging(topic, holder)) else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Throttled, why))
    }

    /// Who lags how far, and what can be done.
    fn lagging(&self, topic: &TopicState, holder: &Holder) -> Option<String> {
        let group = &holder.group;
        let state = self.groups.get(group)?;
        let behind = |(partition, part): (u32, &PartitionState)| {
            Some(part.next.saturating_sub(self.goes_on(topic, state, partition)?))
        };
        let lag: u64 = (0..).zip(&topic.partitions).filter_map(behind).sum();
        Some(format!(
            "topic {:?} holds {} bytes and may hold {}, and group {group:?} has not finished {lag} messages of it; let it catch up, or seek or delete it",
            topic.topic,
            topic.segments.bytes(),
            topic.bound()?,
        ))
    }

    /// What does not work, if anything.
    pub(in crate::embedded) fn degraded(&self) -> Option<String> {
        self.shortage().or_else(|| self.room.failing.clone())
    }

    /// What was to be removed or moved out of memory and could not be; `None`: there is no such thing any more.
    #[cfg(feature = "embedded")]
    pub(in crate::embedded) fn house_failed(&mut self, why: Option<&ropeway_store::Error>) {
        self.room.failing = why.map(|error| {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("what is not needed any more cannot be removed, and keeps its room; it is tried again: {error}{cause}")
        });
    }

    /// What does not work for want of room, if anything.
    pub(in crate::embedded) fn shortage(&self) -> Option<String> {
        let room = self.room.short(&self.rules.quota, 0);
        let full = self.topics.values().filter(|topic| topic.is_full(self.rules.segment));
        let mut held: Vec<String> =
            full.filter_map(|topic| self.lagging(topic, topic.held_by.as_ref()?)).chain(room).collect();
        held.sort();
        let others = held.len().saturating_sub(1);
        let first = held.into_iter().next()?;
        let more = if others > 0 { format!("; and {others} more of that kind") } else { String::new() };
        Some(format!("publishing is refused: {first}{more}"))
    }
}

impl TopicState {
    /// It holds its bound and a segment more.
    fn is_full(&self, most: u64) -> bool {
        let bytes = self.segments.bytes();
        self.bound()
            .is_some_and(|bound| bytes >= bound.saturating_add(segment_bytes(most, Some(bound), bytes)))
    }
}
