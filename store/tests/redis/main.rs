//! Connections to Redis against real servers, started by these tests. Where there is no `redis-server`, each is shown as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod channels;
mod outages;
mod refusals;
mod requests;
mod server;
mod topologies;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::future::Future;

/// A test that needs a server.
type Test = (&'static str, fn() -> Result<(), Failed>);

/// Runs a test on a runtime with one thread: nothing here may need more.
fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match tokio::time::timeout(std::time::Duration::from_secs(60), test).await {
            Ok(()) => Ok(()),
            Err(_) => Err("it takes longer than a minute".into()),
        }
    })
}

/// Names tests of a module.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<crate::Test> {
            vec![$((stringify!($name), || crate::run($name()))),*]
        }
    };
}
use tests;

fn main() -> std::process::ExitCode {
    let available = server::available();
    let trial = |(name, test): Test| {
        Trial::ignorable_test(name, move || match available {
            true => test().map(|()| Completion::Completed),
            false => {
                Ok(Completion::ignored_with("no redis-server: install it (apt-get install redis-server)"))
            }
        })
    };
    let mut arguments = Arguments::from_args();
    // Two cores, and each test has processes of its own.
    arguments.test_threads.get_or_insert(4);
    libtest_mimic::run(
        &arguments,
        [requests::all(), refusals::all(), outages::all(), channels::all(), topologies::all()]
            .concat()
            .into_iter()
            .map(trial)
            .collect(),
    )
    .exit_code()
}
