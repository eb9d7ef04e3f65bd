//! Instructions a message of publishing batches, by callgrind: the slope between two numbers of messages, so that what is done once costs nothing.
//!
//! Counted are all threads of a process, those of the client library too, and nothing of the kernel. Not here: what is compared (`publish.rs`).

use super::publish::{Publish, Side};
use crate::{Result, cell::Figure, rounds::Plan};
use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

const PAYLOAD: usize = 64;
/// The two numbers of messages.
const FEW: u64 = 20_000;
const MANY: u64 = 80_000;

/// What keeps it from running.
pub(crate) fn missing() -> Option<String> {
    let runs = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    (!runs.is_ok_and(|status| status.success()))
        .then(|| "there is no valgrind (apt-get install valgrind)".to_owned())
}

/// Ours, the loop, and how many times as many ours takes.
pub(crate) fn run(_: &Plan, place: &Path) -> Result<Vec<Figure>> {
    let a_message = |side: Side| {
        let slope = counted(side, MANY, place)?.saturating_sub(counted(side, FEW, place)?);
        Result::Ok(slope as f64 / (MANY - FEW) as f64)
    };
    let (ours, rival) = (a_message(Side::Ours)?, a_message(Side::Rival)?);
    Ok(vec![
        Figure { what: "instructions a message", value: ours, unit: "", most: None },
        Figure { what: "instructions a message of the loop", value: rival, unit: "", most: None },
        Figure { what: "times as many", value: ours / rival, unit: "", most: Some(1.15) },
    ])
}

/// A process that publishes so many messages, and ends.
pub(crate) fn publish(side: Side, messages: u64) -> Result<()> {
    Publish::alone(PAYLOAD, messages, side)
}

fn counted(side: Side, messages: u64, place: &Path) -> Result<u64> {
    let mut process = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["kafka-publish", side.name(), &messages.to_string()])
        .current_dir(place)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It ends when nobody holds the other end any more.
    let held = process.stdin.take();
    let output = process.wait_with_output()?;
    drop(held);
    let text = String::from_utf8_lossy(&output.stderr);
    let told = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    told.filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind ended with {}: {text}", output.status).into())
}
