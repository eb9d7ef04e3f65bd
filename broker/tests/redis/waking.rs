//! Ending the wait of a read: on the server that is read, and on no other.
//!
//! Not here: what a reader is told where another server took the place of one (`failover.rs`, `loss.rs`).

use super::nodes::Node;
use ropeway_broker::{Admin, MessageBroker, ReaderExt, RedisStreams, Start, Topic, TopicSpec};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often a server was asked to end a wait.
fn wakes(server: &Node) -> u64 {
    calls(&server.cli(&["INFO", "commandstats"]), "client|unblock")
}

/// How often a command was called, by what a server tells of them.
fn calls(told: &str, command: &str) -> u64 {
    let calls = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// The lines of our connections that read and wait, and those of the others.
fn connections(server: &Node) -> (Vec<String>, Vec<String>) {
    let told = server.cli(&["CLIENT", "LIST"]);
    let others = ["cmd=client|list", "name=sentinel", "flags=S"];
    let is_ours = |line: &&str| !others.iter().any(|other| line.contains(other));
    told.lines().filter(is_ours).map(str::to_owned).partition(|line| line.contains("flags=b"))
}

/// The number of the connection that waits is somebody else's on a server that took the place of the one that is read.
async fn a_wait_is_ended_on_the_server_that_is_read_and_on_no_other() {
    let first = Node::start(None, &[]);
    let second = first.replica(None);
    let sentinel = first.sentinel(&second, None);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let broker = RedisStreams::of_url(&url).await.unwrap();
    let [s, t, u] = ["s", "t", "u"].map(|topic| Topic::new(topic).unwrap());
    for topic in [&s, &t, &u] {
        broker.create_topic(topic, TopicSpec::partitions(1)).await.unwrap();
    }
    let mut reader = broker.read().await.unwrap();
    let waits = async || {
        while connections(&first).0.len() != 1 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    reader.follow(&s, None, Start::Latest).await.unwrap();
    while connections(&first).0.is_empty() {
        _ = timeout(Duration::from_millis(100), reader.next()).await;
    }
    waits().await;
    reader.follow(&t, None, Start::Latest).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while wakes(&first) == 0 {
        assert!(Instant::now() < end, "what is followed from now on is not read before the wait ends");
        sleep(Duration::from_millis(10)).await;
    }
    waits().await;
    for line in connections(&first).1 {
        let id = line.split(' ').next().unwrap().strip_prefix("id=").unwrap();
        first.cli(&["CLIENT", "KILL", "ID", id]);
    }
    while second.cli(&["EXISTS", "ropeway:topic:{u}"]) != "1" {
        sleep(Duration::from_millis(10)).await;
    }
    // The wait does not end by itself.
    first.signal("STOP");
    while !second.cli(&["ROLE"]).starts_with("master") {
        sleep(Duration::from_millis(10)).await;
    }
    timeout(Duration::from_secs(20), reader.follow(&u, None, Start::Latest)).await.unwrap().unwrap();
    sleep(Duration::from_millis(300)).await;
    let told = second.cli(&["INFO", "commandstats"]);
    // Where all of this took long the reader may have gone there by itself.
    assert!(calls(&told, "client|unblock") == 0 || calls(&told, "xread") > 0, "{told}");
}

super::async_tests! {
    a_wait_is_ended_on_the_server_that_is_read_and_on_no_other,
}
