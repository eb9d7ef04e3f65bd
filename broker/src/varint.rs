//! Variable-length integers (LEB128), used by packed headers, the ack window and the embedded log.

use bytes::BufMut;

/// The most bytes that one takes.
const LONGEST: usize = 10;

#[inline]
pub(crate) fn put(out: &mut impl BufMut, mut value: u64) {
    if value < 0x80 {
        return out.put_u8(value as u8);
    }
    // Each call to `out` looks after its room.
    let (mut bytes, mut len) = ([0; LONGEST], 0);
    while value >= 0x80 && len < LONGEST - 1 {
        bytes[len] = (value as u8 & 0x7f) | 0x80;
        len += 1;
        value >>= 7;
    }
    bytes[len] = value as u8;
    out.put_slice(&bytes[..=len]);
}

/// How many bytes it takes.
#[inline]
pub(crate) const fn len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Splits one off the front; `None` where the bytes end inside it or it does not fit.
#[inline]
pub(crate) fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    // Most are short.
    if let Some((&byte, rest)) = bytes.split_first()
        && byte < 0x80
    {
        return Some((u64::from(byte), rest));
    }
    take_long(bytes)
}

fn take_long(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if i == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_round_trips_and_a_cut_one_is_refused() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX] {
                let mut out = Vec::new();
                put(&mut out, value);
                assert_eq!(len(value), out.len());
                assert_eq!(take(&out), Some((value, &[][..])));
                assert_eq!(take(&out[..out.len() - 1]), None);
            }
        }
    }
}
