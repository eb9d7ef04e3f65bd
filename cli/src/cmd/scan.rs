//! Walks over what a topic holds now, from somewhere to its end.
//!
//! Not here: following what comes later, gaps and records that are no messages told to people (`subscribe/`).

use crate::{failure::Failure, session::within};
use ropeway_broker::{Delivery, Event, MessageBroker, Owned, Position, ReaderExt, Start, Topic};
use std::{collections::HashSet, ops::ControlFlow, time::Duration};

/// What a walk comes across.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A message.
    Message(&'a Delivery),
    /// A record that is no message.
    Unreadable(Position),
}

/// Visits everything of a topic (of one partition, where it is named) that is there now, until `visit` has enough. `wait` is how long each
/// answer of the broker may take.
///
/// # Errors
/// Those of the broker; out of time (5).
pub(crate) async fn scan(
    broker: &dyn MessageBroker,
    topic: &Topic,
    partition: Option<u32>,
    from: Start,
    wait: Duration,
    mut visit: impl FnMut(&Owned, Found<'_>) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let partitions =
        within(wait, "describe the topic", broker.admin().describe_topic(topic)).await?.partitions.len();
    let all = (0..u32::try_from(partitions).unwrap_or(u32::MAX))
        .filter(|p| partition.is_none_or(|only| only == *p));
    let mut left: HashSet<u32> = all.collect();
    let mut reader = within(wait, "open a reader", broker.read()).await?;
    within(wait, "read the topic", reader.follow(topic, partition, from)).await?;
    while !left.is_empty() {
        match within(wait, "read the topic", reader.next()).await? {
            Event::Batch(batch) => {
                for delivery in &batch.deliveries {
                    if visit(&batch.of, Found::Message(delivery)).is_break() {
                        return Ok(());
                    }
                }
            }
            Event::Unreadable { of, position, .. } if visit(&of, Found::Unreadable(position)).is_break() => {
                return Ok(());
            }
            Event::CaughtUp(of) => _ = left.remove(&of.partition),
            _ => {}
        }
    }
    Ok(())
}
