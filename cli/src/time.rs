//! Moments: from the text people write, and back.
//!
//! Not here: durations (`settings/value.rs`).

use jiff::{civil::Date, tz::TimeZone};
use ropeway_broker::Timestamp;

/// What a moment may look like.
pub(crate) const FORMS: &str = "2026-11-01 (UTC), 2026-11-01T08:30:00Z, 2026-11-01T08:30:00+01:00, -1h (an hour ago), +5m, or seconds or milliseconds since 1970";

/// Digits from which on a number means milliseconds: 11 digits of seconds are beyond the year 5000.
const MILLIS_DIGITS: usize = 12;

/// A moment, seen from `now`.
///
/// # Errors
/// What it takes instead.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is no moment; it takes {FORMS}");
    if let Some(ago) = text.strip_prefix('-') {
        return crate::settings::duration(ago).map(|ago| now - ago).map_err(|_| wrong());
    }
    if let Some(ahead) = text.strip_prefix('+') {
        return crate::settings::duration(ahead).map(|ahead| now + ahead).map_err(|_| wrong());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().map_err(|_| wrong())?;
        let millis = if text.len() < MILLIS_DIGITS { number.checked_mul(1000) } else { Some(number) };
        return millis.map(Timestamp::from_millis).ok_or_else(wrong);
    }
    let moment = match text.parse::<jiff::Timestamp>() {
        Ok(moment) => moment,
        Err(_) if text.len() == "2026-11-01".len() => {
            let day: Date = text.parse().map_err(|_| wrong())?;
            day.to_zoned(TimeZone::UTC).map_err(|_| wrong())?.timestamp()
        }
        Err(_) => return Err(wrong()),
    };
    Ok(Timestamp::from_millis(moment.as_millisecond()))
}

/// A moment as RFC 3339 in UTC with milliseconds; as a number where it is beyond the calendar.
pub(crate) fn shown(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.as_millis().to_string(), |moment| format!("{moment:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_means_what_people_expect() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        for (text, millis) in [
            ("-1h", 1_699_996_400_000),
            ("+5m", 1_700_000_300_000),
            ("1763000000", 1_763_000_000_000),
            ("1763000000123", 1_763_000_000_123),
            ("0", 0),
            ("2026-11-01", 1_793_491_200_000),
            ("2026-11-01T08:30:00Z", 1_793_521_800_000),
            ("2026-11-01T08:30:00.250+01:00", 1_793_518_200_250),
        ] {
            assert_eq!(parse(text, now).map(Timestamp::as_millis), Ok(millis), "{text}");
        }
        let bad = [
            "",
            "now",
            "yesterday",
            "1h",
            "-1",
            "2026-13-01",
            "2026-11-01T25:00:00Z",
            "99999999999999999999",
        ];
        for text in bad.into_iter().chain(["2026-11-01T08:30:00"]) {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_shown_in_utc_and_read_again() {
        let at = Timestamp::from_millis(1_793_521_800_007);
        assert_eq!(shown(at), "2026-11-01T08:30:00.007Z");
        assert_eq!(parse(&shown(at), Timestamp::default()), Ok(at));
        assert_eq!(shown(Timestamp::from_millis(i64::MAX)), i64::MAX.to_string());
    }
}
