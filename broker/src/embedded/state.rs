//! Keys, and the records of everything that is not a message: topics, partitions, groups, cursors.
//!
//! Keyspaces: `state` (this file's records), `schedule` (delayed messages by due time, and where an id lies), `dedup` (ids seen within
//! the window), and for the messages of each life of a topic its segments: `log-<life>` is the first, `log-<life>-<number>` are those after
//! it. Every record starts with its version.
//!
//! | Format | What is new |
//! |---|---|
//! | 1 | one keyspace for each life; a partition knows up to where it was freed |
//! | 2 | segments, and a record for each; the bytes of a partition count all that it ever took |
//! | 3 | several messages of a partition in one record of a log; those of format 2 stay as they are beside them |
//!
//! Not here: messages (`record.rs`), what lies under a key of a log (`batch.rs`).

use crate::{
    Epoch, Error, ErrorKind, Group, MessageId, Position, Result, Retention, Timestamp, Topic,
    embedded::time::{Mark, Steady},
    varint,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;

/// The format of everything this backend stores.
pub(super) const FORMAT: u64 = 3;
const VERSION: u8 = 1;
/// The most partitions of a topic.
pub(super) const MAX_PARTITIONS: u32 = 4096;

pub(super) const FORMAT_KEY: &[u8] = b"F";
pub(super) const LAST_LIFE: &[u8] = b"L";
pub(super) const LAST_EPOCH: &[u8] = b"E";
pub(super) const HEALTH: &[u8] = b"H";
pub(super) const TOPICS: &[u8] = b"T";
pub(super) const PARTITIONS: &[u8] = b"P";
pub(super) const GROUPS: &[u8] = b"G";
pub(super) const CURSORS: &[u8] = b"C";
pub(super) const SEGMENTS: &[u8] = b"S";
pub(super) const SWEEPS: &[u8] = b"X";
pub(super) const MARK: &[u8] = b"M";

/// The keyspace of a segment of a life.
pub(super) fn log_name(life: u64, segment: u64) -> String {
    if segment == 0 { format!("log-{life}") } else { format!("log-{life}-{segment}") }
}

/// Whether a keyspace holds messages of topics.
pub(super) fn is_log(name: &str) -> bool {
    name.starts_with("log-")
}

/// A key of a log: partition and offset.
pub(super) type LogKey = [u8; 12];

/// Where messages lie in their log: `offset` is that of the last one.
pub(super) fn log_key(partition: u32, offset: u64) -> LogKey {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The offset in a key of a log, which is that of its last message.
pub(super) fn log_offset(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(4..12)?.try_into().ok()?))
}

pub(super) fn topic_key(topic: &Topic) -> Bytes {
    [TOPICS, topic.as_str().as_bytes()].concat().into()
}

pub(super) fn partition_key(life: u64, partition: u32) -> Bytes {
    [PARTITIONS, &life.to_be_bytes(), &partition.to_be_bytes()].concat().into()
}

pub(super) fn parse_partition_key(key: &[u8]) -> Option<(u64, u32)> {
    let rest = key.strip_prefix(PARTITIONS)?;
    Some((
        u64::from_be_bytes(rest.get(..8)?.try_into().ok()?),
        u32::from_be_bytes(rest.get(8..)?.try_into().ok()?),
    ))
}

pub(super) fn segment_key(life: u64, segment: u64) -> Bytes {
    [SEGMENTS, &life.to_be_bytes(), &segment.to_be_bytes()].concat().into()
}

pub(super) fn parse_segment_key(key: &[u8]) -> Option<(u64, u64)> {
    let rest = key.strip_prefix(SEGMENTS)?;
    Some((
        u64::from_be_bytes(rest.get(..8)?.try_into().ok()?),
        u64::from_be_bytes(rest.get(8..)?.try_into().ok()?),
    ))
}

pub(super) fn group_key(group: &Group) -> Bytes {
    [GROUPS, group.as_str().as_bytes()].concat().into()
}

pub(super) fn cursor_key(group: &Group, topic: &Topic, partition: u32) -> Bytes {
    let (group, topic) = (group.as_str().as_bytes(), topic.as_str().as_bytes());
    [CURSORS, group, b"\0", topic, b"\0", &partition.to_be_bytes()].concat().into()
}

pub(super) fn parse_cursor_key(key: &[u8]) -> Option<(Group, Topic, u32)> {
    let rest = key.strip_prefix(CURSORS)?;
    let (names, partition) = rest.split_at_checked(rest.len().checked_sub(4)?)?;
    let (group, topic) = std::str::from_utf8(names.strip_suffix(b"\0")?).ok()?.split_once('\0')?;
    let partition = u32::from_be_bytes(partition.try_into().ok()?);
    Some((Group::new(group).ok()?, Topic::new(topic).ok()?, partition))
}

pub(super) fn sweep_key(life: u64) -> Bytes {
    [SWEEPS, &life.to_be_bytes()].concat().into()
}

// Times are stored so that their bytes sort as they do.
fn sortable(at: Timestamp) -> [u8; 8] {
    (at.as_millis() as u64 ^ (1 << 63)).to_be_bytes()
}

fn from_sortable(bytes: &[u8]) -> Option<Timestamp> {
    let bits = u64::from_be_bytes(bytes.try_into().ok()?) ^ (1 << 63);
    Some(Timestamp::from_millis(bits as i64))
}

/// What all delayed messages of a life begin with.
pub(super) fn due_prefix(life: u64) -> Vec<u8> {
    [&b"d"[..], &life.to_be_bytes()].concat()
}

/// Where a delayed message lies.
pub(super) fn due_key(life: u64, due: Timestamp, seq: u64) -> Vec<u8> {
    [&due_prefix(life)[..], &sortable(due), &seq.to_be_bytes()].concat()
}

/// Due time and number of a delayed message.
pub(super) fn parse_due_key(key: &[u8]) -> Option<(Timestamp, u64)> {
    let due = from_sortable(key.get(9..17)?)?;
    Some((due, u64::from_be_bytes(key.get(17..)?.try_into().ok()?)))
}

/// What the places of all ids of a life begin with.
pub(super) fn id_prefix(life: u64) -> Vec<u8> {
    [&b"i"[..], &life.to_be_bytes()].concat()
}

/// The place of a delayed message by its id; one id may be delayed several times.
pub(super) fn id_key(life: u64, id: MessageId, seq: u64) -> Vec<u8> {
    [&id_prefix(life)[..], &id.as_u128().to_be_bytes(), &seq.to_be_bytes()].concat()
}

/// The number of a delayed message in its [`id_key`].
pub(super) fn parse_id_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(25..)?.try_into().ok()?))
}

/// Whether an id was seen: its value is when that is forgotten.
pub(super) fn seen_key(life: u64, id: MessageId) -> Bytes {
    [&b"k"[..], &life.to_be_bytes(), &id.as_u128().to_be_bytes()].concat().into()
}

/// When ids are forgotten, in that order: its value is the [`seen_key`].
pub(super) fn forget_key(at: Steady, seen: &[u8]) -> Bytes {
    let at = Timestamp::from_millis(i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
    [&b"t"[..], &sortable(at), seen].concat().into()
}

/// When, in a [`forget_key`].
pub(super) fn parse_forget_key(key: &[u8]) -> Option<Steady> {
    let at = from_sortable(key.get(1..9)?)?;
    Some(Steady::from_millis(u64::try_from(at.as_millis()).unwrap_or(0)))
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicRecord {
    pub life: u64,
    pub partitions: u32,
    pub retention: Retention,
    /// How many messages wait for their time.
    pub delayed: u64,
    /// The number of the next delayed message.
    pub delay_seq: u64,
}

impl TopicRecord {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.number(self.life);
        out.number(self.partitions.into());
        out.optional(self.retention.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        out.optional(self.retention.bytes);
        out.number(self.delayed);
        out.number(self.delay_seq);
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        read(bytes, "topic", |from| {
            Some(Self {
                life: from.number()?,
                partitions: u32::try_from(from.number()?).ok()?,
                retention: Retention {
                    age: from.optional()?.map(Duration::from_millis),
                    bytes: from.optional()?,
                    compact: false,
                },
                delayed: from.number()?,
                delay_seq: from.number()?,
            })
        })
    }
}

/// A partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionRecord {
    /// The first offset there is or will be.
    pub low: u64,
    /// The offset of the next message.
    pub next: u64,
    /// When the last message was appended.
    pub last: Timestamp,
    /// Bytes of all messages it ever took, as they were stored.
    pub bytes: u64,
}

impl PartitionRecord {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.number(self.low);
        out.number(self.next);
        out.number(self.last.as_millis() as u64);
        out.number(self.bytes);
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        read(bytes, "partition", |from| {
            Some(Self {
                low: from.number()?,
                next: from.number()?,
                last: Timestamp::from_millis(from.number()? as i64),
                bytes: from.number()?,
            })
            .filter(|record| record.low <= record.next)
        })
    }

    /// As format 1 stored it, with up to where it was freed.
    pub(super) fn decode_format_1(bytes: &[u8]) -> Result<Self> {
        read(bytes, "partition", |from| {
            let (low, next, _freed) = (from.number()?, from.number()?, from.number()?);
            let last = Timestamp::from_millis(from.number()? as i64);
            Some(Self { low, next, last, bytes: from.number()? }).filter(|record| record.low <= record.next)
        })
    }
}

/// A segment of a life of a topic: what was so when it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentRecord {
    /// When it began.
    pub since: Steady,
    /// When the newest message before it was appended.
    pub newest: Steady,
    /// How many bytes the topic had taken.
    pub start: u64,
    /// The next offset of each partition. One that was added later begins with 0.
    pub bases: Vec<u64>,
}

impl SegmentRecord {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.number(self.since.as_millis());
        out.number(self.newest.as_millis());
        out.number(self.start);
        out.number(self.bases.len() as u64);
        for base in &self.bases {
            out.number(*base);
        }
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        read(bytes, "segment", |from| {
            let since = Steady::from_millis(from.number()?);
            let newest = Steady::from_millis(from.number()?);
            let start = from.number()?;
            let count = from.number().filter(|count| *count <= MAX_PARTITIONS.into())?;
            let bases = (0..count).map(|_| from.number()).collect::<Option<_>>()?;
            Some(Self { since, newest, start, bases })
        })
    }
}

/// What a group has of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CursorRecord {
    pub epoch: Option<Epoch>,
    pub position: Option<Position>,
    /// What is done behind the position, as `AckWindow::encode` makes it.
    pub map: Vec<u8>,
    /// The static name of its last owner; empty where it had none.
    pub owner: String,
}

impl CursorRecord {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.optional(self.epoch.map(|epoch| epoch.0));
        out.optional(self.position.map(|position| position.0));
        out.number(self.position.map_or(0, |position| position.1));
        out.bytes(self.owner.as_bytes());
        out.bytes(&self.map);
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        read(bytes, "cursor", |from| {
            let epoch = from.optional()?.map(Epoch);
            let life = from.optional()?;
            let offset = from.number()?;
            let owner = String::from_utf8(from.bytes()?.to_vec()).ok()?;
            let map = from.bytes()?.to_vec();
            Some(Self { epoch, position: life.map(|life| Position(life, offset)), map, owner })
        })
    }
}

/// A number alone: the format, the last life, the last epoch, when a group had its last member.
pub(super) fn encode_number(number: u64) -> Bytes {
    let mut out = Writer::new();
    out.number(number);
    out.finish()
}

pub(super) fn decode_number(bytes: &[u8]) -> Result<u64> {
    read(bytes, "number", |from| from.number())
}

/// What time it is.
pub(super) fn encode_mark(mark: &Mark) -> Bytes {
    let mut out = Writer::new();
    out.number(mark.steady.as_millis());
    out.number(mark.time_of_day.as_millis() as u64);
    out.bytes(&mark.origin.to_be_bytes());
    out.number(u64::try_from(mark.passed.as_millis()).unwrap_or(u64::MAX));
    out.finish()
}

pub(super) fn decode_mark(bytes: &[u8]) -> Result<Mark> {
    read(bytes, "time", |from| {
        Some(Mark {
            steady: Steady::from_millis(from.number()?),
            time_of_day: Timestamp::from_millis(from.number()? as i64),
            origin: u128::from_be_bytes(from.bytes()?.try_into().ok()?),
            passed: Duration::from_millis(from.number()?),
        })
    })
}

struct Writer(BytesMut);

impl Writer {
    fn new() -> Self {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(VERSION);
        Self(out)
    }

    fn number(&mut self, number: u64) {
        varint::put(&mut self.0, number);
    }

    fn optional(&mut self, number: Option<u64>) {
        self.0.put_u8(number.is_some().into());
        if let Some(number) = number {
            self.number(number);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.put_slice(bytes);
    }

    fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = varint::take(self.0)?;
        self.0 = rest;
        Some(number)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        match self.byte()? {
            0 => Some(None),
            1 => Some(Some(self.number()?)),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

fn read<T>(bytes: &[u8], what: &str, fields: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Result<T> {
    let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, format!("a stored {what} {why}"));
    let mut from = Fields(bytes);
    match from.byte() {
        Some(VERSION) => {}
        Some(other) => {
            return Err(corrupt(&format!("is of version {other}, which this build does not know")));
        }
        None => return Err(corrupt("is empty")),
    }
    fields(&mut from).filter(|_| from.0.is_empty()).ok_or_else(|| corrupt("is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip(a in any::<u64>(), b in any::<u64>(), c in any::<Option<u64>>(), text in "[a-z]{0,9}", map in proptest::collection::vec(any::<u8>(), 0..50), bases in proptest::collection::vec(any::<u64>(), 0..9)) {
            let topic = TopicRecord {
                life: a, partitions: b as u32, retention: Retention { age: c.map(Duration::from_millis), bytes: c, compact: false },
                delayed: a, delay_seq: b,
            };
            prop_assert_eq!(TopicRecord::decode(&topic.encode()).unwrap(), topic);
            let cursor = CursorRecord { epoch: c.map(Epoch), position: c.map(|c| Position(c, a)), map, owner: text };
            prop_assert_eq!(CursorRecord::decode(&cursor.encode()).unwrap(), cursor);
            let (low, next) = (a.min(b), a.max(b));
            let partition = PartitionRecord { low, next, last: Timestamp::from_millis(b as i64), bytes: a };
            prop_assert_eq!(PartitionRecord::decode(&partition.encode()).unwrap(), partition);
            let segment = SegmentRecord { since: Steady::from_millis(a), newest: Steady::from_millis(b), start: a, bases };
            prop_assert_eq!(SegmentRecord::decode(&segment.encode()).unwrap(), segment);
            prop_assert_eq!(decode_number(&encode_number(a)).unwrap(), a);
            let mark = Mark { steady: Steady::from_millis(a), time_of_day: Timestamp::from_millis(b as i64), origin: a.into(), passed: Duration::from_millis(b) };
            prop_assert_eq!(decode_mark(&encode_mark(&mark)).unwrap(), mark);
        }

        #[test]
        fn hostile_records_and_keys_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (TopicRecord::decode(&bytes), PartitionRecord::decode(&bytes), SegmentRecord::decode(&bytes), CursorRecord::decode(&bytes));
            let _ = (PartitionRecord::decode_format_1(&bytes), parse_segment_key(&bytes), decode_number(&bytes), decode_mark(&bytes));
            let _ = (parse_cursor_key(&bytes), parse_partition_key(&bytes), parse_due_key(&bytes), parse_id_key(&bytes), log_offset(&bytes));
        }

        #[test]
        fn due_keys_sort_by_time_and_number(a in any::<(i64, u64)>(), b in any::<(i64, u64)>()) {
            let key = |(at, seq)| due_key(7, Timestamp::from_millis(at), seq);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            prop_assert_eq!(parse_due_key(&key(a)), Some((Timestamp::from_millis(a.0), a.1)));
        }
    }

    #[test]
    fn keys_of_cursors_tell_names_apart() {
        let (group, topic) = (Group::new("g.x").unwrap(), Topic::new("t-1").unwrap());
        let key = cursor_key(&group, &topic, 0x0041_0000);
        assert_eq!(parse_cursor_key(&key), Some((group, topic, 0x0041_0000)));
        assert_eq!(parse_partition_key(&partition_key(3, 4)), Some((3, 4)));
        assert_eq!(parse_segment_key(&segment_key(3, 4)), Some((3, 4)));
    }
}
