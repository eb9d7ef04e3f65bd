//! The Kafka backend on real servers, beyond what the suites for all backends check. Where there is no server, each is shown as ignored.
//!
//! `server.rs` has the servers, and topics on them. `publishing.rs` is what becomes of messages; `connecting.rs` is bad input: servers that are not there,
//! passwords and certificates that are wrong; `replicas.rs` is a topic that lacks some, `standing.rs` a controller that stands still, on
//! servers that are none (`fake.rs`); `ending.rs` is the end of a process. Not here: the unsafe module below the backend.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connecting;
mod ending;
mod fake;
mod publishing;
mod replicas;
mod server;
mod standing;

use libtest_mimic::{Arguments, Completion, Trial};
use std::{
    panic::{catch_unwind, resume_unwind},
    process::ExitCode,
    time::Duration,
};

/// The name of a test, and what it does.
type Test = (&'static str, fn());

/// Lists the tests of a module.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<crate::Test> {
            vec![$((stringify!($name), || crate::run($name()))),*]
        }
    };
}
use tests;

/// Runs a test on a runtime with one thread: nothing here may need more.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(240), test).await.unwrap() });
}

fn main() -> ExitCode {
    ending::end();
    let trial = |module: &str, (name, test): Test| {
        // No ignored flag: with that the reason would not be printed.
        Trial::ignorable_test(format!("{module}::{name}"), move || match catch_unwind(test) {
            Ok(()) => Ok(Completion::Completed),
            Err(why) => match why.downcast::<server::Absent>() {
                Ok(absent) => Ok(Completion::ignored_with(absent.why())),
                Err(why) => resume_unwind(why),
            },
        })
    };
    let modules = [
        ("publishing", publishing::all()),
        ("connecting", connecting::all()),
        ("replicas", replicas::all()),
        ("standing", standing::all()),
        ("ending", ending::all()),
    ];
    let trials = modules
        .into_iter()
        .flat_map(|(module, tests)| tests.into_iter().map(move |test| trial(module, test)))
        .collect();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    libtest_mimic::run(&arguments, trials).exit_code()
}
