//! A cluster whose slots move, and whose primaries are replaced, while it is published to and consumed: nothing is lost, and order holds.

use super::{
    failover::{has, in_order, number, taken, taken_with},
    nodes::{Node, until},
};
use ropeway_broker::{
    Admin, Consumer, Durability, Event, GapReason, GoneReason, Group, Health, Message, MessageBroker,
    Published, Reader, ReaderExt, RedisStreams, Start, Subscription, Target, Topic, TopicSpec,
};
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    ops::Range,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    nodes: Vec<Node>,
    broker: Arc<RedisStreams>,
    topic: Topic,
}

impl Stage {
    async fn set(replicas: bool) -> Self {
        let nodes = Node::cluster(replicas, None);
        let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}?lease=5s", nodes[0].port, nodes[1].port);
        let broker = RedisStreams::of_url(&url).await.unwrap();
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(6)).await.unwrap();
        Self { nodes, broker, topic }
    }

    async fn join(&self) -> Box<dyn Consumer> {
        let subscription = Subscription {
            start: Start::Earliest,
            ..Subscription::new(Group::new("g").unwrap(), [self.topic.clone()])
        };
        self.broker.subscribe(subscription).await.unwrap()
    }

    async fn publish(&self, number: u32) -> Published {
        let message = Message::builder().key((number % 5).to_string()).payload(number.to_string()).build();
        self.broker.publish(&self.topic.clone().into(), vec![message]).await.0.pop().unwrap()
    }

    /// Publishes these into one partition; all are acked. The position of the last.
    async fn put(&self, partition: u32, numbers: Range<u32>) -> u64 {
        let batch = numbers.map(|number| Message::builder().payload(number.to_string()).build()).collect();
        let to = Target { partition: Some(partition), ..self.topic.clone().into() };
        let outcomes = self.broker.publish(&to, batch).await.0;
        let position = |told: &Published| match told {
            Published::Acked { position, .. } => *position,
            other => panic!("{other:?}"),
        };
        outcomes.iter().map(position).next_back().flatten().unwrap().0
    }

    /// A partition of the first node, and one of another.
    fn here_and_there(&self) -> (u32, u32) {
        let slot = |partition: &u32| {
            let slot = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", &format!("x{{t/{partition}}}")]);
            slot.parse::<u32>().unwrap()
        };
        let find = |here: bool| (0..6).find(|partition| (slot(partition) < 5462) == here);
        (find(true).unwrap(), find(false).unwrap())
    }

    /// Moves the slot of a key to the next node, as `redis-cli --cluster reshard` does, with pauses in which it is on both.
    async fn move_slot(&self, key: &str) {
        let slot = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]);
        let mine = |node: &Node| !node.cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).starts_with('0');
        let from = (0..3).find(|at| mine(&self.nodes[*at])).unwrap();
        let to = (from + 1) % 3;
        let id = |at: usize| self.nodes[at].cli(&["CLUSTER", "MYID"]);
        assert_eq!(self.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]), "OK");
        assert_eq!(self.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]), "OK");
        sleep(Duration::from_millis(30)).await;
        loop {
            let keys = self.nodes[from].cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            if keys.is_empty() {
                break;
            }
            let port = self.nodes[to].port.to_string();
            self.nodes[from].cli(&["MIGRATE", "127.0.0.1", &port, &keys, "0", "5000"]);
            sleep(Duration::from_millis(30)).await;
        }
        for at in [to, from, (to + 1) % 3] {
            assert_eq!(self.nodes[at].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]), "OK");
        }
    }
}

async fn slots_that_move_lose_nothing_and_keep_the_order() {
    let stage = Arc::new(Stage::set(false).await);
    let mut consumer = stage.join().await;
    let mut reader = stage.broker.read().await.unwrap();
    reader.follow(&stage.topic, None, Start::Earliest).await.unwrap();
    let publishing = Arc::clone(&stage);
    let publishing = tokio::spawn(async move {
        let mut number = 0;
        let mut failed = Vec::new();
        while number < 1500 {
            let sent = (number..number + 10).map(|number| publishing.publish(number));
            let told = futures::future::join_all(sent).await;
            failed.extend(told.into_iter().filter(|told| !matches!(told, Published::Acked { .. })));
            number += 10;
            sleep(Duration::from_millis(10)).await;
        }
        failed
    });
    let moving = Arc::clone(&stage);
    let moving = tokio::spawn(async move {
        for key in
            ["x{t/0}", "x{group/g}", "x{t/1}", "x{t/2}", "x{t}", "x{t/0}", "x{t/3}", "x{t/4}", "x{t/5}"]
        {
            moving.move_slot(key).await;
            sleep(Duration::from_millis(50)).await;
        }
    });
    let (early, _) = taken(&mut consumer, Duration::from_secs(3)).await;
    moving.await.unwrap();
    let failed = publishing.await.unwrap();
    let all = |late: &[u32], _: &[Event]| early.iter().chain(late).collect::<BTreeSet<_>>().len() == 1500;
    let (late, others) = taken_with(&mut consumer, Duration::from_secs(3), all).await;
    assert!(failed.is_empty(), "{} were not acked, such as {:?}", failed.len(), failed.first());
    let all: Vec<u32> = early.into_iter().chain(late).collect();
    assert_eq!(all.iter().copied().collect::<BTreeSet<_>>().len(), 1500, "{others:?}");
    assert!(in_order(&all));
    let mut read = Vec::new();
    let quiet = |read: &[u32]| if read.len() < 1500 { PATIENCE } else { Duration::from_secs(3) };
    while let Ok(event) = timeout(quiet(&read), reader.next()).await {
        match event.unwrap() {
            Event::Batch(batch) => {
                read.extend(batch.deliveries.iter().map(|delivery| number(&delivery.message)))
            }
            Event::Gap { why, .. } => panic!("{why:?}"),
            _ => {}
        }
    }
    assert_eq!(read.len(), 1500, "each once");
    assert!(in_order(&read));
}

async fn a_node_that_dies_is_replaced_and_everybody_goes_on() {
    let mut stage = Stage::set(true).await;
    assert!(matches!(stage.broker.health().await, Health::Up));
    let mut consumer = stage.join().await;
    for number in 0..100 {
        let target = Target { at_least: Some(Durability::Replicated), ..stage.topic.clone().into() };
        let message = Message::builder().key((number % 5).to_string()).payload(number.to_string()).build();
        let told = stage.broker.publish(&target, vec![message]).await.0.pop().unwrap();
        assert!(matches!(told, Published::Acked { durability: Durability::Replicated, .. }), "{told:?}");
    }
    let (early, _) = taken_with(&mut consumer, Duration::from_secs(1), |all, _| has(all, 0..100)).await;
    stage.nodes[0].kill();
    let sent = (100..200).map(|number| stage.publish(number));
    let told = futures::future::join_all(sent).await;
    assert!(told.iter().all(|told| matches!(told, Published::Acked { .. })), "{told:?}");
    until("the replica is the primary", || stage.nodes[3].cli(&["ROLE"]).starts_with("master"));
    let (late, _) = taken_with(&mut consumer, Duration::from_secs(1), |all, _| has(all, 100..200)).await;
    let all: Vec<u32> = early.into_iter().chain(late).collect();
    assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), (0..200).collect(), "nothing is lost");
    assert!(in_order(&all), "{all:?}");
}

/// What a reader is told until nothing came for so long: numbers, and of which partitions that their ends are lost.
async fn read(reader: &mut Box<dyn Reader>, quiet: Duration) -> (Vec<u32>, BTreeSet<u32>) {
    let (mut numbers, mut truncated) = (Vec::new(), BTreeSet::new());
    while let Ok(event) = timeout(quiet, reader.next()).await {
        match event.unwrap() {
            Event::Batch(batch) => {
                numbers.extend(batch.deliveries.iter().map(|delivery| number(&delivery.message)));
            }
            Event::Gap { of, why: GapReason::Truncated, .. } => _ = truncated.insert(of.partition),
            _ => {}
        }
    }
    (numbers, truncated)
}

async fn what_only_a_promoted_replica_has_is_not_passed_over_and_what_it_lacks_is_told() {
    let mut stage = Stage::set(true).await;
    let (here, there) = stage.here_and_there();
    // Nobody believes who takes the place of a primary without asking, where that has the latest epoch of all: then the epoch stays as it is.
    let bumped = stage.nodes[1].cli(&["CLUSTER", "BUMPEPOCH"]);
    let epoch = format!("cluster_current_epoch:{}", bumped.split(' ').next_back().unwrap());
    until("the replica knows the epoch", || stage.nodes[3].cli(&["CLUSTER", "INFO"]).contains(&epoch));
    let mut consumer = stage.join().await;
    let mut reader = stage.broker.read().await.unwrap();
    reader.follow(&stage.topic, None, Start::Earliest).await.unwrap();
    let last = stage.put(here, 0..5).await;
    stage.put(there, 50..55).await;
    let (early, _) = taken_with(&mut consumer, Duration::from_secs(1), |all, _| all.len() >= 10).await;
    assert_eq!(early.len(), 10, "{early:?}");
    assert!(consumer.control().flush().await.is_empty());
    let offset = |node: &Node| {
        let told = node.cli(&["INFO", "replication"]);
        told.lines().find_map(|line| line.trim().strip_prefix("master_repl_offset:").map(str::to_owned))
    };
    until("the replica has it", || offset(&stage.nodes[0]) == offset(&stage.nodes[3]));

    // From here on it gets nothing more, and the primary takes ten.
    assert_eq!(stage.nodes[3].cli(&["CONFIG", "SET", "masterauth", "none-is-asked-for"]), "OK");
    assert_eq!(stage.nodes[0].cli(&["CLIENT", "KILL", "TYPE", "replica"]), "1");
    stage.put(here, 10..20).await;
    let (old, _) = taken_with(&mut consumer, Duration::from_secs(1), |all, _| has(all, 10..20)).await;
    assert_eq!(old, (10..20).collect::<Vec<_>>());
    assert!(consumer.control().flush().await.is_empty());
    let (mut seen, end) = (0, Instant::now() + PATIENCE);
    while seen < 20 && Instant::now() < end {
        let (more, none) = read(&mut reader, Duration::from_secs(1)).await;
        assert_eq!(none.len(), 0);
        seen += more.len();
    }
    assert_eq!(seen, 20);

    // It takes the place of the primary, and ten others at once, all but one of them at earlier positions: no count tells.
    stage.nodes[0].kill();
    let log = format!("ropeway:{{t/{here}}}:log");
    let place = |number: u32| if number < 109 { format!("{}-{number}", last + 1) } else { "*".to_owned() };
    let add = |number: u32| format!("XADD {log} {} payload {number}\r\n", place(number));
    let all: String = (100..110).map(add).collect();
    let mut replica = TcpStream::connect(("127.0.0.1", stage.nodes[3].port)).unwrap();
    replica.write_all(format!("CLUSTER FAILOVER TAKEOVER\r\n{all}").as_bytes()).unwrap();
    let mut answer = [0; 6];
    replica.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"+OK\r\n$", "{}", String::from_utf8_lossy(&answer));

    let (mut late, mut others) = (Vec::new(), Vec::new());
    let end = Instant::now() + PATIENCE;
    while !late.contains(&109) && Instant::now() < end {
        let (numbers, told) = taken(&mut consumer, Duration::from_secs(1)).await;
        late.extend(numbers);
        others.extend(told);
    }
    assert_eq!(late, (100..110).collect::<Vec<_>>(), "{others:?}");
    let lost = |event: &Event| match event {
        Event::Gone(of, GoneReason::Lost) => Some(of.partition),
        _ => None,
    };
    let lost: BTreeSet<u32> = others.iter().filter_map(lost).collect();
    assert!(lost.contains(&here) && !lost.contains(&there), "only what was there is lost: {others:?}");
    let mut truncated = BTreeSet::new();
    while !truncated.contains(&here) && Instant::now() < end {
        truncated.extend(read(&mut reader, Duration::from_secs(1)).await.1);
    }
    assert!(truncated.contains(&here) && !truncated.contains(&there), "{truncated:?}");
}

super::async_tests! {
    what_only_a_promoted_replica_has_is_not_passed_over_and_what_it_lacks_is_told,
    slots_that_move_lose_nothing_and_keep_the_order,
    a_node_that_dies_is_replaced_and_everybody_goes_on,
}
