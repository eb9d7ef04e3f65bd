//! The conformance suite of the processor: decides whether the promises of processing are kept over a backend.
//!
//! For authors of backends, after the broker's own suite: implement its [`Backend`](ropeway_broker::conformance::Backend), and hand
//! [`trials`] to `libtest_mimic::run` in a test target with `harness = false`. What is checked is a [`Subject`]: the processor and the
//! worker pool of this crate ([`Original`]), or a double that breaks one promise, which proves that the check of it can fail.
//!
//! One trial per backend and promise, named `<backend>::<group>::<behaviour in words>`; in brackets before it the id of the check in the
//! project's catalogue, where it has one (`S3`), else the group. Every wait has a timeout; names are new in each trial; over a backend
//! with a paused clock times are checked exactly.
//!
//! # Where things are
//! What is checked: `subject.rs`. The list and its runner: `suite.rs`. What checks are made of: `stage.rs` (a broker that can be made to
//! fail, its names), `calls.rs` (handlers and what was asked of them). The checks: one file
//! per group. Not here: the doubles and the backends (`tests/processing`).

mod calls;
mod failure;
mod fidelity;
mod handover;
mod letters;
mod order;
mod pool;
mod retry;
mod routing;
mod shutdown;
mod stage;
mod subject;
mod suite;

pub use subject::{Job, Jobs, OnError, Original, Pool, Processing, Route, Subject, Task};
pub use suite::{Check, Need, Outcome, checks, trials, trials_that_tell};

/// The checks, group by group.
const GROUPS: &[&[Check]] = &[
    routing::CHECKS,
    fidelity::CHECKS,
    retry::CHECKS,
    failure::CHECKS,
    letters::CHECKS,
    order::CHECKS,
    handover::CHECKS,
    shutdown::CHECKS,
    pool::CHECKS,
];
