//! The program against real servers of Kafka, as `cargo xtask servers` starts them. Where there is none, each is shown as ignored.
//!
//! Here: every verb (`verbs.rs`), servers that cannot be used (`refusals.rs`), what `doctor` says (`doctor.rs`), clients that are not ours
//! (`clients.rs`). Not here: what verbs do in detail (`../program/`), the contract on Kafka (the conformance suite).

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
mod tools;
#[path = "../program/trials.rs"]
mod trials;
mod verbs;

use std::process::ExitCode;
use trials::run_all;

fn main() -> ExitCode {
    run_all([verbs::all(), refusals::all(), doctor::all(), clients::all()].concat(), None)
}

/// `host:port` of a URL.
fn address(url: &str) -> &str {
    let hosts = url.split_once("://").map_or(url, |(_, rest)| rest);
    hosts.split(['?', ',']).next().unwrap_or_default()
}
