//! Calls of the worker to its disk fail, one chosen call a life: writes, syncs, and what makes files.
//!
//! Each life has a directory of its own, so that the first calls are those that make it. After the failure the worker lives on for a while;
//! then it is killed, and the next one, whose disk is sound, drains. `ROPEWAY_TEST_INJECTIONS` calls of each kind are chosen by lot (default
//! 3); 100 are all of them.
//! Not here: how calls are made to fail (`native/inject.c`), starting workers and judging them (`run.rs`).

use crate::{
    native,
    run::{Run, number},
};
use libtest_mimic::{Completion, Failed};
use rand::{SeedableRng, rngs::StdRng, seq::index};
use std::time::Duration;

/// A kind of call, how it fails, and what that is called.
struct Fault {
    kind: &'static str,
    error: i32,
    ever: bool,
    /// Calls behind that one are not made to fail: they may not come in the short life of a worker.
    reach: usize,
    /// Whether somebody must be told. Where nothing is said of it: one call may be the keeper's, who tries again and is well. A short write is no failure.
    told: Option<bool>,
    name: &'static str,
}

const FAULTS: [Fault; 6] = [
    Fault { kind: "sync", error: 5, ever: false, reach: 100, told: None, name: "a sync fails (EIO)" },
    Fault { kind: "sync", error: 5, ever: true, reach: 100, told: Some(true), name: "all syncs fail (EIO)" },
    Fault { kind: "write", error: 5, ever: false, reach: 100, told: None, name: "a write fails (EIO)" },
    Fault {
        kind: "write",
        error: 28,
        ever: true,
        reach: 100,
        told: Some(true),
        name: "all writes fail (ENOSPC)",
    },
    Fault { kind: "write", error: 0, ever: false, reach: 100, told: Some(false), name: "a write is short" },
    Fault {
        kind: "make",
        error: 28,
        ever: false,
        reach: 24,
        told: None,
        name: "a file cannot be made (ENOSPC)",
    },
];

/// How long a failure may take to be told that must be told, and how long others are given.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(1500);

/// The trial.
pub(crate) fn survives_failing_calls() -> Result<Completion, Failed> {
    if !cfg!(target_os = "linux") {
        return Ok(Completion::ignored_with("needs Linux: LD_PRELOAD"));
    }
    let library = match native::compile("inject", &["-shared", "-fPIC"]) {
        Ok(library) => library,
        Err(why) => return Ok(Completion::ignored_with(format!("needs cc: {why}"))),
    };
    let calls = number("ROPEWAY_TEST_INJECTIONS").unwrap_or(3);
    let seed: u64 = number("ROPEWAY_TEST_SEED").unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut wrong, mut reached) = (Vec::new(), 0);
    for fault in &FAULTS {
        let (mut hit, mut untold) = (0, Vec::new());
        let calls = calls.min(fault.reach);
        for call in index::sample(&mut random, fault.reach, calls) {
            let call = call + 1;
            let root = tempfile::tempdir()?;
            let directory = root.path().join("broker");
            let mark = root.path().join("mark");
            let environment = [
                ("LD_PRELOAD", library.display().to_string()),
                ("ROPEWAY_INJECT_UNDER", directory.display().to_string()),
                ("ROPEWAY_INJECT_KIND", fault.kind.to_owned()),
                ("ROPEWAY_INJECT_AT", call.to_string()),
                ("ROPEWAY_INJECT_ERROR", fault.error.to_string()),
                ("ROPEWAY_INJECT_MARK", mark.display().to_string()),
                ("ROPEWAY_INJECT_EVER", "1".to_owned()),
            ];
            let environment = &environment[..environment.len() - usize::from(!fault.ever)];
            let mut run = Run::new(root.path(), format!("embedded:{}", directory.display()));
            let patience = if fault.told == Some(true) { LONG } else { SHORT };
            let result = run.live_with(environment, &mark, patience).and_then(|()| run.drain_and_check());
            let (is_hit, is_told) = (mark.exists(), run.was_told());
            let result = match fault.told.filter(|told| is_hit && *told != is_told) {
                Some(true) => result.and_then(|_| Err("it was told to nobody".to_owned())),
                Some(false) => result.and_then(|_| Err("it was told as a failure".to_owned())),
                None => result,
            };
            if let Err(why) = result {
                wrong.push(format!(
                    "{} at call {call}, kept in {}: {why}",
                    fault.name,
                    root.keep().display()
                ));
            }
            hit += usize::from(is_hit);
            if is_hit && !is_told {
                untold.push(call);
            }
        }
        reached += hit;
        eprintln!(
            "seed {seed}: {}: {hit} of {calls} calls were reached, told to nobody: {untold:?}",
            fault.name
        );
    }
    if reached == 0 {
        wrong.push(format!(
            "no call was made to fail: what fails them is not in the way any more; seed {seed}"
        ));
    }
    if wrong.is_empty() { Ok(Completion::Completed) } else { Err(wrong.join("\n\n").into()) }
}
