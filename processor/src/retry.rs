//! How often and how soon again.
//!
//! Pure: exponential backoff with full jitter, and the decision after a failed attempt. The journal of retries belongs beside
//! [`After`]: it adds an answer between waiting in place and the dead-letter topic.
//! Not here: waiting (`lanes/`), writing dead letters (`dead_letter/`).

use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often a handler is tried and how long to wait between.
///
/// The wait after the n-th failed attempt is drawn evenly from 0 to `min(max_delay, first_delay * factor^(n-1))` (full jitter, so that what
/// failed together does not come back together); without jitter it is that whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// How often a handler is tried in all: 1 to 1,000,000. Default 5.
    pub max_attempts: u32,
    /// The longest wait after the first failed attempt. Default 100 ms.
    pub first_delay: Duration,
    /// What the wait grows by from attempt to attempt: 1 to 100. Default 2.
    pub factor: f64,
    /// No wait is longer, unless a handler asks for it: at most 1 day. Default 30 s.
    pub max_delay: Duration,
    /// Whether waits are drawn by lot. Default yes.
    pub jitter: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            first_delay: Duration::from_millis(100),
            factor: 2.0,
            max_delay: Duration::from_secs(30),
            jitter: true,
        }
    }
}

/// The longest wait there is: what a handler asks for is cut to it.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl RetryPolicy {
    /// One attempt and no retry.
    #[must_use]
    pub fn never() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// That many attempts in all, else the defaults.
    #[must_use]
    pub fn attempts(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// `Invalid` that names the field, its value and its bounds.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if !(1..=1_000_000).contains(&self.max_attempts) {
            return wrong(format!("retry: max_attempts is {} and takes 1 to 1000000", self.max_attempts));
        }
        if !(1.0..=100.0).contains(&self.factor) {
            return wrong(format!("retry: factor is {} and takes 1 to 100", self.factor));
        }
        if self.max_delay > LONGEST {
            return wrong(format!("retry: max_delay is {:?} and takes at most 1 day", self.max_delay));
        }
        Ok(())
    }

    /// The longest wait after that many failed attempts.
    #[must_use]
    pub fn longest_wait(&self, failed: u32) -> Duration {
        if self.first_delay.is_zero() {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first_delay.as_secs_f64() * self.factor.powi(exponent);
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(self.max_delay)
    }
}

/// What to do after an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Try again when that has passed; the key waits.
    Wait(Duration),
    /// That was the last attempt.
    Exhausted,
}

/// Draws waits. Seeded, so that a run can be repeated.
#[derive(Debug)]
pub(crate) struct Backoff {
    random: StdRng,
}

impl Backoff {
    /// Repeats itself for the same seed; `None` takes one by lot.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self { random: StdRng::seed_from_u64(seed.unwrap_or_else(rand::random)) }
    }

    /// Decides after attempt `attempt` (from 1) failed. `asked` is the wait that the handler asked for.
    pub(crate) fn after(&mut self, policy: &RetryPolicy, attempt: u32, asked: Option<Duration>) -> After {
        if attempt >= policy.max_attempts {
            return After::Exhausted;
        }
        After::Wait(asked.map_or_else(|| self.wait(policy, attempt), |asked| asked.min(LONGEST)))
    }

    /// A wait after that many failed attempts.
    pub(crate) fn wait(&mut self, policy: &RetryPolicy, failed: u32) -> Duration {
        let longest = policy.longest_wait(failed);
        if policy.jitter { longest.mul_f64(self.random.random_range(0.0..=1.0)) } else { longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_grow_by_the_factor_up_to_the_longest() {
        let policy = RetryPolicy {
            first_delay: Duration::from_millis(100),
            factor: 1.5,
            max_delay: Duration::from_millis(300),
            jitter: false,
            ..RetryPolicy::default()
        };
        let waits: Vec<u128> = (1..6).map(|n| policy.longest_wait(n).as_millis()).collect();
        assert_eq!(waits, [100, 150, 225, 300, 300]);
        assert_eq!(policy.longest_wait(u32::MAX), policy.max_delay);
    }

    #[test]
    fn the_same_seed_draws_the_same_waits_and_they_spread_over_the_whole_range() {
        let policy = RetryPolicy { max_attempts: 10_000, ..RetryPolicy::default() };
        let draw = |seed| {
            let mut backoff = Backoff::new(Some(seed));
            (0..1000).map(|_| backoff.wait(&policy, 4)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let (low, high) = (draw(7).into_iter().min().unwrap(), draw(7).into_iter().max().unwrap());
        assert!(low < Duration::from_millis(40) && high > Duration::from_millis(760), "{low:?} {high:?}");
    }

    #[test]
    fn the_last_attempt_is_the_last_also_where_the_handler_asks_for_another() {
        let mut backoff = Backoff::new(Some(1));
        let policy = RetryPolicy::attempts(3);
        let asked = Some(Duration::from_secs(90));
        assert_eq!(backoff.after(&policy, 2, asked), After::Wait(Duration::from_secs(90)));
        assert_eq!(backoff.after(&policy, 3, asked), After::Exhausted);
        assert_eq!(backoff.after(&RetryPolicy::never(), 1, None), After::Exhausted);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for policy in [
            RetryPolicy::attempts(0),
            RetryPolicy { factor: f64::NAN, ..RetryPolicy::default() },
            RetryPolicy { factor: 0.5, ..RetryPolicy::default() },
            RetryPolicy { max_delay: Duration::MAX, ..RetryPolicy::default() },
        ] {
            assert!(policy.check().unwrap_err().to_string().starts_with("retry: "));
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(attempt in 1u32.., factor in 1.0f64..100.0, first in 0u64..u64::MAX, seed: u64) {
            let policy = RetryPolicy { factor, first_delay: Duration::from_millis(first), ..RetryPolicy::default() };
            prop_assert!(Backoff::new(Some(seed)).wait(&policy, attempt) <= policy.max_delay);
        }
    }
}
