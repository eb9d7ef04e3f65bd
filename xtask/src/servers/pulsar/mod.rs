//! Apache Pulsar: broker, bookie and metadata in one Java.
//!
//! `http.rs`: asking it. `pom.xml`: its jars. Not here: Java (`../java/mod.rs`).

mod http;

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
    time::Duration,
};

const POM: &str = include_str!("pom.xml");
const ROLE: &str = "pulsar";
/// Enough for tests; it starts with 160 MiB of each.
const FLAGS: &str = "-Xms96m\n-Xmx256m\n-XX:MaxDirectMemorySize=192m\n-Dio.netty.tryReflectionSetAccessible=true\n\
                     --add-opens=java.base/java.nio=ALL-UNNAMED\n\
                     --add-opens=java.base/jdk.internal.misc=ALL-UNNAMED\n\
                     --add-opens=java.base/java.util.zip=ALL-UNNAMED\n\
                     --add-opens=java.base/sun.net=ALL-UNNAMED\n\
                     --add-opens=java.base/jdk.internal.platform=ALL-UNNAMED\n\
                     --add-opens=java.management/sun.management=ALL-UNNAMED\n\
                     --add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED\n";
/// For how long it may take to be ready, also on a busy machine.
const READY: Duration = Duration::from_secs(180);
/// Where its administration answers.
const ADMIN: &str = "ROPEWAY_TEST_PULSAR_ADMIN_URL";

/// Starts it in an empty folder; it answers when this returns.
pub(super) fn start(place: &Place, ground: &Ground<'_>) -> Result<Record, Trouble> {
    let java = java::of(ground)?;
    let class_path = match ground.way {
        Way::Packages => jars::class_path(place, ROLE, POM)?,
        Way::Containers(..) => "/pulsar/lib/*".to_owned(),
    };
    let (broker, web) = on_free_ports(ground.folder, &[ROLE], || start_once(ground, &java, &class_path))?;
    Ok(Record {
        version: http::get(web, "/admin/v2/brokers/version").map_err(broken)?.trim().to_owned(),
        since: clock::now(),
        exports: vec![
            (Kind::Pulsar.variable(), format!("pulsar://127.0.0.1:{broker}")),
            (ADMIN.to_owned(), format!("http://127.0.0.1:{web}")),
        ],
    })
}

/// Asks the one that is up.
pub(super) fn ask(record: &Record) -> Result<(), String> {
    let admin = record.exports.iter().find(|(name, _)| name == ADMIN);
    let port = admin.and_then(|(_, url)| url.rsplit_once(':')?.1.parse().ok());
    healthy(port.ok_or("its URL has no port")?)
}

/// It writes a message to a topic of its own and reads it before it says so.
fn healthy(web: u16) -> Result<(), String> {
    match http::get(web, "/admin/v2/brokers/health").map_err(|error| error.to_string())?.trim() {
        "ok" => Ok(()),
        other => Err(format!("its health is {other:?}")),
    }
}

fn start_once(ground: &Ground<'_>, java: &str, class_path: &str) -> Result<(u16, u16), Trouble> {
    let [broker, web, bookie] = port::free().map_err(broken)?;
    for kept in ["metadata", "bookkeeper"] {
        _ = fs::remove_dir_all(ground.folder.join(kept));
    }
    let cluster = format!("ropeway-{:x}", RandomState::new().hash_one(broker));
    fs::write(ground.folder.join("standalone.conf"), settings(&cluster, broker, web)).map_err(broken)?;
    let arguments = java::arguments(ground, class_path, FLAGS)?;
    let bookie = bookie.to_string();
    #[rustfmt::skip]
    let command = [
        java, &arguments, "org.apache.pulsar.PulsarStandaloneStarter", "-c", "standalone.conf", "-nfw", "-nss", "--metadata-dir", "metadata",
        "--bookkeeper-dir", "bookkeeper", "--bookkeeper-port", &bookie, "--advertised-address", "127.0.0.1",
    ];
    let process = ground.start(ROLE, &command.map(str::to_owned))?;
    until("its health is ok", &process, READY, || {
        let clusters = http::get(web, "/admin/v2/clusters").map_err(|error| error.to_string())?;
        if !clusters.contains(&cluster) {
            return Err(format!("another cluster answers on port {web}"));
        }
        healthy(web)
    })?;
    Ok((broker, web))
}

/// One node with what tests want: acks are kept at once, no topic appears or goes by itself, and the largest message fits.
fn settings(cluster: &str, broker: u16, web: u16) -> String {
    format!(
        "clusterName={cluster}\n\
         brokerServicePort={broker}\n\
         webServicePort={web}\n\
         bindAddress=127.0.0.1\n\
         advertisedAddress=127.0.0.1\n\
         allowLoopback=true\n\
         managedLedgerDefaultEnsembleSize=1\n\
         managedLedgerDefaultWriteQuorum=1\n\
         managedLedgerDefaultAckQuorum=1\n\
         managedLedgerDefaultMarkDeleteRateLimit=100000\n\
         nettyMaxFrameSizeBytes=5253120\n\
         allowAutoTopicCreation=false\n\
         brokerDeleteInactiveTopicsEnabled=false\n\
         activeConsumerFailoverDelayTimeMillis=0\n\
         backlogQuotaCheckIntervalInSeconds=5\n\
         loadBalancerEnabled=false\n\
         functionsWorkerEnabled=false\n"
    )
}
