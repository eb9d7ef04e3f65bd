//! What a broker says of itself while some of its servers are away, and how it begins then.

use super::nodes::{Node, until};
use ropeway_broker::{Admin, Health, Message, MessageBroker, RedisStreams, Target, Topic, TopicSpec};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Waits until it says that.
async fn says(broker: &RedisStreams, what: &str, so: impl Fn(&Health) -> bool) -> Health {
    let since = Instant::now();
    loop {
        let health = broker.health().await;
        if so(&health) {
            return health;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{what}: {health:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn a_cluster_of_which_a_node_is_away_works_in_part_and_says_which() {
    let mut nodes = Node::cluster(false, None);
    for node in &nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", nodes[1].port, nodes[2].port);
    let broker = RedisStreams::of_url(&url).await.unwrap();
    assert_eq!(broker.health().await, Health::Up);

    let mut away = nodes.remove(0);
    away.kill();
    let name = format!("127.0.0.1:{}", away.port);
    let degraded = says(&broker, "one is away", |health| matches!(health, Health::Degraded(_))).await;
    assert!(matches!(&degraded, Health::Degraded(why) if why.contains(&name)), "{degraded:?}");
    assert!(
        nodes.iter().all(|node| !format!("{degraded:?}").contains(&node.port.to_string())),
        "{degraded:?}"
    );

    // It can begin so too.
    let late = RedisStreams::of_url(&url).await.unwrap();
    let degraded = late.health().await;
    assert!(matches!(&degraded, Health::Degraded(why) if why.contains(&name)), "{degraded:?}");
    let here = |node: &Node| node.cli(&["CLUSTER", "SLOTS"]).contains(&away.port.to_string());
    assert!(nodes.iter().all(here), "nobody took its slots over");

    for node in &nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    }
    let down = says(&broker, "it is not whole", |health| matches!(health, Health::Down(_))).await;
    assert!(format!("{down:?}").contains(&name), "{down:?}");
    away.up();
    until("the cluster is whole", || away.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    says(&broker, "all are back", |health| *health == Health::Up).await;
}

/// A topic whose description does not lie on the first node, and which of its partitions do.
fn topic_beside(nodes: &[Node], partitions: u32) -> (Topic, Vec<u32>) {
    let on_first = |key: &str| nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).parse::<u32>().unwrap() < 5462;
    let name =
        (0..).map(|number| format!("t{number}")).find(|name| !on_first(&format!("ropeway:topic:{{{name}}}")));
    let name = name.unwrap();
    let away = (0..partitions).filter(|partition| on_first(&format!("ropeway:{{{name}/{partition}}}:log")));
    let away: Vec<u32> = away.collect();
    assert!(!away.is_empty() && away.len() < partitions as usize);
    (Topic::new(name).unwrap(), away)
}

async fn while_a_node_is_away_the_others_take_what_is_theirs_and_its_own_is_kept_until_its_deadline() {
    const PARTITIONS: u32 = 12;
    let mut nodes = Node::cluster(false, None);
    for node in &nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let (topic, away) = topic_beside(&nodes, PARTITIONS);
    let open = async |deadline: &str| {
        let url = format!("redis+cluster://127.0.0.1:{}?publish_deadline={deadline}", nodes[1].port);
        RedisStreams::of_url(&url).await.unwrap()
    };
    let (hasty, patient) = (open("6s").await, open("60s").await);
    hasty.create_topic(&topic, TopicSpec::partitions(PARTITIONS)).await.unwrap();
    let publish = |broker: &RedisStreams, partition: u32, number: u32| {
        let message = vec![Message::builder().payload(number.to_string()).build()];
        broker.publish(&Target { partition: Some(partition), ..topic.clone().into() }, message)
    };
    for partition in 0..PARTITIONS {
        for broker in [&hasty, &patient] {
            assert!(publish(broker, partition, 0).await.all_acked());
        }
    }
    nodes[0].kill();
    let began = Instant::now();
    let mut kept = Vec::new();
    for round in 1..4 {
        for broker in [&hasty, &patient] {
            kept.extend(
                away.iter().map(|partition| (*partition, tokio::spawn(publish(broker, *partition, round)))),
            );
            let others = (0..PARTITIONS).filter(|partition| !away.contains(partition));
            for told in
                futures::future::join_all(others.map(|partition| publish(broker, partition, round))).await
            {
                assert!(told.all_acked(), "{told:?}");
            }
        }
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "those of the others waited: {took:?}");
    assert!(kept.iter().all(|(_, task)| !task.is_finished()), "its own is kept");
    sleep(Duration::from_secs(6)).await;
    nodes[0].up();
    // First those of a round that had 6 s, then those that had 60.
    for (at, (partition, told)) in kept.into_iter().enumerate() {
        let told = timeout(Duration::from_secs(30), told).await.unwrap().unwrap();
        match at / away.len() % 2 {
            0 => assert!(
                !told.all_acked() && told.0[0].failed().unwrap().error.is_retryable(),
                "{partition}: {told:?}"
            ),
            _ => assert!(told.all_acked(), "{partition}: {told:?}"),
        }
    }
    for partition in away {
        let log = format!("ropeway:{{{topic}/{partition}}}:log");
        let entries = nodes[0].cli(&["XRANGE", &log, "-", "+"]);
        let lines: Vec<&str> = entries.lines().collect();
        let payloads = lines.windows(2).filter(|pair| pair[0] == "payload").map(|pair| pair[1]);
        assert_eq!(payloads.collect::<Vec<_>>(), ["0", "0", "1", "2", "3"], "{entries}");
    }
}

async fn a_cluster_that_is_not_whole_gives_publishes_back_at_their_deadline() {
    let mut nodes = Node::cluster(false, None);
    let (topic, away) = topic_beside(&nodes, 12);
    let url = format!("redis+cluster://127.0.0.1:{}?publish_deadline=2s", nodes[1].port);
    let broker = RedisStreams::of_url(&url).await.unwrap();
    broker.create_topic(&topic, TopicSpec::partitions(12)).await.unwrap();
    let mut told = Vec::new();
    nodes[0].kill();
    // It becomes so while they are on their way.
    for number in 0..400_u32 {
        let partition = Some(number % 12).filter(|partition| !away.contains(partition));
        let message = vec![Message::builder().payload(number.to_string()).build()];
        let to = Target { partition, ..topic.clone().into() };
        told.push(tokio::spawn(timeout(Duration::from_secs(20), broker.publish(&to, message))));
        sleep(Duration::from_millis(10)).await;
    }
    let mut refused = 0;
    for told in told {
        // Within its deadline, and what a busy machine adds.
        let told = told.await.unwrap().unwrap();
        refused += usize::from(told.0.iter().any(|told| {
            told.failed().is_some_and(|failed| failed.error.to_string().contains("CLUSTERDOWN"))
        }));
    }
    assert!(refused > 0, "it was whole");
}

async fn replicas_that_are_asked_for_and_away_are_told_with_their_number() {
    let primary = Node::start(None, &[]);
    let mut replica = primary.replica(None);
    until("it follows", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    let of = async |query: &str| {
        RedisStreams::of_url(&format!("redis://127.0.0.1:{}{query}", primary.port)).await.unwrap()
    };
    let (asks, does_not) = (of("?replicas=1").await, of("").await);
    assert_eq!((asks.health().await, does_not.health().await), (Health::Up, Health::Up));
    replica.kill();
    let degraded = says(&asks, "it is away", |health| matches!(health, Health::Degraded(_))).await;
    let told = format!("{degraded:?}");
    assert!(told.contains("0 of 1 replicas") && told.contains(&primary.port.to_string()), "{told}");
    assert_eq!(does_not.health().await, Health::Up);
    replica.up();
    says(&asks, "it is back", |health| *health == Health::Up).await;
    let of_replica = RedisStreams::of_url(&format!("redis://127.0.0.1:{}", replica.port)).await.unwrap();
    let told = of_replica.health().await;
    assert!(matches!(&told, Health::Degraded(why) if why.contains("takes no writes")), "{told:?}");
    primary.signal("STOP");
    let told = asks.health().await;
    primary.signal("CONT");
    assert!(matches!(&told, Health::Down(why) if why.contains(&primary.port.to_string())), "{told:?}");
}

super::async_tests! {
    a_cluster_of_which_a_node_is_away_works_in_part_and_says_which,
    while_a_node_is_away_the_others_take_what_is_theirs_and_its_own_is_kept_until_its_deadline,
    a_cluster_that_is_not_whole_gives_publishes_back_at_their_deadline,
    replicas_that_are_asked_for_and_away_are_told_with_their_number,
}
