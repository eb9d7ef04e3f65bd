//! Servers of Redis for these tests: processes on free ports, with their data in a directory that goes with them.

use ropeway_store::redis::{Redis, RedisSettings};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Whether a server can be started here.
pub(crate) fn available() -> bool {
    Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A port that nobody has, below those that connections are given, of which one may be taken before its server listens.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Whether a server answers at a port, which it does when it listens wherever it is to; one that speaks TLS: whether it listens there.
fn answers(port: u16, tls: bool) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    tls || stream.write_all(b"PING\r\n").is_ok() && matches!(stream.read(&mut [0]), Ok(1))
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
        let port = free_port();
        let own = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""].map(str::to_owned);
        let mut server = Self { port, args: own.to_vec(), dir: tempfile::tempdir().unwrap(), child: None };
        server.args.extend(args.iter().map(ToString::to_string));
        server.up();
        server
    }

    /// Starts one that speaks TLS only.
    pub(crate) fn start_tls(certificates: &Certificates, args: &[&str]) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let file = |path: &Path| path.to_str().unwrap().to_owned();
        let mut own =
            ["--port", "0", "--tls-port", &port.to_string(), "--save", ""].map(str::to_owned).to_vec();
        own.extend(["--tls-ca-cert-file".to_owned(), file(&certificates.ca)]);
        own.extend(["--tls-cert-file".to_owned(), file(&certificates.cert)]);
        own.extend(["--tls-key-file".to_owned(), file(&certificates.key)]);
        own.extend(args.iter().map(ToString::to_string));
        let mut server = Self { port, args: own, dir, child: None };
        server.up();
        server
    }

    /// Starts a sentinel that watches `primary` as `main`, alone.
    pub(crate) fn start_sentinel(primary: u16) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let config = dir.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            format!("sentinel monitor main 127.0.0.1 {primary} 1"),
            "sentinel down-after-milliseconds main 1500".to_owned(),
            "sentinel failover-timeout main 2000".to_owned(),
        ];
        std::fs::write(&config, lines.join("\n") + "\n").unwrap();
        let args = vec![config.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let mut server = Self { port, args, dir, child: None };
        server.up();
        server
    }

    /// Starts three that form a cluster, each with a third of the slots.
    pub(crate) fn start_cluster() -> [Self; 3] {
        let nodes = [0, 1, 2].map(|_| {
            let bus = free_port().to_string();
            let node = Self::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
            ]);
            (node, bus)
        });
        for (index, (node, _)) in nodes.iter().enumerate() {
            let (first, last) = (index * 5462, (index * 5462 + 5461).min(16383));
            assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]), "OK");
        }
        for turn in 0..1500 {
            // A meeting that takes longer than the timeout of nodes is given up: then they meet again.
            if turn % 100 == 0 {
                for (index, (node, _)) in nodes.iter().enumerate() {
                    for (other, bus) in &nodes[..index] {
                        node.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus]);
                    }
                }
            }
            let well = |(node, _): &(Self, String)| {
                let told = node.cli(&["CLUSTER", "INFO"]);
                told.contains("cluster_state:ok") && told.contains("cluster_known_nodes:3")
            };
            if nodes.iter().all(well) {
                return nodes.map(|(node, _)| node);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the cluster is not ready after 30 s");
    }

    /// Starts it (again), on its port and with its data, and waits until it listens.
    pub(crate) fn up(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(&self.args).current_dir(self.dir.path());
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let tls = self.args.iter().any(|arg| arg == "--tls-port");
        for _ in 0..3000 {
            if answers(self.port, tls) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not answer on port {}", self.port);
    }

    /// The same server with other arguments from its next start on.
    pub(crate) fn set(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(ToString::to_string));
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

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
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
    settings.request_timeout = Duration::from_secs(2);
    settings.probe_every = Duration::from_millis(200);
    settings.breaker_pause = Duration::from_millis(200);
    settings.min_idle = 1;
    settings
}

pub(crate) async fn connect(url: &str) -> Redis {
    Redis::connect(quick(url)).await.unwrap()
}

/// Something that listens and answers as `answer` says: it is given each connection, with what was read first.
pub(crate) fn fake(answer: impl Fn(&mut TcpStream, &[u8]) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = std::sync::Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut read = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut read) {
                    answer(&mut stream, &read[..count]);
                }
            });
        }
    });
    port
}

/// Answers a whole conversation of commands, one reply for each `*` that begins one.
pub(crate) fn replies(stream: &mut TcpStream, read: &[u8], reply: impl Fn(&str) -> String) {
    let text = String::from_utf8_lossy(read);
    for command in text.split("\r\n*").filter(|command| !command.is_empty()) {
        let words: Vec<&str> = command.split("\r\n").skip(2).step_by(2).collect();
        drop(stream.write_all(reply(&words.join(" ")).as_bytes()));
    }
}

/// A CA, and a certificate and key for 127.0.0.1 that it signed, in `dir`.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let file = |kind: &str| dir.join(format!("{name}-{kind}.pem"));
        let own = Self { ca: file("ca"), cert: file("cert"), key: file("key") };
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        std::fs::write(&own.ca, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&own.cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(&own.key, key.serialize_pem()).unwrap();
        own
    }
}

/// A way to a server that can be closed: it passes on what comes, until `cut` says otherwise of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    /// A request with the text is passed on, and the connection is closed before the answer.
    BeforeAnswer,
    /// It is passed on, and half of the answer comes back.
    InAnswer,
    /// It is not passed on; the connection is closed.
    BeforeServer,
}

/// Passes connections on to `to`. Each request that holds `word` is cut.
pub(crate) fn relay(to: u16, word: &'static str, cut: Cut) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                while let Ok(count @ 1..) = client.read(&mut request) {
                    let is_cut = String::from_utf8_lossy(&request[..count]).contains(word);
                    if is_cut && cut == Cut::BeforeServer {
                        return;
                    }
                    server.write_all(&request[..count]).unwrap();
                    // Requests of these tests are short, and come one after the other.
                    std::thread::sleep(Duration::from_millis(20));
                    let read = server.read(&mut answer).unwrap_or(0);
                    if is_cut {
                        let part = if cut == Cut::InAnswer { read / 2 } else { 0 };
                        drop(client.write_all(&answer[..part]));
                        return;
                    }
                    if client.write_all(&answer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}
