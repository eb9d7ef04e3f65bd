//! When delayed messages are looked for: decided here, without a server.
//!
//! A partition is looked at when the next message that is known of is due, and else now and then, since other processes hold messages too. Not here:
//! the task that looks (`mover.rs`), what moves them (`scripts/release_due.lua`).

use crate::{Timestamp, Topic};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How often a partition is looked at where nothing is known to be due.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How soon one is looked at again that had more than was moved at once, or whose topic could not be reached.
const AGAIN: Duration = Duration::from_millis(1);
/// How many topics are looked after; who looks after them warns once where there are more.
pub(super) const MOST: usize = 4096;

/// How many topics are looked at at once: one that takes long, because a node of a cluster is away, keeps no other waiting.
const AT_ONCE: usize = 64;
/// How long beyond its mark a topic is looked at: a message may be held late, after a cut, and clocks differ.
const BEYOND: Duration = Duration::from_secs(600);
/// How much later than needed a topic is marked, so that it is not marked again for each message.
const AHEAD: Duration = Duration::from_secs(60);

/// When to look at each topic.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    topics: BTreeMap<Topic, Look>,
    /// How many are being looked at.
    under_way: usize,
    /// The first for which there was no room, until that was told; told once.
    left_out: Option<Topic>,
    told: bool,
}

/// The next look at a topic.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// Something is known to be held, or nobody looked yet: it is looked at whatever its description says.
    sure: bool,
    /// It is being looked at.
    under_way: bool,
}

impl Agenda {
    /// Looks after a topic from now on.
    pub(super) fn watch(&mut self, topic: &Topic, now: Instant) {
        if self.topics.len() < MOST {
            self.topics.entry(topic.clone()).or_insert(Look { at: now, sure: true, under_way: false });
        } else if !self.told && !self.topics.contains_key(topic) {
            (self.left_out, self.told) = (Some(topic.clone()), true);
        }
    }

    /// A topic that is not looked after because there are [`MOST`] already: the first one, once.
    pub(super) fn left_out(&mut self) -> Option<Topic> {
        self.left_out.take()
    }

    /// A message of the topic is due in that time.
    pub(super) fn expect(&mut self, topic: &Topic, left: Duration, now: Instant) {
        self.watch(topic, now + left.min(LOOK));
        if let Some(look) = self.topics.get_mut(topic) {
            *look = Look { at: look.at.min(now + left), sure: true, ..*look };
        }
    }

    /// The topics to look at now, and whether whatever their description says, until that is [`Agenda::done`]. Each is looked at again after [`LOOK`] at the
    /// latest. Those that have waited longest come first.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Topic, bool)> {
        let mut due: Vec<_> =
            self.topics.iter_mut().filter(|(_, look)| look.at <= now && !look.under_way).collect();
        due.sort_by_key(|(_, look)| look.at);
        due.truncate(AT_ONCE.saturating_sub(self.under_way));
        self.under_way += due.len();
        let begin = |(topic, look): (&Topic, &mut Look)| {
            let sure = std::mem::replace(look, Look { at: now + LOOK, sure: false, under_way: true }).sure;
            (topic.clone(), sure)
        };
        due.into_iter().map(begin).collect()
    }

    /// A topic was looked at.
    pub(super) fn done(&mut self, topic: &Topic) {
        if let Some(look) = self.topics.get_mut(topic) {
            self.under_way -= usize::from(std::mem::take(&mut look.under_way));
        }
    }

    /// When something is due next; `None`: nothing is looked after, or what is waits for what is being looked at.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.under_way >= AT_ONCE {
            return None;
        }
        self.topics.values().filter(|look| !look.under_way).map(|look| look.at).min()
    }

    /// Does not look after a topic any more: it is gone.
    pub(super) fn forget(&mut self, topic: &Topic) {
        self.done(topic);
        self.topics.remove(topic);
    }
}

/// Whether a topic with that mark may hold something.
pub(super) fn may_hold(mark: Timestamp, now: Timestamp) -> bool {
    now.since(mark) < BEYOND && mark > Timestamp::from_millis(0)
}

/// The mark that a topic needs before a message is held which is due then; `None`: it has it.
pub(super) fn mark(due: Timestamp, has: Timestamp) -> Option<Timestamp> {
    (due > has).then(|| due + AHEAD)
}

/// How long until a message is due, by the server's clock; a moment where it is due already: more of them wait.
pub(super) fn left(due: Timestamp, server: Timestamp) -> Duration {
    due.since(server).max(AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_topic_is_looked_at_when_something_is_due_and_now_and_then() {
        let (a, b) = (Topic::new("a").unwrap(), Topic::new("b").unwrap());
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        assert_eq!(agenda.next(), None);
        agenda.watch(&a, now);
        assert_eq!(agenda.due(now), [(a.clone(), true)], "nobody looked yet");
        agenda.done(&a);
        agenda.expect(&a, Duration::from_millis(300), now);
        agenda.expect(&b, Duration::from_secs(3600), now);
        assert_eq!(agenda.next(), Some(now + Duration::from_millis(300)));
        assert!(agenda.due(now + Duration::from_millis(299)).is_empty());
        assert_eq!(agenda.due(now + Duration::from_millis(300)), [(a.clone(), true)]);
        agenda.done(&a);
        // One that is due far from now does not keep others from being found.
        assert_eq!(agenda.due(now + LOOK), [(b.clone(), true)]);
        agenda.done(&b);
        assert_eq!(agenda.due(now + 2 * LOOK), [(a.clone(), false), (b.clone(), false)]);
        agenda.forget(&a);
        agenda.forget(&b);
        assert_eq!(agenda.next(), None);
        let at = Timestamp::from_millis;
        assert_eq!((left(at(70), at(50)), left(at(50), at(70))), (Duration::from_millis(20), AGAIN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_for_which_there_is_no_room_is_told_of_once() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let topic = |number: usize| Topic::new(format!("t{number}")).unwrap();
        (0..MOST).for_each(|number| agenda.watch(&topic(number), now));
        agenda.expect(&topic(7), LOOK, now);
        assert_eq!(agenda.left_out(), None);
        agenda.expect(&topic(MOST), LOOK, now);
        agenda.watch(&topic(MOST + 1), now);
        assert_eq!((agenda.left_out(), agenda.left_out()), (Some(topic(MOST)), None));
        agenda.watch(&topic(MOST + 2), now);
        assert_eq!((agenda.left_out(), agenda.topics.len()), (None, MOST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_takes_long_keeps_no_other_waiting_and_is_not_looked_at_twice_at_once() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let topic = |number: usize| Topic::new(format!("t{number}")).unwrap();
        agenda.watch(&topic(0), now);
        assert_eq!((agenda.due(now), agenda.next()), (vec![(topic(0), true)], None));
        agenda.expect(&topic(0), Duration::ZERO, now);
        agenda.watch(&topic(1), now + LOOK / 2);
        assert_eq!((agenda.due(now + LOOK / 4), agenda.next()), (Vec::new(), Some(now + LOOK / 2)));
        assert_eq!(agenda.due(now + LOOK / 2), [(topic(1), true)]);
        agenda.done(&topic(0));
        assert_eq!(
            agenda.due(now + LOOK),
            [(topic(0), true)],
            "what was expected meanwhile is not forgotten"
        );
        // Those that have waited longest come first, and no more than so many at once.
        (2..AT_ONCE + 9)
            .for_each(|number| agenda.watch(&topic(number), now + Duration::from_millis(number as u64)));
        agenda.watch(&topic(AT_ONCE + 9), now);
        let due = agenda.due(now + LOOK);
        assert_eq!((due.len(), &due[0].0, agenda.next()), (AT_ONCE - 2, &topic(AT_ONCE + 9), None));
        agenda.forget(&topic(1));
        assert_eq!(agenda.due(now + LOOK).len(), 1);
    }

    #[test]
    fn a_topic_is_marked_before_something_is_held_and_looked_at_until_long_after() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert!(!may_hold(at(0), at(5)), "nothing was ever held");
        assert!(may_hold(at(100), at(5)) && may_hold(at(100), at(699)) && !may_hold(at(100), at(700)));
        assert!(may_hold(Timestamp::from_millis(i64::MAX), at(5)), "a stream of somebody else");
        assert_eq!(mark(at(100), at(0)), Some(at(160)));
        assert_eq!((mark(at(160), at(160)), mark(at(161), at(160))), (None, Some(at(221))));
    }
}
