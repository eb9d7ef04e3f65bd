//! `cargo xtask instructions`: what a message costs, in instructions, against the bounds written here.
//!
//! Instructions hardly depend on how busy the machine is, so that they can be compared with a bound. What runs handlers looks at the clock, so on a
//! busy machine its cells cost up to a few hundred more now and then: run them again there. And the quicker the disk is, the smaller are the batches that
//! wait for it, so that `publish_embedded_64`, `_1` and `publish_calls_64` cost up to a half more on a machine that is not busy. Each cell runs twice under valgrind's
//! callgrind, with N and 4 N messages; the slope is what one message costs, with all threads summed and without what starting costs.
//! Not here: the work itself (`benches/instructions/`), times and rates (`benches/`).

use crate::{cargo, root};
use std::{
    collections::HashMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// How many messages the shorter of two runs has.
const MESSAGES: u64 = 5_000;
/// How many functions are shown of each cell.
const SHOWN: usize = 10;

/// One kind of work.
struct Cell {
    name: &'static str,
    /// The cell whose work comes first, and does not count.
    without: Option<&'static str>,
    /// Instructions a message may cost before `cargo xtask instructions` fails: a little more than it did when that was measured last.
    bound: u64,
    meaning: &'static str,
}

const CELLS: &[Cell] = &[
    Cell {
        name: "publish",
        without: None,
        bound: 2_100,
        meaning: "made, published in batches of 256 and acked, on memory:",
    },
    Cell {
        name: "consume_to_ack",
        without: Some("publish"),
        bound: 680,
        meaning: "from the log to a consumer and acked, a batch at a time",
    },
    Cell {
        name: "pool",
        without: Some("publish"),
        bound: 1_700,
        meaning: "the same through a processor, with a handler that does nothing and 4,096 keys",
    },
    Cell {
        name: "pool_sleeping",
        without: Some("publish"),
        bound: 7_200,
        meaning: "the same as `pool`, with handlers that sleep 1 ms: their own timer is in it",
    },
    Cell {
        name: "pool_one_key",
        without: Some("publish"),
        bound: 1_700,
        meaning: "the same, all of one key",
    },
    Cell {
        name: "publish_store_64",
        without: None,
        bound: 5_500,
        meaning: "1 KiB written to the store below embedded: alone, synced in batches of 64, no table written; for comparison",
    },
    Cell {
        name: "publish_embedded_64",
        without: None,
        bound: 22_000,
        meaning: "1 KiB made, published through a publisher to embedded: and acked, 64 at once",
    },
    Cell { name: "publish_embedded_1024", without: None, bound: 13_000, meaning: "the same, 1,024 at once" },
    Cell { name: "publish_embedded_1", without: None, bound: 56_000, meaning: "the same, one at a time" },
    Cell {
        name: "publish_calls_64",
        without: None,
        bound: 22_000,
        meaning: "the same by a call to the broker for each, 64 at once",
    },
];

/// Measures the cells named, or all, and says which cost more than they may.
pub(crate) fn run(names: &[String]) -> ExitCode {
    if let Some(unknown) = names.iter().find(|name| !CELLS.iter().any(|cell| cell.name == **name)) {
        let known: Vec<&str> = CELLS.iter().map(|cell| cell.name).collect();
        eprintln!("error: there is no cell \"{unknown}\"; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    match measure(names) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: a message costs more than it may; the lines above say where");
            ExitCode::FAILURE
        }
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

fn measure(names: &[String]) -> Result<bool, String> {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        return Err("valgrind is needed to count instructions and is not installed; \
                    install it with your system's packages, such as: apt install valgrind"
            .into());
    }
    let program = build()?;
    let mut measured: HashMap<&str, Slope> = HashMap::new();
    let mut within = true;
    for cell in CELLS.iter().filter(|cell| names.is_empty() || names.iter().any(|name| name == cell.name)) {
        for name in cell.without.into_iter().chain([cell.name]) {
            if !measured.contains_key(name) {
                measured.insert(name, slope(&program, name)?);
            }
        }
        let Some(own) = measured.get(cell.name) else { continue };
        let cost = match cell.without.and_then(|name| measured.get(name)) {
            Some(base) => own.without(base),
            None => own.clone(),
        };
        let over = cost.total > cell.bound as i64;
        within &= !over;
        let verdict = if over { "OVER its bound" } else { "within" };
        println!("{}: {} instructions a message, {verdict} of {}", cell.name, cost.total, cell.bound);
        println!("  {}", cell.meaning);
        for (function, count) in cost.top() {
            println!("  {count:>6}  {function}");
        }
    }
    Ok(within)
}

/// Builds the measured program as it is shipped.
fn build() -> Result<PathBuf, String> {
    let status = cargo()
        .args(["build", "--release", "--quiet", "--package", "ropeway-instructions"])
        .status()
        .map_err(|error| format!("could not start cargo: {error}"))?;
    if !status.success() {
        return Err("the measured program does not build".into());
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(root().join(target).join("release").join("ropeway-instructions"))
}

/// What one message costs: in all, and by function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slope {
    total: i64,
    functions: HashMap<String, i64>,
}

impl Slope {
    fn between(short: &Counted, long: &Counted, messages: u64) -> Self {
        let a_message = |from: u64, to: u64| (to as i64 - from as i64) / messages as i64;
        let functions = long.functions.iter().map(|(function, count)| {
            let before = short.functions.get(function).copied().unwrap_or(0);
            (function.clone(), a_message(before, *count))
        });
        Self { total: a_message(short.total, long.total), functions: functions.collect() }
    }

    fn without(&self, base: &Self) -> Self {
        let functions = self.functions.iter().map(|(function, count)| {
            (function.clone(), count - base.functions.get(function).copied().unwrap_or(0))
        });
        Self { total: self.total - base.total, functions: functions.collect() }
    }

    /// The functions that cost the most, the dearest first.
    fn top(&self) -> Vec<(&str, i64)> {
        let mut all: Vec<_> = self.functions.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_unstable_by_key(|(name, count)| (-count, *name));
        all.retain(|(_, count)| *count > 0);
        all.truncate(SHOWN);
        all
    }
}

/// What one run cost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    total: u64,
    functions: HashMap<String, u64>,
}

fn slope(program: &Path, cell: &str) -> Result<Slope, String> {
    let short = count(program, cell, MESSAGES)?;
    let long = count(program, cell, 4 * MESSAGES)?;
    Ok(Slope::between(&short, &long, 3 * MESSAGES))
}

/// Runs a cell under callgrind.
fn count(program: &Path, cell: &str, messages: u64) -> Result<Counted, String> {
    let out = program.with_file_name(format!("callgrind.{cell}.{messages}"));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args([
            "--tool=callgrind",
            "--fair-sched=yes",
            "--quiet",
            "--compress-strings=no",
            "--compress-pos=no",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([cell, &messages.to_string()]);
    let started = |error: io::Error| format!("could not start valgrind: {error}");
    let output = valgrind.output().map_err(started)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{cell} with {messages} messages did not run to its end: {said}"));
    }
    let profile = fs::read(&out).map_err(|error| format!("could not read {}: {error}", out.display()))?;
    Ok(read(&String::from_utf8_lossy(&profile)))
}

/// Sums a profile by function. In callgrind's format without compression a line that starts with a number is a line of the source and what
/// it cost itself, but for the one behind `calls=`, which is what the called function cost.
fn read(profile: &str) -> Counted {
    let mut counted = Counted::default();
    let mut function = String::new();
    let mut called = false;
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            // A function that calls itself is told apart by its depth, and is one function here.
            function = match name.rsplit_once('\'') {
                Some((plain, depth)) if depth.parse::<u32>().is_ok() => plain.to_owned(),
                _ => name.to_owned(),
            };
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let own = !std::mem::take(&mut called);
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if let Some(cost) = cost.filter(|_| own) {
                counted.total += cost;
                *counted.functions.entry(function.clone()).or_default() += cost;
            }
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "version: 1\nevents: Ir\n\nfl=a.rs\nfn=one\n10 5\n11 7\ncfn=two\ncalls=3 20\n12 900\n\
                           fn=two\n20 30\nfn=two'2\n20 4\n\ntotals: 46\n";

    #[test]
    fn a_profile_is_summed_by_function_without_what_is_called() {
        let counted = read(PROFILE);
        assert_eq!(counted.total, 46);
        assert_eq!(counted.functions, HashMap::from([("one".to_owned(), 12), ("two".to_owned(), 34)]));
    }

    #[test]
    fn a_message_costs_the_slope_without_the_cell_before() {
        let at = |total, one| Counted { total, functions: HashMap::from([("one".to_owned(), one)]) };
        let slope = Slope::between(&at(1000, 100), &at(4000, 400), 30);
        assert_eq!((slope.total, slope.top()), (100, vec![("one", 10)]));
        let rest = slope.without(&Slope { total: 40, functions: HashMap::from([("one".to_owned(), 10)]) });
        assert_eq!((rest.total, rest.top()), (60, vec![]));
    }

    #[test]
    fn a_cell_stands_on_one_that_is_there() {
        for cell in CELLS {
            assert!(cell.without.is_none_or(|name| CELLS.iter().any(|other| other.name == name)));
        }
    }
}
