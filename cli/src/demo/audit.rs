//! Compares what the bus did with what a plain loop over the file does.
//!
//! Pure. Fed with the books, the numbers in the log and the dead letters; what is wrong comes out in words.
//! Not here: reading topics (`place.rs`), judging order (`order.rs`), printing (`report.rs`).

use super::{books::Books, order, record::Record, totals::Totals};
use ropeway_broker::Message;
use ropeway_processor::FailureRecord;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The dead letters of the demo.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeadLetters {
    /// The numbers of the reports among them.
    pub(crate) numbers: BTreeSet<u64>,
    /// Letters of a report that has one already.
    pub(crate) repeats: u64,
    /// A letter may be there twice: where it and the ack of its report are two steps, a crash between them repeats it.
    pub(crate) may_repeat: bool,
    /// Letters that are no reports: somebody else published to the topic.
    pub(crate) foreign: u64,
    reasons: BTreeMap<String, Reason>,
}

/// Why reports were dead-lettered: reasons that differ in numbers only are one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    pub(crate) count: u64,
    /// One of them.
    pub(crate) example: String,
}

/// The number of the report in a message; `None` where it is none.
pub(crate) fn number(message: &Message) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        number: u64,
    }
    let numbered: Numbered = serde_json::from_slice(message.payload.as_deref()?).ok()?;
    Some(numbered.number)
}

impl DeadLetters {
    /// Counts a letter.
    pub(crate) fn see(&mut self, letter: &Message) {
        let Some(number) = number(letter) else {
            self.foreign += 1;
            return;
        };
        if !self.numbers.insert(number) {
            self.repeats += 1;
            return;
        }
        let (kind, example) = match FailureRecord::parse(letter) {
            Ok(Some(record)) => (record.fingerprint, record.error),
            Ok(None) => (String::new(), "no reason is given".to_owned()),
            Err(error) => (String::new(), error.to_string()),
        };
        self.reasons.entry(kind).or_insert(Reason { count: 0, example }).count += 1;
    }

    /// The reasons, the most frequent first.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = self.reasons.values().cloned().collect();
        reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.example.cmp(&b.example)));
        reasons
    }
}

/// What the comparison shows.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    /// In the log and neither handled nor dead-lettered: lost where the run is over, left where it was interrupted.
    pub(crate) unfinished: u64,
    /// Published by nobody yet, though the round was begun.
    pub(crate) unpublished: u64,
    pub(crate) order: order::Verdict,
    /// Whether totals and dead letters are those of the plain loop; `None`: the rounds are not finished.
    pub(crate) equal: Option<bool>,
    /// What is wrong, in words. Empty: nothing.
    pub(crate) wrong: Vec<String>,
}

/// Compares. `complete`: the run was not interrupted, so everything should be finished.
pub(crate) fn audit(
    records: &[Record],
    books: &Books,
    logged: &BTreeSet<u64>,
    dead: &DeadLetters,
    complete: bool,
) -> Audit {
    let order = books.judge();
    let ours = 0..books.reports();
    let dead_numbers: BTreeSet<u64> = dead.numbers.range(ours.clone()).copied().collect();
    let handled = |number: &u64| books.finished.contains(number) && !books.rejected.contains(number);
    let open = |number: &&u64| !handled(number) && !dead_numbers.contains(number);
    let unfinished: Vec<u64> = logged.range(ours.clone()).filter(open).copied().collect();
    let unpublished = ours.filter(|number| !logged.contains(number) && !books.finished.contains(number));
    let unpublished = unpublished.count() as u64;
    let mut wrong = Vec::new();
    if let Some(example) = &order.example {
        wrong.push(format!("the order of a key was broken {} times, first: {example}", order.violations));
    }
    if let Some(number) = dead_numbers.iter().find(|number| handled(number)) {
        wrong.push(format!("report {number} was handled and is a dead letter too"));
    }
    if dead.repeats > 0 && !dead.may_repeat {
        wrong.push(format!("{} dead letters are there twice", dead.repeats));
    }
    let mut equal = None;
    if complete {
        if let Some(first) = unfinished.first() {
            wrong.push(format!(
                "{} published reports were neither handled nor dead-lettered, first: {first}",
                unfinished.len()
            ));
        }
        if unpublished > 0 {
            wrong.push(format!("{unpublished} reports of the round were not published"));
        }
        let (plain, bad) = Totals::plainly(records, &books.rounds);
        wrong.extend(difference(&plain, &books.totals));
        if bad != dead_numbers {
            let missing = bad.difference(&dead_numbers).count();
            let extra = dead_numbers.difference(&bad).count();
            wrong.push(format!("dead letters: {missing} bad reports are missing, {extra} are not bad"));
        }
        equal = Some(plain == books.totals && bad == dead_numbers);
    }
    Audit { unfinished: unfinished.len() as u64, unpublished, order, equal, wrong }
}

/// The first difference between two results, in words.
fn difference(plain: &Totals, bus: &Totals) -> Option<String> {
    if plain == bus {
        return None;
    }
    let names: BTreeSet<&String> = plain.airports.keys().chain(bus.airports.keys()).collect();
    let differing = names.iter().find(|name| plain.airports.get(**name) != bus.airports.get(**name));
    Some(match differing {
        Some(name) => format!(
            "the result differs from the plain loop's, first for {name}: {:?} with the bus, {:?} without",
            bus.airports.get(*name),
            plain.airports.get(*name)
        ),
        None => "the result counts other reports than the plain loop".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{ledger::Entry, record::tests::good};

    /// Three reports, the middle one bad, all finished.
    fn finished() -> (Vec<Record>, Books, BTreeSet<u64>, DeadLetters) {
        let bad = Record { damage: "C".into(), ..good() };
        let records = vec![good(), bad, good()];
        let mut books = Books::default();
        books.enter(&Entry::Round(3));
        for (number, record) in (0..).zip(&records) {
            let member = "m".to_owned();
            books.enter(&match record.check() {
                Ok(strike) => Entry::Done { number, attempt: 1, member, strike },
                Err(_) => Entry::Rejected { number, attempt: 1, member, airport: record.airport.clone() },
            });
        }
        let dead = DeadLetters { numbers: BTreeSet::from([1]), ..DeadLetters::default() };
        (records, books, BTreeSet::from([0, 1, 2]), dead)
    }

    fn wrong(change: impl FnOnce(&mut Books, &mut BTreeSet<u64>, &mut DeadLetters)) -> String {
        let (records, mut books, mut logged, mut dead) = finished();
        change(&mut books, &mut logged, &mut dead);
        audit(&records, &books, &logged, &dead, true).wrong.join("\n")
    }

    #[test]
    fn a_right_run_is_right() {
        let (records, books, logged, dead) = finished();
        let audit = audit(&records, &books, &logged, &dead, true);
        assert_eq!(audit.wrong, [""; 0]);
        assert_eq!((audit.equal, audit.unfinished, audit.order.violations), (Some(true), 0, 0));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let lost = wrong(|books, _, _| {
            let (records, ..) = finished();
            *books = Books::default();
            books.enter(&Entry::Round(3));
            let strike = records[0].check().unwrap();
            books.enter(&Entry::Done { number: 0, attempt: 1, member: "m".into(), strike });
        });
        assert!(
            lost.contains("1 published reports were neither handled nor dead-lettered, first: 2"),
            "{lost}"
        );
        assert!(lost.contains("first for NASHVILLE INTL"), "{lost}");
        let no_letter = wrong(|_, _, dead| dead.numbers.clear());
        assert!(no_letter.contains("neither handled nor dead-lettered, first: 1"), "{no_letter}");
        assert!(no_letter.contains("1 bad reports are missing, 0 are not bad"), "{no_letter}");
        let extra = wrong(|_, _, dead| dead.numbers.extend([2]));
        assert!(extra.contains("report 2 was handled and is a dead letter too"), "{extra}");
        assert!(wrong(|_, _, dead| dead.repeats = 1).contains("1 dead letters are there twice"));
        let two_steps = wrong(|_, _, dead| (dead.repeats, dead.may_repeat) = (1, true));
        assert!(!two_steps.contains("twice"), "{two_steps}");
        let unpublished = wrong(|books, _, _| books.rounds.push(1));
        assert!(unpublished.contains("1 reports of the round were not published"), "{unpublished}");
    }

    #[test]
    fn a_result_in_another_order_is_not_equal() {
        let records = vec![
            good(),
            Record { damage: "Medium".into(), cost_repair: "1".into(), cost_total: "21".into(), ..good() },
        ];
        let mut books = Books::default();
        books.enter(&Entry::Round(2));
        for number in [1, 0] {
            let strike = records[number as usize].check().unwrap();
            books.enter(&Entry::Done { number, attempt: 1, member: "m".into(), strike });
        }
        let audit = audit(&records, &books, &BTreeSet::from([0, 1]), &DeadLetters::default(), true);
        assert_eq!((audit.equal, audit.order.violations), (Some(false), 1));
        assert_eq!(audit.wrong.len(), 2, "{:?}", audit.wrong);
    }

    #[test]
    fn an_interrupted_run_is_not_compared_and_nothing_is_called_lost() {
        let (records, mut books, mut logged, dead) = finished();
        books.enter(&Entry::Round(2));
        logged.insert(3);
        let audit = audit(&records, &books, &logged, &dead, false);
        assert_eq!((audit.equal, audit.unfinished, audit.unpublished), (None, 1, 1));
        assert_eq!(audit.wrong, [""; 0]);
    }

    #[test]
    fn numbers_that_the_demo_never_gave_out_do_not_count() {
        let (records, books, mut logged, mut dead) = finished();
        logged.insert(77);
        dead.numbers.insert(77);
        assert_eq!(audit(&records, &books, &logged, &dead, true).wrong, [""; 0]);
        assert!(books.plan(&logged, 3).new_round);
    }

    #[test]
    fn dead_letters_are_counted_by_number() {
        let mut dead = DeadLetters::default();
        for payload in ["{\"number\":3,\"x\":1}", "{\"number\":3}", "nonsense", "{\"number\":4}"] {
            dead.see(&Message::builder().payload(payload).build());
        }
        assert_eq!((dead.numbers.len(), dead.repeats, dead.foreign), (2, 1, 1));
        assert_eq!(dead.reasons(), [Reason { count: 2, example: "no reason is given".into() }]);
    }
}
