//! What clients that are not ours do to streams: they trim them, write to them, and make streams of their own.

use super::server::Server;
use ropeway_broker::{
    Admin, ErrorKind, Event, GapReason, Message, MessageBroker, MessageBrokerExt, Reader, ReaderExt,
    RedisStreams, RedisStreamsSettings, Start, Topic, TopicSpec,
};
use ropeway_store::redis::RedisSettings;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

async fn open(server: &Server) -> Arc<RedisStreams> {
    let settings = RedisStreamsSettings { prefix: server.prefix.clone(), ..RedisStreamsSettings::default() };
    let url = RedisSettings::from_url(&format!("unix://{}", server.socket().display())).unwrap();
    RedisStreams::connect(url, settings).await.unwrap()
}

/// What comes until nothing came for a while: payloads, gaps, catching up.
async fn told(reader: &mut Box<dyn Reader>) -> Vec<String> {
    let mut told = Vec::new();
    while let Ok(event) = timeout(Duration::from_millis(2500), reader.next()).await {
        match event.unwrap() {
            Event::Batch(batch) => told.extend(batch.deliveries.into_iter().map(|delivery| {
                let payload = delivery.message.payload.unwrap_or_default();
                String::from_utf8_lossy(&payload).into_owned()
            })),
            Event::Gap { why: GapReason::Trimmed, .. } => told.push("gap".into()),
            Event::CaughtUp(_) => told.push("caught up".into()),
            other => panic!("{other:?}"),
        }
    }
    told
}

async fn what_somebody_else_trims_before_it_was_seen_is_a_gap_and_what_was_seen_is_none() {
    let mut server = Server::own();
    let broker = open(&server).await;
    let topic = Topic::new("t").unwrap();
    broker.create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
    let mut reader = broker.read().await.unwrap();
    reader.follow(&topic, None, Start::Earliest).await.unwrap();
    for payload in ["a", "b"] {
        broker.publish_one(&topic, Message::builder().payload(payload).build()).await.unwrap();
    }
    // It is caught up with nothing, or with what was there when it began.
    let mut first = told(&mut reader).await;
    first.retain(|told| told != "caught up");
    assert_eq!(first, ["a", "b"]);
    let log = format!("{}:{{t/0}}:log", server.prefix);
    let _: i64 = server.ask(&format!("XTRIM {log} MAXLEN 0"));
    assert!(told(&mut reader).await.is_empty(), "what was seen is no gap");
    // In one step, so that nobody can read between.
    let script =
        "for i=1,5 do redis.call('XADD',KEYS[1],'*','payload',i) end redis.call('XTRIM',KEYS[1],'MAXLEN',2)";
    let _: redis::Value = redis::cmd("EVAL").arg(script).arg(1).arg(&log).query(&mut server.redis).unwrap();
    let mut second = told(&mut reader).await;
    second.sort();
    assert_eq!(second, ["4", "5", "gap"]);
    broker.publish_one(&topic, Message::builder().payload("c").build()).await.unwrap();
    assert_eq!(told(&mut reader).await, ["c"], "a gap is told once");
    assert_eq!(broker.statistics().gaps, 1);
}

async fn a_stream_that_somebody_else_made_is_a_topic_of_one_partition_that_is_left_to_them() {
    let mut server = Server::own();
    let broker = open(&server).await;
    let topic = Topic::new("clicks").unwrap();
    assert_eq!(broker.describe_topic(&topic).await.unwrap_err().kind(), ErrorKind::NotFound);
    let _: String = server.ask("XADD clicks * user 7 payload x");
    let _: String = server.ask("XADD clicks * body y");
    let described = broker.describe_topic(&topic).await.unwrap();
    assert_eq!((described.spec.partitions, described.partitions[0].messages), (1, Some(2)));
    let mut reader = broker.read().await.unwrap();
    reader.follow(&topic, Some(0), Start::Earliest).await.unwrap();
    broker.publish_one(&topic, Message::builder().payload("z").build()).await.unwrap();
    let mut all = told(&mut reader).await;
    all.retain(|told| told != "caught up");
    assert_eq!(all, ["x", "y", "z"]);
    for refused in [
        broker.delete_topic(&topic).await.unwrap_err().kind(),
        broker.grow_topic(&topic, 2).await.unwrap_err().kind(),
    ] {
        assert_eq!(refused, ErrorKind::Unsupported);
    }
    let again = broker.create_topic(&topic, TopicSpec::partitions(1)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Exists);
    assert_eq!(server.ask::<i64>("XLEN clicks"), 3);
}

super::async_tests! {
    what_somebody_else_trims_before_it_was_seen_is_a_gap_and_what_was_seen_is_none,
    a_stream_that_somebody_else_made_is_a_topic_of_one_partition_that_is_left_to_them,
}
