//! Waiting until a server is ready: it is asked until it answers as it should.
//!
//! Not here: what it is asked (`redis/node.rs`, `kafka/node.rs`, `pulsar/mod.rs`).

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

/// Calls `start` again, which is to choose other ports, for as long as a process of one of those roles ends because its port was taken.
pub(crate) fn on_free_ports<T>(
    folder: &Path,
    roles: &[&str],
    mut start: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    for _ in 1..TRIES {
        let started = start();
        if started.is_ok() || !roles.iter().any(|role| taken(folder, role)) {
            return started;
        }
        let mut processes = Process::all(folder);
        processes.retain(|process| roles.contains(&process.role.as_str()));
        process::stop(&processes).map_err(broken)?;
    }
    start()
}

/// Whether a process ended because another has its port.
fn taken(folder: &Path, role: &str) -> bool {
    let log = process::tail(&folder.join(format!("{role}.log")), 200).unwrap_or_default();
    ["Address already in use", "BindException"].iter().any(|words| log.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs};

    /// How often it was tried, when the log of each try says `log` and the first one fails.
    fn tries(log: &str) -> usize {
        let folder =
            env::temp_dir().join(format!("ropeway-xtask-ready-{}-{}", std::process::id(), log.len()));
        fs::create_dir_all(&folder).unwrap();
        let mut tries = 0;
        _ = on_free_ports(&folder, &["primary"], || {
            tries += 1;
            fs::write(folder.join("primary.log"), log).unwrap();
            if tries == 1 { Err(broken("it ended at once")) } else { Ok(()) }
        });
        fs::remove_dir_all(&folder).unwrap();
        tries
    }

    #[test]
    fn other_ports_are_tried_where_one_was_taken_and_nothing_else_is() {
        assert_eq!(
            tries(
                "# Could not create server TCP listening socket 127.0.0.1:1: bind: Address already in use\n"
            ),
            2
        );
        assert_eq!(tries("# Fatal: no such directive\n"), 1);
    }

    #[test]
    fn a_process_that_ends_is_not_waited_for() {
        let folder = env::temp_dir().join(format!("ropeway-xtask-ended-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let process = Process::start(&folder, "primary", &["sleep", "60"]).unwrap();
        process::stop(std::slice::from_ref(&process)).unwrap();
        let waited = until("it answers", &process, Duration::from_secs(60), || Err("no".into()));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(waited, Err(broken("primary ended at once")));
    }
}
