//! Topics with a limit of bytes on a real server, as far as the suite for all backends does not check them.
//!
//! Not here: what goes (`../retention.rs`), the scripts (`scripts.rs`).

use super::server::Server;
use ropeway_broker::{
    Admin, ConsumerExt, ErrorKind, Event, Group, Message, MessageBroker, Published, RedisStreams,
    RedisStreamsSettings, Retention, Subscription, Target, Topic, TopicSpec,
};
use ropeway_store::redis::RedisSettings;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

async fn open(server: &Server) -> (Arc<RedisStreams>, Topic) {
    let settings = RedisStreamsSettings {
        prefix: server.prefix.clone(),
        segment: 1000,
        ..RedisStreamsSettings::default()
    };
    let url = RedisSettings::from_url(&format!("unix://{}", server.socket().display())).unwrap();
    let broker = RedisStreams::connect(url, settings).await.unwrap();
    let topic = Topic::new("t").unwrap();
    let retention = Retention { bytes: Some(2000), ..Retention::default() };
    broker.create_topic(&topic, TopicSpec { partitions: 1, retention }).await.unwrap();
    (broker, topic)
}

fn message() -> Message {
    Message::builder().payload(vec![b'x'; 100]).build()
}

async fn put(broker: &RedisStreams, topic: &Topic) -> Published {
    sleep(Duration::from_millis(5)).await;
    broker.publish(&Target::from(topic), vec![message()]).await.0.remove(0)
}

/// Publishes until that is refused; what was said.
async fn fill(broker: &RedisStreams, topic: &Topic) -> String {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Published::NotWritten(failed) = put(broker, topic).await {
            assert_eq!(failed.error.kind(), ErrorKind::Throttled);
            return failed.error.to_string();
        }
    }
    panic!("a topic takes without end");
}

async fn a_consumer_group_of_others_that_lags_is_named_and_when_it_moves_publishing_goes_on() {
    let mut server = Server::own();
    let (broker, topic) = open(&server).await;
    let log = format!("{}:{{t/0}}:log", server.prefix);
    server.ask::<String>(&format!("XGROUP CREATE {log} stranger $"));
    let said = fill(&broker, &topic).await;
    assert!(said.contains("stranger"), "{said}");
    server.ask::<redis::Value>(&format!("XREADGROUP GROUP stranger c NOACK STREAMS {log} >"));
    let end = Instant::now() + PATIENCE;
    while !matches!(put(&broker, &topic).await, Published::Acked { .. }) {
        assert!(Instant::now() < end, "publishing does not go on");
    }
}

async fn what_the_group_that_lags_forwards_back_is_taken() {
    let server = Server::own();
    let (broker, topic) = open(&server).await;
    let subscription = Subscription::new(Group::new("g").unwrap(), [topic.clone()]);
    let mut consumer = broker.subscribe(subscription).await.unwrap();
    let batch = loop {
        match timeout(PATIENCE, consumer.next()).await.unwrap().unwrap() {
            Event::Batch(batch) => break batch,
            Event::Assigned { .. } => assert!(matches!(put(&broker, &topic).await, Published::Acked { .. })),
            _ => {}
        }
    };
    let said = fill(&broker, &topic).await;
    assert!(said.contains("group \"g\""), "{said}");
    let done = [batch.deliveries[0].position];
    let out = vec![(Target::from(&topic), message())];
    let forwarded = consumer.control().forward(&batch.of, &done, out).await;
    assert!(matches!(forwarded.0[..], [Published::Acked { .. }]), "{forwarded:?}");
    assert!(matches!(put(&broker, &topic).await, Published::NotWritten(_)));
}

super::async_tests! {
    a_consumer_group_of_others_that_lags_is_named_and_when_it_moves_publishing_goes_on,
    what_the_group_that_lags_forwards_back_is_taken,
}
