//! One process of Kafka: its configuration and its start.
//!
//! Not here: the properties (`properties.rs`), what several make together, and when they are ready (`mod.rs` beside this).

use super::properties::Properties;
use crate::servers::{
    process::Process,
    trouble::{Trouble, broken},
    way::Ground,
};
use std::{fs, path::Path};

/// Makes the folder of the log, unless it is there, and becomes the server: `$0` is Java, `$1` its arguments, `$2` the name of the cluster, `$3`
/// the settings; what follows is for making the folder.
const FORMAT_AND_RUN: &str = "\
    java=$0; arguments=$1; cluster=$2; settings=$3; shift 3; \
    \"$java\" \"$arguments\" kafka.tools.StorageTool format --ignore-formatted -t \"$cluster\" -c \"$settings\" \"$@\" && \
    exec \"$java\" \"$arguments\" kafka.Kafka \"$settings\"";

/// How often a node says that it is there, and after which silence it counts as gone, in milliseconds.
const HEARTBEAT: (u32, u32) = (1000, 5000);

/// A node: what it is called and where it listens.
#[derive(Debug)]
pub(super) struct Node {
    /// From 1 on.
    pub(super) number: usize,
    pub(super) role: &'static str,
    /// For clients of this machine, and for the other nodes.
    pub(super) port: u16,
    pub(super) controller: u16,
    /// Behind TLS, for clients with a password; used where there is such a port.
    pub(super) password: u16,
    /// Behind TLS, for clients with a certificate; used where there is such a port.
    pub(super) certificate: u16,
}

/// What the nodes of a cluster have in common.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    pub(super) cluster: String,
    pub(super) nodes: &'a [Node],
    /// Lines that replace the one that names the listeners.
    pub(super) more: String,
    pub(super) java: &'a str,
    pub(super) arguments: &'a str,
}

impl Node {
    /// Starts it with an empty log.
    pub(super) fn start(
        &self,
        ground: &Ground<'_>,
        whole: &Whole<'_>,
        users: &[String],
    ) -> Result<Process, Trouble> {
        let log = ground.folder.join(self.role);
        _ = fs::remove_dir_all(&log);
        let settings = format!("{}.properties", self.role);
        fs::write(ground.folder.join(&settings), self.settings(whole, &log)).map_err(broken)?;
        let mut command =
            ["sh", "-c", FORMAT_AND_RUN, whole.java, whole.arguments, &whole.cluster, &settings]
                .map(str::to_owned)
                .to_vec();
        command.extend(users.iter().cloned());
        ground.start(self.role, &command)
    }

    fn settings(&self, whole: &Whole<'_>, log: &Path) -> String {
        let voters: Vec<(usize, u16)> =
            whole.nodes.iter().map(|node| (node.number, node.controller)).collect();
        let mut listeners = format!("PLAINTEXT://127.0.0.1:{}", self.port);
        let mut meaning = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n";
        if !whole.more.is_empty() {
            meaning = &whole.more;
            let more = format!(
                ",PASSWORD://127.0.0.1:{},CERTIFICATE://127.0.0.1:{}",
                self.password, self.certificate
            );
            listeners.push_str(&more);
        }
        let (number, voters, listeners) = (self.number, &*voters, &*listeners);
        Properties { number, voters, listeners, meaning, log, heartbeat: HEARTBEAT }.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> Node {
        let port = number as u16;
        Node {
            number,
            role: "node",
            port,
            controller: port + 10,
            password: port + 20,
            certificate: port + 30,
        }
    }

    #[test]
    fn what_is_acked_by_a_cluster_is_on_two_of_its_nodes() {
        let settings = |count: usize| {
            let nodes: Vec<Node> = (1..=count).map(node).collect();
            let whole =
                Whole { cluster: String::new(), nodes: &nodes, more: String::new(), java: "", arguments: "" };
            nodes[count - 1].settings(&whole, Path::new("/log"))
        };
        let (one, three) = (settings(1), settings(3));
        assert!(one.contains("\nmin.insync.replicas=1\n") && one.contains("\nnode.id=1\n"), "{one}");
        assert!(three.contains("\nmin.insync.replicas=2\n"), "{three}");
        assert!(three.contains("\ncontroller.quorum.voters=1@127.0.0.1:11,2@127.0.0.1:12,3@127.0.0.1:13\n"));
        assert!(!three.contains("PASSWORD"), "{three}");
    }
}
