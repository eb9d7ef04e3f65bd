//! The servers of these tests, and topics on them.
//!
//! Not here: starting servers (`cargo xtask servers`).

use crate::trials::ignore;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use ropeway_broker::{MessageBroker, Topic, connect};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long anything may take that must happen.
const LONG: Duration = Duration::from_secs(40);

/// What a variable says that `cargo xtask servers` sets.
pub(crate) fn said(name: &'static str) -> String {
    match std::env::var(name).ok().filter(|value| !value.is_empty()) {
        Some(value) => value,
        None => ignore(format!(
            "no Kafka: run `cargo xtask test`, or set {name} (`cargo xtask servers up` prints it)"
        )),
    }
}

/// The URL of the plain server.
pub(crate) fn url() -> String {
    said("ROPEWAY_TEST_KAFKA_URL")
}

/// `host:port` of a URL.
pub(crate) fn host(url: &str) -> String {
    let (_, hosts) = url.split_once("://").unwrap();
    hosts.split(['/', '?']).next().unwrap().to_owned()
}

/// A broker with these parameters.
pub(crate) async fn broker(parameters: &str) -> Arc<dyn MessageBroker> {
    connect(&format!("{}?{parameters}", url())).await.unwrap()
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", host(&url())).create().unwrap()
}

/// A new name.
pub(crate) fn name(what: &str) -> Topic {
    Topic::new(format!("broker-{what}-{}", &Uuid::new_v4().simple().to_string()[..12])).unwrap()
}

/// Makes a topic with settings of Kafka.
pub(crate) async fn make(topic: &Topic, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic.as_str(), partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    // A name that was just deleted is free a moment later.
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        let made = admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
        if made[0].is_ok() {
            return seen(topic).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("topic {topic:?} cannot be made");
}

/// Waits until the server knows of a topic that it has just made.
async fn seen(topic: &Topic) {
    let (admin, until) = (admin(), Instant::now() + LONG);
    while Instant::now() < until {
        let metadata = admin.inner().fetch_metadata(Some(topic.as_str()), LONG).unwrap();
        if metadata.topics().iter().any(|one| one.name() == topic.as_str() && one.error().is_none()) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("topic {topic:?} is not seen");
}

/// A new topic.
pub(crate) async fn topic(partitions: i32, settings: &[(&str, &str)]) -> Topic {
    let topic = name("topic");
    make(&topic, partitions, settings).await;
    topic
}

/// Deletes a topic, as somebody else would.
pub(crate) async fn delete(topic: &Topic) {
    let deleted = admin().delete_topics(&[topic.as_str()], &AdminOptions::new()).await.unwrap();
    assert!(deleted[0].is_ok(), "{deleted:?}");
}

/// Adds partitions, as somebody else would.
pub(crate) async fn grow(topic: &Topic, partitions: usize) {
    let new = NewPartitions::new(topic.as_str(), partitions);
    let grown = admin().create_partitions([&new], &AdminOptions::new()).await.unwrap();
    assert!(grown[0].is_ok(), "{grown:?}");
}
