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

/// For how long a client has found no server when it is first told again where to begin, and the longest pause until it is told once more.
const LOST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What was heard of one or more clients. Shared by `Arc`.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Notes {
    kept: Mutex<Kept>,
    /// No server could be reached, and none was heard of since.
    down: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    latest: Option<Trouble>,
    /// The latest that trying again does not mend: a password, a certificate.
    refused: Option<Trouble>,
    /// No server could be reached: when it is told next where to begin, and the pause behind that.
    next: Option<(Instant, Duration)>,
    /// When the current second of lines began, how many there were, and how many of these were not passed on.
    second: Option<Instant>,
    lines: u32,
    dropped: u32,
}

impl Notes {
    /// The latest reason. None where everything has gone well.
    pub(in crate::kafka) fn latest(&self) -> Option<Trouble> {
        self.kept().latest.clone()
    }

    /// The latest reason that will not mend by itself, since a server was heard of: refused credentials or certificates (the library tries for ever).
    pub(in crate::kafka) fn refused(&self) -> Option<Trouble> {
        self.kept().refused.clone()
    }

    /// Whether no server could be reached, and nothing has been heard of one since.
    pub(in crate::kafka) fn brokers_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// Whether it is to be told now where to begin, since no server could be reached for a while: after 1 s, then after pauses that double, of 60 s at the most.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        if !self.brokers_down() {
            return false;
        }
        let next = &mut self.kept().next;
        let (at, pause) = next.unwrap_or((now + LOST.0, LOST.0 * 2));
        let lost = now >= at;
        *next = Some(if lost { (now + pause, (pause * 2).min(LOST.1)) } else { (at, pause) });
        lost
    }

    /// Keeps a reason.
    pub(super) fn note(&self, mut trouble: Trouble) {
        // What a server says of a certificate comes while data is received, as a failure of that.
        if trouble.code == Code::TRANSPORT && is_about_certificates(&trouble.text) {
            trouble.code = Code::SSL;
        }
        if trouble.code == Code::ALL_BROKERS_DOWN {
            self.down.store(true, Relaxed);
        }
        let mut kept = self.kept();
        if matches!(trouble.code, Code::AUTHENTICATION | Code::SSL) {
            kept.refused = Some(trouble.clone());
        }
        // That none is left says nothing that the reason before it does not say better.
        if trouble.code != Code::ALL_BROKERS_DOWN || kept.latest.is_none() {
            kept.latest = Some(trouble);
        }
    }

    /// A server has answered.
    pub(super) fn heard(&self) {
        // Read first: this is on the way of every batch.
        if self.down.load(Relaxed) {
            self.down.store(false, Relaxed);
            let mut kept = self.kept();
            kept.refused = None;
            kept.next = None;
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

/// Whether it is an alert of TLS by which a server refuses the certificate of a client, or asks for one.
fn is_about_certificates(text: &str) -> bool {
    let after = text.split_once("alert ").map(|(_, alert)| alert);
    after.is_some_and(|alert| alert.contains("certificate") || alert.contains("unknown ca"))
}

/// A line of the log that is a reason, and comes by no other way: that a server closed a connection as soon as it was asked something, as does one that
/// expects TLS, or a user; or that it did not answer the first question, as what is no Kafka may.
pub(super) fn reason(facility: &str, line: &str) -> Option<Trouble> {
    let soon = line.contains("in state APIVERSION_QUERY") || line.contains("in state UP") && is_young(line);
    let silent = line.contains("ApiVersionRequest failed: Local: Timed out");
    let is_reason = facility == "FAIL" && (silent || line.contains("Disconnected") && soon);
    is_reason.then(|| Trouble::new(Code::TRANSPORT, line))
}

/// Whether a state lasted less than two seconds: `(after 3ms in state UP)`.
fn is_young(line: &str) -> bool {
    let after = line.rsplit_once("(after ").and_then(|(_, rest)| rest.split_once("ms in state"));
    after.and_then(|(millis, _)| millis.parse::<u32>().ok()).is_some_and(|millis| millis < 2000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(code: Code, text: &str) -> Trouble {
        Trouble::new(code, text)
    }

    #[test]
    fn who_finds_no_server_is_told_again_where_to_begin_with_pauses_that_grow() {
        let (notes, began) = (Notes::default(), Instant::now());
        assert!(!notes.is_lost(began));
        notes.note(trouble(Code::ALL_BROKERS_DOWN, "1/1 brokers are down"));
        let told = |until: u64| (0..until).filter(|s| notes.is_lost(began + Duration::from_secs(*s)));
        assert_eq!(told(300).collect::<Vec<_>>(), [1, 3, 7, 15, 31, 63, 123, 183, 243]);
        notes.heard();
        assert!(!notes.is_lost(began + Duration::from_secs(400)));
    }

    #[test]
    fn the_reason_before_all_were_down_is_kept() {
        let notes = Notes::default();
        notes.note(trouble(Code::ALL_BROKERS_DOWN, "1/1 brokers are down"));
        assert!(notes.brokers_down());
        assert_eq!(notes.latest().unwrap().code, Code::ALL_BROKERS_DOWN);
        let line = "h:1/bootstrap: Disconnected (after 3ms in state APIVERSION_QUERY)";
        notes.note(reason("FAIL", line).unwrap());
        notes.note(trouble(Code::ALL_BROKERS_DOWN, "1/1 brokers are down"));
        assert_eq!(notes.latest().unwrap().text, line);
        assert!(reason("FAIL", "h:1/1: Disconnected (after 3ms in state UP)").is_some());
        assert!(reason("FAIL", "h:1/1: Disconnected (after 300000ms in state UP)").is_none());
        assert!(reason("CONFWARN", line).is_none());
        assert!(
            reason("FAIL", "h:1/bootstrap: ApiVersionRequest failed: Local: Timed out: probably").is_some()
        );
        assert!(notes.refused().is_none(), "that mends by itself where the server just went away");
        notes.heard();
        assert!(!notes.brokers_down());
    }

    #[test]
    fn what_a_server_says_of_a_certificate_will_not_mend() {
        for text in [
            "Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42",
            "Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required",
            "SSL handshake failed: tlsv1 alert unknown ca",
        ] {
            let notes = Notes::default();
            notes.note(trouble(Code::TRANSPORT, text));
            assert_eq!(notes.refused().unwrap().code, Code::SSL, "{text}");
        }
        let notes = Notes::default();
        notes.note(trouble(Code::TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused"));
        assert!(notes.refused().is_none());
    }
}
