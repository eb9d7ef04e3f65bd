//! A cluster of which one node is silent, or dead, for a while: what lies on the others goes on, and what lies there goes on when it is back.
//!
//! Not here: nodes that are replaced (`slots.rs`), what is said of such a cluster (`health.rs`).

use super::nodes::{Node, until};
use ropeway_broker::{
    Admin, Consumer, ConsumerExt, Event, Group, Message, MessageBroker, Owned, Position, Published,
    RedisStreams, Start, Subscription, Target, Timestamp, Topic, TopicSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// The longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(40);
/// How many partitions the topic has.
const PARTITIONS: u32 = 12;
/// After which time the first delayed message is due.
const FIRST: Duration = Duration::from_secs(3);
/// What goes on is not later than this, but for once.
const SOON: Duration = Duration::from_secs(2);
/// How long a node is waited for before it counts as away, and as much again for a busy machine.
const ONCE: Duration = Duration::from_secs(15);

/// A cluster, and names of which all that is shared lies on other nodes than the one that goes away.
struct Stage {
    nodes: Vec<Node>,
    /// Which goes away.
    away: usize,
    topic: Topic,
    group: Group,
}

impl Stage {
    fn set() -> Self {
        let nodes = Node::cluster(false, None);
        for node in &nodes {
            assert_eq!(node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "OK");
        }
        let mut stage =
            Self { nodes, away: 0, topic: Topic::new("t").unwrap(), group: Group::new("g").unwrap() };
        let lists = ["ropeway:topics", "ropeway:groups"].map(|key| stage.node_of(key));
        stage.away = (0..3).find(|at| !lists.contains(at)).unwrap();
        stage.topic = stage.topic_at("t", |at| at != stage.away);
        let names = (0..).map(|n| format!("g{n}"));
        let node = |name: &String| stage.node_of(&format!("ropeway:{{group/{name}}}:owners"));
        let mut groups = names.filter(|name| node(name) != stage.away);
        stage.group = Group::new(groups.next().unwrap()).unwrap();
        stage
    }

    /// Which node has a key.
    fn node_of(&self, key: &str) -> usize {
        // The other one would not answer.
        let slot = self.nodes[(self.away + 1) % 3].cli(&["CLUSTER", "KEYSLOT", key]);
        slot.parse::<usize>().unwrap() / 5462
    }

    /// A topic whose description lies on such a node.
    fn topic_at(&self, stem: &str, wanted: impl Fn(usize) -> bool) -> Topic {
        let mut names = (0..).map(|n| format!("{stem}{n}"));
        Topic::new(names.find(|name| wanted(self.node_of(&format!("ropeway:topic:{{{name}}}")))).unwrap())
            .unwrap()
    }

    fn node_of_partition(&self, topic: &Topic, partition: u32) -> usize {
        self.node_of(&format!("ropeway:{{{topic}/{partition}}}:log"))
    }

    /// The partitions that are on other nodes, and those that are not.
    fn here_and_away(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        (0..PARTITIONS).partition(|partition| self.node_of_partition(&self.topic, *partition) != self.away)
    }

    async fn open(&self) -> Arc<RedisStreams> {
        let seeds: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let url = format!("redis+cluster://{}?lease=5s&publish_deadline=20s", seeds.join(","));
        RedisStreams::of_url(&url).await.unwrap()
    }

    async fn join(&self, broker: &RedisStreams, topics: &[&Topic]) -> Box<dyn Consumer> {
        let topics = topics.iter().copied().cloned();
        let start = Start::Earliest;
        broker
            .subscribe(Subscription { start, ..Subscription::new(self.group.clone(), topics) })
            .await
            .unwrap()
    }

    fn goes_away(&mut self, killed: bool) {
        if killed {
            self.nodes[self.away].kill();
        } else {
            self.nodes[self.away].signal("STOP");
        }
    }

    fn comes_back(&mut self, killed: bool) {
        if killed {
            self.nodes[self.away].up();
        } else {
            self.nodes[self.away].signal("CONT");
        }
        let nodes = &self.nodes;
        until("the cluster is whole", || {
            nodes.iter().all(|node| node.cli(&["CLUSTER", "INFO"]).contains("cluster_slots_ok:16384"))
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // One that is stopped does not end.
        if !std::thread::panicking() {
            return;
        }
        self.nodes[self.away].kill();
    }
}

async fn put(broker: &RedisStreams, topic: &Topic, partition: u32, numbers: impl Iterator<Item = u32>) {
    let batch = numbers.map(|number| Message::builder().payload(number.to_string()).build()).collect();
    let to = Target { partition: Some(partition), ..topic.clone().into() };
    let told = broker.publish(&to, batch).await.0;
    assert!(told.iter().all(|told| matches!(told, Published::Acked { .. })), "{told:?}");
}

/// Takes events until that is enough.
async fn events(consumer: &mut Box<dyn Consumer>, mut enough: impl FnMut(Event) -> ControlFlow<()>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let event = timeout_at(end, consumer.next()).await.unwrap().unwrap();
        if enough(event).is_break() {
            return;
        }
    }
}

/// All that is owned, once it is these partitions at least; what comes is left alone.
async fn owned(consumer: &mut Box<dyn Consumer>, wanted: &BTreeSet<u32>) -> BTreeMap<u32, Owned> {
    let mut owned = BTreeMap::new();
    events(consumer, |event| {
        match event {
            Event::Assigned(list) => owned.extend(list.into_iter().map(|a| (a.of.partition, a.of))),
            Event::Gone(of, _) => _ = owned.remove(&of.partition),
            _ => {}
        }
        let all = wanted.iter().all(|partition| owned.contains_key(partition));
        if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await;
    owned
}

async fn acks_of_other_nodes_are_stored_in_time_while_one_is_away(killed: bool) {
    let mut stage = Stage::set();
    let broker = stage.open().await;
    broker.create_topic(&stage.topic, TopicSpec::partitions(PARTITIONS)).await.unwrap();
    let (here, away) = stage.here_and_away();
    for partition in 0..PARTITIONS {
        put(&broker, &stage.topic, partition, 0..20).await;
    }
    let mut consumer = stage.join(&broker, &[&stage.topic]).await;
    let mut came: BTreeMap<u32, (Owned, Vec<Position>)> = BTreeMap::new();
    events(&mut consumer, |event| {
        if let Event::Batch(batch) = event {
            let of = came.entry(batch.of.partition).or_insert((batch.of, Vec::new()));
            of.1.extend(batch.deliveries.iter().map(|delivery| delivery.position));
        }
        let all = came.len() == PARTITIONS as usize && came.values().all(|(_, of)| of.len() == 20);
        if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await;
    let control = consumer.control();
    stage.goes_away(killed);
    let mut late = Vec::new();
    for at in 0..20 {
        for (of, positions) in came.values() {
            control.ack(of, &positions[at..=at]).unwrap();
        }
        let began = Instant::now();
        let failed: BTreeSet<u32> = control.flush().await.iter().map(|(of, _)| of.partition).collect();
        late.push(began.elapsed());
        assert!(failed.is_subset(&away), "{failed:?} of {away:?}, here are {here:?}");
        sleep(Duration::from_millis(50)).await;
    }
    late.sort();
    // Where each waited, none would be soon.
    assert!(late[15] < SOON && late[19] < ONCE, "{late:?}");
    // What was told stored is.
    let stored = |stage: &Stage, partition: u32| {
        let key = format!("ropeway:{{{}/{partition}}}:group:{}", stage.topic, stage.group);
        stage.nodes[stage.node_of(&key)].cli(&["HGET", &key, "position"])
    };
    for partition in &here {
        let last = came[partition].1[19];
        assert_eq!(stored(&stage, *partition), last.next().to_string(), "{partition}");
    }
    stage.comes_back(killed);
    let end = Instant::now() + PATIENCE;
    while !control.flush().await.is_empty() {
        assert!(Instant::now() < end, "it is stored when the node is back");
        sleep(Duration::from_millis(100)).await;
    }
    for partition in &away {
        assert_eq!(stored(&stage, *partition), came[partition].1[19].next().to_string(), "{partition}");
    }
}

async fn partitions_of_other_nodes_are_taken_over_while_one_is_away(killed: bool) {
    let mut stage = Stage::set();
    let broker = stage.open().await;
    broker.create_topic(&stage.topic, TopicSpec::partitions(PARTITIONS)).await.unwrap();
    let all = (0..PARTITIONS).collect();
    let (here, _) = stage.here_and_away();
    let mut first = stage.join(&broker, &[&stage.topic]).await;
    owned(&mut first, &all).await;
    stage.goes_away(killed);
    let other = stage.open().await;
    drop(first);
    let mut second = stage.join(&other, &[&stage.topic]).await;
    let mine = owned(&mut second, &here).await;
    // It works, and the lease holds.
    for partition in &here {
        put(&other, &stage.topic, *partition, 0..3).await;
    }
    let (mut left, control) = (here.len() * 3, second.control());
    events(&mut second, |event| {
        match event {
            Event::Batch(batch) => {
                let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
                control.ack(&batch.of, &done).unwrap();
                left -= done.len();
            }
            Event::Gone(of, why) => panic!("{of:?} {why:?}"),
            _ => {}
        }
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await;
    sleep(Duration::from_secs(6)).await;
    assert!(control.flush().await.is_empty());
    assert!(mine.values().all(|of| control.ack(of, &[]).is_ok()), "for longer than a lease");
    stage.comes_back(killed);
    let missing = (0..PARTITIONS).filter(|partition| !mine.contains_key(partition)).collect();
    owned(&mut second, &missing).await;
}

async fn a_group_goes_on_whose_other_topic_cannot_be_described() {
    let mut stage = Stage::set();
    let broker = stage.open().await;
    let strange = stage.topic_at("s", |at| at == stage.away);
    broker.create_topic(&stage.topic, TopicSpec::partitions(PARTITIONS)).await.unwrap();
    broker.create_topic(&strange, TopicSpec::partitions(2)).await.unwrap();
    let (here, _) = stage.here_and_away();
    // Where the group begins in a topic is stored by who joins first, and asks all of it.
    drop(stage.join(&broker, &[&stage.topic]).await);
    let mut other = stage.join(&broker, &[&strange]).await;
    owned(&mut other, &(0..2).collect()).await;
    // Who joins after that never knew how many partitions the other one has.
    let late = stage.open().await;
    stage.goes_away(false);
    let mut consumer = stage.join(&late, &[&stage.topic]).await;
    let mine = owned(&mut consumer, &here).await;
    sleep(Duration::from_secs(6)).await;
    let control = consumer.control();
    assert!(here.iter().all(|partition| control.ack(&mine[partition], &[]).is_ok()));
    put(&late, &stage.topic, *here.first().unwrap(), 0..1).await;
    let batch =
        |event| if let Event::Batch(_) = event { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    events(&mut consumer, batch).await;
    stage.comes_back(false);
}

async fn delayed_messages_of_other_nodes_come_in_time_while_one_is_away(killed: bool) {
    let mut stage = Stage::set();
    let broker = stage.open().await;
    let is_here = |topic: &Topic| stage.node_of_partition(topic, 0) != stage.away;
    let mut here = (0..).map(|n| stage.topic_at(&format!("h{n}-"), |at| at != stage.away));
    let here = here.find(is_here).unwrap();
    // One whose description is away, and one of which only partitions are.
    let away = stage.topic_at("a", |at| at == stage.away);
    for (topic, partitions) in [(&here, 1), (&away, 1), (&stage.topic, PARTITIONS)] {
        broker.create_topic(topic, TopicSpec::partitions(partitions)).await.unwrap();
    }
    let log = format!("ropeway:{{{here}/0}}:log");
    let node = stage.node_of(&log);
    let now = Timestamp::now;
    let later = async |topic: &Topic, partition: u32, due: Timestamp| {
        let message = Message::builder().payload("x").deliver_at(due).build();
        let to = Target { partition: Some(partition), ..topic.clone().into() };
        let told = broker.publish(&to, vec![message]).await.0.pop().unwrap();
        assert!(matches!(told, Published::Acked { .. }), "{told:?}");
    };
    let begin = now() + FIRST;
    let due: Vec<Timestamp> = (0..40).map(|at| begin + Duration::from_millis(at * 400)).collect();
    let hour = begin + Duration::from_secs(3600);
    later(&away, 0, hour).await;
    for partition in 0..PARTITIONS {
        later(&stage.topic, partition, hour).await;
    }
    for due in &due {
        later(&here, 0, *due).await;
    }
    assert!(now() < begin, "all are delayed");
    stage.goes_away(killed);
    let (mut late, end) = (Vec::new(), Instant::now() + PATIENCE);
    while late.len() < due.len() {
        assert!(Instant::now() < end, "{late:?}");
        let there: usize = stage.nodes[node].cli(&["XLEN", &log]).parse().unwrap();
        let now = now();
        while late.len() < there {
            late.push(now.since(due[late.len()]));
        }
        sleep(Duration::from_millis(10)).await;
    }
    // Where the one that is away was waited for, none would be soon. They are due over a longer time than it is waited for once.
    assert!(late[due.len() - 1] < SOON, "{late:?}");
    late.sort();
    assert!(late[due.len() / 2] < SOON && late[due.len() - 1] < ONCE, "{late:?}");
}

async fn acks_of_other_nodes_are_stored_in_time_while_one_is_silent() {
    acks_of_other_nodes_are_stored_in_time_while_one_is_away(false).await;
}

async fn acks_of_other_nodes_are_stored_in_time_while_one_is_dead() {
    acks_of_other_nodes_are_stored_in_time_while_one_is_away(true).await;
}

async fn partitions_of_other_nodes_are_taken_over_while_one_is_silent() {
    partitions_of_other_nodes_are_taken_over_while_one_is_away(false).await;
}

async fn partitions_of_other_nodes_are_taken_over_while_one_is_dead() {
    partitions_of_other_nodes_are_taken_over_while_one_is_away(true).await;
}

async fn delayed_messages_of_other_nodes_come_in_time_while_one_is_silent() {
    delayed_messages_of_other_nodes_come_in_time_while_one_is_away(false).await;
}

async fn delayed_messages_of_other_nodes_come_in_time_while_one_is_dead() {
    delayed_messages_of_other_nodes_come_in_time_while_one_is_away(true).await;
}

super::async_tests! {
    acks_of_other_nodes_are_stored_in_time_while_one_is_silent,
    acks_of_other_nodes_are_stored_in_time_while_one_is_dead,
    partitions_of_other_nodes_are_taken_over_while_one_is_silent,
    partitions_of_other_nodes_are_taken_over_while_one_is_dead,
    a_group_goes_on_whose_other_topic_cannot_be_described,
    delayed_messages_of_other_nodes_come_in_time_while_one_is_silent,
    delayed_messages_of_other_nodes_come_in_time_while_one_is_dead,
}
