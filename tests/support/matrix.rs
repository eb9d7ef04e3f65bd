//! What came of each check on each backend, as a page: `target/conformance/matrix.md`, and its copy `docs/conformance.md`.
//!
//! A full run of a suite writes its half of the page, and then compares the copy with what it found on the backends that it had. Not here: the
//! checks (`broker/src/conformance`, `processor/src/conformance`), who runs them (`tests/conformance/main.rs`, `tests/processing/main.rs`).

use crate::backends::lock;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use ropeway_broker::conformance::Backend;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

const COPY: &str = "docs/conformance.md";
const RENEW: &str =
    "run `cargo xtask test -p ropeway-tests`, then `cp target/conformance/matrix.md docs/conformance.md`";
const HEAD: &str = "\
# What was checked on which broker

This page was written by a run of the tests: one line for each promise, one column for each broker, with what came of it there. *kept* means
that the check ran and the promise held. A number stands for the reason, below the tables, why it could not be checked on that broker; then
nothing is promised there, and what would need it is refused by name. `cargo xtask test` runs all of it on your machine and writes the page to `target/conformance/matrix.md`.

Each check can fail: a double that is wrong in that one way must be caught by it.
";

/// A suite that is run over backends.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// What its half of the page is called in files.
    pub name: &'static str,
    /// The heading of its half.
    pub title: &'static str,
}

/// The suite of the bus.
pub const BUS: Suite = Suite { name: "bus", title: "The bus" };
/// The suite of processing over it.
pub const PROCESSING: Suite = Suite { name: "processing", title: "Processing over it" };

/// What a check came to on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The promise was kept.
    Kept,
    /// It could not be checked, and why.
    Ignored(String),
}

/// A check: its group and its name.
type Row = (&'static str, &'static str);

/// What came of a suite.
#[derive(Clone, Debug)]
pub struct Matrix {
    suite: Suite,
    backends: Vec<Arc<dyn Backend>>,
    rows: Vec<Row>,
    cells: Arc<Mutex<BTreeMap<(Row, String), Cell>>>,
}

impl Matrix {
    /// An empty one for these checks, in the order in which they are shown.
    #[must_use]
    pub fn new(suite: Suite, backends: &[Arc<dyn Backend>], rows: Vec<Row>) -> Self {
        Self { suite, backends: backends.to_vec(), rows, cells: Arc::default() }
    }

    /// Notes what a check came to. One that failed is not told.
    pub fn note(&self, backend: &str, row: Row, cell: Cell) {
        lock(&self.cells).insert((row, backend.to_owned()), cell);
    }

    /// Runs the trials, which note what they come to. After all of them the page is written and compared with its copy: that is one more trial.
    pub fn run(self, arguments: &Arguments, trials: Vec<Trial>) -> Conclusion {
        let mut conclusion = libtest_mimic::run(arguments, trials);
        let part = arguments.filter.is_some() || !arguments.skip.is_empty() || arguments.ignored;
        if part || arguments.list || conclusion.has_failed() {
            return conclusion;
        }
        let page = Trial::test(format!("page::{}", self.suite.name), move || self.page());
        let of_page = libtest_mimic::run(arguments, vec![page]);
        conclusion.num_passed += of_page.num_passed;
        conclusion.num_failed += of_page.num_failed;
        conclusion
    }

    fn page(&self) -> Result<(), Failed> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |to| root.join(to));
        let folder = target.join("conformance");
        let half = self.half();
        write(&folder, self.suite, &half)?;
        let copy = fs::read_to_string(root.join(COPY)).unwrap_or_default();
        let present = |backend: &&Arc<dyn Backend>| backend.absent().is_none();
        for backend in self.backends.iter().filter(present) {
            let (found, said) =
                (column(&half, self.suite, backend.name()), column(&copy, self.suite, backend.name()));
            if let Some(differs) = difference(&found, &said) {
                return Err(format!("{COPY} says of {}: {differs}; {RENEW}", backend.name()).into());
            }
        }
        Ok(())
    }

    /// This suite's half of the page.
    fn half(&self) -> String {
        let cells = lock(&self.cells);
        let mut reasons: Vec<&str> = Vec::new();
        let names: Vec<&str> = self.backends.iter().map(|backend| backend.name()).collect();
        let mut text = format!("\n## {}\n\n", self.suite.title);
        for backend in &self.backends {
            let on = backend.absent().unwrap_or_else(|| backend.runs_on());
            text += &format!("* `{}`: {on}\n", backend.name());
        }
        let mut group = "";
        for row in &self.rows {
            if row.0 != group {
                group = row.0;
                let columns = "---|".repeat(names.len() + 1);
                text += &format!(
                    "\n### {}: {group}\n\n| | {} |\n|{columns}\n",
                    self.suite.name,
                    names.join(" | ")
                );
            }
            text += &format!("| {} |", row.1.replace('_', " "));
            for name in &names {
                match cells.get(&(*row, (*name).to_owned())) {
                    None => text += " broken |",
                    Some(Cell::Kept) => text += " kept |",
                    Some(Cell::Ignored(why)) => {
                        let at = reasons.iter().position(|known| known == why).unwrap_or_else(|| {
                            reasons.push(why);
                            reasons.len() - 1
                        });
                        text += &format!(" ({}) |", at + 1);
                    }
                }
            }
            text.push('\n');
        }
        if !reasons.is_empty() {
            text += &format!("\n### {}: why a check was not run\n\n", self.suite.name);
        }
        for (at, why) in reasons.iter().enumerate() {
            text += &format!("{}. {why}\n", at + 1);
        }
        text
    }
}

/// Writes a half, and the page of both halves there are.
fn write(folder: &Path, suite: Suite, half: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = |suite: Suite| folder.join(format!("{}.md", suite.name));
    fs::write(path(suite), half)?;
    let halves = [BUS, PROCESSING].map(|suite| fs::read_to_string(path(suite)).unwrap_or_default());
    fs::write(folder.join("matrix.md"), format!("{HEAD}{}", halves.concat()))
}

/// What a page says of a backend: by group and check, with the reason instead of its number.
fn column(page: &str, suite: Suite, backend: &str) -> BTreeMap<String, String> {
    let title = format!("## {}", suite.title);
    let half: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != title)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .collect();
    let reason = |number: &str| {
        let begin = format!("{number}. ");
        half.iter().find_map(|line| line.strip_prefix(begin.as_str())).unwrap_or("?").to_owned()
    };
    let (mut group, mut at, mut found) = ("", None, BTreeMap::new());
    for line in &half {
        if let Some(heading) = line.strip_prefix("### ") {
            group = heading;
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = cells.split(" | ").map(str::trim).collect();
        if let Some(names) = line.strip_prefix("| | ") {
            let mut names = names.trim_end_matches(" |").split(" | ");
            at = names.position(|name| name == backend).map(|at| at + 1);
        } else if let Some(cell) = at.and_then(|at| cells.get(at)) {
            let number = cell.strip_prefix('(').and_then(|cell| cell.strip_suffix(')'));
            let said = number.map_or_else(|| (*cell).to_owned(), reason);
            found.insert(format!("{group}: {}", cells[0]), said);
        }
    }
    found
}

/// The first thing that the copy says otherwise, or does not say, or that there is no more.
fn difference(found: &BTreeMap<String, String>, said: &BTreeMap<String, String>) -> Option<String> {
    let nothing = "nothing".to_owned();
    let differs = |(check, is): (&String, &String)| {
        let said = said.get(check).unwrap_or(&nothing);
        (said != is).then(|| format!("{check}: {said}, where this run found: {is}"))
    };
    let gone = |check: &&String| !found.contains_key(*check);
    let gone = || said.keys().find(gone).map(|check| format!("{check}, which is no check any more"));
    found.iter().find_map(differs).or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::{Memory, Outlived};

    fn matrix(second: Cell) -> Matrix {
        let backends: [Arc<dyn Backend>; 2] = [Arc::new(Memory), Arc::new(Outlived)];
        let rows = vec![("publish", "what_is_acked_is_there"), ("forward", "all_or_nothing")];
        let matrix = Matrix::new(BUS, &backends, rows.clone());
        matrix.note("memory", rows[0], Cell::Kept);
        matrix.note("memory", rows[1], Cell::Ignored("it forgets".into()));
        matrix.note("outlived", rows[0], second);
        matrix
    }

    #[test]
    fn a_page_says_what_came_of_each_check_on_each_backend() {
        let half = matrix(Cell::Kept).half();
        let said = |of| column(&half, BUS, of).into_values().collect::<Vec<_>>();
        assert_eq!(said("memory"), ["it forgets", "kept"]);
        assert_eq!(said("outlived"), ["broken", "kept"]);
        assert_eq!(said("nothing"), [""; 0]);
        assert_eq!(column(&half, PROCESSING, "memory").len(), 0);
    }

    #[test]
    fn a_copy_that_says_something_else_is_found() {
        let (now, before) = (matrix(Cell::Kept).half(), matrix(Cell::Ignored("a reason".into())).half());
        let of = |half: &str| column(half, BUS, "outlived");
        assert_eq!(difference(&of(&now), &of(&now)), None);
        let told = difference(&of(&now), &of(&before)).unwrap();
        assert_eq!(told, "bus: publish: what is acked is there: a reason, where this run found: kept");
        assert!(difference(&of(&now), &BTreeMap::new()).unwrap().contains("nothing"));
        assert!(difference(&BTreeMap::new(), &of(&now)).unwrap().contains("no check any more"));
    }
}
