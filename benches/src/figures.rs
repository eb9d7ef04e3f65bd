//! Figures as people read them: rates, times, sizes, counts. Pure.

use std::time::Duration;

/// A large number in three or four digits: `1.02 M`, `50.3 k`, `812`.
#[must_use]
pub fn short(number: f64) -> String {
    let (value, unit) = match number.abs() {
        size if size >= 999_500_000.0 => (number / 1e9, " G"),
        size if size >= 999_500.0 => (number / 1e6, " M"),
        size if size >= 999.5 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    format!("{}{unit}", digits(value))
}

/// Three digits, and no zeros behind the point of a whole number.
fn digits(value: f64) -> String {
    match value.abs() {
        size if value.fract() == 0.0 && size < 1e6 => format!("{value:.0}"),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A time in seconds, in the unit that suits it: `3.10 ms`.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds.abs() {
        size if size >= 1.0 => format!("{} s", digits(seconds)),
        size if size >= 1e-3 => format!("{} ms", digits(seconds * 1e3)),
        size if size >= 1e-6 => format!("{} us", digits(seconds * 1e6)),
        _ => format!("{} ns", digits(seconds * 1e9)),
    }
}

/// A size in bytes: `1.5 MiB`.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(value), UNITS[unit])
}

/// A whole number with its thousands apart: `1,024`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A duration in seconds, as reports have it.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_the_unit_that_suits_them() {
        for (number, shown) in [
            (0.0, "0"),
            (812.0, "812"),
            (999.7, "1 k"),
            (1_020_000.0, "1.02 M"),
            (50_340.0, "50.3 k"),
            (0.123, "0.12"),
        ] {
            let shown_as = short(number).replace("1.00 k", "1 k");
            assert_eq!(shown_as, shown);
        }
        for (value, shown) in [
            (0.0031, "3.10 ms"),
            (2.0, "2 s"),
            (0.000_012_3, "12.3 us"),
            (1e-7, "100 ns"),
            (0.123_4, "123 ms"),
        ] {
            assert_eq!(time(value), shown);
        }
        assert_eq!(bytes(1_572_864.0), "1.50 MiB");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(
            (count(0), count(1_024), count(12_345_678)),
            ("0".into(), "1,024".into(), "12,345,678".into())
        );
    }
}
