//! Servers of Redis that a drill kills, stops, fills and promotes: processes of its own on free ports, with their data on a disk.
//!
//! Not here: servers that tests share and leave alone (`cargo xtask servers`), what stands before them (`../proxy.rs`).

use crate::drill::process::{free_port, signal};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};
use tokio::time::Instant;

/// What a sentinel calls its primary.
pub(crate) const WATCHED: &str = "drill";
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there can be no server here; `None` where there can.
pub(crate) fn absent() -> Option<String> {
    let found = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let missing: Vec<&str> =
        ["redis-server", "redis-cli"].into_iter().filter(|program| !found(program)).collect();
    let advice = "install it: apt-get install redis-server redis-tools redis-sentinel";
    (!missing.is_empty()).then(|| format!("there is no {}: {advice}", missing.join(" and no ")))
}

/// A server. Killed when it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: PathBuf,
    args: Vec<String>,
    /// A library that is loaded before it.
    preload: Option<PathBuf>,
    child: Option<Child>,
}

impl Server {
    /// Starts one in a folder of its own, with these further arguments.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Result<Self, String> {
        Self::start_with(dir, args, None)
    }

    /// The same, behind a library that is loaded before it.
    pub(crate) fn start_with(dir: &Path, args: &[&str], preload: Option<&Path>) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let port = free_port();
        let own = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"];
        let args = own.into_iter().chain(args.iter().copied()).map(str::to_owned).collect();
        let preload = preload.map(Path::to_owned);
        let mut server = Self { port, dir: dir.to_owned(), args, preload, child: None };
        server.up(&[])?;
        Ok(server)
    }

    /// Starts three that form a cluster, each with a third of the slots, with these further arguments.
    pub(crate) fn start_cluster(dir: &Path, args: [&str; 2]) -> Result<Vec<Self>, String> {
        let mut nodes: Vec<(Self, String)> = Vec::new();
        for at in 0..3 {
            let bus = free_port().to_string();
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, args[0], args[1]];
            let node = Self::start(&dir.join(format!("node-{at}")), &own)?;
            let (first, last) = (at * 5462, (at * 5462 + 5461).min(16383));
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
            for (other, bus) in &nodes {
                node.ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus])?;
            }
            nodes.push((node, bus));
        }
        let nodes: Vec<Self> = nodes.into_iter().map(|(node, _)| node).collect();
        let knows = |node: &Self| {
            let told = node.ask(&["CLUSTER", "INFO"]).unwrap_or_default();
            ["cluster_state:ok", "cluster_known_nodes:3"].iter().all(|word| told.contains(word))
        };
        nodes.iter().try_for_each(|node| node.until("the cluster is ready", knows))?;
        Ok(nodes)
    }

    /// Starts a sentinel that watches a primary, alone.
    pub(crate) fn start_sentinel(dir: &Path, primary: u16) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (port, config) = (free_port(), dir.join("sentinel.conf"));
        let lines = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {WATCHED} 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds {WATCHED} 4000\n\
             sentinel failover-timeout {WATCHED} 3000\n"
        );
        fs::write(&config, lines).map_err(|error| format!("{}: {error}", config.display()))?;
        let args = vec![config.display().to_string(), "--sentinel".to_owned()];
        let mut server = Self { port, dir: dir.to_owned(), args, preload: None, child: None };
        server.up(&[])?;
        Ok(server)
    }

    /// Starts it (again), on its port and with its data, this time with these further arguments; it answers when this returns.
    pub(crate) fn up(&mut self, more: &[&str]) -> Result<(), String> {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let log = log.map_err(|error| error.to_string())?;
        let mut command = Command::new("redis-server");
        command.args(&self.args).args(more).current_dir(&self.dir).stdout(log).stderr(Stdio::null());
        command.envs(self.preload.iter().map(|library| ("LD_PRELOAD", library)));
        self.child = Some(command.spawn().map_err(|error| format!("redis-server: {error}"))?);
        self.until("the server answers", |server| server.ask(&["PING"]).is_ok_and(|told| told == "PONG"))
    }

    /// Waits for something that the server says.
    pub(crate) fn until(&self, what: &str, is_true: impl Fn(&Self) -> bool) -> Result<(), String> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && is_true(self) {
                return Ok(());
            }
            sleep(Duration::from_millis(5));
        }
        Err(format!("waited {PATIENCE:?} in vain: {what}; see {}", self.dir.join("log").display()))
    }

    /// From its next start on without what was loaded before it.
    pub(crate) fn calm(&mut self) {
        self.preload = None;
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        signal(self.child.as_ref().map_or(0, Child::id), name)
    }

    /// What redis-cli answers: a client that is not ours.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<String, String> {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(words).output();
        let output = output.map_err(|error| format!("redis-cli: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// A number that `INFO` tells.
    pub(crate) fn info(&self, section: &str, name: &str) -> Result<u64, String> {
        let told = self.ask(&["INFO", section])?;
        let value = told.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("no {name} in {told}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
