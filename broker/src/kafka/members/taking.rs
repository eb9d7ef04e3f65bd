//! What a partition begins with, by what was found of it: where the group stands, what is missing, the epoch.
//!
//! Pure. Not here: who looks (`look.rs`), what becomes of it (`duty.rs`).

use super::{
    super::metadata::{Known, Metadata, parse},
    share::Taken,
};
use crate::{
    AckWindow, Epoch, GapReason, Owned, Position, Timestamp, Topic, balance::TopicPartition, members::Gap,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// What was found of a topic and of the group in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Which topic of that name it is.
    pub(super) life: u64,
    /// How many partitions it has.
    pub(super) count: u32,
    /// What the group has committed, of all partitions.
    pub(super) stored: BTreeMap<u32, Stored>,
    /// The first offset there is and the end, of what was asked.
    pub(super) ends: BTreeMap<u32, (u64, u64)>,
    /// Where damaged batches end that nobody gets over, of what was asked.
    pub(super) behind: BTreeMap<u32, u64>,
    /// Where the group is to start in each partition; only where it has nothing in the whole topic.
    pub(super) starts: BTreeMap<u32, u64>,
}

/// What the group has committed of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) offset: u64,
    pub(super) metadata: Option<Vec<u8>>,
}

/// What was found, of several topics; one that is not there does not exist.
#[derive(Clone, Debug, Default)]
pub(super) struct Looked {
    pub(super) topics: BTreeMap<Topic, Seen>,
    /// Those of which nothing could be found out.
    pub(super) unknown: BTreeSet<Topic>,
    /// Which topic of that name it was when this process looked before.
    pub(super) known: BTreeMap<Topic, u64>,
    pub(super) clock: Timestamp,
    /// When it was asked last what the group has committed.
    pub(super) asked: Option<Instant>,
}

/// What this process knew before of a topic or partition, which nobody stored.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// Which topic of that name it was.
    pub(super) life: Option<u64>,
    /// A log that lost its end, from where to where.
    pub(super) truncated: Option<(u64, u64)>,
}

/// A start that is stored for the partitions of a topic of which the group has nothing.
pub(super) fn start(life: u64) -> String {
    // Nobody owned it yet: no epoch.
    Metadata { life, epoch: Epoch(0), oldest: None, before: None, map: Vec::new() }.encode()
}

/// What stands beside an offset, as far as it is ours. The second value: it is somebody else's.
fn known(stored: &Stored) -> (Option<Metadata>, bool) {
    match parse(stored.metadata.as_deref()) {
        Known::Ours(metadata) => (Some(metadata), false),
        Known::None => (None, false),
        Known::Foreign => (None, true),
    }
}

/// What a partition begins with; whether foreign metadata was passed over. `None`: not enough was found.
pub(super) fn take(
    key: &TopicPartition,
    seen: &Seen,
    before: Before,
    clock: Timestamp,
) -> Option<(Taken, bool)> {
    let (low, high) = *seen.ends.get(&key.1)?;
    let life = seen.life;
    let owned = |epoch| Owned { topic: key.0.clone(), partition: key.1, epoch };
    let Some(stored) = seen.stored.get(&key.1) else {
        let taken = fresh(key, seen, before, (low, high))?;
        return Some((Taken { of: owned(Epoch::after(None, clock)), ..taken }, false));
    };
    let (metadata, foreign) = known(stored);
    let of = owned(Epoch::after(metadata.as_ref().map(|metadata| metadata.epoch), clock));
    let begin =
        |window, from, resumed, gap| Taken { of: of.clone(), life, window, resumed, from, end: high, gap };
    let was_owned = metadata.as_ref().is_none_or(|metadata| metadata.epoch > Epoch(0));
    let at = |life, offset| Position(life, offset);
    if let Some(old) = metadata.as_ref().filter(|old| old.life != life) {
        // A start that nobody used is worth nothing in another topic, and nothing was lost.
        let position = old.before.unwrap_or_else(|| at(old.life, stored.offset));
        let gap = was_owned.then(|| gap(Some(position), Some(at(life, low)), GapReason::Recreated));
        let taken = begin(AckWindow::new(at(life, low)), low, was_owned.then_some(position), gap);
        return Some((taken, foreign));
    }
    let position = at(life, stored.offset);
    let window = restore(key, position, metadata.as_ref());
    if let Some((from, to)) = truncated(&window, high, before, metadata.as_ref(), life) {
        let to = to.clamp(low, high).min(stored.offset.max(low));
        let window = AckWindow::new(at(life, to));
        let gap = gap(Some(from), Some(at(life, to)), GapReason::Truncated);
        return Some((begin(window, to, Some(position), Some(gap)), foreign));
    }
    let told = metadata.as_ref().and_then(|metadata| metadata.before);
    let from = stored.offset.max(low);
    // One gap for both, where something was removed of the new topic as well.
    let remembered = told.map(|old| gap(Some(old), Some(at(life, from)), GapReason::Recreated));
    let trimmed = (stored.offset < low).then(|| gap(Some(position), Some(at(life, low)), GapReason::Trimmed));
    let resumed = was_owned.then_some(told.unwrap_or(position));
    Some((begin(window, from, resumed, remembered.or(trimmed)), foreign))
}

const fn gap(from: Option<Position>, to: Option<Position>, why: GapReason) -> Gap {
    Gap { from, to, why }
}

/// Where the group has nothing of a partition.
fn fresh(key: &TopicPartition, seen: &Seen, before: Before, (low, high): (u64, u64)) -> Option<Taken> {
    let life = seen.life;
    let anew = before.life.is_some_and(|known| known != life);
    // What was added later, and what was made again, starts at its beginning.
    let from = if anew || !seen.stored.is_empty() { low } else { *seen.starts.get(&key.1)? };
    let from = from.max(low);
    let position = Position(life, from);
    let gap = anew.then(|| gap(None, Some(position), GapReason::Recreated));
    let of = Owned { topic: key.0.clone(), partition: key.1, epoch: Epoch(0) };
    Some(Taken { of, life, window: AckWindow::new(position), resumed: None, from, end: high, gap })
}

/// From where to where a log lost its end. Where it grew again since, nobody knows what is new in it up to the group's position: it goes on there.
fn truncated(
    stored: &AckWindow,
    high: u64,
    before: Before,
    metadata: Option<&Metadata>,
    life: u64,
) -> Option<(Position, u64)> {
    if let Some((from, to)) = before.truncated {
        return Some((Position(life, from), to));
    }
    // Also where only what is done beyond the position was lost: what comes to lie there is new, and not done.
    if stored.until().1 > high {
        return Some((stored.until(), high));
    }
    let told = metadata?.before.filter(|told| told.0 == life)?;
    Some((told, stored.position().1))
}

fn restore(key: &TopicPartition, position: Position, metadata: Option<&Metadata>) -> AckWindow {
    let map = metadata.map_or(&[][..], |metadata| &metadata.map);
    AckWindow::restore(position, map).unwrap_or_else(|error| {
        tracing::warn!(topic = %key.0, partition = key.1, %error, "what was done beyond the position comes again");
        AckWindow::new(position)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: u64 = 7;

    fn key() -> TopicPartition {
        (Topic::new("t").unwrap(), 0)
    }

    fn metadata(life: u64, epoch: u64) -> Metadata {
        Metadata { life, epoch: Epoch(epoch), oldest: None, before: None, map: Vec::new() }
    }

    fn seen(stored: Option<(u64, Option<Metadata>)>, ends: (u64, u64)) -> Seen {
        let stored = stored.map(|(offset, metadata)| Stored {
            offset,
            metadata: metadata.map(|metadata| metadata.encode().into_bytes()),
        });
        Seen {
            life: LIFE,
            count: 1,
            stored: stored.into_iter().map(|stored| (0, stored)).collect(),
            ends: [(0, ends)].into(),
            behind: BTreeMap::new(),
            starts: BTreeMap::new(),
        }
    }

    fn taken(seen: &Seen, before: Before) -> Taken {
        take(&key(), seen, before, Timestamp::from_millis(1000)).unwrap().0
    }

    const fn p(offset: u64) -> Position {
        Position(LIFE, offset)
    }

    #[test]
    fn it_resumes_where_the_group_was_and_the_epoch_grows_past_the_clock_and_the_last() {
        for (stored, expected) in [(5, 1000), (999, 1000), (1000, 1001), (70_000, 70_001)] {
            let taken = taken(&seen(Some((3, Some(metadata(LIFE, stored)))), (0, 9)), Before::default());
            assert_eq!((taken.of.epoch, taken.from, taken.resumed), (Epoch(expected), 3, Some(p(3))));
            assert_eq!((taken.end, taken.gap), (9, None));
        }
    }

    #[test]
    fn what_is_done_beyond_the_position_is_restored_and_a_damaged_map_is_left_out() {
        let mut window = AckWindow::new(p(3));
        (3..6).for_each(|offset| _ = window.deliver(p(offset)));
        window.ack(p(4));
        let stored = Metadata { map: window.encode(1000).0, ..metadata(LIFE, 5) };
        let mut taken_window =
            taken(&seen(Some((3, Some(stored.clone()))), (0, 9)), Before::default()).window;
        assert!(!taken_window.deliver(p(4)));
        // A map of another position.
        let mut other = taken(&seen(Some((2, Some(stored))), (0, 9)), Before::default()).window;
        assert!(other.deliver(p(4)));
    }

    #[test]
    fn foreign_metadata_is_passed_over_and_told() {
        let mut seen = seen(Some((3, None)), (0, 9));
        seen.stored.get_mut(&0).unwrap().metadata = Some(b"somebody else".to_vec());
        let (taken, foreign) = take(&key(), &seen, Before::default(), Timestamp::from_millis(1000)).unwrap();
        assert!(foreign);
        assert_eq!((taken.from, taken.resumed, taken.gap), (3, Some(p(3)), None));
    }

    #[test]
    fn a_start_that_nobody_used_is_no_position_of_the_group() {
        let taken = taken(&seen(Some((4, Some(metadata(LIFE, 0)))), (0, 9)), Before::default());
        assert_eq!((taken.resumed, taken.from), (None, 4));
        assert_eq!(taken.of.epoch, Epoch(1000));
    }

    #[test]
    fn a_new_group_starts_where_it_is_to_and_not_before_that_is_known() {
        let mut seen = seen(None, (2, 9));
        assert!(take(&key(), &seen, Before::default(), Timestamp::from_millis(1)).is_none());
        seen.starts.insert(0, 9);
        let taken = taken(&seen, Before::default());
        assert_eq!((taken.resumed, taken.from, taken.gap), (None, 9, None));
    }

    #[test]
    fn partitions_that_are_added_start_at_their_beginning() {
        let mut seen = seen(Some((4, None)), (0, 9));
        seen.ends.insert(1, (2, 8));
        let (taken, _) = take(&(key().0, 1), &seen, Before::default(), Timestamp::from_millis(1)).unwrap();
        assert_eq!((taken.resumed, taken.from, taken.gap), (None, 2, None));
    }

    #[test]
    fn a_topic_that_was_made_again_is_told_whether_or_not_the_offset_was_kept() {
        let stored = metadata(3, 50);
        let kept = taken(&seen(Some((4, Some(stored))), (0, 2)), Before::default());
        let gap = Gap { from: Some(Position(3, 4)), to: Some(p(0)), why: GapReason::Recreated };
        assert_eq!((kept.gap, kept.resumed, kept.from), (Some(gap), Some(Position(3, 4)), 0));
        assert_eq!(kept.window.position(), p(0));
        let mut lost = seen(None, (0, 2));
        lost.starts.insert(0, 2);
        let lost = taken(&lost, Before { life: Some(3), truncated: None });
        assert_eq!(lost.gap, Some(Gap { from: None, to: Some(p(0)), why: GapReason::Recreated }));
        assert_eq!(lost.from, 0, "not at the start of the subscription, which would pass over messages");
    }

    #[test]
    fn who_did_nothing_in_the_new_topic_leaves_the_gap_to_who_comes_next() {
        let stored = Metadata { before: Some(Position(3, 4)), ..metadata(LIFE, 50) };
        let taken = taken(&seen(Some((0, Some(stored))), (0, 2)), Before::default());
        let gap = Gap { from: Some(Position(3, 4)), to: Some(p(0)), why: GapReason::Recreated };
        assert_eq!((taken.gap, taken.resumed), (Some(gap), Some(Position(3, 4))));
    }

    #[test]
    fn what_was_removed_of_a_new_topic_before_anybody_saw_it_is_in_the_gap_too() {
        let stored = Metadata { before: Some(Position(3, 4)), ..metadata(LIFE, 50) };
        let taken = taken(&seen(Some((0, Some(stored))), (2, 5)), Before::default());
        let gap = Gap { from: Some(Position(3, 4)), to: Some(p(2)), why: GapReason::Recreated };
        assert_eq!((taken.gap, taken.from), (Some(gap), 2));
    }

    #[test]
    fn a_log_that_lost_only_what_was_done_beyond_the_position_is_read_again_from_there() {
        let mut window = AckWindow::new(p(3));
        (3..9).for_each(|offset| _ = window.deliver(p(offset)));
        (4..9).for_each(|offset| _ = window.ack(p(offset)));
        let stored = Metadata { map: window.encode(1000).0, ..metadata(LIFE, 5) };
        // It ended at 9, lost all from 6 on, and will have other messages there.
        let mut short = taken(&seen(Some((3, Some(stored.clone()))), (0, 6)), Before::default());
        let gap = Gap { from: Some(p(9)), to: Some(p(3)), why: GapReason::Truncated };
        assert_eq!((short.gap, short.from, short.resumed), (Some(gap), 3, Some(p(3))));
        assert!((3..9).all(|offset| short.window.deliver(p(offset))), "none of them is known to be done");
        let whole = taken(&seen(Some((3, Some(stored))), (0, 9)), Before::default());
        assert_eq!((whole.gap, whole.window.until()), (None, p(9)), "nothing is lost up to the end");
    }

    #[test]
    fn what_was_removed_before_it_was_seen_is_told() {
        let taken = taken(&seen(Some((2, Some(metadata(LIFE, 5)))), (4, 6)), Before::default());
        let gap = Gap { from: Some(p(2)), to: Some(p(4)), why: GapReason::Trimmed };
        assert_eq!((taken.gap, taken.from, taken.window.position()), (Some(gap), 4, p(2)));
    }

    #[test]
    fn a_log_that_is_shorter_than_what_was_done_lost_its_end() {
        let short = taken(&seen(Some((8, Some(metadata(LIFE, 5)))), (0, 6)), Before::default());
        let gap = Gap { from: Some(p(8)), to: Some(p(6)), why: GapReason::Truncated };
        assert_eq!((short.gap, short.from, short.window.position()), (Some(gap), 6, p(6)));
        // Its reader found out, and the group's position was not cut.
        let before = Before { life: None, truncated: Some((9, 7)) };
        let read = taken(&seen(Some((3, Some(metadata(LIFE, 5)))), (0, 7)), before);
        let gap = Gap { from: Some(p(9)), to: Some(p(3)), why: GapReason::Truncated };
        assert_eq!((read.gap, read.from), (Some(gap), 3));
        let later = Metadata { before: Some(p(8)), ..metadata(LIFE, 6) };
        let later = taken(&seen(Some((6, Some(later))), (0, 6)), Before::default());
        assert_eq!(later.gap, Some(Gap { from: Some(p(8)), to: Some(p(6)), why: GapReason::Truncated }));
    }
}
