//! What a broker says of itself while some of its servers are away, and how it begins then.

use super::nodes::{Node, until};
use ropeway_broker::{Health, MessageBroker, RedisStreams};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Waits until it says that.
async fn says(broker: &RedisStreams, what: &str, so: impl Fn(&Health) -> bool) -> Health {
    let since = Instant::now();
    loop {
        let health = broker.health().await;
        if so(&health) {
            return health;
        }
        assert!(since.elapsed() < Duration::from_secs(90), "{what}: {health:?}");
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
        // A node looks whether the cluster is whole only when something changes, and it may have given up the other one before.
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", "0", "STABLE"]), "OK");
    }
    let down = says(&broker, "it is not whole", |health| matches!(health, Health::Down(_))).await;
    assert!(format!("{down:?}").contains(&name), "{down:?}");
    away.up();
    until("the cluster is whole", || away.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    says(&broker, "all are back", |health| *health == Health::Up).await;
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
    replicas_that_are_asked_for_and_away_are_told_with_their_number,
}
