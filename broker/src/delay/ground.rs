//! What delay stands on: a broker that has none of its own passes itself in as this.
//!
//! Not here: what is made of it (`mod.rs`).

use crate::{
    Answer, Consumer, Message, Outcomes, Position, Reader, Result, Subscription, Target, Timestamp, Topic,
};
use std::{collections::BTreeMap, fmt::Debug, time::Duration};

/// A broker without delay. Nothing that delay calls here may come back to delay.
pub(crate) trait Ground: Debug + Send + Sync + 'static {
    /// Publishes at once, whatever [`Message::deliver_at`] says, which stays visible. Otherwise as
    /// [`MessageBroker::publish`](crate::MessageBroker::publish).
    fn put(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes>;

    /// Joins a group, as [`MessageBroker::subscribe`](crate::MessageBroker::subscribe).
    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>>;

    /// A reader, as [`MessageBroker::read`](crate::MessageBroker::read).
    fn read(&self) -> Answer<Result<Box<dyn Reader>>>;

    /// What is known of a topic, asked a second ago at the most.
    ///
    /// # Errors
    /// `NotFound`.
    fn look(&self, topic: &Topic) -> Answer<Result<Seen>>;

    /// The same, asked after this call: another process may have deleted the topic a moment ago, and made one of its name.
    ///
    /// # Errors
    /// `NotFound`.
    fn look_now(&self, topic: &Topic) -> Answer<Result<Seen>>;

    /// Which topics of these names there are, all by one question; a topic of which nobody can tell is left out.
    ///
    /// # Errors
    /// Those of the connection.
    fn lives(&self, topics: Vec<Topic>) -> Answer<Result<BTreeMap<Topic, Option<u64>>>>;

    /// Makes an internal topic that keeps everything, and takes messages of that many bytes.
    ///
    /// # Errors
    /// `Exists`.
    fn make(&self, topic: &Topic, partitions: u32, max_message: usize) -> Answer<Result<()>>;

    /// Adds partitions to an internal topic.
    ///
    /// # Errors
    /// Those of [`Admin::grow_topic`](crate::Admin::grow_topic).
    fn grow(&self, topic: &Topic, partitions: u32) -> Answer<Result<()>>;

    /// Removes what lies before in a partition of an internal topic.
    ///
    /// # Errors
    /// Those of [`Admin::purge_topic`](crate::Admin::purge_topic).
    fn purge(&self, topic: &Topic, partition: u32, before: Position) -> Answer<Result<()>>;

    /// Deletes an internal topic.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where its hidden group has members.
    fn delete(&self, topic: &Topic) -> Answer<Result<()>>;

    /// How long a publish may take.
    fn deadline(&self) -> Duration;

    /// The time of day by which messages are due.
    fn now(&self) -> Timestamp;
}

/// What delay knows of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Which topic of that name it is: another one after it was deleted and made again.
    pub(crate) life: u64,
    /// How many partitions it has.
    pub(crate) partitions: u32,
    /// The largest message it takes, in bytes of [`Message::size`].
    pub(crate) max_message: usize,
}
