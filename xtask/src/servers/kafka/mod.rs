//! Apache Kafka: nodes that are broker and controller, each in one Java: one, three, or one behind TLS.
//!
//! `node.rs`: one of them, with `properties.rs`. `tls.rs`: its ports behind TLS. `wire.rs`: asking it in its protocol. `pom.xml`: its jars. Not here: Java
//! (`../java/mod.rs`), certificates (`../certificates.rs`).

mod node;
mod properties;
mod tls;
mod wire;

use super::{
    certificates, clock,
    java::{self, jars},
    kind::Brokers,
    place::{Place, Record},
    port,
    ready::{on_free_ports, until},
    trouble::{Trouble, broken},
    way::{Ground, Way},
};
use node::{Node, Whole};
use std::{
    hash::{BuildHasher as _, RandomState},
    path::Path,
    time::Duration,
};

const POM: &str = include_str!("pom.xml");
/// Enough for benchmarks too, and not much more than it needs to start.
const HEAP: &str = "-Xms64m\n-Xmx256m\n";
/// For those that no benchmark uses.
const SMALL_HEAP: &str = "-Xms48m\n-Xmx96m\n-XX:TieredStopAtLevel=1\n";
/// For how long it may take to be ready, also on a busy machine.
const READY: Duration = Duration::from_secs(180);

impl Brokers {
    /// Its nodes, as their files are called.
    fn roles(self) -> &'static [&'static str] {
        match self {
            Self::One | Self::Tls => &["kafka"],
            Self::Three => &["node-1", "node-2", "node-3"],
        }
    }

    fn heap(self) -> &'static str {
        if self == Self::One { HEAP } else { SMALL_HEAP }
    }
}

/// Starts it in an empty folder; it answers when this returns.
pub(super) fn start(brokers: Brokers, place: &Place, ground: &Ground<'_>) -> Result<Record, Trouble> {
    let java = java::of(ground)?;
    let (class_path, version) = match ground.way {
        Way::Packages => {
            let jars = jars::class_path(place, "kafka", POM)?;
            let version = version(&jars).to_owned();
            (jars, version)
        }
        Way::Containers(..) => ("/opt/kafka/libs/*".to_owned(), ground.kind.image().version.to_owned()),
    };
    if brokers == Brokers::Tls {
        certificates::make(ground.folder)?;
    }
    let arguments = java::arguments(ground, &class_path, brokers.heap())?;
    let nodes =
        on_free_ports(ground.folder, brokers.roles(), || start_once(brokers, ground, &java, &arguments))?;
    Ok(Record { version, since: clock::now(), exports: exports(brokers, ground, &nodes) })
}

/// The variables for the tests.
fn exports(brokers: Brokers, ground: &Ground<'_>, nodes: &[Node]) -> Vec<(String, String)> {
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    match (brokers, nodes) {
        (Brokers::Tls, [node]) => tls::exports(ground, node),
        _ => vec![(ground.kind.variable(), format!("kafka://{}", hosts.join(",")))],
    }
}

/// Asks every node of the one that is up.
pub(super) fn ask(brokers: Brokers, folder: &Path, record: &Record) -> Result<(), String> {
    if brokers == Brokers::Tls {
        return tls::ask(folder, record);
    }
    let hosts = record.url().split_once("://").map_or("", |(_, hosts)| hosts);
    hosts.split(',').try_for_each(|host| {
        let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        is_whole(brokers, port.ok_or("its URL has no port")?)
    })
}

/// What the node on that port says.
fn asked(port: u16) -> Result<wire::Cluster, String> {
    wire::connect(port).and_then(|mut node| wire::cluster(&mut node)).map_err(|error| error.to_string())
}

/// Whether the node on that port knows all nodes.
fn is_whole(brokers: Brokers, port: u16) -> Result<(), String> {
    match (asked(port)?.brokers, brokers.roles().len()) {
        (there, all) if there == all => Ok(()),
        (there, all) => Err(format!("the node on port {port} knows {there} of {all} brokers")),
    }
}

fn start_once(
    brokers: Brokers,
    ground: &Ground<'_>,
    java: &str,
    arguments: &str,
) -> Result<Vec<Node>, Trouble> {
    // Of the largest: four for each of three.
    let ports: [u16; 12] = port::free().map_err(broken)?;
    let nodes: Vec<Node> = (1..)
        .zip(brokers.roles())
        .zip(ports.chunks_exact(4))
        .map(|((number, role), ports)| Node {
            number,
            role,
            port: ports[0],
            controller: ports[1],
            password: ports[2],
            certificate: ports[3],
        })
        .collect();
    let more = if brokers == Brokers::Tls { tls::settings(ground.folder)? } else { String::new() };
    let whole = Whole { cluster: new_cluster(), nodes: &nodes, more, java, arguments };
    let users = if brokers == Brokers::Tls { tls::users() } else { Vec::new() };
    let processes: Vec<_> =
        nodes.iter().map(|node| node.start(ground, &whole, &users)).collect::<Result<_, _>>()?;
    let each = || nodes.iter().zip(&processes);
    for (node, process) in each() {
        until("it answers for metadata", process, READY, || {
            let is = asked(node.port)?.name == whole.cluster;
            if is { Ok(()) } else { Err(format!("another cluster answers on port {}", node.port)) }
        })?;
    }
    for (node, process) in each() {
        until("it knows all nodes", process, READY, || is_whole(brokers, node.port))?;
        if brokers == Brokers::Tls {
            until("it answers behind TLS", process, READY, || tls::answers(ground.folder, node))?;
        }
    }
    Ok(nodes)
}

/// A name for a cluster as Kafka wants it: 16 bytes in base64, here with the last of them zero.
fn new_cluster() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letters = (0..20u32).map(|at| {
        // Never the first letter: names that begin with that are kept for Kafka itself. Never the last two: one that begins with `-` is
        // taken for an option.
        let random = RandomState::new().hash_one(at);
        char::from(LETTERS[1 + (random % 61) as usize])
    });
    letters.chain(['A', 'A']).collect()
}

/// The version in the name of the jar.
fn version(class_path: &str) -> &str {
    let jar =
        class_path.split(['/', ':']).find_map(|part| part.strip_prefix("kafka_2.13-")?.strip_suffix(".jar"));
    jar.unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_of_the_jar() {
        let path = "/x/kafka_2.13/4.4.0/kafka_2.13-4.4.0.jar:/x/kafka-clients-4.4.0.jar";
        assert_eq!(version(path), "4.4.0");
        assert_eq!(version(""), "?");
        assert!(POM.contains("<version>4.4.0</version>"));
    }

    #[test]
    fn names_of_clusters_differ() {
        let (one, other) = (new_cluster(), new_cluster());
        assert_ne!(one, other);
        for name in (0..1000).map(|_| new_cluster()) {
            assert!(name.len() == 22 && !name.starts_with(['A', '-']), "{name}");
        }
    }
}
