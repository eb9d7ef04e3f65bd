//! Batches of records whose bytes were damaged on the disk of the server: they are told, with from and to, and what lies behind them comes.
//!
//! The files of the server are changed here, so it has to be on this machine. Not here: records that are whole and no messages (`broker/src/conformance`).

use crate::{
    readers::{PATIENCE, create, put, stage},
    server,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
};
use ropeway_broker::{Event, GapReason, Group, MessageBroker, Owned, Position, Start, Subscription, Topic};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    future::poll_fn,
    os::unix::fs::FileExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

crate::async_tests!(
    a_reader_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on,
    a_reader_is_told_a_damaged_batch_between_others,
    a_member_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on,
    a_member_is_told_a_damaged_batch_between_others,
    many_damaged_partitions_are_gone_on_with_at_once,
);

/// A batch of records in a file: its place, its first and last offset.
#[derive(Clone, Copy, Debug)]
struct Stored {
    at: u64,
    bytes: u64,
    first: u64,
    last: u64,
}

/// The folder of a server that is on this machine.
async fn folder() -> PathBuf {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", server::host()).create().unwrap();
    let node = admin.inner().fetch_metadata(None, PATIENCE).unwrap().brokers()[0].id();
    let asked = admin.describe_configs(&[ResourceSpecifier::Broker(node)], &AdminOptions::new()).await;
    let config = asked.unwrap().remove(0).unwrap();
    let folders = ["log.dirs", "log.dir"].iter().find_map(|name| config.get(name)?.value.clone());
    let folder = PathBuf::from(folders.unwrap());
    if !folder.is_dir() {
        resume_unwind(Box::new(server::Absent));
    }
    folder
}

/// The file of a partition that was never rolled.
fn file(folder: &Path, topic: &Topic, partition: u32) -> PathBuf {
    folder.join(format!("{topic}-{partition}")).join("00000000000000000000.log")
}

/// The batches of a file (<https://kafka.apache.org/documentation/#recordbatch>).
fn batches(file: &PathBuf) -> Vec<Stored> {
    let bytes = fs::read(file).unwrap();
    let int = |at: usize| u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()));
    let (mut at, mut found) = (0, Vec::new());
    while at + 61 <= bytes.len() {
        let first = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let size = 12 + int(at + 8);
        if size == 12 {
            break;
        }
        found.push(Stored { at: at as u64, bytes: size, first, last: first + int(at + 23) });
        at += size as usize;
    }
    found
}

/// Changes the last byte of a batch.
fn damage(file: &PathBuf, batch: Stored) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let (at, mut byte) = (batch.at + batch.bytes - 1, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], at).unwrap();
}

/// What came of a partition, in words, as far as it is told in order: numbers of messages, what could not be read, what is missing.
#[derive(Debug, Default)]
struct Told {
    life: u64,
    said: Vec<String>,
    caught_up: usize,
    /// What is to be acked.
    open: Vec<(Owned, Position)>,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => {
                for delivery in batch.deliveries {
                    let payload = delivery.message.payload.unwrap();
                    self.said.push(String::from_utf8(payload.to_vec()).unwrap());
                    self.life = delivery.position.0;
                    self.open.push((batch.of.clone(), delivery.position));
                }
            }
            Event::Unreadable { of, position, raw, why } => {
                assert!(raw.is_none() && why.to_string().contains("damaged"), "{why}");
                self.said.push(format!("unreadable {}", position.1));
                self.open.push((of, position));
            }
            Event::Gap { from, to, why, .. } => {
                assert_eq!(why, GapReason::Damaged, "from {from:?} to {to:?}, after {self:?}");
                self.said.push(format!("gap {} to {}", from.unwrap().1, to.unwrap().1));
            }
            Event::CaughtUp(_) => self.caught_up += 1,
            _ => {}
        }
    }
}

/// What is to be told of these batches, of which those are damaged.
fn expected(all: &[Stored], damaged: &[u64]) -> Vec<String> {
    let mut said = Vec::new();
    for batch in all {
        if damaged.contains(&batch.first) {
            said.push(format!("unreadable {}", batch.first));
            if batch.last > batch.first {
                said.push(format!("gap {} to {}", batch.first + 1, batch.last + 1));
            }
        } else {
            said.extend((batch.first..=batch.last).map(|number| number.to_string()));
        }
    }
    said
}

/// A topic with batches of which some are damaged; what is to be told of them, and how many messages there were.
async fn damaged(broker: &Arc<dyn MessageBroker>, topic: &Topic, last: bool) -> (PathBuf, Vec<String>) {
    create(broker, topic, 1).await;
    for begin in [0, 10, 20, 30] {
        put(broker, topic, 0, begin..begin + 10).await;
    }
    let file = file(&folder().await, topic, 0);
    let all = batches(&file);
    assert!(all.len() >= 4 && all.last().unwrap().last == 39, "{all:?}");
    let chosen = match last {
        true => vec![*all.last().unwrap()],
        // Two that follow each other, and one alone.
        false => vec![all[0], all[1], all[all.len() - 2]],
    };
    chosen.iter().for_each(|batch| damage(&file, *batch));
    let chosen: Vec<u64> = chosen.iter().map(|batch| batch.first).collect();
    (file, expected(&all, &chosen))
}

async fn reads(url: &str, topic: &Topic, last: bool) {
    let (broker, _) = stage().await;
    let (_, expected) = damaged(&broker, topic, last).await;
    let reading = ropeway_broker::connect(url).await.unwrap();
    let mut reader = reading.read().await.unwrap();
    reader.follow(topic, None, Start::Earliest).await.unwrap();
    let mut told = Told::default();
    while told.caught_up == 0 || told.said.len() < expected.len() {
        let event = timeout(PATIENCE, poll_fn(|cx| reader.poll_next(cx))).await;
        told.take(event.unwrap_or_else(|_| panic!("nothing more came: {told:?}")).unwrap());
    }
    assert_eq!(told.said, expected);
    // It is read on, and nothing is told again.
    put(&broker, topic, 0, 40..43).await;
    while told.said.len() < expected.len() + 3 {
        let event = timeout(PATIENCE, poll_fn(|cx| reader.poll_next(cx))).await;
        told.take(event.unwrap_or_else(|_| panic!("nothing more came: {told:?}")).unwrap());
    }
    assert_eq!(told.said[expected.len()..], ["40", "41", "42"]);
    let more = timeout(Duration::from_millis(500), poll_fn(|cx| reader.poll_next(cx))).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(told.caught_up, 1);
}

/// A server hands out no more than one batch at a time.
fn small() -> String {
    format!("{}?rdkafka.fetch.message.max.bytes=100", server::url())
}

async fn a_reader_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on() {
    let (_, topic) = stage().await;
    reads(&server::url(), &topic, true).await;
}

async fn a_reader_is_told_a_damaged_batch_between_others() {
    for url in [server::url(), small()] {
        let (_, topic) = stage().await;
        reads(&url, &topic, false).await;
    }
}

async fn consumes(url: &str, topic: &Topic, last: bool) {
    let (broker, _) = stage().await;
    let (_, mut expected) = damaged(&broker, topic, last).await;
    let consuming = ropeway_broker::connect(url).await.unwrap();
    let group = Group::new(format!("of-{topic}")).unwrap();
    let mut consumer = consuming.subscribe(Subscription::new(group.clone(), [topic.clone()])).await.unwrap();
    let control = consumer.control();
    let mut told = Told::default();
    let mut more = true;
    while told.said.len() < expected.len() || more {
        if told.said.len() == expected.len() && told.caught_up > 0 && more {
            put(&broker, topic, 0, 40..43).await;
            expected.extend(["40", "41", "42"].map(str::to_owned));
            more = false;
        }
        let event = timeout(PATIENCE, poll_fn(|cx| consumer.poll_next(cx))).await;
        told.take(event.unwrap_or_else(|_| panic!("nothing more came: {told:?}")).unwrap());
    }
    assert_eq!(told.said, expected);
    let mut done: BTreeMap<u64, (Owned, Vec<Position>)> = BTreeMap::new();
    for (of, position) in told.open {
        done.entry(of.epoch.0).or_insert_with(|| (of, Vec::new())).1.push(position);
    }
    for (of, positions) in done.values() {
        control.ack(of, positions).unwrap();
    }
    assert!(control.flush().await.is_empty());
    let described = broker.admin().describe_group(&group).await.unwrap();
    let lag: Vec<_> = described.partitions.iter().map(|of| of.lag).collect();
    assert_eq!(lag, [Some(0)], "{described:?}");
}

async fn a_member_is_told_a_damaged_batch_at_the_end_of_a_log_and_goes_on() {
    let (_, topic) = stage().await;
    consumes(&server::url(), &topic, true).await;
}

async fn a_member_is_told_a_damaged_batch_between_others() {
    for url in [server::url(), small()] {
        let (_, topic) = stage().await;
        consumes(&url, &topic, false).await;
    }
}

/// One after the other each takes a client, and up to 5 s.
async fn many_damaged_partitions_are_gone_on_with_at_once() {
    const MANY: u32 = 24;
    const SOON: Duration = Duration::from_secs(40);
    let (broker, topic) = stage().await;
    create(&broker, &topic, MANY).await;
    let folder = folder().await;
    let mut expected = BTreeSet::new();
    for partition in 0..MANY {
        for begin in [0, 10, 20] {
            put(&broker, &topic, partition, begin..begin + 10).await;
        }
        let file = file(&folder, &topic, partition);
        let all = batches(&file);
        damage(&file, all[all.len() / 2]);
        expected.insert((partition, all.last().unwrap().first));
    }
    let group = Group::new(format!("of-{topic}")).unwrap();
    let mut consumer = broker.subscribe(Subscription::new(group, [topic.clone()])).await.unwrap();
    let mut reader = broker.read().await.unwrap();
    reader.follow(&topic, None, Start::Earliest).await.unwrap();
    // What lies behind the damage comes, to both.
    let (mut consumed, mut read) = (expected.clone(), expected);
    let take = |left: &mut BTreeSet<(u32, u64)>, event: Event| {
        let Event::Batch(batch) = event else { return };
        batch.deliveries.iter().for_each(|it| _ = left.remove(&(batch.of.partition, it.position.1)));
    };
    let began = Instant::now();
    while !consumed.is_empty() || !read.is_empty() {
        let next = async {
            tokio::select! {
                event = poll_fn(|cx| consumer.poll_next(cx)) => take(&mut consumed, event.unwrap()),
                event = poll_fn(|cx| reader.poll_next(cx)) => take(&mut read, event.unwrap()),
            }
        };
        let left = SOON.saturating_sub(began.elapsed());
        let more = timeout(left, next).await;
        assert!(more.is_ok(), "not within {SOON:?}: consumed {consumed:?}, read {read:?}");
    }
}
