//! Judges a history of completions: was the order of each key kept, and what came twice?
//!
//! Pure, and made of nothing that the engine uses: it sees keys and numbers in the order in which handlers finished, and knows that
//! the numbers of a key were given out in the order of publishing. The rule: *first* completions of a key come in the order of
//! their numbers. A later completion of the same number is a duplicate, which is allowed (delivery is at least once) and counted.

use std::collections::{BTreeMap, BTreeSet};

/// What a history shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// First completions.
    pub(crate) first: u64,
    /// Completions of what was completed before.
    pub(crate) duplicates: u64,
    /// First completions that came after one of a larger number of the same key.
    pub(crate) violations: u64,
    /// The first violation, in words.
    pub(crate) example: Option<String>,
}

/// Judges completions (key, number) in the order in which they happened.
pub(crate) fn judge<'a>(history: impl IntoIterator<Item = (&'a str, u64)>) -> Verdict {
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut verdict = Verdict::default();
    for (key, number) in history {
        if !seen.insert(number) {
            verdict.duplicates += 1;
            continue;
        }
        verdict.first += 1;
        let highest = highest.entry(key).or_insert(number);
        if number < *highest {
            verdict.violations += 1;
            verdict.example.get_or_insert_with(|| {
                format!("number {number} of {key:?} was finished after number {highest}")
            });
        }
        *highest = number.max(*highest);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_interleave_and_repeats_are_no_violation() {
        let verdict = judge([("a", 0), ("b", 1), ("a", 2), ("a", 0), ("b", 3), ("a", 2), ("a", 4)]);
        assert_eq!(verdict, Verdict { first: 5, duplicates: 2, violations: 0, example: None });
    }

    #[test]
    fn an_overtaken_message_is_flagged_with_an_example() {
        let verdict = judge([("a", 0), ("a", 5), ("b", 1), ("a", 3), ("a", 4), ("a", 6)]);
        assert_eq!((verdict.first, verdict.violations), (6, 2));
        assert_eq!(verdict.example.unwrap(), "number 3 of \"a\" was finished after number 5");
    }

    #[test]
    fn a_repeat_does_not_hide_a_later_violation() {
        let verdict = judge([("a", 2), ("a", 2), ("a", 1)]);
        assert_eq!((verdict.duplicates, verdict.violations), (1, 1));
    }

    #[test]
    fn an_empty_history_is_in_order() {
        assert_eq!(judge([]), Verdict::default());
    }
}
