//! Making, growing and deleting topics.

use super::{
    Core, Life, Step,
    segments::Segments,
    stored_as,
    timers::Timer,
    topic::{PartitionState, TopicState},
};
use crate::{
    Error, ErrorKind, Result, Timestamp, Topic, TopicSpec,
    embedded::{
        housekeeping::Chore,
        state::{LAST_LIFE, MAX_PARTITIONS, encode_number, partition_key, segment_key, sweep_key, topic_key},
    },
};
use bytes::Bytes;
use ropeway_store::Keyspace;
use std::collections::BTreeSet;
use tokio::sync::oneshot;

/// A topic whose keyspace is being made.
#[derive(Debug)]
pub(super) struct Making {
    topic: Topic,
    spec: TopicSpec,
    reply: oneshot::Sender<Result<()>>,
}

impl Core {
    /// Begins to make a topic. It is there, and `reply` is told so, when its keyspace was made: see [`Self::opened`].
    pub(in crate::embedded) fn create_topic(
        &mut self,
        step: &mut Step,
        topic: &Topic,
        spec: TopicSpec,
        reply: oneshot::Sender<Result<()>>,
    ) {
        if let Err(error) = self.check_new(topic, &spec) {
            step.after(move |_| _ = reply.send(Err(error)));
            return;
        }
        let clock = u64::try_from(step.time_of_day.as_millis()).unwrap_or(0);
        let life = clock.max(self.last_life + 1);
        self.last_life = life;
        self.making.insert(life, Making { topic: topic.clone(), spec, reply });
        step.chores.push(Chore::Open { life, number: 0 });
    }

    fn check_new(&self, topic: &Topic, spec: &TopicSpec) -> Result<()> {
        self.writable()?;
        if self.names.contains_key(topic) || self.making.values().any(|making| making.topic == *topic) {
            return Err(Error::new(ErrorKind::Exists, format!("there is a topic {topic:?} already")));
        }
        check_count(spec.partitions)?;
        if spec.retention.compact {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the embedded broker does not compact topics; keep messages by age or bytes",
            ));
        }
        Ok(())
    }

    /// The keyspace of a new topic was made, or could not be.
    pub(super) fn finish_topic(
        &mut self,
        step: &mut Step,
        life: Life,
        making: Making,
        log: Result<Keyspace>,
    ) {
        let Making { topic, spec, reply } = making;
        let made = log.map(|log| self.insert_topic(step, life, &topic, spec, log));
        step.after(move |failed| _ = reply.send(failed.map_or(made, |error| Err(error.clone()))));
    }

    /// Answers who waits for a topic, after a failed commit: what the step wanted done is not done, the making of keyspaces included.
    pub(super) fn refuse_topics(&mut self, step: &mut Step) {
        let Err(error) = self.writable() else { return };
        for making in std::mem::take(&mut self.making).into_values() {
            let error = error.clone();
            step.after(move |_| _ = making.reply.send(Err(error)));
        }
    }

    fn insert_topic(&mut self, step: &mut Step, life: Life, topic: &Topic, spec: TopicSpec, log: Keyspace) {
        let segments = Segments::first(log, step.now);
        step.batch.put(self.spaces.state, Bytes::from_static(LAST_LIFE), encode_number(self.last_life));
        for (number, record) in segments.records() {
            step.batch.put(self.spaces.state, segment_key(life, number), record.encode());
        }
        self.topics.insert(
            life,
            TopicState {
                topic: topic.clone(),
                life,
                retention: spec.retention,
                segments,
                held_by: None,
                partitions: (0..spec.partitions).map(|_| PartitionState::default()).collect(),
                delayed: 0,
                delay_seq: 0,
                delay_floor: Timestamp::from_millis(i64::MAX),
                spread: 0,
            },
        );
        self.names.insert(topic.clone(), life);
        step.topics.insert(life);
        self.touch(step, life, 0..spec.partitions);
        self.follow_new(step, topic, life, 0..spec.partitions);
    }

    pub(in crate::embedded) fn grow_topic(
        &mut self,
        step: &mut Step,
        topic: &Topic,
        partitions: u32,
    ) -> Result<()> {
        self.writable()?;
        let life = self.life(topic)?;
        check_count(partitions)?;
        let Some(state) = self.topics.get_mut(&life) else { return Ok(()) };
        let before = state.count();
        if partitions < before {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("topic {topic:?} has {before} partitions and cannot shrink to {partitions}"),
            ));
        }
        state.partitions.resize_with(partitions as usize, PartitionState::default);
        step.topics.insert(life);
        self.touch(step, life, before..partitions);
        self.follow_new(step, topic, life, before..partitions);
        let groups: BTreeSet<_> = self
            .members
            .values()
            .filter(|member| member.topics.contains(topic) && !member.leaving)
            .map(|member| member.group.clone())
            .collect();
        for group in groups {
            self.rebalance(step, &group, None);
        }
        Ok(())
    }

    pub(in crate::embedded) fn delete_topic(&mut self, step: &mut Step, topic: &Topic) -> Result<()> {
        self.writable()?;
        let life = self.life(topic)?;
        let mut users: Vec<String> = self
            .members
            .values()
            .filter(|member| member.ended.is_none())
            .filter(|member| member.topics.contains(topic) || member.owned.keys().any(|(t, _)| t == topic))
            .map(|member| member.group.to_string())
            .collect();
        users.sort();
        users.dedup();
        if !users.is_empty() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("topic {topic:?} is consumed by members of: {}; stop them first", users.join(", ")),
            ));
        }
        let Some(state) = self.topics.remove(&life) else { return Ok(()) };
        self.names.remove(topic);
        step.batch.delete(self.spaces.state, topic_key(topic));
        for partition in 0..state.count() {
            step.batch.delete(self.spaces.state, partition_key(life, partition));
        }
        step.topics.remove(&life);
        step.touched.retain(|(other, _)| *other != life);
        step.batch.put(self.spaces.state, sweep_key(life), encode_number(life));
        self.delays.clear(life);
        self.timers.clear(Timer::Retention(life));
        self.timers.set(Timer::Sweep(life), step.now);
        for (number, _) in state.segments.records() {
            step.batch.delete(self.spaces.state, segment_key(life, number));
        }
        // It must be known to be gone before it is gone.
        step.at_least(stored_as(self.rules.possible));
        step.chores.extend(state.segments.keyspaces().into_iter().map(Chore::Drop));
        Ok(())
    }

    /// Notes that partitions changed, so that they are stored and shown.
    pub(super) fn touch(&mut self, step: &mut Step, life: Life, partitions: std::ops::Range<u32>) {
        let Some(topic) = self.topics.get_mut(&life) else { return };
        for partition in partitions {
            if let Some(part) = topic.partition_mut(partition)
                && !part.touched
            {
                part.touched = true;
                step.touched.push((life, partition));
            }
        }
    }

    /// Appends bytes that may be no message, so that a test can see what becomes of them.
    #[cfg(any(test, feature = "conformance"))]
    pub(in crate::embedded) fn plant(
        &mut self,
        step: &mut Step,
        topic: &Topic,
        partition: u32,
        bytes: Bytes,
    ) -> Result<crate::Position> {
        self.writable()?;
        let life = self.life(topic)?;
        self.chosen(topic, Some(partition))?;
        let position = self.append(step, life, partition, |out, _| out.extend_from_slice(&bytes));
        position.ok_or_else(|| super::no_topic(topic))
    }
}

fn check_count(partitions: u32) -> Result<()> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("a topic has 1 to {MAX_PARTITIONS} partitions, not {partitions}"),
    ))
}
