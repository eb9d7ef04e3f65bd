//! How a message lies in a record of Kafka, and how a record is read.
//!
//! | Part of the record | Holds |
//! |---|---|
//! | key | the key, as it is; null where there is none |
//! | value | the payload, as it is; null is a tombstone |
//! | headers | those of the message, in their order, null values too; behind them one of ours, `ropeway-id` |
//! | timestamp | when the message was made |
//!
//! `ropeway-id` holds the id of the message as a UUID in text (36 characters); where the message was not to be delivered before a time, an `@` and
//! that time follow, in milliseconds since 1970. Only the last header is read as such; one further ahead is a header as any other.
//!
//! A record without it was written by somebody else: its id is made of its place. Names of headers that are no text make a record unreadable. Not
//! here: which position a record has (`topics.rs`), who sends (`publish/`) and reads it.

use super::{
    packed::{Last, Repacked, counted, repack},
    raw::RecordRef,
};
use crate::{Error, ErrorKind, Headers, Message, MessageId, Position, Result, Timestamp, Topic};
use bytes::{Bytes, BytesMut};
use std::fmt::Write;

/// The header of ours.
const ID: &str = "ropeway-id";
/// How long an id is, as text.
const ID_LEN: usize = 36;
/// What a batch takes around its records (version 2).
const BATCH_OVERHEAD: usize = 61;
/// The most that a record takes around key, headers and payload, with its batch and our header: lengths, numbers, the time.
pub(super) const OVERHEAD: usize = 160;
/// The largest piece of memory that records are copied to together; a record that is larger has one of its own.
const BLOCK: usize = 64 * 1024;

/// The value of our header.
#[derive(Clone, Copy, Debug)]
struct IdText {
    bytes: [u8; ID_LEN + 21],
    len: usize,
}

impl IdText {
    fn of(message: &Message) -> Self {
        let mut text = Self { bytes: [b'-'; ID_LEN + 21], len: ID_LEN };
        put_id(&message.id.as_u128().to_be_bytes(), &mut text.bytes);
        if let Some(due) = message.deliver_at {
            // It has room for every number.
            _ = write!(text, "@{}", due.as_millis());
        }
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Two digits for each byte.
const DIGITS: [[u8; 2]; 256] = {
    let (digits, mut all, mut at) = (b"0123456789abcdef", [[0; 2]; 256], 0);
    while at < all.len() {
        all[at] = [digits[at >> 4], digits[at & 15]];
        at += 1;
    }
    all
};
/// Where those of each byte of an id stand; between them are dashes.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// Puts an id as text where dashes stand: for each message that is published, and by a table, since that takes 52 instructions where `uuid` takes 124. By itself:
/// where the compiler sees of what the bytes are made it takes them apart one by one.
#[inline(never)]
fn put_id(id: &[u8; 16], text: &mut [u8; ID_LEN + 21]) {
    for (at, byte) in PLACES.into_iter().zip(id) {
        [text[at], text[at + 1]] = DIGITS[usize::from(*byte)];
    }
}

impl Write for IdText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// Adds the headers of the record of a message.
pub(super) fn headers(message: &Message, mut add: impl FnMut(&[u8], Option<&[u8]>)) {
    message.headers.iter_bytes().for_each(|(name, value)| add(name, value));
    add(ID.as_bytes(), Some(IdText::of(message).as_bytes()));
}

/// How many bytes a number takes that is written as Kafka does (zigzag).
const fn number(n: usize) -> usize {
    let bits = usize::BITS - (n << 1).leading_zeros();
    if bits == 0 { 1 } else { (bits as usize).div_ceil(7) }
}

/// How many bytes the message takes in a batch of its own, which is what the server compares with `max.message.bytes`.
pub(super) fn size_alone(message: &Message) -> usize {
    let bytes = |bytes: Option<usize>| bytes.map_or(1, |len| number(len) + len);
    let id = IdText::of(message).len;
    let (mut count, mut headers) = (1, number(ID.len()) + ID.len() + number(id) + id);
    for (name, value) in message.headers.iter_bytes() {
        count += 1;
        headers += number(name.len()) + name.len() + bytes(value.map(<[u8]>::len));
    }
    // Attributes, and the differences to the time and the position of the batch.
    let record = 3
        + bytes(message.key.as_ref().map(Bytes::len))
        + bytes(message.payload.as_ref().map(Bytes::len))
        + number(count)
        + headers;
    BATCH_OVERHEAD + number(record) + record
}

/// Whether a topic takes the message, as far as its record has to fit.
///
/// # Errors
/// `TooLarge` with both sizes.
pub(super) fn fits(message: &Message, max_message_bytes: usize) -> Result<()> {
    // A header takes at most two bytes more than it does packed, where it takes two at least.
    if message.size() + message.headers.packed().len() + OVERHEAD <= max_message_bytes {
        return Ok(());
    }
    let size = size_alone(message);
    if size <= max_message_bytes {
        return Ok(());
    }
    let context = format!(
        "the message takes {size} bytes as a record and the topic takes {max_message_bytes} (max.message.bytes): make it smaller, or raise that"
    );
    Err(Error::new(ErrorKind::TooLarge, context))
}

/// Where a record lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lies<'a> {
    pub(super) topic: &'a Topic,
    pub(super) partition: u32,
    pub(super) at: Position,
}

/// Copies records, so that none of them keeps what it came with in memory: into blocks of at most 64 KiB.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Empty between records, with room.
    block: BytesMut,
}

impl Blocks {
    /// A copy.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        if bytes.len() > BLOCK / 4 {
            return Bytes::copy_from_slice(bytes);
        }
        self.make_room(bytes.len());
        self.block.extend_from_slice(bytes);
        self.block.split().freeze()
    }

    fn make_room(&mut self, size: usize) {
        if self.block.capacity() < size {
            self.block = BytesMut::with_capacity(size.max(BLOCK));
        }
    }

    /// The message that a record is.
    ///
    /// # Errors
    /// `Corrupt` with what makes it unreadable.
    pub(super) fn read(&mut self, lies: Lies<'_>, record: &RecordRef<'_>) -> Result<Message> {
        let headers = record.headers();
        let headers =
            headers.map_err(|trouble| unreadable(format!("its headers cannot be read: {}", trouble.text)))?;
        self.message(lies, record.key, record.value, record.timestamp, &headers)
    }

    /// The same of its parts; `timestamp` is absent where it has none, and headers are as they lie in a record.
    fn message(
        &mut self,
        lies: Lies<'_>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Option<i64>,
        headers: &[u8],
    ) -> Result<Message> {
        let (count, lying) = counted(headers).ok_or_else(no_headers)?;
        let (key_bytes, value_bytes) = (key.unwrap_or_default(), value.unwrap_or_default());
        let size = lying.len() + key_bytes.len() + value_bytes.len();
        let is_large = size > BLOCK / 4;
        self.make_room(if is_large { lying.len() } else { size });
        self.block.extend_from_slice(lying);
        let Some(Kept { count, end, ours }) = keep(&mut self.block, count) else {
            self.block.clear();
            return Err(no_headers());
        };
        self.block.truncate(end);
        if !is_large {
            self.block.extend_from_slice(key_bytes);
            self.block.extend_from_slice(value_bytes);
        }
        let mut all = self.block.split().freeze();
        // What is empty keeps no block.
        let mut next = |len| if len == 0 { Bytes::new() } else { all.split_to(len) };
        let headers = next(end);
        let [key_copy, payload] = match is_large {
            true => [key_bytes, value_bytes].map(|part| self.copy(part)),
            false => [key_bytes.len(), value_bytes.len()].map(next),
        };
        let headers = Headers::seen(headers, count);
        let headers = headers.map_err(|error| unreadable(format!("its headers: {}", error.context())))?;
        let (id, deliver_at) = ours.unwrap_or_else(|| (id_of_place(lies), None));
        Ok(Message {
            id,
            key: key.map(|_| key_copy),
            headers,
            payload: value.map(|_| payload),
            timestamp: Timestamp::from_millis(timestamp.unwrap_or(0)),
            deliver_at,
        })
    }
}

/// Headers that a message keeps: how many, where they end, and what ours, the last one, said.
struct Kept {
    count: u64,
    end: usize,
    ours: Option<(MessageId, Option<Timestamp>)>,
}

/// Makes headers as they lie in a record to those of a message. `None`: they are none.
fn keep(lying: &mut [u8], count: u64) -> Option<Kept> {
    let Repacked { end, last } = repack(lying, count)?;
    let ours = |last: &Last| {
        let is_ours = &lying[last.name.clone()] == ID.as_bytes();
        is_ours.then(|| id_of(&lying[last.value.clone()?])).flatten()
    };
    let ours = last.as_ref().and_then(|last| Some((last.at, ours(last)?)));
    Some(match ours {
        Some((at, ours)) => Kept { count: count - 1, end: at, ours: Some(ours) },
        None => Kept { count, end, ours: None },
    })
}

fn no_headers() -> Error {
    unreadable("its headers are damaged, or the name of one is no text".to_owned())
}

/// The id and the time of delivery that our header tells; `None` where it is not in form.
fn id_of(text: &[u8]) -> Option<(MessageId, Option<Timestamp>)> {
    let (id, due) = text.split_at_checked(ID_LEN)?;
    let id = MessageId::from_u128(uuid::Uuid::try_parse_ascii(id).ok()?.as_u128());
    if due.is_empty() {
        return Some((id, None));
    }
    let due = std::str::from_utf8(due.strip_prefix(b"@")?).ok()?.parse().ok()?;
    Some((id, Some(Timestamp::from_millis(due))))
}

fn id_of_place(lies: Lies<'_>) -> MessageId {
    MessageId::derived(&[
        b"kafka",
        lies.topic.as_str().as_bytes(),
        &lies.partition.to_be_bytes(),
        &lies.at.0.to_be_bytes(),
        &lies.at.1.to_be_bytes(),
    ])
}

fn unreadable(why: String) -> Error {
    Error::new(ErrorKind::Corrupt, why)
}

#[cfg(test)]
mod tests {
    use super::{
        super::packed::tests::{Header, lying},
        *,
    };
    use proptest::prelude::*;

    fn orders() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn read_at(at: Position, message: &Message, headers: &[Header]) -> Result<Message> {
        let topic = orders();
        Blocks::default().message(
            Lies { topic: &topic, partition: 3, at },
            message.key.as_deref(),
            message.payload.as_deref(),
            Some(message.timestamp.as_millis()),
            &lying(headers),
        )
    }

    fn written(message: &Message) -> Vec<Header> {
        let mut all = Vec::new();
        headers(message, |name, value| all.push((name.to_vec(), value.map(<[u8]>::to_vec))));
        all
    }

    /// A batch of one record, byte by byte as the format says.
    fn encoded(message: &Message) -> usize {
        fn zigzag(out: &mut Vec<u8>, n: i64) {
            let mut n = ((n << 1) ^ (n >> 63)) as u64;
            while n > 0x7f {
                out.push(n as u8 | 0x80);
                n >>= 7;
            }
            out.push(n as u8);
        }
        fn bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
            zigzag(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
            out.extend_from_slice(bytes.unwrap_or_default());
        }
        let mut body = vec![0, 0, 0];
        bytes(&mut body, message.key.as_deref());
        bytes(&mut body, message.payload.as_deref());
        let all = written(message);
        zigzag(&mut body, all.len() as i64);
        for (name, value) in &all {
            bytes(&mut body, Some(name));
            bytes(&mut body, value.as_deref());
        }
        let mut record = Vec::new();
        zigzag(&mut record, body.len() as i64);
        8 + 4 + 4 + 1 + 4 + 2 + 4 + 8 + 8 + 8 + 2 + 4 + 4 + record.len() + body.len()
    }

    prop_compose! {
        fn messages()(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20_000)),
            names in proptest::collection::vec(("(ropeway-id|[a-zé]{0,3}|x{60,70})", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..140))), 0..6),
            id in any::<u128>(),
            timestamp in 1i64..=253_402_300_799_999,
            due in proptest::option::of(1i64..=253_402_300_799_999),
        ) -> Message {
            let mut headers = Headers::builder();
            for (name, value) in &names {
                headers = headers.add(name, value.as_deref());
            }
            Message {
                id: MessageId::from_u128(id),
                key: key.map(Bytes::from),
                headers: headers.build(),
                payload: payload.map(Bytes::from),
                timestamp: Timestamp::from_millis(timestamp),
                deliver_at: due.map(Timestamp::from_millis),
            }
        }
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(message in messages()) {
            prop_assert_eq!(&read_at(Position(7, 8), &message, &written(&message)).unwrap(), &message);
        }

        #[test]
        fn the_size_is_that_of_the_record(message in messages()) {
            let size = encoded(&message);
            prop_assert_eq!(size_alone(&message), size);
            prop_assert!(fits(&message, size).is_ok());
            prop_assert_eq!(fits(&message, size - 1).unwrap_err().kind(), ErrorKind::TooLarge);
            prop_assert!(size <= message.size() + message.headers.packed().len() + OVERHEAD);
        }

        #[test]
        fn whatever_the_headers_are_nothing_panics(
            headers in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..12), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60))), 0..4),
            own in proptest::option::of("[0-9a-f@-]{30,50}"),
        ) {
            let mut headers: Vec<Header> = headers;
            headers.extend(own.map(|own| (ID.as_bytes().to_vec(), Some(own.into_bytes()))));
            // A name ends where a text of C does.
            let name = |name: &[u8]| name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            let text = headers.iter().all(|(bytes, _)| String::from_utf8(name(bytes)).is_ok());
            let read = read_at(Position(1, 1), &Message::builder().build(), &headers);
            prop_assert_eq!(read.is_ok(), text);
        }
    }

    #[test]
    fn an_id_is_written_as_a_uuid_is() {
        for id in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            let mut message = Message::builder().build();
            message.id = MessageId::from_u128(id);
            let text = IdText::of(&message);
            assert_eq!(text.as_bytes(), message.id.to_string().as_bytes());
            message.deliver_at = Some(Timestamp::from_millis(5));
            assert_eq!(IdText::of(&message).as_bytes(), format!("{}@5", message.id).as_bytes());
        }
    }

    #[test]
    fn a_number_takes_what_zigzag_takes() {
        for (n, len) in
            [(0, 1), (63, 1), (64, 2), (8191, 2), (8192, 3), (1 << 20, 4), ((1 << 27) - 1, 4), (1 << 27, 5)]
        {
            assert_eq!(number(n), len, "{n}");
        }
    }

    #[test]
    fn a_record_of_somebody_else_gets_an_id_of_its_place_and_keeps_its_headers() {
        let message = Message::builder().payload("x").build();
        let some = |text: &str| (ID.as_bytes().to_vec(), Some(text.as_bytes().to_vec()));
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        for headers in [
            vec![],
            vec![some("")],
            vec![some("no uuid")],
            vec![some(&format!("{id}x"))],
            vec![some(&format!("{id}@"))],
            vec![some(&format!("{id}@soon"))],
            vec![(ID.as_bytes().to_vec(), None)],
            vec![some(id), (b"other".to_vec(), None)],
        ] {
            let read = read_at(Position(1, 2), &message, &headers).unwrap();
            assert_eq!(read.headers.count(), headers.len(), "{headers:?}");
            assert_eq!(read.id, read_at(Position(1, 2), &message, &headers).unwrap().id);
            assert_ne!(read.id, read_at(Position(1, 3), &message, &headers).unwrap().id);
            assert_ne!(read.id, read_at(Position(2, 2), &message, &headers).unwrap().id);
        }
        let ours = read_at(Position(1, 2), &message, &[some(&format!("{id}@5"))]).unwrap();
        assert_eq!((ours.id.to_string().as_str(), ours.deliver_at), (id, Some(Timestamp::from_millis(5))));
    }

    #[test]
    fn a_name_that_is_no_text_makes_a_record_unreadable() {
        let bad = vec![(vec![0xff], None)];
        let error = read_at(Position(1, 1), &Message::builder().build(), &bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.context().contains("header"), "{error}");
    }

    #[test]
    fn what_is_copied_shares_blocks_and_large_ones_stand_alone() {
        let mut blocks = Blocks::default();
        let (first, second) = (blocks.copy(&[1; 100]), blocks.copy(&[2; 100]));
        assert_eq!(first.as_ptr() as usize + 100, second.as_ptr() as usize);
        assert_eq!(blocks.copy(&[3; BLOCK]), vec![3; BLOCK]);
        for i in 0..2000u32 {
            assert_eq!(blocks.copy(&[i as u8; 100]), vec![i as u8; 100]);
        }
    }

    #[test]
    fn the_parts_of_a_record_lie_behind_each_other_and_large_ones_stand_alone() {
        let read = |blocks: &mut Blocks, value: &[u8]| {
            let topic = orders();
            let lies = Lies { topic: &topic, partition: 0, at: Position(1, 1) };
            blocks.message(lies, Some(b"key"), Some(value), None, &lying(&[])).unwrap()
        };
        let mut blocks = Blocks::default();
        let (first, large, empty, second) = (
            read(&mut blocks, b"one"),
            read(&mut blocks, &[7; BLOCK]),
            read(&mut blocks, b""),
            read(&mut blocks, b"two"),
        );
        let at = |bytes: &Option<Bytes>| bytes.as_ref().unwrap().as_ptr() as usize;
        // Key and payload of the first, the key of the large one, the key of the empty one, then those of the second.
        assert_eq!(at(&first.payload), at(&first.key) + 3);
        assert_eq!(at(&second.key), at(&first.key) + 12);
        assert_eq!(large.payload.unwrap(), vec![7; BLOCK]);
        assert_eq!((empty.key.as_deref(), empty.payload.as_deref()), (Some(&b"key"[..]), Some(&b""[..])));
        assert_eq!(
            (second.key.as_deref(), second.payload.as_deref()),
            (Some(&b"key"[..]), Some(&b"two"[..]))
        );
    }
}
