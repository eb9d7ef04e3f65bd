//! Which first attempts fail on purpose: about one in a hundred, chosen by a seed.
//!
//! Pure: the same seed and number give the same answer on every machine.

/// One in that many first attempts fails.
pub(crate) const ONE_IN: u64 = 100;

/// Whether the first attempt at report `number` fails.
pub(crate) const fn strikes(seed: u64, number: u64) -> bool {
    mix(seed ^ mix(number)).is_multiple_of(ONE_IN)
}

/// The finalizer of SplitMix64: every bit of the input moves every bit of the output.
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_one_in_a_hundred_fails_and_another_seed_chooses_others() {
        let chosen = |seed| (0..100_000).filter(|number| strikes(seed, *number)).collect::<Vec<_>>();
        for seed in [0, 1, 42] {
            assert!((800..1200).contains(&chosen(seed).len()), "{}", chosen(seed).len());
        }
        assert_eq!(chosen(7), chosen(7));
        assert_ne!(chosen(7), chosen(8));
    }
}
