//! Drills: many processes on a real server that is killed, stopped, cut off, filled and replaced under them, while members join and leave.
//!
//! `ROPEWAY_TEST_DRILL` says for how long, such as `300s`; by default every fault comes once, which takes about 40 s. `ROPEWAY_TEST_DRILL_RATE`: messages
//! a second that are published. `ROPEWAY_TEST_SEED` repeats who is killed.
//! Here: which drills there are: `redis/` and `kafka/` have servers and what happens to them, `site.rs` what happens to members and ways
//! to any server. `stage.rs` has the processes (`member.rs`), `proxy.rs` and `process.rs`
//! the means, `judge.rs` what must hold (which `bad.rs` judges) for each message (`fate.rs`), `removed.rs`, `again.rs` and `slips.rs` what it knows of what was taken
//! away, of what may lie twice, and of lines that were written too late.

mod again;
mod bad;
mod fate;
mod judge;
mod kafka;
pub(crate) mod member;
mod process;
mod proxy;
mod redis;
mod removed;
mod rules;
mod site;
mod slips;
mod stage;

use crate::run::number;
use libtest_mimic::{Completion, Failed, Trial};
use rand::{SeedableRng, rngs::StdRng};
use std::{path::Path, time::Duration};

/// The trials.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = redis::trials();
    trials.extend(kafka::trials());
    trials.extend(bad::trials());
    trials
}

/// For how long, where that was said.
fn length() -> Result<Option<Duration>, String> {
    let Ok(text) = std::env::var("ROPEWAY_TEST_DRILL") else { return Ok(None) };
    let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    let seconds =
        seconds.ok_or_else(|| format!("ROPEWAY_TEST_DRILL is a time such as 300s, not {text:?}"))?;
    Ok(Some(Duration::from_secs(seconds)))
}

/// Messages a second, where nothing else is said.
fn rate(usual: u32) -> u32 {
    number("ROPEWAY_TEST_DRILL_RATE").unwrap_or(usual)
}

/// The story of a run, or why it cannot be run here.
type Told = Result<Result<String, String>, String>;

/// Runs one, unless something is `absent` that it needs.
fn drill(
    name: &str,
    absent: Option<String>,
    run: impl FnOnce(&Path, StdRng) -> Told,
) -> Result<Completion, Failed> {
    if let Some(why) = absent {
        return Ok(Completion::ignored_with(why));
    }
    let seed: u64 = number("ROPEWAY_TEST_SEED").unwrap_or_else(rand::random);
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    match run(root.path(), StdRng::seed_from_u64(seed)) {
        Ok(Ok(story)) => {
            eprintln!("{name}, seed {seed}: {story}");
            Ok(Completion::Completed)
        }
        Ok(Err(why)) => Ok(Completion::ignored_with(why)),
        Err(why) => {
            let kept = root.keep();
            Err(format!("{name}: {why}\nseed {seed}; history and data are kept in {}", kept.display()).into())
        }
    }
}

/// What a runtime, a file or a process says that cannot be had.
fn failed(error: impl std::fmt::Display) -> String {
    error.to_string()
}
