//! Where partitions begin and end, where a time is in them, and what goes before an offset: by their leaders.
//!
//! The library (2.12.1) has two questions that it works on by the thread that asks and by its main thread at once, where it does not know all leaders yet and an
//! answer about topics comes just then: it reads what is freed. These are ListOffsets, which is not asked here, and DeleteRecords, which is only asked where
//! leaders are known. Not here: how a question is asked (`admin.rs`), the offsets of groups (`admin_groups.rs`).

#![expect(unsafe_code, reason = "asks by the C library, and reads what it answers")]

use super::{
    admin::{Admin, CONTROLLER, MARGIN, answer, strange},
    code::{Code, Trouble},
    list::{Answered, List, Names, OFFSET_BEGINNING, OFFSET_END, Place, answers},
    metadata::{self, Metadata},
    native, native_admin,
    producer::Producer,
    queue::millis,
};
use std::{sync::Arc, time::Duration};

/// What stands beside an offset that is asked for, until it is answered.
const OPEN: &[u8] = b"?";

/// Which offset of a partition is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Spec {
    /// The first there is or will be.
    Earliest,
    /// Behind the last that consumers may see.
    Latest,
    /// That of the first record of that time or later, in ms; not below 0.
    Time(i64),
}

impl Spec {
    fn number(self) -> i64 {
        match self {
            Self::Earliest => OFFSET_BEGINNING,
            Self::Latest => OFFSET_END,
            Self::Time(millis) => millis.max(0),
        }
    }
}

impl Admin {
    /// One offset of each of these partitions, below 0 where there is none, in their order. None may be named twice. Where one of them fails, others may be told
    /// the same, though they would not.
    pub(in crate::kafka) fn list_offsets(
        &self,
        asks: &[(Arc<str>, i32, Spec)],
        wait: Duration,
    ) -> Result<Vec<Answered>, Trouble> {
        let place = |(topic, partition, spec): &(Arc<str>, i32, Spec)| Place {
            metadata: Some(OPEN.to_vec()),
            ..Place::new(topic, *partition, spec.number())
        };
        let list = List::of(&asks.iter().map(place).collect::<Vec<_>>())?;
        let client = self.asking();
        // SAFETY: the client is alive; the list is ours, and is filled in.
        let code =
            Code(unsafe { native::rd_kafka_offsets_for_times(client.native(), list.native(), millis(wait)) });
        let mut answers = list.answers(&mut Names::default());
        for (place, told) in &mut answers {
            if place.metadata.take().is_some() {
                let own = told.as_ref().err().filter(|trouble| trouble.code != Code::IN_PROGRESS).cloned();
                let missing = if code == Code::NONE { strange() } else { Trouble::new(code, code.text()) };
                *told = Err(own.unwrap_or(missing));
            }
        }
        let unled = |(place, told): &Answered| {
            let code = told.as_ref().err().map(|trouble| trouble.code);
            (code == Some(Code::LEADER_NOT_AVAILABLE)).then(|| Arc::clone(&place.topic))
        };
        if let Some(topic) = answers.iter().find_map(unled) {
            // The library asks nobody again while it believes that there is no leader.
            _ = metadata::ask(client, Some(&topic), CONTROLLER);
        }
        if answers.iter().any(|(_, told)| told.is_ok()) {
            client.told().heard();
        }
        Ok(answers)
    }

    /// Removes the records of a topic before each of these offsets. What became of each; the offsets are where partitions begin now. By a client of its own,
    /// so that nothing else is answered to it meanwhile, and only where each partition has a leader.
    pub(in crate::kafka) fn delete_records(
        &self,
        topic: &Arc<str>,
        before: &[(i32, i64)],
        wait: Duration,
    ) -> Result<Vec<Answered>, Trouble> {
        let place = |(partition, offset): &(i32, i64)| Place::new(topic, *partition, *offset);
        let places: Vec<Place> = before.iter().map(place).collect();
        let list = List::of(&places)?;
        let mut conf = self.conf();
        conf.fix(&[("topic.metadata.refresh.interval.ms", "-1")])?;
        let alone = Producer::open(conf, self.notes())?;
        led(&metadata::ask(alone.client(), Some(topic), wait)?, &places)?;
        let event = answer(alone.client(), wait, wait + MARGIN, |client, options, queue| {
            // SAFETY: client, list, options and queue are alive; the list is copied. The question is ours, is copied, and is destroyed after the call.
            unsafe {
                let mut question = native_admin::rd_kafka_DeleteRecords_new(list.native());
                let (options, queue) = (options.0, queue.native());
                native_admin::rd_kafka_DeleteRecords(client.native(), &raw mut question, 1, options, queue);
                native_admin::rd_kafka_DeleteRecords_destroy(question);
            }
        })?;
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native_admin::rd_kafka_event_DeleteRecords_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let offsets = native_admin::rd_kafka_DeleteRecords_result_offsets(result);
            Ok(answers(offsets, &mut Names::default()))
        }
    }
}

/// Whether each of these has a leader that is there.
fn led(told: &Metadata, places: &[Place]) -> Result<(), Trouble> {
    for place in places {
        let topic = told.topics.iter().find(|topic| *topic.name == *place.topic);
        let topic = topic.ok_or_else(|| Trouble::new(Code::UNKNOWN_TOPIC_OR_PART, ""))?;
        topic.code.check()?;
        let partition = topic.partitions.iter().find(|partition| partition.id == place.partition);
        let partition = partition.ok_or_else(|| Trouble::new(Code::UNKNOWN_TOPIC_OR_PART, ""))?;
        if !told.nodes.iter().any(|node| node.id == partition.leader) {
            Code::LEADER_NOT_AVAILABLE.check()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::raw::metadata::{Node, PartitionMetadata, TopicMetadata};

    #[test]
    fn records_are_removed_only_where_each_partition_has_a_leader_that_is_there() {
        let partition =
            |id, leader| PartitionMetadata { id, leader, code: Code::NONE, replicas: vec![1], isr: vec![1] };
        let topic = |name: &str, code, partitions| TopicMetadata { name: name.into(), code, partitions };
        let told = Metadata {
            nodes: vec![Node { id: 1, host: "h".into(), port: 1 }],
            topics: vec![
                topic("t", Code::NONE, vec![partition(0, 1), partition(1, -1), partition(2, 7)]),
                topic("gone", Code::UNKNOWN_TOPIC_OR_PART, vec![]),
            ],
        };
        let code = |topic: &str, partition| {
            led(&told, &[Place::new(&Arc::from(topic), partition, 5)]).map_err(|trouble| trouble.code)
        };
        assert_eq!(code("t", 0), Ok(()));
        assert_eq!(code("t", 1), Err(Code::LEADER_NOT_AVAILABLE));
        assert_eq!(code("t", 2), Err(Code::LEADER_NOT_AVAILABLE));
        for (topic, partition) in [("t", 3), ("gone", 0), ("other", 0)] {
            assert_eq!(code(topic, partition), Err(Code::UNKNOWN_TOPIC_OR_PART), "{topic}/{partition}");
        }
    }
}
