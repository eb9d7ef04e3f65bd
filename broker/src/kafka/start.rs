//! Where reading starts in a partition: decided from what the partition says of itself.
//!
//! Not here: how it is asked (`offsets.rs`), what is read from there on (`follow.rs`).

use crate::{Error, ErrorKind, PartitionInfo, Position, Result, Start, Topic};

/// What a partition says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Which life of the topic it is.
    pub(super) life: u64,
    /// The first offset there is or will be.
    pub(super) low: u64,
    /// Greater than every offset there is.
    pub(super) end: u64,
}

/// What a start comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// This offset.
    At(u64),
    /// The first record whose timestamp is that or later, in milliseconds since 1970: the server is asked for it.
    Time(i64),
}

impl Extent {
    pub(super) const fn position(&self, offset: u64) -> Position {
        Position(self.life, offset)
    }

    /// What administration tells. `counted`: offsets count messages, as nothing is compacted.
    pub(super) fn info(&self, counted: bool) -> PartitionInfo {
        PartitionInfo {
            low: self.position(self.low),
            end: self.position(self.end),
            messages: counted.then(|| self.end.saturating_sub(self.low)),
        }
    }

    /// The first offset that is wanted.
    ///
    /// # Errors
    /// `Invalid` for a position of another life, or one that was never given.
    pub(super) fn resolve(&self, topic: &Topic, start: Start) -> Result<Resolved> {
        Ok(Resolved::At(match start {
            Start::Earliest => self.low,
            Start::Latest => self.end,
            Start::Time(at) => return Ok(Resolved::Time(at.as_millis().max(0))),
            Start::At(position) => self.of_this_life(topic, position)?.max(self.low),
            Start::After(position) => {
                self.of_this_life(topic, position)?.saturating_add(1).min(self.end).max(self.low)
            }
        }))
    }

    /// Where a start at a time is, given what the server answered: the offset of the first record of that time or later, where there is one.
    pub(super) fn at_time(&self, first: Option<u64>) -> u64 {
        first.unwrap_or(self.end).clamp(self.low, self.end.max(self.low))
    }

    fn of_this_life(&self, topic: &Topic, position: Position) -> Result<u64> {
        let why = if position.0 != self.life {
            "is of another life of the topic, which was deleted and made again"
        } else if position.1 > self.end {
            "lies behind the end of the partition"
        } else {
            return Ok(position.1);
        };
        let context =
            format!("position {position} in topic {topic:?} {why}; take one that it has, or `earliest`");
        Err(Error::new(ErrorKind::Invalid, context))
    }
}

/// A position is a place of one partition.
///
/// # Errors
/// `Invalid`.
pub(super) fn one_place(topic: &Topic, partitions: usize, start: Start) -> Result<()> {
    match start {
        Start::At(position) | Start::After(position) if partitions > 1 => {
            let context = format!(
                "position {position} is a place of one partition, and {partitions} of topic {topic:?} are meant; name the partition"
            );
            Err(Error::new(ErrorKind::Invalid, context))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn each_start_comes_to_its_place() {
        let topic = Topic::new("t").unwrap();
        let extent = Extent { life: 7, low: 20, end: 50 };
        let time = |ms| Start::Time(Timestamp::from_millis(ms));
        for (start, expected) in [
            (Start::Earliest, Resolved::At(20)),
            (Start::Latest, Resolved::At(50)),
            (time(130), Resolved::Time(130)),
            // Kafka has meanings of its own for times before 1970.
            (time(-1), Resolved::Time(0)),
            (Start::At(Position(7, 3)), Resolved::At(20)),
            (Start::At(Position(7, 33)), Resolved::At(33)),
            (Start::At(Position(7, 50)), Resolved::At(50)),
            (Start::After(Position(7, 33)), Resolved::At(34)),
            (Start::After(Position(7, 50)), Resolved::At(50)),
            (Start::After(Position(7, 2)), Resolved::At(20)),
        ] {
            assert_eq!(extent.resolve(&topic, start).unwrap(), expected, "{start:?}");
        }
        for bad in [Position(6, 33), Position(8, 33), Position(7, 51)] {
            let error = extent.resolve(&topic, Start::At(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.to_string().contains(&bad.to_string()), "{error}");
        }
    }

    #[test]
    fn a_time_behind_the_last_record_is_the_end_and_one_before_the_first_the_beginning() {
        let extent = Extent { life: 7, low: 20, end: 50 };
        assert_eq!(extent.at_time(None), 50);
        assert_eq!(extent.at_time(Some(30)), 30);
        assert_eq!(extent.at_time(Some(10)), 20, "it was purged since");
        assert_eq!(extent.at_time(Some(60)), 50);
    }

    #[test]
    fn messages_are_counted_only_where_offsets_count_them() {
        let extent = Extent { life: 7, low: 20, end: 50 };
        assert_eq!((extent.info(true).messages, extent.info(false).messages), (Some(30), None));
        assert_eq!((extent.info(true).low, extent.info(true).end), (Position(7, 20), Position(7, 50)));
    }

    #[test]
    fn a_place_is_of_one_partition() {
        let topic = Topic::new("t").unwrap();
        let at = Start::At(Position(1, 1));
        assert!(one_place(&topic, 1, at).is_ok() && one_place(&topic, 2, Start::Latest).is_ok());
        assert_eq!(one_place(&topic, 2, at).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
