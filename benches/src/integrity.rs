//! What became of the messages: lost, duplicated, reordered, unexpected, counted exactly in bounded memory. Pure.
//!
//! The producer and the number in each stamp tell which message it is; one bit for each remembers that it came. Those behind which
//! everything came are forgotten. The order is that of a key among the messages of one producer, which is what the bus promises.
//! Not here: the stamp (`payload.rs`).

use crate::payload::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};

/// The most pairs of producer and key whose order is watched: 32 MiB.
pub const MOST_ORDERS: u64 = 4 << 20;
/// How many messages may have come after one that did not, all producers together: 128 MiB of bits. Beyond that the oldest are judged for
/// good.
const WINDOW: u64 = 1 << 30;
/// The most messages with no ack that are remembered.
const MOST_UNACKED: usize = 1 << 20;
const BITS: u64 = 4096;

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that came, each counted once.
    pub received: u64,
    /// Messages that were acked and did not come.
    pub lost: u64,
    /// Times that a message came again.
    pub duplicated: u64,
    /// Messages that came after a later one of their key and producer; `None` where messages have no key, and so no order.
    pub reordered: Option<u64>,
    /// Messages that nobody of this run sent, or that were certainly not written.
    pub unexpected: u64,
    /// Messages whose fate could not be told within the memory there is: they came too long after the others.
    pub untold: u64,
}

/// Watches what comes.
#[derive(Debug)]
pub struct Integrity {
    run: u32,
    keys: u32,
    /// The most blocks of one producer.
    window: usize,
    producers: Vec<Producer>,
    unacked: HashMap<(u32, u64), bool>,
    seen_unacked: HashSet<(u32, u64)>,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct Producer {
    sent: u64,
    /// The number of the first block; everything before it came, or is forgotten.
    base: u64,
    /// The blocks before this one are forgotten where something of them did not come.
    forgotten: u64,
    blocks: VecDeque<Block>,
    /// One more than the last number that came of each key; empty until one comes.
    last: Vec<u64>,
}

/// What came of `BITS` messages.
#[derive(Clone, Debug)]
enum Block {
    None,
    Some(Box<[u64; (BITS / 64) as usize]>, u64),
    All,
}

impl Block {
    /// Whether it came for the first time.
    fn mark(&mut self, bit: u64) -> bool {
        if matches!(self, Self::None) {
            *self = Self::Some(Box::new([0; (BITS / 64) as usize]), 0);
        }
        let Self::Some(words, count) = self else { return false };
        let (word, mask) = (&mut words[(bit / 64) as usize], 1 << (bit % 64));
        let first = *word & mask == 0;
        *word |= mask;
        *count += u64::from(first);
        if *count == BITS {
            *self = Self::All;
        }
        first
    }

    fn has(&self, bit: u64) -> bool {
        match self {
            Self::None => false,
            Self::Some(words, _) => words[(bit / 64) as usize] >> (bit % 64) & 1 == 1,
            Self::All => true,
        }
    }
}

impl Integrity {
    /// Watches the messages of a run by so many producers, with so many keys (0: they have none).
    ///
    /// # Errors
    /// More producers times keys than [`MOST_ORDERS`].
    pub fn new(run: u32, producers: u32, keys: u32) -> Result<Self, String> {
        if u64::from(producers) * u64::from(keys) > MOST_ORDERS {
            return Err(format!(
                "{producers} producers with {keys} keys each are more orders than can be watched: at most {MOST_ORDERS}; use fewer keys \
                 or producers"
            ));
        }
        let verdict = Verdict { reordered: (keys > 0).then_some(0), ..Verdict::default() };
        Ok(Self {
            run,
            keys,
            window: (WINDOW / BITS / u64::from(producers.max(1))).max(1) as usize,
            producers: (0..producers).map(|_| Producer::default()).collect(),
            unacked: HashMap::new(),
            seen_unacked: HashSet::new(),
            verdict,
        })
    }

    /// A producer sent the message of its next number. Must be said before the message can come.
    pub fn sent(&mut self, producer: u32) {
        if let Some(producer) = self.producers.get_mut(producer as usize) {
            producer.sent += 1;
            self.verdict.sent += 1;
        }
    }

    /// That message was not acked: it is not lost if it does not come. It may come all the same where `may_be_written`. `false`: there are
    /// too many of these to go on.
    pub fn not_acked(&mut self, producer: u32, number: u64, may_be_written: bool) -> bool {
        if self.unacked.len() >= MOST_UNACKED {
            return false;
        }
        let came = self.producers.get_mut(producer as usize).is_some_and(|state| state.has(number));
        if came {
            self.seen_unacked.insert((producer, number));
        }
        if came && !may_be_written {
            self.verdict.unexpected += 1;
        }
        self.unacked.insert((producer, number), may_be_written);
        true
    }

    /// A message came, with that stamp, if any. Whether it is one of this run that came for the first time.
    pub fn received(&mut self, stamp: Option<&Stamp>) -> bool {
        let known = stamp.filter(|stamp| {
            stamp.run == self.run
                && stamp.key.is_none_or(|key| key < self.keys)
                && self.producers.get(stamp.producer as usize).is_some_and(|state| stamp.number < state.sent)
        });
        let Some(stamp) = known else {
            self.verdict.unexpected += 1;
            return false;
        };
        let Some(state) = self.producers.get_mut(stamp.producer as usize) else { return false };
        match state.mark(stamp.number, self.window) {
            Some(true) => {}
            Some(false) => {
                self.verdict.duplicated += 1;
                return false;
            }
            None => {
                self.verdict.untold += 1;
                return false;
            }
        }
        self.verdict.received += 1;
        if let Some(may_be_written) = self.unacked.get(&(stamp.producer, stamp.number)) {
            self.seen_unacked.insert((stamp.producer, stamp.number));
            self.verdict.unexpected += u64::from(!may_be_written);
        }
        if let Some(key) = stamp.key {
            if state.last.is_empty() {
                state.last = vec![0; self.keys as usize];
            }
            let last = &mut state.last[key as usize];
            if stamp.number < *last {
                *self.verdict.reordered.get_or_insert(0) += 1;
            }
            *last = (*last).max(stamp.number + 1);
        }
        true
    }

    /// Messages that were acked and did not come yet.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let excused = (self.unacked.len() - self.seen_unacked.len()) as u64;
        self.verdict.sent - self.verdict.received - excused
    }

    /// What became of them, if nothing more comes.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict { lost: self.missing(), ..self.verdict }
    }
}

impl Producer {
    fn has(&self, number: u64) -> bool {
        match (number / BITS).checked_sub(self.base) {
            None => true,
            Some(at) => self.blocks.get(at as usize).is_some_and(|block| block.has(number % BITS)),
        }
    }

    /// Whether it came for the first time; `None`: nobody knows any more. Keeps at most `window` blocks.
    fn mark(&mut self, number: u64, window: usize) -> Option<bool> {
        let block = number / BITS;
        if block < self.forgotten {
            return None;
        }
        let Some(at) = block.checked_sub(self.base) else {
            return Some(false);
        };
        while self.blocks.len() as u64 <= at {
            self.blocks.push_back(Block::None);
        }
        let first = self.blocks[at as usize].mark(number % BITS);
        while self.blocks.len() > window {
            self.blocks.pop_front();
            self.base += 1;
            self.forgotten = self.base;
        }
        while matches!(self.blocks.front(), Some(Block::All)) {
            self.blocks.pop_front();
            self.base += 1;
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stamp(producer: u32, key: u32, number: u64) -> Stamp {
        Stamp { run: 1, producer, key: Some(key), number, intended: Duration::ZERO }
    }

    /// Two producers that sent so many each, to three keys.
    fn watching(sent: u64) -> Integrity {
        let mut integrity = Integrity::new(1, 2, 3).unwrap();
        for producer in [0, 1] {
            (0..sent).for_each(|_| integrity.sent(producer));
        }
        integrity
    }

    #[test]
    fn what_comes_once_in_order_is_fine() {
        let mut integrity = watching(10_000);
        for number in 0..10_000 {
            for producer in [0, 1] {
                assert!(integrity.received(Some(&stamp(producer, number as u32 % 3, number))));
            }
        }
        let fine = Verdict { sent: 20_000, received: 20_000, reordered: Some(0), ..Verdict::default() };
        assert_eq!(integrity.verdict(), fine);
        // Everything came: nothing but the last block of each is remembered.
        assert!(integrity.producers.iter().all(|producer| producer.blocks.len() == 1));
    }

    #[test]
    fn each_kind_of_harm_is_counted_and_no_other() {
        let mut integrity = watching(10);
        for number in [0, 1, 3, 2, 4, 4, 6] {
            integrity.received(Some(&stamp(0, 0, number)));
        }
        // 2 came after 3; 4 came twice; 5, 7, 8, 9 and all ten of the other did not come.
        let expected = Verdict {
            sent: 20,
            received: 6,
            lost: 14,
            duplicated: 1,
            reordered: Some(1),
            ..Verdict::default()
        };
        assert_eq!(integrity.verdict(), expected);
        // Of another run, of nobody, of a number that was not sent, of a key there is not, without a stamp.
        for stamp in [Stamp { run: 2, ..stamp(0, 0, 0) }, stamp(2, 0, 0), stamp(0, 0, 10), stamp(0, 3, 5)] {
            assert!(!integrity.received(Some(&stamp)));
        }
        assert!(!integrity.received(None));
        assert_eq!(integrity.verdict(), Verdict { unexpected: 5, ..expected });
    }

    #[test]
    fn other_keys_and_other_producers_have_an_order_of_their_own() {
        let mut integrity = watching(4);
        for (producer, key, number) in [(0, 0, 3), (0, 1, 2), (1, 0, 1), (0, 2, 0)] {
            integrity.received(Some(&stamp(producer, key, number)));
        }
        assert_eq!(integrity.verdict().reordered, Some(0));
        // Without keys there is no order to watch.
        let mut keyless = Integrity::new(1, 1, 0).unwrap();
        keyless.sent(0);
        assert!(!keyless.received(Some(&stamp(0, 0, 0))));
        assert!(keyless.received(Some(&Stamp { key: None, ..stamp(0, 0, 0) })));
        assert_eq!((keyless.verdict().reordered, keyless.verdict().unexpected), (None, 1));
    }

    #[test]
    fn what_was_not_acked_is_not_lost_and_may_come_only_where_it_may_be_written() {
        let mut integrity = watching(3);
        for producer in [0, 1] {
            assert!(integrity.not_acked(producer, 0, false));
            assert!(integrity.not_acked(producer, 1, true));
        }
        assert_eq!(integrity.missing(), 2);
        integrity.received(Some(&stamp(0, 0, 1)));
        assert_eq!((integrity.missing(), integrity.verdict().unexpected), (2, 0));
        integrity.received(Some(&stamp(0, 0, 0)));
        assert_eq!((integrity.missing(), integrity.verdict().unexpected), (2, 1));
        // The answer may also come after the message.
        integrity.received(Some(&stamp(1, 0, 2)));
        assert!(integrity.not_acked(1, 2, true));
        assert_eq!((integrity.missing(), integrity.verdict().unexpected), (1, 1));
        assert_eq!(integrity.verdict().duplicated, 0);
    }

    #[test]
    fn memory_is_bounded_and_what_cannot_be_told_is_told() {
        let mut integrity = watching(10 * BITS);
        integrity.window = 2;
        // The first never comes; from the fourth block on the first is forgotten.
        for number in 1..4 * BITS {
            integrity.received(Some(&stamp(0, 0, number)));
        }
        assert!(integrity.producers[0].blocks.len() <= 2);
        let before = integrity.verdict();
        assert_eq!((before.untold, before.duplicated), (0, 0));
        integrity.received(Some(&stamp(0, 0, 0)));
        assert_eq!(integrity.verdict(), Verdict { untold: 1, ..before });
        assert!(Integrity::new(1, 1_000, 1_000_000).unwrap_err().contains("fewer keys"));
    }
}
