//! A server that is far away, and many topics: what is to be asked of each is asked at once, as one after the other would take longer than a call may, and than a
//! lease holds.
//!
//! Not here: connections that end (`cuts.rs`).

use super::{
    proxy::{FAR, PASS, Proxy},
    server::Server,
};
use futures::future::join_all;
use ropeway_broker::{
    Admin, ConsumerExt, Event, Group, Message, MessageBroker, ReaderExt, RedisStreams, Start, Subscription,
    Target, Topic, TopicSpec,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{sleep, timeout};

/// How many topics: four questions of each, one after the other, would take 60 s.
const TOPICS: usize = 150;
/// The longest wait for what must come, far less than one question of each would take.
const SOON: Duration = Duration::from_secs(12);

async fn a_member_on_many_topics_joins_and_reads_though_each_answer_takes_long() {
    let server = Server::own();
    let proxy = Proxy::before(server.socket()).await;
    let url = format!("redis://{}?prefix={}", proxy.address, server.prefix);
    let broker = RedisStreams::of_url(&url).await.unwrap();
    let topics: Vec<_> = (0..TOPICS).map(|number| Topic::new(format!("t{number}")).unwrap()).collect();
    for made in
        join_all(topics.iter().map(|topic| broker.create_topic(topic, TopicSpec::partitions(1)))).await
    {
        made.unwrap();
    }
    let message = || Message::builder().payload("x").build();
    for topic in &topics {
        assert!(broker.publish(&Target::from(topic.clone()), vec![message()]).await.all_acked());
    }
    proxy.set(FAR);
    let subscription = Subscription {
        start: Start::Earliest,
        ..Subscription::new(Group::new("g").unwrap(), topics.clone())
    };
    let mut consumer = broker.subscribe(subscription).await.unwrap();
    let mut left: BTreeSet<_> = topics.iter().cloned().collect();
    let all = async {
        while !left.is_empty() {
            match consumer.next().await.unwrap() {
                Event::Batch(batch) => _ = left.remove(&batch.of.topic),
                Event::Gone(of, why) => panic!("{of:?} is gone: {why:?}"),
                _ => {}
            }
        }
    };
    timeout(4 * SOON, all).await.unwrap();
    for topic in topics.iter().step_by(TOPICS / 3) {
        // It looks meanwhile whether something was removed from what it read.
        sleep(Duration::from_millis(1200)).await;
        assert!(broker.publish(&Target::from(topic.clone()), vec![message()]).await.all_acked());
        let next = async {
            while !matches!(consumer.next().await.unwrap(), Event::Batch(batch) if batch.of.topic == *topic) {
            }
        };
        let came = timeout(SOON, next).await;
        assert!(came.is_ok(), "who reads waits for one answer after the other");
    }
}

async fn a_reader_of_many_partitions_reads_on_though_each_answer_takes_long() {
    let server = Server::own();
    let proxy = Proxy::before(server.socket()).await;
    let url = format!("redis://{}?prefix={}", proxy.address, server.prefix);
    let broker = RedisStreams::of_url(&url).await.unwrap();
    let topic = Topic::new("t").unwrap();
    let partitions = u32::try_from(TOPICS).unwrap();
    broker.create_topic(&topic, TopicSpec::partitions(partitions)).await.unwrap();
    let publish = async |partition| {
        let to = Target { partition: Some(partition), ..topic.clone().into() };
        assert!(broker.publish(&to, vec![Message::builder().payload("x").build()]).await.all_acked());
    };
    let mut reader = broker.read().await.unwrap();
    reader.follow(&topic, None, Start::Earliest).await.unwrap();
    for _ in 0..3 {
        for partition in 0..partitions {
            publish(partition).await;
        }
        for _ in 0..partitions {
            while !matches!(reader.next().await.unwrap(), Event::Batch(_)) {}
        }
        proxy.set(FAR);
        // It looks meanwhile whether something was removed from what it read.
        sleep(Duration::from_millis(1200)).await;
        publish(0).await;
        let next = async { while !matches!(reader.next().await.unwrap(), Event::Batch(_)) {} };
        let came = timeout(SOON, next).await;
        assert!(came.is_ok(), "it waits for one answer after the other");
        proxy.set(PASS);
    }
    // As long as it takes, which is not long.
    timeout(SOON, broker.close(Duration::MAX)).await.unwrap();
}

super::async_tests! {
    a_member_on_many_topics_joins_and_reads_though_each_answer_takes_long,
    a_reader_of_many_partitions_reads_on_though_each_answer_takes_long,
}
