//! Doubles that are wrong in one way, and the checks that see each of them: on a real server, with something of a script replaced.
//!
//! Commits of former owners and epochs that come again: `group_scripts.rs`. Forwards: `forward_script.rs`. Not here: doubles for the checks
//! of all backends (`tests/conformance/doubles`).

use super::server::{Server, script};
use redis::Value;
use ropeway_broker::{
    Admin, ConsumerExt, Event, Group, Message, MessageBroker, RedisStreams, RedisStreamsSettings,
    Subscription, Target, Topic, TopicSpec,
};
use ropeway_store::redis::RedisSettings;
use std::time::Duration;
use tokio::time::timeout;

/// A script with something of it replaced.
fn broken(name: &str, good: &str, bad: &str) -> String {
    assert!(script(name).contains(good), "{name}: {good:?} is not in it");
    script(name).replace(good, bad)
}

/// Log and part of a partition with six messages.
fn six(server: &mut Server) -> [String; 2] {
    let keys = ["log", "part"].map(|name| format!("{{{}}}:{name}", server.prefix));
    server.run("partition_make", &[&keys[0], &keys[1]], &["5000"]);
    for seq in 1..=6 {
        server.ask::<String>(&format!("XADD {} 5000-{seq} payload x", keys[0]));
    }
    keys
}

/// Whether nothing is removed that a live group has not finished.
fn spares_live_groups(trim: &str) -> bool {
    let mut server = Server::get();
    let [log, part] = six(&mut server);
    let group = format!("{{{}}}:group:g", server.prefix);
    server.ask::<i64>(&format!("HSET {group} life 5000 position 5000-3"));
    server.run_text(trim, &[&log, &part, &group], &["5000", "5000-5", "1000", "g"]);
    server.ask::<i64>(&format!("XLEN {log}")) == 4
}

/// Whether what is removed is written down, so that whoever had not seen it is told.
fn tells_what_it_removes(purge: &str) -> bool {
    let mut server = Server::get();
    let [log, part] = six(&mut server);
    server.run_text(purge, &[&log, &part], &["5000", "5000-4"]);
    server.ask::<i64>(&format!("XLEN {log}")) == 3
        && server.hash(&part, "removed").as_deref() == Some("5000-3")
}

/// Whether nothing is moved to the log before it is due.
fn moves_nothing_early(release_due: &str) -> bool {
    let mut server = Server::get();
    let [log, part] = six(&mut server);
    let [delayed, held] = ["delayed", "held"].map(|name| format!("{{{}}}:{name}", server.prefix));
    let keys = [&log[..], &part, &delayed, &held];
    server.run("hold", &keys, &["5000", "0123456789abcdef", "9000000000000", "\0\0\0\u{1}a\0\0\0\u{1}b"]);
    server.run_text(release_due, &keys, &["5000", "9"]);
    server.ask::<i64>(&format!("XLEN {log}")) == 6
}

async fn a_double_that_trims_past_a_live_group_is_seen() {
    assert!(spares_live_groups(script("partition_trim")));
    assert!(!spares_live_groups(&broken("partition_trim", "before(has[2], upto)", "false")));
}

async fn a_double_that_removes_silently_is_seen() {
    for name in ["partition_purge", "partition_trim"] {
        assert!(tells_what_it_removes(script(name)), "{name}");
        assert!(
            !tells_what_it_removes(&broken(name, "redis.call('HSET', part, 'removed', last)", "")),
            "{name}"
        );
    }
}

async fn a_double_that_delivers_early_is_seen() {
    assert!(moves_nothing_early(script("release_due")));
    assert!(!moves_nothing_early(&broken("release_due", "'-inf', now, 'LIMIT'", "'-inf', '+inf', 'LIMIT'")));
}

/// Whether what was read of the log by members of `g` left no trace on the server: nobody has anything that another would miss.
fn left_no_trace(server: &mut Server, log: &str) -> bool {
    let groups = Server::flat(&server.ask::<Value>(&format!("XINFO GROUPS {log}")));
    let told = |name: &str| groups.iter().position(|word| word == name).map(|at| groups[at + 1].clone());
    // The mirror stands before the first message, where the position is.
    let before = told("last-delivered-id").is_some_and(|last| {
        let first: Vec<(String, Vec<Vec<u8>>)> = server.ask(&format!("XRANGE {log} - + COUNT 1"));
        last < first[0].0
    });
    before && told("consumers").as_deref() == Some("0") && told("pending").as_deref() == Some("0")
}

async fn members_read_without_a_trace_and_a_double_that_reads_as_a_group_is_seen() {
    let mut server = Server::own();
    let settings = RedisStreamsSettings { prefix: server.prefix.clone(), ..RedisStreamsSettings::default() };
    let url = RedisSettings::from_url(&format!("unix://{}", server.socket().display())).unwrap();
    let broker = RedisStreams::connect(url, settings).await.unwrap();
    let topic = Topic::new("t").unwrap();
    broker.create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
    let subscription = Subscription::new(Group::new("g").unwrap(), [topic.clone()]);
    let mut consumer = broker.subscribe(subscription).await.unwrap();
    let batch = (0..3).map(|_| Message::builder().payload("x").build()).collect();
    assert!(broker.publish(&Target::from(&topic), batch).await.all_acked());
    let mut got = 0;
    while got < 3 {
        if let Event::Batch(batch) = timeout(Duration::from_secs(20), consumer.next()).await.unwrap().unwrap()
        {
            got += batch.deliveries.len();
        }
    }
    let log = format!("{}:{{t/0}}:log", server.prefix);
    assert!(left_no_trace(&mut server, &log), "what is in flight is only its member's own");
    // What a member would do that reads by `XREADGROUP`: its successor would not get what it took.
    server.ask::<Value>(&format!("XREADGROUP GROUP g deposed COUNT 1 STREAMS {log} >"));
    assert!(!left_no_trace(&mut server, &log));
}

super::async_tests! {
    a_double_that_trims_past_a_live_group_is_seen,
    a_double_that_removes_silently_is_seen,
    a_double_that_delivers_early_is_seen,
    members_read_without_a_trace_and_a_double_that_reads_as_a_group_is_seen,
}
