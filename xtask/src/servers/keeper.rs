//! Servers for as long as one command runs: a process of its own brings them up, and takes them down when that command is gone.
//!
//! It notices that by its standard input, which ends however the command ends: done, Ctrl-C, or killed. Servers that were up before stay up;
//! so do those that another command still uses. Not here: bringing up and taking down (`mod.rs` beside this).

use super::{
    Outcomes, bring_up,
    kind::Kind,
    names_of,
    place::Place,
    take_down_unkept,
    trouble::{Trouble, broken},
    way::Wish,
};
use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitCode, Stdio},
};

/// The word for it behind `cargo xtask servers`. Nobody types it.
pub(super) const VERB: &str = "keep";

/// What it prints when it has said what became of all.
const DONE: &str = "done";

/// Servers that are there until this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
}

/// What became of the servers that were asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Variables for the tests.
    pub(crate) exports: Vec<(String, String)>,
    /// Name of each that cannot be had here, and why.
    pub(crate) missing: Vec<(String, String)>,
    /// Name of each that did not come up, and why.
    pub(crate) broken: Vec<(String, String)>,
}

impl Keeper {
    /// Begins to bring servers up.
    pub(crate) fn start(kinds: &[Kind]) -> Result<Self, Trouble> {
        let child = Command::new(env::current_exe().map_err(broken)?)
            .args(["servers", VERB])
            .args(kinds.iter().map(|kind| kind.name()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the group of the command.
            .process_group(0)
            .spawn()
            .map_err(|error| broken(format!("could not start a process that keeps servers: {error}")))?;
        Ok(Self { child })
    }

    /// Waits until each is up, or known not to be.
    pub(crate) fn ready(&mut self) -> Result<Kept, Trouble> {
        let mut kept = Kept::default();
        for line in self.child.stdout.take().into_iter().flat_map(|says| BufReader::new(says).lines()) {
            let line = line.map_err(broken)?;
            if line == DONE {
                return Ok(kept);
            }
            kept.take(&line);
        }
        Err(broken("the process that keeps servers ended; what it printed says why"))
    }
}

impl Drop for Keeper {
    /// Waits until they are down.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.stdout.take());
        _ = self.child.wait();
    }
}

impl Kept {
    /// A line that [`say`] printed.
    fn take(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (Some(what), Some(name)) = (words.next(), words.next()) else { return };
        let pair = (name.to_owned(), words.next().unwrap_or_default().to_owned());
        match what {
            "export" => self.exports.push(pair),
            "missing" => self.missing.push(pair),
            "broken" => self.broken.push(pair),
            _ => {}
        }
    }
}

/// What became of the servers, one fact a line: `export VARIABLE VALUE`, `missing NAME WHY`, `broken NAME WHY`.
fn say(outcomes: &Outcomes) -> String {
    let mut text = String::new();
    for (kind, outcome) in outcomes {
        match outcome {
            Ok(record) => {
                record.exports.iter().for_each(|(name, value)| text += &format!("export {name} {value}\n"))
            }
            Err(Trouble::Missing(why)) => text += &format!("missing {} {}\n", kind.name(), in_one_line(why)),
            Err(Trouble::Broken(why)) => text += &format!("broken {} {}\n", kind.name(), in_one_line(why)),
        }
    }
    text
}

fn in_one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" | ")
}

/// The other process: brings them up, says so, and takes them down when its input ends.
pub(super) fn run(place: &Place, kinds: &[Kind]) -> ExitCode {
    match keep(place, kinds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("error: {}: {trouble}", names_of(kinds));
            ExitCode::FAILURE
        }
    }
}

fn keep(place: &Place, kinds: &[Kind]) -> Result<(), Trouble> {
    let using = place.using()?;
    let outcomes = bring_up(place, kinds, Wish::Either, false)?;
    // Who asked may be gone already; then its input says so too.
    _ = io::stdout().write_all((say(&outcomes) + DONE + "\n").as_bytes());
    _ = io::stdin().read_to_end(&mut Vec::new());
    match using.last()? {
        Some(_alone) => take_down_unkept(place),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::{
        kind::{KAFKA, REDIS},
        place::Record,
    };

    #[test]
    fn what_is_said_is_understood() {
        let exports = vec![("A_URL".to_owned(), "redis://127.0.0.1:1/a b".to_owned())];
        let record = Record { version: "7".into(), since: 0, exports: exports.clone() };
        let outcomes = vec![
            (REDIS, Ok(record)),
            (KAFKA, Err(Trouble::Missing("no java:\n apt-get it".into()))),
            (Kind::Pulsar, Err(broken("it fell"))),
        ];
        let mut kept = Kept::default();
        say(&outcomes).lines().for_each(|line| kept.take(line));
        let pair = |name: &str, why: &str| vec![(name.to_owned(), why.to_owned())];
        assert_eq!(
            kept,
            Kept {
                exports,
                missing: pair("kafka", "no java: | apt-get it"),
                broken: pair("pulsar", "it fell")
            }
        );
    }
}
