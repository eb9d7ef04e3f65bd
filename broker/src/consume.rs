//! Consuming as a member of a group: what is asked for, what comes, how it is settled.
//!
//! Not here: which member should own what (`balance.rs`), which acks make a position (`ack_window.rs`), how much may be in flight
//! (`in_flight.rs`): pure code that backends share. Retry, reject and dead letters are made of `ack` and
//! `forward` in `ropeway-processor`.

use crate::{
    Answer, Epoch, Error, ErrorKind, Group, Message, Outcomes, Position, Result, Target, Timestamp, Topic,
};
use bytes::Bytes;
use std::{
    fmt::Debug,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// What a member asks for when it joins a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topics; all must exist. Patterns are resolved above the seam.
    pub topics: Vec<Topic>,
    /// The group.
    pub group: Group,
    /// A static name: who comes back with it gets back what it owned. A second member of the same name takes over from the
    /// first, which ends with `Fenced`. `None`: a name is made. (Kafka: it stays a member after it closed, until its session is over: what it had
    /// waits for it, and a group is not moved or deleted until then. With the newer group protocol a second one is refused.)
    pub member: Option<Arc<str>>,
    /// Where to start in a topic of which the group has no position at all. Stored for all its partitions in one step, before the first
    /// delivery. Partitions that are added to a topic later start at their beginning. Default: `Earliest`, which loses nothing.
    pub start: Start,
    /// How much may be delivered and not acked, over all partitions of the member. No partition takes more than
    /// max(2/n of it, 64 messages), n being the partitions owned, and an eighth is kept so that each has some however stuck the others are
    /// (at least one message where the bound has room for two of each). Default: 1,024 messages, 64 MiB.
    pub in_flight: Bound,
    /// How soon acks take effect at the latest, up to a minute. Default: 100 ms.
    pub ack_interval: Duration,
    /// How long a partition may be kept after [`Event::Revoking`], up to an hour. A backend may grant less, and says so in `left`.
    /// Default: 10 s.
    pub drain: Duration,
}

impl Subscription {
    /// With the defaults named at the fields.
    #[must_use]
    pub fn new(group: Group, topics: impl IntoIterator<Item = Topic>) -> Self {
        Self {
            topics: topics.into_iter().collect(),
            group,
            member: None,
            start: Start::Earliest,
            in_flight: Bound { messages: 1024, bytes: 64 * 1024 * 1024 },
            ack_interval: Duration::from_millis(100),
            drain: Duration::from_secs(10),
        }
    }

    /// Whether every backend can take it. Backends call this first.
    ///
    /// # Errors
    /// `Invalid` names what is out of bounds: no topic or one twice, a member name that is no name, a bound of 0, a time that is too long.
    pub fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, format!("the subscription {why}")));
        if self.topics.is_empty() {
            return invalid("names no topic".into());
        }
        if let Some(twice) =
            self.topics.iter().enumerate().find(|(i, topic)| self.topics[..*i].contains(topic))
        {
            return invalid(format!("names topic {:?} twice", twice.1));
        }
        if let Some(member) = &self.member {
            Group::new(member).map_err(|_| {
                let rule = "has a member name that is not 1 to 249 of letters, digits, '.', '_' and '-'";
                Error::new(ErrorKind::Invalid, format!("the subscription {rule}"))
            })?;
        }
        if self.in_flight.messages == 0 || self.in_flight.bytes == 0 {
            return invalid("has an in-flight bound of 0; it takes at least 1 message and 1 byte".into());
        }
        if self.ack_interval > Duration::from_secs(60) || self.drain > Duration::from_secs(3600) {
            return invalid("waits too long; `ack_interval` is at most a minute, `drain` an hour".into());
        }
        Ok(())
    }
}

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first message there is.
    Earliest,
    /// With what comes from now on.
    Latest,
    /// With the first message that the log took at that time or later, by its clock (Kafka: the record's timestamp). Skips nothing
    /// that the log took since then.
    Time(Timestamp),
    /// There, or at the next that exists. For one partition: where more than one is meant it is refused, as is a position of another life
    /// of the topic (`Invalid`).
    At(Position),
    /// Behind it; otherwise as `At`.
    After(Position),
}

/// A bound in messages and in bytes; whichever is reached first holds. One message always fits: a larger one is delivered when nothing
/// else of its partition is in flight, so that the bound is passed by one message at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Messages; at least 1.
    pub messages: usize,
    /// Bytes of [`Message::size`](crate::Message::size); at least 1.
    pub bytes: usize,
}

/// One member of a group.
///
/// Receiving and settling never wait for each other: settle through [`Self::control`], from any thread. Dropping it gives everything up in
/// the background: acks given before take effect, the rest is for the next owner.
pub trait Consumer: Debug + Send {
    /// The next event.
    ///
    /// Cut connections are mended behind it: an error is the end, and every later call answers the same. Each owned partition's `Gone` comes
    /// before it. `Closed` is the orderly end after [`Control::close`] or the broker's close.
    ///
    /// # Cancel safety
    /// Nothing lives in a future: what was returned was delivered, all else comes with a later call.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>>;

    /// The handle to settle and steer with. It may outlive the consumer; then acks are refused as fenced.
    fn control(&self) -> Arc<dyn Control>;
}

/// What a consumer or reader is told.
///
/// For each owned partition, in this order: one `Assigned`; then batches, unreadable records, gaps and one `CaughtUp`; perhaps one
/// `Revoking`, and no batch after it; exactly one `Gone`. Nothing is swallowed.
#[derive(Debug)]
pub enum Event {
    /// Added to what is held. Where reading starts is fixed by now.
    Assigned(Vec<Assignment>),
    /// Stop starting work on these, ack what finishes, then [`Control::give_up`]. They go then, or when `left` is over, counted
    /// from the moment this is returned; at the latest at twice that after it was decided, polled or not. (Kafka: partitions that are
    /// kept pause meanwhile.)
    Revoking {
        /// What is to be given up.
        partitions: Vec<Owned>,
        /// How long is left.
        left: Duration,
    },
    /// Acks of this epoch are refused from now on; the next owner has what was not acked.
    Gone(Owned, GoneReason),
    /// Messages.
    Batch(Batch),
    /// A record that is no message (checksum, compression, foreign). It is in flight like one, to be dead-lettered and acked.
    Unreadable {
        /// Where it lies.
        of: Owned,
        /// Where in the partition.
        position: Position,
        /// Its bytes, where they can be had.
        raw: Option<Bytes>,
        /// Why it cannot be read.
        why: Error,
    },
    /// Messages between `from` and `to` will not be seen (compaction is no gap). Where positions mean other messages afterwards
    /// (`Recreated`, `Truncated`) it comes first in a new epoch: `Gone` (`Lost`) ended the old one, so that no ack can hit the wrong
    /// message.
    Gap {
        /// Where they lay.
        of: Owned,
        /// The first position that is missing, where it is known.
        from: Option<Position>,
        /// The next that will be seen, where it is known; lower than `from` where the log was truncated, of a new life where the
        /// topic was made again.
        to: Option<Position>,
        /// Why.
        why: GapReason,
    },
    /// Once after each start: what was there when reading of this partition began has been returned, or is known to be done.
    CaughtUp(Owned),
}

/// A partition that was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// What is owned from now on.
    pub of: Owned,
    /// The group's position, at which reading resumes: everything before it is done. `None`: the group had none (new, or expired),
    /// and [`Subscription::start`] was used.
    pub resumed: Option<Position>,
    /// Where reading begins: at `resumed`, or at what `start` came to; later where messages before it are done or gone.
    pub from: Position,
}

/// A partition and the epoch in which it is owned. A reader's epoch is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owned {
    /// The topic.
    pub topic: Topic,
    /// The partition, from 0.
    pub partition: u32,
    /// Whose turn it is.
    pub epoch: Epoch,
}

/// Messages of one partition and one epoch, in order, without what is known to be acked. Never empty.
#[derive(Debug)]
pub struct Batch {
    /// Where they lie.
    pub of: Owned,
    /// The messages. Their bytes may share blocks of at most 64 KiB: copy what is held for long.
    pub deliveries: Vec<Delivery>,
}

/// A message and where it lies.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its place in the partition.
    pub position: Position,
    /// The message.
    pub message: Message,
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// Removed before they were seen: by retention, by purge, or behind our back (a server that evicts, a log that somebody removed).
    Trimmed,
    /// The topic was deleted and made again.
    Recreated,
    /// The log lost its end (failover to a copy that had less, a restart with an older file), or a topic that nobody deleted is gone.
    Truncated,
    /// A damaged block whose records cannot be told apart; it was told as one unreadable record at its start.
    Damaged,
}

impl GapReason {
    /// The name in metrics and output, such as `trimmed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Recreated => "recreated",
            Self::Truncated => "truncated",
            Self::Damaged => "damaged",
        }
    }
}

/// Why a partition is not owned any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GoneReason {
    /// Given up by its owner.
    GivenUp,
    /// The drain time was over.
    DrainOver,
    /// Taken away: another owner, an expired session, a deleted topic, a log that was truncated.
    Lost,
    /// The consumer or the broker was closed.
    Closed,
}

/// Settles and steers what a [`Consumer`] holds. All methods may be called from any thread, and answer also while nobody polls the consumer;
/// those that ask the backend within 30 s, else with `Unavailable`.
pub trait Control: Debug + Send + Sync {
    /// Done with these positions.
    ///
    /// In any order; twice is once; bounded by what is in flight. Takes effect within [`Subscription::ack_interval`] (later only while the
    /// backend cannot be reached), in the order given, position and holes together, if the epoch still holds then; else `Gone` comes.
    /// What took effect survives what the backend's acks survive, also for messages in the middle: a later owner does not see them
    /// again, unless the map of holes outgrew its place (Kafka: 4 kB), which a metric counts.
    ///
    /// # Errors
    /// `Fenced`, and nothing is acked, where the epoch is known to be over; `Invalid`, and nothing is acked, where a position was never
    /// delivered in this epoch.
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()>;

    /// Publishes `out`, then acks `done` if all of it was acked.
    ///
    /// One step where [`Capabilities::atomic_forward`](crate::Capabilities::atomic_forward): then either all of it is true after a
    /// crash or nothing, and one refused message refuses all (the others are given back with the same kind of error). Elsewhere a crash
    /// between the two delivers `done` again; where publishing was acked and the ack is refused then, `Gone` tells. Outcomes are those of
    /// `out`, as for [`MessageBroker::publish`](crate::MessageBroker::publish); nothing to publish is an ack. Where the epoch is known to be over, or `done`
    /// names what was never delivered, nothing is written: all *not written* (`Fenced`, `Invalid`).
    ///
    /// Forwards of one consumer keep the order of the calls. They do not wait for publishes that are open, and may take effect before them.
    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes>;

    /// From the next `poll_next` on no batch of this partition comes (or comes again). Membership, epoch and what is in flight stay. Of a
    /// partition that is not owned: nothing happens.
    fn pause(&self, of: &Owned, paused: bool);

    /// Hands it over: acks given before take effect first, the rest is for the next owner; `Gone` follows. Unasked (without
    /// `Revoking`) it goes to another member where one can take it and the backend lets members choose, else it comes back with a new
    /// epoch: who cannot work on it should pause before giving it up again.
    fn give_up(&self, of: &Owned);

    /// One fenced commit on it, even with nothing to ack.
    ///
    /// # Errors
    /// `Fenced` means that it is another's; any other kind tells nothing about that.
    fn confirm(&self, of: &Owned) -> Answer<Result<()>>;

    /// Answers when what was acked before the call is as durable as the backend makes it; names the partitions whose acks are not, and
    /// why. Empty: all are.
    fn flush(&self) -> Answer<Vec<(Owned, Error)>>;

    /// Consumes these topics instead, in the same membership: what falls away is revoked as in a rebalance. Done while its answer is polled: where that is dropped
    /// before, nobody knows whether it was.
    ///
    /// # Errors
    /// `NotFound` names the topic that does not exist; then nothing changes.
    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>>;

    /// No more batches; partitions with nothing in flight are given up at once, the others when their last message is acked, or at the
    /// deadline. Answers with what was not acked. `poll_next` still tells each `Gone` (`Closed`), then ends with `Closed`.
    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>>;
}
