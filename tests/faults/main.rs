//! Faults against real processes: a worker on `embedded:` is killed with SIGKILL, and nothing acked is lost.
//!
//! Here: which trials there are. The worker is this same program, told so by its environment (`worker.rs`, with `seam.rs` and
//! `traffic.rs`); `kill.rs` kills it; what it did is in its histories (`history.rs`), judged by `check.rs`, which `bad.rs` judges.

mod bad;
mod check;
mod history;
mod kill;
mod seam;
mod traffic;
mod worker;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = worker::run_if_asked() {
        return code;
    }
    let mut trials = bad::trials();
    trials.push(Trial::test("embedded::survives_kills_at_any_moment", kill::embedded_survives_kills));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
