//! Large messages that are read: no more of them comes at once than there is room for, at the server as here.
//!
//! Redis counts what a read brings in entries, not in bytes. Not here: how much is asked for (`pace.rs` of the backend), large messages that are published (`bulk.rs`).

use super::server::Server;
use ropeway_broker::{
    Admin, ConsumerExt, Event, Group, Message, MessageBroker, ReaderExt, RedisStreams, Start, Subscription,
    Topic, TopicSpec,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::sleep;

const MESSAGES: usize = 96;
const BYTES: usize = 1 << 20;
/// What lies read ahead at the most, and as much again on its way, and something for the rest.
const MOST: u64 = 24 << 20;

struct Stage {
    server: Server,
    broker: Arc<RedisStreams>,
    topic: Topic,
}

impl Stage {
    /// A server of its own that has the messages in four partitions.
    async fn set() -> Self {
        let server = Server::own();
        let broker = RedisStreams::of_url(&format!("unix://{}", server.socket().display())).await.unwrap();
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(4)).await.unwrap();
        for number in 0..MESSAGES {
            let payload = vec![b'a'; BYTES - 512];
            let message = Message::builder().key(number.to_string()).payload(payload).build();
            assert!(broker.publish(&topic.clone().into(), vec![message]).await.all_acked());
        }
        Self { server, broker, topic }
    }

    /// A number that `INFO` tells.
    fn told(&mut self, name: &str) -> u64 {
        let text: String = self.server.ask("INFO");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().parse().unwrap()
    }

    /// What the server has sent so far, and the most memory that it had: bytes.
    fn cost(&mut self) -> (u64, u64) {
        (self.told("total_net_output_bytes"), self.told("used_memory_peak"))
    }

    /// Each message came once from the server, about, and few of them at once.
    fn check(&mut self, before: (u64, u64), seen: &BTreeSet<String>) {
        assert_eq!(seen.len(), MESSAGES);
        let (sent, peak) = self.cost();
        let (sent, peak) = (sent - before.0, peak - before.1);
        let all = (MESSAGES * BYTES) as u64;
        assert!(sent < all + all / 2, "{sent} bytes were sent, of {all} that lie there");
        assert!(peak < MOST, "the server needed {peak} bytes more");
    }
}

async fn a_member_reads_what_it_has_room_for() {
    let mut stage = Stage::set().await;
    let before = stage.cost();
    let subscription = Subscription {
        start: Start::Earliest,
        ..Subscription::new(Group::new("g").unwrap(), [stage.topic.clone()])
    };
    let mut member = stage.broker.subscribe(subscription).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < MESSAGES {
        if let Event::Batch(batch) = member.next().await.unwrap() {
            let positions: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
            // Slower than it is read.
            sleep(Duration::from_millis(5 * positions.len() as u64)).await;
            seen.extend(positions.iter().map(|at| format!("{} {at:?}", batch.of.partition)));
            _ = member.control().ack(&batch.of, &positions);
        }
    }
    stage.check(before, &seen);
}

async fn a_reader_reads_what_it_has_room_for() {
    let mut stage = Stage::set().await;
    let before = stage.cost();
    let mut reader = stage.broker.read().await.unwrap();
    reader.follow(&stage.topic, None, Start::Earliest).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < MESSAGES {
        if let Event::Batch(batch) = reader.next().await.unwrap() {
            sleep(Duration::from_millis(5 * batch.deliveries.len() as u64)).await;
            let place = |at| format!("{} {at:?}", batch.of.partition);
            seen.extend(batch.deliveries.iter().map(|delivery| place(delivery.position)));
        }
    }
    stage.check(before, &seen);
}

super::async_tests! {
    a_member_reads_what_it_has_room_for,
    a_reader_reads_what_it_has_room_for,
}
