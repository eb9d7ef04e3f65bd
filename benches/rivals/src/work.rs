//! The messages that everybody writes, and how it is told that what is read back is the same.
//!
//! Message `i` is the same wherever it is made, and cheap to make: payloads and headers are shared, nothing asks a clock or a lot.
//! Not here: how a store lays it out (`record.rs`, `arms/`).

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use ropeway_broker::{Headers, Message, MessageId, Timestamp};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many payloads and keys there are.
const PAYLOADS: usize = 256;
const KEYS: u64 = 10_000;

/// Makes messages of one size.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    payloads: Vec<Bytes>,
    keys: Vec<Bytes>,
    headers: Headers,
}

impl Work {
    /// Messages with that many bytes of payload, half of them random, three headers and one of 10,000 keys.
    pub(crate) fn new(payload: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(1);
        let payloads = (0..PAYLOADS)
            .map(|_| {
                let mut bytes = vec![b'x'; payload];
                random.fill(&mut bytes[..payload / 2]);
                bytes.into()
            })
            .collect();
        let keys = (0..KEYS).map(|key| format!("customer-{key:05}").into()).collect();
        let headers = Headers::builder()
            .add("ce_type", Some("order.created"))
            .add("ce_source", Some("/rivals"))
            .add("traceparent", Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
            .build();
        Self { payloads, keys, headers }
    }

    /// Message `i`.
    pub(crate) fn message(&self, i: u64) -> Message {
        let mixed = mix(i);
        Message {
            id: MessageId::from_u128((u128::from(mixed) << 64) | u128::from(i)),
            key: Some(self.keys[(mixed % KEYS) as usize].clone()),
            headers: self.headers.clone(),
            payload: Some(self.payloads[i as usize % PAYLOADS].clone()),
            timestamp: Timestamp::from_millis(1_700_000_000_000 + i as i64),
            deliver_at: None,
        }
    }

    /// What [`Seen`] comes to where messages `0..count` were read, each once.
    pub(crate) fn expected(&self, count: u64) -> Seen {
        let mut seen = Seen::default();
        (0..count).for_each(|i| seen.add(&self.message(i)));
        seen
    }
}

/// Spreads numbers evenly (the finalizer of splitmix64).
const fn mix(i: u64) -> u64 {
    let i = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let i = (i ^ (i >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let i = (i ^ (i >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    i ^ (i >> 31)
}

/// How many messages were read and what they were, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) count: u64,
    sum: u64,
}

impl Seen {
    /// Adds a message: key, id, headers, payload and time.
    pub(crate) fn add(&mut self, message: &Message) {
        let mut hasher = DefaultHasher::new();
        message.id.hash(&mut hasher);
        message.key.hash(&mut hasher);
        message.headers.packed().hash(&mut hasher);
        message.payload.hash(&mut hasher);
        message.timestamp.hash(&mut hasher);
        self.count += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }

    /// Whether it is what was written.
    ///
    /// # Errors
    /// Says what is missing, or that something differs.
    pub(crate) fn check(self, expected: Self, who: &str) -> crate::Result<()> {
        if self == expected {
            return Ok(());
        }
        let (found, wanted) = (self.count, expected.count);
        Err(if found == wanted {
            format!("{who} gave back {found} messages, and not the same bytes as were written").into()
        } else {
            format!("{who} gave back {found} messages of {wanted} that were written").into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_missing_repeated_or_changed_is_noticed() {
        let work = Work::new(64);
        let expected = work.expected(3);
        let seen = |messages: [Message; 3]| {
            let mut seen = Seen::default();
            messages.iter().for_each(|message| seen.add(message));
            seen.check(expected, "a store")
        };
        let [a, b, c] = [0, 1, 2].map(|i| work.message(i));
        assert!(seen([c.clone(), a.clone(), b.clone()]).is_ok());
        assert!(seen([a.clone(), a.clone(), c.clone()]).is_err());
        let changed = [
            Message { headers: Headers::new(), ..c.clone() },
            Message { key: None, ..c.clone() },
            Message { id: MessageId::from_u128(7), ..c.clone() },
            Message { payload: None, ..c },
        ];
        for changed in changed {
            assert!(seen([a.clone(), b.clone(), changed]).is_err());
        }
        assert!(
            work.expected(2).check(expected, "a store").unwrap_err().to_string().contains("2 messages of 3")
        );
    }
}
