//! Processes that outlive this one: started, found again by number and start time, stopped.
//!
//! A number alone is not enough to find a process again, since numbers are given to others: a pid file holds the start time too. The process
//! writes it itself before it becomes the server, so that no moment is left in which a server runs that is not written down. Not here: what is
//! started (`redis/mod.rs`), where its files are (`place.rs`).

use super::clock::Deadline;
use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// For how long a process may end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(8);
/// For how long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Writes `PID START` into the file `$1`, whole or not at all, and becomes the rest.
const BECOME: &str = r#"
if [ -r "/proc/$$/stat" ]; then start=$(cut -d ' ' -f 22 "/proc/$$/stat"); else start=$(ps -o lstart= -p $$); fi
echo "$$ $start" >"$1.new" && mv "$1.new" "$1" && shift && exec "$@"
"#;

/// A process that was started here, maybe by an earlier command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// What it is to its server, as in `primary`; its files are called so.
    pub(crate) role: String,
    /// Its number.
    pub(crate) pid: u32,
    start: String,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C does not reach it. What it prints goes to `ROLE.log` in `folder`, its
    /// number to `ROLE.pid`.
    pub(crate) fn start(folder: &Path, role: &str, command: &[impl AsRef<OsStr>]) -> io::Result<Self> {
        let log = File::create(folder.join(format!("{role}.log")))?;
        let child = Command::new("sh")
            .args(["-c", BECOME, "sh"])
            .arg(folder.join(format!("{role}.pid")))
            .args(command)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        let start = started(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
        Ok(Self { role: role.to_owned(), pid, start })
    }

    /// The processes whose pid files are in `folder`, whether they still run or not, by role.
    pub(crate) fn all(folder: &Path) -> Vec<Self> {
        let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut all: Vec<Self> = files
            .filter(|path| path.extension() == Some(OsStr::new("pid")))
            .filter_map(|path| {
                let role = path.file_stem()?.to_str()?.to_owned();
                let text = fs::read_to_string(&path).ok()?;
                let (pid, start) = text.trim().split_once(' ')?;
                Some(Self { role, pid: pid.parse().ok()?, start: start.to_owned() })
            })
            .collect();
        all.sort_by(|a, b| a.role.cmp(&b.role));
        all
    }

    /// Whether it runs: that process, and not another that was given its number.
    pub(crate) fn runs(&self) -> bool {
        started(self.pid).as_ref() == Some(&self.start)
    }

    /// What it holds in memory, in bytes.
    pub(crate) fn resident(&self) -> Option<u64> {
        let kib = match fs::read_to_string(format!("/proc/{}/status", self.pid)) {
            Ok(status) => resident_of(&status)?,
            Err(_) => ps("rss=", self.pid)?.parse().ok()?,
        };
        Some(kib * 1024)
    }

    fn signal(&self, signal: &str) {
        if self.runs() {
            // Its group, which it leads: also what it started itself.
            let script = format!("kill -s {signal} -- -{}", self.pid);
            _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
        }
    }
}

/// Ends all of them and returns when they are gone: asks first, and kills those that do not end.
pub(crate) fn stop(processes: &[Process]) -> Result<(), String> {
    for process in processes {
        process.signal("TERM");
        // A process that a test has stopped would not hear of it.
        process.signal("CONT");
    }
    if gone(processes, GRACE) {
        return Ok(());
    }
    for process in processes {
        process.signal("KILL");
    }
    if gone(processes, GONE) {
        return Ok(());
    }
    let left: Vec<String> =
        processes.iter().filter(|process| process.runs()).map(|process| process.pid.to_string()).collect();
    Err(format!("cannot be killed: {}", left.join(", ")))
}

fn gone(processes: &[Process], within: Duration) -> bool {
    let deadline = Deadline::after(within);
    while processes.iter().any(Process::runs) {
        if deadline.is_over() {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// When the process of that number started, in whatever unit; `None` if there is none, or if it only waits to be forgotten.
fn started(pid: u32) -> Option<String> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => start_of(&stat),
        Err(_) if Path::new("/proc/self/stat").exists() => None,
        Err(_) => ps("stat=,lstart=", pid).and_then(|line| {
            let (state, start) = line.split_once(' ')?;
            (!state.starts_with('Z')).then(|| start.trim().to_owned())
        }),
    }
}

/// The start time in a line of `/proc/PID/stat`; `None` for what is dead. The name in it may hold anything, also blanks and brackets.
fn start_of(stat: &str) -> Option<String> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let alive = !matches!(*fields.first()?, "Z" | "X" | "x");
    alive.then(|| fields.get(19).copied().map(str::to_owned))?
}

/// KiB in the text of `/proc/PID/status`.
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn ps(columns: &str, pid: u32) -> Option<String> {
    let output = Command::new("ps").args(["-o", columns, "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The last `lines` of the log of a role.
pub(crate) fn tail(log: &Path, lines: usize) -> io::Result<String> {
    use io::{Read as _, Seek as _, SeekFrom};
    /// More is not read, whatever a server prints.
    const AT_MOST: u64 = 64 * 1024;
    let mut file = OpenOptions::new().read(true).open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(AT_MOST)))?;
    let mut bytes = Vec::new();
    file.take(AT_MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].iter().map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, path::PathBuf};

    /// A folder that is gone when the test is over.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("ropeway-xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    fn written(folder: &Path) -> Vec<Process> {
        let deadline = Deadline::after(Duration::from_secs(10));
        loop {
            let all = Process::all(folder);
            if !all.is_empty() || deadline.is_over() {
                return all;
            }
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn what_is_started_is_found_again_and_stopped() {
        let folder = Folder::new("found");
        let process = Process::start(&folder.0, "primary", &["sleep", "60"]).unwrap();
        assert_eq!(written(&folder.0), std::slice::from_ref(&process));
        assert!(process.runs());
        stop(&Process::all(&folder.0)).unwrap();
        assert!(!process.runs());
        stop(&Process::all(&folder.0)).unwrap();
    }

    #[test]
    fn a_process_that_was_stopped_by_a_signal_is_ended_too() {
        let folder = Folder::new("stopped");
        let process = Process::start(&folder.0, "primary", &["sleep", "60"]).unwrap();
        process.signal("STOP");
        stop(std::slice::from_ref(&process)).unwrap();
        assert!(!process.runs());
    }

    #[test]
    fn a_number_that_was_given_to_another_process_is_left_alone() {
        let folder = Folder::new("recycled");
        let process = Process::start(&folder.0, "primary", &["sleep", "60"]).unwrap();
        let other = Process { start: "1".into(), ..process.clone() };
        assert!(!other.runs());
        stop(std::slice::from_ref(&other)).unwrap();
        assert!(process.runs(), "another process was ended");
        stop(&[process]).unwrap();
    }

    #[test]
    fn the_start_time_is_read_whatever_the_name_is() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        assert_eq!(start_of(stat).as_deref(), Some("98765"));
        assert_eq!(start_of(&stat.replace(" S ", " Z ")), None);
        assert_eq!(start_of("12 (a"), None);
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t  9216 kB\n"), Some(9216));
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let folder = Folder::new("log");
        let log = folder.0.join("x.log");
        fs::write(&log, "1\n2\n3\n").unwrap();
        assert_eq!(tail(&log, 2).unwrap(), "2\n3\n");
        assert_eq!(tail(&log, 9).unwrap(), "1\n2\n3\n");
    }
}
