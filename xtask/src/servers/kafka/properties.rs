//! The file of properties of a node of Kafka, as tests want it.
//!
//! Pure, and without anything else of this crate: drills (`tests/faults/drill/kafka/nodes.rs`) compile it by its path for nodes of their own. Not here: who starts them
//! (`node.rs`).

use std::path::Path;

/// What is not the same for all nodes of tests.
#[derive(Debug)]
pub(crate) struct Properties<'a> {
    /// From 1 on.
    pub(crate) number: usize,
    /// Numbers of all nodes, and the ports of their controllers on this machine.
    pub(crate) voters: &'a [(usize, u16)],
    /// Where it listens for others than controllers: `NAME://HOST:PORT`, with commas between.
    pub(crate) listeners: &'a str,
    /// Lines that say what these names mean.
    pub(crate) meaning: &'a str,
    /// The folder of its log.
    pub(crate) log: &'a Path,
    /// How often a node says that it is there, and after which silence it counts as gone, in milliseconds.
    pub(crate) heartbeat: (u32, u32),
}

impl Properties<'_> {
    /// Nothing waits, groups notice quickly who is gone, no topic appears by itself. With three nodes each topic is on all of them, and acked when it is on
    /// two.
    pub(crate) fn text(&self) -> String {
        let voter = |(number, port): &(usize, u16)| format!("{number}@127.0.0.1:{port}");
        let voters: Vec<String> = self.voters.iter().map(voter).collect();
        let own = self.voters.iter().find(|(number, _)| *number == self.number);
        let (copies, in_sync) = (voters.len(), voters.len().min(2));
        format!(
            "process.roles=broker,controller\n\
             node.id={number}\n\
             controller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\n\
             listeners={listeners},CONTROLLER://127.0.0.1:{controller}\n\
             {meaning}\
             log.dirs={log}\n\
             log.cleaner.dedupe.buffer.size=4194304\n\
             log.retention.check.interval.ms=5000\n\
             num.partitions=1\n\
             default.replication.factor={copies}\n\
             min.insync.replicas={in_sync}\n\
             auto.create.topics.enable=false\n\
             broker.heartbeat.interval.ms={heartbeat}\n\
             broker.session.timeout.ms={silence}\n\
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
            voters = voters.join(","),
            listeners = self.listeners,
            controller = own.map_or(0, |(_, port)| *port),
            meaning = self.meaning,
            log = value(self.log),
            heartbeat = self.heartbeat.0,
            silence = self.heartbeat.1,
        )
    }
}

/// A path as it stands in a file of properties.
pub(crate) fn value(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\")
}
