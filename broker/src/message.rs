//! What travels on the bus, and where it lies.
//!
//! Not here: who it is (`id.rs`), headers (`headers.rs`), names of topics (`names.rs`), what our own headers mean (`wire.rs`).

use crate::{Error, ErrorKind, Headers, MessageId, Result, headers, wire};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
    time::Duration,
};

/// The end of the year 9999.
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// A place in one partition: opaque, survives restarts, text form `a-b`.
///
/// Ordered within one life of the topic; a position of another life (deleted and made again) is recognised and refused.
/// What the numbers are: embedded (life, offset); Kafka (fold of topic id, offset); Pulsar (ledger, entry << 24 | index);
/// Redis (milliseconds, sequence). A *position to resume at* is exclusive: everything before it is done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64, pub u64);

impl Position {
    /// The smallest position that is greater; the greatest one stays itself.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.1.checked_add(1) {
            Some(b) => Self(self.0, b),
            None if self.0 < u64::MAX => Self(self.0 + 1, 0),
            None => self,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Position {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('-').and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        parsed.ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is not a position; it looks like 1763-42, as `sub` prints it"),
            )
        })
    }
}

/// Whose turn it is with a partition of a group. Grows strictly with each owner, across nodes and loss of state: the
/// larger of the stored one plus one and the milliseconds since 1970, stored before the first delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next owner, given the last stored one.
    #[must_use]
    pub fn after(stored: Option<Self>, now: Timestamp) -> Self {
        let clock = u64::try_from(now.as_millis()).unwrap_or(0);
        Self(stored.map_or(clock, |stored| stored.0.saturating_add(1).max(clock)))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since 1970, UTC: what every backend can keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Now, by the machine's clock. Code that decides takes a [`Clock`](crate::Clock) instead.
    #[must_use]
    pub fn now() -> Self {
        crate::clock::wall()
    }

    /// How long after `earlier` this is; zero where it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A message, as a broker sees it: bytes with a key and headers. Cloning is cheap. `Debug` shows sizes, not contents.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who it is.
    pub id: MessageId,
    /// Messages of equal key keep their order. `None` and the empty key differ.
    pub key: Option<Bytes>,
    /// Names and values, in order.
    pub headers: Headers,
    /// The content; `None` is a tombstone, which differs from an empty payload.
    pub payload: Option<Bytes>,
    /// When the producer made it.
    pub timestamp: Timestamp,
    /// Not to be delivered before then, by the clock of who moves it. Durable; outside the order of its key.
    pub deliver_at: Option<Timestamp>,
}

impl Message {
    /// The longest key, in bytes.
    pub const MAX_KEY: usize = 32 * 1024;

    /// Starts a message.
    #[must_use]
    pub fn builder() -> MessageBuilder {
        MessageBuilder::default()
    }

    /// What counts against limits, in bytes: key, packed headers and payload.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.headers.packed().len()
            + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// The type of the event it carries (header `ce_type`), where it says one.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.headers.get_str(wire::TYPE)
    }

    /// Whether every backend can carry it, given the largest message ([`Self::size`]) the topic takes.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] that names the part, its size and the limit; [`ErrorKind::Invalid`] for a header name with a NUL byte, and
    /// for a time that is not between 1970 and 9999.
    pub fn check(&self, max_message: usize) -> Result<()> {
        let too_large = |context: String| Err(Error::new(ErrorKind::TooLarge, context));
        if let Some(key) = &self.key
            && key.len() > Self::MAX_KEY
        {
            return too_large(format!("the key has {} bytes and may have {}", key.len(), Self::MAX_KEY));
        }
        self.headers.check()?;
        let is_wrong = |at: Timestamp| !(1..=LAST_MILLIS).contains(&at.as_millis());
        if is_wrong(self.timestamp) || self.deliver_at.is_some_and(is_wrong) {
            let what = if is_wrong(self.timestamp) { "timestamp" } else { "time of delivery" };
            let context = format!("the {what} must lie between 1970 and 9999, in milliseconds since 1970");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        if self.size() > max_message {
            return too_large(format!(
                "the message has {} bytes (key, headers and payload) and the topic takes {max_message}",
                self.size()
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("key_bytes", &self.key.as_ref().map(Bytes::len))
            .field("header_bytes", &self.headers.packed().len())
            .field("payload_bytes", &self.payload.as_ref().map(Bytes::len))
            .field("timestamp", &self.timestamp.as_millis())
            .field("deliver_at", &self.deliver_at.map(Timestamp::as_millis))
            .finish()
    }
}

/// Builds a [`Message`]. What is left out: a new id, no key, no headers, a tombstone, the time of `build`, at once.
#[derive(Clone, Debug, Default)]
pub struct MessageBuilder {
    id: Option<MessageId>,
    key: Option<Bytes>,
    headers: headers::HeadersBuilder,
    payload: Option<Bytes>,
    timestamp: Option<Timestamp>,
    deliver_at: Option<Timestamp>,
}

impl MessageBuilder {
    /// An id of one's own choice, so that a repeat is recognised.
    #[must_use]
    #[inline]
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// The key: messages of equal key keep their order.
    #[must_use]
    #[inline]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// One more header.
    #[must_use]
    #[inline]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers = self.headers.add(name, Some(value));
        self
    }

    /// One more header, without a value.
    #[must_use]
    #[inline]
    pub fn null_header(mut self, name: &str) -> Self {
        self.headers = self.headers.add(name, None::<&[u8]>);
        self
    }

    /// These headers instead of those given so far.
    #[must_use]
    #[inline]
    pub fn headers(mut self, headers: &Headers) -> Self {
        self.headers = headers.to_builder();
        self
    }

    /// The type of the event: header `ce_type`.
    #[must_use]
    #[inline]
    pub fn event_type(self, name: &str) -> Self {
        self.header(wire::TYPE, name)
    }

    /// The content. Without it the message is a tombstone.
    #[must_use]
    #[inline]
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// When it was made.
    #[must_use]
    #[inline]
    pub fn timestamp(mut self, at: Timestamp) -> Self {
        self.timestamp = Some(at);
        self
    }

    /// Not to be delivered before then.
    #[must_use]
    #[inline]
    pub fn deliver_at(mut self, at: Timestamp) -> Self {
        self.deliver_at = Some(at);
        self
    }

    /// The message.
    #[must_use]
    #[inline]
    pub fn build(self) -> Message {
        let (id, timestamp) = match (self.id, self.timestamp) {
            (Some(id), Some(at)) => (id, at),
            // The clock is read once.
            (id, at) => {
                let now = Timestamp::now();
                (id.unwrap_or_else(|| MessageId::made_at(now)), at.unwrap_or(now))
            }
        };
        Message {
            id,
            key: self.key,
            headers: self.headers.build(),
            payload: self.payload,
            timestamp,
            deliver_at: self.deliver_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip_as_text_and_refuse_nonsense() {
        let position = Position(17, u64::MAX);
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        assert_eq!(position.next(), Position(18, 0));
        for bad in ["", "1", "-", "1-", "a-b", "1-2-3", "1-99999999999999999999"] {
            assert_eq!(bad.parse::<Position>().unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn epochs_grow_with_the_clock_and_without_it() {
        let now = Timestamp::from_millis(1000);
        assert_eq!(Epoch::after(None, now), Epoch(1000));
        assert_eq!(Epoch::after(Some(Epoch(5)), now), Epoch(1000));
        assert_eq!(Epoch::after(Some(Epoch(2000)), now), Epoch(2001));
    }

    #[test]
    fn limits_are_told_by_part() {
        let key = Message::builder().key(vec![0; Message::MAX_KEY + 1]).build();
        assert!(key.check(usize::MAX).unwrap_err().to_string().contains("key"));
        let headers = (0..10_000).fold(Message::builder(), |b, i| b.header(&i.to_string(), "x")).build();
        assert!(headers.check(usize::MAX).unwrap_err().to_string().contains("10000 headers"));
        for bad in [
            Message::builder().header("a\0", "x").build(),
            Message::builder().timestamp(Timestamp::from_millis(0)).build(),
            Message::builder().deliver_at(Timestamp::from_millis(i64::MAX)).build(),
        ] {
            assert_eq!(bad.check(usize::MAX).unwrap_err().kind(), ErrorKind::Invalid);
        }
        let exact = Message::builder().payload(vec![0; 100]).build();
        exact.check(100).unwrap();
        assert_eq!(exact.check(99).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
