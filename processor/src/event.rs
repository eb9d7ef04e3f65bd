//! A message as a handler sees it.
//!
//! The payload stays bytes until a typed handler decodes it.
//! Not here: what goes with one attempt to handle it (`context.rs`).

use crate::Undecodable;
use bytes::Bytes;
use ropeway_broker::{Epoch, Headers, Message, MessageId, Owned, Position, Timestamp, Topic};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A message and where it lies. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Event(Arc<Placed>);

// Shared, since an event is held by its lane, its context and its handler at the same time.
#[derive(Clone, Debug)]
struct Placed {
    message: Message,
    place: Option<Place>,
}

/// Where an event lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The position in it.
    pub position: Position,
    /// Whose turn the partition is in: a token that grows with each owner. Give it to what is written outside, and refuse lower ones.
    pub epoch: Epoch,
}

impl Place {
    /// A position of a partition that is owned.
    pub(crate) fn of(owned: &Owned, position: Position) -> Self {
        Self { topic: owned.topic.clone(), partition: owned.partition, position, epoch: owned.epoch }
    }

    /// Whether it is of that partition, in that epoch. Where the name of the topic lies elsewhere it may be, and is not said to be.
    fn is_of(&self, owned: &Owned) -> bool {
        std::ptr::eq(self.topic.as_str(), owned.topic.as_str())
            && self.partition == owned.partition
            && self.epoch == owned.epoch
    }
}

impl Event {
    /// An event that lies on the bus.
    #[must_use]
    pub fn placed(message: Message, place: Place) -> Self {
        Self(Arc::new(Placed { message, place: Some(place) }))
    }

    /// Makes another event of it, in the same place of memory where nobody else has it.
    #[inline]
    pub(crate) fn become_placed(&mut self, message: Message, owned: &Owned, position: Position) {
        let Some(placed) = Arc::get_mut(&mut self.0) else {
            *self = Self::placed(message, Place::of(owned, position));
            return;
        };
        placed.message = message;
        match &mut placed.place {
            Some(place) if place.is_of(owned) => place.position = position,
            place => *place = Some(Place::of(owned, position)),
        }
    }

    /// Whether they are clones of one another.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// The message, taken out.
    #[must_use]
    pub fn into_message(self) -> Message {
        Arc::unwrap_or_clone(self.0).message
    }

    /// Where it lies; `None` for one that did not come over the bus.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The topic it came from, where it came over the bus.
    #[must_use]
    pub fn topic(&self) -> Option<&Topic> {
        self.place().map(|place| &place.topic)
    }

    /// Its type, where it says one.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.0.message.event_type()
    }

    /// The id of the message.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.0.message.id
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.0.message.key.as_ref()
    }

    /// The key as text, where it is text.
    #[must_use]
    pub fn key_str(&self) -> Option<&str> {
        self.0.message.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.0.message.headers
    }

    /// The payload; `None` is a tombstone.
    #[must_use]
    pub fn payload(&self) -> Option<&Bytes> {
        self.0.message.payload.as_ref()
    }

    /// When the producer made it.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.0.message.timestamp
    }

    /// The payload as JSON. A tombstone is decoded as `null`.
    ///
    /// # Errors
    /// What does not fit and where in the document.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Undecodable> {
        let payload = self.0.message.payload.as_deref().unwrap_or(b"null");
        let mut json = serde_json::Deserializer::from_slice(payload);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let why = error.into_inner();
            if path == "." {
                Undecodable::new(why.to_string())
            } else {
                Undecodable::new(format!("{path}: {why}"))
            }
        })?;
        json.end().map_err(|error| Undecodable::new(error.to_string()))?;
        Ok(value)
    }
}

impl From<Message> for Event {
    /// An event that did not come over the bus.
    fn from(message: Message) -> Self {
        Self(Arc::new(Placed { message, place: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    struct Order {
        #[serde(rename = "items")]
        _items: Vec<Item>,
    }

    #[derive(serde::Deserialize, Debug)]
    struct Item {
        #[serde(rename = "price")]
        _price: f64,
    }

    fn decode(payload: &'static str) -> Result<Order, Undecodable> {
        Event::from(Message::builder().payload(payload).build()).json()
    }

    #[test]
    fn what_does_not_decode_is_told_with_its_place() {
        decode(r#"{"items":[{"price":1.5}]}"#).unwrap();
        let text = decode(r#"{"items":[{"price":1},{"price":"x"}]}"#).unwrap_err().to_string();
        assert!(text.starts_with("items[1].price: invalid type: string \"x\""), "{text}");
        assert!(decode("{").unwrap_err().to_string().contains("EOF"));
        assert!(decode(r#"{"items":[]} trailing"#).unwrap_err().to_string().contains("trailing"));
        let tombstone = Event::from(Message::builder().build());
        assert!(tombstone.json::<Order>().is_err());
        assert_eq!(tombstone.json::<Option<u8>>().unwrap(), None);
    }
}
