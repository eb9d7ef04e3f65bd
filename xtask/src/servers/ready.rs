//! Waiting until a server is ready: it is asked until it answers as it should.
//!
//! Not here: what it is asked (`redis/node.rs`, `kafka/mod.rs`, `pulsar/mod.rs`).

use super::{
    clock::Deadline,
    process::{self, Process},
    trouble::{Trouble, broken},
};
use std::{path::Path, thread, time::Duration};

/// How often a server is asked.
const PAUSE: Duration = Duration::from_millis(20);
/// How often other ports are tried when one was taken in the meantime.
const TRIES: u32 = 5;

/// Asks again and again until `ready` says so.
///
/// # Errors
/// The process ended, or `within` is over; then with what `ready` said last.
pub(crate) fn until(
    what: &str,
    process: &Process,
    within: Duration,
    ready: impl Fn() -> Result<(), String>,
) -> Result<(), Trouble> {
    let deadline = Deadline::after(within);
    loop {
        let runs = process.runs();
        match ready() {
            Ok(()) => return Ok(()),
            Err(_) if !runs => return Err(broken(format!("{} ended at once", process.role))),
            Err(error) if deadline.is_over() => {
                return Err(broken(format!("waited {} s, and not yet: {what}: {error}", within.as_secs())));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Calls `start` again, which is to choose other ports, for as long as the process of that role ends because its port was taken.
pub(crate) fn on_free_ports<T>(
    folder: &Path,
    role: &str,
    mut start: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    for _ in 1..TRIES {
        let started = start();
        if started.is_ok() || !taken(folder, role) {
            return started;
        }
        let mut processes = Process::all(folder);
        processes.retain(|process| process.role == role);
        process::stop(&processes).map_err(broken)?;
    }
    start()
}

/// Whether a process ended because another has its port.
fn taken(folder: &Path, role: &str) -> bool {
    let log = process::tail(&folder.join(format!("{role}.log")), 200).unwrap_or_default();
    ["Address already in use", "BindException", "Unable to start"].iter().any(|words| log.contains(words))
}
