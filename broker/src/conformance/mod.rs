//! The conformance suite: decides whether a backend keeps the promises of the contract.
//!
//! For authors of backends. Implement [`Backend`] and [`Store`] for it, and hand [`trials`] to `libtest_mimic::run` in a test target with
//! `harness = false`:
//!
//! ```no_run
//! # use ropeway_broker::conformance::{Backend, trials};
//! # fn backends() -> Vec<std::sync::Arc<dyn Backend>> { Vec::new() }
//! let trials = backends().into_iter().flat_map(trials).collect();
//! libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit();
//! ```
//!
//! One trial per backend and promise, named `<backend>::<group>::<behaviour in words>`; in brackets before it the id of the check in
//! the project's catalogue, where it has one (`S5`), else the group. What a backend cannot do, or a server that is not there,
//! is shown as `ignored` with the reason, never as `ok`. Every wait has a timeout; names of topics and groups are new in each trial.
//! Where nothing fails, deliveries are counted exactly: a duplicate is a failure.
//!
//! # Where things are
//! What a backend supplies: `backend.rs`. The list and its runner: `suite.rs`. What checks are made of: `stage.rs` (a broker and
//! its names), `watch.rs` (a consumer or reader and all it told), `promise.rs` (how a check fails). The checks: one
//! file per group. Not here: the doubles that prove that each check can fail (`tests/conformance/doubles`).

mod admin;
mod backend;
mod close;
mod delay;
mod fidelity;
mod flow;
mod forward;
mod gaps;
mod group_admin;
mod groups;
mod handover;
mod order;
pub mod promise;
mod publish;
mod publisher;
mod readers;
mod retention;
mod settle;
mod stage;
mod starts;
mod suite;
mod watch;

pub use backend::{Backend, Outcome, Provides, Publishing, Setup, Store};
pub use suite::{Check, Need, Verdict, checks, trials, trials_that_tell};

/// The checks, group by group.
const GROUPS: &[&[Check]] = &[
    publish::CHECKS,
    fidelity::CHECKS,
    settle::CHECKS,
    forward::CHECKS,
    order::CHECKS,
    groups::CHECKS,
    handover::CHECKS,
    starts::CHECKS,
    readers::CHECKS,
    gaps::CHECKS,
    retention::CHECKS,
    flow::CHECKS,
    delay::CHECKS,
    admin::CHECKS,
    group_admin::CHECKS,
    close::CHECKS,
    publisher::CHECKS,
];
