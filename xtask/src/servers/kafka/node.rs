//! One process of Kafka: its configuration and its start.
//!
//! Not here: what several make together, and when they are ready (`mod.rs` beside this).

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

    /// What tests want: nothing waits, groups notice quickly who is gone, no topic appears by itself. With three nodes each topic is on all of
    /// them, and acked when it is on two.
    fn settings(&self, whole: &Whole<'_>, log: &Path) -> String {
        let voters: Vec<String> =
            whole.nodes.iter().map(|node| format!("{}@127.0.0.1:{}", node.number, node.controller)).collect();
        let (copies, in_sync) = (whole.nodes.len(), whole.nodes.len().min(2));
        let listeners = if whole.more.is_empty() {
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
        } else {
            &whole.more
        };
        let behind_tls = if whole.more.is_empty() {
            String::new()
        } else {
            format!(",PASSWORD://127.0.0.1:{},CERTIFICATE://127.0.0.1:{}", self.password, self.certificate)
        };
        format!(
            "process.roles=broker,controller\n\
             node.id={number}\n\
             controller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{behind_tls}\n\
             {listeners}\
             log.dirs={log}\n\
             log.cleaner.dedupe.buffer.size=4194304\n\
             log.retention.check.interval.ms=5000\n\
             num.partitions=1\n\
             default.replication.factor={copies}\n\
             min.insync.replicas={in_sync}\n\
             auto.create.topics.enable=false\n\
             broker.heartbeat.interval.ms=1000\n\
             broker.session.timeout.ms=5000\n\
             offsets.topic.replication.factor={copies}\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor={copies}\n\
             transaction.state.log.min.isr={in_sync}\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor={copies}\n\
             share.coordinator.state.topic.min.isr={in_sync}\n\
             share.coordinator.state.topic.num.partitions=4\n\
             group.initial.rebalance.delay.ms=0\n\
             group.min.session.timeout.ms=3000\n\
             group.consumer.min.session.timeout.ms=3000\n\
             group.consumer.session.timeout.ms=6000\n\
             group.consumer.min.heartbeat.interval.ms=500\n\
             group.consumer.heartbeat.interval.ms=1000\n",
            number = self.number,
            port = self.port,
            controller = self.controller,
            voters = voters.join(","),
            log = value(log),
        )
    }
}

/// A path as it stands in a file of properties.
pub(super) fn value(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\")
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
