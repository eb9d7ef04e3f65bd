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
#[path = "../trials/mod.rs"]
mod trials;

use std::{process::ExitCode, time::Duration};
use trials::Test;

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
    trials::run_all([
        ("publishing", publishing::all()),
        ("connecting", connecting::all()),
        ("replicas", replicas::all()),
        ("standing", standing::all()),
        ("ending", ending::all()),
    ])
}
