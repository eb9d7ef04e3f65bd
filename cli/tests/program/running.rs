//! Runs the program in a directory of its own, and waits for what it prints with a bound.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::JoinHandle,
    time::Duration,
};
use tempfile::TempDir;

/// The machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory in which the program is run; its bus is there too.
pub(crate) struct Place(TempDir);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a topic of that many partitions.
    pub(crate) fn with_topic(topic: &str, partitions: u32) -> Self {
        let place = Self::new();
        place.run(&["topic", "create", topic, "-p", &partitions.to_string()]).ok();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and answers with its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropeway"));
        command.args(args).current_dir(self.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Running::start(self.command(args), b"").end()
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        Running::start(command, input).end()
    }

    pub(crate) fn run_with_env(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        Running::start(command, b"").end()
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args), b"")
    }
}

impl Ran {
    /// Ended with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// Ended with that code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Said all of these on stderr.
    #[track_caller]
    pub(crate) fn said(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in stderr: {}", self.err);
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// Each line of stdout as JSON.
    pub(crate) fn ndjson(&self) -> Vec<serde_json::Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The names of an object's fields, sorted.
pub(crate) fn fields(value: &serde_json::Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A run that goes on. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    out: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    err: Receiver<String>,
    said: String,
    _input: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(mut command: Command, input: &[u8]) -> Self {
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().map(|mut stdin| {
            let input = input.to_vec();
            std::thread::spawn(move || {
                let _ = stdin.write_all(&input);
            })
        });
        let out = lines(child.stdout.take());
        let (told, err) = mpsc::channel();
        let stderr = lines(child.stderr.take());
        std::thread::spawn(move || {
            stderr.iter().all(|line| told.send(String::from_utf8_lossy(&line).into_owned()).is_ok())
        });
        Self { child, out, seen: Vec::new(), err, said: String::new(), _input: input }
    }

    /// Waits for a line of stdout.
    #[track_caller]
    pub(crate) fn next_line(&mut self) -> String {
        let line =
            self.out.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line; stderr: {}", self.said()));
        self.seen.extend_from_slice(&line);
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Waits for a line of stderr that contains `part`, and answers with it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        loop {
            let line =
                self.err.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {part:?} in {}", self.said));
            self.said.push_str(&line);
            if line.contains(part) {
                return line.trim_end().to_owned();
            }
        }
    }

    fn said(&mut self) -> &str {
        self.said.extend(self.err.try_iter());
        &self.said
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        // Both streams end when the program does: waiting for them is waiting for it, without asking again and again.
        loop {
            match self.out.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.extend_from_slice(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end; stderr: {}", self.said()),
            }
        }
        while let Ok(line) = self.err.recv_timeout(PATIENCE) {
            self.said.push_str(&line);
        }
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or(-1);
        Ran { code, out: std::mem::take(&mut self.seen), err: std::mem::take(&mut self.said) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (found, lines) = mpsc::channel();
    if let Some(from) = from {
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            loop {
                let mut line = Vec::new();
                match from.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => _ = found.send(line),
                }
            }
        });
    }
    lines
}
