//! Failures that last: when they end a reader or a member, and how often a task that nobody waits for tells of them.
//!
//! Pure: time is told. Not here: what an error of the server means (`failure.rs`).

use crate::{Error, ErrorKind};
use ropeway_store::redis;
use std::{error::Error as _, time::Duration};
use tokio::time::Instant;

/// How long a server may refuse what is asked again and again before that is the end: rights and keys are seldom changed in one step.
const REFUSED: Duration = Duration::from_secs(3);
/// The same where it cannot be agreed with it to talk at all: what answers there may be something else for a moment (a load balancer), and a server
/// that is stopped looks like one that does not speak TLS.
const STRANGE: Duration = Duration::from_secs(30);
/// How often a task tells of what it fails by.
const SELDOM: Duration = Duration::from_secs(60);

/// For how long an error must be met before it is the end; `None`: it goes by itself.
fn ends_after(error: &Error) -> Option<Duration> {
    use redis::ErrorKind as Kind;
    match error.kind() {
        ErrorKind::Unauthorized
        | ErrorKind::Conflict
        | ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::TooLarge
        | ErrorKind::Corrupt => {
            let cause = error.source().and_then(|cause| cause.downcast_ref::<redis::Error>());
            let strange = |cause: &redis::Error| {
                matches!(cause.kind(), Kind::Tls | Kind::NotRedis | Kind::Refused | Kind::Settings)
            };
            Some(if cause.is_some_and(strange) { STRANGE } else { REFUSED })
        }
        _ => None,
    }
}

/// Whether a server refuses what was asked, and nobody but the user can change that.
pub(super) fn is_refusal(error: &Error) -> bool {
    ends_after(error) == Some(REFUSED)
}

/// Which of several failures is told: what was refused, rather than what goes by itself.
pub(super) fn told(before: Option<Error>, error: Error) -> Option<Error> {
    before.filter(is_refusal).or(Some(error))
}

/// What somebody who tries again and again was refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since: Option<Instant>,
}

impl Refusals {
    /// It succeeded.
    pub(super) fn over(&mut self) {
        self.since = None;
    }

    /// Whether this is the end: nothing but that was met for long enough, and nobody but the user can change it.
    pub(super) fn last(&mut self, error: &Error, now: Instant) -> bool {
        let Some(limit) = ends_after(error) else {
            self.since = None;
            return false;
        };
        now.saturating_duration_since(*self.since.get_or_insert(now)) >= limit
    }
}

/// What is told of seldom.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    told: Option<Instant>,
    kept: u64,
}

impl Seldom {
    /// Whether it is told now, and then how often it was not told since the last time.
    pub(super) fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now < told + SELDOM) {
            self.kept += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.kept))
    }

    /// The same of a failure: not of one that goes by itself.
    pub(super) fn tell_of(&mut self, error: &Error, now: Instant) -> Option<u64> {
        if is_refusal(error) { self.tell(now) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::failure::{late, refused};

    #[tokio::test(start_paused = true)]
    async fn what_nobody_but_the_user_can_change_is_the_end_when_it_lasts_and_nothing_else() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let denied = refused("h:1", "XREAD", b"NOPERM no");
        assert!(!refusals.last(&denied, now) && !refusals.last(&denied, now + REFUSED - SELDOM / 1000));
        assert!(refusals.last(&denied, now + REFUSED));
        refusals.over();
        assert!(!refusals.last(&denied, now + REFUSED), "it begins again");
        assert!(!refusals.last(&late("h:1"), now + REFUSED), "something else came between");
        assert!(!refusals.last(&denied, now + 2 * REFUSED) && refusals.last(&denied, now + 3 * REFUSED));
        for passing in
            ["LOADING x", "READONLY x", "UNBLOCKED x", "OOM x", "MISCONF x", "BUSY x", "MOVED 1 h:2"]
        {
            assert_eq!(ends_after(&refused("h:1", "XREAD", passing.as_bytes())), None, "{passing}");
        }
        for lasting in ["WRONGTYPE x", "NOPERM x", "NOAUTH x", "ERR x"] {
            assert_eq!(ends_after(&refused("h:1", "XREAD", lasting.as_bytes())), Some(REFUSED), "{lasting}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_all_the_time_is_told_of_seldom_and_counted() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        let times: Vec<_> = (0..130).map(|second| seldom.tell(now + Duration::from_secs(second))).collect();
        let told: Vec<_> = times.into_iter().enumerate().filter_map(|(at, told)| Some((at, told?))).collect();
        assert_eq!(told, [(0, 0), (60, 59), (120, 59)]);
    }
}
