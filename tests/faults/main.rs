//! Faults against real processes.
//!
//! Here: which trials there are. Not here: how a history is written (`history.rs`), judged (`check.rs`), and how the judge is
//! (`bad.rs`).

mod bad;
mod check;
mod history;

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), bad::trials()).exit_code()
}
