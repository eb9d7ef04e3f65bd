//! The clock of this machine: how long is waited, and what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Until when something is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// From now on.
    #[expect(clippy::disallowed_methods, reason = "servers are other processes: nothing here can be paused")]
    pub(crate) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Whether it is over.
    #[expect(clippy::disallowed_methods, reason = "servers are other processes: nothing here can be paused")]
    pub(crate) fn is_over(self) -> bool {
        Instant::now() > self.0
    }
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "shown to people, and decides nothing")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
