//! Drills on Redis, which is killed, stopped, cut off, filled and promoted. Without `redis-server` they are ignored, with the reason.
//!
//! `faults.rs`, `failover.rs`, `slots.rs` and `slow_disk.rs`: what happens; `servers.rs`: the servers; `stock.rs`: the client that is not ours. Not here: the
//! processes on them, and what must hold (`../stage.rs`, `../judge.rs`).

mod failover;
mod faults;
mod servers;
mod slots;
mod slow_disk;
mod stock;

use super::{
    Told, drill, length, rate,
    rules::Rules,
    site::{self, Site, Times},
    stage::{Load, Stage},
};
use libtest_mimic::{Completion, Failed, Trial};
use rand::rngs::StdRng;
use ropeway_broker::Durability;
use servers::Server;
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// The lease of members.
const LEASE: Duration = Duration::from_secs(3);
/// Nobody waits for a lease but who takes over.
const TIMES: Times =
    Times { session: LEASE, soon: Duration::from_secs(30), taken_over: Duration::from_secs(40) };
/// What keys begin with.
const PREFIX: &str = "drill";
/// Of one publisher, what is not answered at the most.
const IN_FLIGHT: usize = 1024;

/// The trials.
pub(super) fn trials() -> Vec<Trial> {
    type Run = fn(&Path, StdRng) -> Told;
    let drill = |name: &str, run: Run| -> Result<Completion, Failed> { drill(name, servers::absent(), run) };
    vec![
        Trial::ignorable_test("redis::survives_moved_slots_under_load", move || {
            drill("slots", |root, random| slots::run(root, random, length()?).map(Ok))
        }),
        Trial::ignorable_test("redis::survives_every_fault_under_load", move || drill("faults", every_fault)),
        Trial::ignorable_test("redis::survives_promoted_replicas_under_load", move || {
            drill("failover", promoted_replicas)
        }),
        Trial::ignorable_test("redis::states_no_more_than_a_slow_disk_keeps", move || {
            drill("slow disk", |root, _| slow_disk::run(root))
        }),
    ]
}

/// One server, two ways to it, every fault.
fn every_fault(root: &Path, random: StdRng) -> Told {
    let length = length()?;
    let began = Instant::now();
    let mut server = Server::start(&root.join("server"), &["--appendfsync", "always"])?;
    let (_runtime, ways) = site::ways([server.port; 2].into_iter())?;
    let settings = format!("prefix={PREFIX}&lease={}s&publish_deadline=10s", LEASE.as_secs());
    let urls = ways.iter().map(|way| format!("redis://{}?{settings}", way.address)).collect();
    let rules =
        Rules { stated: Durability::ProcessCrash, atomic: true, placed: true, again: None, undone: 2500 };
    let load = Load { urls, rate: rate(1500), at_least: vec![None; 2], in_flight: IN_FLIGHT };
    let mut stage = Stage::new(root, load, rules, random)?;
    stage.open()?;
    let mut site = Site { ways: &ways, stage: &mut stage, times: TIMES };
    loop {
        faults::suffer_all(&mut site, &mut server)?;
        if length.is_none_or(|length| began.elapsed() >= length) {
            break;
        }
    }
    let direct = format!("redis://127.0.0.1:{}?prefix={PREFIX}", server.port);
    stage.close(&direct, |judge| stock::read_all(judge, &[server.port], PREFIX)).map(Ok)
}

/// A primary and its replica change places, two times or as often as there is time for.
fn promoted_replicas(root: &Path, random: StdRng) -> Told {
    let turns = length()?.map_or(2, |length| (length.as_secs() / 15).max(2) as usize);
    failover::run(root, random, turns)
}
