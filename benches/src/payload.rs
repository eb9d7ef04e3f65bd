//! What is in a message: a stamp that says who sent it, as which, and when it was to be sent, and bytes that compress to about half.
//!
//! The stamp is inside of the payload, so that every broker and rival carries the same bytes. Pure.

use bytes::{Bytes, BytesMut};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

/// The largest payload: 64 MiB.
pub const MOST_BYTES: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"RwB1";
const NO_KEY: u32 = u32::MAX;

/// Who sent a message, as which, and when it was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run: messages of another one do not count.
    pub run: u32,
    /// The producer, from 0.
    pub producer: u32,
    /// The key by number, where the message has one; less than `u32::MAX`.
    pub key: Option<u32>,
    /// The number among the messages of its producer, from 0.
    pub number: u64,
    /// When it was to be sent, since the start of the run.
    pub intended: Duration,
}

impl Stamp {
    /// How many bytes it takes: the smallest payload.
    pub const BYTES: usize = 32;

    /// Writes it to the start of `payload`, which must have room; whatever is not written is left.
    pub fn write(&self, payload: &mut [u8]) {
        let mut stamp = [0; Self::BYTES];
        stamp[..4].copy_from_slice(&MAGIC);
        stamp[4..8].copy_from_slice(&self.run.to_le_bytes());
        stamp[8..12].copy_from_slice(&self.producer.to_le_bytes());
        stamp[12..16].copy_from_slice(&self.key.unwrap_or(NO_KEY).to_le_bytes());
        stamp[16..24].copy_from_slice(&self.number.to_le_bytes());
        stamp[24..]
            .copy_from_slice(&u64::try_from(self.intended.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
        for (to, from) in payload.iter_mut().zip(stamp) {
            *to = from;
        }
    }

    /// The stamp of a payload; `None` where it has none.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let stamp: &[u8; Self::BYTES] = payload.first_chunk()?;
        let half = |at: usize| stamp[at..].first_chunk().copied().map(u32::from_le_bytes);
        let whole = |at: usize| stamp[at..].first_chunk().copied().map(u64::from_le_bytes);
        if stamp[..4] != MAGIC {
            return None;
        }
        Some(Self {
            run: half(4)?,
            producer: half(8)?,
            key: half(12).filter(|key| *key != NO_KEY),
            number: whole(16)?,
            intended: Duration::from_nanos(whole(24)?),
        })
    }
}

/// How large payloads are: all of one size, or each of a size drawn from a range, stamp included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(RangeInclusive<usize>);

impl Sizes {
    /// Payloads of `least` to `most` bytes; `None` where they have no room for the stamp, or too much room.
    #[must_use]
    pub fn new(least: usize, most: usize) -> Option<Self> {
        (Stamp::BYTES <= least && least <= most && most <= MOST_BYTES).then_some(Self(least..=most))
    }

    /// The size of the largest.
    #[must_use]
    pub const fn most(&self) -> usize {
        *self.0.end()
    }
}

/// Bytes from text such as `1KiB`; without a unit they are bytes.
pub(crate) fn size(text: &str) -> Option<usize> {
    const UNITS: [(&str, usize); 6] =
        [("KiB", 1 << 10), ("MiB", 1 << 20), ("kB", 1_000), ("MB", 1_000_000), ("B", 1), ("", 1)];
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    digits.parse::<usize>().ok()?.checked_mul(*factor)
}

impl FromStr for Sizes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let wrong = || "it takes a size such as 128B, 1KiB or 1MB, or a range such as 200B..4KiB".to_owned();
        let (least, most) = size(least.trim()).zip(size(most.trim())).ok_or_else(wrong)?;
        Self::new(least, most).ok_or_else(|| {
            format!(
                "a payload has at least {} bytes, which the stamp takes, and at most 64MiB; a range goes up",
                Stamp::BYTES
            )
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            write!(f, "{}B", self.0.start())
        } else {
            write!(f, "{}B..{}B", self.0.start(), self.0.end())
        }
    }
}

/// Makes payloads: half of each block of 64 bytes is random, the other half is not.
#[derive(Debug)]
pub struct Payloads {
    sizes: Sizes,
    lot: StdRng,
    /// Enough for the largest, and more, so that one payload is not the same as the next.
    filler: Vec<u8>,
}

impl Payloads {
    /// Payloads of these sizes; each producer has a seed of its own.
    #[must_use]
    pub fn new(sizes: Sizes, seed: u64) -> Self {
        const MORE: usize = 4096;
        let mut lot = StdRng::seed_from_u64(seed);
        let mut filler = vec![b'.'; sizes.most() + MORE];
        for block in filler.chunks_mut(64) {
            let half = block.len() / 2;
            lot.fill_bytes(&mut block[..half]);
        }
        Self { sizes, lot, filler }
    }

    /// The next payload, with that stamp.
    pub fn draw(&mut self, stamp: &Stamp) -> Bytes {
        let size = self.lot.random_range(self.sizes.0.clone());
        let from = self.lot.random_range(0..=self.filler.len() - size);
        let mut payload = BytesMut::from(&self.filler[from..from + size]);
        stamp.write(&mut payload);
        payload.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            run: 7,
            producer: 2,
            key: Some(5),
            number: 1 << 40,
            intended: Duration::from_nanos(123_456_789),
        }
    }

    #[test]
    fn a_stamp_survives_the_way_and_nothing_else_is_one() {
        let mut payloads = Payloads::new("64".parse().unwrap(), 1);
        for key in [None, Some(0), Some(u32::MAX - 1)] {
            let stamp = Stamp { key, ..stamp() };
            let payload = payloads.draw(&stamp);
            assert_eq!(Stamp::read(&payload), Some(stamp));
            assert_eq!(Stamp::read(&payload[1..]), None);
            assert_eq!(Stamp::read(&payload[..Stamp::BYTES - 1]), None);
        }
        assert_eq!(Stamp::read(b""), None);
    }

    #[test]
    fn payloads_have_the_sizes_asked_for_and_are_half_random() {
        let mut payloads = Payloads::new("100..300".parse().unwrap(), 1);
        let drawn: Vec<Bytes> = (0..1000).map(|_| payloads.draw(&stamp())).collect();
        let sizes = drawn.iter().map(Bytes::len);
        assert_eq!((sizes.clone().min(), sizes.max()), (Some(100), Some(300)));
        let mut payloads = Payloads::new("64KiB".parse().unwrap(), 1);
        let large = payloads.draw(&stamp());
        let dots = large.iter().filter(|byte| **byte == b'.').count() as f64 / large.len() as f64;
        assert!((dots - 0.5).abs() < 0.02, "{dots}");
        assert_ne!(large, payloads.draw(&stamp()));
    }

    #[test]
    fn sizes_are_read_and_bounded() {
        for (text, shown) in
            [("1KiB", "1024B"), ("128", "128B"), ("200B..4KiB", "200B..4096B"), ("1MB", "1000000B")]
        {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), shown);
        }
        for bad in ["", "x", "1XB", "-1", "1.5KiB", "..", "5.."] {
            assert!(bad.parse::<Sizes>().unwrap_err().contains("range"), "{bad}");
        }
        for bad in ["31", "4KiB..1KiB", "65MiB", "0"] {
            assert!(bad.parse::<Sizes>().unwrap_err().contains("at least 32 bytes"), "{bad}");
        }
    }
}
