//! Where one partition is read, and what is told of it: decided here, without a server.
//!
//! Readers and members of groups read alike: they ask for what lies behind the last entry they saw, and in the same request what the partition
//! says of itself ([`Marks`]). Redis does not tell what was removed: a purge or trim of ours keeps the last id it removed, and
//! [`Followed::verify`] finds what somebody else trimmed by counting. Not here: the connection that asks (`feed.rs`), which entries are
//! messages (`layout.rs`), which of them are done (`../ack_window.rs`).

use super::{keys::PartitionKeys, layout, pace::Pace};
use crate::{Delivery, Error, GapReason, Message, Owned, Position};
use bytes::Bytes;

/// The id before which nothing lies, and after which reading from the beginning starts.
pub(super) const ZERO: Position = Position(0, 0);

/// The greatest position before another; that of the beginning stays.
pub(super) const fn before(position: Position) -> Position {
    match (position.0, position.1) {
        (0, 0) => ZERO,
        (ms, 0) => Position(ms - 1, u64::MAX),
        (ms, seq) => Position(ms, seq - 1),
    }
}

/// An entry as it was read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) at: Position,
    pub(super) fields: Vec<layout::Field>,
}

impl Entry {
    /// Bytes of its values.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(|(_, value)| value.len()).sum()
    }
}

/// What a partition said of itself when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Which life it is; `None` where there is no partition, or it is a stream of somebody else.
    pub(super) life: Option<u64>,
    /// The last entry that we removed.
    pub(super) removed: Option<Position>,
}

/// Numbers of a stream, as `XINFO STREAM` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// How many entries were ever added.
    pub(super) added: u64,
    /// How many there are.
    pub(super) length: u64,
    /// The last id that was given.
    pub(super) last: Position,
}

/// What one read of a partition came to.
#[derive(Debug)]
pub(super) enum Told {
    /// A message, and what it takes of what may be in flight.
    Message(Delivery),
    /// An entry that is none.
    Unreadable { at: Position, raw: Bytes, why: Error },
    /// Messages that will not be seen.
    Gap { from: Option<Position>, to: Option<Position>, why: GapReason },
    /// All is read that was there at the start. Once.
    CaughtUp,
    /// The topic is there no more. Reading goes on: it may be made again.
    Deleted,
}

/// A partition that is read.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) of: Owned,
    pub(super) keys: PartitionKeys,
    /// How large its entries are.
    pub(super) pace: Pace,
    /// `None`: a stream of somebody else, which has no lives.
    life: Option<u64>,
    /// The last entry that was seen or is known to be gone.
    after: Position,
    /// The last entry that was seen.
    seen: Position,
    /// How many entries were ever added up to `after`, where it is known.
    count: Option<u64>,
    /// What was there when reading began ends here; `None`: that was told.
    goal: Option<Position>,
    /// The topic is there no more.
    deleted: bool,
    /// Nobody deleted it: it was lost, and that was told.
    lost: bool,
}

impl Followed {
    /// Reads from `start` on, the first position that is wanted: `count` entries were ever added before it, where it is known. What was removed before
    /// is no gap. `end` is the end of the log now.
    pub(super) fn starting(
        of: Owned,
        keys: PartitionKeys,
        marks: Marks,
        start: Position,
        count: Option<u64>,
        end: Position,
    ) -> Self {
        let after = before(start).max(marks.removed.unwrap_or(ZERO));
        let after = after.max(marks.life.map_or(ZERO, |life| Position(life, 0)));
        Self {
            of,
            keys,
            pace: Pace::beginning(after.next() >= end),
            life: marks.life,
            after,
            seen: ZERO,
            count,
            goal: Some(end),
            deleted: false,
            lost: false,
        }
    }

    /// Goes on at `position`, before which all is done or was told: `count` entries, where it is known. What was removed from there on is a gap.
    pub(super) fn resuming(
        of: Owned,
        keys: PartitionKeys,
        life: Option<u64>,
        position: Position,
        count: Option<u64>,
        end: Position,
    ) -> Self {
        Self {
            of,
            keys,
            pace: Pace::beginning(position >= end),
            life,
            after: before(position),
            seen: ZERO,
            count,
            goal: Some(end),
            deleted: false,
            lost: false,
        }
    }

    /// Which life it is.
    pub(super) const fn life(&self) -> Option<u64> {
        self.life
    }

    /// What to ask for: entries behind this one.
    pub(super) const fn after(&self) -> Position {
        self.after
    }

    /// How many entries were ever added up to [`Self::after`], where it is known.
    pub(super) const fn count(&self) -> Option<u64> {
        self.count
    }

    /// Whether all was read that was there at the start. Until then a read must not wait for more.
    pub(super) const fn is_caught_up(&self) -> bool {
        self.goal.is_none()
    }

    /// Takes what a read brought, in order. `asked`: how many entries were asked for at the most: fewer are all there are.
    pub(super) fn take(&mut self, entries: Vec<Entry>, marks: Marks, asked: usize) -> Vec<Told> {
        let mut told = Vec::with_capacity(entries.len() + 2);
        let all = entries.len() < asked;
        self.live(marks, &entries, &mut told);
        if self.deleted {
            return told;
        }
        self.removed(marks, &entries, &mut told);
        for entry in entries.into_iter() {
            if entry.at <= self.after {
                continue;
            }
            (self.after, self.seen) = (entry.at, entry.at);
            self.count = self.count.map(|count| count + 1);
            told.push(self.decode(entry));
            self.catch_up(false, &mut told);
        }
        self.catch_up(all, &mut told);
        told
    }

    /// Compares how many entries were counted with what the stream says, and tells what somebody else removed before it was seen, and that the log
    /// lost its end: then reading goes on behind what is left of it. The numbers were taken after the last read.
    pub(super) fn verify(&mut self, counts: Counts) -> Option<Told> {
        if let Some(told) = self.truncated(counts) {
            return Some(told);
        }
        let gone = counts.added.saturating_sub(counts.length);
        let at_end = self.after >= counts.last;
        let from = self.after.next();
        let lost = match self.count {
            Some(count) if at_end => counts.added > count,
            Some(count) => gone > count,
            None => false,
        };
        if at_end {
            self.count = Some(counts.added);
        } else if lost {
            // How many of them lay before what will be seen next is not known until the end is reached.
            self.count = None;
        }
        lost.then_some(Told::Gap { from: (!at_end).then_some(from), to: None, why: GapReason::Trimmed })
    }

    /// Whether it is of a topic of ours that was there when it was read last: then its log must be there.
    pub(super) const fn is_ours(&self) -> bool {
        self.life.is_some() && !self.deleted
    }

    /// Whether the topic is there no more, and nothing was told of that.
    pub(super) const fn is_deleted(&self) -> bool {
        self.deleted && !self.lost
    }

    /// Nobody deleted the topic that is there no more: all of it is lost. Told once; where it is made again, that is told as well.
    pub(super) fn lose(&mut self) -> Option<Told> {
        if !self.is_deleted() {
            return None;
        }
        self.lost = true;
        Some(Told::Gap { from: Some(self.after.next()), to: None, why: GapReason::Truncated })
    }

    /// Another server is read from now on, with these numbers. What it lacks is told; where numbers do not show it, that entries up to here may be
    /// others than those that were seen.
    pub(super) fn moved(&mut self, counts: Counts) -> Option<Told> {
        if let Some(told) = self.truncated(counts) {
            return Some(told);
        }
        self.count = None;
        let to = Some(self.after.next());
        (self.seen > ZERO).then_some(Told::Gap { from: None, to, why: GapReason::Truncated })
    }

    /// What was seen and is there no more, since a copy that had less took its place.
    fn truncated(&mut self, counts: Counts) -> Option<Told> {
        let (shorter, at_end) = (counts.last < self.seen, self.after >= counts.last);
        let fewer = at_end && self.count.is_some_and(|count| counts.added < count);
        if !shorter && !fewer {
            return None;
        }
        let from = shorter.then(|| counts.last.next());
        let to = Some(self.seen.max(counts.last).next());
        self.after = self.after.min(counts.last);
        (self.seen, self.count) = (self.after, Some(counts.added));
        Some(Told::Gap { from, to, why: GapReason::Truncated })
    }

    /// Which life it is now.
    fn live(&mut self, marks: Marks, entries: &[Entry], told: &mut Vec<Told>) {
        let Some(was) = self.life else { return };
        match marks.life {
            // It may have been gone by its marks alone.
            Some(life) if life == was => (self.deleted, self.lost) = (false, false),
            None if entries.is_empty() => {
                let known = std::mem::replace(&mut self.deleted, true);
                told.extend((!known).then_some(Told::Deleted));
            }
            // Read just before it was deleted.
            None => {}
            Some(life) => {
                let begin = Position(life, 0);
                told.push(Told::Gap { from: None, to: Some(begin), why: GapReason::Recreated });
                self.life = Some(life);
                (self.after, self.seen) = (begin, ZERO);
                self.count = Some(0);
                (self.deleted, self.lost) = (false, false);
            }
        }
    }

    fn removed(&mut self, marks: Marks, entries: &[Entry], told: &mut Vec<Told>) {
        let Some(removed) = marks.removed.filter(|removed| *removed > self.after) else { return };
        // Where a read came before the removal it shows what was removed since; that is unseen all the same.
        let next = entries.iter().map(|entry| entry.at).find(|at| *at > removed);
        let from = Some(self.after.next());
        told.push(Told::Gap {
            from,
            to: Some(next.unwrap_or_else(|| removed.next())),
            why: GapReason::Trimmed,
        });
        self.after = removed;
        self.count = None;
    }

    fn catch_up(&mut self, all: bool, told: &mut Vec<Told>) {
        if self.goal.is_some_and(|goal| all || self.after.next() >= goal) {
            self.goal = None;
            told.push(Told::CaughtUp);
        }
    }

    fn decode(&self, entry: Entry) -> Told {
        let Entry { at, fields } = entry;
        let message: Result<Message, Error> = match self.life {
            None => Ok(layout::read_foreign(&self.of.topic, at, &fields)),
            Some(_) => layout::read(&self.of.topic, self.of.partition, at, &fields),
        };
        match message {
            Ok(message) => Told::Message(Delivery { position: at, message }),
            Err(why) => Told::Unreadable { at, raw: layout::raw(&fields), why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Topic, redis::keys::Keys};

    const LIFE: u64 = 100;

    fn p(seq: u64) -> Position {
        Position(LIFE, seq)
    }

    fn marks(removed: Option<u64>) -> Marks {
        Marks { life: Some(LIFE), removed: removed.map(p) }
    }

    fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        let field = (Bytes::from_static(b"payload"), Bytes::from_static(b"x"));
        range.map(|seq| Entry { at: p(seq), fields: vec![field.clone()] }).collect()
    }

    fn from(start: u64, end: u64) -> Followed {
        let topic = Topic::new("t").unwrap();
        let keys = Keys::new("x").unwrap().partition(&topic, 0);
        let of = Owned { topic, partition: 0, epoch: Epoch(0) };
        Followed::resuming(of, keys, Some(LIFE), p(start), Some(start.saturating_sub(1)), p(end))
    }

    fn say(told: &[Told]) -> String {
        let one = |told: &Told| match told {
            Told::Message(delivery) => delivery.position.1.to_string(),
            Told::Unreadable { at, .. } => format!("unreadable {}", at.1),
            Told::Gap { from, to, why } => {
                let text = |at: &Option<Position>| at.map_or("?".into(), |at| at.to_string());
                format!("{} {} to {}", why.as_str(), text(from), text(to))
            }
            Told::CaughtUp => "caught up".into(),
            Told::Deleted => "deleted".into(),
        };
        told.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn it_catches_up_once_at_what_was_there_at_the_start() {
        let mut followed = from(1, 4);
        assert_eq!(say(&followed.take(entries(1..=2), marks(None), 2)), "1, 2");
        assert_eq!(say(&followed.take(entries(3..=4), marks(None), 2)), "3, caught up, 4");
        assert_eq!(say(&followed.take(entries(5..=5), marks(None), 2)), "5");
        assert_eq!(followed.count(), Some(5));
        // Where the last of them were deleted one by one, a read that brings less than was asked for says so.
        let mut followed = from(1, 9);
        assert_eq!(say(&followed.take(entries(1..=2), marks(None), 9)), "1, 2, caught up");
        assert_eq!(say(&from(4, 4).take(Vec::new(), marks(None), 9)), "caught up");
    }

    #[test]
    fn what_was_removed_before_it_was_seen_is_one_gap_and_what_was_seen_is_none() {
        let mut followed = from(3, 9);
        assert_eq!(
            say(&followed.take(entries(6..=8), marks(Some(5)), 3)),
            "trimmed 100-3 to 100-6, 6, 7, 8, caught up"
        );
        assert_eq!(say(&followed.take(Vec::new(), marks(Some(8)), 3)), "");
        assert_eq!(say(&followed.take(Vec::new(), marks(Some(11)), 3)), "trimmed 100-9 to 100-12");
        // Removed between the read and the look at the marks.
        let mut followed = from(1, 4);
        assert_eq!(
            say(&followed.take(entries(1..=3), marks(Some(2)), 3)),
            "trimmed 100-1 to 100-3, 3, caught up"
        );
    }

    #[test]
    fn a_start_at_what_was_removed_is_no_gap() {
        let keys = from(1, 1).keys;
        let of = from(1, 1).of;
        let mut followed = Followed::starting(of, keys, marks(Some(5)), p(2), None, p(8));
        assert_eq!(say(&followed.take(entries(6..=7), marks(Some(5)), 9)), "6, 7, caught up");
    }

    #[test]
    fn a_topic_that_was_made_again_is_read_from_its_beginning() {
        let mut followed = from(50, 51);
        assert_eq!(say(&followed.take(entries(50..=50), marks(None), 9)), "50, caught up");
        let gone = Marks::default();
        assert_eq!(say(&followed.take(Vec::new(), gone, 9)), "deleted");
        assert_eq!(say(&followed.take(Vec::new(), gone, 9)), "");
        let again = Marks { life: Some(LIFE + 7), removed: None };
        let first = Entry { at: Position(LIFE + 7, 1), fields: entries(1..=1).remove(0).fields };
        assert_eq!(say(&followed.take(vec![first], again, 9)), "recreated ? to 107-0, 1");
        assert_eq!(followed.count(), Some(1));
    }

    #[test]
    fn what_somebody_else_trimmed_is_found_by_counting() {
        let counts = |added, length, last| Counts { added, length, last: p(last) };
        let mut followed = from(1, 9);
        followed.take(entries(1..=3), marks(None), 3);
        assert!(followed.verify(counts(9, 6, 9)).is_none(), "trimmed up to what was seen");
        assert_eq!(say(&[followed.verify(counts(9, 4, 9)).unwrap()]), "trimmed 100-4 to ?");
        // Told once; at the end the count is right again.
        assert!(followed.verify(counts(9, 4, 9)).is_none());
        followed.take(entries(6..=9), marks(None), 9);
        assert!(followed.verify(counts(9, 4, 9)).is_none());
        assert_eq!(followed.count(), Some(9));
        // Trimmed and overtaken before anybody looked.
        followed.take(entries(13..=13), marks(None), 9);
        assert_eq!(say(&[followed.verify(counts(13, 1, 13)).unwrap()]), "trimmed ? to ?");
        assert!(followed.verify(counts(13, 1, 13)).is_none());
    }

    #[test]
    fn what_may_be_others_on_another_server_is_told_with_or_without_its_beginning() {
        let counts = |added, last| Counts { added, length: added, last: p(last) };
        let mut followed = from(1, 9);
        assert!(followed.moved(counts(9, 9)).is_none(), "nothing was seen");
        let mut followed = from(1, 9);
        followed.take(entries(1..=5), marks(None), 5);
        assert_eq!(say(&[followed.moved(counts(9, 9)).unwrap()]), "truncated ? to 100-6");
        assert_eq!(say(&followed.take(entries(6..=6), marks(None), 1)), "6", "it goes on there");
        assert_eq!(say(&[followed.moved(counts(3, 3)).unwrap()]), "truncated 100-4 to 100-7");
        assert_eq!(
            say(&followed.take(entries(4..=4), marks(None), 1)),
            "4",
            "it goes on behind what is left"
        );
    }

    #[test]
    fn before_and_next_are_inverse_where_both_exist() {
        for position in [Position(5, 0), Position(5, 7), Position(1, u64::MAX)] {
            assert!(before(position) < position && before(position).next() == position, "{position}");
        }
        assert_eq!(before(ZERO), ZERO);
    }
}
