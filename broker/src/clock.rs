//! The clock of the bus. The only place in this crate that asks the machine what time it is.
//! Not here: how the embedded broker carries its time across restarts (`embedded/time.rs`).

use crate::Timestamp;
#[cfg(not(target_os = "linux"))]
use std::time::{SystemTime, UNIX_EPOCH};
use std::{
    fmt::Debug,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Tells the time, in two ways: what people and other machines mean by a time, and how much of it has passed.
///
/// Somebody sets the machine's clock back or forward: the time of day jumps with it, steady time does not. So a time that somebody named
/// (deliver-at, start at) is compared to the time of day, and a time span (a deadline, an age, a window) is measured in steady time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time of day. It jumps, back too, where the machine's clock is set.
    fn now(&self) -> Timestamp;

    /// How much time has passed since [`Self::origin`]. It never goes back, no setting of the machine's clock moves it, and it goes on
    /// while the machine sleeps, where the operating system can tell.
    fn steady(&self) -> Duration;

    /// What steady time counts from. Where two clocks answer the same (those of two processes, say), their steady times can be compared.
    fn origin(&self) -> u128;
}

/// The machine's clock. Steady time counts from the machine's start on Linux, and from the start of this process elsewhere.
///
/// In a test that pauses tokio's time and moves it ahead, both times run ahead with it.
#[derive(Debug)]
pub struct SystemClock {
    start: Duration,
    at: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        // In this order, so that as much or more has passed by the machine's clock than by tokio's.
        let start = passed();
        Self { start, at: Instant::now() }
    }
}

impl SystemClock {
    /// How much tokio's time is ahead, and the machine's steady time.
    fn ahead(&self) -> (Duration, Duration) {
        let virtually = self.at.elapsed();
        let passed = passed();
        (virtually.saturating_sub(passed.saturating_sub(self.start)), passed)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        wall() + self.ahead().0
    }

    fn steady(&self) -> Duration {
        let (ahead, passed) = self.ahead();
        passed + ahead
    }

    fn origin(&self) -> u128 {
        static ORIGIN: OnceLock<u128> = OnceLock::new();
        *ORIGIN.get_or_init(|| boot().unwrap_or_else(|| Uuid::new_v4().as_u128()))
    }
}

/// A clock that follows tokio's, which a test can pause and move. Its time of day can be set.
#[derive(Debug)]
pub struct TokioClock {
    /// What is added to the time that has passed, in milliseconds.
    shift: AtomicI64,
    at: Instant,
    origin: u128,
}

impl TokioClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        let shift = AtomicI64::new(start.as_millis());
        Self { shift, at: Instant::now(), origin: Uuid::new_v4().as_u128() }
    }

    /// Sets the time of day, back or forward. Steady time goes on as if nothing had happened.
    pub fn set(&self, now: Timestamp) {
        let passed = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.shift.store(now.as_millis().saturating_sub(passed), Ordering::SeqCst);
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::starting_at(wall())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.shift.load(Ordering::SeqCst)) + self.at.elapsed()
    }

    fn steady(&self) -> Duration {
        self.at.elapsed()
    }

    fn origin(&self) -> u128 {
        self.origin
    }
}

/// The machine's time of day; below zero where its clock shows a time before 1970.
#[cfg(target_os = "linux")]
pub(crate) fn wall() -> Timestamp {
    // Each message is stamped with it: half the work of `SystemTime`, which makes differences of it.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp::from_millis(now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000))
}

/// The machine's time of day; below zero where its clock shows a time before 1970.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let now = SystemTime::now();
    let millis = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(match now.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    })
}

/// How much time has passed since what [`boot`] names, else since the first call.
#[cfg(target_os = "linux")]
fn passed() -> Duration {
    // Unlike `Instant`, it counts the time for which the machine was suspended.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// How much time has passed since what [`boot`] names, else since the first call.
#[cfg(not(target_os = "linux"))]
fn passed() -> Duration {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// Which start of the machine steady time counts from, where it counts from that.
#[cfg(target_os = "linux")]
fn boot() -> Option<u128> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(Uuid::try_parse(id.trim()).ok()?.as_u128())
}

/// Which start of the machine steady time counts from, where it counts from that.
#[cfg(not(target_os = "linux"))]
const fn boot() -> Option<u128> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_machines_clock_runs_ahead_with_a_paused_time_that_is_moved() {
        let clock = SystemClock::default();
        let (now, steady) = (clock.now(), clock.steady());
        tokio::time::advance(Duration::from_secs(3600)).await;
        // What had passed really by the first look counts once.
        let least = Duration::from_secs(3000);
        assert!(clock.now().since(now) >= least);
        assert!(clock.steady() >= steady + least);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_of_day_that_is_set_leaves_steady_time_alone() {
        let clock = TokioClock::starting_at(Timestamp::from_millis(5_000_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        let steady = clock.steady();
        for to in [1_000_000, 9_000_000, -5] {
            clock.set(Timestamp::from_millis(to));
            assert_eq!((clock.now(), clock.steady()), (Timestamp::from_millis(to), steady));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(995));
    }

    #[test]
    fn the_time_of_day_is_the_systems() {
        #[expect(clippy::disallowed_methods, reason = "it is compared with the clock")]
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let (before, shown, after) = (now(), wall().as_millis() as u128, now());
        assert!(before <= shown && shown <= after, "{before} {shown} {after}");
    }

    #[test]
    fn two_clocks_of_this_machine_count_from_the_same() {
        let (one, other) = (SystemClock::default(), SystemClock::default());
        assert_eq!(one.origin(), other.origin());
        let (first, second, third) = (one.steady(), other.steady(), one.steady());
        assert!(first <= second && second <= third, "{first:?} {second:?} {third:?}");
    }
}
