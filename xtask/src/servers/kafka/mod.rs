//! Apache Kafka: one node that is broker and controller, in one Java.
//!
//! `wire.rs`: asking it in its protocol. `pom.xml`: its jars. Not here: Java (`../java/mod.rs`).

mod wire;

use super::{
    clock,
    java::{self, jars},
    kind::Kind,
    place::{Place, Record},
    port,
    ready::{on_free_ports, until},
    trouble::{Trouble, broken},
    way::{Ground, Way},
};
use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    time::Duration,
};

const POM: &str = include_str!("pom.xml");
const ROLE: &str = "kafka";
/// Enough for tests, and not much more than it needs to start.
const HEAP: &str = "-Xms96m\n-Xmx256m\n";
/// Makes the folder of the log, and becomes the server: `$0` is Java, `$1` its arguments, `$2` the name of the cluster.
const FORMAT_AND_RUN: &str = "\
    \"$0\" \"$1\" kafka.tools.StorageTool format -t \"$2\" -c server.properties --standalone && \
    exec \"$0\" \"$1\" kafka.Kafka server.properties";
/// For how long it may take to be ready, also on a busy machine.
const READY: Duration = Duration::from_secs(120);

/// Starts it in an empty folder; it answers when this returns.
pub(super) fn start(place: &Place, ground: &Ground<'_>) -> Result<Record, Trouble> {
    let java = java::of(ground)?;
    let (class_path, version) = match ground.way {
        Way::Packages => {
            let jars = jars::class_path(place, ROLE, POM)?;
            let version = version(&jars).to_owned();
            (jars, version)
        }
        Way::Containers(..) => ("/opt/kafka/libs/*".to_owned(), ground.kind.image().1.to_owned()),
    };
    let port = on_free_ports(ground.folder, ROLE, || start_once(ground, &java, &class_path))?;
    let exports = vec![(Kind::Kafka.variable(), format!("kafka://127.0.0.1:{port}"))];
    Ok(Record { version, since: clock::now(), exports })
}

/// Asks the one that is up.
pub(super) fn ask(record: &Record) -> Result<(), String> {
    let port = record.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    wire::cluster(port.ok_or("its URL has no port")?).map(drop).map_err(|error| error.to_string())
}

fn start_once(ground: &Ground<'_>, java: &str, class_path: &str) -> Result<u16, Trouble> {
    let [port, controller] = port::free().map_err(broken)?;
    let log = ground.folder.join("log");
    _ = fs::remove_dir_all(&log);
    let settings = settings(port, controller, &log);
    fs::write(ground.folder.join("server.properties"), settings).map_err(broken)?;
    let arguments = java::arguments(ground, class_path, HEAP)?;
    let cluster = new_cluster();
    let command = ["sh", "-c", FORMAT_AND_RUN, java, &arguments, &cluster].map(str::to_owned);
    let process = ground.start(ROLE, &command)?;
    until("it answers for metadata", &process, READY, || {
        let found = wire::cluster(port).map_err(|error| error.to_string())?;
        if found == cluster { Ok(()) } else { Err(format!("another cluster answers on port {port}")) }
    })?;
    Ok(port)
}

/// One node with what tests want: nothing waits, groups notice quickly who is gone, no topic appears by itself.
fn settings(port: u16, controller: u16, log: &Path) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         log.cleaner.dedupe.buffer.size=4194304\n\
         log.retention.check.interval.ms=5000\n\
         num.partitions=1\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         share.coordinator.state.topic.num.partitions=4\n\
         group.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=3000\n\
         group.consumer.min.session.timeout.ms=3000\n\
         group.consumer.session.timeout.ms=6000\n\
         group.consumer.min.heartbeat.interval.ms=500\n\
         group.consumer.heartbeat.interval.ms=1000\n",
        log.display().to_string().replace('\\', "\\\\")
    )
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
