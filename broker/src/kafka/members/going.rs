//! How what a member owns goes where Kafka says so, or nothing: expelled, given up because nothing was heard.
//!
//! Pure. Not here: how partitions go on every backend (`../../members/going.rs`), who asks for it (`core.rs`, `duty.rs`).

use super::core::Core;
use crate::{Error, balance::TopicPartition};
use std::{task::Waker, time::Duration};
use tokio::time::Instant;

/// How long a last commit is tried before a partition goes without it: what it would have stored comes again.
pub(super) const LAST: Duration = Duration::from_secs(10);

impl Core {
    /// It is another's by now, or its positions mean other messages.
    pub(super) fn lose(&mut self, key: &TopicPartition) {
        self.owner.lose(key);
    }

    pub(super) fn lose_all(&mut self) {
        let keys: Vec<_> = self.owner.shares.keys().cloned().collect();
        keys.iter().for_each(|key| self.lose(key));
    }

    /// The server knows this member no more: all is another's. The client joins again by itself.
    pub(super) fn expel(&mut self, now: Instant) {
        self.lose_all();
        self.none_ours();
        self.starts.clear();
        self.expelled.get_or_insert(now);
    }

    /// What is due by the clock alone.
    pub(super) fn run_out(&mut self, now: Instant) -> Option<Waker> {
        if self.owner.over {
            return None;
        }
        self.owner.run_out(now);
        if self.rules.watched && now >= self.evidence + self.rules.session {
            // Nobody would tell: the server may have given it all away. What is to be taken waits for its epoch to be stored.
            let claimed = self.owner.shares.iter().filter(|(_, share)| share.claimed);
            let keys: Vec<_> = claimed.map(|(key, _)| key.clone()).collect();
            keys.iter().for_each(|key| self.lose(key));
        }
        self.owner.tell_ended(now);
        self.owner.wake_if_told()
    }

    /// Ends it for good: `error` is what is told last.
    pub(super) fn end(&mut self, error: Error) {
        self.lose_all();
        self.owner.end(error);
    }
}
