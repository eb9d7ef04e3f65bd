//! How late delayed messages come, moved by the process that published them and by one that only consumes.
//!
//! Not here: what all backends promise of them (`broker/src/conformance`), what the scripts do (`scripts.rs`), a server that is away meanwhile (`cuts.rs`).

#![expect(clippy::print_stdout, reason = "what was measured is shown")]

use super::nodes::Node;
use ropeway_broker::{
    Admin, ConsumerExt, Event, Group, Message, MessageBroker, Published, RedisStreams, Subscription,
    Timestamp, Topic, TopicSpec,
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

super::async_tests! {
    they_come_soon_after_they_are_due_and_never_before,
}

const MANY: usize = 300;
/// What is promised of an idle machine, in milliseconds, of 99 in 100.
const PROMISED: i64 = 100;
/// What is judged on a busy one.
const BUSY: i64 = 10_000;

/// How late each came, in milliseconds, the soonest first. `stays`: whether who published them is there to move them.
async fn late(url: &str, topic: &str, stays: bool) -> Vec<i64> {
    let topic = Topic::new(topic).unwrap();
    let (consuming, publishing) =
        (RedisStreams::of_url(url).await.unwrap(), RedisStreams::of_url(url).await.unwrap());
    consuming.create_topic(&topic, TopicSpec::partitions(2)).await.unwrap();
    let group = Group::new("g").unwrap();
    let mut consumer = consuming.subscribe(Subscription::new(group, [topic.clone()])).await.unwrap();
    // One each 20 ms, from 3 s on.
    let due = |at: usize| Timestamp::now() + Duration::from_millis(3_000 + 20 * at as u64);
    let message = |at: usize| Message::builder().key(at.to_string()).payload("x").deliver_at(due(at)).build();
    let told = publishing.publish(&topic.clone().into(), (0..MANY).map(message).collect()).await.0;
    assert!(told.iter().all(Published::is_acked), "{told:?}");
    if !stays {
        publishing.close(Duration::from_secs(10)).await;
    }
    let mut late = Vec::new();
    while late.len() < MANY {
        let event = timeout(Duration::from_secs(60), consumer.next()).await;
        let event = event.unwrap_or_else(|_| panic!("{} of {MANY}", late.len())).unwrap();
        if let Event::Batch(batch) = event {
            let now = Timestamp::now().as_millis();
            let delays = batch.deliveries.iter().map(|one| now - one.message.deliver_at.unwrap().as_millis());
            late.extend(delays);
            let positions: Vec<_> = batch.deliveries.iter().map(|one| one.position).collect();
            consumer.control().ack(&batch.of, &positions).unwrap();
        }
    }
    late.sort_unstable();
    late
}

/// Whether nothing to speak of runs beside the tests: what ran in the last minute.
fn is_idle() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).is_some_and(|load| load < 1.0)
}

async fn they_come_soon_after_they_are_due_and_never_before() {
    let server = Arc::new(Node::start(None, &[]));
    let url = format!("redis://127.0.0.1:{}", server.port);
    let idle = is_idle();
    let (both, one) = tokio::join!(late(&url, "both", true), late(&url, "one", false));
    let limit = if idle && is_idle() { PROMISED } else { BUSY };
    for (whom, late) in [("by its publisher and its consumer", both), ("by its consumer alone", one)] {
        let at = |of: usize| late[late.len() * of / 100];
        let (least, most) = (late[0], late[late.len() - 1]);
        println!(
            "delayed, moved {whom}: late by ms: p50 {}, p99 {}, most {most}; at most {limit}",
            at(50),
            at(99)
        );
        assert!(least >= 0, "one came {} ms before it was due", -least);
        assert!(at(99) <= limit, "moved {whom}, p99 is {} ms late", at(99));
    }
}
