//! The disk of a server is full under load: a file of somebody else takes what is left, and goes again.
//!
//! Kafka ends itself when it cannot write; it is started again when there is room. Not here: the file system (`../../disk.rs`).

use super::{
    DEADLINE, direct_load,
    faults::SOON,
    log,
    nodes::{Kit, Nodes, READY},
    rules,
};
use crate::{
    disk::SmallDisk,
    drill::{Told, failed, site::HOLD, stage::Stage},
};
use rand::rngs::StdRng;
use ropeway_broker::Durability;
use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::Duration,
};

const MEBIBYTES: u64 = 384;
/// How long it may take until somebody is told that nothing can be written.
const TOLD: Duration = Duration::from_secs(40);

/// The drill; `Ok(Err(why))` where no such disk can be had.
pub(super) fn run(root: &Path, kit: &Kit, random: StdRng) -> Told {
    if let Some(why) = SmallDisk::absent() {
        return Ok(Err(why.to_owned()));
    }
    let mut disk = SmallDisk::make(MEBIBYTES)?;
    let story = on(&disk, root, kit, random);
    disk.unmount()?;
    story.map(Ok)
}

fn on(disk: &SmallDisk, root: &Path, kit: &Kit, random: StdRng) -> Result<String, String> {
    let mut nodes = Nodes::plan(kit, &disk.path().join("server"), 1, 0)?;
    nodes.start()?;
    let load = direct_load(&nodes, None, DEADLINE);
    let mut stage = Stage::new(root, load, rules(Durability::ProcessCrash, DEADLINE), random)?;
    stage.open()?;
    stage.pass(HOLD)?;
    stage.note("fault DiskFull");
    let filler = disk.path().join("filler");
    fill(&filler)?;
    let told = |stage: &Stage| stage.counts().refused + stage.counts().unknown;
    let before = told(&stage);
    stage.wait(TOLD, |stage| Ok(told(stage) > before))?;
    stage.pass(HOLD)?;
    fs::remove_file(&filler).map_err(failed)?;
    let has_ended = nodes.all[0].has_ended()?;
    if has_ended {
        nodes.spawn(0)?;
    }
    stage.wait(READY, |_| Ok(nodes.answer()))?;
    stage.note("healed");
    stage.recover("disk full, and then not any more", SOON)?;
    stage.note("recovered");
    let story = stage.close(&nodes.url(), |judge| log::read_all(judge, &nodes))?;
    Ok(format!("the server {}; {story}", if has_ended { "ended itself" } else { "lived on" }))
}

/// Takes all room that there is.
fn fill(path: &Path) -> Result<(), String> {
    let mut file = File::create(path).map_err(failed)?;
    let mut piece = vec![0xaa; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
    file.sync_all().map_err(failed)
}
