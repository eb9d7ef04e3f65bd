//! What a member of a group knows of Redis: the table and its lease, what is claimed, what is refused.
//!
//! Pure: time is told, nothing is awaited. Who calls it: what the user holds (`../../members/`), and the two tasks that act (`run.rs`). Not here: what it owns
//! and tells (`../../members/owner.rs`), what is to be done on the server (`duty.rs`), how partitions go (`going.rs`), reading (`reading.rs`), one partition
//! (`share.rs`).

use super::{
    away::Away,
    duty::Job,
    rounds::Rounds,
    share::Stream,
    table::{Counts, Membership, Table},
};
use crate::{
    Error, ErrorKind, Event, Owned, Position, Result, Topic,
    balance::TopicPartition,
    members::{self, Owner, Stirred, key_of, owned},
    redis::{failure::BACKEND, follow::Followed, lasting::Refusals, turns::Turns},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::Discriminant,
    sync::Arc,
    task::Waker,
    time::Duration,
};
use tokio::time::Instant;

/// What does not change.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) name: String,
    /// As errors call it.
    pub(super) server: Arc<str>,
    pub(super) common: members::Rules,
    pub(super) lease: Duration,
}

impl Rules {
    /// For how long after it was renewed messages are handed out: the rest is for clocks that differ and answers that are late.
    pub(super) fn hands_out(&self) -> Duration {
        self.lease - Duration::from_secs(2).min(self.lease / 4)
    }
}

/// A member.
#[derive(Debug)]
pub(in crate::redis) struct Core {
    pub(super) rules: Rules,
    pub(super) owner: Owner<Stream>,
    pub(super) topics: BTreeSet<Topic>,
    /// The server that all which is owned was taken over from ([`crate::redis::commands::Home`]), by its number.
    pub(super) home: u64,
    /// What was followed on the server before, until it is taken over from this one.
    pub(super) before: BTreeMap<TopicPartition, Followed>,
    pub(super) table: Table,
    /// What was decided from it.
    pub(super) wanted: BTreeMap<TopicPartition, String>,
    pub(super) membership: Option<Membership>,
    /// With this membership nothing is revoked: another handed us something, and it is not to come back to it.
    pub(super) calm: Option<Membership>,
    pub(super) counts: Counts,
    /// Logs that lost their end, from where to where, until who consumes them here is told.
    pub(super) truncated: BTreeMap<TopicPartition, (Option<Position>, Option<Position>)>,
    /// Which life each topic had when something of it was taken over last, and how many partitions.
    pub(super) lives: BTreeMap<Topic, (u64, u32)>,
    /// What is taken over because we claimed it, or had it before.
    pub(super) ours: BTreeSet<TopicPartition>,
    /// The first round is over.
    pub(super) settled: bool,
    /// When the lease was renewed last: when that was sent.
    pub(super) renewed: Instant,
    pub(super) look: bool,
    pub(super) ask: bool,
    pub(super) lost: bool,
    pub(super) next_renew: Instant,
    pub(super) retry: Option<Instant>,
    pub(super) pause: Duration,
    pub(super) away: Away,
    /// What is refused, by what was to be done.
    pub(super) refused: HashMap<Discriminant<Job>, Refusals>,
    pub(super) rounds: Rounds,
    /// There was no room to read all, and is not half of it by now (`reading.rs`).
    pub(super) full: bool,
    /// What lies ready can be handed out, and is to be before more is read.
    pub(super) slow: bool,
    pub(super) turns: Turns,
}

impl Core {
    pub(super) fn new(rules: Rules, topics: BTreeSet<Topic>, now: Instant) -> Self {
        Self {
            next_renew: now,
            renewed: now,
            owner: Owner::new(rules.common),
            rules,
            topics,
            home: 0,
            before: BTreeMap::new(),
            table: Table::default(),
            wanted: BTreeMap::new(),
            membership: None,
            calm: None,
            counts: Counts::new(),
            truncated: BTreeMap::new(),
            lives: BTreeMap::new(),
            ours: BTreeSet::new(),
            settled: false,
            look: false,
            ask: false,
            lost: false,
            retry: None,
            pause: super::duty::FIRST_PAUSE,
            away: Away::default(),
            refused: HashMap::new(),
            rounds: Rounds::default(),
            full: false,
            slow: false,
            turns: Turns::default(),
        }
    }

    pub(super) fn topics(&self) -> String {
        if self.owner.closing.is_some() {
            return String::new();
        }
        self.topics.iter().map(Topic::as_str).collect::<Vec<_>>().join(",")
    }

    /// Ends it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&mut self, error: Error) -> Option<Waker> {
        self.rounds.leave();
        self.owner.kill(error)
    }
}

impl members::Core for Core {
    type Log = Stream;

    fn owner(&mut self) -> &mut Owner<Stream> {
        &mut self.owner
    }

    fn is_sure(&self, now: Instant) -> bool {
        now < self.renewed + self.rules.hands_out()
    }

    fn tick(&mut self, now: Instant) -> Option<Waker> {
        self.run_out(now)
    }

    fn poll(&mut self, waker: &Waker, now: Instant) -> (Option<Result<Event>>, Stirred) {
        let sure = self.is_sure(now);
        let (event, mut stirred) = self.owner.poll(waker, sure, now);
        stirred.feed |= self.has_room_again() | self.has_nothing_else();
        (event, stirred)
    }

    fn set_topics(&mut self, topics: Vec<Topic>) -> Result<Stirred> {
        self.owner.check_open()?;
        self.topics = topics.into_iter().collect();
        (self.ask, self.look) = (true, true);
        Ok(Stirred { keeper: true, ..Stirred::default() })
    }

    fn closes(&mut self) {
        (self.ask, self.look) = (true, true);
    }

    fn give_up(&mut self, of: &Owned, now: Instant) -> Stirred {
        if let Ok(share) = owned(&mut self.owner.shares, of)
            && share.revoking.is_none()
        {
            share.log.to = self.table.taker(&key_of(of), &self.rules.name).map(str::to_owned);
        }
        self.owner.give_up(of, now)
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer was closed").on(BACKEND)
}
