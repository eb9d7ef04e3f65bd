//! How what a member owns goes where Redis says so: another's epoch, another server.
//!
//! Pure. Not here: how partitions go on every backend (`../../members/going.rs`), who asks for it (`core.rs`, `duty.rs`).

use super::core::Core;
use crate::{
    balance::TopicPartition,
    members::{find, key_of},
    redis::{
        commands::Home,
        failure::{BACKEND, late},
        follow::Followed,
    },
};
use std::task::Waker;
use tokio::time::Instant;

impl Core {
    /// It is another's by now.
    pub(super) fn lose(&mut self, key: &TopicPartition) {
        if !self.owner.lose(key) {
            return;
        }
        if self.table.owner(key) == Some(&self.rules.name) {
            self.ours.insert(key.clone());
        }
        self.look = true;
    }

    /// Another server is asked by now, which need not have all that the one before had: positions mean other messages there. What was owned there is lost (in
    /// a cluster that may be some of it), and taken over again from what that server has stored.
    pub(super) fn moved(&mut self, home: &Home) -> Option<Waker> {
        if home.number <= self.home {
            return None;
        }
        let before = std::mem::replace(&mut self.home, home.number);
        self.look = true;
        let elsewhere = |followed: &Followed| home.since(followed.keys.log()) > before;
        let followed = self.owner.shares.iter().map(|(key, share)| (key, &share.log.followed));
        let lost: Vec<_> = followed.filter(|(_, followed)| elsewhere(followed)).collect();
        let lost: Vec<_> = lost.into_iter().map(|(key, followed)| (key.clone(), followed.clone())).collect();
        for (key, followed) in lost {
            self.lose(&key);
            self.before.insert(key, followed);
        }
        self.owner.wake_if_told()
    }

    pub(super) fn lose_all(&mut self) {
        let keys: Vec<_> = self.owner.shares.keys().cloned().collect();
        keys.iter().for_each(|key| self.lose(key));
        self.ours.clear();
    }

    /// What is due by the clock alone.
    pub(super) fn run_out(&mut self, now: Instant) -> Option<Waker> {
        if self.owner.over {
            return None;
        }
        self.owner.run_out(now);
        self.owner.tell_ended(now);
        for of in self.rounds.expire(now, || late(&self.rules.server).on(BACKEND)) {
            // More may be stored than is known here, and what is acked from now on would look late beside it: it is taken over again, with what is
            // stored. Then the round cannot come late either.
            if find(&mut self.owner.shares, &of).is_ok() {
                self.lose(&key_of(&of));
            }
        }
        self.owner.wake_if_told()
    }

    /// When something is due by the clock.
    pub(super) fn due(&self) -> Option<Instant> {
        self.owner.due().into_iter().chain(self.rounds.due()).min()
    }
}
