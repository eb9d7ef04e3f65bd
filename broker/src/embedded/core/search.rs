//! From a [`Start`] to an offset.

use super::{Core, Life, store_error, topic::TopicState};
use crate::{
    Error, ErrorKind, Position, Result, Start, Timestamp, Topic,
    embedded::{
        batch::Stored,
        record::appended,
        state::{log_key, log_offset},
    },
};
use ropeway_store::{Direction, Limit};

impl Core {
    /// The offset at which reading of a partition starts.
    pub(super) fn resolve(&self, life: Life, partition: u32, start: Start) -> Result<u64> {
        let found = self.topics.get(&life).and_then(|topic| Some((topic, topic.partition(partition)?)));
        let Some((topic, part)) = found else {
            return Err(Error::new(ErrorKind::NotFound, "the topic was deleted"));
        };
        let of_this_life = |position: Position| {
            if position.0 == life { Ok(position.1) } else { Err(other_life(&topic.topic, position)) }
        };
        match start {
            Start::Earliest => Ok(part.low),
            Start::Latest => Ok(part.next),
            Start::At(position) => Ok(of_this_life(position)?.max(part.low)),
            Start::After(position) => Ok(of_this_life(position)?.saturating_add(1).max(part.low)),
            Start::Time(at) => self.first_since(life, partition, at),
        }
    }

    /// The offset of the first message that the log took at that time or later.
    fn first_since(&self, life: Life, partition: u32, at: Timestamp) -> Result<u64> {
        let Some(topic) = self.topics.get(&life) else { return Ok(0) };
        let Some(part) = topic.partition(partition) else { return Ok(0) };
        let (mut low, mut high) = (part.low, part.end);
        while low < high {
            let middle = low + (high - low) / 2;
            // What cannot be read has no time: the next one that has decides.
            let mut probe = middle;
            let mut time = None;
            while probe < high && time.is_none() {
                time = self.appended(topic, partition, probe)?;
                probe += 1;
            }
            match time {
                Some(time) if time < at => low = probe,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    fn appended(&self, topic: &TopicState, partition: u32, offset: u64) -> Result<Option<Timestamp>> {
        let (log, _) = topic.segments.locate(partition, offset);
        let (from, to) = (log_key(partition, offset), log_key(partition, u64::MAX));
        let page = self.store.scan(log, &from, Some(&to), Direction::Forward, Limit::items(1));
        let Some((key, record)) = page.map_err(store_error)?.items.pop() else { return Ok(None) };
        let appended = || {
            let (last, stored) = (log_offset(&key)?, Stored::of(record)?);
            let nth = usize::try_from(offset.checked_sub(stored.first(last)?)?).ok()?;
            appended(&stored.bytes()[stored.messages(nth).next()??])
        };
        Ok(appended())
    }

    /// When the log took a message that is visible.
    pub(super) fn taken_at(&self, life: Life, partition: u32, offset: u64) -> Option<Timestamp> {
        let topic = self.topics.get(&life)?;
        self.appended(topic, partition, offset).ok()?
    }
}

/// Refuses a place in one partition where several are meant.
pub(super) fn of_one(start: Start, partitions: u32) -> Result<()> {
    if partitions > 1 && matches!(start, Start::At(_) | Start::After(_)) {
        let context = format!(
            "a position is a place in one partition, and {partitions} partitions are meant; name one"
        );
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    Ok(())
}

pub(super) fn other_life(topic: &Topic, position: Position) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!(
            "{position} is a position of another topic {topic:?}, which was deleted and made again since"
        ),
    )
}
