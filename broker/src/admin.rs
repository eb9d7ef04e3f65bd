//! Administration: topics and groups.
//!
//! Not here: what names may be (`names.rs`), what a broker says of itself (`facts.rs`).

use crate::{Durability, Epoch, Group, MessageId, Position, Result, Start, Topic};
use async_trait::async_trait;
use std::{fmt::Debug, time::Duration};

/// Topics and groups of a broker.
///
/// `partition: None` means all. What cannot be done while somebody uses it answers `Conflict` and names who does; what does not
/// exist answers `NotFound` with its name. What has no answer within 30 s answers `Unavailable`, and may or may not take effect; so may a
/// dropped call.
#[async_trait]
pub trait Admin: Debug + Send + Sync {
    /// Makes a topic. True when it answers: it can be published to and subscribed to.
    ///
    /// # Errors
    /// `Exists`; `Invalid` for 0 or more than 4,096 partitions; `Unsupported` for what the backend cannot keep (compaction).
    async fn create_topic(&self, topic: &Topic, spec: TopicSpec) -> Result<()>;

    /// What is known about it.
    ///
    /// # Errors
    /// `NotFound`.
    async fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo>;

    /// All topics, internal ones too, sorted by name.
    ///
    /// # Errors
    /// Those of the connection.
    async fn topics(&self) -> Result<Vec<Topic>>;

    /// Adds partitions, so that it has `partitions`. Keys may move to other partitions: the order of a key holds on each side of the
    /// growth, not across it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for fewer than there are. As many as there are is no error.
    async fn grow_topic(&self, topic: &Topic, partitions: u32) -> Result<()>;

    /// Removes what lies before. Unseen at once, freed when the backend can. A group or reader that had not seen it is told by a gap.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a position of another life; `Unsupported` for a foreign topic whose server cannot (Pulsar).
    async fn purge_topic(&self, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()>;

    /// Deletes it with its messages, delayed ones too. A group that comes back to a topic of that name has no position, or is told by a gap
    /// (`Recreated`): an old position is never applied to a new log.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` names the groups that have members on it; then nothing was changed. Where they had joined before the call, nobody saw
    /// the topic away meanwhile.
    async fn delete_topic(&self, topic: &Topic) -> Result<()>;

    /// Takes a delayed message back. `true`: it will not be delivered. `false`: unknown, gone, or too near to be sure.
    ///
    /// # Errors
    /// `NotFound` for the topic.
    async fn cancel_delayed(&self, topic: &Topic, id: MessageId) -> Result<bool>;

    /// All groups with members or positions, sorted by name. Not those by which a backend delays messages.
    ///
    /// # Errors
    /// Those of the connection.
    async fn groups(&self) -> Result<Vec<Group>>;

    /// Members, and per partition: owner, position, end, lag. What is unknown is absent, never invented.
    ///
    /// # Errors
    /// `NotFound`.
    async fn describe_group(&self, group: &Group) -> Result<GroupInfo>;

    /// Sets the position of a group that has no members, and forgets what it did beyond it. Makes the group where there is none. A partition in
    /// which it has no position after that it starts at the beginning, as it has one in another.
    ///
    /// # Errors
    /// `NotFound` for topic or partition; `Conflict` names the members; `Invalid` for a position of another life.
    async fn seek_group(&self, group: &Group, topic: &Topic, partition: Option<u32>, to: Start)
    -> Result<()>;

    /// Forgets a group with its positions.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` names its members.
    async fn delete_group(&self, group: &Group) -> Result<()>;
}

/// What a topic should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// How many partitions: 1 to 4,096. Default 8.
    pub partitions: u32,
    /// What is kept.
    pub retention: Retention,
}

impl Default for TopicSpec {
    fn default() -> Self {
        Self { partitions: 8, retention: Retention::default() }
    }
}

impl TopicSpec {
    /// That many partitions, kept for ever.
    #[must_use]
    pub fn partitions(partitions: u32) -> Self {
        Self { partitions, ..Self::default() }
    }
}

/// What is kept. The default keeps everything.
///
/// A group is alive that has a member, or had one within the time that the backend's settings say (7 days by default). What one has not
/// finished is kept, whatever stands here; only a purge removes that.
///
/// A group that has a position in a partition of a topic, of this life or an earlier one, is concerned with all of the topic. Where it has no
/// position of this life (it was sought in other partitions only, partitions were added, the topic was made again) it has finished nothing:
/// its next member is given all that is there.
///
/// Who had not seen what was removed (a reader, a group that is alive no more) is told by one gap (`Trimmed`) from where it was to what there is.
///
/// Where that keeps more than the bytes that stand here and a piece, the topic (on `redis:` the partition) takes no more: a publish is answered *not written*
/// (`Throttled`), and names the group that lags. It goes on when that has finished the oldest piece, or is alive no more. What that very group
/// forwards back to the topic is taken, since it acks what it forwards.
///
/// Messages go in pieces, as the backend stores them, so that a bit more is kept than what stands here. On `memory:` and `embedded:` a piece is a
/// segment, which has messages of all partitions: at most an eighth of the age, at least 1 s; and at most an eighth of the bytes of the
/// topic (or 1 MiB, where that is more) or what the setting `segment` says, and what was published at once. A topic has at most 256 of them;
/// of so many the last one grows.
///
/// On `redis:` age goes to the millisecond, once a second, as long as a process publishes to the topic, reads or consumes it; bytes are those of the
/// entries, names and values, of each partition, in pieces of an eighth (or 1 MiB, where that is more) or what `segment` says. What was published
/// since the last look is on top. A consumer group that is not made by Ropeway holds back what lies behind the last entry it was given, and what it
/// has pending, until it has neither moved nor asked for as long as a group without members is alive.
///
/// On `kafka:` the servers remove by themselves, and know nothing of what a group has finished: what is too old or too much goes all the same, nothing is
/// ever refused, and a group is told by a gap. Age is that of [`Message::timestamp`](crate::Message::timestamp). A piece is a segment: an eighth of the age, at
/// least 1 s; an eighth of the bytes, at least 1 MiB and at most 1 GiB. The servers look every 5 minutes (`log.retention.check.interval.ms`). What is compacted is
/// made so that it can be purged (`cleanup.policy` of `compact,delete`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// No longer than that, and a piece's time, once every group that is alive has finished it.
    pub age: Option<Duration>,
    /// No more bytes than that in a partition, and a piece, once every group that is alive has finished what goes. On `memory:` and `embedded:` that
    /// is counted over the topic: this many bytes for each partition it has, wherever they lie. The newest message of the topic always stays.
    pub bytes: Option<u64>,
    /// Only the last message of each key for certain.
    pub compact: bool,
}

/// What is known about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// What it is.
    pub spec: TopicSpec,
    /// What an acked message survives unless a publisher asks for more.
    pub durability: Durability,
    /// The largest message it takes, in bytes of [`Message::size`](crate::Message::size).
    pub max_message: usize,
    /// Delayed messages that are not due; `None` where unknown.
    pub delayed: Option<u64>,
    /// Per partition.
    pub partitions: Vec<PartitionInfo>,
}

/// What is known about a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The first position there is or will be.
    pub low: Position,
    /// Greater than the position of every message there is.
    pub end: Position,
    /// How many messages lie between; `None` where unknown.
    pub messages: Option<u64>,
}

/// What is known about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its members, sorted by name.
    pub members: Vec<MemberInfo>,
    /// Per partition of every topic it has a position in or a member on, sorted.
    pub partitions: Vec<GroupPartition>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its name, given or made.
    pub name: String,
    /// The topics it asked for.
    pub topics: Vec<Topic>,
}

/// What a group has of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The member that owns it, by name.
    pub owner: Option<String>,
    /// The epoch of its last owner.
    pub epoch: Option<Epoch>,
    /// Everything before it is done; `None`: the group has no position.
    pub position: Option<Position>,
    /// Greater than the position of every message there is.
    pub end: Position,
    /// End minus position, in messages, as the server's own tools show it.
    pub lag: Option<u64>,
    /// Lag minus what is done beyond the position.
    pub unfinished: Option<u64>,
    /// How long ago the log took the oldest message that is not done; zero where nothing waits.
    pub lag_time: Option<Duration>,
}
