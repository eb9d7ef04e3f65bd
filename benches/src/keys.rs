//! Which key a message has: none, uniform, by Zipf's law, or one hot key. Seeded: the same seed gives the same keys. Pure.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Zipf};
use std::{fmt, str::FromStr};

/// The most keys there may be.
pub const MOST_KEYS: u32 = 4_000_000;

/// How keys are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeySpread {
    /// Messages have no key, and no order.
    None,
    /// Each of so many keys equally often.
    Uniform(u32),
    /// Key number `k` (from 1) in proportion to 1 / `k` to that power.
    Zipf {
        /// The power, more than 0 and at most 10.
        exponent: f64,
        /// How many keys.
        keys: u32,
    },
    /// One key has that share of the messages, the others share the rest equally.
    Hot {
        /// From 0 to 1.
        share: f64,
        /// How many keys, the hot one included; at least 2.
        keys: u32,
    },
}

impl KeySpread {
    /// How many keys there are; 0 where messages have none.
    #[must_use]
    pub const fn keys(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Uniform(keys) | Self::Zipf { keys, .. } | Self::Hot { keys, .. } => *keys,
        }
    }
}

fn count(text: &str, least: u32) -> Result<u32, String> {
    let number = text.trim().parse().ok().filter(|number| (least..=MOST_KEYS).contains(number));
    number.ok_or_else(|| format!("the number of keys is a whole number from {least} to {MOST_KEYS}"))
}

impl FromStr for KeySpread {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it takes none, uniform:N, zipf:S,N (such as zipf:1.1,100000) or hot:P,N (such as hot:0.5,1000)";
        if text == "none" {
            return Ok(Self::None);
        }
        let (kind, values) = text.split_once(':').ok_or_else(wrong)?;
        if kind == "uniform" {
            return Ok(Self::Uniform(count(values, 1)?));
        }
        let (first, keys) = values.split_once(',').ok_or_else(wrong)?;
        let first: f64 = first.trim().parse().map_err(|_| wrong())?;
        match kind {
            "zipf" if first > 0.0 && first <= 10.0 => {
                Ok(Self::Zipf { exponent: first, keys: count(keys, 1)? })
            }
            "zipf" => Err("the exponent of zipf is more than 0 and at most 10".to_owned()),
            "hot" if (0.0..=1.0).contains(&first) => Ok(Self::Hot { share: first, keys: count(keys, 2)? }),
            "hot" => Err("the share of the hot key is from 0 to 1".to_owned()),
            _ => Err(wrong().to_owned()),
        }
    }
}

impl fmt::Display for KeySpread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Uniform(keys) => write!(f, "uniform:{keys}"),
            Self::Zipf { exponent, keys } => write!(f, "zipf:{exponent},{keys}"),
            Self::Hot { share, keys } => write!(f, "hot:{share},{keys}"),
        }
    }
}

/// Draws keys, by number from 0.
#[derive(Debug)]
pub struct Keys {
    spread: KeySpread,
    zipf: Option<Zipf<f64>>,
    lot: StdRng,
}

impl Keys {
    /// Keys spread like that; each producer has a seed of its own.
    #[must_use]
    pub fn new(spread: KeySpread, seed: u64) -> Self {
        let zipf = match spread {
            KeySpread::Zipf { exponent, keys } => Zipf::new(f64::from(keys.max(1)), exponent).ok(),
            _ => None,
        };
        Self { spread, zipf, lot: StdRng::seed_from_u64(seed) }
    }

    /// The key of the next message.
    pub fn draw(&mut self) -> Option<u32> {
        match self.spread {
            KeySpread::None => None,
            KeySpread::Uniform(keys) => Some(below(&mut self.lot, keys)),
            KeySpread::Zipf { keys, .. } => {
                // The law counts from 1.
                let drawn = self.zipf.map_or(1.0, |zipf| zipf.sample(&mut self.lot));
                Some((drawn as u32).clamp(1, keys.max(1)) - 1)
            }
            KeySpread::Hot { share, keys } => {
                let hot = self.lot.random_bool(share.clamp(0.0, 1.0));
                Some(if hot { 0 } else { 1 + below(&mut self.lot, keys.saturating_sub(1)) })
            }
        }
    }
}

fn below(lot: &mut impl Rng, end: u32) -> u32 {
    lot.random_range(0..end.max(1))
}

/// A key as it is on the wire.
#[must_use]
pub fn name(key: u32) -> String {
    format!("key-{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(text: &str, draws: usize) -> Vec<f64> {
        let spread: KeySpread = text.parse().unwrap();
        assert_eq!(spread.to_string(), text);
        let mut keys = Keys::new(spread, 7);
        let mut counts = vec![0_u32; spread.keys() as usize];
        for _ in 0..draws {
            counts[keys.draw().unwrap() as usize] += 1;
        }
        counts.iter().map(|count| f64::from(*count) / draws as f64).collect()
    }

    #[test]
    fn keys_are_spread_as_asked() {
        let uniform = shares("uniform:10", 100_000);
        assert!(uniform.iter().all(|share| (share - 0.1).abs() < 0.01), "{uniform:?}");
        let hot = shares("hot:0.5,11", 100_000);
        assert!((hot[0] - 0.5).abs() < 0.01 && (hot[10] - 0.05).abs() < 0.01, "{hot:?}");
        // 1 + 1/2 + 1/3 + 1/4 = 25/12.
        let zipf = shares("zipf:1,4", 100_000);
        for (rank, share) in (1..).zip(zipf) {
            assert!((share - 12.0 / 25.0 / f64::from(rank)).abs() < 0.01, "{rank}: {share}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_keys_again() {
        let drawn = |seed| {
            let mut keys = Keys::new(KeySpread::Uniform(1000), seed);
            (0..100).map(|_| keys.draw()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_eq!(Keys::new(KeySpread::None, 1).draw(), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, part) in [
            ("", "uniform:N"),
            ("uniform", "uniform:N"),
            ("uniform:0", "from 1 to"),
            ("uniform:99999999", "from 1 to"),
            ("zipf:0,10", "exponent"),
            ("zipf:NaN,10", "exponent"),
            ("zipf:1.1", "zipf:S,N"),
            ("hot:1.5,10", "share"),
            ("hot:0.5,1", "from 2 to"),
            ("pareto:1,2", "uniform:N"),
        ] {
            let said = text.parse::<KeySpread>().unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
