//! A primary that goes away under load, and its replica that a sentinel promotes.
//!
//! One publisher asks for `replicated`, and of what is acked to it nothing may be lost. The other takes what the server gives: what is acked to it
//! says that it does not survive the machine, and may be lost; how much is told. Not here: one server (`faults.rs`).

use super::{
    IN_FLIGHT, LEASE, PREFIX,
    servers::{Server, WATCHED},
    stock,
};
use crate::drill::{
    rules::Rules,
    stage::{Load, Stage},
};
use rand::rngs::StdRng;
use ropeway_broker::{Durability, ErrorKind};
use std::{path::Path, time::Duration};

/// Until the sentinel knows that the primary is down, has promoted the replica, and all have found it.
const PROMOTED: Duration = Duration::from_secs(60);
/// Acks that were confirmed that many milliseconds before the primary went may not have reached the replica.
const UNDONE: u64 = 1000;

/// The drill; `Ok(Err(why))` where this version does not open such URLs.
pub(crate) fn run(root: &Path, random: StdRng, turns: usize) -> Result<Result<String, String>, String> {
    let mut primary = Server::start(&root.join("one"), &["--appendfsync", "everysec"])?;
    let mut replica = Server::start(&root.join("two"), &[])?;
    follow(&replica, primary.port)?;
    let sentinel = Server::start_sentinel(&root.join("sentinel"), primary.port)?;
    sentinel.until("the sentinel knows the replica", |sentinel| {
        sentinel
            .ask(&["SENTINEL", "replicas", WATCHED])
            .is_ok_and(|told| told.contains(&replica.port.to_string()))
    })?;
    let direct = format!("redis+sentinel://127.0.0.1:{}/{WATCHED}?prefix={PREFIX}", sentinel.port);
    if let Err(why) = opens(&direct) {
        return Ok(Err(why));
    }
    let url = format!("{direct}&lease={}s&publish_deadline=10s", LEASE.as_secs());
    let rules =
        Rules { stated: Durability::Replicated, atomic: true, placed: true, again: None, undone: UNDONE };
    let at_least = vec![Some("replicated"), None];
    let load = Load { urls: vec![url.clone(), url], rate: 600, at_least, in_flight: IN_FLIGHT };
    let mut stage = Stage::new(&root.join("history-of-two"), load, rules, random)?;
    stage.open()?;
    for turn in 0..turns {
        stage.pass(Duration::from_secs(1))?;
        stage.note("fault Failover");
        let name = if turn % 2 == 0 {
            primary.kill();
            "primary killed, replica promoted"
        } else {
            sentinel.ask(&["SENTINEL", "FAILOVER", WATCHED])?;
            "replica promoted on request"
        };
        stage.note("undone");
        stage.wait(PROMOTED, |_| Ok(replica.ask(&["ROLE"]).is_ok_and(|role| role.starts_with("master"))))?;
        if turn % 2 == 0 {
            primary.up(&["--replicaof", &format!("127.0.0.1 {}", replica.port)])?;
        }
        std::mem::swap(&mut primary, &mut replica);
        // Until then two servers may take writes.
        stage.wait(PROMOTED, |stage| {
            stage.note("undone");
            Ok(is_up(&replica))
        })?;
        stage.note("healed");
        stage.recover(name, PROMOTED)?;
        stage.note("recovered");
    }
    stage.close(&direct, |judge| stock::read_all(judge, &[primary.port], PREFIX)).map(Ok)
}

/// Whether the broker takes such a URL.
fn opens(url: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    match runtime.block_on(ropeway_broker::connect(url)) {
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
            Err(format!("{error}"))
        }
        _ => Ok(()),
    }
}

fn follow(replica: &Server, primary: u16) -> Result<(), String> {
    replica.ask(&["REPLICAOF", "127.0.0.1", &primary.to_string()])?;
    replica.until("the replica follows", is_up)
}

fn is_up(replica: &Server) -> bool {
    replica.ask(&["INFO", "replication"]).is_ok_and(|told| told.contains("master_link_status:up"))
}
