//! The Redis backend on a real server, beyond what the suites for all backends check. Where there is no server, each is shown as ignored.
//!
//! `server.rs` has one, `proxy.rs` stands before it. `scripts.rs`, `group_scripts.rs` and `forward_script.rs` are the scripts, one by one; `cuts.rs`
//! and `forwards.rs` are publishes and forwards whose connection ends; `bulk.rs` is much that is published; `large.rs` is large messages, and many partitions, that are read; `delayed.rs` is how late delayed messages come; `waking.rs` is ending the wait of a read; `foreign.rs` is what other clients do to streams; `kept.rs` is retention;
//! `doubles.rs` are scripts that are wrong, and are seen; `loss.rs` is what a server loses, `refusals.rs` what it refuses, `health.rs` what is said of servers that are away. `nodes.rs` has servers that fail over, for
//! `failover.rs`, `slots.rs` (a cluster whose slots move and whose nodes are replaced), `away.rs` (one whose nodes are away for a while) and `secured.rs` (TLS and passwords).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod away;
mod bulk;
mod cuts;
mod delayed;
mod doubles;
mod failover;
mod far;
mod foreign;
mod forward_script;
mod forwards;
mod group_scripts;
mod health;
mod kept;
mod large;
mod loss;
mod nodes;
mod proxy;
mod refusals;
mod scripts;
mod secured;
mod server;
mod slots;
#[path = "../trials/mod.rs"]
mod trials;
mod waking;

use std::{process::ExitCode, time::Duration};
use trials::Test;

/// Lists the tests of a module.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<crate::Test> {
            vec![$((stringify!($name), $name)),*]
        }
    };
}
use tests;

/// The same, of tests that wait.
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
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(180), test).await.unwrap() });
}

fn main() -> ExitCode {
    trials::run_all([
        ("scripts", scripts::all()),
        ("group_scripts", group_scripts::all()),
        ("bulk", bulk::all()),
        ("cuts", cuts::all()),
        ("delayed", delayed::all()),
        ("doubles", doubles::all()),
        ("foreign", foreign::all()),
        ("forward_script", forward_script::all()),
        ("forwards", forwards::all()),
        ("kept", kept::all()),
        ("large", large::all()),
        ("loss", loss::all()),
        ("health", health::all()),
        ("refusals", refusals::all()),
        ("failover", failover::all()),
        ("far", far::all()),
        ("slots", slots::all()),
        ("away", away::all()),
        ("secured", secured::all()),
        ("waking", waking::all()),
    ])
}
