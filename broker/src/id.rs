//! Who a message is.
//!
//! Not here: what else it has (`message.rs`), where it lies (`Position`, there too).

use crate::{Error, ErrorKind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::{cell::Cell, fmt, str::FromStr};
use uuid::Uuid;

thread_local! {
    /// The last one that this thread made.
    static LAST: Cell<u128> = const { Cell::new(0) };
}

/// Where the milliseconds stand, above the version, random bits and the variant.
const MILLIS_AT: u32 = 80;
/// The last millisecond that the form holds.
const LAST_MILLIS: u64 = (1 << 48) - 1;
/// The bits of the version, and those of version 7.
const VERSION: (u128, u128) = (0xf << 76, 7 << 76);
/// The highest bit of the number behind the variant: clear at first, so that counting never reaches the variant.
const GUARD: u128 = 1 << 61;

/// The identity of a message, shown as a UUID.
///
/// Made by the producer (UUIDv7); derived for a forwarded or dead-lettered message; derived from its place for a foreign one, so each
/// delivery shows the same. It may be repeated by mistake: whatever must be unique is keyed by place, not by id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Uuid);

impl MessageId {
    /// A new one, ordered by the millisecond of making. Those of one thread are ordered as they were made, also where its clock goes back.
    #[must_use]
    pub fn new() -> Self {
        Self::made_at(Timestamp::now())
    }

    /// A new one, by a clock that was read just now.
    pub(crate) fn made_at(now: Timestamp) -> Self {
        let random = || Uuid::new_v4().as_u128();
        let id = LAST.with(|last| {
            last.set(next(last.get(), now, random));
            last.get()
        });
        Self::from_u128(id)
    }

    /// The one that follows from `parts`: the same parts give the same id, on every machine.
    #[must_use]
    pub fn derived(parts: &[&[u8]]) -> Self {
        let mut name = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part);
        }
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, &name))
    }

    /// From the 128 bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The 128 bits.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

/// The UUIDv7 behind `last`, which is 0 where there is none.
///
/// The first of a millisecond has 73 random bits, those behind it count up from there (RFC 9562, section 6.2, method 2): two threads or
/// processes meet only where their random bits differ by no more than what they make in that millisecond. `random`: a random UUID. A
/// clock that goes back is not followed; before 1970 and behind what the form holds it is the first and the last millisecond of that.
fn next(last: u128, now: Timestamp, random: impl FnOnce() -> u128) -> u128 {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0).min(LAST_MILLIS);
    if last != 0 && millis <= (last >> MILLIS_AT) as u64 {
        return last + 1;
    }
    let low = (1 << MILLIS_AT) - 1;
    let random = random() & low & !VERSION.0 & !GUARD;
    u128::from(millis) << MILLIS_AT | VERSION.1 | random
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Uuid::parse_str(text).map(Self).map_err(|_| {
            Error::new(ErrorKind::Invalid, format!("{text:?} is not a message id; it looks like a UUID"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use uuid::Variant;

    #[test]
    fn ids_round_trip_as_text_and_follow_from_their_parts() {
        let id = MessageId::new();
        assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        assert_eq!("x".parse::<MessageId>().unwrap_err().kind(), ErrorKind::Invalid);
        assert_ne!(MessageId::derived(&[b"ab", b"c"]), MessageId::derived(&[b"a", b"bc"]));
    }

    /// The worst random bits there are, and others.
    const RANDOM: [u128; 3] = [u128::MAX, 0, 0x1234_5678_9abc_4ef0_8123_4567_89ab_cdef];

    #[test]
    fn they_are_of_version_7_and_tell_their_millisecond() {
        for random in RANDOM {
            let random = || Uuid::from_u128(random & !(3 << 62) | 2 << 62).as_u128();
            for millis in [0, 1, 1_763_740_800_123, LAST_MILLIS as i64] {
                let mut id = next(0, Timestamp::from_millis(millis), random);
                for _ in 0..1000 {
                    let made = Uuid::from_u128(id);
                    assert_eq!((made.get_version_num(), made.get_variant()), (7, Variant::RFC4122), "{made}");
                    assert_eq!(id >> MILLIS_AT, millis as u128, "{made}");
                    id = next(id, Timestamp::from_millis(millis), random);
                }
            }
        }
    }

    #[test]
    fn they_are_made_in_order_whatever_the_clock_shows() {
        let mut last = 0;
        for millis in
            [-5, 0, 0, 1_700_000_000_000, 1_700_000_000_000, 1_600_000_000_000, -1, i64::MAX, i64::MAX, 5]
        {
            let id = next(last, Timestamp::from_millis(millis), || Uuid::new_v4().as_u128());
            assert!(id > last, "{millis}");
            last = id;
        }
    }

    #[test]
    fn a_later_millisecond_begins_with_other_random_bits() {
        let random = || Uuid::new_v4().as_u128();
        let bits = |millis| next(0, Timestamp::from_millis(millis), random) as u64;
        assert_eq!((1..1000).map(bits).collect::<HashSet<_>>().len(), 999);
    }

    #[test]
    fn threads_make_different_ones_each_in_its_order() {
        const EACH: usize = 20_000;
        let make = || (0..EACH).map(|_| MessageId::new()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(make)).collect();
        let mut all = HashSet::new();
        for thread in threads {
            let made = thread.join().unwrap();
            assert!(made.is_sorted());
            all.extend(made);
        }
        assert_eq!(all.len(), 8 * EACH);
    }
}
