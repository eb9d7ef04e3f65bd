//! Medians, spreads and quantiles of what was measured; 0 of nothing. Pure.
//!
//! Not here: the ratio of two and its interval (`benches/src/ratio.rs`).

use ropeway_bench::ratio;

/// The one in the middle.
pub(crate) fn median(figures: &[f64]) -> f64 {
    ratio::median(figures).unwrap_or(0.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_quantiles_and_spreads_are_right() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[])), (2.0, 0.0));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 3.0);
        assert_eq!((quantile(&[1.0], 1.0), quantile(&[], 0.5)), (1.0, 0.0));
        assert_eq!((spread(&[9.0, 10.0, 11.0]), spread(&[])), (0.2, 0.0));
    }
}
