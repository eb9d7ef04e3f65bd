//! Messages that were printed whole, as `sub -o ndjson` and `data export` do, read back.
//!
//! Not here: the shape itself (`output/message.rs`).

use super::records::place;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ropeway_broker::{Headers, Message, Timestamp, Topic};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A message with the topic and the partition that it was in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exported {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) message: Message,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    key: Option<Text>,
    headers: Vec<Header>,
    #[serde(borrow)]
    encoding: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
    deliver_at: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: Option<Text>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Base64 { base64: String },
}

impl Text {
    fn bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Plain(text) => Ok(text.into()),
            Self::Base64 { base64 } => decoded(&base64),
        }
    }
}

fn decoded(base64: &str) -> Result<Bytes, String> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|error| format!("not base64: {error}"))
}

impl Exported {
    /// Out of a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let line: Line<'_> = serde_json::from_slice(text)
            .map_err(|error| format!("not a message as `data export` prints it: {}", place(&error)))?;
        let told = |error: ropeway_broker::Error| error.to_string();
        // Moments are absolute: no clock is needed.
        let moment = |text: &str| crate::time::parse(text, Timestamp::from_millis(0));
        let mut headers = Headers::builder();
        for header in line.headers {
            headers = headers.add(&header.name, header.value.map(Text::bytes).transpose()?);
        }
        let message = Message {
            id: line.id.parse().map_err(told)?,
            key: line.key.map(Text::bytes).transpose()?,
            headers: headers.build(),
            payload: payload(&line.encoding, line.payload)?,
            timestamp: moment(&line.timestamp)?,
            deliver_at: line.deliver_at.as_deref().map(moment).transpose()?,
        };
        Ok(Self { topic: Topic::new(line.topic).map_err(told)?, partition: line.partition, message })
    }
}

fn payload(encoding: &str, value: &RawValue) -> Result<Option<Bytes>, String> {
    let text = || {
        serde_json::from_str::<String>(value.get())
            .map_err(|_| format!("the payload must be a string where the encoding is {encoding}"))
    };
    match encoding {
        "none" => Ok(None),
        "json" => Ok(Some(value.get().to_owned().into())),
        "text" => Ok(Some(text()?.into())),
        "base64" => decoded(&text()?).map(Some),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(format!("there is no encoding {other:?}; it is json, text, base64 or none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::message::{Decode, Shown};
    use ropeway_broker::{MessageId, Position};

    #[test]
    fn what_is_printed_is_read_back_byte_for_byte() {
        let with = |key: Option<&[u8]>, payload: Option<&[u8]>| {
            let mut message = Message::builder()
                .id(MessageId::from_u128(7))
                .timestamp(Timestamp::from_millis(253_402_300_799_999))
                .header("ce_type", "a")
                .null_header("n")
                .header("n", b"\xff\x00")
                .header("e", "")
                .build();
            message.key = key.map(Bytes::copy_from_slice);
            message.payload = payload.map(Bytes::copy_from_slice);
            message
        };
        let all = [
            with(None, None),
            with(Some(b""), Some(b"")),
            with(Some(b"\xff\xfe"), Some(b"\x00\xff")),
            with(Some("k\u{e9}\n".as_bytes()), Some(b"{ \"a\" : [1,\r\n 2] }\n")),
            with(Some(b"\"\\"), Some(b"null")),
            Message { deliver_at: Some(Timestamp::from_millis(5)), ..with(None, Some(b"later")) },
        ];
        for message in all {
            for position in [Some(Position(3, 4)), None] {
                let shown = Shown::at("orders", 5, position, &message, Decode::Text);
                let line = serde_json::to_vec(&shown).unwrap();
                let topic = Topic::new("orders").unwrap();
                let expected = Exported { topic, partition: 5, message: message.clone() };
                assert_eq!(Exported::parse(&line), Ok(expected), "{}", String::from_utf8_lossy(&line));
            }
        }
    }

    #[test]
    fn json_as_sub_prints_it_is_read_too() {
        let message = Message::builder().payload("[1, null]").build();
        let shown = serde_json::to_vec(&Shown::at("t", 0, None, &message, Decode::Auto)).unwrap();
        assert_eq!(Exported::parse(&shown).unwrap().message.payload.as_deref(), Some(&b"[1,null]"[..]));
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason() {
        let good = r#"{"topic":"t","partition":0,"id":"00000000-0000-0000-0000-000000000007","timestamp":"0","key":null,"headers":[],"encoding":"text","payload":"x"}"#;
        assert!(Exported::parse(good.as_bytes()).is_ok());
        for (from, to, why) in [
            ("\"t\"", "\"a/b\"", "contains"),
            ("\"text\"", "\"xml\"", "no encoding"),
            ("\"text\"", "\"base64\"", "not base64"),
            ("\"x\"", "5", "must be a string"),
            ("\"payload\"", "\"pay\"", "missing field `payload`"),
            ("0000-000000000007", "", "not a message id"),
            ("\"0\"", "\"soon\"", "is no moment"),
            ("null", "{\"base64\":\"?\"}", "not base64"),
        ] {
            let error = Exported::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(Exported::parse(b"{}").unwrap_err().contains("data export"));
    }
}
