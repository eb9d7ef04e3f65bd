//! What a member of a group knows of Kafka: what the group gave to it, what the client reads, what is under way.
//!
//! Pure: time is told, nothing is awaited. Who calls it: what the user holds (`../../members/`) and the thread that polls the client (`poller.rs`).
//! Not here: what it owns and tells (`../../members/owner.rs`), what is to be done with the client (`duty.rs`), what is stored (`storing.rs`), what is read
//! (`reading.rs`), how partitions go (`going.rs`), one partition (`share.rs`).

use super::{
    gate::Gate,
    share::PartitionLog,
    storing::{Begun, Limits},
    taking::Before,
};
use crate::{
    Error, ErrorKind, Event, Result, Start, Topic,
    balance::TopicPartition,
    kafka::failure::BACKEND,
    members::{self, Owner, Stirred},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::Duration,
};
use tokio::time::Instant;

/// What does not change.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) group: String,
    pub(super) common: members::Rules,
    /// For how long the group keeps a member that is not heard of.
    pub(super) session: Duration,
    /// Whether the client does not tell by itself that the session is over (KIP-848).
    pub(super) watched: bool,
}

/// A member.
#[derive(Debug)]
pub(in crate::kafka) struct Core {
    pub(super) rules: Rules,
    pub(super) owner: Owner<PartitionLog>,
    /// What is consumed, and where the group starts in it.
    pub(super) topics: BTreeMap<Topic, Start>,
    /// The client is to subscribe to them.
    pub(super) subscribe: bool,
    /// What the group gave to this member.
    pub(super) ours: BTreeSet<TopicPartition>,
    /// What the client reads.
    pub(super) placed: BTreeSet<TopicPartition>,
    /// What the client was told to stop reading for a while, also of what went meanwhile: it may know that still, and is told to read when that comes again.
    pub(super) held: BTreeSet<TopicPartition>,
    pub(super) gate: Gate,
    /// What the group wants back, which was not answered yet.
    pub(super) revoked: Option<BTreeSet<TopicPartition>>,
    /// What was known of logs that were lost, for who takes them again here.
    pub(super) before: BTreeMap<TopicPartition, Before>,
    /// The group answered: this is a member.
    pub(super) joined: Option<Instant>,
    /// It is being looked what these begin with; without those that another may have had since.
    pub(super) looking: Option<BTreeSet<TopicPartition>>,
    /// How often it was.
    pub(super) looks: u64,
    /// Which topic of that name the client knows.
    pub(super) lives: BTreeMap<Topic, u64>,
    pub(super) next_look: Instant,
    /// When it is looked next whether topics are the same.
    pub(super) next_check: Instant,
    /// Since when partitions wait for who owns the first one to store where the group starts.
    pub(super) fresh: BTreeMap<Topic, Instant>,
    /// Starts that go with the next commit.
    pub(super) starts: Vec<Begun>,
    /// The commit that is under way, by its number.
    pub(super) committing: Option<u64>,
    pub(super) commits: u64,
    /// What the servers take, as far as is known.
    pub(super) limits: Limits,
    /// Where the last commit was cut: the next one begins behind it.
    pub(super) cut: Option<TopicPartition>,
    pub(super) next_commit: Instant,
    pub(super) pause: Duration,
    pub(super) commit_pause: Duration,
    /// When the group last took a commit from this member: when that was sent. Whose way is cut may be thought gone a session later, and is not told.
    pub(super) evidence: Instant,
    /// When the client was polled last: who was stopped for long must not hand out what may be another's by now.
    pub(super) polled: Instant,
    /// The server knows this member no more: since when.
    pub(super) expelled: Option<Instant>,
    /// The client is no use any more.
    pub(super) useless: bool,
    /// A test ended it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) killed: bool,
}

impl Core {
    pub(super) fn new(rules: Rules, topics: BTreeMap<Topic, Start>, now: Instant) -> Self {
        Self {
            owner: Owner::new(rules.common),
            rules,
            topics,
            subscribe: true,
            ours: BTreeSet::new(),
            placed: BTreeSet::new(),
            held: BTreeSet::new(),
            gate: Gate::default(),
            revoked: None,
            before: BTreeMap::new(),
            joined: None,
            looking: None,
            looks: 0,
            lives: BTreeMap::new(),
            next_look: now,
            next_check: now + super::duty::CHECK,
            fresh: BTreeMap::new(),
            starts: Vec::new(),
            committing: None,
            commits: 0,
            limits: Limits::default(),
            cut: None,
            next_commit: now,
            pause: super::duty::FIRST_PAUSE,
            commit_pause: super::storing::FIRST_PAUSE,
            evidence: now,
            polled: now,
            expelled: None,
            useless: false,
            #[cfg(any(test, feature = "conformance"))]
            killed: false,
        }
    }

    /// Ends it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&mut self, error: Error) -> Stirred {
        self.killed = true;
        Stirred { waker: self.owner.kill(error), keeper: true, feed: false }
    }
}

impl members::Core for Core {
    type Log = PartitionLog;

    fn owner(&mut self) -> &mut Owner<PartitionLog> {
        &mut self.owner
    }

    fn is_sure(&self, now: Instant) -> bool {
        // The server counts a session from what it took, which was sent before that.
        let late = self.rules.session - (self.rules.session / 4).min(Duration::from_secs(2));
        now < self.polled.min(self.evidence) + late
    }

    fn tick(&mut self, now: Instant) -> Option<Waker> {
        self.run_out(now)
    }

    fn set_topics(&mut self, topics: Vec<Topic>) -> Result<Stirred> {
        self.owner.check_open()?;
        let start = |topic: &Topic| self.topics.get(topic).copied().unwrap_or(Start::Earliest);
        self.topics = topics.into_iter().map(|topic| (topic.clone(), start(&topic))).collect();
        self.subscribe = true;
        Ok(Stirred { keeper: true, ..Stirred::default() })
    }

    fn poll(&mut self, waker: &Waker, now: Instant) -> (Option<Result<Event>>, Stirred) {
        let sure = self.is_sure(now);
        let (event, mut stirred) = self.owner.poll(waker, sure, now);
        stirred.feed |= event.is_some() && self.gate.wants_more(self.owner.ahead);
        (event, stirred)
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer was closed").on(BACKEND)
}
