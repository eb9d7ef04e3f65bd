//! The little language of places in a topic: `start`, `end`, a position, a moment.
//!
//! Not here: what a moment may look like (`time.rs`).

use crate::time;
use ropeway_broker::{Position, Start, Timestamp};

/// What help says about it.
pub(crate) const HELP: &str = "\
Offsets: start, end, a position as `sub` prints it (1763-42), or a moment after `@`:
  @-1h, @2026-11-01 (UTC), @2026-11-01T08:30:00Z, or seconds or milliseconds since 1970";

/// A place in a topic, seen from `now`.
///
/// # Errors
/// What it takes instead.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Start, String> {
    if let Some(moment) = text.strip_prefix('@') {
        return time::parse(moment, now).map(Start::Time);
    }
    match text {
        "start" => Ok(Start::Earliest),
        "end" => Ok(Start::Latest),
        _ => text.parse::<Position>().map(Start::At).map_err(|_| {
            format!("{text:?} is no offset; it takes start, end, a position such as 1763-42, or a moment such as @-1h")
        }),
    }
}

/// The parser for the command line.
///
/// # Errors
/// What it takes instead.
pub(crate) fn from_args(text: &str) -> Result<Start, String> {
    parse(text, Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_nonsense_is_refused() {
        let now = Timestamp::from_millis(10_000_000);
        for (text, start) in [
            ("start", Start::Earliest),
            ("end", Start::Latest),
            ("1763-42", Start::At(Position(1763, 42))),
            ("@-1h", Start::Time(Timestamp::from_millis(6_400_000))),
            ("@1763000000", Start::Time(Timestamp::from_millis(1_763_000_000_000))),
        ] {
            assert_eq!(parse(text, now), Ok(start), "{text}");
        }
        for bad in ["", "@", "begin", "1", "-5", "@1 fortnight", "1-2-3"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }
}
