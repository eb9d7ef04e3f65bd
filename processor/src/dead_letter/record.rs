//! The record of a failure and its wire form.
//!
//! Not here: fitting a letter into what a topic takes (`letter.rs`).

use crate::FailureClass;
use ropeway_broker::{
    Error, ErrorKind, Group, Headers, HeadersBuilder, Message, MessageId, Position, Result, Timestamp, Topic,
};
use std::str::FromStr;

/// What the headers of a failure record begin with.
pub const PREFIX: &str = "ropeway-failure-";

const VERSION: &str = "1";

/// Why a message is a dead letter, and where it was.
///
/// In headers, version 1:
///
/// | Header | Holds |
/// |---|---|
/// | `ropeway-failure-version` | `1` |
/// | `ropeway-failure-class` | one of [`FailureClass`] |
/// | `ropeway-failure-error` | what went wrong, for people |
/// | `ropeway-failure-fingerprint` | 16 hex digits; equal for failures of one class and handler whose texts differ in numbers only |
/// | `ropeway-failure-handler` | the handler; absent where none takes the event |
/// | `ropeway-failure-attempts` | how often it was tried |
/// | `ropeway-failure-first`, `-last` | milliseconds since 1970 of the first and the last failure |
/// | `ropeway-failure-node` | which process gave it up |
/// | `ropeway-failure-group` | the consumer group |
/// | `ropeway-failure-topic`, `-partition`, `-position` | where the message lies |
/// | `ropeway-failure-id`, `-timestamp` | the id and the time (milliseconds since 1970) it has there |
/// | `ropeway-failure-round` | how often it was dead-lettered: 1, or more after a redrive |
/// | `ropeway-failure-payload-bytes` | present where the payload was left out: its size |
/// | `ropeway-failure-cut` | present where something was cut: `error`, `payload`, `headers`, and names of headers, with commas |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// What kind of failure.
    pub class: FailureClass,
    /// What went wrong, for people.
    pub error: String,
    /// Equal for failures that are alike: 16 hex digits.
    pub fingerprint: String,
    /// The handler that failed; `None` where none takes the event.
    pub handler: Option<String>,
    /// How often that handler was tried; 0 where it never ran.
    pub attempts: u32,
    /// When it failed first, in this process.
    pub first: Timestamp,
    /// When it failed last.
    pub last: Timestamp,
    /// Which process gave it up.
    pub node: String,
    /// The consumer group.
    pub group: Group,
    /// The topic it came from.
    pub topic: Topic,
    /// The partition it lies in.
    pub partition: u32,
    /// The position it has there.
    pub position: Position,
    /// The id it has there.
    pub id: MessageId,
    /// The time it has there.
    pub timestamp: Timestamp,
    /// How often it was dead-lettered, this time included.
    pub round: u32,
    /// Where the payload was left out: how many bytes it has at its place.
    pub payload_left_out: Option<u64>,
    /// What was cut to make it fit: `error`, `payload`, `headers`, and names of headers.
    pub cut: Vec<String>,
}

impl FailureRecord {
    /// The record in a dead letter; `None` for a message that is none.
    ///
    /// # Errors
    /// `Invalid` that names the header that is missing or makes no sense, or the version that this build does not know.
    pub fn parse(letter: &Message) -> Result<Option<Self>> {
        let fields = Fields(&letter.headers);
        let Some(version) = fields.text("version") else { return Ok(None) };
        if version != VERSION {
            return Err(wrong("version", &format!("is {version:?}, and this build knows version {VERSION}")));
        }
        Ok(Some(Self {
            class: fields.parsed("class", FailureClass::from_name)?,
            error: fields.need("error")?.to_owned(),
            fingerprint: fields.need("fingerprint")?.to_owned(),
            handler: fields.text("handler").map(str::to_owned),
            attempts: fields.number("attempts")?,
            first: Timestamp::from_millis(fields.number("first")?),
            last: Timestamp::from_millis(fields.number("last")?),
            node: fields.need("node")?.to_owned(),
            group: fields.number("group")?,
            topic: fields.number("topic")?,
            partition: fields.number("partition")?,
            position: fields.number("position")?,
            id: fields.number("id")?,
            timestamp: Timestamp::from_millis(fields.number("timestamp")?),
            round: fields.number("round")?,
            payload_left_out: match fields.text("payload-bytes") {
                Some(_) => Some(fields.number("payload-bytes")?),
                None => None,
            },
            cut: fields
                .text("cut")
                .map(|cut| cut.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
        }))
    }

    /// The fingerprint of a failure: numbers in the text do not count, and neither does what follows its first 256 bytes.
    #[must_use]
    pub fn fingerprint_of(class: FailureClass, handler: Option<&str>, error: &str) -> String {
        let mut shape = String::with_capacity(256);
        let mut number = false;
        for c in error.chars().take(256) {
            if c.is_ascii_digit() {
                if !number {
                    shape.push('#');
                }
                number = true;
            } else {
                shape.push(c);
                number = false;
            }
        }
        let id = MessageId::derived(&[
            class.as_str().as_bytes(),
            handler.unwrap_or("").as_bytes(),
            shape.as_bytes(),
        ]);
        let high = u64::try_from(id.as_u128() >> 64).unwrap_or(0);
        format!("{high:016x}")
    }

    /// Adds the record to headers.
    pub(super) fn write(&self, headers: HeadersBuilder) -> HeadersBuilder {
        let mut out = headers;
        let mut add = |name: &str, value: &str| {
            out = std::mem::take(&mut out).add(&format!("{PREFIX}{name}"), Some(value));
        };
        add("version", VERSION);
        add("class", self.class.as_str());
        add("error", &self.error);
        add("fingerprint", &self.fingerprint);
        if let Some(handler) = &self.handler {
            add("handler", handler);
        }
        add("attempts", &self.attempts.to_string());
        add("first", &self.first.as_millis().to_string());
        add("last", &self.last.as_millis().to_string());
        add("node", &self.node);
        add("group", self.group.as_str());
        add("topic", self.topic.as_str());
        add("partition", &self.partition.to_string());
        add("position", &self.position.to_string());
        add("id", &self.id.to_string());
        add("timestamp", &self.timestamp.as_millis().to_string());
        add("round", &self.round.to_string());
        if let Some(bytes) = self.payload_left_out {
            add("payload-bytes", &bytes.to_string());
        }
        if !self.cut.is_empty() {
            add("cut", &self.cut.join(","));
        }
        out
    }
}

/// How often a message says that it was dead-lettered before; 0 where it does not, or says nonsense.
pub(super) fn rounds_before(headers: &Headers) -> u32 {
    Fields(headers).number("round").unwrap_or(0)
}

struct Fields<'a>(&'a Headers);

impl Fields<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let mut of_record =
            self.0.iter().filter_map(|(full, value)| Some((full.strip_prefix(PREFIX)?, value)));
        of_record.find(|(other, _)| *other == name).and_then(|(_, value)| std::str::from_utf8(value?).ok())
    }

    fn need(&self, name: &str) -> Result<&str> {
        self.text(name).ok_or_else(|| wrong(name, "is missing"))
    }

    fn parsed<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        let text = self.need(name)?;
        parse(text).ok_or_else(|| wrong(name, &format!("makes no sense: {text:?}")))
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T> {
        self.parsed(name, |text| text.parse().ok())
    }
}

fn wrong(name: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("the failure record of a dead letter is damaged: {PREFIX}{name} {why}"),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn example() -> FailureRecord {
        FailureRecord {
            class: FailureClass::Timeout,
            error: "took 31 s".into(),
            fingerprint: FailureRecord::fingerprint_of(FailureClass::Timeout, Some("bill"), "took 31 s"),
            handler: Some("bill".into()),
            attempts: 5,
            first: Timestamp::from_millis(1000),
            last: Timestamp::from_millis(2000),
            node: "n1".into(),
            group: Group::new("billing").unwrap(),
            topic: Topic::new("orders").unwrap(),
            partition: 3,
            position: Position(7, 42),
            id: MessageId::from_u128(9),
            timestamp: Timestamp::from_millis(-5),
            round: 2,
            payload_left_out: Some(12),
            cut: vec!["payload".into(), "error".into()],
        }
    }

    #[test]
    fn the_record_round_trips() {
        for record in
            [example(), FailureRecord { handler: None, payload_left_out: None, cut: vec![], ..example() }]
        {
            let letter =
                Message { headers: record.write(Headers::builder()).build(), ..Message::builder().build() };
            assert_eq!(FailureRecord::parse(&letter).unwrap(), Some(record));
        }
        assert_eq!(FailureRecord::parse(&Message::builder().header("a", "b").build()).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_says_where() {
        let headers = example().write(Headers::builder()).build();
        for (name, value) in
            [("version", "2"), ("class", "x"), ("position", "1"), ("topic", "../x"), ("partition", "-1")]
        {
            let name = format!("{PREFIX}{name}");
            let damaged = headers.filtered(|other| other != name).with(&name, Some(value.as_bytes()));
            let letter = Message { headers: damaged, ..Message::builder().build() };
            let text = FailureRecord::parse(&letter).unwrap_err().to_string();
            assert!(text.contains(&name), "{text}");
        }
    }

    #[test]
    fn failures_that_differ_in_numbers_are_alike() {
        let of = |text| FailureRecord::fingerprint_of(FailureClass::Error, Some("h"), text);
        assert_eq!(of("order 17 of 4"), of("order 1 of 12345"));
        assert_ne!(of("order 17"), of("orders 17"));
        assert_eq!(of("x").len(), 16);
        assert_ne!(of("x"), FailureRecord::fingerprint_of(FailureClass::Panic, Some("h"), "x"));
    }
}
