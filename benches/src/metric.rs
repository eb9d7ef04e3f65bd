//! Figures of a report by name, with their units; what `--assert` and `--fail-if` may ask. Pure.
//!
//! Not here: the report (`report.rs`), the table of differences (`compare.rs`).

use crate::{figures, pace::Rate, report::Report};
use std::{fmt, str::FromStr};

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Messages a second.
    PerSecond,
    /// Bytes a second.
    Bytes,
    /// Seconds.
    Time,
    /// How many.
    Count,
    /// One to another.
    Ratio,
}

impl Unit {
    /// A value as people read it.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", figures::short(value)),
            Self::Bytes => format!("{}/s", figures::bytes(value)),
            Self::Time => figures::time(value),
            Self::Count => figures::count(value.max(0.0) as u64),
            Self::Ratio => format!("{value:.3}"),
        }
    }

    fn parse(self, text: &str) -> Result<f64, String> {
        let text = text.trim();
        let time = || {
            let units = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
            let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
            let factor = units.iter().find(|(name, _)| *name == unit)?.1;
            Some(digits.trim().parse::<f64>().ok()? * factor)
        };
        let (value, takes) = match self {
            Self::PerSecond => (
                text.parse::<Rate>().ok().map(Rate::in_a_second),
                "messages in a time, such as 50000/s or 50k/s",
            ),
            Self::Bytes => (
                text.strip_suffix("/s")
                    .and_then(|size| crate::payload::size(size.trim()))
                    .map(|size| size as f64),
                "bytes a second, such as 10MiB/s",
            ),
            Self::Time => (time(), "a time with its unit, such as 20ms or 1.5s"),
            Self::Count => (text.parse::<u64>().ok().map(|count| count as f64), "a whole number"),
            Self::Ratio => (text.parse().ok(), "a number, such as 0.85"),
        };
        value.filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(|| format!("it takes {takes}"))
    }
}

const LATENCIES: [&str; 3] = ["publish", "delay", "e2e"];
const PERCENTILES: [&str; 9] = ["mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max"];
const COUNTS: [&str; 8] =
    ["sent", "received", "lost", "duplicated", "reordered", "unexpected", "untold", "failed"];

/// Every name there is, in the order of tables, with its unit. `disk.*` are those of `bench embedded`.
#[must_use]
pub fn names() -> Vec<(String, Unit)> {
    let mut names = vec![("throughput".to_owned(), Unit::PerSecond), ("bytes".to_owned(), Unit::Bytes)];
    for latency in LATENCIES {
        names.extend(PERCENTILES.iter().map(|percentile| (format!("{latency}.{percentile}"), Unit::Time)));
    }
    names.extend(COUNTS.iter().map(|count| ((*count).to_owned(), Unit::Count)));
    for size in crate::DISK_SIZES {
        for at_once in crate::DISK_AT_ONCE {
            let of = |what: &str| format!("disk.{size}x{at_once}.{what}");
            names.push((of("ratio"), Unit::Ratio));
            names.push((of("broker"), Unit::PerSecond));
            names.push((of("bare"), Unit::PerSecond));
        }
    }
    names
}

/// The value of that name in a report; `None` where it was not measured.
#[must_use]
pub fn value(report: &Report, name: &str) -> Option<f64> {
    let verdict = report.integrity.as_ref();
    let count = |count: u64| Some(count as f64);
    match name {
        "throughput" => return Some(report.rates.as_ref()?.throughput),
        "bytes" => return Some(report.rates.as_ref()?.bytes),
        "sent" => return count(verdict?.sent),
        "received" => return count(verdict?.received),
        "lost" => return count(verdict?.lost),
        "duplicated" => return count(verdict?.duplicated),
        "reordered" => return count(verdict?.reordered?),
        "unexpected" => return count(verdict?.unexpected),
        "untold" => return count(verdict?.untold),
        "failed" => return count(report.failed),
        _ => {}
    }
    let (set, rest) = name.split_once('.')?;
    if set == "disk" {
        let (cell, what) = rest.split_once('.')?;
        let row = report.disk.iter().flatten().find(|row| format!("{}x{}", row.size, row.at_once) == cell)?;
        return match what {
            "ratio" => Some(row.ratio),
            "broker" => Some(row.broker),
            "bare" => Some(row.bare),
            _ => None,
        };
    }
    let latency = match set {
        "publish" => &report.latency.publish,
        "delay" => &report.latency.delay,
        "e2e" => &report.latency.e2e,
        _ => return None,
    };
    latency.as_ref()?.values().into_iter().find(|(known, _)| *known == rest).map(|(_, value)| value)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
    NotEqual,
}

impl Order {
    /// Longer ones first, so that `<=` is not read as `<`.
    const ALL: [(&'static str, Self); 6] = [
        ("<=", Self::LessOrEqual),
        (">=", Self::MoreOrEqual),
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<", Self::Less),
        (">", Self::More),
    ];

    #[expect(clippy::float_cmp, reason = "counts are whole numbers, and who asks for an equal time means it")]
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::More => left > right,
            Self::MoreOrEqual => left >= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        }
    }
}

/// Name, unit, order, and the text of the value.
fn parts(text: &str) -> Result<(String, Unit, Order, &str), String> {
    let found = Order::ALL.iter().filter_map(|(sign, order)| Some((text.find(sign)?, *sign, *order)));
    // The sign that comes first, and of two at one place the longer one.
    let Some((at, sign, order)) = found.min_by_key(|(at, sign, _)| (*at, usize::MAX - sign.len())) else {
        return Err(format!("`{text}` compares nothing: it takes NAME<VALUE with <, <=, >, >=, == or !="));
    };
    let name = text[..at].trim();
    let known = names();
    let Some((_, unit)) = known.iter().find(|(known, _)| known == name) else {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        let meant = ropeway_broker::nearest(name, &names).map(|near| format!("; did you mean `{near}`?"));
        let meant = meant.unwrap_or_else(|| {
            "; there are throughput, bytes, publish.p99, delay.p99, e2e.p99 (p50 to p99.99, mean, max), sent, received, lost, \
             duplicated, reordered, unexpected, untold, failed, disk.1024x64.ratio"
                .to_owned()
        });
        return Err(format!("there is no figure `{name}`{meant}"));
    };
    Ok((name.to_owned(), *unit, order, &text[at + sign.len()..]))
}

/// What must hold of a run, such as `e2e.p99<20ms`, `lost==0`, `throughput>=50000/s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    text: String,
    name: String,
    unit: Unit,
    order: Order,
    value: f64,
}

impl FromStr for Assertion {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, unit, order, value) = parts(text)?;
        let value = unit
            .parse(value)
            .map_err(|takes| format!("`{}` cannot be compared with {name}: {takes}", value.trim()))?;
        Ok(Self { text: text.to_owned(), name, unit, order, value })
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Assertion {
    /// `None` where it holds; else why it does not. What was not measured holds nothing.
    #[must_use]
    pub fn objection(&self, report: &Report) -> Option<String> {
        let Some(found) = value(report, &self.name) else {
            let saturated =
                self.unit == Unit::Time && report.rates.as_ref().is_some_and(|rates| rates.saturated);
            let why =
                if saturated { "the run was saturated, so it has no latency" } else { "it was not measured" };
            return Some(format!("{}: {why}", self.text));
        };
        (!self.order.holds(found, self.value))
            .then(|| format!("{}: {} is {}", self.text, self.name, self.unit.show(found)))
    }
}

/// What is too much of a difference between two runs, such as `throughput<-5%` or `e2e.p99>+10%`.
#[derive(Clone, Debug, PartialEq)]
pub struct FailIf {
    text: String,
    name: String,
    order: Order,
    percent: f64,
}

impl FromStr for FailIf {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, _, order, value) = parts(text)?;
        let percent = value.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let percent = percent.filter(|percent| percent.is_finite()).ok_or_else(|| {
            format!(
                "`{}` is no difference: it takes percent with their sign, such as -5% or +10%",
                value.trim()
            )
        })?;
        Ok(Self { text: text.to_owned(), name, order, percent })
    }
}

impl FailIf {
    /// `None` where the difference is bearable; else what it is. What cannot be told is not bearable.
    #[must_use]
    pub fn objection(&self, base: &Report, new: &Report) -> Option<String> {
        let (Some(base), Some(new)) = (value(base, &self.name), value(new, &self.name)) else {
            return Some(format!("{}: it was not measured in both runs", self.text));
        };
        let Some(percent) = difference(base, new) else {
            return Some(format!("{}: it was 0 before", self.text));
        };
        self.order.holds(percent, self.percent).then(|| format!("{}: it is {percent:+.1}%", self.text))
    }
}

/// By how many percent it is more; `None` where it was 0 and is not any more.
#[must_use]
pub fn difference(base: f64, new: f64) -> Option<f64> {
    if base == 0.0 {
        return (new == 0.0).then_some(0.0);
    }
    Some((new / base - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{LatencySet, tests::report};

    fn objection(text: &str) -> Option<String> {
        text.parse::<Assertion>().unwrap().objection(&report())
    }

    #[test]
    fn what_holds_holds_and_what_does_not_says_what_it_is() {
        for holds in [
            "e2e.p99<20ms",
            "lost==0",
            "throughput>=1000/s",
            "throughput>=1k/s",
            "publish.max<=0.0011s",
            "sent!=0",
            "bytes>1MB/s",
        ] {
            assert_eq!(objection(holds), None, "{holds}");
        }
        assert_eq!(objection("e2e.p99 < 1us").unwrap(), "e2e.p99 < 1us: e2e.p99 is 990 us");
        assert!(objection("delay.p99<1s").unwrap().contains("not measured"));
        assert!(objection("disk.64x1.ratio>0.5").unwrap().contains("not measured"));
        assert!(objection("reordered==0").unwrap().contains("not measured"));
        let mut saturated = report();
        saturated.rates.as_mut().unwrap().saturated = true;
        saturated.latency = LatencySet::default();
        let said = "e2e.p99<20ms".parse::<Assertion>().unwrap().objection(&saturated).unwrap();
        assert!(said.contains("saturated"), "{said}");
    }

    #[test]
    fn unknown_names_and_units_are_told_with_what_is_meant() {
        for (text, part) in [
            ("e2e.p9<1ms", "did you mean `e2e.p9"),
            ("thruput>1/s", "did you mean `throughput`?"),
            ("latency.p99<1ms", "there is no figure `latency.p99`"),
            ("lost", "compares nothing"),
            ("lost=0", "compares nothing"),
            ("", "compares nothing"),
            ("lost==0.5", "a whole number"),
            ("lost==", "a whole number"),
            ("e2e.p99<20", "a time with its unit"),
            ("e2e.p99<20parsec", "a time with its unit"),
            ("e2e.p99<-1ms", "a time with its unit"),
            ("throughput>50000", "50000/s"),
            ("bytes>5", "bytes a second"),
        ] {
            let said = text.parse::<Assertion>().unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn differences_are_judged_in_percent_with_their_sign() {
        let (base, mut new) = (report(), report());
        new.rates.as_mut().unwrap().throughput *= 0.9;
        let objection = |text: &str| text.parse::<FailIf>().unwrap().objection(&base, &new);
        assert_eq!(objection("throughput<-5%").unwrap(), "throughput<-5%: it is -10.0%");
        assert_eq!(objection("throughput<-15%"), None);
        assert_eq!(objection("e2e.p99>+10%"), None);
        assert!(objection("delay.p50>+10%").unwrap().contains("both"));
        assert_eq!(objection("lost>0%"), None);
        for bad in ["throughput<5", "throughput<x%", "nothing<5%"] {
            assert!(bad.parse::<FailIf>().is_err(), "{bad}");
        }
        assert_eq!(
            (difference(0.0, 1.0), difference(0.0, 0.0), difference(2.0, 3.0)),
            (None, Some(0.0), Some(50.0))
        );
    }

    #[test]
    fn every_name_has_a_value_where_all_is_measured() {
        let mut report = report();
        report.latency.delay = report.latency.e2e.clone();
        report.integrity.as_mut().unwrap().reordered = Some(0);
        for (name, _) in names().iter().filter(|(name, _)| !name.starts_with("disk.")) {
            assert!(value(&report, name).is_some(), "{name}");
        }
    }
}
