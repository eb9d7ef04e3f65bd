//! The time that steps are decided by, and how it goes on across restarts. Pure but for asking the [`Clock`].
//!
//! Two times. The *time of day* is the machine's: delays wait for it, messages and epochs are stamped with it. *Steady* time measures: nobody
//! can set it, so a clock that is set back or forward neither stalls nor hastens deadlines, ages and windows. A [`Mark`] is stored now and
//! then, so that steady time goes on where it stopped, and the time between counts.
//!
//! | The machine's clock is set | Delayed messages | Everything else |
//! |---|---|---|
//! | forward, while the broker runs | those that are due by it now come at once | as if nothing had happened |
//! | back, while the broker runs | wait until it shows their time | as if nothing had happened |
//! | forward or back, while it is closed and the machine runs | by the clock | as if nothing had happened (Linux) |
//! | forward, while the machine is off | by the clock | that time counts as passed |
//! | back, while the machine is off | by the clock | no time has passed |
//!
//! Not here: what is due when (`core/timers.rs`), the machine's clock (`broker/src/clock.rs`).

use crate::{Clock, Timestamp};
use std::{ops::Add, sync::Arc, time::Duration};

/// A point in steady time, in milliseconds. It counts from about when the directory was made, starting with the time of day of then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Steady(u64);

impl Steady {
    pub(super) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(super) const fn as_millis(self) -> u64 {
        self.0
    }

    /// How much time has passed since then; none where that is later.
    pub(super) const fn since(self, then: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(then.0))
    }
}

impl Add<Duration> for Steady {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What time it is, and by which clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) steady: Steady,
    pub(super) time_of_day: Timestamp,
    /// [`Clock::origin`].
    pub(super) origin: u128,
    /// [`Clock::steady`], in whole milliseconds.
    pub(super) passed: Duration,
}

/// A clock whose steady time goes on from where the stored one stopped.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    base: Steady,
    from: Duration,
}

impl Pace {
    /// Goes on from the stored mark; without one, steady time begins with the time of day.
    pub(super) fn resume(clock: Arc<dyn Clock>, stored: Option<Mark>) -> Self {
        let (from, time_of_day) = (clock.steady(), clock.now());
        let base = match stored {
            None => Steady(u64::try_from(time_of_day.as_millis()).unwrap_or(0)),
            // The same clock still runs: what has passed is known, however the time of day was set.
            Some(mark) if mark.origin == clock.origin() && mark.passed <= from => {
                mark.steady + (from - mark.passed)
            }
            Some(mark) => mark.steady + time_of_day.since(mark.time_of_day),
        };
        Self { clock, base, from }
    }

    pub(super) fn time_of_day(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn steady(&self) -> Steady {
        self.at(self.clock.steady())
    }

    fn at(&self, passed: Duration) -> Steady {
        self.base + passed.saturating_sub(self.from)
    }

    /// Both, and what is needed to go on from here.
    pub(super) fn now(&self) -> Mark {
        let passed = self.clock.steady();
        Mark {
            steady: self.at(passed),
            time_of_day: self.clock.now(),
            origin: self.clock.origin(),
            passed: Duration::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokioClock;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn clock(at: i64) -> Arc<TokioClock> {
        Arc::new(TokioClock::starting_at(Timestamp::from_millis(at)))
    }

    #[tokio::test(start_paused = true)]
    async fn steady_time_goes_on_whatever_is_done_to_the_time_of_day() {
        let first = clock(1_000_000_000);
        let pace = Pace::resume(first.clone(), None);
        assert_eq!(pace.steady(), Steady(1_000_000_000));
        for to in [0, 5_000_000_000_000] {
            first.set(Timestamp::from_millis(to));
            let before = pace.steady();
            tokio::time::advance(Duration::from_secs(7)).await;
            assert_eq!(pace.steady().since(before), Duration::from_secs(7));
        }
        // A restart of the process: the machine's clock went on, and is set meanwhile.
        let mark = pace.now();
        for to in [-1, 0, 9_000_000_000_000] {
            tokio::time::advance(Duration::from_secs(60)).await;
            first.set(Timestamp::from_millis(to));
            let again = Pace::resume(first.clone(), Some(mark));
            assert_eq!(again.steady().since(mark.steady), Duration::from_secs(first.steady().as_secs() - 14));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_of_the_machine_the_time_of_day_tells_how_long_it_was_off() {
        let pace = Pace::resume(clock(1_000_000_000), None);
        let mark = pace.now();
        let later = Pace::resume(clock(1_000_000_000 + 5000), Some(mark));
        assert_eq!(later.steady().since(mark.steady), Duration::from_secs(5));
        let back = Pace::resume(clock(7), Some(mark));
        assert_eq!(back.steady(), mark.steady, "never back");
        let ahead = Pace::resume(clock(1_000_000_000 + DAY.as_millis() as i64), Some(mark));
        assert_eq!(ahead.steady().since(mark.steady), DAY);
    }
}
