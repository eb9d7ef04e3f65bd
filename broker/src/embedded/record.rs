//! A message as it is stored.
//!
//! `version, flags, append time (8), id (16), timestamp (8), [deliver at (8)], [varint length, key], [varint length, headers], payload`, all
//! numbers big-endian. No checksum: the store below has its own for every block and commit. What was stored by another
//! version, or is damaged, is an error, never a panic.
//! Not here: several of them in one record of a log (`batch.rs`), keys and the records of state (`state.rs`).

use crate::{Error, ErrorKind, Headers, Message, MessageId, Timestamp, varint};
use bytes::{Buf, BufMut, Bytes};
use std::ops::Range;

const VERSION: u8 = 1;
const KEY: u8 = 1;
const HEADERS: u8 = 2;
const PAYLOAD: u8 = 4;
const DELIVER_AT: u8 = 8;
/// Where the append time lies.
const APPENDED: Range<usize> = 2..10;
/// Version, flags, append time, id and timestamp.
const FIXED: usize = 34;

/// Writes a message in its stored form behind what is there.
pub(super) fn encode(message: &Message, appended: Timestamp, out: &mut Vec<u8>) {
    let flag = |flag: u8, set: bool| if set { flag } else { 0 };
    let flags = flag(KEY, message.key.is_some())
        | flag(HEADERS, !message.headers.is_empty())
        | flag(PAYLOAD, message.payload.is_some())
        | flag(DELIVER_AT, message.deliver_at.is_some());
    let mut fixed = [0; FIXED];
    let mut rest = &mut fixed[..];
    rest.put_u8(VERSION);
    rest.put_u8(flags);
    rest.put_i64(appended.as_millis());
    rest.put_u128(message.id.as_u128());
    rest.put_i64(message.timestamp.as_millis());
    out.put_slice(&fixed);
    if let Some(at) = message.deliver_at {
        out.put_i64(at.as_millis());
    }
    if let Some(key) = &message.key {
        varint::put(out, key.len() as u64);
        out.put_slice(key);
    }
    if !message.headers.is_empty() {
        varint::put(out, message.headers.packed().len() as u64);
        out.put_slice(message.headers.packed());
    }
    if let Some(payload) = &message.payload {
        out.put_slice(payload);
    }
}

/// Writes a message that was encoded before, with another append time.
pub(super) fn restamp(record: &[u8], appended: Timestamp, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_slice(record);
    if let Some(at) = out[start..].get_mut(APPENDED) {
        at.copy_from_slice(&appended.as_millis().to_be_bytes());
    }
}

/// A message that goes to that partition later.
pub(super) fn delayed(message: &Message, partition: u32) -> Bytes {
    let mut out = partition.to_be_bytes().to_vec();
    encode(message, Timestamp::default(), &mut out);
    out.into()
}

/// When the log took the message; `None` where that cannot be read.
pub(super) fn appended(record: &[u8]) -> Option<Timestamp> {
    let at = record.get(APPENDED).filter(|_| record[0] == VERSION)?;
    Some(Timestamp::from_millis(i64::from_be_bytes(at.try_into().ok()?)))
}

/// The message, whose parts share the bytes of the record; `None` where it is none, of which [`unreadable`] tells more.
// A message is made where it comes to lie: to copy it twice costs a fifth of reading it.
#[inline(always)]
pub(super) fn decode(record: Bytes) -> Option<Message> {
    let mut rest = record;
    let [version, flags, _, _, _, _, _, _, _, _, id @ .., t0, t1, t2, t3, t4, t5, t6, t7] =
        *rest.first_chunk::<FIXED>()?;
    if version != VERSION || flags & !(KEY | HEADERS | PAYLOAD | DELIVER_AT) != 0 {
        return None;
    }
    let has = |flag: u8| flags & flag != 0;
    rest.advance(FIXED);
    let deliver_at =
        if has(DELIVER_AT) { Some(Timestamp::from_millis(rest.try_get_i64().ok()?)) } else { None };
    let key = if has(KEY) {
        let len = length(&mut rest)?;
        Some(rest.split_to(len))
    } else {
        None
    };
    let headers = if has(HEADERS) {
        let len = length(&mut rest)?;
        Headers::from_packed(rest.split_to(len)).ok()?
    } else {
        Headers::new()
    };
    if !has(PAYLOAD) && !rest.is_empty() {
        return None;
    }
    Some(Message {
        id: MessageId::from_u128(u128::from_be_bytes(id)),
        key,
        headers,
        payload: has(PAYLOAD).then_some(rest),
        timestamp: Timestamp::from_millis(i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7])),
        deliver_at,
    })
}

/// Takes the length of the part that lies behind it, and there as a whole.
#[inline]
fn length(rest: &mut Bytes) -> Option<usize> {
    let (len, behind) = varint::take(rest)?;
    let (len, behind) = (usize::try_from(len).ok()?, behind.len());
    rest.advance(rest.len() - behind);
    (len <= behind).then_some(len)
}

/// A record that is no message.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) raw: Bytes,
    pub(super) why: Error,
}

/// What a record that cannot be decoded is taken for.
#[cold]
pub(super) fn unreadable(raw: Bytes) -> Unreadable {
    let unknown = raw.first().is_some_and(|version| *version != VERSION);
    let what = if unknown { "is of a format that this build does not know" } else { "is cut or damaged" };
    Unreadable { raw, why: Error::new(ErrorKind::Corrupt, format!("the record {what}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_message()(
            id in any::<u128>(), key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            headers in proptest::collection::vec((".{0,8}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20))), 0..5),
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            timestamp in any::<i64>(), deliver_at in proptest::option::of(any::<i64>()),
        ) -> Message {
            let headers = headers.iter().fold(Headers::builder(), |b, (n, v)| b.add(n, v.as_deref())).build();
            Message {
                id: MessageId::from_u128(id), key: key.map(Bytes::from), headers, payload: payload.map(Bytes::from),
                timestamp: Timestamp::from_millis(timestamp), deliver_at: deliver_at.map(Timestamp::from_millis),
            }
        }
    }

    proptest! {
        #[test]
        fn messages_round_trip_and_show_when_they_were_appended(
            message in any_message(), at in any::<i64>(), again in any::<i64>(), prefix in proptest::collection::vec(any::<u8>(), 0..13),
        ) {
            let (at, again) = (Timestamp::from_millis(at), Timestamp::from_millis(again));
            let behind = |write: &dyn Fn(&mut Vec<u8>)| {
                let mut out = prefix.clone();
                write(&mut out);
                prop_assert_eq!(&out[..prefix.len()], &prefix[..]);
                Ok(Bytes::from(out.split_off(prefix.len())))
            };
            let whole = behind(&|out| encode(&message, at, out))?;
            prop_assert_eq!(appended(&whole), Some(at));
            prop_assert_eq!(&decode(whole.clone()).unwrap(), &message);
            let other = behind(&|out| restamp(&whole, again, out))?;
            prop_assert_eq!(appended(&other), Some(again));
            prop_assert_eq!(decode(other).unwrap(), message);
        }

        #[test]
        fn hostile_records_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), version in any::<bool>()) {
            if version && !bytes.is_empty() { bytes[0] = VERSION; }
            let bytes = Bytes::from(bytes);
            let _ = appended(&bytes);
            if decode(bytes.clone()).is_none() {
                let unreadable = unreadable(bytes.clone());
                prop_assert_eq!(unreadable.raw, bytes);
                prop_assert_eq!(unreadable.why.kind(), ErrorKind::Corrupt);
            }
        }

        #[test]
        fn a_cut_record_is_never_a_whole_one_with_key_or_headers(message in any_message(), cut in any::<prop::sample::Index>()) {
            let mut record = Vec::new();
            encode(&message, Timestamp::default(), &mut record);
            let record = Bytes::from(record);
            let cut = cut.index(record.len());
            if let Some(other) = decode(record.slice(..cut)) {
                prop_assert_ne!(other, message);
            }
        }
    }
}
