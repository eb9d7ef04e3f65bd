//! `--rate 50/s`: when the next message may go. Pure.

use std::{str::FromStr, time::Duration};

/// So many messages in so much time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    each: Duration,
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it takes a number and a unit of time, such as 50/s, 100/m or 0.5/s".to_owned();
        let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        // From one in a day to ten million in a second.
        let each =
            Some(seconds / number).filter(|each| (1e-7..=86_400.0).contains(each)).ok_or_else(wrong)?;
        Ok(Self { each: Duration::from_secs_f64(each) })
    }
}

impl Rate {
    /// When message `number` (from 0) is due, counted from the first.
    pub(crate) fn due(self, number: u64) -> Duration {
        Duration::try_from_secs_f64(self.each.as_secs_f64() * number as f64).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_its_unit_and_spaces_messages_evenly() {
        let rate: Rate = "50/s".parse().unwrap();
        assert_eq!(rate.due(0), Duration::ZERO);
        assert_eq!(rate.due(100), Duration::from_secs(2));
        assert_eq!("30/m".parse::<Rate>().unwrap().due(1), Duration::from_secs(2));
        for bad in ["", "50", "50/x", "/s", "-1/s", "0/s", "inf/s", "NaN/s", "1e300/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
