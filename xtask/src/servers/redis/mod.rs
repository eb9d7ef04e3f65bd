//! Redis from the system's package: one alone, behind TLS, with a replica and a sentinel, and as a cluster.
//!
//! `node.rs`: one process of Redis. `tls.rs`: asking through TLS. `resp.rs`: its protocol. Not here: which variants there are
//! (`kind.rs`), where their files are (`place.rs`).

mod node;
mod resp;
mod tls;

use super::{
    certificates, clock,
    kind::{Kind, REDIS, Shape},
    place::Record,
    port,
    ready::until,
    trouble::{Trouble, broken},
    way::{Ground, Way},
};
use node::{Node, READY};
use std::path::Path;

/// What the sentinel calls its primary.
const WATCHED: &str = "ropeway";
/// Of the servers with a password.
const PASSWORD: &str = "ropeway-test";
/// Slots of a cluster.
const SLOTS: u32 = 16_384;

/// Starts that variant in an empty folder; it answers when this returns.
pub(crate) fn start(shape: Shape, ground: &Ground<'_>) -> Result<Record, Trouble> {
    if *ground.way == Way::Packages {
        node::check_version()?;
    }
    let exports = match shape {
        Shape::Alone => alone(ground),
        Shape::Tls => behind_tls(ground),
        Shape::Replica => with_replica(ground),
        Shape::Cluster => cluster(ground),
    }?;
    let version = match ground.way {
        Way::Packages => node::version()?,
        Way::Containers(..) => ground.kind.image().version.to_owned(),
    };
    Ok(Record { version, since: clock::now(), exports })
}

/// Asks every node of a variant that is up, by what was written down about it.
pub(crate) fn ask(shape: Shape, folder: &Path, record: &Record) -> Result<(), String> {
    let url = record.url();
    match shape {
        Shape::Alone => ports(url).try_for_each(node::ping),
        Shape::Tls => record
            .exports
            .iter()
            .filter(|(_, value)| value.starts_with("rediss://"))
            .flat_map(|(_, url)| ports(url))
            .try_for_each(|port| tls::ping(folder, port, PASSWORD)),
        Shape::Replica => ports(url).try_for_each(|port| {
            let primary = node::ask(port, &["SENTINEL", "get-master-addr-by-name", WATCHED])?;
            let port = primary.lines().last().and_then(|port| port.parse().ok());
            node::ping(port.ok_or("the sentinel knows no primary")?)
        }),
        Shape::Cluster => ports(url).try_for_each(in_one_cluster),
    }
}

/// The ports in a URL.
fn ports(url: &str) -> impl Iterator<Item = u16> {
    let hosts = url.split_once("://").map_or("", |(_, rest)| rest);
    let hosts = hosts.split('/').next().unwrap_or_default();
    hosts.split(',').filter_map(|host| host.rsplit_once(':')?.1.parse().ok())
}

fn exports<const N: usize>(all: [(String, String); N]) -> Vec<(String, String)> {
    all.into()
}

fn alone(ground: &Ground<'_>) -> Result<Vec<(String, String)>, Trouble> {
    let socket = ground.folder.join("redis.sock");
    // What the system takes as the path of a socket is short.
    let socket = socket.to_str().filter(|path| path.len() < 100 && !path.contains(char::is_whitespace));
    let settings = socket.map_or_else(String::new, |path| format!("unixsocket {path}\n"));
    let node = Node::start(ground, "redis", &settings)?;
    let mut all = exports([(REDIS.variable(), format!("redis://127.0.0.1:{}", node.port))]);
    all.extend(socket.map(|path| ("ROPEWAY_TEST_REDIS_UNIX_URL".into(), format!("unix://{path}"))));
    Ok(all)
}

fn behind_tls(ground: &Ground<'_>) -> Result<Vec<(String, String)>, Trouble> {
    certificates::make(ground.folder)?;
    let mut urls = Vec::new();
    for (role, clients) in [("password", "no"), ("certificate", "yes")] {
        let node = Node::start_behind_tls(ground, role, clients, PASSWORD)?;
        urls.push(format!("rediss://:{PASSWORD}@127.0.0.1:{}", node.port));
    }
    let demands = urls.pop().unwrap_or_default();
    Ok(exports([
        (Kind::Redis(Shape::Tls).variable(), urls.pop().unwrap_or_default()),
        ("ROPEWAY_TEST_REDIS_MTLS_URL".into(), demands),
        ("ROPEWAY_TEST_REDIS_TLS_DIR".into(), ground.folder.display().to_string()),
    ]))
}

fn with_replica(ground: &Ground<'_>) -> Result<Vec<(String, String)>, Trouble> {
    let primary = Node::start(ground, "primary", "")?;
    let replica = Node::start(ground, "replica", &format!("replicaof 127.0.0.1 {}\n", primary.port))?;
    until("the replica follows its primary", &replica.process, READY, || {
        let replication = node::ask(replica.port, &["INFO", "replication"])?;
        replication.contains("master_link_status:up").then_some(()).ok_or_else(|| replication.clone())
    })?;
    // Long enough that a machine which stands still for a while promotes nobody: tests that want that have servers of their own.
    let watches = format!(
        "sentinel monitor {WATCHED} 127.0.0.1 {} 1\nsentinel down-after-milliseconds {WATCHED} 60000\n\
         sentinel failover-timeout {WATCHED} 5000\n",
        primary.port
    );
    let sentinel = Node::start_sentinel(ground, "sentinel", &watches)?;
    until("the sentinel knows the replica", &sentinel.process, READY, || {
        let replicas = node::ask(sentinel.port, &["SENTINEL", "replicas", WATCHED])?;
        replicas.contains(&replica.port.to_string()).then_some(()).ok_or_else(|| "it knows none yet".into())
    })?;
    Ok(exports([
        (
            Kind::Redis(Shape::Replica).variable(),
            format!("redis+sentinel://127.0.0.1:{}/{WATCHED}", sentinel.port),
        ),
        ("ROPEWAY_TEST_REDIS_PRIMARY_URL".into(), format!("redis://127.0.0.1:{}", primary.port)),
        ("ROPEWAY_TEST_REDIS_READ_ONLY_URL".into(), format!("redis://127.0.0.1:{}", replica.port)),
    ]))
}

fn cluster(ground: &Ground<'_>) -> Result<Vec<(String, String)>, Trouble> {
    let mut nodes = Vec::new();
    for role in ["node-1", "node-2", "node-3"] {
        let [bus] = port::free().map_err(broken)?;
        let settings = format!(
            "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout 15000\ncluster-port {bus}\n"
        );
        nodes.push((Node::start(ground, role, &settings)?, bus));
    }
    join(&nodes).map_err(|error| broken(format!("the nodes could not be made a cluster: {error}")))?;
    for (node, _) in &nodes {
        until("the nodes are one cluster", &node.process, READY, || in_one_cluster(node.port))?;
    }
    let hosts: Vec<String> = nodes.iter().map(|(node, _)| format!("127.0.0.1:{}", node.port)).collect();
    Ok(exports([(Kind::Redis(Shape::Cluster).variable(), format!("redis+cluster://{}", hosts.join(",")))]))
}

/// Gives each node its share of the slots and an epoch of its own, and makes it known to the first.
fn join(nodes: &[(Node, u16)]) -> Result<(), String> {
    let share = |number: u32| number * SLOTS / nodes.len() as u32;
    for (number, (node, bus)) in (0..).zip(nodes) {
        let (first, last) = (share(number).to_string(), (share(number + 1) - 1).to_string());
        node::ask(node.port, &["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        node::ask(node.port, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        if number > 0 {
            let (port, bus) = (node.port.to_string(), bus.to_string());
            node::ask(nodes[0].0.port, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
    }
    Ok(())
}

/// Whether a node knows of all slots and of all nodes.
fn in_one_cluster(port: u16) -> Result<(), String> {
    let state = node::ask(port, &["CLUSTER", "INFO"])?;
    let whole = state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3");
    if whole { Ok(()) } else { Err(state.lines().next().unwrap_or("no answer").to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_each_form_of_url() {
        let read = |url| ports(url).collect::<Vec<_>>();
        assert_eq!(read("redis://127.0.0.1:6379"), [6379]);
        assert_eq!(read("rediss://:pass@127.0.0.1:1"), [1]);
        assert_eq!(read("redis+sentinel://127.0.0.1:2/ropeway"), [2]);
        assert_eq!(read("redis+cluster://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"), [1, 2, 3]);
        assert_eq!(read("unix://x"), [0; 0]);
    }
}
