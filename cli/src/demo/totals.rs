//! What the demo computes: totals per airport, some of which depend on the order of the reports.
//!
//! Pure. [`Totals::apply`] is idempotent by the number of a report: a report that comes twice counts once. Used with the bus by the
//! handler, and without it by [`Totals::plainly`], a loop over the file; the two must be equal.
//! Not here: whether the order was kept (`order.rs` judges that from the history alone).

use super::record::{Record, Strike};
use std::collections::{BTreeMap, BTreeSet};

/// Totals of all airports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) airports: BTreeMap<String, Airport>,
    applied: BTreeSet<u64>,
}

/// Totals of one airport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Airport {
    pub(crate) strikes: u64,
    pub(crate) damaging: u64,
    /// US dollars.
    pub(crate) cost: u64,
    /// Strikes without damage since the last one with damage.
    unharmed: u64,
    /// The longest run of strikes without damage: another order gives another run.
    pub(crate) longest_unharmed: u64,
    last_day: Option<i32>,
    /// The most days between one strike and the next.
    pub(crate) longest_quiet_days: i32,
    /// A fingerprint of every strike in its order.
    pub(crate) fingerprint: u64,
}

impl Totals {
    /// Counts a strike. `false`: it was counted before.
    pub(crate) fn apply(&mut self, number: u64, strike: &Strike) -> bool {
        if !self.applied.insert(number) {
            return false;
        }
        let airport = match self.airports.get_mut(&strike.airport) {
            Some(airport) => airport,
            None => self.airports.entry(strike.airport.clone()).or_default(),
        };
        airport.apply(number, strike);
        true
    }

    /// How many strikes are counted.
    pub(crate) fn strikes(&self) -> u64 {
        self.applied.len() as u64
    }

    /// The same without a bus: rounds of records, one after the other, each a number of records from the start of the file.
    /// Also the numbers of the reports that are bad.
    pub(crate) fn plainly(records: &[Record], rounds: &[u64]) -> (Self, BTreeSet<u64>) {
        let mut totals = Self::default();
        let mut bad = BTreeSet::new();
        for (number, record) in (0..).zip(published(records, rounds)) {
            match record.check() {
                Ok(strike) => {
                    totals.apply(number, &strike);
                }
                Err(_) => {
                    bad.insert(number);
                }
            }
        }
        (totals, bad)
    }
}

/// What is published in these rounds, in order.
pub(crate) fn published<'a>(records: &'a [Record], rounds: &'a [u64]) -> impl Iterator<Item = &'a Record> {
    rounds.iter().flat_map(|size| records.iter().take(usize::try_from(*size).unwrap_or(usize::MAX)))
}

impl Airport {
    fn apply(&mut self, number: u64, strike: &Strike) {
        self.strikes += 1;
        self.cost = self.cost.saturating_add(strike.cost);
        if strike.damaging {
            self.damaging += 1;
            self.unharmed = 0;
        } else {
            self.unharmed += 1;
            self.longest_unharmed = self.longest_unharmed.max(self.unharmed);
        }
        if let Some(last) = self.last_day.replace(strike.day) {
            self.longest_quiet_days = self.longest_quiet_days.max(strike.day - last);
        }
        let parts = [number, strike.cost, u64::from(strike.damaging), u64::from(strike.day.unsigned_abs())];
        for part in parts {
            self.fingerprint = fold(self.fingerprint, part);
        }
    }
}

/// One step of FNV-1a over a whole word: the order of steps matters, which is all that is asked of it.
const fn fold(hash: u64, part: u64) -> u64 {
    (hash ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::record::tests::good;

    fn strike(day: i32, damaging: bool) -> Strike {
        Strike { airport: "A".into(), day, damaging, cost: 10 }
    }

    #[test]
    fn a_strike_counts_once_however_often_it_comes() {
        let mut totals = Totals::default();
        assert!(totals.apply(0, &strike(1, true)));
        let once = totals.clone();
        assert!(!totals.apply(0, &strike(1, true)));
        assert_eq!(totals, once);
        assert_eq!(totals.strikes(), 1);
    }

    #[test]
    fn another_order_gives_another_result() {
        let strikes =
            [(0, strike(1, false)), (1, strike(5, true)), (2, strike(6, false)), (3, strike(16, false))];
        let compute = |order: [usize; 4]| {
            let mut totals = Totals::default();
            for i in order {
                totals.apply(strikes[i].0, &strikes[i].1);
            }
            totals
        };
        let right = compute([0, 1, 2, 3]);
        let airport = &right.airports["A"];
        assert_eq!((airport.strikes, airport.damaging, airport.cost), (4, 1, 40));
        assert_eq!((airport.longest_unharmed, airport.longest_quiet_days), (2, 10));
        for wrong in [[1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2]] {
            assert_ne!(compute(wrong), right, "{wrong:?}");
        }
    }

    #[test]
    fn the_plain_loop_takes_rounds_and_leaves_bad_reports_out() {
        let bad = Record { damage: "C".into(), ..good() };
        let records = [good(), bad, good()];
        let (totals, bad) = Totals::plainly(&records, &[3, 2]);
        assert_eq!(totals.strikes(), 3);
        assert_eq!(bad, BTreeSet::from([1, 4]));
        assert_eq!(totals.airports["NASHVILLE INTL"].cost, 360);
    }
}
