//! Nodes of Kafka that a drill kills and stops: processes of its own on free ports, with their data in its own folder.
//!
//! They are made of the jars that `cargo xtask servers up kafka` has fetched. Each node has a port for who runs the drill and for the other nodes, and one
//! behind each way to it, which tells clients the address of that way. Not here: servers that tests share and leave alone (`cargo xtask servers`), what
//! stands before them (`../proxy.rs`).

#[path = "../../../../xtask/src/servers/kafka/properties.rs"]
mod properties;

use crate::drill::{
    failed,
    process::{free_port, signal},
};
use properties::Properties;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use ropeway_tests::server::Server;
use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};
use tokio::time::Instant;

/// How long nodes may take to answer on a machine that has much else to do, also after a kill.
pub(crate) const READY: Duration = Duration::from_secs(90);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// What Java is given beside what the servers of `cargo xtask` get; the later one counts.
const HEAP: [&str; 3] = ["-Xms48m", "-Xmx256m", "-XX:TieredStopAtLevel=1"];
/// How often a node says that it is there, and after which silence it counts as gone, in milliseconds.
const HEARTBEAT: (u32, u32) = (500, 3000);

/// What nodes are made of.
#[derive(Clone, Debug)]
pub(crate) struct Kit {
    java: PathBuf,
    /// The text of a file of arguments: jars and flags.
    arguments: String,
}

impl Kit {
    /// Finds it; answers what to do where it is not there.
    pub(crate) fn find() -> Result<Self, String> {
        let advice = "run cargo xtask servers up kafka --with packages";
        let arguments = Server::Kafka.arguments().ok_or_else(|| format!("no jars of Kafka: {advice}"))?;
        let jars = arguments.lines().nth(1).unwrap_or_default().trim_matches('"');
        if jars.is_empty() || !env::split_paths(jars).all(|jar| jar.is_file()) {
            return Err(format!("the jars of Kafka are not on this machine: {advice}"));
        }
        let home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        let java = home.filter(|java| java.is_file()).unwrap_or_else(|| PathBuf::from("java"));
        Ok(Self { java, arguments })
    }
}

/// A node. Killed when it is dropped.
pub(crate) struct Node {
    number: usize,
    /// For who runs the drill, and for the other nodes.
    pub(crate) port: u16,
    controller: u16,
    /// Where each way ends, and which port it has for clients.
    ways: Vec<(u16, u16)>,
    dir: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Where the ways to it end.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = u16> {
        self.ways.iter().map(|(front, _)| *front)
    }

    /// Which ports the ways have for clients.
    pub(crate) fn advertise(&mut self, ports: impl Iterator<Item = u16>) {
        self.ways.iter_mut().zip(ports).for_each(|((_, client), port)| *client = port);
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool, String> {
        match &mut self.child {
            Some(child) => child.try_wait().map(|status| status.is_some()).map_err(failed),
            None => Ok(true),
        }
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        signal(self.child.as_ref().map_or(0, Child::id), name)
    }

    fn log(&self) -> Result<File, String> {
        File::options().create(true).append(true).open(self.dir.join("log")).map_err(failed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All nodes of a cluster.
pub(crate) struct Nodes {
    java: PathBuf,
    arguments: String,
    pub(crate) all: Vec<Node>,
}

impl Nodes {
    /// Nodes that are not started yet, each with that many ways to it.
    pub(crate) fn plan(kit: &Kit, dir: &Path, count: usize, ways: usize) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(failed)?;
        let arguments = dir.join("java.args");
        fs::write(&arguments, &kit.arguments).map_err(failed)?;
        let front = |_| {
            let port = free_port();
            (port, port)
        };
        let node = |number: usize| Node {
            number,
            port: free_port(),
            controller: free_port(),
            ways: (0..ways).map(front).collect(),
            dir: dir.join(format!("node-{number}")),
            child: None,
        };
        let all = (1..=count).map(node).collect();
        Ok(Self { java: kit.java.clone(), arguments: format!("@{}", arguments.display()), all })
    }

    /// Starts all of them with empty logs; they answer when this returns.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let mut formats = Vec::new();
        for node in &self.all {
            fs::create_dir_all(&node.dir).map_err(failed)?;
            fs::write(node.dir.join("properties"), self.settings(node)).map_err(failed)?;
            let words =
                ["kafka.tools.StorageTool", "format", "-t", "ZHJpbGwtb2Ytcm9wZXdheQ", "-c", "properties"];
            formats.push(self.command(node, &words)?.spawn().map_err(failed)?);
        }
        for mut format in formats {
            let status = format.wait().map_err(failed)?;
            if !status.success() {
                return Err(format!("the storage could not be formatted: {status}"));
            }
        }
        (0..self.all.len()).try_for_each(|at| self.spawn(at))?;
        let since = Instant::now();
        while !self.answer() {
            if since.elapsed() > READY {
                return Err(format!("no Kafka within {READY:?}"));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Begins to start one (again), on its ports and with its data.
    pub(crate) fn spawn(&mut self, at: usize) -> Result<(), String> {
        let child = self.command(&self.all[at], &["kafka.Kafka", "properties"])?.spawn().map_err(failed)?;
        self.all[at].child = Some(child);
        Ok(())
    }

    fn command(&self, node: &Node, words: &[&str]) -> Result<Command, String> {
        let mut command = Command::new(&self.java);
        command.arg(&self.arguments).args(HEAP).args(words).current_dir(&node.dir).stdin(Stdio::null());
        command.stdout(node.log()?).stderr(node.log()?);
        Ok(command)
    }

    /// Whether each of them answers, and knows all.
    pub(crate) fn answer(&self) -> bool {
        self.all.iter().all(|node| {
            let listens = TcpStream::connect(("127.0.0.1", node.port)).is_ok();
            listens && brokers(node.port).is_ok_and(|count| count == self.all.len())
        })
    }

    /// Whether each partition lies on all of them, as all of them say.
    pub(crate) fn in_sync(&self) -> bool {
        let Ok(client) = stock(&self.addresses(), "nobody") else { return false };
        client.fetch_metadata(None, ANSWER).is_ok_and(|told| {
            let mut partitions = told.topics().iter().flat_map(|topic| topic.partitions());
            partitions.all(|partition| partition.isr().len() == self.all.len())
        })
    }

    /// Their addresses for who runs the drill.
    pub(crate) fn addresses(&self) -> String {
        let all: Vec<String> = self.all.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        all.join(",")
    }

    /// The URL for who runs the drill.
    pub(crate) fn url(&self) -> String {
        format!("kafka://{}", self.addresses())
    }

    /// One listener for who runs the drill and for the other nodes, and one behind each way to it.
    fn settings(&self, node: &Node) -> String {
        let voters: Vec<(usize, u16)> = self.all.iter().map(|node| (node.number, node.controller)).collect();
        let mut listeners = format!("DIRECT://127.0.0.1:{}", node.port);
        let (mut advertised, mut map) =
            (listeners.clone(), "CONTROLLER:PLAINTEXT,DIRECT:PLAINTEXT".to_owned());
        for (at, (front, client)) in node.ways.iter().enumerate() {
            _ = write!(listeners, ",WAY{at}://127.0.0.1:{front}");
            _ = write!(advertised, ",WAY{at}://127.0.0.1:{client}");
            _ = write!(map, ",WAY{at}:PLAINTEXT");
        }
        let meaning = format!(
            "inter.broker.listener.name=DIRECT\nlistener.security.protocol.map={map}\nadvertised.listeners={advertised}\n"
        );
        let properties = Properties {
            number: node.number,
            voters: &voters,
            listeners: &listeners,
            meaning: &meaning,
            log: &node.dir.join("data"),
            heartbeat: HEARTBEAT,
        };
        properties.text()
    }
}

/// How many brokers the one on that port knows.
fn brokers(port: u16) -> Result<usize, String> {
    let client = stock(&format!("127.0.0.1:{port}"), "nobody")?;
    client.fetch_metadata(None, ANSWER).map(|told| told.brokers().len()).map_err(failed)
}

/// A client that is not ours.
pub(crate) fn stock(addresses: &str, group: &str) -> Result<BaseConsumer, String> {
    ClientConfig::new()
        .set("bootstrap.servers", addresses)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .create()
        .map_err(failed)
}
