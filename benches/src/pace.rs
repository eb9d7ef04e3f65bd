//! When a message is to be sent: the open loop. Pure.
//!
//! A load with a rate has a timetable that does not wait for the bus: message `i` is due at `i x interval`, and its latency counts from
//! then, so that a bus that stalls is not excused from the messages that should have come meanwhile. A load without a rate is a closed
//! loop, where a message is due when there is room for it. Not here: sending (`drive/`).

use std::{fmt, str::FromStr, time::Duration};

/// So many messages in so much time.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate {
    per_second: f64,
}

impl Rate {
    /// So many in a second: from one in a day to 100 million.
    #[must_use]
    pub fn per_second(per_second: f64) -> Option<Self> {
        (1.0 / 86_400.0..=1e8).contains(&per_second).then_some(Self { per_second })
    }

    /// How many in a second.
    #[must_use]
    pub const fn in_a_second(self) -> f64 {
        self.per_second
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "it takes a number and a unit of time, such as 500/s, 50k/s, 1.5M/s or 100/m".to_owned();
        let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let (digits, factor) = match number.strip_suffix(['k', 'M']) {
            Some(digits) if number.ends_with('k') => (digits, 1e3),
            Some(digits) => (digits, 1e6),
            None => (number, 1.0),
        };
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        Self::per_second(number * factor / seconds).ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.per_second)
    }
}

/// The timetable of one of several producers that share a rate: they take turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Nanoseconds.
    first: f64,
    /// Nanoseconds.
    interval: f64,
}

impl Pace {
    /// The timetable of producer number `producer` of `producers` at `rate` for all of them together.
    #[must_use]
    pub fn of(rate: Rate, producers: u32, producer: u32) -> Self {
        let between = 1e9 / rate.per_second;
        Self { first: between * f64::from(producer), interval: between * f64::from(producers.max(1)) }
    }

    /// When message `number` (from 0) is to be sent, from the start of the run.
    #[must_use]
    pub fn due(&self, number: u64) -> Duration {
        let nanos = self.first + self.interval * number as f64;
        // Saturates at 584 years.
        Duration::from_nanos(nanos as u64)
    }

    /// How many messages are due at that time since the start. Those that are due and not sent go at once, in a burst: timers tick in
    /// milliseconds, timetables need not.
    #[must_use]
    pub fn due_by(&self, elapsed: Duration) -> u64 {
        let nanos = elapsed.as_nanos() as f64;
        if nanos < self.first {
            return u64::from(self.due(0) <= elapsed);
        }
        let mut count = ((nanos - self.first) / self.interval) as u64;
        // What was rounded away is found by the same arithmetic that says when a message is due. A few steps are enough: the error is less
        // than one message, and of as many as are due in the same nanosecond the rest comes with the next.
        for _ in 0..16 {
            if count > 0 && self.due(count - 1) > elapsed {
                count -= 1;
            } else if self.due(count) <= elapsed {
                count += 1;
            } else {
                break;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_has_a_unit_and_may_have_a_factor() {
        for (text, expected) in [("500/s", 500.0), ("50k/s", 50_000.0), ("1.5M/s", 1.5e6), ("90/m", 1.5)] {
            assert!((rate(text).in_a_second() - expected).abs() < 1e-9, "{text}");
        }
        assert_eq!(rate("50k/s").to_string(), "50000/s");
        for bad in
            ["", "50", "50/x", "/s", "k/s", "-1/s", "0/s", "inf/s", "NaN/s", "200M/s", "1e300/s", "5K/s"]
        {
            assert!(bad.parse::<Rate>().unwrap_err().contains("unit of time"), "{bad}");
        }
    }

    #[test]
    fn producers_take_turns_and_together_keep_the_rate() {
        let paces = [0, 1, 2].map(|producer| Pace::of(rate("1k/s"), 3, producer));
        let mut due: Vec<Duration> = (0..100).flat_map(|number| paces.map(|pace| pace.due(number))).collect();
        due.sort();
        for (number, due) in due.iter().enumerate() {
            assert_eq!(*due, Duration::from_millis(number as u64));
        }
    }

    #[test]
    fn what_is_due_by_a_time_is_what_the_timetable_says() {
        for text in ["3/m", "3/s", "333k/s", "7M/s", "100M/s"] {
            for producer in [0, 3] {
                let pace = Pace::of(rate(text), 4, producer);
                for number in [0, 1, 2, 1_000, 999_999, 123_456_789] {
                    let at = pace.due(number);
                    // At very high rates several may be due in the same nanosecond.
                    assert!(pace.due_by(at) > number, "{text} {number}");
                    assert!(at == Duration::ZERO || pace.due_by(at - Duration::from_nanos(1)) <= number);
                }
            }
        }
    }

    #[test]
    fn a_stall_does_not_move_the_timetable() {
        let pace = Pace::of(rate("1M/s"), 1, 0);
        // A tick of a millisecond brings a burst of a thousand, each with a time of its own.
        assert_eq!(pace.due_by(Duration::from_millis(1)), 1_001);
        assert_eq!(pace.due(500), Duration::from_micros(500));
        // After a stall of 2 s everything that should have gone is due, at the time it was to go.
        assert_eq!(pace.due_by(Duration::from_secs(2)), 2_000_001);
        assert_eq!(pace.due(1_999_999), Duration::from_nanos(1_999_999_000));
    }
}
