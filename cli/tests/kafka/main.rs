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
mod server;
#[path = "../program/steps.rs"]
mod steps;
mod tools;
mod verbs;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use running::Place;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

/// A test: its name, and what it does; an error is why it cannot be run here.
type Test = (&'static str, fn() -> Result<(), String>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two cores, and each test has processes of its own.
    arguments.test_threads.get_or_insert(2);
    let modules = [verbs::all(), refusals::all(), doctor::all(), clients::all()];
    let trials =
        modules.concat().into_iter().map(|(name, test)| Trial::ignorable_test(name, move || run(test)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(test: fn() -> Result<(), String>) -> Result<Completion, Failed> {
    match catch_unwind(AssertUnwindSafe(test)) {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(why)) => Ok(Completion::ignored_with(why)),
        Err(panic) => Err(said(&*panic).into()),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

/// A directory in which the program works on the broker of that URL.
fn on(url: &str) -> Place {
    let place = Place::new();
    place.file("ropeway.toml", format!("[broker]\nurl = \"{url}\"\n"));
    place
}

/// `host:port` of a URL.
fn address(url: &str) -> &str {
    let hosts = url.split_once("://").map_or(url, |(_, rest)| rest);
    hosts.split(['?', ',']).next().unwrap_or_default()
}
