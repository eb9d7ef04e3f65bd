//! How a message lies in an entry of a stream, and how an entry is read.
//!
//! An entry of ours, for clients that are not ours (`redis-cli XRANGE ropeway:{orders/0}:log - +`); fields in this order:
//!
//! | Field | Holds | Left out |
//! |---|---|---|
//! | `id` | the 16 bytes of the message's UUID | never by us |
//! | `ts` | when it was made: milliseconds since 1970, as text | never by us |
//! | `due` | before when it was not to be delivered: milliseconds since 1970, as text | where it was not delayed |
//! | `key` | the key, as it is | where there is none |
//! | `headers` | the headers, packed as in `headers.rs` | where there are none |
//! | `payload` | the payload, as it is | for a tombstone |
//!
//! Whoever writes to a topic of ours without our code may leave out all of them (`XADD ropeway:{orders/0}:log * payload hello`): the id is then made of
//! the place, the time is that of the entry. A field of another name, or one that is not in form, makes the entry unreadable.
//!
//! A stream that somebody else made is read as it comes: `key` and `payload` are those where they are there, every other field is a
//! header; an entry of one field is all payload. What we published to it is read as ours. Not here: which position an entry has (its id), and where streams lie (`keys.rs`).

use crate::{Error, ErrorKind, Headers, Message, MessageId, Position, Result, Timestamp, Topic};
use bytes::Bytes;

pub(super) const ID: &[u8] = b"id";
pub(super) const TS: &[u8] = b"ts";
pub(super) const DUE: &[u8] = b"due";
pub(super) const KEY: &[u8] = b"key";
pub(super) const HEADERS: &[u8] = b"headers";
pub(super) const PAYLOAD: &[u8] = b"payload";

/// A field of an entry: its name and its value.
pub(super) type Field = (Bytes, Bytes);

/// Hands every name and value of a message to `take`, in the order in which they lie in an entry.
pub(super) fn fields(message: &Message, mut take: impl FnMut(&[u8])) {
    let mut put = |name: &[u8], value: &[u8]| {
        take(name);
        take(value);
    };
    put(ID, &message.id.as_u128().to_be_bytes());
    put(TS, message.timestamp.as_millis().to_string().as_bytes());
    if let Some(due) = message.deliver_at {
        put(DUE, due.as_millis().to_string().as_bytes());
    }
    if let Some(key) = &message.key {
        put(KEY, key);
    }
    if !message.headers.is_empty() {
        put(HEADERS, message.headers.packed());
    }
    if let Some(payload) = &message.payload {
        put(PAYLOAD, payload);
    }
}

/// The same in one piece, each behind its length in 4 bytes: for scripts.
pub(super) fn packed(message: &Message) -> Vec<u8> {
    let mut packed = Vec::with_capacity(message.size() + 128);
    fields(message, |word| {
        packed.extend_from_slice(&u32::try_from(word.len()).unwrap_or(u32::MAX).to_be_bytes());
        packed.extend_from_slice(word);
    });
    packed
}

/// How many names and values [`fields`] hands over.
pub(super) fn field_count(message: &Message) -> usize {
    let there = [
        message.deliver_at.is_some(),
        message.key.is_some(),
        !message.headers.is_empty(),
        message.payload.is_some(),
    ];
    2 * (2 + there.into_iter().filter(|there| *there).count())
}

/// An entry of a topic of ours.
///
/// # Errors
/// `Corrupt` with what makes it unreadable.
pub(super) fn read(topic: &Topic, partition: u32, at: Position, fields: &[Field]) -> Result<Message> {
    let mut parts = Parts::default();
    for (name, value) in fields {
        let place = match &name[..] {
            b"id" => &mut parts.id,
            b"ts" => &mut parts.ts,
            b"due" => &mut parts.due,
            b"key" => &mut parts.key,
            b"headers" => &mut parts.headers,
            b"payload" => &mut parts.payload,
            other => {
                let other = String::from_utf8_lossy(&other[..other.len().min(40)]).into_owned();
                return Err(unreadable(format!("it has the field {other:?}, which no message has")));
            }
        };
        if place.replace(value.clone()).is_some() {
            return Err(unreadable(format!("it has the field {:?} twice", String::from_utf8_lossy(name))));
        }
    }
    parts.message(topic, partition, at)
}

/// An entry of a stream that somebody else made: whatever it is, it is a message.
pub(super) fn read_foreign(topic: &Topic, at: Position, fields: &[Field]) -> Message {
    if let [(id, _), (ts, _), ..] = fields
        && (&id[..], &ts[..]) == (ID, TS)
        && let Ok(ours) = read(topic, 0, at, fields)
    {
        return ours;
    }
    let (mut key, mut payload, mut headers) = (None, None, Headers::builder());
    for (name, value) in fields {
        match &name[..] {
            _ if fields.len() == 1 => payload = Some(value.clone()),
            b"key" if key.is_none() => key = Some(value.clone()),
            b"payload" if payload.is_none() => payload = Some(value.clone()),
            other => headers = headers.add(&String::from_utf8_lossy(other), Some(value)),
        }
    }
    Message {
        id: id_of_place(topic, 0, at),
        key,
        headers: headers.build(),
        payload: Some(payload.unwrap_or_default()),
        timestamp: time_of(at),
        deliver_at: None,
    }
}

/// The bytes of an entry that cannot be read: the value where it has one field, else all fields packed as headers are.
pub(super) fn raw(fields: &[Field]) -> Bytes {
    if let [(_, value)] = fields {
        return value.clone();
    }
    let mut packed = Headers::builder();
    for (name, value) in fields {
        packed = packed.add(&String::from_utf8_lossy(name), Some(value));
    }
    packed.build().packed().clone()
}

fn unreadable(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, why)
}

fn id_of_place(topic: &Topic, partition: u32, at: Position) -> MessageId {
    MessageId::derived(&[
        b"redis",
        topic.as_str().as_bytes(),
        &partition.to_be_bytes(),
        at.to_string().as_bytes(),
    ])
}

/// When the server took the entry.
pub(super) fn time_of(at: Position) -> Timestamp {
    Timestamp::from_millis(i64::try_from(at.0).unwrap_or(i64::MAX))
}

#[derive(Default)]
struct Parts {
    id: Option<Bytes>,
    ts: Option<Bytes>,
    due: Option<Bytes>,
    key: Option<Bytes>,
    headers: Option<Bytes>,
    payload: Option<Bytes>,
}

impl Parts {
    fn message(self, topic: &Topic, partition: u32, at: Position) -> Result<Message> {
        let id = match self.id {
            None => id_of_place(topic, partition, at),
            Some(bytes) => <[u8; 16]>::try_from(&bytes[..])
                .map(|bits| MessageId::from_u128(u128::from_be_bytes(bits)))
                .map_err(|_| {
                    unreadable(format!("its field \"id\" has {} bytes instead of 16", bytes.len()))
                })?,
        };
        let timestamp = millis("ts", self.ts.as_ref())?.unwrap_or_else(|| time_of(at));
        let deliver_at = millis("due", self.due.as_ref())?;
        let headers = Headers::from_packed(self.headers.unwrap_or_default())
            .map_err(|error| unreadable(format!("its field \"headers\": {}", error.context())))?;
        Ok(Message { id, key: self.key, headers, payload: self.payload, timestamp, deliver_at })
    }
}

/// A time in the field of that name.
fn millis(name: &str, text: Option<&Bytes>) -> Result<Option<Timestamp>> {
    let Some(text) = text else { return Ok(None) };
    let millis =
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).map(Timestamp::from_millis);
    millis.map(Some).ok_or_else(|| unreadable(format!("its field {name:?} is not a number of milliseconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn entry(message: &Message) -> Vec<Field> {
        let mut flat = Vec::new();
        fields(message, |bytes| flat.push(Bytes::copy_from_slice(bytes)));
        assert_eq!(flat.len(), field_count(message));
        flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    fn field(name: &str, value: &str) -> Field {
        (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    }

    #[test]
    fn a_message_is_read_as_it_was_written_with_and_without_each_part() {
        for parts in 0..16u8 {
            let mut builder = Message::builder().timestamp(Timestamp::from_millis(1_234));
            if parts & 1 != 0 {
                builder = builder.key(vec![0, 255, 10, 13]);
            }
            if parts & 2 != 0 {
                builder = builder.header("a", "").null_header("a").header("größe", [0u8, 255]);
            }
            if parts & 4 != 0 {
                builder = builder.payload("");
            }
            if parts & 8 != 0 {
                builder = builder.deliver_at(Timestamp::from_millis(5_678));
            }
            let message = builder.build();
            assert_eq!(read(&orders(), 3, Position(9, 1), &entry(&message)).unwrap(), message, "{parts}");
        }
    }

    #[test]
    fn an_entry_of_a_client_that_is_not_ours_gets_an_id_and_a_time_from_its_place() {
        let fields = [field("payload", "hello")];
        let read = |at| read(&orders(), 0, at, &fields).unwrap();
        let message = read(Position(5000, 1));
        assert_eq!((message.payload.as_deref(), message.timestamp.as_millis()), (Some(&b"hello"[..]), 5000));
        assert_eq!(message.id, read(Position(5000, 1)).id);
        assert_ne!(message.id, read(Position(5000, 2)).id);
    }

    #[test]
    fn what_is_not_in_form_is_unreadable_and_says_why() {
        for (fields, why) in [
            (vec![field("raw", "x")], "raw"),
            (vec![field("id", "short")], "16"),
            (vec![field("ts", "soon")], "ts"),
            (vec![field("headers", "\u{7f}")], "headers"),
            (vec![field("payload", "a"), field("payload", "b")], "twice"),
        ] {
            let error = read(&orders(), 0, Position(1, 1), &fields).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.context().contains(why), "{error}");
        }
    }

    #[test]
    fn a_stream_of_somebody_else_is_read_as_it_comes() {
        let one = read_foreign(&orders(), Position(1, 1), &[field("body", "x")]);
        assert_eq!((one.payload.as_deref(), one.headers.count()), (Some(&b"x"[..]), 0));
        let several = [field("user", "7"), field("key", "k"), field("payload", "p"), field("user", "8")];
        let message = read_foreign(&orders(), Position(1, 1), &several);
        assert_eq!((message.key.as_deref(), message.payload.as_deref()), (Some(&b"k"[..]), Some(&b"p"[..])));
        let headers: Vec<_> = message.headers.iter().collect();
        assert_eq!(headers, [("user", Some(&b"7"[..])), ("user", Some(&b"8"[..]))]);
        assert_eq!(raw(&[field("raw", "x")]), "x");
        assert_eq!(raw(&several[..2]).len(), 4 + "user7keyk".len());
    }
}
