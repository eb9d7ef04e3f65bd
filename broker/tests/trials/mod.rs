//! Runs the tests of a backend, each as a trial that is shown as ignored where what it needs is not there.
//!
//! Compiled by its path. Not here: what they need (`server.rs` beside each of them).

use libtest_mimic::{Arguments, Completion, Trial};
use std::{
    panic::{catch_unwind, resume_unwind},
    process::ExitCode,
};

/// The name of a test, and what it does.
pub(crate) type Test = (&'static str, fn());

/// What a test ends with that cannot be run here: why, and what to do.
struct Absent(String);

/// Ends a test, which is shown as ignored for that reason.
pub(crate) fn ignore(why: impl Into<String>) -> ! {
    resume_unwind(Box::new(Absent(why.into())))
}

/// Runs those of the arguments, by module.
pub(crate) fn run_all<const N: usize>(modules: [(&str, Vec<Test>); N]) -> ExitCode {
    let trial = |module: &str, (name, test): Test| {
        // No ignored flag: with that the reason would not be printed.
        Trial::ignorable_test(format!("{module}::{name}"), move || match catch_unwind(test) {
            Ok(()) => Ok(Completion::Completed),
            Err(why) => match why.downcast::<Absent>() {
                Ok(absent) => Ok(Completion::ignored_with(absent.0)),
                Err(why) => resume_unwind(why),
            },
        })
    };
    let trials = modules
        .into_iter()
        .flat_map(|(module, tests)| tests.into_iter().map(move |test| trial(module, test)))
        .collect();
    let mut arguments = Arguments::from_args();
    // Two cores, and most wait.
    arguments.test_threads.get_or_insert(4);
    libtest_mimic::run(&arguments, trials).exit_code()
}
