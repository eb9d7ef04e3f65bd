//! Headers as they lie in a record of Kafka, made to what [`crate::Headers`] holds, in their place: lengths are written otherwise there (zigzag; -1 is null), and take
//! no fewer bytes, so that small headers stay where they are.
//!
//! Pure. What is taken and refused is what the client library takes and refuses, but for names that are no text. Not here: where they lie (`raw/headers.rs`), what they
//! mean (`layout.rs`).

use crate::varint;
use std::ops::Range;

/// Headers that were made to ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repacked {
    /// Where they end.
    pub(super) end: usize,
    pub(super) last: Option<Last>,
}

/// The last of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// Where it begins.
    pub(super) at: usize,
    pub(super) name: Range<usize>,
    pub(super) value: Option<Range<usize>>,
}

/// How many headers there are, and where they lie. `None` where that is not even a number.
#[inline]
pub(super) fn counted(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (count, rest) = varint::take(bytes)?;
    // Below zero is none.
    Some((u64::try_from(zigzag(count)).unwrap_or(0), rest))
}

/// Makes them to ours. `None`: they are no headers, or have names that are no text.
#[inline]
pub(super) fn repack(bytes: &mut [u8], count: u64) -> Option<Repacked> {
    let (mut from, mut end, mut last) = (0, 0, None);
    for _ in 0..count {
        let at = end;
        if from == end
            && let Some((name, value)) = in_place(bytes, at)
        {
            (from, end) = (value.end, value.end);
            last = Some(Last { at, name, value: Some(value) });
            continue;
        }
        let len = usize::try_from(number(bytes, &mut from)?).ok()?;
        let kept = kept(bytes.get(from..from.checked_add(len)?)?)?;
        end = put(bytes, end, kept);
        let name = moved(bytes, from, kept, end);
        (from, end) = (from + len, name.end);
        let value = match number(bytes, &mut from)? {
            -1 => {
                end = put(bytes, end, 0);
                None
            }
            len => {
                let len = usize::try_from(len).ok()?;
                bytes.get(from..from.checked_add(len)?)?;
                end = put(bytes, end, len + 1);
                let value = moved(bytes, from, len, end);
                (from, end) = (from + len, value.end);
                Some(value)
            }
        };
        last = Some(Last { at, name, value });
    }
    Some(Repacked { end, last })
}

/// A header as most are: nothing before it became shorter, both lengths take one byte, the name is plain, the value is not null. Two bytes change, and nothing moves.
/// `None`, with nothing changed: another one, or none.
#[inline]
fn in_place(bytes: &mut [u8], at: usize) -> Option<(Range<usize>, Range<usize>)> {
    /// The bits of a number of one byte that is below zero, or of the first byte of a longer one.
    const OTHER: u8 = 0x81;
    let first = *bytes.get(at)?;
    let name = at + 1..at + 1 + usize::from(first >> 1);
    let second = *bytes.get(name.end)?;
    let value = name.end + 1..name.end + 1 + usize::from(second >> 1);
    let is_one = (first | second) & OTHER == 0 && value.end <= bytes.len() && is_plain(&bytes[name.clone()]);
    if !is_one {
        return None;
    }
    bytes[at] = first >> 1;
    bytes[name.end] = (second >> 1) + 1;
    Some((name, value))
}

/// How much of a name is kept: as the library tells it, a text of C. `None`: it is no text.
#[inline]
fn kept(name: &[u8]) -> Option<usize> {
    if is_plain(name) {
        return Some(name.len());
    }
    let kept = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    std::str::from_utf8(&name[..kept]).is_ok().then_some(kept)
}

/// Whether all of it is ASCII and none is zero, as mostly it is: eight bytes at a time (the last eight once more where they do not come out even), of which none has its
/// highest bit set, nor has it when one is taken from each.
#[inline]
fn is_plain(name: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
    let (eights, rest) = name.as_chunks();
    let plain = |eight: &[u8; 8]| {
        let eight = u64::from_ne_bytes(*eight);
        (eight | eight.wrapping_sub(ONES)) & HIGHEST == 0
    };
    match name.last_chunk() {
        Some(last) => eights.iter().all(plain) && plain(last),
        None => rest.iter().all(|byte| (1..0x80).contains(byte)),
    }
}

const fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[inline]
fn number(bytes: &[u8], from: &mut usize) -> Option<i64> {
    let rest = bytes.get(*from..)?;
    let (number, after) = varint::take(rest)?;
    *from += rest.len() - after.len();
    Some(zigzag(number))
}

/// Writes a number there, where one was read that took no less; answers what is behind it.
#[inline]
fn put(bytes: &mut [u8], at: usize, number: usize) -> usize {
    // Most are short.
    if number < 0x80 {
        bytes[at] = number as u8;
        return at + 1;
    }
    let mut rest = &mut bytes[at..];
    let before = rest.len();
    varint::put(&mut rest, number as u64);
    at + before - rest.len()
}

/// Moves so many bytes to the front; answers where they are.
#[inline]
fn moved(bytes: &mut [u8], from: usize, len: usize, to: usize) -> Range<usize> {
    if from != to {
        bytes.copy_within(from..from + len, to);
    }
    to..to + len
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Headers;
    use bytes::Bytes;
    use proptest::prelude::*;

    pub(in crate::kafka) type Header = (Vec<u8>, Option<Vec<u8>>);

    fn put_zigzag(out: &mut Vec<u8>, number: i64) {
        varint::put(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    /// As they lie in a record.
    pub(in crate::kafka) fn lying(headers: &[Header]) -> Vec<u8> {
        let mut out = Vec::new();
        put_zigzag(&mut out, headers.len() as i64);
        for (name, value) in headers {
            put_zigzag(&mut out, name.len() as i64);
            out.extend_from_slice(name);
            put_zigzag(&mut out, value.as_ref().map_or(-1, |value| value.len() as i64));
            out.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        out
    }

    /// What is made of them. `None` where they are no headers.
    fn taken(bytes: &[u8]) -> Option<Vec<Header>> {
        let (count, rest) = counted(bytes)?;
        let mut bytes = rest.to_vec();
        let Repacked { end, last } = repack(&mut bytes, count)?;
        bytes.truncate(end);
        let headers = Headers::from_packed(Bytes::from(bytes.clone())).unwrap();
        let all: Vec<Header> =
            headers.iter_bytes().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
        let of = |last: &Last| {
            (bytes[last.name.clone()].to_vec(), last.value.clone().map(|value| bytes[value].to_vec()))
        };
        assert_eq!(last.as_ref().map(of), all.last().cloned());
        let before =
            Headers::from_packed(Bytes::copy_from_slice(&bytes[..last.map_or(0, |last| last.at)])).unwrap();
        assert_eq!(before.count(), all.len().saturating_sub(1));
        Some(all)
    }

    proptest! {
        #[test]
        fn what_lies_in_a_record_is_taken_and_what_is_cut_is_refused(
            headers in proptest::collection::vec(
                // Lengths around those where one way of writing takes one byte more than the other.
                ("([a-zé]{0,4}|x{60,70}|y{126,130})", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..140))), 0..6,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let headers: Vec<Header> = headers.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            let bytes = lying(&headers);
            prop_assert_eq!(taken(&bytes), Some(headers.clone()));
            // What lies behind them is nobody's.
            prop_assert_eq!(taken(&[&bytes[..], b"more"].concat()), Some(headers));
            prop_assert_eq!(taken(&bytes[..cut.index(bytes.len())]), None);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(headers) = taken(&bytes) {
                prop_assert!(headers.len() <= bytes.len() / 2);
            }
        }
    }

    #[test]
    fn long_lengths_take_no_more_room_than_they_had() {
        for len in [62, 63, 64, 127, 128, 8191, 8192, 16_383, 16_384, 1 << 20] {
            let headers = vec![(vec![b'n'; len], Some(vec![7; len])), (b"last".to_vec(), None)];
            assert_eq!(taken(&lying(&headers)), Some(headers), "{len}");
        }
    }

    #[test]
    fn lengths_below_zero_are_refused_and_any_number_of_headers_is_read_as_far_as_they_lie() {
        let with = |numbers: &[i64]| {
            let mut out = Vec::new();
            numbers.iter().for_each(|number| put_zigzag(&mut out, *number));
            out
        };
        assert_eq!(taken(&with(&[0])), Some(vec![]));
        assert_eq!(taken(&with(&[-1])), Some(vec![]));
        assert_eq!(taken(&with(&[1, 0, -1])), Some(vec![(vec![], None)]));
        for bad in [&[1, -1, -1][..], &[1, 0, -2], &[1, i64::MIN, 0], &[1, 0, i64::MAX], &[i64::MAX, 0, 0]] {
            assert_eq!(taken(&with(bad)), None, "{bad:?}");
        }
        assert_eq!(taken(&[]), None);
    }

    #[test]
    fn a_name_ends_where_a_text_of_c_does_and_is_text() {
        let name = |name: &[u8]| taken(&lying(&[(name.to_vec(), Some(vec![0])), (b"b".to_vec(), None)]));
        let cut = Some(vec![(b"a".to_vec(), Some(vec![0])), (b"b".to_vec(), None)]);
        assert_eq!(name(b"a\0bc"), cut);
        assert_eq!(name(b"a\0\xff"), cut);
        assert_eq!(name(b"\xff"), None);
    }

    #[test]
    fn wherever_in_a_name_a_byte_is_it_is_seen_whether_that_is_plain() {
        for len in 1..=19 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut name = vec![b'a'; len];
                    name[at] = byte;
                    assert_eq!(is_plain(&name), byte != 0 && byte.is_ascii(), "{byte} at {at} of {len}");
                }
            }
        }
        assert!(is_plain(b""));
    }
}
