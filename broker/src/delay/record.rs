//! What stands in the internal topic of delayed messages: messages that wait, and what was decided about them.
//!
//! A record is the payload of a message of its own: `version kind` and the fields of the kind, numbers as varints (LEB128), fixed ones big endian.
//! Not here: what the records mean together (`shelf.rs`).

use crate::{
    Durability, Epoch, Error, ErrorKind, Headers, Message, MessageId, Position, Result, Timestamp, varint,
};
use bytes::{Buf, BufMut, Bytes};

const VERSION: u8 = 1;
/// What a record needs at the most beyond key, headers and payload of the message in it, in bytes.
pub(super) const OVERHEAD: usize = 128;
/// The most places that one record names.
pub(super) const MOST_PLACES: usize = 1024;

const MESSAGE: u8 = 1;
const CANCEL: u8 = 2;
const TAKE: u8 = 3;
const CLOSE: u8 = 4;
const DONE: u8 = 5;
const ANSWER: u8 = 6;

const COPY: u8 = 1;
const SEALED: u8 = 2;
const PARTITION: u8 = 4;
const KEY: u8 = 8;
const PAYLOAD: u8 = 16;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A message waits here.
    Message(Held),
    /// Somebody wants a message back. The token ties the answer to the question.
    Cancel { token: u128, id: MessageId },
    /// A new owner begins: what owners before it write behind this counts for nothing.
    Take { epoch: Epoch },
    /// These are moved from now on, and cannot be taken back any more.
    Close { epoch: Epoch, of: Vec<Position> },
    /// These are moved, or taken back.
    Done { of: Vec<Position> },
    /// What became of a [`Self::Cancel`].
    Answer { token: u128, cancelled: bool },
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Written again further behind in the log, by the owner of that epoch; it lay there before.
    pub(super) copy: Option<(Epoch, Position)>,
    /// It cannot be taken back: it was put away among what is far from due.
    pub(super) sealed: bool,
    /// The partition that the publisher chose.
    pub(super) partition: Option<u32>,
    /// What it must survive at the least.
    pub(super) at_least: Option<Durability>,
    /// The message as it was published.
    pub(super) message: Message,
}

impl Held {
    /// When it is due.
    pub(super) fn due(&self) -> Timestamp {
        self.message.deliver_at.unwrap_or(self.message.timestamp)
    }

    /// What it takes in memory, about, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.message.size() + OVERHEAD
    }
}

/// What cannot be read.
#[derive(Debug)]
pub(super) enum Strange {
    /// A newer version wrote it: it is left for who knows it.
    Newer,
    /// It is no record.
    Damaged(Error),
}

impl Record {
    /// The message that carries it.
    pub(super) fn pack(&self, now: Timestamp) -> Message {
        Message::builder().timestamp(now).payload(self.encode()).build()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(match self {
            Self::Message(held) => held.message.size() + OVERHEAD,
            _ => OVERHEAD,
        });
        out.put_u8(VERSION);
        match self {
            Self::Message(held) => {
                out.put_u8(MESSAGE);
                put_held(&mut out, held);
            }
            Self::Cancel { token, id } => {
                out.put_u8(CANCEL);
                out.put_u128(*token);
                out.put_u128(id.as_u128());
            }
            Self::Take { epoch } => {
                out.put_u8(TAKE);
                varint::put(&mut out, epoch.0);
            }
            Self::Close { epoch, of } => {
                out.put_u8(CLOSE);
                varint::put(&mut out, epoch.0);
                put_places(&mut out, of);
            }
            Self::Done { of } => {
                out.put_u8(DONE);
                put_places(&mut out, of);
            }
            Self::Answer { token, cancelled } => {
                out.put_u8(ANSWER);
                out.put_u128(*token);
                out.put_u8(u8::from(*cancelled));
            }
        }
        out
    }

    /// The record that a message carries.
    pub(super) fn unpack(carrier: &Message) -> Result<Self, Strange> {
        let damaged = || {
            Strange::Damaged(Error::new(
                ErrorKind::Corrupt,
                "a record of the topic of delayed messages is damaged",
            ))
        };
        // One copy of its own: what was handed over may share a large block with others.
        let mut rest = Bytes::copy_from_slice(carrier.payload.as_deref().unwrap_or_default());
        let version = rest.try_get_u8().map_err(|_| damaged())?;
        if version != VERSION {
            return Err(if version > VERSION { Strange::Newer } else { damaged() });
        }
        let kind = rest.try_get_u8().map_err(|_| damaged())?;
        if kind > ANSWER {
            return Err(Strange::Newer);
        }
        take(kind, &mut rest).ok_or_else(damaged)
    }
}

fn take(kind: u8, rest: &mut Bytes) -> Option<Record> {
    let record = match kind {
        MESSAGE => return take_held(rest).map(Record::Message),
        CANCEL => Record::Cancel {
            token: rest.try_get_u128().ok()?,
            id: MessageId::from_u128(rest.try_get_u128().ok()?),
        },
        TAKE => Record::Take { epoch: Epoch(take_number(rest)?) },
        CLOSE => Record::Close { epoch: Epoch(take_number(rest)?), of: take_places(rest)? },
        DONE => Record::Done { of: take_places(rest)? },
        ANSWER => {
            Record::Answer { token: rest.try_get_u128().ok()?, cancelled: rest.try_get_u8().ok()? == 1 }
        }
        _ => return None,
    };
    rest.is_empty().then_some(record)
}

fn take_number(rest: &mut Bytes) -> Option<u64> {
    let (value, after) = varint::take(rest)?;
    let used = rest.len() - after.len();
    rest.advance(used);
    Some(value)
}

fn take_bytes(rest: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(take_number(rest)?).ok()?;
    (len <= rest.len()).then(|| rest.split_to(len))
}

/// Places in order, each by its distance from the one before.
fn put_places(out: &mut Vec<u8>, of: &[Position]) {
    varint::put(out, of.len() as u64);
    let mut last = Position(0, 0);
    for at in of {
        varint::put(out, at.0 ^ last.0);
        let from = if at.0 == last.0 { last.1 } else { 0 };
        varint::put(out, at.1.wrapping_sub(from));
        last = *at;
    }
}

fn take_places(rest: &mut Bytes) -> Option<Vec<Position>> {
    let count = usize::try_from(take_number(rest)?).ok().filter(|count| *count <= MOST_PLACES)?;
    let mut last = Position(0, 0);
    let mut of = Vec::with_capacity(count);
    for _ in 0..count {
        let a = take_number(rest)? ^ last.0;
        let from = if a == last.0 { last.1 } else { 0 };
        last = Position(a, take_number(rest)?.wrapping_add(from));
        of.push(last);
    }
    Some(of)
}

fn put_held(out: &mut Vec<u8>, held: &Held) {
    let message = &held.message;
    let flag = |bit: u8, on: bool| if on { bit } else { 0 };
    out.put_u8(
        flag(COPY, held.copy.is_some())
            | flag(SEALED, held.sealed)
            | flag(PARTITION, held.partition.is_some())
            | flag(KEY, message.key.is_some())
            | flag(PAYLOAD, message.payload.is_some()),
    );
    if let Some((epoch, from)) = held.copy {
        varint::put(out, epoch.0);
        varint::put(out, from.0);
        varint::put(out, from.1);
    }
    if let Some(partition) = held.partition {
        out.put_u32(partition);
    }
    out.put_u8(match held.at_least {
        None => 0,
        Some(Durability::Volatile) => 1,
        Some(Durability::ProcessCrash) => 2,
        Some(Durability::PowerLoss) => 3,
        Some(Durability::Replicated) => 4,
    });
    out.put_u128(message.id.as_u128());
    out.put_i64(message.timestamp.as_millis());
    out.put_i64(held.due().as_millis());
    if let Some(key) = &message.key {
        varint::put(out, key.len() as u64);
        out.put_slice(key);
    }
    varint::put(out, message.headers.packed().len() as u64);
    out.put_slice(message.headers.packed());
    out.put_slice(message.payload.as_deref().unwrap_or_default());
}

fn take_held(rest: &mut Bytes) -> Option<Held> {
    let flags = rest.try_get_u8().ok()?;
    let has = |bit: u8| flags & bit != 0;
    let copy = if has(COPY) {
        Some((Epoch(take_number(rest)?), Position(take_number(rest)?, take_number(rest)?)))
    } else {
        None
    };
    let partition = if has(PARTITION) { Some(rest.try_get_u32().ok()?) } else { None };
    let at_least = match rest.try_get_u8().ok()? {
        0 => None,
        1 => Some(Durability::Volatile),
        2 => Some(Durability::ProcessCrash),
        3 => Some(Durability::PowerLoss),
        4 => Some(Durability::Replicated),
        _ => return None,
    };
    let id = MessageId::from_u128(rest.try_get_u128().ok()?);
    let timestamp = Timestamp::from_millis(rest.try_get_i64().ok()?);
    let due = Timestamp::from_millis(rest.try_get_i64().ok()?);
    let key = if has(KEY) { Some(take_bytes(rest)?) } else { None };
    let headers = Headers::from_packed(take_bytes(rest)?).ok()?;
    let payload = has(PAYLOAD).then(|| std::mem::take(rest));
    let message = Message { id, key, headers, payload, timestamp, deliver_at: Some(due) };
    rest.is_empty().then_some(Held { copy, sealed: has(SEALED), partition, at_least, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = Position> {
        (prop_oneof![Just(7), any::<u64>()], any::<u64>()).prop_map(|(a, b)| Position(a, b))
    }

    fn places() -> impl Strategy<Value = Vec<Position>> {
        proptest::collection::btree_set(place(), 0..40).prop_map(|set| set.into_iter().collect())
    }

    prop_compose! {
        fn held()(
            copy in proptest::option::of((any::<u64>(), place())),
            sealed in any::<bool>(),
            partition in proptest::option::of(any::<u32>()),
            at_least in proptest::option::of(prop_oneof![Just(Durability::Volatile), Just(Durability::Replicated)]),
            id in any::<u128>(), at in any::<i64>(), due in any::<i64>(),
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
            headers in proptest::collection::vec(("[a-z]{0,3}", proptest::option::of(any::<[u8; 2]>())), 0..3),
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
        ) -> Held {
            let headers = headers.iter().fold(Headers::builder(), |out, (name, value)| out.add(name, *value));
            let message = Message {
                id: MessageId::from_u128(id),
                key: key.map(Bytes::from),
                headers: headers.build(),
                payload: payload.map(Bytes::from),
                timestamp: Timestamp::from_millis(at),
                deliver_at: Some(Timestamp::from_millis(due)),
            };
            Held { copy: copy.map(|(epoch, at)| (Epoch(epoch), at)), sealed, partition, at_least, message }
        }
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            held().prop_map(Record::Message),
            (any::<u128>(), any::<u128>())
                .prop_map(|(token, id)| Record::Cancel { token, id: MessageId::from_u128(id) }),
            any::<u64>().prop_map(|epoch| Record::Take { epoch: Epoch(epoch) }),
            (any::<u64>(), places()).prop_map(|(epoch, of)| Record::Close { epoch: Epoch(epoch), of }),
            places().prop_map(|of| Record::Done { of }),
            (any::<u128>(), any::<bool>()).prop_map(|(token, cancelled)| Record::Answer { token, cancelled }),
        ]
    }

    proptest! {
        #[test]
        fn every_record_round_trips_within_its_overhead(record in record()) {
            let carrier = record.pack(Timestamp::from_millis(5));
            if let Record::Message(held) = &record {
                prop_assert!(carrier.size() <= held.message.size() + OVERHEAD);
            }
            prop_assert_eq!(Record::unpack(&carrier).unwrap(), record);
        }

        #[test]
        fn nonsense_is_refused_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            _ = Record::unpack(&Message::builder().payload(bytes.clone()).build());
            let known = [&[VERSION, bytes.first().map_or(0, |b| b % 7)], &bytes[..]].concat();
            _ = Record::unpack(&Message::builder().payload(known).build());
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_told_from_damage() {
        let of = |bytes: &[u8]| Record::unpack(&Message::builder().payload(bytes.to_vec()).build());
        assert!(matches!(of(&[VERSION + 1, 1]), Err(Strange::Newer)));
        assert!(matches!(of(&[VERSION, ANSWER + 1]), Err(Strange::Newer)));
        assert!(matches!(of(&[VERSION, CANCEL, 1]), Err(Strange::Damaged(_))));
        assert!(matches!(Record::unpack(&Message::builder().build()), Err(Strange::Damaged(_))));
        // Many places are claimed, and none is there.
        let mut claims = vec![VERSION, DONE];
        varint::put(&mut claims, u64::MAX);
        assert!(matches!(of(&claims), Err(Strange::Damaged(_))));
    }
}
