//! Ends a test program that has gone silent, so that one test that hangs fails by its name instead of holding up all others for ever.
//!
//! Not here: passing on what is printed (`test.rs`), counting it (`tally.rs`).

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

/// For how long a test program may print nothing. The longest tests, those of the longer tier, take eight minutes.
pub(crate) const SILENCE: Duration = Duration::from_secs(15 * 60);

/// A test program that was ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its file.
    pub(crate) program: PathBuf,
    /// All its tests, in the order in which they begin.
    pub(crate) tests: Vec<String>,
}

/// Ends the programs that process `cargo` runs whenever no line came for `silence`, until who sends a `()` for each line is done. Says on standard
/// error what their threads were doing, where there is `gdb`.
pub(crate) fn watch(cargo: u32, lines: &Receiver<()>, silence: Duration) -> Vec<Ended> {
    let mut ended = Vec::new();
    loop {
        match lines.recv_timeout(silence) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                ended.extend(children(cargo).into_iter().map(|child| end(child, silence)))
            }
            Err(RecvTimeoutError::Disconnected) => return ended,
        }
    }
}

/// The processes that process `parent` started, where the system lists them.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |number: &u32| {
        fs::read_to_string(format!("/proc/{number}/stat")).is_ok_and(|stat| started_by(&stat) == Some(parent))
    };
    numbers.filter(is_child).collect()
}

/// Who started the process of that line of `/proc/PID/stat`: the second field behind its name, which stands in brackets and may hold any.
fn started_by(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn end(number: u32, silence: Duration) -> Ended {
    let program = fs::read_link(format!("/proc/{number}/exe")).unwrap_or_default();
    eprintln!("error: {} printed nothing for {silence:?} and is ended", program.display());
    let id = number.to_string();
    let threads = ["gdb", "--batch", "--nx", "-p", &id, "-ex", "thread apply all backtrace 24"];
    _ = bounded().args(threads).stdout(std::io::stderr()).status();
    _ = Command::new("sh").args(["-c", &format!("kill -s KILL {number}")]).status();
    let listed = bounded().arg(&program).arg("--list").output();
    let tests = listed.map(|listed| names(&String::from_utf8_lossy(&listed.stdout))).unwrap_or_default();
    Ended { program, tests }
}

/// Runs the command that its arguments are, for two minutes at the most: who ends what hangs must not hang itself.
fn bounded() -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120"]).stdin(Stdio::null());
    command
}

/// The tests that a program lists, each as it is printed when it ends.
fn names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(crate::tally::spaced_once).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    #[test]
    fn the_parent_is_behind_any_name() {
        assert_eq!(started_by("77 (a) b) S 12 77 77 0 -1 4194560"), Some(12));
        assert_eq!(started_by("77 (cut"), None);
    }

    #[test]
    fn tests_are_read_from_the_lists_of_both_harnesses() {
        let list =
            "readers::one: test\n[redis]   kills::two: test\nbench: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(names(list), ["readers::one", "[redis] kills::two"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_goes_silent_is_ended_and_what_prints_is_not() {
        let silence = Duration::from_millis(300);
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 && echo never; true"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, lines) = mpsc::channel();
        let number = shell.id();
        let watcher = thread::spawn(move || watch(number, &lines, silence));
        for _ in 0..10 {
            thread::sleep(silence / 6);
            line.send(()).unwrap();
            assert!(shell.try_wait().unwrap().is_none(), "it printed, and was ended");
        }
        let printed = shell.wait_with_output().unwrap();
        assert!(printed.status.success() && printed.stdout.is_empty(), "it slept to its end: {printed:?}");
        drop(line);
        let ended = watcher.join().unwrap();
        assert!(ended[0].program.ends_with("sleep"), "{ended:?}");
    }
}
