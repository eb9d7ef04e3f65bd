//! What a topic is, as its description says: read from the fields of a hash. The format is in `mod.rs`.
//!
//! Not here: who changes it (`scripts/topic_*.lua`), who keeps it in memory (`topics.rs`).

use crate::{Error, ErrorKind, Position, Result, Retention, Timestamp, Topic, TopicSpec};
use bytes::Bytes;
use std::{collections::BTreeMap, time::Duration};

/// The format of what is written today.
pub(super) const VERSION: &str = "1";
/// The most partitions of a topic.
pub(super) const MAX_PARTITIONS: u32 = 4096;

/// Nothing was ever held.
const NEVER: Timestamp = Timestamp::from_millis(0);
/// Nobody can mark a stream that somebody else made: it may always hold something.
const FOREVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// How far a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Somebody makes it.
    Making,
    /// It can be used.
    Ready,
    /// Somebody deletes it.
    Deleting,
    /// It was deleted. What remains is where its ids ended.
    Deleted,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) state: State,
    /// Which life it is; `None`: a stream that somebody else made.
    pub(super) life: Option<u64>,
    pub(super) spec: TopicSpec,
    /// Until when messages that are held may be due; 0: none was ever held.
    pub(super) held: Timestamp,
}

impl Description {
    /// A stream that somebody else made.
    pub(super) fn foreign() -> Self {
        Self { state: State::Ready, life: None, spec: TopicSpec::partitions(1), held: FOREVER }
    }

    /// The fields of the hash; `None` where there are none.
    ///
    /// # Errors
    /// `Unsupported` for a newer format, with its number; `Corrupt` for what is not in form. Both name the topic and the server.
    pub(super) fn parse(
        server: &str,
        topic: &Topic,
        fields: &BTreeMap<String, Bytes>,
    ) -> Result<Option<Self>> {
        let corrupt = |topic: &Topic, field: &str| corrupt(server, topic, field);
        if fields.is_empty() {
            return Ok(None);
        }
        let text = |name: &str| {
            let value = fields.get(name).map(|value| String::from_utf8_lossy(value));
            value.ok_or_else(|| corrupt(topic, name))
        };
        let version = text("version")?;
        if version != VERSION {
            return Err(other_version(server, topic, &version));
        }
        let number = |name: &str| text(name)?.parse::<u64>().map_err(|_| corrupt(topic, name));
        let optional = |name: &str| match text(name)?.as_ref() {
            "" => Ok(None),
            _ => number(name).map(Some),
        };
        let state = match text("state")?.as_ref() {
            "making" => State::Making,
            "ready" => State::Ready,
            "deleting" => State::Deleting,
            "deleted" => State::Deleted,
            _ => return Err(corrupt(topic, "state")),
        };
        let partitions = u32::try_from(number("partitions")?).ok();
        let partitions = partitions.filter(|count| (1..=MAX_PARTITIONS).contains(count));
        let retention = Retention {
            age: optional("age")?.map(Duration::from_millis),
            bytes: optional("bytes")?,
            compact: false,
        };
        Ok(Some(Self {
            state,
            life: Some(number("life")?),
            held: match fields.get("held") {
                None => NEVER,
                Some(_) => i64::try_from(number("held")?).map_or(FOREVER, Timestamp::from_millis),
            },
            spec: TopicSpec {
                partitions: partitions.ok_or_else(|| corrupt(topic, "partitions"))?,
                retention,
            },
        }))
    }

    /// The first position there can be.
    pub(super) fn base(&self) -> Position {
        self.life.map_or(Position(0, 0), |life| Position(life, 0))
    }
}

/// Whether this backend can keep it.
///
/// # Errors
/// `Invalid`, `Unsupported`.
pub(super) fn check(spec: &TopicSpec) -> Result<()> {
    check_partitions(spec.partitions)?;
    if spec.retention.compact {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "Redis cannot compact a topic (keep only the last message of each key); leave `compact` out",
        ));
    }
    Ok(())
}

/// # Errors
/// `Invalid`.
pub(super) fn check_partitions(partitions: u32) -> Result<()> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    let context = format!("a topic has 1 to {MAX_PARTITIONS} partitions, not {partitions}");
    Err(Error::new(ErrorKind::Invalid, context))
}

pub(super) fn other_version(server: &str, topic: &Topic, version: &str) -> Error {
    let context = format!(
        "redis {server}: topic {topic:?} is described in format {version}, and this version of Ropeway reads format {VERSION}; use the version that made it"
    );
    Error::new(ErrorKind::Unsupported, context)
}

fn corrupt(server: &str, topic: &Topic, field: &str) -> Error {
    let context = format!(
        "redis {server}: the description of topic {topic:?} has no field {field:?} in form; see it with HGETALL"
    );
    Error::new(ErrorKind::Corrupt, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(changes: &[(&str, &str)]) -> BTreeMap<String, Bytes> {
        let all = [
            ("version", "1"),
            ("state", "ready"),
            ("life", "5"),
            ("partitions", "3"),
            ("age", ""),
            ("bytes", "70"),
        ];
        let all = all.iter().chain(changes);
        all.map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect()
    }

    #[test]
    fn a_description_is_read_and_what_is_not_in_form_is_named() {
        let topic = Topic::new("orders").unwrap();
        assert_eq!(Description::parse("h:1", &topic, &BTreeMap::new()).unwrap(), None);
        let read = Description::parse("h:1", &topic, &fields(&[])).unwrap().unwrap();
        assert_eq!((read.state, read.life, read.spec.partitions), (State::Ready, Some(5), 3));
        assert_eq!((read.spec.retention.age, read.spec.retention.bytes), (None, Some(70)));
        assert_eq!(read.base(), Position(5, 0));
        for (field, bad) in
            [("partitions", "0"), ("partitions", "4097"), ("life", "x"), ("state", "odd"), ("age", "-1")]
        {
            let error = Description::parse("h:1", &topic, &fields(&[(field, bad)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{field}={bad}");
            let named = [field, "orders", "h:1"].iter().all(|word| error.context().contains(word));
            assert!(named, "{error}");
        }
        let newer = Description::parse("h:1", &topic, &fields(&[("version", "2")])).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Unsupported);
        assert!(newer.context().contains("h:1"), "{newer}");
    }
}
