//! The Kafka backend on a real server, beyond what the suites for all backends check: what happens to logs while they are read, and groups of others. Where
//! there is no server, each is shown as ignored.
//!
//! `server.rs` says where one is; `readers.rs` is reading without a group, `members.rs` with one, `many.rs` with many partitions, `damage.rs` what is damaged on its disk, `delayed.rs`
//! messages for later, `far.rs` many topics far away, `group_admin.rs` administration. Not here: the unsafe module of the backend
//! (its own tests), what all backends promise (`broker/src/conformance`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cost;
mod damage;
mod delayed;
mod far;
mod group_admin;
mod many;
mod members;
mod readers;
mod server;
#[path = "../trials/mod.rs"]
mod trials;

use std::{process::ExitCode, time::Duration};
use trials::Test;

/// Lists the tests of a module.
macro_rules! async_tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<crate::Test> {
            vec![$((stringify!($name), || crate::run($name()))),*]
        }
    };
}
use async_tests;

/// Runs a test on a runtime with one thread: nothing here may need more.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), test).await.unwrap() });
}

fn main() -> ExitCode {
    if cost::reads() || delayed::moves() {
        return ExitCode::SUCCESS;
    }
    trials::run_all([
        ("readers", readers::all()),
        ("many", many::all()),
        ("members", members::all()),
        ("damage", damage::all()),
        ("cost", cost::all()),
        ("delayed", delayed::all()),
        ("far", far::all()),
        ("group_admin", group_admin::all()),
    ])
}
