//! Reads what test programs print, line by line, and sums it up.
//!
//! Pure. Understands the standard harness, doctests and libtest-mimic. Not here: starting anything (`test.rs`).

use std::collections::HashSet;

/// What was counted so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered: u64,
    /// Name and reason, of which the reason may be empty.
    ignored_tests: Vec<(String, String)>,
    /// Name, and the first lines of why.
    failed_tests: Vec<(String, Vec<String>)>,
    /// The failed test, by its place, whose reason the next lines are.
    told: Option<usize>,
    /// All that ended, of every program.
    ended: HashSet<String>,
}

/// The most lines that are kept of why a test failed, and the most characters of each.
const WHY: (usize, usize) = (6, 400);

impl Tally {
    /// Takes one line.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.told = None;
            self.add(counts);
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            let name = spaced_once(name.strip_suffix(" stdout").unwrap_or(name));
            self.told = self.failed_tests.iter().rposition(|(failed, _)| *failed == name);
        } else if line == "failures:" {
            self.told = None;
        } else if let Some(told) = self.told {
            self.why(told, line);
        } else if let Some(test) = line.strip_prefix("test ")
            && let Some((name, outcome)) = test.rsplit_once(" ... ")
        {
            self.test(spaced_once(name), outcome.trim());
        }
    }

    fn test(&mut self, name: String, outcome: &str) {
        self.ended.insert(name.clone());
        if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_start_matches([',', ' ']);
            let inner = reason.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
            self.ignored_tests.push((name, inner.unwrap_or(reason).to_owned()));
        } else if outcome == "FAILED" {
            self.failed_tests.push((name, Vec::new()));
        }
    }

    fn why(&mut self, told: usize, line: &str) {
        let Some((_, why)) = self.failed_tests.get_mut(told) else { return };
        if !line.is_empty() && why.len() < WHY.0 {
            why.push(line.chars().take(WHY.1).collect());
        }
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn add(&mut self, counts: &str) {
        for part in counts.split(';') {
            let mut words = part.split_whitespace().rev();
            let (name, number) = match (words.next(), words.next()) {
                (Some("out"), Some("filtered")) => ("filtered", words.next()),
                (Some(name), number) => (name, number),
                (None, _) => continue,
            };
            let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else { continue };
            match name {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                "filtered" => self.filtered += number,
                _ => {}
            }
        }
    }

    /// Notes a server that there is not, and why; its tests say so as well, and are counted there.
    pub(crate) fn absent(&mut self, name: &str, why: &str) {
        self.ignored_tests.push((format!("server {name}"), why.to_owned()));
    }

    /// Notes a program that had to be ended, and those of its `tests` that had begun by then, as far as can be told: they begin in that order.
    pub(crate) fn hung(&mut self, program: &str, tests: Vec<String>) {
        let left = tests.into_iter().filter(|test| !self.ended.contains(test));
        let why = std::iter::once("it hung, most likely in one of these:".to_owned());
        self.failed += 1;
        self.failed_tests.push((program.to_owned(), why.chain(left).take(WHY.0 + 4).collect()));
    }

    /// How many tests ran.
    pub(crate) fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    /// The summary. Its last line is `N passed, N failed, N skipped`.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        if !self.failed_tests.is_empty() {
            text += "failed:\n";
            for (name, why) in &self.failed_tests {
                text += &format!("  {name}\n");
                why.iter().for_each(|line| text += &format!("    {line}\n"));
            }
        }
        if !self.ignored_tests.is_empty() {
            text += "ignored:\n";
            for (name, reason) in &self.ignored_tests {
                let reason = if reason.is_empty() { "no reason given" } else { reason };
                text += &format!("  {name}: {reason}\n");
            }
        }
        if self.filtered > 0 {
            text += &format!("{} left out by a filter\n", self.filtered);
        }
        text += &format!("{} passed, {} failed, {} skipped\n", self.passed, self.failed, self.ignored);
        text
    }
}

/// The name of a test with one space where there are many: libtest-mimic puts names below each other.
pub(crate) fn spaced_once(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(printed: &str) -> Tally {
        let mut tally = Tally::default();
        printed.lines().for_each(|line| tally.line(line));
        tally
    }

    #[test]
    fn both_harnesses_and_doctests_are_understood() {
        let tally = tally(
            "running 4 tests\n\
             test names::tests::a_topic_is_short ... ok\n\
             test names::tests::slow ... ignored, needs a server\n\
             test names::tests::bare ... ignored\n\
             test names::tests::broken ... FAILED\n\
             failures:\n\
             ---- names::tests::broken stdout ----\n\
             thread 'names::tests::broken' panicked at src/names.rs:3:9:\n\
             \n\
             test of one ... FAILED\n\
             failures:\n    names::tests::broken\n\
             test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\
             test [kafka]     P1 an acked message is there   ... ignored (no server: set KAFKA_URL)\n\
             test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.25s\n\
             test records::it_is_read ... FAILED\n\
             ---- records::it_is_read ----\n\
             test panicked: 1\n2\n3\n4\n5\n6\n7\n\
             failures:\n    records::it_is_read\n\
             test broker/src/lib.rs - (line 3) ... ok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n",
        );
        assert_eq!(
            tally.report(),
            "failed:\n  names::tests::broken\n    thread 'names::tests::broken' panicked at src/names.rs:3:9:\n    \
             test of one ... FAILED\n  records::it_is_read\n    test panicked: 1\n    2\n    3\n    4\n    5\n    6\n\
             ignored:\n  names::tests::slow: needs a server\n  names::tests::bare: no reason given\n  \
             [kafka] P1 an acked message is there: no server: set KAFKA_URL\n\
             3 left out by a filter\n\
             7 passed, 1 failed, 3 skipped\n"
        );
        assert_eq!(tally.ran(), 8);
    }

    #[test]
    fn a_program_that_hung_is_told_with_what_it_had_not_ended() {
        let mut tally = tally("test readers::one ... ok\ntest readers::three ... ok\n");
        tally
            .hung("target/log", ["readers::one", "readers::two", "readers::three"].map(str::to_owned).into());
        assert_eq!(
            tally.report(),
            "failed:\n  target/log\n    it hung, most likely in one of these:\n    readers::two\n0 passed, 1 failed, 0 skipped\n"
        );
    }

    #[test]
    fn what_looks_a_little_like_a_result_is_not_counted() {
        let tally =
            tally("test result: maybe\nthe test passed ... ok\ntest result: ok. many passed; -1 failed\n");
        assert_eq!(tally, Tally::default());
    }
}
