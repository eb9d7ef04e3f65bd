//! The program against real servers of Redis, started by these tests. Where there is no `redis-server`, each is shown as ignored.
//!
//! Here: every verb (`verbs.rs`), servers and keys that cannot be used (`refusals.rs`), what `doctor` says (`doctor.rs`), clients that are not ours
//! (`clients.rs`). Not here: what verbs do in detail (`../program/`), the contract on Redis (the conformance suite).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clients;
mod doctor;
mod refusals;
#[path = "../program/running.rs"]
#[expect(dead_code, reason = "the tests without servers use the rest")]
mod running;
#[path = "../program/same.rs"]
mod same;
mod server;
#[path = "../program/steps.rs"]
mod steps;
#[path = "../program/trials.rs"]
mod trials;
mod verbs;

use std::process::ExitCode;
use trials::run_all;

fn main() -> ExitCode {
    let absent = "no redis-server: install it (apt-get install redis-server)";
    let tests = [verbs::all(), refusals::all(), doctor::all(), clients::all()].concat();
    run_all(tests, (!server::available()).then_some(absent))
}
