//! Medians, and the ratio of two with its interval. Pure.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// A ratio of medians, and between what its bootstrap finds it nine times of ten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) ratio: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// How far the figures lie apart, as a part of their median.
pub(crate) fn spread(figures: &[f64]) -> f64 {
    let high = figures.iter().copied().fold(f64::MIN, f64::max);
    let low = figures.iter().copied().fold(f64::MAX, f64::min);
    if figures.is_empty() { 0.0 } else { (high - low) / median(figures) }
}

/// The value below which that part of them lies.
pub(crate) fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The ratio of the medians of two arms; figures of one index are of one round, and rounds are drawn.
pub(crate) fn ratio(ours: &[f64], rival: &[f64]) -> Ratio {
    const DRAWS: usize = 2_000;
    let rounds = ours.len().min(rival.len());
    let mut random = SmallRng::seed_from_u64(1);
    let draws: Vec<f64> = (0..if rounds == 0 { 0 } else { DRAWS })
        .map(|_| {
            let drawn: Vec<usize> = (0..rounds).map(|_| random.random_range(0..rounds)).collect();
            let of = |figures: &[f64]| median(&drawn.iter().map(|i| figures[*i]).collect::<Vec<_>>());
            of(ours) / of(rival)
        })
        .collect();
    Ratio { ratio: median(ours) / median(rival), low: quantile(&draws, 0.05), high: quantile(&draws, 0.95) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_quantiles_and_spreads_are_right() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 3.0);
        assert_eq!(quantile(&[1.0], 1.0), 1.0);
        assert_eq!(spread(&[9.0, 10.0, 11.0]), 0.2);
    }

    #[test]
    fn the_interval_holds_the_ratio_and_is_a_point_where_nothing_varies() {
        let ratio = ratio(&[10.0, 11.0, 9.0, 10.5, 30.0], &[20.0, 21.0, 19.0, 18.0, 22.0]);
        assert_eq!(ratio.ratio, 10.5 / 20.0);
        assert!(ratio.low < ratio.ratio && ratio.ratio < ratio.high, "{ratio:?}");
        let point = super::ratio(&[1.0; 5], &[2.0; 5]);
        assert_eq!((point.low, point.ratio, point.high), (0.5, 0.5, 0.5));
    }
}
