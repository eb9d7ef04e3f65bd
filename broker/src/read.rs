//! Following topics without a group.

use crate::{Answer, Event, Result, Start, Topic};
use std::{
    fmt::Debug,
    task::{Context, Poll},
};

/// Sees every message of the partitions it follows: a set that may change. Leaves nothing behind on the broker.
///
/// One connection, whatever is followed. What has been returned is not kept; a reader holds at most 1,024 messages or
/// 8 MiB in its own buffers (Kafka: its client library has 4 MiB and a few answers of 2 MiB beside that). Dropping it ends it.
pub trait Reader: Debug + Send {
    /// The next `Batch`, `Unreadable`, `Gap` or `CaughtUp`; an `Owned` in it has epoch 0. Of a topic that is deleted nothing comes any more; when
    /// one of that name is made, a gap (`Recreated`) tells, and its messages follow from the first on. Positions of one partition only grow, except after
    /// [`Self::follow`] moved it or a gap says otherwise. Waits where nothing is followed.
    ///
    /// Cut connections are mended behind it: an error is the end. `Closed` after the broker's close.
    ///
    /// # Cancel safety
    /// What was returned was delivered, all else comes with a later call.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>>;

    /// Adds a partition, or moves it (seek): from the answer on, what comes of it is from there. No partition: all of the topic, and later
    /// ones from their beginning. Answers within 30 s, also while nobody polls. Done while its answer is polled: where that is
    /// dropped before, nobody knows whether it was.
    ///
    /// # Errors
    /// `NotFound` names the topic or partition; `Invalid` a position of another life of the topic.
    fn follow(&mut self, topic: &Topic, partition: Option<u32>, from: Start) -> Answer<Result<()>>;

    /// From the next `poll_next` on nothing of it comes. No partition: all of the topic. What is not followed: nothing happens.
    fn unfollow(&mut self, topic: &Topic, partition: Option<u32>);
}
