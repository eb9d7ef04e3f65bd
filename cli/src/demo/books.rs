//! The books: what was done so far, built from the ledger's entries, whether they were read or are being made.
//!
//! Pure. Also what there is to do in a run: [`Books::plan`].
//! Not here: the file (`ledger.rs`).

use super::{ledger::Entry, order, totals::Totals};
use std::collections::BTreeSet;

/// What was done since the demo was reset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// How many records each round of publishing has.
    pub(crate) rounds: Vec<u64>,
    /// What was computed.
    pub(crate) totals: Totals,
    /// The numbers of the reports that were rejected.
    pub(crate) rejected: BTreeSet<u64>,
    /// The numbers of all reports that were handled or rejected.
    pub(crate) finished: BTreeSet<u64>,
    /// First completions that took more than one attempt.
    pub(crate) retried: u64,
    /// Completions in the order in which they happened: airport and number.
    history: Vec<(String, u64)>,
}

/// What a run has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// A new round begins; else an earlier one is finished.
    pub(crate) new_round: bool,
    /// To be published, in order.
    pub(crate) publish: Vec<u64>,
    /// Published by an earlier run, and not finished.
    pub(crate) waiting: Vec<u64>,
}

impl Books {
    /// Counts an entry. `false`: a completion of what was finished before.
    pub(crate) fn enter(&mut self, entry: &Entry) -> bool {
        let (number, attempt, airport) = match entry {
            Entry::Round(size) => {
                self.rounds.push(*size);
                return true;
            }
            Entry::Done { number, attempt, strike, .. } => {
                self.totals.apply(*number, strike);
                (*number, *attempt, &strike.airport)
            }
            Entry::Rejected { number, attempt, airport, .. } => {
                self.rejected.insert(*number);
                (*number, *attempt, airport)
            }
        };
        self.history.push((airport.clone(), number));
        let first = self.finished.insert(number);
        self.retried += u64::from(first && attempt > 1);
        first
    }

    /// How many reports all rounds have.
    pub(crate) fn reports(&self) -> u64 {
        self.rounds.iter().sum()
    }

    /// Where in the file the report of that number stands.
    pub(crate) fn row(&self, number: u64) -> Option<usize> {
        let mut before = 0;
        for size in &self.rounds {
            if number - before < *size {
                return usize::try_from(number - before).ok();
            }
            before += size;
        }
        None
    }

    /// What to do next, given what is in the log: the rest of what was begun, or a new round of that size. Numbers in the log that no
    /// round has are somebody else's.
    pub(crate) fn plan(&self, logged: &BTreeSet<u64>, size: u64) -> Plan {
        let begun = self.reports();
        let waiting: Vec<u64> =
            logged.range(..begun).filter(|number| !self.finished.contains(number)).copied().collect();
        let missing = |number: &u64| !logged.contains(number) && !self.finished.contains(number);
        let publish: Vec<u64> = (0..begun).filter(missing).collect();
        if waiting.is_empty() && publish.is_empty() {
            return Plan { new_round: true, publish: (begun..begun + size).collect(), waiting };
        }
        Plan { new_round: false, publish, waiting }
    }

    /// What the history of completions shows.
    pub(crate) fn judge(&self) -> order::Verdict {
        order::judge(self.history.iter().map(|(airport, number)| (airport.as_str(), *number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::record::Strike;

    fn done(number: u64, attempt: u32) -> Entry {
        let strike = Strike { airport: "A".into(), day: 1, damaging: false, cost: 1 };
        Entry::Done { number, attempt, member: "m".into(), strike }
    }

    fn books(entries: &[Entry]) -> Books {
        let mut books = Books::default();
        for entry in entries {
            books.enter(entry);
        }
        books
    }

    #[test]
    fn completions_are_counted_once_and_judged_all() {
        let rejected = Entry::Rejected { number: 1, attempt: 1, member: "m".into(), airport: "A".into() };
        let books = books(&[Entry::Round(3), done(0, 2), rejected, done(2, 1), done(0, 2)]);
        assert_eq!((books.totals.strikes(), books.retried), (2, 1));
        assert_eq!(books.rejected, BTreeSet::from([1]));
        let verdict = books.judge();
        assert_eq!((verdict.first, verdict.duplicates, verdict.violations), (3, 1, 0));
    }

    #[test]
    fn a_finished_demo_begins_another_round() {
        assert_eq!(
            Books::default().plan(&BTreeSet::new(), 2),
            Plan { new_round: true, publish: vec![0, 1], waiting: vec![] }
        );
        let books = books(&[Entry::Round(2), done(0, 1), done(1, 1)]);
        let plan = books.plan(&BTreeSet::from([0, 1]), 3);
        assert_eq!(plan, Plan { new_round: true, publish: vec![2, 3, 4], waiting: vec![] });
        let purged = books.plan(&BTreeSet::new(), 1);
        assert_eq!(purged.publish, [2], "what is done is not published again when the topic was purged");
    }

    #[test]
    fn an_interrupted_demo_goes_on_where_it_stopped() {
        let books = books(&[Entry::Round(5), done(0, 1), done(2, 1)]);
        let plan = books.plan(&BTreeSet::from([0, 1, 2]), 9);
        assert_eq!(plan, Plan { new_round: false, publish: vec![3, 4], waiting: vec![1] });
    }

    #[test]
    fn numbers_are_found_in_their_rounds() {
        let books = books(&[Entry::Round(3), Entry::Round(2)]);
        let rows: Vec<_> = (0..6).map(|number| books.row(number)).collect();
        assert_eq!(rows, [Some(0), Some(1), Some(2), Some(0), Some(1), None]);
    }
}
