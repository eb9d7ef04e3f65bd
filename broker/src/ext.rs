//! Comfort over the contract. Users call these; backends implement none of them.

use crate::{
    Consumer, Durability, Error, ErrorKind, Event, Failed, Message, MessageBroker, Position, Published,
    Reader, Result, Target,
};
use std::future::{Future, poll_fn};

/// Comfort for every [`MessageBroker`].
pub trait MessageBrokerExt: MessageBroker {
    /// Publishes one message and waits for it. For many, use a [`Publisher`](crate::Publisher).
    ///
    /// # Errors
    /// The failure with the message; [`PublishFailed::may_be_written`] tells whether sending again may duplicate.
    fn publish_one(
        &self,
        to: impl Into<Target>,
        message: Message,
    ) -> impl Future<Output = Result<Receipt, PublishFailed>> + Send {
        let copy = message.clone();
        let answer = self.publish(&to.into(), vec![message]);
        async move { receipt(answer.await.0.pop().unwrap_or_else(|| no_outcome(copy))) }
    }
}

impl<B: MessageBroker + ?Sized> MessageBrokerExt for B {}

/// A message is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The partition it went to.
    pub partition: u32,
    /// Where it lies, where it is placed and known.
    pub position: Option<Position>,
    /// What it survives.
    pub durability: Durability,
}

/// A message was not acked; here it is, with the reason.
#[derive(Debug)]
pub struct PublishFailed {
    /// Whether it may be in the log, so that sending it again may duplicate.
    pub may_be_written: bool,
    /// The reason and the message.
    pub failed: Box<Failed>,
}

impl std::fmt::Display for PublishFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.may_be_written { "may or may not be written" } else { "was not written" };
        write!(f, "the message {what}: {}", self.failed.error)
    }
}

impl std::error::Error for PublishFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The text of the error is part of this one's, so that a chain of causes does not say it twice.
        std::error::Error::source(&self.failed.error)
    }
}

/// What a message is told for which a backend, against the contract, has no outcome.
pub(crate) fn no_outcome(message: Message) -> Published {
    let error =
        Error::new(ErrorKind::Corrupt, "the backend answered no outcome: this is a defect of the backend");
    Published::unknown(error, message)
}

/// Turns an outcome into a result that gives the message back.
pub(crate) fn receipt(published: Published) -> Result<Receipt, PublishFailed> {
    match published {
        Published::Acked { partition, position, durability } => {
            Ok(Receipt { partition, position, durability })
        }
        Published::NotWritten(failed) => Err(PublishFailed { may_be_written: false, failed }),
        Published::Unknown(failed) => Err(PublishFailed { may_be_written: true, failed }),
    }
}

/// Comfort for every [`Consumer`].
pub trait ConsumerExt: Consumer {
    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// Those of [`Consumer::poll_next`]: an error is the end.
    fn next(&mut self) -> impl Future<Output = Result<Event>> + Send {
        poll_fn(move |cx| self.poll_next(cx))
    }
}

impl<C: Consumer + ?Sized> ConsumerExt for C {}

/// Comfort for every [`Reader`].
pub trait ReaderExt: Reader {
    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// Those of [`Reader::poll_next`]: an error is the end.
    fn next(&mut self) -> impl Future<Output = Result<Event>> + Send {
        poll_fn(move |cx| self.poll_next(cx))
    }
}

impl<R: Reader + ?Sized> ReaderExt for R {}
