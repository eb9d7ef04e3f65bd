//! Where reading starts in a partition: decided from what the partition says of itself.
//!
//! Not here: how it is asked (`topics.rs`), what is read from there on (`follow.rs`).

use super::follow::{Counts, Marks};
use crate::{Error, ErrorKind, PartitionInfo, Position, Result, Start, Topic};

/// What a partition says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) marks: Marks,
    pub(super) counts: Counts,
    /// The first entry there is.
    pub(super) first: Option<Position>,
}

impl Extent {
    /// Greater than every position there is.
    pub(super) const fn end(&self) -> Position {
        self.counts.last.next()
    }

    /// The first position there is or will be.
    pub(super) fn low(&self) -> Position {
        self.first.unwrap_or_else(|| self.end())
    }

    pub(super) fn info(&self) -> PartitionInfo {
        PartitionInfo { low: self.low(), end: self.end(), messages: Some(self.counts.length) }
    }

    /// How many entries were ever added before a position, where that follows from what is known.
    pub(super) fn added_before(&self, position: Position) -> Option<u64> {
        if position >= self.end() {
            return Some(self.counts.added);
        }
        (position <= self.low()).then(|| self.counts.added.saturating_sub(self.counts.length))
    }

    /// The first position that is wanted.
    ///
    /// # Errors
    /// `Invalid` for a position of another life, or one that was never given.
    pub(super) fn resolve(&self, topic: &Topic, start: Start) -> Result<Position> {
        let (low, end) = (self.low(), self.end());
        Ok(match start {
            Start::Earliest => low,
            Start::Latest => end,
            Start::Time(at) => Position(u64::try_from(at.as_millis()).unwrap_or(0), 0).clamp(low, end),
            Start::At(position) => self.of_this_life(topic, position)?.max(low),
            Start::After(position) => self.of_this_life(topic, position)?.next().min(end).max(low),
        })
    }

    fn of_this_life(&self, topic: &Topic, position: Position) -> Result<Position> {
        let why = if self.marks.life.is_some_and(|life| position.0 < life) {
            "is of an earlier life of the topic, which was deleted and made again since"
        } else if position > self.end() {
            "lies behind the end of the partition"
        } else {
            return Ok(position);
        };
        let context =
            format!("position {position} in topic {topic:?} {why}; take one that it has, or `earliest`");
        Err(Error::new(ErrorKind::Invalid, context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn each_start_comes_to_its_place() {
        let topic = Topic::new("t").unwrap();
        let marks = Marks { life: Some(100), removed: Some(Position(110, 3)) };
        let counts = Counts { added: 20, length: 6, last: Position(150, 2) };
        let extent = Extent { marks, counts, first: Some(Position(120, 0)) };
        let end = Position(150, 3);
        let at = |ms: i64| Start::Time(Timestamp::from_millis(ms));
        for (start, expected) in [
            (Start::Earliest, Position(120, 0)),
            (Start::Latest, end),
            (at(-5), Position(120, 0)),
            (at(130), Position(130, 0)),
            (at(9999), end),
            (Start::At(Position(100, 1)), Position(120, 0)),
            (Start::At(Position(140, 7)), Position(140, 7)),
            (Start::At(end), end),
            (Start::After(Position(140, 7)), Position(140, 8)),
            (Start::After(Position(150, 2)), end),
        ] {
            assert_eq!(extent.resolve(&topic, start).unwrap(), expected, "{start:?}");
        }
        for bad in [Position(99, 7), Position(150, 4)] {
            assert_eq!(extent.resolve(&topic, Start::At(bad)).unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(extent.added_before(end), Some(20));
        assert_eq!(extent.added_before(Position(120, 0)), Some(14));
        assert_eq!(extent.added_before(Position(130, 0)), None);
        let empty = Extent { counts: Counts { length: 0, ..counts }, first: None, ..extent };
        assert_eq!((empty.low(), empty.resolve(&topic, Start::Earliest).unwrap()), (end, end));
    }
}
