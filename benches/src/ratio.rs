//! Two measurements beside each other: rounds that take turns, medians, their ratio, and how sure it is. Pure.
//!
//! A machine that others share has good and bad moments. What is measured in turns (A B B A) in one run meets the same moments, so that the
//! ratio means something where the figures do not.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Which of the two goes first in round `round`, from 0: they change places, so that neither always follows the other.
#[must_use]
pub const fn first_goes_first(round: usize) -> bool {
    round.is_multiple_of(2)
}

/// The middle of the values; between two of them where there is no middle. `None` where there are none, or one is no number.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    if sorted.is_empty() || sorted.iter().any(|value| value.is_nan()) {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    Some(if sorted.len().is_multiple_of(2) {
        sorted[middle - 1].midpoint(sorted[middle])
    } else {
        sorted[middle]
    })
}

/// The ratio of one to the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Median of the one.
    pub ours: f64,
    /// Median of the other.
    pub theirs: f64,
    /// Median of the ratios of all rounds.
    pub ratio: f64,
    /// Nine of ten times the ratio is not lower than this ...
    pub low: f64,
    /// ... nor higher than this: a bootstrap over the rounds.
    pub high: f64,
}

impl Ratio {
    /// From the rounds: one value of each for each round. `None` where there are none, or a divisor is not positive.
    #[must_use]
    pub fn of(rounds: &[(f64, f64)]) -> Option<Self> {
        const DRAWS: usize = 2000;
        if rounds.iter().any(|(_, theirs)| *theirs <= 0.0) {
            return None;
        }
        let ratios: Vec<f64> = rounds.iter().map(|(ours, theirs)| ours / theirs).collect();
        let ratio = median(&ratios)?;
        let mut lot = StdRng::seed_from_u64(ratios.len() as u64);
        let mut draws: Vec<f64> = (0..DRAWS)
            .filter_map(|_| {
                let drawn: Vec<f64> =
                    ratios.iter().map(|_| ratios[lot.random_range(0..ratios.len())]).collect();
                median(&drawn)
            })
            .collect();
        draws.sort_by(f64::total_cmp);
        Some(Self {
            ours: median(&rounds.iter().map(|(ours, _)| *ours).collect::<Vec<_>>())?,
            theirs: median(&rounds.iter().map(|(_, theirs)| *theirs).collect::<Vec<_>>())?,
            ratio,
            low: *draws.get(DRAWS / 20)?,
            high: *draws.get(DRAWS - DRAWS / 20 - 1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found_or_there_is_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!((median(&[]), median(&[f64::NAN])), (None, None));
    }

    #[test]
    fn a_drift_that_both_meet_does_not_move_the_ratio() {
        let rounds: Vec<(f64, f64)> =
            (1..=9).map(|round| (f64::from(round) * 90.0, f64::from(round) * 100.0)).collect();
        let ratio = Ratio::of(&rounds).unwrap();
        assert_eq!((ratio.ratio, ratio.low, ratio.high), (0.9, 0.9, 0.9));
        assert_eq!((ratio.ours, ratio.theirs), (450.0, 500.0));
    }

    #[test]
    fn what_scatters_is_less_sure() {
        let rounds: Vec<(f64, f64)> = (0..9).map(|round| (50.0 + f64::from(round) * 12.5, 100.0)).collect();
        let ratio = Ratio::of(&rounds).unwrap();
        assert!(ratio.low < ratio.ratio && ratio.ratio < ratio.high, "{ratio:?}");
        assert!(ratio.low >= 0.5 && ratio.high <= 1.5, "{ratio:?}");
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[(1.0, 0.0)]), None);
    }

    #[test]
    fn the_two_change_places() {
        assert_eq!([0, 1, 2, 3].map(first_goes_first), [true, false, true, false]);
    }
}
