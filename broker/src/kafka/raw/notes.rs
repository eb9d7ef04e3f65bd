//! What librdkafka says beside its answers: reasons why servers cannot be reached, and lines of its log.
//!
//! A call that fails for such a reason only says that it timed out. So the latest reason is kept, with its time, for whoever tells the user. Lines
//! of the log go to `tracing`, at most [`LINES`] a second. Not here: who calls this (`client.rs`), what a reason means (`../failure.rs`).

use super::code::{Code, Trouble};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How many lines of the log of a client are passed on within a second. How many were not is told with the next one that is.
const LINES: u32 = 20;

/// What was heard of one or more clients. Shared by `Arc`.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Notes {
    kept: Mutex<Kept>,
    /// The client gave up for good: it has to be made anew.
    fatal: AtomicBool,
    /// No server could be reached, and none was heard of since.
    down: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    latest: Option<(Instant, Trouble)>,
    /// The latest that trying again does not mend: a password, a certificate.
    refused: Option<(Instant, Trouble)>,
    /// When the current second of lines began, how many there were, and how many of these were not passed on.
    second: Option<Instant>,
    lines: u32,
    dropped: u32,
}

impl Notes {
    /// The latest reason, and when it was told. None where everything has gone well.
    pub(in crate::kafka) fn latest_at(&self) -> Option<(Instant, Trouble)> {
        self.kept().latest.clone()
    }

    /// The latest reason.
    pub(in crate::kafka) fn latest(&self) -> Option<Trouble> {
        self.latest_at().map(|(_, trouble)| trouble)
    }

    /// The latest reason that will not mend by itself, since a server was heard of: refused credentials or certificates (the library tries for ever).
    pub(in crate::kafka) fn refused(&self) -> Option<Trouble> {
        self.kept().refused.clone().map(|(_, trouble)| trouble)
    }

    /// Whether a client has given up for good.
    pub(in crate::kafka) fn is_fatal(&self) -> bool {
        self.fatal.load(Relaxed)
    }

    /// Whether no server could be reached, and nothing has been heard of one since.
    pub(in crate::kafka) fn brokers_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// Keeps a reason.
    pub(super) fn note(&self, trouble: Trouble) {
        match trouble.code {
            Code::ALL_BROKERS_DOWN => self.down.store(true, Relaxed),
            Code::FATAL => self.fatal.store(true, Relaxed),
            _ => {}
        }
        let now = Instant::now();
        let mut kept = self.kept();
        if matches!(trouble.code, Code::AUTHENTICATION | Code::SSL) {
            kept.refused = Some((now, trouble.clone()));
        }
        // That none is left says nothing that the reason before it does not say better.
        if trouble.code != Code::ALL_BROKERS_DOWN || kept.latest.is_none() {
            kept.latest = Some((now, trouble));
        }
    }

    /// A server has answered.
    pub(super) fn heard(&self) {
        // Read first: this is on the way of every batch.
        if self.down.load(Relaxed) {
            self.down.store(false, Relaxed);
            self.kept().refused = None;
        }
    }

    /// Passes a line of the log on, unless there were too many. `level` is that of syslog.
    pub(super) fn log(&self, level: i32, facility: &str, line: &str) {
        let Some(dropped) = self.room(Instant::now()) else { return };
        match level {
            ..=3 => tracing::warn!(target: "librdkafka", facility, dropped, "{line}"),
            4 => tracing::info!(target: "librdkafka", facility, dropped, "{line}"),
            _ => tracing::debug!(target: "librdkafka", facility, dropped, "{line}"),
        }
    }

    /// Whether one more line is passed on, and how many were not before it.
    fn room(&self, now: Instant) -> Option<u32> {
        let mut kept = self.kept();
        if kept.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            kept.second = Some(now);
            kept.lines = 0;
        }
        if kept.lines >= LINES {
            kept.dropped = kept.dropped.saturating_add(1);
            return None;
        }
        kept.lines += 1;
        Some(std::mem::take(&mut kept.dropped))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here can panic half-way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
