//! Where partitions begin and end, and where a time is in them: asked from their leaders.
//!
//! Not here: how a question is asked (`admin.rs`), the offsets of groups (`admin_groups.rs`).

#![expect(unsafe_code, reason = "asks by the C library, and reads what it answers")]

use super::{
    admin::{Admin, array, strange},
    code::{Code, Trouble},
    list::{List, Names, OFFSET_BEGINNING, OFFSET_END, Place, place},
    native_admin as native,
};
use std::{sync::Arc, time::Duration};

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

/// An offset that a leader told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Listed {
    /// Below 0: there is none.
    pub(in crate::kafka) offset: i64,
    /// Of that record, in ms, where a time was asked for.
    pub(in crate::kafka) timestamp: i64,
}

/// A partition that was asked for, and what it answered.
pub(in crate::kafka) type Answered = (Place, Result<Listed, Trouble>);

impl Admin {
    /// One offset of each of these partitions. None may be named twice. The order of the answers is not that of the questions.
    pub(in crate::kafka) fn list_offsets(
        &self,
        asks: &[(Arc<str>, i32, Spec)],
        wait: Duration,
    ) -> Result<Vec<Answered>, Trouble> {
        let places: Vec<Place> = asks
            .iter()
            .map(|(topic, partition, spec)| Place::new(topic, *partition, spec.number()))
            .collect();
        let list = List::of(&places)?;
        let event = self.asked(wait, |client, options, queue| {
            // SAFETY: client, list, options and queue are alive; the list is copied.
            unsafe {
                native::rd_kafka_ListOffsets(client.native(), list.native(), options.0, queue.native());
            }
        })?;
        let mut names = Names::default();
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native::rd_kafka_event_ListOffsets_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let mut count = 0;
            let infos = native::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            let answer = |info: &*const _| {
                let element = &*native::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
                let timestamp = native::rd_kafka_ListOffsetsResultInfo_timestamp(*info);
                let place = place(element, &mut names);
                let listed = Listed { offset: place.offset, timestamp };
                (place, Code(element.err).check().map(|()| listed))
            };
            Ok(array(infos, count).iter().map(answer).collect())
        }
    }
}
