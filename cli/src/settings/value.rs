//! Values of settings: from text and back. Durations and sizes need a unit.
//!
//! Not here: the URL of the broker (`address.rs`).

use clap::ValueEnum;
use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

/// A type that a setting can have.
pub(crate) trait Setting: Sized {
    /// From text.
    ///
    /// # Errors
    /// What it takes instead.
    fn parse(text: &str) -> Result<Self, String>;

    /// As text that [`Self::parse`] takes; hidden where it is secret.
    fn show(&self) -> String;
}

/// A duration with its unit, such as `30s` or `1h30m`.
///
/// # Errors
/// What it takes instead.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "it takes a duration with its unit, such as 250ms, 30s or 1h30m".to_owned())
}

impl Setting for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        duration(text)
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string().replace(' ', "")
    }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "it takes true or false".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// How many of something; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) usize);

impl Setting for Count {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| (1..=10_000_000).contains(number));
        number.map(Self).ok_or_else(|| "it takes a whole number from 1 to 10000000".to_owned())
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// How many bytes; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

const UNITS: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it takes a size with its unit, such as 512B, 64KiB, 64MiB or 1GB".to_owned();
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
        let unit = unit.trim_start();
        let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
        let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(*factor));
        bytes.filter(|bytes| *bytes > 0).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) =
            UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor)).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl Setting for Size {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Where metrics and health are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl Setting for Listen {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| "it takes ADDRESS:PORT such as 127.0.0.1:9464, or off");
        Ok(Self(Some(address?)))
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), |address| address.to_string())
    }
}

macro_rules! choices {
    ($($type:ty),+) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Self, String> {
                <Self as ValueEnum>::from_str(text, false).map_err(|_| {
                    let names: Vec<String> = Self::value_variants().iter().map(Setting::show).collect();
                    format!("it takes one of {}", names.join(", "))
                })
            }

            fn show(&self) -> String {
                self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
            }
        }
    )+};
}

choices!(Format, Color, Level);

/// The form of what is printed on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: columns, control characters made visible
    Table,
    /// One JSON document
    Json,
    /// One JSON object on each line
    Ndjson,
    /// The bare values: payload bytes of messages, names of lists
    Raw,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// Where it goes to a terminal and NO_COLOR is not set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// What failed
    Error,
    /// And what may fail
    Warn,
    /// And what happens
    Info,
    /// And why
    Debug,
    /// And everything else
    Trace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_and_kept() {
        for (text, bytes) in
            [("512B", 512), ("64KiB", 65_536), ("64 MiB", 67_108_864), ("1gb", 1_000_000_000)]
        {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "64", "MiB", "-1B", "1.5MiB", "1XB", "0B", "99999999999999999999GiB", "1e9B"] {
            assert!(bad.parse::<Size>().unwrap_err().contains("unit"), "{bad}");
        }
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        assert_eq!(Size(1_500).to_string(), "1500B");
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(Duration::from_millis(1500).show(), "1s500ms");
        for bad in ["", "30", "s", "-1s", "99999999999999999999999s", "1 fortnight"] {
            assert!(duration(bad).unwrap_err().contains("unit"), "{bad}");
        }
    }

    #[test]
    fn other_values_say_what_they_take() {
        assert_eq!(Count::parse("0").unwrap_err(), "it takes a whole number from 1 to 10000000");
        assert_eq!(Format::parse("xml").unwrap_err(), "it takes one of table, json, ndjson, raw");
        assert_eq!(Listen::parse("off"), Ok(Listen(None)));
        assert!(Listen::parse("9464").is_err());
        assert_eq!(Listen::parse("127.0.0.1:1").unwrap().show(), "127.0.0.1:1");
        assert!(bool::parse("yes").is_err());
    }
}
