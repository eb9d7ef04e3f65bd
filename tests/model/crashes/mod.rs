//! Programs whose broker is stopped at every change it makes to its disk, and at every read.
//!
//! Short programs are stopped at each change in turn, in each way there is; longer ones at some. Here: how many programs are run, and that a
//! wrong disk is found. What they do: `program.rs`. How they are run: `run.rs`, `steps.rs`. What must come of it: `reference.rs`, `view.rs`.

mod program;
mod reference;
mod run;
mod steps;
mod view;

use super::{config, rng};
use program::{Program, every, faults, programs};
use proptest::test_runner::{TestCaseError, TestError, TestRunner};
use ropeway_tests::disk::{Fault, Flaw, Written};
use run::run;

/// Runs a program once undisturbed, and then once for each thing that can go wrong in it.
fn everywhere(program: &Program) -> Result<(), String> {
    let (changes, reads) = run(program, Vec::new(), None)?;
    for fault in every(changes, reads) {
        run(program, vec![fault], None).map_err(|why| format!("{fault:?}: {why}"))?;
    }
    Ok(())
}

#[test]
fn a_broker_that_is_stopped_at_each_change_and_each_read_keeps_its_promises() {
    let mut runner = TestRunner::new_with_rng(config(30), rng());
    runner.run(&programs(10), |program| everywhere(&program).map_err(TestCaseError::fail)).unwrap();
}

#[test]
fn a_broker_that_is_stopped_again_and_again_keeps_its_promises() {
    let mut runner = TestRunner::new_with_rng(config(400), rng());
    let run = |(program, faults): (Program, Vec<Fault>)| {
        run(&program, faults, None).map(drop).map_err(TestCaseError::fail)
    };
    runner.run(&(programs(50), faults(120)), run).unwrap();
}

/// A disk that is wrong in this way is found for one of these reasons, by a program that shrinks.
fn is_found(flaw: Flaw, why: &[&str]) {
    let mut runner = TestRunner::new_with_rng(config(600), rng());
    let run = |program: Program| run(&program, Vec::new(), Some(flaw)).map(drop).map_err(TestCaseError::fail);
    let Err(TestError::Fail(reason, program)) = runner.run(&programs(30), run) else {
        panic!("it is not noticed");
    };
    assert!(why.iter().any(|why| reason.message().contains(why)), "{reason} after {program:?}");
    assert!(program.steps.len() <= 5, "{reason} after {program:?}");
}

#[test]
fn a_disk_that_loses_what_was_published_is_found() {
    is_found(Flaw::Loses(|of| of.keyspace.starts_with("log-") && !of.removed), &["is lost"]);
}

#[test]
fn a_disk_that_loses_an_ack_is_found() {
    is_found(Flaw::Loses(|of| of.keyspace == "state" && of.key.starts_with(b"C")), &["is done"]);
}

#[test]
fn a_disk_that_keeps_a_delayed_message_which_was_moved_or_cancelled_is_found() {
    let why = ["it is there twice", "it must not be there", "delayed messages wait instead of"];
    is_found(Flaw::Loses(|of| of.keyspace == "schedule" && of.removed), &why);
}

#[test]
fn a_disk_that_keeps_half_a_forward_is_found() {
    // The topic of what is forwarded is made first.
    is_found(Flaw::Loses(|of| of.keyspace.starts_with("log-1700000000000")), &["a forward is lost"]);
}

#[test]
fn a_disk_that_brings_a_deleted_topic_back_is_found() {
    let of_topics = |of: &Written<'_>| of.keyspace == "state" && b"TPS".contains(&of.key[0]) && of.removed;
    is_found(Flaw::Revives(of_topics), &["the topic is in life"]);
}
