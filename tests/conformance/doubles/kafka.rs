//! What loses messages on Kafka when it is done wrong, done wrong over the backend on a real server: the check that catches the double on `memory:`
//! catches it there.
//!
//! One promise of Kafka's client library has its double in the tests of the module around that library (`broker/tests/kafka/reading.rs`): a reader that is told
//! ends of partitions skips messages. Not here: the differences themselves (files of their groups), the server (`cargo xtask servers up kafka`).

use super::{
    backend::Doubled,
    doubles,
    hooks::{Double, Hooks},
    run,
};
use libtest_mimic::{Completion, Failed, Trial};
use ropeway_broker::{
    Kafka, Result,
    conformance::{Backend, Check, Provides, Setup, Store, Verdict, checks},
};
use ropeway_tests::kafka::OnKafka;
use std::sync::Arc;

/// Doubles of the suite, by name.
const NAMES: [&str; 4] = [
    "commits an offset past an open message",
    "says not written of what is in the log",
    "takes acks of an epoch that is over",
    "begins with epoch one again on another node",
];

pub(crate) fn trials() -> Vec<Trial> {
    let named = |name: &&str| doubles().into_iter().find(|double| double.name == *name);
    let mut trials: Vec<Trial> =
        NAMES.iter().filter_map(named).map(|double| trial(&double, OnKafka::Classic)).collect();
    assert_eq!(trials.len(), NAMES.len(), "a double has another name");
    trials.push(trial(&LOSES_METADATA, Forgetful));
    trials
}

/// A difference inside of the backend, which has no hook.
const LOSES_METADATA: Double = Double {
    name: "loses the metadata of a commit at a revocation",
    caught_by: "acks_out_of_order_hold_for_the_next_owner",
    implied: &[],
    hooks: Hooks::default,
};

fn trial(double: &Double, on: impl Backend + Copy) -> Trial {
    let (caught_by, hooks) = (double.caught_by, double.hooks);
    let name = format!("a broker on Kafka that {} is caught by {caught_by}", double.name);
    Trial::ignorable_test(name, move || caught(caught_by, Doubled::over(Arc::new(on), hooks)))
}

fn caught(check: &str, double: Doubled) -> std::result::Result<Completion, Failed> {
    let double: Arc<dyn Backend> = Arc::new(double);
    if let Some(why) = double.absent() {
        return Ok(Completion::ignored_with(why));
    }
    let Some(check) = checks().find(|known| known.name == check) else {
        return Err(Failed::from(format!("there is no check {check}")));
    };
    let correct: Arc<dyn Backend> = Arc::new(Doubled::over(Arc::new(OnKafka::Classic), Hooks::default));
    kept(check, &correct)?;
    match run(check, &double) {
        // What was promised and not seen; anything else is a failure of the test.
        Err(seen) if seen.starts_with("promised: ") => Ok(Completion::Completed),
        other => Err(Failed::from(format!("{} does not catch it: {other:?}", check.name))),
    }
}

fn kept(check: &Check, correct: &Arc<dyn Backend>) -> std::result::Result<(), Failed> {
    match run(check, correct) {
        Ok(Verdict::Kept) => Ok(()),
        other => Err(Failed::from(format!("{} does not keep to a correct broker: {other:?}", check.name))),
    }
}

/// Kafka, where a partition that goes is committed without what belongs to its offset.
#[derive(Clone, Copy, Debug)]
struct Forgetful;

impl Backend for Forgetful {
    fn name(&self) -> &str {
        "forgetful"
    }

    fn absent(&self) -> Option<String> {
        OnKafka::Classic.absent()
    }

    fn provides(&self) -> Provides {
        OnKafka::Classic.provides()
    }

    fn store(&self, _: Setup) -> Result<Box<dyn Store>> {
        OnKafka::Classic.place(Kafka::lose_metadata)
    }
}
