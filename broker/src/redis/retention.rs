//! What of a partition goes: decided from how much it holds, how old that is, and what live groups have not finished.
//!
//! Bytes go in pieces, age to the millisecond. A script looks again at what groups have before it removes anything. Not here: the task that asks and
//! removes (`keeper.rs`), counting (`scripts/partition_measure.lua`), consumer groups of others (`scripts/partition_trim.lua`).

use super::{follow::ZERO, group_admin::Starts};
use crate::{Group, Position, Retention};
use std::time::Duration;

/// The most pieces of what a partition may hold.
const MOST_PIECES: u64 = 256;
/// What a piece has at least of a topic that may hold little, in bytes, unless the setting says less.
const SMALL: u64 = 1 << 20;

/// How many bytes a piece has: an eighth of what a partition may hold (or 1 MiB, where that is more), or what the setting says, if that is less.
pub(super) fn piece(bytes: u64, setting: u64) -> u64 {
    setting.min((bytes / 8).max(SMALL)).max(bytes / MOST_PIECES).max(1)
}

/// What is known of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    /// By the server's clock, in milliseconds.
    pub(super) now: u64,
    /// The first entry there is.
    pub(super) first: Option<Position>,
    /// Bytes ever counted.
    pub(super) bytes: u64,
    /// The first entry of each piece, and the bytes counted before it.
    pub(super) pieces: Vec<(Position, u64)>,
    /// Not all is counted yet.
    pub(super) more: bool,
}

/// What goes of a partition, if nobody holds it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// All before it.
    pub(super) upto: Position,
    /// All before it because there are too many bytes.
    pub(super) bytes: Position,
}

impl Wanted {
    /// What goes; `None`: nothing.
    pub(super) fn of(retention: &Retention, measured: &Measured) -> Option<Self> {
        let first = measured.first?;
        let age = retention.age.map_or(ZERO, |age| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Position(measured.now.saturating_sub(age), 0)
        });
        let bytes = retention.bytes.map_or(ZERO, |most| {
            // As much as it may hold stays, and so does the newest message.
            let rest = |before: u64| measured.bytes.saturating_sub(before);
            let goes = measured.pieces.iter().rev().find(|(_, before)| rest(*before) >= most.max(1));
            goes.map_or(ZERO, |(id, _)| *id)
        });
        let upto = age.max(bytes);
        (upto > first).then_some(Self { upto, bytes })
    }

    /// Whether there are too many bytes where only what lies before `allowed` may go.
    pub(super) fn is_full(&self, allowed: Position) -> bool {
        allowed < self.bytes
    }
}

/// What a group of ours has of a topic.
#[derive(Debug)]
pub(super) struct Concerned {
    pub(super) group: Group,
    /// When the last lease of a member ends or ended, as far as is known, by the server's clock.
    pub(super) lease: u64,
    /// When a member was heard of last.
    pub(super) seen: u64,
    /// Where it starts in the topic.
    pub(super) starts: Option<Starts>,
    /// What it has of each partition.
    pub(super) shares: Vec<Share>,
}

/// What a group has of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    pub(super) life: Option<String>,
    pub(super) position: Option<Position>,
    /// When that was stored.
    pub(super) at: u64,
}

impl Share {
    /// Of a partition whose server is away: the group has something of it, and is live by that.
    pub(super) fn unknown(now: u64) -> Self {
        Self { at: now, ..Self::default() }
    }
}

impl Concerned {
    /// A group whose server is away: it is live, and holds back all of which it has no position stored with the partition.
    pub(super) fn unknown(group: Group, shares: Vec<Share>) -> Self {
        Self { group, lease: u64::MAX, seen: 0, starts: None, shares }
    }

    /// Whether it has a member, or had one within that time.
    pub(super) fn is_live(&self, now: u64, expiry: Duration) -> bool {
        let stored = self.shares.iter().map(|share| share.at).max().unwrap_or(0);
        let expiry = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX);
        self.lease > now || self.seen.max(self.lease).max(stored).saturating_add(expiry) > now
    }

    /// The first entry of a partition that it has not finished; `None`: it has nothing to do with the topic.
    pub(super) fn holds(&self, now: u64, life: &str, partition: usize) -> Option<Position> {
        let share = self.shares.get(partition);
        if let Some(share) = share.filter(|share| share.life.as_deref() == Some(life)) {
            return Some(share.position.unwrap_or(ZERO));
        }
        if let Some(starts) = self.starts.as_ref().filter(|starts| starts.life == life) {
            return Some(starts.positions.get(partition).copied().unwrap_or(ZERO));
        }
        // One with a position in an earlier life, or that is about to store where it starts, is given all there is.
        let earlier = self.shares.iter().any(|share| share.position.is_some());
        (earlier || self.lease > now).then_some(ZERO)
    }
}

/// Up to where a partition may go, and the group that holds back the rest of what is wanted.
pub(super) fn allowed<'a>(
    wanted: Position,
    holds: impl Iterator<Item = (&'a Group, Position)>,
) -> (Position, Option<&'a Group>) {
    holds.fold((wanted, None), |least, (group, at)| if at < least.0 { (at, Some(group)) } else { least })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(ms: u64) -> Position {
        Position(ms, 0)
    }

    fn group(share: Option<(&str, u64)>, starts: Option<&str>) -> Concerned {
        let share =
            share.map(|(life, ms)| Share { life: Some(life.to_owned()), position: Some(p(ms)), at: 50 });
        Concerned {
            group: Group::new("g").unwrap(),
            lease: 0,
            seen: 0,
            starts: starts.map(Starts::parse),
            shares: vec![share.unwrap_or_default(), Share::default()],
        }
    }

    #[test]
    fn what_is_too_old_goes_and_so_does_what_is_too_much_in_whole_pieces() {
        let pieces = vec![(p(10), 0), (p(20), 100), (p(30), 200), (p(40), 300)];
        let measured = Measured { now: 100, first: Some(p(10)), bytes: 350, pieces, more: false };
        let goes = |age: Option<u64>, bytes| {
            let age = age.map(Duration::from_millis);
            Wanted::of(&Retention { age, bytes, compact: false }, &measured)
        };
        assert_eq!(goes(None, None), None);
        assert_eq!(goes(Some(90), None), None, "nothing is that old");
        assert_eq!(goes(Some(85), None), Some(Wanted { upto: p(15), bytes: ZERO }));
        assert_eq!(goes(Some(u64::MAX), None), None);
        assert_eq!(goes(None, Some(251)), None, "with the first piece gone it would hold less than it may");
        assert_eq!(goes(None, Some(250)), Some(Wanted { upto: p(20), bytes: p(20) }));
        assert_eq!(goes(None, Some(0)), Some(Wanted { upto: p(40), bytes: p(40) }), "the newest stays");
        assert_eq!(goes(Some(65), Some(250)), Some(Wanted { upto: p(35), bytes: p(20) }));
        let none = Measured { first: None, ..measured };
        let all = Retention { age: Some(Duration::ZERO), bytes: Some(0), compact: false };
        assert_eq!(Wanted::of(&all, &none), None);
    }

    #[test]
    fn a_group_holds_back_what_it_has_not_finished() {
        let holds = |group: &Concerned, partition| group.holds(1000, "7", partition);
        assert_eq!(holds(&group(Some(("7", 30)), Some("7 7-0 9-0")), 0), Some(p(30)));
        assert_eq!(holds(&group(Some(("7", 30)), Some("7 7-0 9-0")), 1), Some(p(9)), "where it starts");
        assert_eq!(
            holds(&group(Some(("7", 30)), Some("7")), 1),
            Some(ZERO),
            "it was sought in the other one"
        );
        assert_eq!(
            holds(&group(Some(("5", 30)), Some("5 5-0")), 0),
            Some(ZERO),
            "its position is of an earlier life"
        );
        assert_eq!(holds(&group(None, None), 0), None);
        let unknown = |share| Concerned::unknown(Group::new("g").unwrap(), vec![share, Share::unknown(1000)]);
        let known = Share { life: Some("7".to_owned()), position: Some(p(30)), at: 50 };
        assert_eq!(holds(&unknown(known), 0), Some(p(30)), "its server is away, the partition's is not");
        assert_eq!(holds(&unknown(Share::default()), 0), Some(ZERO));
        assert!(unknown(Share::default()).is_live(u64::MAX - 1, Duration::ZERO));
        let joining = Concerned { lease: 1001, ..group(None, None) };
        assert_eq!(holds(&joining, 0), Some(ZERO), "it is about to store where it starts");
    }

    #[test]
    fn a_group_is_live_that_was_heard_of_within_the_time() {
        let live = |group: &Concerned, now| group.is_live(now, Duration::from_millis(100));
        let stored = group(Some(("7", 30)), None);
        assert!(live(&stored, 149) && !live(&stored, 150));
        let seen = Concerned { seen: 300, ..group(None, None) };
        assert!(live(&seen, 399) && !live(&seen, 400));
        let leased = Concerned { lease: 500, ..group(None, None) };
        assert!(live(&leased, 499) && live(&leased, 599) && !live(&leased, 600));
    }

    #[test]
    fn the_slowest_group_says_what_may_go() {
        let [a, b] = ["a", "b"].map(|name| Group::new(name).unwrap());
        assert_eq!(allowed(p(50), [(&a, p(40)), (&b, p(20))].into_iter()), (p(20), Some(&b)));
        assert_eq!(allowed(p(50), [(&a, p(50))].into_iter()), (p(50), None));
        let wanted = Wanted { upto: p(50), bytes: p(30) };
        assert!(wanted.is_full(p(20)) && !wanted.is_full(p(30)));
    }

    #[test]
    fn pieces_are_neither_many_nor_large() {
        assert_eq!(piece(1000, 64 << 20), 1 << 20);
        assert_eq!(piece(80 << 20, 64 << 20), 10 << 20);
        assert_eq!(piece(1 << 40, 64 << 20), 1 << 32);
        assert_eq!((piece(3000, 1000), piece(0, 0)), (1000, 1));
    }
}
