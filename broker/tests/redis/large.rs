//! Large messages that are read, and many partitions: no more comes at once than there is room for, at the server as here, and all have their turn.
//!
//! Redis counts what a read brings in entries, not in bytes. Not here: how much is asked for (`turns.rs`, `pace.rs` of the backend), large messages that are published (`bulk.rs`).

use super::server::Server;
use ropeway_broker::{
    Admin, ConsumerExt, Event, Group, Message, MessageBroker, ReaderExt, RedisStreams, Start, Subscription,
    Target, Topic, TopicSpec,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::sleep;

/// How many messages are in how many partitions, and of how many bytes each.
const FEW: (usize, u32, usize) = (96, 4, 1 << 20);
/// One message of each would be 64 MiB.
const MANY: (usize, u32, usize) = (256, 128, 512 << 10);
/// What lies read ahead at the most, and as much again on its way, and something for the rest.
const MOST: u64 = 24 << 20;

struct Stage {
    messages: usize,
    bytes: usize,
    server: Server,
    broker: Arc<RedisStreams>,
    topic: Topic,
}

impl Stage {
    /// A server of its own that has the messages.
    async fn set((messages, partitions, bytes): (usize, u32, usize)) -> Self {
        let server = Server::own();
        let broker = RedisStreams::of_url(&format!("unix://{}", server.socket().display())).await.unwrap();
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(partitions)).await.unwrap();
        for number in 0..messages {
            let payload = vec![b'a'; bytes - 512];
            let message = Message::builder().payload(payload).build();
            let partition = u32::try_from(number).unwrap() % partitions;
            let to = Target { partition: Some(partition), ..topic.clone().into() };
            assert!(broker.publish(&to, vec![message]).await.all_acked());
        }
        Self { messages, bytes, server, broker, topic }
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
        assert_eq!(seen.len(), self.messages);
        let (sent, peak) = self.cost();
        let (sent, peak) = (sent - before.0, peak - before.1);
        let all = (self.messages * self.bytes) as u64;
        assert!(sent < all + all / 2, "{sent} bytes were sent, of {all} that lie there");
        assert!(peak < MOST, "the server needed {peak} bytes more");
    }
}

async fn member(of: (usize, u32, usize)) {
    let mut stage = Stage::set(of).await;
    let before = stage.cost();
    let subscription = Subscription {
        start: Start::Earliest,
        ..Subscription::new(Group::new("g").unwrap(), [stage.topic.clone()])
    };
    let mut member = stage.broker.subscribe(subscription).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < stage.messages {
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

async fn reader(of: (usize, u32, usize)) {
    let mut stage = Stage::set(of).await;
    let before = stage.cost();
    let mut reader = stage.broker.read().await.unwrap();
    reader.follow(&stage.topic, None, Start::Earliest).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < stage.messages {
        if let Event::Batch(batch) = reader.next().await.unwrap() {
            sleep(Duration::from_millis(5 * batch.deliveries.len() as u64)).await;
            let place = |at| format!("{} {at:?}", batch.of.partition);
            seen.extend(batch.deliveries.iter().map(|delivery| place(delivery.position)));
        }
    }
    stage.check(before, &seen);
}

async fn a_member_reads_what_it_has_room_for() {
    Box::pin(member(FEW)).await;
}

async fn a_member_of_many_partitions_reads_what_it_has_room_for() {
    Box::pin(member(MANY)).await;
}

async fn a_reader_reads_what_it_has_room_for() {
    Box::pin(reader(FEW)).await;
}

async fn a_reader_of_many_partitions_reads_what_it_has_room_for() {
    Box::pin(reader(MANY)).await;
}

/// More than there is room for messages of.
async fn a_reader_reads_all_partitions_in_turn_however_many_there_are() {
    const PARTITIONS: u32 = 1100;
    let server = Server::own();
    let broker = RedisStreams::of_url(&format!("unix://{}", server.socket().display())).await.unwrap();
    let topic = Topic::new("t").unwrap();
    broker.create_topic(&topic, TopicSpec::partitions(PARTITIONS)).await.unwrap();
    for partition in 0..PARTITIONS {
        let to = Target { partition: Some(partition), ..topic.clone().into() };
        let messages = (0..20).map(|_| Message::builder().payload("x").build()).collect();
        assert!(broker.publish(&to, messages).await.all_acked());
    }
    let mut reader = broker.read().await.unwrap();
    reader.follow(&topic, None, Start::Earliest).await.unwrap();
    let (mut seen, mut left) = (BTreeSet::new(), 8 * PARTITIONS as usize);
    while left > 0 && seen.len() < PARTITIONS as usize {
        if let Event::Batch(batch) = reader.next().await.unwrap() {
            seen.insert(batch.of.partition);
            left = left.saturating_sub(batch.deliveries.len());
        }
    }
    assert_eq!(seen.len(), PARTITIONS as usize, "some have to wait until others have no more");
}

super::async_tests! {
    a_member_reads_what_it_has_room_for,
    a_member_of_many_partitions_reads_what_it_has_room_for,
    a_reader_reads_what_it_has_room_for,
    a_reader_of_many_partitions_reads_what_it_has_room_for,
    a_reader_reads_all_partitions_in_turn_however_many_there_are,
}
