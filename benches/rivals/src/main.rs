//! `ropeway-rivals`: what the embedded broker, the engine and the brokers on Redis and Kafka reach, beside others that do the same work on the same bytes, interleaved in
//! one run.
//!
//! Here: what is asked for, in which order it runs, and the exit code. `cell.rs` has the list of cells and their targets, `work.rs` the
//! messages, `arms/`, `redis/` and `kafka/` who does the work, `rounds.rs` the interleaving, `report.rs` what is printed.
//! Not here: instructions a message (`cargo xtask instructions`).

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod arms;
mod cell;
mod child;
mod kafka;
mod machine;
mod record;
mod redis;
mod report;
mod rounds;
mod statistics;
mod tasks;
mod work;

use cell::{CELLS, Cell, Kind};
use clap::Parser;
use report::Report;
use rounds::Plan;
use std::{error::Error, path::PathBuf, process::ExitCode};

/// What goes wrong here is told and ends the program.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures Ropeway beside others that do the same work, and prints a table of ratios.
///
/// Each cell runs ours and the rival in turns (A B B A ...) on the same messages, each turn in a fresh directory; the first round is
/// discarded. The ratio is that of the medians, with a bootstrap interval of 90 %. What was written is read back and compared.
/// Use an idle machine and a directory on a real disk.
#[derive(Debug, Parser)]
#[command(name = "ropeway-rivals", version, after_help = cell::help(), disable_help_subcommand = true)]
struct Options {
    /// A smoke test: a few hundred messages, one round, no target is judged.
    #[arg(long)]
    quick: bool,
    /// Only these cells, separated by commas; a name stands for all that begin with it.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    cells: Vec<String>,
    /// How many rounds are counted.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Where stores and files are made, and removed afterwards. On a real disk, or syncs cost nothing.
    #[arg(long, default_value = "target", value_name = "DIR")]
    dir: PathBuf,
    /// Write all figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// End with 3 where a target is missed.
    #[arg(long)]
    assert: bool,
    /// Messages of the cell `steady`.
    #[arg(long, default_value_t = 10_000_000, value_name = "COUNT")]
    messages: u64,
    /// MiB that the cell `steady` keeps.
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    retention: u64,
    /// MiB that the cell `reopen` finds.
    #[arg(long, default_value_t = 5 * 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    retained: u64,
    #[command(subcommand)]
    role: Option<child::Role>,
}

impl Options {
    fn plan(&self) -> Plan {
        const MIB: u64 = 1024 * 1024;
        if self.quick {
            return Plan::quick();
        }
        Plan {
            rounds: self.rounds,
            quick: false,
            steady_messages: self.messages,
            retention: self.retention * MIB,
            retained: self.retained * MIB,
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = options.role.as_ref().map_or_else(|| run(&options), |role| role.play().map(|()| true));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) if options.assert => ExitCode::from(3),
        Ok(false) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cells that were asked for; answers whether all targets were met.
fn run(options: &Options) -> Result<bool> {
    let chosen = chosen(&options.cells)?;
    let plan = options.plan();
    let failed = |error| format!("{}: {error}", options.dir.display());
    std::fs::create_dir_all(&options.dir).map_err(failed)?;
    let place = tempfile::Builder::new().prefix("rivals-").tempdir_in(&options.dir).map_err(failed)?;
    let mut report = Report::begin(place.path(), &plan)?;
    for cell in chosen {
        if let Some(reason) = cell.missing(&plan) {
            report.ignore(cell, &reason);
            continue;
        }
        eprintln!("{}: {}", cell.name, cell.what);
        let failed = |error| format!("{}: {error}", cell.name);
        match cell.kind {
            Kind::Ratio { target, pair } => {
                let rounds = rounds::run(pair(&plan), &plan, place.path()).map_err(failed)?;
                report.add_ratio(cell, target, &rounds);
            }
            Kind::Bounds(measure) => {
                let canary = machine::Canary::sing(place.path())?;
                report.add_bounds(cell, measure(&plan, place.path()).map_err(failed)?, canary);
            }
        }
    }
    report.end();
    print!("{}", report.table());
    if let Some(out) = &options.out {
        std::fs::write(out, report.json()?).map_err(|error| format!("{}: {error}", out.display()))?;
    }
    Ok(report.met())
}

/// The cells whose name begins with one of `names`, in their own order; all where there are no names.
fn chosen(names: &[String]) -> Result<Vec<&'static Cell>> {
    if let Some(unknown) = names.iter().find(|name| !CELLS.iter().any(|cell| cell.name.starts_with(*name))) {
        return Err(format!("there is no cell {unknown:?}; --help lists them").into());
    }
    let asked = |cell: &&Cell| names.is_empty() || names.iter().any(|name| cell.name.starts_with(name));
    Ok(CELLS.iter().filter(asked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_chosen_by_the_beginning_of_their_name() {
        assert_eq!(chosen(&[]).unwrap().len(), CELLS.len());
        let some = chosen(&["publish-64".to_owned()]).unwrap();
        assert!(some.len() > 1 && some.iter().all(|cell| cell.name.starts_with("publish-64")));
        assert!(chosen(&["publisch".to_owned()]).unwrap_err().to_string().contains("publisch"));
    }

    #[test]
    fn options_are_what_clap_takes() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
