//! A node of three that stands still for a while: what was published to a topic that lacks replicas then is told within its time, and what is told is true;
//! topics are made, or it is told that they may be.
//!
//! Not here: what a topic gives that lacks nothing (`publishing.rs`), servers that never answer (`standing.rs`).

use crate::{
    server::{host, said},
    tests,
};
use ropeway_broker::{
    ErrorKind, Event, Message, MessageBroker, Published, Start, Target, Topic, TopicSpec, connect,
};
use std::{collections::BTreeSet, fs, future::poll_fn, process::Command, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

tests! {
    too_few_replicas_are_told_in_time_and_nothing_is_lost,
    topics_are_made_while_any_node_stands_still,
}

/// Only one node stands still at a time: two of three are too few to go on.
static STILL: Mutex<()> = Mutex::const_new(());
/// When a publish is answered at the latest.
const DEADLINE: Duration = Duration::from_secs(6);
/// What a busy machine needs on top.
const BUSY: Duration = Duration::from_secs(10);
/// How long anything may take that must happen.
const LONG: Duration = Duration::from_secs(60);

/// A node that stands still until this is dropped.
struct Stopped(String);

impl Stopped {
    /// The process of this machine that was configured for a port.
    fn of_port(port: &str) -> Self {
        let is_node = |pid: &String| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let file = command.split('\0').find(|arg| arg.ends_with(".properties")).map(str::to_owned);
            let text = file.and_then(|file| fs::read_to_string(format!("/proc/{pid}/cwd/{file}")).ok());
            let listens = format!("//127.0.0.1:{port}");
            let of_listeners = |line: &str| line.starts_with("listeners=") && line.contains(&listens);
            text.is_some_and(|text| text.lines().any(of_listeners))
        };
        let all = fs::read_dir("/proc").unwrap();
        let mut pids = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let pid = pids.find(is_node).unwrap_or_else(|| panic!("nobody on this machine listens at {port}"));
        signal("-STOP", &pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// Publishes messages that are numbered on, and notes what became of each. Answered in time.
async fn publish(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    next: &mut u32,
    told: &mut Vec<(u32, Published)>,
) -> bool {
    let numbers: Vec<u32> = (*next..*next + 20).collect();
    *next += 20;
    let batch = numbers.iter().map(|number| Message::builder().payload(number.to_string()).build()).collect();
    let began = Instant::now();
    let outcomes = broker.publish(&Target::from(topic), batch).await.0;
    let took = began.elapsed();
    assert!(took < DEADLINE + BUSY, "answered after {took:?}");
    let acked = outcomes.iter().all(Published::is_acked);
    told.extend(numbers.into_iter().zip(outcomes));
    acked
}

async fn too_few_replicas_are_told_in_time_and_nothing_is_lost() {
    let url = said("ROPEWAY_TEST_KAFKA_3_URL");
    let _still = STILL.lock().await;
    let broker =
        connect(&format!("{url}?replication=3&min_insync_replicas=3&publish_deadline=6s")).await.unwrap();
    let topic = Topic::new(format!("replicas-{}", Uuid::new_v4().simple())).unwrap();
    broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
    let (mut next, mut told) = (0, Vec::new());
    let until = Instant::now() + LONG;
    while !publish(&broker, &topic, &mut next, &mut told).await {
        assert!(Instant::now() < until, "nothing is acked: {:?}", told.last());
    }
    let node = Stopped::of_port(url.rsplit_once(':').unwrap().1);
    let is_told = |told: &[(u32, Published)]| {
        let failed = told.last().and_then(|(_, published)| published.failed());
        failed.is_some_and(|failed| failed.error.to_string().contains("min.insync.replicas"))
    };
    // The others find out that it is gone when its session is over.
    let until = Instant::now() + LONG;
    while !is_told(&told) {
        assert!(Instant::now() < until, "it is never told: {:?}", told.last());
        publish(&broker, &topic, &mut next, &mut told).await;
    }
    let failed = told.last().unwrap().1.failed().unwrap();
    assert_eq!(failed.error.kind(), ErrorKind::Unavailable, "{}", failed.error);
    assert!(failed.error.to_string().contains("needs 3"), "{}", failed.error);
    drop(node);
    let until = Instant::now() + LONG;
    while !publish(&broker, &topic, &mut next, &mut told).await {
        assert!(Instant::now() < until, "nothing is acked any more: {:?}", told.last());
        sleep(Duration::from_millis(500)).await;
    }
    let read = read(&broker, &topic).await;
    for (number, published) in &told {
        match published {
            Published::Acked { .. } => assert!(read.contains(number), "{number} was acked and is lost"),
            Published::NotWritten(_) => assert!(!read.contains(number), "{number} is there all the same"),
            Published::Unknown(_) => {}
        }
    }
    broker.admin().delete_topic(&topic).await.unwrap();
}

/// One of them is the controller to the client library.
async fn topics_are_made_while_any_node_stands_still() {
    const CALL: Duration = Duration::from_secs(35);
    let url = said("ROPEWAY_TEST_KAFKA_3_URL");
    let _still = STILL.lock().await;
    let broker = connect(&format!("{url}?replication=1&min_insync_replicas=1")).await.unwrap();
    let hosts = host(&url);
    for (_, port) in hosts.split(',').filter_map(|host| host.rsplit_once(':')) {
        let topic = Topic::new(format!("still-{}", Uuid::new_v4().simple())).unwrap();
        let node = Stopped::of_port(port);
        let began = Instant::now();
        let made = broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await;
        assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
        if let Err(error) = made {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("it may be done all the same"), "{error}");
        }
        drop(node);
        // It can be made, or is there.
        let until = Instant::now() + CALL;
        loop {
            match broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Exists => break,
                Err(error) => assert!(error.is_retryable() && Instant::now() < until, "{error}"),
            }
        }
    }
}

/// All that is there.
async fn read(broker: &Arc<dyn MessageBroker>, topic: &Topic) -> BTreeSet<u32> {
    let mut reader = broker.read().await.unwrap();
    reader.follow(topic, None, Start::Earliest).await.unwrap();
    let mut read = BTreeSet::new();
    loop {
        match timeout(Duration::from_secs(30), poll_fn(|cx| reader.poll_next(cx))).await.unwrap().unwrap() {
            Event::Batch(batch) => read.extend(batch.deliveries.iter().map(|delivery| {
                let payload = delivery.message.payload.as_deref().unwrap();
                std::str::from_utf8(payload).unwrap().parse::<u32>().unwrap()
            })),
            Event::CaughtUp(_) => return read,
            other => panic!("{other:?}"),
        }
    }
}
