//! A server that is far away, and many topics: what is to be asked of each is asked of all at once, as one after the other would take longer than a call may.
//!
//! The way there is a proxy of its own: answers take their time, also those that say where the server is, which then say that it is the proxy. Not here: what
//! is asked (`broker/src/kafka/topics.rs`, `broker/src/kafka/offsets.rs`).

use crate::{
    readers::{create, put, stage},
    server,
};
use futures::future::join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use ropeway_broker::{
    ConsumerExt, Event, Group, Kafka, MessageBroker, MessageId, ReaderExt, Start, Subscription, Topic,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

crate::async_tests!(
    a_member_on_many_topics_joins_and_reads_though_each_answer_takes_long,
    a_reader_of_many_topics_reads_on_though_each_answer_takes_long,
    answers_to_a_member_bring_more_where_the_server_is_far_away,
);

/// How long an answer takes.
const AWAY: Duration = Duration::from_millis(100);
/// How many topics: three questions of each, one after the other, would take 45 s.
const TOPICS: usize = 150;
/// The longest wait for what must come, far less than one question of each would take.
const SOON: Duration = Duration::from_secs(12);

/// A server that is far away: its URL.
async fn far() -> String {
    let host = server::host();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let place = |port: u16| [b"127.0.0.1".as_slice(), &u32::from(port).to_be_bytes()].concat();
    let (there, back) = (place(host.split(':').nth(1).unwrap().parse().unwrap()), place(here.port()));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&host).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(pass(from_client, to_server, Duration::ZERO, (Vec::new(), Vec::new())));
            tokio::spawn(pass(from_server, to_client, AWAY, (there.clone(), back.clone())));
        }
    });
    format!("kafka://{here}")
}

/// Passes on what comes, late, and one text in place of another.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    late: Duration,
    (text, other): (Vec<u8>, Vec<u8>),
) {
    let (line, mut end) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, bytes)) = end.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut bytes = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let mut bytes = bytes[..read].to_vec();
        if !text.is_empty() {
            let found = |at: &usize| bytes[*at..].starts_with(&text);
            let found: Vec<usize> = (0..read).filter(found).collect();
            found.into_iter().for_each(|at| bytes[at..at + text.len()].copy_from_slice(&other));
        }
        if line.send((Instant::now() + late, bytes)).is_err() {
            return;
        }
    }
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", server::host()).create().unwrap()
}

/// Topics with a message each, and who is far away from them; and somebody who is near.
async fn many() -> (Arc<dyn MessageBroker>, Arc<dyn MessageBroker>, Vec<Topic>) {
    let (near, name) = stage().await;
    let topics: Vec<Topic> =
        (0..TOPICS).map(|number| Topic::new(format!("{name}-{number}")).unwrap()).collect();
    let new = |topic| NewTopic::new(Topic::as_str(topic), 1, TopicReplication::Fixed(1));
    let all: Vec<_> = topics.iter().map(new).collect();
    let options = AdminOptions::new().operation_timeout(Some(4 * SOON)).request_timeout(Some(4 * SOON));
    let made = admin().create_topics(&all, &options).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    // What was just made is seen a moment later.
    while near.admin().describe_topic(&topics[TOPICS - 1]).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    for some in topics.chunks(10) {
        join_all(some.iter().map(|topic| put(&near, topic, 0, 0..1))).await;
    }
    let far = ropeway_broker::connect(&far().await).await.unwrap();
    (near, far, topics)
}

async fn clear(topics: &[Topic]) {
    let names: Vec<&str> = topics.iter().map(Topic::as_str).collect();
    _ = admin().delete_topics(&names, &AdminOptions::new()).await;
}

async fn a_member_on_many_topics_joins_and_reads_though_each_answer_takes_long() {
    let (_near, far, topics) = many().await;
    let group = Group::new(format!("far-{}", MessageId::new())).unwrap();
    let subscription = Subscription { start: Start::Earliest, ..Subscription::new(group, topics.clone()) };
    let joined = timeout(SOON, far.subscribe(subscription)).await;
    assert!(joined.is_ok(), "who joins waits for one answer after the other");
    let mut member = joined.unwrap().unwrap();
    let mut left: BTreeSet<_> = topics.iter().cloned().collect();
    let all = async {
        while !left.is_empty() {
            match member.next().await.unwrap() {
                Event::Batch(batch) => _ = left.remove(&batch.of.topic),
                Event::Gone(of, why) => panic!("{of:?} is gone: {why:?}"),
                _ => {}
            }
        }
    };
    assert!(timeout(2 * SOON, all).await.is_ok(), "{} topics are not read", left.len());
    drop(member);
    clear(&topics).await;
}

async fn a_reader_of_many_topics_reads_on_though_each_answer_takes_long() {
    let (near, far, topics) = many().await;
    let mut reader = far.read().await.unwrap();
    let follow = |topic: &Topic| reader.follow(topic, None, Start::Latest);
    let answers: Vec<_> = topics.iter().map(follow).collect();
    join_all(answers).await.into_iter().for_each(Result::unwrap);
    for topic in topics.iter().step_by(TOPICS / 3) {
        // It looks meanwhile whether topics are the same.
        sleep(Duration::from_millis(1200)).await;
        put(&near, topic, 0, 1..2).await;
        let next = async {
            while !matches!(reader.next().await.unwrap(), Event::Batch(batch) if batch.of.topic == *topic) {}
        };
        assert!(timeout(SOON, next).await.is_ok(), "who reads waits for one answer after the other");
    }
    drop(reader);
    clear(&topics).await;
}

async fn answers_to_a_member_bring_more_where_the_server_is_far_away() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let join = async |broker: &Kafka| {
        let group = Group::new(format!("far-{}", MessageId::new())).unwrap();
        broker.subscribe(Subscription::new(group, [topic.clone()])).await.unwrap();
        broker.answer()
    };
    let far = Kafka::of_url(&far().await).await.unwrap();
    assert_eq!(join(&far).await, 16 << 20);
    // The machine may be busy: the best of some counts.
    let near = Kafka::of_url(&format!("kafka://{}", server::host())).await.unwrap();
    let mut answer = join(&near).await;
    for _ in 0..20 {
        if answer < 16 << 20 {
            break;
        }
        answer = join(&near).await;
    }
    assert!((2 << 20..16 << 20).contains(&answer), "{answer}");
}
