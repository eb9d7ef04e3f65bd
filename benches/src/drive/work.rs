//! What a handler does: nothing, sleep, or compute.

use std::{fmt, str::FromStr, time::Duration};
use tokio::time::Instant;

/// What a handler does with each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    None,
    /// Waits, as for an answer over a network.
    Sleep(Duration),
    /// Keeps a processor busy.
    Spin(Duration),
}

/// The longest work.
const LONGEST: Duration = Duration::from_secs(60);

impl FromStr for Work {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "it takes 0, a duration such as 1ms or 50ms (sleep), or spin:1ms (compute); at most 60s"
                .to_owned()
        };
        let (spin, value) = text.strip_prefix("spin:").map_or((false, text), |value| (true, value));
        if value == "0" && !spin {
            return Ok(Self::None);
        }
        let (digits, unit) = value.split_at(value.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?);
        let factor = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            _ => return Err(wrong()),
        };
        let seconds = digits.parse::<f64>().map_err(|_| wrong())? * factor;
        let time =
            Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= LONGEST).ok_or_else(wrong)?;
        Ok(if spin { Self::Spin(time) } else { Self::Sleep(time) })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("0"),
            Self::Sleep(time) => write!(f, "{time:?}"),
            Self::Spin(time) => write!(f, "spin:{time:?}"),
        }
    }
}

impl Work {
    /// Does it.
    pub(super) async fn perform(self) {
        match self {
            Self::None => {}
            Self::Sleep(time) => tokio::time::sleep(time).await,
            Self::Spin(time) => {
                let start = Instant::now();
                while start.elapsed() < time {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_read_and_shown() {
        for (text, work) in [
            ("0", Work::None),
            ("50ms", Work::Sleep(Duration::from_millis(50))),
            ("spin:1ms", Work::Spin(Duration::from_millis(1))),
            ("1.5s", Work::Sleep(Duration::from_millis(1500))),
        ] {
            assert_eq!(text.parse(), Ok(work));
            assert_eq!(work.to_string(), text);
        }
        for bad in ["", "1", "spin:", "spin:0", "-1ms", "61s", "1h", "NaNms"] {
            assert!(bad.parse::<Work>().unwrap_err().contains("spin:1ms"), "{bad}");
        }
    }
}
