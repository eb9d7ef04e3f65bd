//! Servers that fail over: a primary and a replica that a sentinel watches, and clusters. Each is a process on a free port, with its data in a
//! directory that goes with it.
//!
//! Not here: one server for a test (`server.rs`).

use super::server::NONE;
use crate::trials::ignore;
use std::{
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long a server, and what is to become of several, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What servers that ask for one take.
pub(super) const PASSWORD: &str = "open";

/// A running server. Ended when it is dropped.
pub(super) struct Node {
    pub(super) port: u16,
    args: Vec<String>,
    dir: tempfile::TempDir,
    child: Option<Child>,
    secured: Option<PathBuf>,
}

/// A CA in a directory, a certificate for this machine that it signed, and its key.
pub(super) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "tests");
        std::fs::write(dir.path().join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self(dir)
    }

    pub(super) fn dir(&self) -> &Path {
        self.0.path()
    }
}

/// One below those that connections are given, of which one may be taken before its server listens.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until it is so.
pub(super) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let pause = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if so() {
            return;
        }
        std::thread::sleep(pause);
    }
    panic!("not within {PATIENCE:?}: {what}");
}

/// Has each node meet those before it.
fn meet(nodes: &[(Node, String)]) {
    for (index, (node, _)) in nodes.iter().enumerate() {
        for (other, bus) in &nodes[..index] {
            node.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus]);
        }
    }
}

impl Node {
    /// Starts one with these further arguments; over TLS and with a password, where there are certificates.
    pub(super) fn start(secured: Option<&Certificates>, args: &[&str]) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let mut all = Vec::new();
        match secured {
            None => all.extend(["--port".to_owned(), port.to_string()]),
            Some(certificates) => {
                let file = |name: &str| certificates.dir().join(name).display().to_string();
                for (name, value) in [
                    ("--port", "0".to_owned()),
                    ("--tls-port", port.to_string()),
                    ("--tls-ca-cert-file", file("ca.pem")),
                    ("--tls-cert-file", file("cert.pem")),
                    ("--tls-key-file", file("key.pem")),
                    ("--tls-auth-clients", "no".to_owned()),
                    ("--tls-replication", "yes".to_owned()),
                    ("--requirepass", PASSWORD.to_owned()),
                    ("--masterauth", PASSWORD.to_owned()),
                ] {
                    all.extend([name.to_owned(), value]);
                }
            }
        }
        let own = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "no"];
        all.extend(own.iter().chain(args).map(ToString::to_string));
        Self::run(port, all, dir, secured)
    }

    fn run(port: u16, args: Vec<String>, dir: tempfile::TempDir, secured: Option<&Certificates>) -> Self {
        let secured = secured.map(|certificates| certificates.dir().to_owned());
        let mut node = Self { port, args, dir, child: None, secured };
        node.up();
        node
    }

    /// Starts a replica of this one.
    pub(super) fn replica(&self, secured: Option<&Certificates>) -> Self {
        Self::start(
            secured,
            &["--replicaof", &format!("127.0.0.1 {}", self.port), "--repl-diskless-sync-delay", "0"],
        )
    }

    /// Starts a sentinel that watches this one as `main`, alone, and waits until it knows the replica.
    pub(super) fn sentinel(&self, replica: &Self, secured: Option<&Certificates>) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let mut lines = vec![
            format!("sentinel monitor main 127.0.0.1 {} 1", self.port),
            "sentinel down-after-milliseconds main 1500".to_owned(),
            "sentinel failover-timeout main 2000".to_owned(),
        ];
        match secured {
            None => lines.push(format!("port {port}")),
            Some(certificates) => {
                let file = |name: &str| certificates.dir().join(name).display().to_string();
                lines.extend([
                    "port 0".to_owned(),
                    format!("tls-port {port}"),
                    format!("tls-ca-cert-file {}", file("ca.pem")),
                    format!("tls-cert-file {}", file("cert.pem")),
                    format!("tls-key-file {}", file("key.pem")),
                    "tls-auth-clients no".to_owned(),
                    "tls-replication yes".to_owned(),
                    format!("requirepass {PASSWORD}"),
                    format!("sentinel auth-pass main {PASSWORD}"),
                ]);
            }
        }
        let config = dir.path().join("sentinel.conf");
        std::fs::write(&config, lines.join("\n") + "\n").unwrap();
        let args = vec![config.display().to_string(), "--sentinel".to_owned()];
        let sentinel = Self::run(port, args, dir, secured);
        until("the sentinel knows the replica", || {
            sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).contains(&replica.port.to_string())
                && replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        sentinel
    }

    /// Starts one that is a cluster of its own, that listens at a socket as well, and tells everybody that it is at that address.
    pub(super) fn alone(socket: &Path, address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap();
        let (socket, bus) = (socket.display().to_string(), free_port().to_string());
        let mut args = vec!["--cluster-enabled", "yes", "--cluster-port", &bus, "--unixsocket", &socket];
        args.extend(["--cluster-announce-ip", host, "--cluster-announce-port", port]);
        let node = Self::start(None, &args);
        node.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        until("the cluster is ready", || node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        node
    }

    /// Starts three that form a cluster, each with a third of the slots, and as many replicas of them.
    pub(super) fn cluster(replicas: bool, secured: Option<&Certificates>) -> Vec<Self> {
        let count = if replicas { 6 } else { 3 };
        let nodes: Vec<(Self, String)> = (0..count)
            .map(|_| {
                let bus = free_port().to_string();
                let mut args = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
                args.extend(["--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"]);
                if secured.is_some() {
                    args.extend(["--tls-cluster", "yes"]);
                }
                (Self::start(secured, &args), bus)
            })
            .collect();
        for (index, (node, _)) in nodes[..3].iter().enumerate() {
            let (first, last) = (index * 5462, (index * 5462 + 5461).min(16383));
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        let known = format!("cluster_known_nodes:{count}");
        let mut turns = 0..;
        until("the nodes know each other", || {
            // A meeting that takes longer than the timeout of nodes is given up: then they meet again.
            if turns.next().is_some_and(|turn| turn % 50 == 0) {
                meet(&nodes);
            }
            nodes.iter().all(|(node, _)| node.cli(&["CLUSTER", "INFO"]).contains(&known))
        });
        for index in 3..count {
            let primary = nodes[index - 3].0.cli(&["CLUSTER", "MYID"]);
            until("a node becomes a replica", || {
                nodes[index].0.cli(&["CLUSTER", "REPLICATE", &primary]) == "OK"
            });
        }
        let well = |(node, _): &(Self, String)| {
            let replication = node.cli(&["INFO", "replication"]);
            node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && (replication.contains("role:master") || replication.contains("master_link_status:up"))
        };
        until("the cluster is ready", || nodes.iter().all(well));
        nodes.into_iter().map(|(node, _)| node).collect()
    }

    /// Starts it (again), on its port and with its data, and waits until it listens.
    pub(super) fn up(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(&self.args).current_dir(self.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => ignore(NONE),
            Err(error) => panic!("{error}"),
        });
        until("a server listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Where its data lies.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends it as `kill -9` does.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// What redis-cli answers, as somebody else would ask.
    pub(super) fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]);
        if let Some(dir) = &self.secured {
            command.args(["--no-auth-warning", "-a", PASSWORD, "--tls", "--cacert"]).arg(dir.join("ca.pem"));
        }
        let output = command.args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
