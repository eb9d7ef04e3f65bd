//! Where a message goes and what became of it.
//!
//! Not here: single and background publishing (`publisher/`), the call itself (`broker.rs`).

use crate::{Answer, Error, Message, Position, Topic};
use std::fmt;

/// Where a batch goes.
///
/// A partition of one's own choice is for those who own it (the journal of retries); everybody else lets the key choose:
/// [`partition_for_key`](crate::partition_for_key), and messages without key are spread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The topic; it must exist.
    pub topic: Topic,
    /// That partition, whatever the keys.
    pub partition: Option<u32>,
    /// What it must survive at the least. A topic that cannot give that answers *not written* (`Unsupported`).
    pub at_least: Option<Durability>,
}

impl From<Topic> for Target {
    fn from(topic: Topic) -> Self {
        Self { topic, partition: None, at_least: None }
    }
}

impl From<&Topic> for Target {
    fn from(topic: &Topic) -> Self {
        topic.clone().into()
    }
}

/// What an acked message survives, each about one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Nothing: it is gone with the process that holds it.
    Volatile,
    /// The process being killed; not the machine losing power.
    ProcessCrash,
    /// The machine losing power.
    PowerLoss,
    /// The loss of the machine.
    Replicated,
}

impl Durability {
    /// The name in settings and output, such as `power_loss`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::ProcessCrash => "process_crash",
            Self::PowerLoss => "power_loss",
            Self::Replicated => "replicated",
        }
    }
}

/// What became of one message.
#[derive(Debug)]
pub enum Published {
    /// It is in the log, and survives what `durability` says.
    Acked {
        /// The partition it went to.
        partition: u32,
        /// Where it lies; `None` where it is not placed yet (delayed) or was not told (a repeat that was recognised).
        position: Option<Position>,
        /// What it survives.
        durability: Durability,
    },
    /// Certainly not in the log, now or later. Sending it again cannot duplicate, but comes after what was acked meanwhile.
    NotWritten(Box<Failed>),
    /// It may be in the log, or arrive yet, or be less durable than asked. Sending it again may duplicate; the id stays the same,
    /// so a consumer can tell.
    Unknown(Box<Failed>),
}

impl Published {
    /// Not in the log, now or later.
    #[must_use]
    pub fn not_written(error: Error, message: Message) -> Self {
        Self::NotWritten(Box::new(Failed { error, message }))
    }

    /// Perhaps in the log.
    #[must_use]
    pub fn unknown(error: Error, message: Message) -> Self {
        Self::Unknown(Box::new(Failed { error, message }))
    }

    /// Whether it is in the log for certain.
    #[must_use]
    pub const fn is_acked(&self) -> bool {
        matches!(self, Self::Acked { .. })
    }

    /// The failure, where it is one.
    #[must_use]
    pub fn failed(&self) -> Option<&Failed> {
        match self {
            Self::Acked { .. } => None,
            Self::NotWritten(failed) | Self::Unknown(failed) => Some(failed),
        }
    }
}

/// A message that was not acked, given back with the reason.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// The message as it was handed over.
    pub message: Message,
}

/// What became of a batch: exactly one entry per message, in the batch's order.
#[must_use = "what was not acked is lost if nobody looks"]
#[derive(Debug)]
pub struct Outcomes(pub Vec<Published>);

/// Messages of a batch that are answered together: see [`MessageBroker::publish_in_parts`](crate::MessageBroker::publish_in_parts).
pub struct Part {
    /// Where they stand in the batch, in its order.
    pub places: Vec<u32>,
    /// What became of them, in the order of `places`.
    pub answer: Answer<Outcomes>,
}

impl Part {
    /// A batch of so many messages that is answered as a whole.
    #[must_use]
    pub fn whole(messages: usize, answer: Answer<Outcomes>) -> Self {
        Self { places: (0..u32::try_from(messages).unwrap_or(u32::MAX)).collect(), answer }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("messages", &self.places.len()).finish_non_exhaustive()
    }
}

impl IntoIterator for Outcomes {
    type Item = Published;
    type IntoIter = std::vec::IntoIter<Published>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Outcomes {
    /// The same failure for a whole batch: certainly not written.
    pub fn all_not_written(error: &Error, batch: Vec<Message>) -> Self {
        Self(batch.into_iter().map(|message| Published::not_written(error.clone(), message)).collect())
    }

    /// The same failure for a whole batch: perhaps written.
    pub fn all_unknown(error: &Error, batch: Vec<Message>) -> Self {
        Self(batch.into_iter().map(|message| Published::unknown(error.clone(), message)).collect())
    }

    /// Whether all of it is in the log.
    #[must_use]
    pub fn all_acked(&self) -> bool {
        self.0.iter().all(Published::is_acked)
    }

    /// `Ok` where everything was acked, else the first failure.
    ///
    /// # Errors
    /// The error of the first message that was not acked. Use the outcomes themselves to get messages back.
    pub fn into_result(self) -> crate::Result<()> {
        self.0
            .into_iter()
            .find_map(|published| match published {
                Published::Acked { .. } => None,
                Published::NotWritten(failed) | Published::Unknown(failed) => Some(failed.error),
            })
            .map_or(Ok(()), Err)
    }
}
