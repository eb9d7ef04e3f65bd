//! Servers for these tests: processes on free ports, with their data in a directory that goes with them; and what only looks like one.

use crate::{running::Place, trials::on};
use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Whether a server can be started here.
pub(crate) fn available() -> bool {
    let version =
        Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// A port that nobody has: one below those that connections are given, of which one may be taken before its server listens.
pub(crate) fn free_port() -> u16 {
    let drawn = || 10_000 + (RandomState::new().hash_one(()) % 22_000) as u16;
    std::iter::repeat_with(drawn).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    child: Child,
    dir: TempDir,
}

impl Server {
    /// One with these further arguments, which listens by now.
    pub(crate) fn start(args: &[&str]) -> Self {
        let port = free_port().to_string();
        Self::spawn(&[&["--port", &port][..], args].concat(), &port)
    }

    /// One that keeps what is acked, as it should be set up for us.
    pub(crate) fn durable() -> Self {
        Self::start(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory",
            "1gb",
            "--maxmemory-policy",
            "noeviction",
        ])
    }

    /// One that speaks TLS only.
    pub(crate) fn start_tls(certificates: &Certificates) -> Self {
        let (port, file) = (free_port().to_string(), |path: &Path| path.display().to_string());
        let files = [&certificates.ca, &certificates.cert, &certificates.key].map(|path| file(path));
        let [ca, cert, key] = files.each_ref().map(String::as_str);
        let args = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--tls-ca-cert-file", ca];
        Self::spawn(&[&args[..], &["--tls-cert-file", cert, "--tls-key-file", key]].concat(), &port)
    }

    /// A sentinel that watches `primary` as `main`, alone.
    pub(crate) fn sentinel(primary: &Self) -> Self {
        let (port, dir) = (free_port().to_string(), tempfile::tempdir().unwrap());
        let path = dir.path().join("sentinel.conf");
        let lines = format!("port {port}\nsentinel monitor main 127.0.0.1 {} 1\n", primary.port);
        std::fs::write(&path, lines).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(path).arg("--sentinel");
        Self::run(command, dir, &port)
    }

    /// Three that form a cluster.
    pub(crate) fn cluster() -> [Self; 3] {
        let nodes = [0, 1, 2].map(|_| {
            let bus = free_port().to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            (Self::start(&[&cluster[..], &["--appendonly", "yes", "--appendfsync", "always"]].concat()), bus)
        });
        for (index, (node, _)) in nodes.iter().enumerate() {
            let (first, last) = (index * 5462, (index * 5462 + 5461).min(16383));
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        let turns = Cell::new(0);
        until("the cluster serves all slots", || {
            // A meeting that takes longer than the timeout of nodes is given up: then they meet again.
            if turns.replace(turns.get() + 1) % 50 == 0 {
                meet(&nodes);
            }
            let told = |(node, _): &(Self, String)| node.cli(&["CLUSTER", "INFO"]);
            let well =
                |told: String| told.contains("cluster_state:ok") && told.contains("cluster_known_nodes:3");
            nodes.iter().map(told).all(well)
        });
        nodes.map(|(node, _)| node)
    }

    fn spawn(args: &[&str], port: &str) -> Self {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"]).args(args);
        Self::run(command, tempfile::tempdir().unwrap(), port)
    }

    fn run(mut command: Command, dir: TempDir, port: &str) -> Self {
        command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { port: port.parse().unwrap(), child: command.spawn().unwrap(), dir };
        let listens = || TcpStream::connect(("127.0.0.1", server.port)).is_ok();
        until(&format!("redis-server listens on port {port}"), listens);
        server
    }

    /// The directory of its files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A directory in which the program works on it.
    pub(crate) fn place(&self) -> Place {
        on(&self.url())
    }

    /// What redis-cli prints.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has each node meet those before it, on the ports of their bus.
fn meet(nodes: &[(Server, String)]) {
    for (index, (node, _)) in nodes.iter().enumerate() {
        for (other, bus) in &nodes[..index] {
            node.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus]);
        }
    }
}

/// Waits until that is so.
#[track_caller]
pub(crate) fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..1500 {
        if so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not within 30 s: {what}");
}

/// Something that listens and answers each thing it reads as `answer` says.
pub(crate) fn fake(answer: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = std::sync::Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut read = [0; 16 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut read) {
                    answer(&mut stream, &String::from_utf8_lossy(&read[..count]));
                }
            });
        }
    });
    port
}

/// A server that says this of itself and knows no other command.
pub(crate) fn says(info: &'static str) -> u16 {
    fake(move |stream, read| {
        for command in read.split("\r\n*").filter(|command| !command.is_empty()) {
            let answer = match command.split("\r\n").nth(2) {
                Some("INFO") => format!("${}\r\n{info}\r\n", info.len()),
                Some("CLIENT" | "PING" | "AUTH") => "+OK\r\n".to_owned(),
                _ => "-ERR unknown command\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    })
}

/// A CA, and a certificate and key for 127.0.0.1 that it signed.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    _dir: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_file = write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = write("cert.pem", params.signed_by(&key, &issuer).unwrap().pem());
        let key = write("key.pem", key.serialize_pem());
        Self { ca: ca_file, cert, key, _dir: dir }
    }
}
