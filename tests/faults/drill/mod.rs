//! Drills: many processes on a real Redis that is killed, stopped, cut off, filled and promoted under them, while members join and leave.
//!
//! `ROPEWAY_TEST_DRILL` says for how long, such as `300s`; by default every fault comes once, which takes about 40 s. `ROPEWAY_TEST_DRILL_RATE`: messages
//! a second that are published. `ROPEWAY_TEST_SEED` repeats who is killed. Without `redis-server` they are ignored, with the reason.
//! Here: which drills there are. `stage.rs` has the processes (`member.rs`), `faults.rs`, `failover.rs`, `slots.rs` and `slow_disk.rs` what happens to them, `servers.rs` and
//! `proxy.rs` the means, `judge.rs` what must hold (which `bad.rs` judges), `stock.rs` the client that is not ours.

mod bad;
mod failover;
mod faults;
mod judge;
pub(crate) mod member;
mod proxy;
mod servers;
mod slots;
mod slow_disk;
mod stage;
mod stock;

use crate::run::number;
use faults::{ALL, Site};
use judge::Rules;
use libtest_mimic::{Completion, Failed, Trial};
use proxy::Proxy;
use rand::{SeedableRng, rngs::StdRng};
use ropeway_broker::Durability;
use servers::Server;
use stage::{Load, Stage};
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// The lease of members.
const LEASE: Duration = Duration::from_secs(3);
/// What keys begin with.
const PREFIX: &str = "drill";

/// The trials.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::ignorable_test("redis::survives_moved_slots_under_load", || {
            drill("slots", |root, random| slots::run(root, random, length()?).map(Ok))
        }),
        Trial::ignorable_test("redis::survives_every_fault_under_load", || drill("faults", every_fault)),
        Trial::ignorable_test("redis::survives_promoted_replicas_under_load", || {
            drill("failover", promoted_replicas)
        }),
        Trial::ignorable_test("redis::states_no_more_than_a_slow_disk_keeps", || {
            drill("slow disk", |root, _| slow_disk::run(root))
        }),
    ];
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

/// The story of a run, or why it cannot be run here.
type Told = Result<Result<String, String>, String>;

fn drill(name: &str, run: impl FnOnce(&Path, StdRng) -> Told) -> Result<Completion, Failed> {
    if let Some(why) = servers::absent() {
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

/// One server, two ways to it, every fault.
fn every_fault(root: &Path, random: StdRng) -> Told {
    let length = length()?;
    let began = Instant::now();
    let mut server = Server::start(&root.join("server"), &["--appendfsync", "always"])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let ways = [server.port, server.port].map(|port| runtime.block_on(Proxy::before(port)));
    let ways: Vec<Proxy> = ways.into_iter().collect::<Result<_, _>>()?;
    let settings = format!("prefix={PREFIX}&lease={}s&publish_deadline=10s", LEASE.as_secs());
    let urls = ways.iter().map(|way| format!("redis://{}?{settings}", way.address)).collect();
    let rate = number("ROPEWAY_TEST_DRILL_RATE").unwrap_or(1500);
    let rules = Rules { stated: Durability::ProcessCrash, atomic: true, undone: 2500 };
    let mut stage = Stage::new(root, Load { urls, rate, at_least: vec![None; 2] }, rules, random)?;
    stage.open()?;
    loop {
        for kind in ALL {
            Site { server: &mut server, ways: &ways, stage: &mut stage }.suffer(kind)?;
            stage.pass(Duration::from_millis(200))?;
        }
        if length.is_none_or(|length| began.elapsed() >= length) {
            break;
        }
    }
    let direct = format!("redis://127.0.0.1:{}?prefix={PREFIX}", server.port);
    stage.close(&[server.port], &direct, PREFIX).map(Ok)
}

/// A primary and its replica change places, two times or as often as there is time for.
fn promoted_replicas(root: &Path, random: StdRng) -> Told {
    let turns = length()?.map_or(2, |length| (length.as_secs() / 15).max(2) as usize);
    failover::run(root, random, turns)
}
