//! Slots of a cluster that move from node to node under load: those of the partitions and of their dead letters, of the group, and of the descriptions.
//!
//! While a slot moves its keys are on two nodes, and it stays so for a while, as with `redis-cli --cluster reshard` on large keys. That is no fault: it
//! excuses nothing that is handled twice. Not here: nodes that die (`broker/tests/redis/slots.rs`).

use super::{IN_FLIGHT, LEASE, PREFIX, servers::Server, stock};
use crate::{
    drill::{
        rules::Rules,
        stage::{Load, Stage},
    },
    traffic,
};
use rand::{rngs::StdRng, seq::SliceRandom};
use ropeway_broker::Durability;
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// How long slots are moved, where nothing else is said.
const LENGTH: Duration = Duration::from_secs(10);
/// How long keys stay on two nodes between two that are moved.
const BETWEEN: Duration = Duration::from_millis(20);
/// What is published after a move is handled within that, also where a member was killed in the meantime: its lease, and what follows.
const AFTER: Duration = Duration::from_secs(40);
/// Messages a second.
const RATE: u32 = 1000;

/// The drill.
pub(crate) fn run(root: &Path, random: StdRng, length: Option<Duration>) -> Result<String, String> {
    let nodes = Server::start_cluster(root, ["--appendfsync", "no"])?;
    let seeds = |from: usize| {
        let seed = |at: usize| format!("127.0.0.1:{}", nodes[(from + at) % nodes.len()].port);
        (0..nodes.len()).map(seed).collect::<Vec<_>>().join(",")
    };
    let settings = format!("prefix={PREFIX}&lease={}s&publish_deadline=10s", LEASE.as_secs());
    let urls = (0..2).map(|from| format!("redis+cluster://{}?{settings}", seeds(from))).collect();
    // In a cluster a dead letter and the ack are two steps.
    let rules =
        Rules { stated: Durability::ProcessCrash, atomic: false, placed: true, again: None, undone: 0 };
    let load = Load { urls, rate: RATE, at_least: vec![None; 2], in_flight: IN_FLIGHT };
    let mut stage = Stage::new(root, load, rules, random)?;
    stage.open()?;
    let (began, mut moved) = (Instant::now(), 0);
    while moved == 0 || began.elapsed() < length.unwrap_or(LENGTH) {
        let mut all = slots()?;
        all.shuffle(&mut stage.random);
        for (name, key) in all {
            move_slot(&nodes, &key, &mut stage)
                .and_then(|()| stage.recover(name, AFTER))
                .map_err(|why| format!("move {moved}, of the slot of {key}: {why}"))?;
            moved += 1;
        }
    }
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    let direct = format!("redis+cluster://{}?prefix={PREFIX}", seeds(0));
    stage
        .close(&direct, |judge| stock::read_all(judge, &ports, PREFIX))
        .map(|story| format!("{moved} moves; {story}"))
}

/// What moves: its name in the story, and a key in the slot. Each of them once.
fn slots() -> Result<Vec<(&'static str, String)>, String> {
    let names = traffic::names().map_err(|error| error.to_string())?;
    let [(group, dead), _] = &names.groups;
    let mut all = vec![
        ("slot of the group moved", format!("{PREFIX}:{{group/{group}}}:members")),
        ("slot of the description moved", format!("{PREFIX}:topic:{{{}}}", names.topic)),
        ("slot of the dead letters' description moved", format!("{PREFIX}:topic:{{{dead}}}")),
        ("slot of dead letters moved", format!("{PREFIX}:{{{dead}/0}}:log")),
        ("slot of the list of topics moved", format!("{PREFIX}:topics")),
    ];
    for partition in 0..traffic::PARTITIONS {
        all.push(("slot of a partition moved", format!("{PREFIX}:{{{}/{partition}}}:log", names.topic)));
    }
    Ok(all)
}

/// Moves the slot of a key to the next node, one key after the other.
fn move_slot(nodes: &[Server], key: &str, stage: &mut Stage) -> Result<(), String> {
    let slot = nodes[0].ask(&["CLUSTER", "KEYSLOT", key])?;
    let has = |node: &Server| node.ask(&["EXISTS", key]).is_ok_and(|told| told.parse::<u8>().is_ok());
    let from = nodes.iter().position(has).ok_or_else(|| format!("nobody has slot {slot}"))?;
    let to = (from + 1) % nodes.len();
    let (source, target) = (&nodes[from], &nodes[to]);
    let (from_id, to_id) = (source.ask(&["CLUSTER", "MYID"])?, target.ask(&["CLUSTER", "MYID"])?);
    done(target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])?;
    done(source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])?;
    let port = target.port.to_string();
    loop {
        stage.pass(BETWEEN)?;
        let keys = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])?;
        if keys.is_empty() {
            break;
        }
        for key in keys.lines() {
            done(source, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])?;
            stage.pass(BETWEEN)?;
        }
    }
    // The new owner first, so that the slot is never without one.
    let others = (0..nodes.len()).filter(|at| ![from, to].contains(at));
    for at in [to, from].into_iter().chain(others) {
        done(&nodes[at], &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])?;
    }
    Ok(())
}

/// Has a node do something.
fn done(node: &Server, words: &[&str]) -> Result<(), String> {
    match node.ask(words)?.as_str() {
        // A key may have gone meanwhile.
        "OK" | "NOKEY" => Ok(()),
        other => Err(format!("{}: {other}", words.join(" "))),
    }
}
