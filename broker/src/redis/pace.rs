//! How many entries a read asks for, and how many of what it brought are taken: `XREAD` counts entries, and memory is counted in bytes.
//!
//! The size of entries is taken to be that of those that the log brought last. So a read brings about as much as there is room for, whatever the size of messages; where they
//! grow suddenly, one read brings more. Pure. Not here: which logs are read together (`turns.rs`), what there is room for (`following.rs`, `members/reading.rs`).

use super::follow::Entry;
use crate::batched::Size;

/// What a read aims at for each log, in bytes: copied a third faster at the server than a few times as much (500 instead of 700 to 1,100 ns an entry of 1 KiB, Redis 7.0),
/// since it stays in the processor's cache.
const GOAL: usize = 256 * 1024;
/// What an entry is taken for while none was seen, in bytes: then a few come, and tell.
const UNKNOWN: usize = 64 * 1024;

/// How large the entries of a log are, in bytes, and whether there were more when it was read last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    size: usize,
    at_end: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { size: UNKNOWN, at_end: false }
    }
}

impl Pace {
    /// Of a log that has nothing to be read, where that is known.
    pub(super) fn beginning(at_end: bool) -> Self {
        Self { at_end, ..Self::default() }
    }

    /// What an entry is taken for.
    pub(super) const fn size(self) -> usize {
        self.size
    }

    /// Whether it was read to its end when it was read last.
    pub(super) const fn is_at_end(self) -> bool {
        self.at_end
    }

    /// It was not read for a while: it may have anything.
    pub(super) fn forget_end(&mut self) {
        self.at_end = false;
    }

    /// So many entries of so many bytes came, where so many were asked for.
    pub(super) fn learn(&mut self, entries: usize, bytes: usize, asked: usize) {
        self.at_end = entries < asked;
        // Nothing tells nothing of their size.
        self.size = bytes.checked_div(entries).unwrap_or(self.size).max(1);
    }

    /// How many entries of each of these logs to ask for, so that not much more comes than there is room for: at least one,
    /// and `most` at the most.
    pub(super) fn count(logs: impl Iterator<Item = Self>, room: Size, most: usize) -> usize {
        let (count, each) =
            logs.fold((0, 0_usize), |(count, each), pace| (count + 1, each.saturating_add(pace.size)));
        let bytes = room.bytes.min(GOAL.saturating_mul(count));
        (bytes / each.max(1)).min(room.messages / count.max(1)).clamp(1, most)
    }

    /// How many of these entries there is room for, and the bytes of all; `asked`: how many were asked for. The last may go beyond the bytes: where there is
    /// some room one is always taken, or it would be read again and again.
    pub(super) fn fitting(&mut self, entries: &[Entry], asked: usize, room: Size) -> (usize, usize) {
        let (mut fits, mut bytes) = (0, 0);
        for entry in entries {
            fits += usize::from(fits < room.messages && bytes < room.bytes);
            bytes += entry.size();
        }
        self.learn(entries.len(), bytes, asked);
        self.at_end &= fits == entries.len();
        (fits, bytes)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Position;
    use bytes::Bytes;

    fn entries(sizes: &[usize]) -> Vec<Entry> {
        let entry = |size: &usize| Entry {
            at: Position(7, 1),
            fields: vec![(Bytes::from_static(b"payload"), Bytes::from(vec![1; *size]))],
        };
        sizes.iter().map(entry).collect()
    }

    /// The pace of a log that brought entries of this size.
    pub(in crate::redis) fn of(size: usize) -> Pace {
        Pace { size, at_end: false }
    }

    const ROOM: Size = room(4096, 8 << 20);

    const fn room(messages: usize, bytes: usize) -> Size {
        Size { messages, bytes }
    }

    #[test]
    fn a_read_asks_for_few_large_entries_and_for_many_small_ones() {
        let count = |logs: &[Pace]| Pace::count(logs.iter().copied(), ROOM, 512);
        assert_eq!(count(&[Pace::default()]), 4, "until it is known how large they are");
        assert_eq!(count(&[of(100)]), 512);
        assert_eq!(count(&[of(1024)]), 256);
        assert_eq!(count(&[of(100 << 10)]), 2);
        assert_eq!(count(&[of(64 << 20)]), 1);
        assert_eq!(count(&[of(1); 64]), 64, "as many messages as there is room for");
        assert_eq!(count(&[of(64 << 10); 64]), 2, "as many bytes as there is room for");
        assert_eq!(count(&[of(1 << 20), of(1024), of(1024), of(1024)]), 1);
        assert_eq!(Pace::count([of(1024)].into_iter(), room(100, 20 << 10), 512), 20);
        assert_eq!(Pace::count([of(1024)].into_iter(), room(0, 0), 512), 1);
        assert_eq!(Pace::count(std::iter::empty(), ROOM, 512), 1);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_and_all_that_came_is_learned_from() {
        let mut pace = Pace::default();
        let mut fitting = |sizes: &[usize], room| {
            let (fits, bytes) = pace.fitting(&entries(sizes), 4, room);
            assert_eq!(bytes, sizes.iter().sum::<usize>());
            (fits, pace.size, pace.at_end)
        };
        assert_eq!(fitting(&[10, 10, 40], room(9, 20)), (2, 20, false));
        assert_eq!(fitting(&[10, 10, 10], room(2, 99)), (2, 10, false));
        assert_eq!(fitting(&[50, 1], room(9, 20)), (1, 25, false), "one is taken where there is any room");
        assert_eq!(fitting(&[5, 1], room(9, 0)), (0, 3, false));
        assert_eq!(fitting(&[5, 1], room(0, 9)), (0, 3, false));
        assert_eq!(fitting(&[], ROOM), (0, 3, true), "nothing tells nothing of their size");
        assert_eq!(fitting(&[0, 0, 0, 0], ROOM), (4, 1, false), "as many as were asked for");
        assert_eq!(fitting(&[1, 1, 1], ROOM), (3, 1, true));
    }
}
