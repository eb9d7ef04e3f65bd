//! A message as the bare stores keep it: the same bytes, in the same layout, as the log of the embedded broker.
//!
//! Not here: that log (`broker/src/embedded/record.rs`).

use crate::Result;
use bytes::Bytes;
use ropeway_broker::{Headers, Message, MessageId, Timestamp};

const VERSION: u8 = 1;
/// Key, headers and payload are there.
const FLAGS: u8 = 1 | 2 | 4;
/// Version, flags, append time, id, timestamp.
const FIXED: usize = 34;
/// Bytes of a key of the log: partition and offset.
pub(crate) const KEY_BYTES: usize = 12;

/// Where message `offset` of a partition lies.
pub(crate) fn key(partition: u32, offset: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// Writes a message behind `out`.
pub(crate) fn encode(message: &Message, out: &mut Vec<u8>) {
    out.reserve(FIXED + 20 + message.size());
    out.extend_from_slice(&[VERSION, FLAGS]);
    out.extend_from_slice(&message.timestamp.as_millis().to_be_bytes());
    out.extend_from_slice(&message.id.as_u128().to_be_bytes());
    out.extend_from_slice(&message.timestamp.as_millis().to_be_bytes());
    for part in [message.key.as_deref().unwrap_or_default(), message.headers.packed()] {
        length(part.len(), out);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(message.payload.as_deref().unwrap_or_default());
}

/// The message; its parts share the bytes of the record.
pub(crate) fn decode(record: &Bytes) -> Result<Message> {
    whole(record).ok_or_else(|| "a record is cut or damaged".into())
}

fn whole(record: &Bytes) -> Option<Message> {
    let number = |at: usize| Some(u64::from_be_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let id = (u128::from(number(10)?) << 64) | u128::from(number(18)?);
    let timestamp = Timestamp::from_millis(number(26)? as i64);
    let mut at = FIXED;
    let mut part = || {
        let (mut len, mut shift) = (0, 0);
        loop {
            let byte = *record.get(at)?;
            at += 1;
            len |= usize::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let end = at.checked_add(len).filter(|end| *end <= record.len())?;
        Some(record.slice(std::mem::replace(&mut at, end)..end))
    };
    let (key, headers) = (part()?, part()?);
    Some(Message {
        id: MessageId::from_u128(id),
        key: Some(key),
        headers: Headers::from_packed(headers).ok()?,
        payload: Some(record.slice(at..)),
        timestamp,
        deliver_at: None,
    })
}

fn length(mut len: usize, out: &mut Vec<u8>) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Work;

    #[test]
    fn a_record_round_trips() {
        let work = Work::new(1024);
        for i in [0, 1, 999] {
            let mut record = Vec::new();
            encode(&work.message(i), &mut record);
            assert_eq!(decode(&record.into()).unwrap(), work.message(i));
        }
        assert!(decode(&Bytes::from_static(&[1; 40])).is_err());
    }
}
