//! Servers of Redis for these tests: processes on free ports, with their data in a directory that goes with them.

use ropeway_store::redis::{Redis, RedisSettings};
use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Whether a server can be started here.
pub(crate) fn available() -> bool {
    Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    args: Vec<String>,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts one with these further arguments, and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut server = Self {
            port: free_port(),
            args: args.iter().map(ToString::to_string).collect(),
            dir: tempfile::tempdir().unwrap(),
            child: None,
        };
        server.up();
        server
    }

    /// Starts it (again), on its port and with its data.
    pub(crate) fn up(&mut self) {
        let port = self.port.to_string();
        let dir = self.dir.path().to_str().unwrap();
        let own = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--daemonize", "no"];
        let mut command = Command::new("redis-server");
        if let Some(config) = self.args.first().filter(|arg| !arg.starts_with("--")) {
            command.arg(config);
        }
        let rest = self.args.iter().filter(|arg| !arg.ends_with(".conf"));
        let child = command.args(own).args(rest).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        self.wait();
    }

    fn wait(&self) {
        for _ in 0..1000 {
            if TcpStream::connect(("127.0.0.1", self.listens())).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not listen on port {}", self.listens());
    }

    /// The port that a client uses.
    fn listens(&self) -> u16 {
        let tls = self.args.iter().position(|arg| arg == "--tls-port");
        tls.map_or(self.port, |at| self.args[at + 1].parse().unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What redis-cli answers, as somebody else would ask.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Settings that do not make a test wait.
pub(crate) fn quick(url: &str) -> RedisSettings {
    let mut settings = RedisSettings::from_url(url).unwrap();
    settings.connect_timeout = Duration::from_secs(2);
    settings.request_timeout = Duration::from_millis(500);
    settings.probe_every = Duration::from_millis(200);
    settings.breaker_pause = Duration::from_millis(200);
    settings.min_idle = 1;
    settings
}

pub(crate) async fn connect(url: &str) -> Redis {
    Redis::connect(quick(url)).await.unwrap()
}
