//! Settings of a [`Publisher`](super::Publisher).

use crate::{Bound, Error, ErrorKind, Result};
use std::time::Duration;

/// How a [`Publisher`](super::Publisher) batches, how much it takes over, and whether it keeps a key's order through failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublisherSettings {
    /// How much is taken over and not answered; who publishes more waits. One message always fits. Default: 10,000 messages, 64 MiB.
    pub in_flight: Bound,
    /// The largest batch. Default: 500 messages, 1 MiB.
    pub batch: Bound,
    /// How many batches of one target are on their way at a time, 1 to 64. What is published meanwhile makes the next batch: no timer is
    /// needed. The first 4 go with whatever there is; the next 4 with at least 2 messages each, the next 4 with 3, and so on. What those publish next who
    /// are told an outcome together (16 or more) goes as one batch. Default: 16.
    pub open_batches: usize,
    /// How long the first message of a batch waits for others at the most; up to an hour. Default: zero, it does not wait.
    pub linger: Duration,
    /// What happens to later messages of a key while an earlier one has no outcome. Default: [`PublishOrder::Pipelined`].
    pub order: PublishOrder,
}

impl Default for PublisherSettings {
    fn default() -> Self {
        Self {
            in_flight: Bound { messages: 10_000, bytes: 64 * 1024 * 1024 },
            batch: Bound { messages: 500, bytes: 1024 * 1024 },
            open_batches: 16,
            linger: Duration::ZERO,
            order: PublishOrder::Pipelined,
        }
    }
}

/// What happens to later messages of a key while an earlier one has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOrder {
    /// They are on their way as well. Acked messages lie in the order they were published; one that failed and is published again comes
    /// after those that were acked meanwhile.
    Pipelined,
    /// They are held back. A message that fails and may succeed later is published again, with the same id and growing pauses (10 ms to
    /// 1 s), until it was tried for that long; then it is given back and the next one of its key goes on. Messages without key are
    /// not held. Slower for a hot key: one message of it per round trip.
    Ordered {
        /// How long one message is tried, counted from its first try; up to a day.
        retry_for: Duration,
    },
}

impl PublisherSettings {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Invalid, format!("publisher settings: {what}")));
        if self.in_flight.messages == 0 || self.in_flight.messages > u32::MAX as usize {
            return wrong("`in_flight.messages` must be 1 to 4294967295");
        }
        if self.in_flight.bytes == 0 || self.in_flight.bytes > u32::MAX as usize {
            return wrong("`in_flight.bytes` must be 1 to 4294967295");
        }
        if self.batch.messages == 0 || self.batch.bytes == 0 {
            return wrong("`batch` must be at least 1 message and 1 byte");
        }
        if self.linger > Duration::from_secs(3600) {
            return wrong("`linger` must be at most an hour");
        }
        if matches!(self.order, PublishOrder::Ordered { retry_for } if retry_for > Duration::from_secs(24 * 3600))
        {
            return wrong("`retry_for` must be at most a day");
        }
        if !(1..=64).contains(&self.open_batches) {
            return wrong("`open_batches` must be 1 to 64");
        }
        Ok(())
    }
}
