//! Runs tests that need a server, each as a trial that is shown as ignored where it has none.
//!
//! Not here: the servers (`../redis/server.rs`, `../kafka/server.rs`).

use crate::running::Place;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

/// A test: its name, and what it does; an error is why it cannot be run here.
pub(crate) type Test = (&'static str, fn() -> Result<(), String>);

/// Runs those of the arguments. `absent` is why none can be run here, where that is so.
pub(crate) fn run_all(tests: Vec<Test>, absent: Option<&'static str>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two cores, and each test has processes of its own.
    arguments.test_threads.get_or_insert(2);
    let trial = |(name, test): Test| Trial::ignorable_test(name, move || run(test, absent));
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

fn run(test: fn() -> Result<(), String>, absent: Option<&str>) -> Result<Completion, Failed> {
    if let Some(why) = absent {
        return Ok(Completion::ignored_with(why));
    }
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
pub(crate) fn on(url: &str) -> Place {
    let place = Place::new();
    place.file("ropeway.toml", format!("[broker]\nurl = \"{url}\"\n"));
    place
}
