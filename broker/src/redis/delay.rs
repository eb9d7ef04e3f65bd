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
/// How many topics are looked after.
const MOST: usize = 4096;

/// When to look at each topic.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    topics: BTreeMap<Topic, Instant>,
}

impl Agenda {
    /// Looks after a topic from now on.
    pub(super) fn watch(&mut self, topic: &Topic, now: Instant) {
        if self.topics.len() < MOST {
            self.topics.entry(topic.clone()).or_insert(now);
        }
    }

    /// A message of the topic is due in that time.
    pub(super) fn expect(&mut self, topic: &Topic, left: Duration, now: Instant) {
        self.watch(topic, now + left.min(LOOK));
        if let Some(at) = self.topics.get_mut(topic) {
            *at = (*at).min(now + left);
        }
    }

    /// The topics to look at now. Each is looked at again after [`LOOK`] at the latest.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Topic> {
        let mut due = Vec::new();
        for (topic, at) in &mut self.topics {
            if *at <= now {
                due.push(topic.clone());
                *at = now + LOOK;
            }
        }
        due
    }

    /// When something is due next; `None`: nothing is looked after.
    pub(super) fn next(&self) -> Option<Instant> {
        self.topics.values().min().copied()
    }

    /// Does not look after a topic any more: it is gone.
    pub(super) fn forget(&mut self, topic: &Topic) {
        self.topics.remove(topic);
    }
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
        assert_eq!(agenda.due(now), std::slice::from_ref(&a));
        agenda.expect(&a, Duration::from_millis(300), now);
        agenda.expect(&b, Duration::from_secs(3600), now);
        assert_eq!(agenda.next(), Some(now + Duration::from_millis(300)));
        assert!(agenda.due(now + Duration::from_millis(299)).is_empty());
        assert_eq!(agenda.due(now + Duration::from_millis(300)), std::slice::from_ref(&a));
        // One that is due far from now does not keep others from being found.
        assert_eq!(agenda.due(now + LOOK), std::slice::from_ref(&b));
        agenda.forget(&a);
        agenda.forget(&b);
        assert_eq!(agenda.next(), None);
        let at = Timestamp::from_millis;
        assert_eq!((left(at(70), at(50)), left(at(50), at(70))), (Duration::from_millis(20), AGAIN));
    }
}
