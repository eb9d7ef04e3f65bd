//! The circuit breaker of one server: after several failures in a row it is left alone, then one request tries.
//!
//! Pure: it is told what time it is. Not here: what counts as a failure (`error.rs`).

use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Breaker {
    limit: u32,
    pause: Duration,
    failures: u32,
    closed_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(limit: u32, pause: Duration) -> Self {
        Self { limit: limit.max(1), pause, failures: 0, closed_until: None }
    }

    /// Whether a request may go out now; else for how long none may. After the pause one may, and the others wait for how it went.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.closed_until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                self.closed_until = Some(now + self.pause);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether it is open: requests are refused.
    pub(super) fn is_open(&self) -> bool {
        self.closed_until.is_some()
    }

    /// A request was answered. Whether that ended a pause.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.closed_until.take().is_some()
    }

    /// A request failed. Whether that began a pause.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.limit {
            return false;
        }
        self.closed_until.replace(now + self.pause).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_lets_one_try_and_closes_with_a_success() {
        let second = Duration::from_secs(1);
        let now = Instant::now();
        let mut breaker = Breaker::new(3, second);
        assert!(!breaker.failed(now) && !breaker.failed(now) && !breaker.succeeded());
        assert!(!breaker.failed(now) && !breaker.failed(now) && breaker.failed(now));
        assert_eq!(breaker.admit(now), Err(second));
        assert_eq!(breaker.admit(now + second), Ok(()));
        assert_eq!(breaker.admit(now + second), Err(second), "one request at a time tries");
        assert!(!breaker.failed(now + second), "it was open before");
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(now + 2 * second), Ok(()));
        assert!(breaker.succeeded());
        assert_eq!(breaker.admit(now + 2 * second), Ok(()));
        assert!(!breaker.is_open());
    }
}
