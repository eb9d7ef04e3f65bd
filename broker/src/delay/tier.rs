//! What is put away: messages far from due that memory has no room for, in partitions that are worked off from the front. Pure.
//!
//! There is a partition for each of a few waiting times. A message is put into the longest that is over before it is due, so all in a partition
//! wait for the same time, and it is enough to look at the front. Then it goes back to where the near ones are. It cannot be taken back by then: nobody
//! who is asked knows of it. Not here: what is put away (`plan.rs`), who moves it (`engine.rs`).

use super::{record::Held, shelf::AGAIN};
use crate::{Position, Timestamp};
use std::{collections::VecDeque, time::Duration};

/// How long messages wait in each partition of those that are put away. Shortest first.
pub(super) const WAITS: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(8 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(2 * 24 * 3600),
];
/// How much sooner than it is due a message is back.
const SPARE: Duration = Duration::from_secs(30);
/// How many messages are held in memory of one partition before no more are taken.
const MOST: usize = 1024;

/// The longest wait that is over in time. The first where none is.
pub(super) fn tier_of(left: Duration) -> usize {
    WAITS.iter().rposition(|wait| *wait + SPARE <= left).unwrap_or(0)
}

/// The front of such a partition.
#[derive(Debug)]
pub(super) struct Tier {
    wait: Duration,
    queue: VecDeque<(Position, Timestamp, Held)>,
    moving: bool,
    rest: Timestamp,
}

impl Tier {
    pub(super) const fn new(wait: Duration) -> Self {
        Self { wait, queue: VecDeque::new(), moving: false, rest: Timestamp::from_millis(0) }
    }

    /// The next message, and when it was put there.
    pub(super) fn read(&mut self, at: Position, put: Timestamp, held: Held) {
        let back = (put + self.wait).min(held.due() - SPARE);
        self.queue.push_back((at, back, held));
    }

    /// What goes back now, a copy.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<(Position, Held)> {
        if self.moving || self.rest > now {
            return Vec::new();
        }
        let back = self.queue.iter().take_while(|(_, back, _)| *back <= now);
        let of: Vec<_> = back.take(MOST / 4).map(|(at, _, held)| (*at, held.clone())).collect();
        self.moving = !of.is_empty();
        of
    }

    /// What became of that: what can be acked.
    pub(super) fn report(&mut self, done: &[Position], failed: bool, now: Timestamp) {
        self.moving = false;
        if failed {
            self.rest = now + AGAIN;
        }
        self.queue.retain(|(at, ..)| !done.contains(at));
    }

    /// When to ask again.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        let (_, back, _) = self.queue.front().filter(|_| !self.moving)?;
        Some((*back).max(self.rest))
    }

    /// Whether no more is to be delivered for now.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= MOST
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    fn held(due: i64) -> Held {
        let due = Timestamp::from_millis(due * 1000);
        let message = Message::builder().deliver_at(due).build();
        Held { copy: None, sealed: true, partition: None, at_least: None, message }
    }

    #[test]
    fn the_longest_wait_that_is_over_in_time_is_chosen() {
        let of = |seconds| tier_of(Duration::from_secs(seconds));
        assert_eq!(
            [of(0), of(90), of(509), of(510), of(7229), of(7230), of(10_000_000)],
            [0, 0, 0, 1, 1, 2, 3]
        );
    }

    #[test]
    fn messages_go_back_in_time_and_those_that_fail_are_tried_again() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let mut tier = Tier::new(WAITS[0]);
        assert_eq!((tier.wake(), tier.tick(at(1000)).len()), (None, 0));
        tier.read(Position(1, 1), at(1000), held(1100));
        tier.read(Position(1, 2), at(1001), held(1070));
        tier.read(Position(1, 3), at(1500), held(9000));
        assert_eq!((tier.wake(), tier.tick(at(1059)).len()), (Some(at(1060)), 0));
        assert_eq!(tier.tick(at(1061)).len(), 2);
        assert!(tier.tick(at(1061)).is_empty(), "they are on their way");
        tier.report(&[Position(1, 2)], true, at(1062));
        assert_eq!((tier.wake(), tier.tick(at(1062)).len()), (Some(at(1063)), 0));
        assert_eq!(tier.tick(at(1063)).len(), 1);
        tier.report(&[Position(1, 1)], false, at(1064));
        assert_eq!((tier.wake(), tier.is_empty(), tier.is_full()), (Some(at(1560)), false, false));
    }
}
