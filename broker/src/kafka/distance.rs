//! How far away the servers are, and how much an answer to a member may bring for that.
//!
//! A client asks a server for one answer at a time: of one that is far away little comes where answers are small. Where it is near, small ones are better: what they
//! bring is still in the processor's caches when it is looked at and copied. Not here: who asks (`broker.rs`), what else clients are told (`settings/clients.rs`).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What an answer brings at the least and at the most, in bytes.
const ANSWER: (usize, usize) = (2 * 1024 * 1024, 16 * 1024 * 1024);
/// How much may come of a server in a second though it is asked for one answer at a time, in bytes.
const RATE: usize = 1024 * 1024 * 1024;
/// An answer that takes so long to come is as far away as is told apart.
pub(super) const FAR: Duration = Duration::from_millis((ANSWER.1 * 1000 / RATE) as u64 + 1);

/// How long an answer takes that brings nothing: the least there was.
#[derive(Debug)]
pub(super) struct Distance {
    micros: AtomicU64,
}

impl Default for Distance {
    fn default() -> Self {
        Self { micros: AtomicU64::new(u64::MAX) }
    }
}

impl Distance {
    /// Notes how long an answer took.
    pub(super) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_min(micros, Ordering::Relaxed);
    }

    /// What an answer to a member is to bring at the most, in bytes: as much as comes meanwhile at [`RATE`].
    pub(super) fn answer(&self) -> usize {
        let micros = usize::try_from(self.micros.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        micros.saturating_mul(RATE / 1_000_000).clamp(ANSWER.0, ANSWER.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_brings_more_the_farther_the_server_is_between_bounds() {
        let distance = Distance::default();
        assert_eq!(distance.answer(), 16 << 20, "nothing is known yet");
        let answer = |micros| {
            distance.took(Duration::from_micros(micros));
            distance.answer()
        };
        assert_eq!(answer(u64::MAX), 16 << 20);
        assert_eq!(answer(u64::try_from(FAR.as_micros()).unwrap()), 16 << 20);
        assert!((7 << 20..9 << 20).contains(&answer(8_000)));
        assert_eq!(answer(1_900), 2 << 20);
        assert_eq!(answer(1), 2 << 20);
        assert_eq!(answer(100_000), 2 << 20, "the least counts");
    }
}
