//! One of three nodes goes away under load, and comes back. All that is acked lies on two of them.
//!
//! Not here: a server that is alone (`faults.rs`).

use super::{
    PATIENT_DEADLINE, direct_load,
    faults::SOON,
    length, log,
    nodes::{Kit, Nodes, READY},
    rules,
};
use crate::drill::{Told, stage::Stage};
use rand::{RngExt, rngs::StdRng};
use ropeway_broker::Durability;
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// How often, where nothing else is said.
const TURNS: usize = 2;

/// The drill.
pub(super) fn run(root: &Path, kit: &Kit, random: StdRng) -> Told {
    let length = length()?;
    let mut nodes = Nodes::plan(kit, &root.join("servers"), 3, 0)?;
    nodes.start()?;
    let load = direct_load(&nodes, Some("replicated"), PATIENT_DEADLINE);
    let mut stage = Stage::new(root, load, rules(Durability::Replicated, PATIENT_DEADLINE), random)?;
    stage.open()?;
    let (began, mut turns) = (Instant::now(), 0);
    while turns < TURNS || length.is_some_and(|length| began.elapsed() < length) {
        let at = stage.random.random_range(0..nodes.all.len());
        stage.note("fault NodeKilled");
        nodes.all[at].kill();
        stage.recover("one of three nodes killed (kill -9)", SOON)?;
        stage.pass(Duration::from_secs(1))?;
        nodes.spawn(at)?;
        stage.wait(READY, |_| Ok(nodes.answer()))?;
        stage.note("healed");
        stage.recover("the third node is back", SOON)?;
        // Before the next goes all must lie on three again.
        stage.wait(READY, |_| Ok(nodes.in_sync()))?;
        stage.note("recovered");
        turns += 1;
    }
    stage.close(&nodes.url(), |judge| log::read_all(judge, &nodes)).map(Ok)
}
