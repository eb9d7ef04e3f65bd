//! What a group has of a partition, decided from what it committed and what the partition says of itself; and which topics a member asked for.
//!
//! Not here: asking (`group_admin.rs`), the form of what is committed (`metadata.rs`).

use super::{
    metadata::{Known, Metadata},
    offsets::First,
    start::Extent,
};
use crate::{Epoch, GroupPartition, Position, Timestamp, Topic};
use std::time::Duration;

/// What a group committed in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: u64,
    pub(super) known: Known,
}

impl Committed {
    const fn ours(&self) -> Option<&Metadata> {
        match &self.known {
            Known::Ours(metadata) => Some(metadata),
            Known::None | Known::Foreign => None,
        }
    }

    /// The epoch of the last owner, of whatever life.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.ours().map(|ours| ours.epoch).filter(|epoch| epoch.0 > 0)
    }

    /// Where the group is, in that life of the topic. What somebody else committed is taken for one of this life, as Kafka does.
    pub(super) fn position(&self, life: u64) -> Option<Position> {
        self.ours().is_none_or(|ours| ours.life == life).then_some(Position(life, self.offset))
    }

    /// The offset at which the record lies whose time tells how far back the group is, where it must be looked for.
    pub(super) fn looked_for(&self, extent: &Extent) -> Option<u64> {
        let waits = self.position(extent.life).is_some() && self.offset < extent.end;
        let known = self.offset >= extent.low && self.ours().is_some_and(|ours| ours.oldest.is_some());
        (waits && !known).then_some(self.offset.max(extent.low))
    }
}

/// What a group has of a partition. `first`: what was found at [`Committed::looked_for`], where that is known.
pub(super) fn partition(
    (topic, partition): (&Topic, u32),
    owner: Option<String>,
    committed: Option<&Committed>,
    extent: &Extent,
    first: Option<Option<First>>,
    now: Timestamp,
) -> GroupPartition {
    let position = committed.and_then(|committed| committed.position(extent.life));
    let lag = position.map(|position| extent.end.saturating_sub(position.1));
    let ours = committed.and_then(Committed::ours).filter(|_| position.is_some());
    let beyond = ours.zip(position).map_or(0, |(ours, position)| ours.done_beyond(position));
    let age = |time: Timestamp| now.since(time);
    let lag_time = match (position, lag) {
        (None, _) | (_, None) => None,
        (_, Some(0)) => Some(Duration::ZERO),
        _ => match first {
            Some(None) => Some(Duration::ZERO),
            Some(Some(first)) => first.timestamp.map(age),
            None => ours
                .filter(|_| position.is_some_and(|position| position.1 >= extent.low))
                .and_then(|ours| ours.oldest)
                .map(age),
        },
    };
    GroupPartition {
        topic: topic.clone(),
        partition,
        owner,
        epoch: committed.and_then(Committed::epoch),
        position,
        end: extent.position(extent.end),
        lag,
        unfinished: lag.map(|lag| lag.saturating_sub(beyond)),
        lag_time,
    }
}

/// The topics that a member of a group asked for, as it told them (ConsumerProtocolSubscription: a version, then names); none where that is in another form.
pub(super) fn asked_for(subscription: &[u8]) -> Vec<Topic> {
    let Some(mut rest) = subscription.get(2..) else { return Vec::new() };
    let mut take = |len: usize| -> Option<&[u8]> {
        let (taken, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(taken)
    };
    let mut topics = Vec::new();
    let count = take(4).and_then(|count| <[u8; 4]>::try_from(count).ok()).map_or(0, u32::from_be_bytes);
    for _ in 0..count {
        let len = take(2).and_then(|len| <[u8; 2]>::try_from(len).ok()).map(u16::from_be_bytes);
        let Some(name) = len.and_then(|len| take(usize::from(len))) else { break };
        topics.extend(std::str::from_utf8(name).ok().and_then(|name| Topic::new(name).ok()));
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AckWindow;

    const EXTENT: Extent = Extent { life: 7, low: 10, end: 30 };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn ours(offset: u64, oldest: Option<i64>, map: Vec<u8>) -> Committed {
        let known = Metadata { life: 7, epoch: Epoch(5), oldest: oldest.map(at), before: None, map };
        Committed { offset, known: Known::Ours(known) }
    }

    fn seen(committed: Option<&Committed>, first: Option<Option<First>>) -> GroupPartition {
        partition((&Topic::new("t").unwrap(), 3), None, committed, &EXTENT, first, at(1000))
    }

    #[test]
    fn lag_is_what_the_servers_own_tools_show_and_unfinished_leaves_out_what_is_done() {
        let mut window = AckWindow::new(Position(7, 20));
        (20..25).for_each(|offset| _ = window.deliver(Position(7, offset)));
        window.ack(Position(7, 22));
        let told = seen(Some(&ours(20, None, window.encode(100).0)), None);
        assert_eq!((told.lag, told.unfinished, told.epoch), (Some(10), Some(9), Some(Epoch(5))));
        assert_eq!((told.position, told.end), (Some(Position(7, 20)), Position(7, 30)));
        let foreign = Committed { offset: 25, known: Known::Foreign };
        let told = seen(Some(&foreign), None);
        assert_eq!((told.lag, told.unfinished, told.epoch, told.lag_time), (Some(5), Some(5), None, None));
        let none = seen(None, None);
        assert_eq!((none.lag, none.unfinished, none.position, none.lag_time), (None, None, None, None));
    }

    #[test]
    fn an_offset_of_another_life_is_no_position_and_keeps_its_epoch() {
        let known = Metadata { life: 6, epoch: Epoch(5), oldest: None, before: None, map: Vec::new() };
        let committed = Committed { offset: 20, known: Known::Ours(known.clone()) };
        let told = seen(Some(&committed), None);
        assert_eq!((told.position, told.lag, told.epoch), (None, None, Some(Epoch(5))));
        assert_eq!(committed.looked_for(&EXTENT), None);
        let stored =
            Committed { offset: 20, known: Known::Ours(Metadata { epoch: Epoch(0), life: 7, ..known }) };
        assert_eq!(seen(Some(&stored), None).epoch, None, "nobody owned it yet");
    }

    #[test]
    fn lag_in_time_is_looked_for_only_where_it_was_not_committed() {
        assert_eq!(ours(20, Some(400), Vec::new()).looked_for(&EXTENT), None);
        assert_eq!(
            seen(Some(&ours(20, Some(400), Vec::new())), None).lag_time,
            Some(Duration::from_millis(600))
        );
        assert_eq!(ours(30, None, Vec::new()).looked_for(&EXTENT), None, "nothing waits");
        assert_eq!(seen(Some(&ours(30, None, Vec::new())), None).lag_time, Some(Duration::ZERO));
        assert_eq!(ours(20, None, Vec::new()).looked_for(&EXTENT), Some(20));
        // What it waited for was purged: another one is the oldest now.
        let purged = ours(3, Some(400), Vec::new());
        assert_eq!(purged.looked_for(&EXTENT), Some(10));
        assert_eq!(seen(Some(&purged), None).lag_time, None, "not known, not invented");
        let first = First { offset: 10, timestamp: Some(at(700)) };
        assert_eq!(seen(Some(&purged), Some(Some(first))).lag_time, Some(Duration::from_millis(300)));
        assert_eq!(seen(Some(&purged), Some(None)).lag_time, Some(Duration::ZERO), "only marks lie there");
        let timeless = First { offset: 10, timestamp: None };
        assert_eq!(seen(Some(&purged), Some(Some(timeless))).lag_time, None);
    }

    #[test]
    fn the_topics_that_a_member_asked_for_are_read_as_far_as_they_go() {
        let told = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\0\0\0\0rest";
        let names = |told: &[u8]| asked_for(told).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(told), ["a", "bc"]);
        assert_eq!(names(&told[..10]), ["a"]);
        assert_eq!(names(b"\0\x01\xff\xff\xff\xff\0\x01a"), ["a"]);
        for cut in 0..9 {
            assert!(names(&told[..cut]).is_empty(), "{cut}");
        }
        assert!(names(b"\0\x01\0\0\0\x01\0\x01/").is_empty());
    }
}
