//! The doubles: brokers that differ from a correct one in one behaviour, so that each check of the suite is seen to fail.
//!
//! For every check there is a double that it must catch, and that no other check may trip over (but those the double declares as implied,
//! with the reason). A double that survives fails the run, as does a check without a double. All run on `memory:` under a
//! paused clock; what loses messages on Kafka runs over a real server, too. Here: what runs them. `hooks.rs`: where a double may differ;
//! `wrap.rs`: the wrapper; `backend.rs`: a double as a backend of the suite; the doubles: a file per group of checks; `kafka.rs`: those over Kafka.
//! Not here: the checks (`broker/src/conformance`).

mod admin;
mod backend;
mod close;
mod delay;
mod fidelity;
mod flow;
mod forward;
mod gaps;
mod groups;
mod handover;
mod hooks;
mod kafka;
mod lost;
mod order;
mod publish;
mod publisher;
mod readers;
mod retention;
mod settle;
mod starts;
mod wrap;

use backend::Doubled;
use hooks::{Double, Hooks};
use libtest_mimic::{Arguments, Failed, Trial};
use ropeway_broker::conformance::{Backend, Check, Verdict, checks};
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

fn doubles() -> Vec<Double> {
    [
        publish::doubles(),
        fidelity::doubles(),
        settle::doubles(),
        forward::doubles(),
        order::doubles(),
        groups::doubles(),
        handover::doubles(),
        starts::doubles(),
        readers::doubles(),
        gaps::doubles(),
        retention::doubles(),
        flow::doubles(),
        delay::doubles(),
        admin::doubles(),
        close::doubles(),
        publisher::doubles(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs a check on a double: what it said where it failed.
fn run(check: &Check, backend: &Arc<dyn Backend>) -> Result<Verdict, String> {
    match catch_unwind(AssertUnwindSafe(|| check.run(backend))) {
        Ok(verdict) => verdict,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
        }
    }
}

fn caught(double: &Double) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for check in checks() {
        let implied = double.implied.iter().any(|(name, _)| *name == check.name);
        let backend: Arc<dyn Backend> = Arc::new(Doubled::new(double.hooks));
        match run(check, &backend) {
            Err(seen) if check.name != double.caught_by && !implied => {
                wrong.push(format!("{} trips over it: {seen}", check.name));
            }
            Ok(verdict) if check.name == double.caught_by || implied => {
                wrong.push(format!("{} does not catch it ({verdict:?})", check.name));
            }
            _ => {}
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failed::from(wrong.join("\n"))) }
}

/// The wrapper without a difference keeps every promise, and every check can be made.
fn correct() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for check in checks() {
        let backend: Arc<dyn Backend> = Arc::new(Doubled::new(Hooks::default));
        match run(check, &backend) {
            Ok(Verdict::Kept) => {}
            other => wrong.push(format!("{}: {other:?}", check.name)),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failed::from(wrong.join("\n"))) }
}

fn each_check_has_a_double() -> Result<(), Failed> {
    let caught: BTreeSet<_> = doubles().iter().map(|double| double.caught_by).collect();
    let names: BTreeSet<_> = checks().map(|check| check.name).collect();
    let without: Vec<_> = names.difference(&caught).collect();
    let unknown: Vec<_> = caught.difference(&names).collect();
    if without.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    Err(Failed::from(format!("checks without a double: {without:?}; doubles of no check: {unknown:?}")))
}

fn main() {
    let arguments = Arguments::from_args();
    // Checks are expected to fail here by the hundred; what they say is in the trial that wanted them to pass.
    std::panic::set_hook(Box::new(|_| {}));
    let mut trials = vec![
        Trial::test("each check has a double", each_check_has_a_double),
        Trial::test("the wrapper without a difference keeps every promise", correct),
    ];
    trials.extend(doubles().into_iter().map(|double| {
        let name = format!("a broker that {} is caught by {} and no other", double.name, double.caught_by);
        Trial::test(name, move || caught(&double))
    }));
    trials.extend(kafka::trials());
    libtest_mimic::run(&arguments, trials).exit();
}
