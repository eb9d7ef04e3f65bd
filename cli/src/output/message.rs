//! One message in every format.
//!
//! JSON shape (stable): `topic`, `partition`, `position`, `id`, `timestamp`, `type`, `key`, `headers` (a list of `name` and `value`),
//! `encoding` and `payload`; `deliver_at` only where it was to be delivered later. `encoding` says what `payload` is: `json` (the value itself, numbers as they were written), `text`, `base64`
//! or `none` (a tombstone; `payload` is null). A key or header value that is not UTF-8 is an object: `{"base64": "..."}`.
//! Not here: lists and other objects (`table.rs`).

use super::{Out, visible};
use crate::{failure::Failure, time};
use base64::{Engine, engine::general_purpose::STANDARD};
use ropeway_broker::{Delivery, Headers, Message, Owned, Position};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What help says about the JSON shape of a message.
pub(crate) const SHAPE: &str = "\
JSON of a message: {topic, partition, position, id, timestamp, type, key,
    headers: [{name, value}], encoding, payload, deliver_at (only of delayed ones)}
  encoding: json (payload is the value itself), text, base64, or none (a tombstone, payload null)
  a key or header value that is not UTF-8 is {\"base64\": \"...\"}";

/// How a payload is shown in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Decode {
    /// As the JSON it is, else as text, else as base64
    #[default]
    Auto,
    /// As text where it is UTF-8, else as base64
    Text,
    /// As base64
    Base64,
}

/// A message and its place, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    topic: &'a str,
    partition: u32,
    position: Option<String>,
    id: String,
    timestamp: String,
    #[serde(rename = "type")]
    event_type: Option<&'a str>,
    key: Option<Text<'a>>,
    headers: Vec<Header<'a>>,
    encoding: &'static str,
    payload: Payload<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Header<'a> {
    name: &'a str,
    value: Option<Text<'a>>,
}

/// Bytes that are mostly text.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("base64", STANDARD.encode(self.0))]),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(Box<RawValue>),
    Text(Cow<'a, str>),
    None,
}

impl<'a> Shown<'a> {
    /// The message at its place.
    pub(crate) fn new(of: &'a Owned, delivery: &'a Delivery, decode: Decode) -> Self {
        let position = Some(delivery.position);
        Self::at(of.topic.as_str(), of.partition, position, &delivery.message, decode)
    }

    /// The message at a place; without position it is delayed.
    pub(crate) fn at(
        topic: &'a str,
        partition: u32,
        position: Option<Position>,
        message: &'a Message,
        decode: Decode,
    ) -> Self {
        let (encoding, payload) = payload(message, decode);
        Self {
            topic,
            partition,
            position: position.map(|position| position.to_string()),
            id: message.id.to_string(),
            timestamp: time::shown(message.timestamp),
            event_type: message.event_type(),
            key: message.key.as_deref().map(Text),
            headers: headers(&message.headers),
            encoding,
            payload,
            deliver_at: message.deliver_at.map(time::shown),
        }
    }
}

fn headers(headers: &Headers) -> Vec<Header<'_>> {
    headers.iter().map(|(name, value)| Header { name, value: value.map(Text) }).collect()
}

fn payload(message: &Message, decode: Decode) -> (&'static str, Payload<'_>) {
    let Some(bytes) = message.payload.as_deref() else {
        return ("none", Payload::None);
    };
    let text = std::str::from_utf8(bytes).ok().filter(|_| decode != Decode::Base64);
    let Some(text) = text else {
        return ("base64", Payload::Text(Cow::Owned(STANDARD.encode(bytes))));
    };
    if decode == Decode::Auto
        && serde_json::from_str::<&RawValue>(text).is_ok()
        && let Ok(json) = RawValue::from_string(without_blanks(text))
    {
        return ("json", Payload::Json(json));
    }
    ("text", Payload::Text(Cow::Borrowed(text)))
}

/// JSON without the blanks between its tokens: what is one line stays one line.
fn without_blanks(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|c| {
            if in_string {
                in_string = escaped || *c != '"';
                escaped = !escaped && *c == '\\';
                return true;
            }
            in_string = *c == '"';
            !c.is_ascii_whitespace()
        })
        .collect()
}

/// Bytes as one line of text for people: escaped where it is not text.
pub(crate) fn line(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => visible(text),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

impl Out {
    /// Prints a message for people: one line, and one for each header where `headers`.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn message(&mut self, of: &Owned, delivery: &Delivery, headers: bool) -> Result<(), Failure> {
        let message = &delivery.message;
        let key = message.key.as_deref().map_or_else(|| "-".to_owned(), line);
        let kind = message.event_type().map_or_else(|| "-".to_owned(), visible);
        let payload = message.payload.as_deref().map_or_else(|| "(tombstone)".to_owned(), line);
        self.line(&format!(
            "{} {}/{} {}  {key}  {kind}  {payload}",
            time::shown(message.timestamp),
            of.topic,
            of.partition,
            delivery.position
        ))?;
        if headers {
            for (name, value) in message.headers.iter() {
                let value = value.map_or_else(|| "(null)".to_owned(), line);
                self.line(&format!("    {}: {value}", visible(name)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_broker::{Epoch, MessageId, Timestamp, Topic};

    fn json(message: Message, decode: Decode) -> String {
        let of = Owned { topic: Topic::new("orders").unwrap(), partition: 3, epoch: Epoch(0) };
        let delivery = Delivery { position: Position(1, 2), message };
        serde_json::to_string(&Shown::new(&of, &delivery, decode)).unwrap()
    }

    fn message() -> ropeway_broker::MessageBuilder {
        Message::builder().id(MessageId::from_u128(7)).timestamp(Timestamp::from_millis(0))
    }

    #[test]
    fn the_shape_of_a_message_is_the_documented_one() {
        let all = message()
            .key("c-7")
            .event_type("order.created")
            .null_header("n")
            .header("b", [0xff, 0x00])
            .payload("{\n \"a b\": 12345678901234567890.10 }");
        assert_eq!(
            json(all.build(), Decode::Auto),
            r#"{"topic":"orders","partition":3,"position":"1-2","id":"00000000-0000-0000-0000-000000000007","timestamp":"1970-01-01T00:00:00.000Z","type":"order.created","key":"c-7","headers":[{"name":"ce_type","value":"order.created"},{"name":"n","value":null},{"name":"b","value":{"base64":"/wA="}}],"encoding":"json","payload":{"a b":12345678901234567890.10}}"#
        );
        for name in [
            "topic",
            "partition",
            "position",
            "id",
            "timestamp",
            "type",
            "key",
            "headers",
            "encoding",
            "payload",
            "deliver_at",
        ] {
            assert!(SHAPE.contains(name));
        }
    }

    #[test]
    fn every_payload_can_be_had_back() {
        for (payload, decode, shown) in [
            (&b"plain"[..], Decode::Auto, r#""encoding":"text","payload":"plain"}"#),
            (b"\"quoted\"", Decode::Auto, r#""encoding":"json","payload":"quoted"}"#),
            (b"1", Decode::Text, r#""encoding":"text","payload":"1"}"#),
            (b"", Decode::Auto, r#""encoding":"text","payload":""}"#),
            (b"null", Decode::Auto, r#""encoding":"json","payload":null}"#),
            (b"\xff\xfe", Decode::Text, r#""encoding":"base64","payload":"//4="}"#),
            (b"1", Decode::Base64, r#""encoding":"base64","payload":"MQ=="}"#),
        ] {
            let json = json(message().payload(payload.to_vec()).build(), decode);
            assert!(json.ends_with(shown), "{json}");
        }
        assert!(json(message().build(), Decode::Auto).ends_with(r#""encoding":"none","payload":null}"#));
        let key = json(message().key(vec![0xff]).build(), Decode::Auto);
        assert!(key.contains(r#""key":{"base64":"/w=="}"#), "{key}");
    }

    #[test]
    fn lines_of_json_stay_lines() {
        assert_eq!(without_blanks("{ \"a \\\" b\\\\\" :\n\t[1, 2] }"), "{\"a \\\" b\\\\\":[1,2]}");
        assert_eq!(line(b"a\xff\n"), "a\\xff\\n");
    }
}
