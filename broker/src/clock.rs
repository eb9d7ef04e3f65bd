//! The clock of the bus. The only place in this crate that asks the machine what time it is.

use crate::Timestamp;
use std::{
    fmt::Debug,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// Tells the time of day.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Now. Never earlier than what it answered before.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, made monotonic: where it is set back, time goes on at the pace of the monotonic clock.
#[derive(Debug, Default)]
pub struct SystemClock {
    last: Mutex<Option<(Timestamp, Instant)>>,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let wall = wall();
        let instant = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, at) = last.unwrap_or((wall, instant));
        let passed = Duration::from_millis(instant.saturating_duration_since(at).as_millis() as u64);
        let now = wall.max(then + passed);
        // Only whole milliseconds are taken off, so that asking often does not slow the clock down.
        *last = Some((now, at + passed));
        now
    }
}

/// A clock that follows tokio's, which a test can pause and move.
#[derive(Debug)]
pub struct TokioClock {
    start: Timestamp,
    at: Instant,
}

impl TokioClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, at: Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::starting_at(wall())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start + self.at.elapsed()
    }
}

pub(crate) fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_goes_on_at_full_speed_however_often_it_is_asked() {
        let clock = SystemClock::default();
        let ahead = wall() + Duration::from_secs(3600);
        *clock.last.lock().unwrap() = Some((ahead, Instant::now()));
        let start = Instant::now();
        let mut now = clock.now();
        while start.elapsed() < Duration::from_millis(100) {
            let next = clock.now();
            assert!(next >= now);
            now = next;
        }
        let end = clock.now();
        assert!(end >= ahead + Duration::from_millis(99), "{}", end.since(ahead).as_millis());
    }
}
