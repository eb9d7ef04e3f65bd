//! Directories that each format wrote: earlier ones are migrated when they are opened, and all that was there is there.

use super::support::*;
use crate::{
    Embedded, EmbeddedSettings, ErrorKind, Event, GroupInfo, MessageBroker, Position, Start, Target,
    Timestamp, Topic,
    embedded::state::{FORMAT, FORMAT_KEY, encode_number},
};
use ropeway_store::{Durability, FjallSettings, FjallStore, KeyValue, Purpose, WriteBatch};
use std::{fs, path::Path, sync::Arc};

fn copied(fixture: &str) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/embedded").join(fixture), dir.path());
    dir
}

fn open(dir: &Path) -> Arc<Embedded> {
    Embedded::open(dir, EmbeddedSettings::default()).unwrap()
}

/// What a reader gets of a partition: places, keys and payloads.
async fn all_of(
    broker: &Embedded,
    topic: &Topic,
    partition: u32,
) -> Vec<(Position, Option<bytes::Bytes>, String)> {
    let mut reader = broker.read().await.unwrap();
    reader.follow(topic, Some(partition), Start::Earliest).await.unwrap();
    let mut all = Vec::new();
    loop {
        match next_read(&mut *reader).await {
            Event::Batch(batch) => {
                let texts = contents(&batch);
                all.extend(
                    batch
                        .deliveries
                        .iter()
                        .zip(texts)
                        .map(|(d, (at, text))| (at, d.message.key.clone(), text)),
                );
            }
            Event::CaughtUp(_) => return all,
            other => panic!("{other:?}"),
        }
    }
}

async fn group_of(broker: &Embedded, name: &str) -> GroupInfo {
    broker.admin().describe_group(&group(name)).await.unwrap()
}

/// How many messages of a topic a group has finished.
fn finished(info: &GroupInfo, topic: &Topic, ends: u64) -> u64 {
    let unfinished =
        info.partitions.iter().filter(|part| part.topic == *topic).map(|part| part.unfinished.unwrap());
    ends - unfinished.sum::<u64>()
}

#[tokio::test]
async fn a_directory_of_format_1_is_migrated_with_all_that_it_holds() {
    holds_all("format-1").await;
}

#[tokio::test]
async fn a_directory_of_format_2_is_migrated_with_all_that_it_holds() {
    holds_all("format-2").await;
    holds_all("format-3").await;
}

#[tokio::test]
async fn a_directory_of_format_3_is_opened_with_all_that_it_holds() {
    holds_all("format-3-batches").await;
}

/// The directory has two topics of 40 and 2 messages, groups that finished 15 and 1 of them, and a delayed message; and can be written to.
async fn holds_all(fixture: &str) {
    let dir = copied(fixture);
    let (orders, invoices) = (topic("orders"), topic("invoices"));
    for again in [false, true] {
        let broker = open(dir.path());
        let mut topics = broker.admin().topics().await.unwrap();
        topics.sort();
        assert_eq!(topics, [invoices.clone(), orders.clone()]);
        let mut messages = Vec::new();
        for partition in 0..3 {
            let part = all_of(&broker, &orders, partition).await;
            assert!(part.iter().all(|(_, key, _)| key.is_some()));
            let places: Vec<Position> = part.iter().map(|(place, _, _)| *place).collect();
            assert!(places.windows(2).all(|pair| pair[1] == pair[0].next()), "{places:?}");
            messages.extend(part);
        }
        assert_eq!(messages.len(), if again { 45 } else { 40 });
        assert_eq!(finished(&group_of(&broker, "billing").await, &orders, 40), if again { 10 } else { 15 });
        assert_eq!(finished(&group_of(&broker, "archive").await, &invoices, 2), 1);
        let about = broker.admin().describe_topic(&invoices).await.unwrap();
        assert_eq!((about.delayed, about.partitions[0].messages), (Some(1), Some(2)));
        if !again {
            // It is written as any other, and what is new lies behind what was there.
            let before = all_of(&broker, &orders, 0).await;
            let message = |n: u64| {
                let mut message = text(&format!("new {n}"));
                message.key = Some("k".into());
                message
            };
            let to = Target { topic: orders.clone(), partition: Some(0), at_least: None };
            broker.publish(&to, (0..5).map(message).collect()).await.into_result().unwrap();
            let after = all_of(&broker, &orders, 0).await;
            assert_eq!(after[..before.len()], before[..]);
            let new: Vec<&str> = after[before.len()..].iter().map(|(_, _, text)| text.as_str()).collect();
            assert_eq!(new, ["new 0", "new 1", "new 2", "new 3", "new 4"]);
        }
    }
    // Years later the delayed message comes, and there is only one.
    let clock = Arc::new(crate::TokioClock::starting_at(Timestamp::from_millis(4_100_000_000_000)));
    let broker =
        Embedded::open(dir.path(), EmbeddedSettings { clock, ..EmbeddedSettings::default() }).unwrap();
    let mut reader = broker.read().await.unwrap();
    reader.follow(&invoices, Some(0), Start::Earliest).await.unwrap();
    let mut count = 0;
    while count < 3 {
        if let Event::Batch(batch) = next_read(&mut *reader).await {
            count += batch.deliveries.len();
        }
    }
    assert_eq!(broker.admin().describe_topic(&invoices).await.unwrap().delayed, Some(0));
}

#[tokio::test]
async fn a_directory_of_every_format_whose_process_was_killed_is_opened() {
    for (fixture, expected) in [
        ("format-1-killed", 98),
        ("format-2-killed", 139),
        ("format-3-killed", 140),
        ("format-3-batches-killed", 180),
    ] {
        let dir = copied(fixture);
        let broker = open(dir.path());
        let orders = topic("orders");
        let count = all_of(&broker, &orders, 0).await.len() + all_of(&broker, &orders, 1).await.len();
        assert_eq!(count, expected, "{fixture}");
        let before = all_of(&broker, &orders, 0).await;
        let new = publish(&broker, &orders, 0, &["more"]).await;
        assert_eq!(new[0], before.last().unwrap().0.next());
    }
}

#[tokio::test]
async fn a_format_that_is_newer_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
    let mut batch = WriteBatch::new();
    let state = store.open_keyspace("state", Purpose::State).unwrap();
    batch.put(state, FORMAT_KEY, encode_number(FORMAT + 1));
    store.commit(batch, Durability::PowerLoss).unwrap();
    store.close().unwrap();
    for _ in 0..2 {
        let error = Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(&format!("format {}", FORMAT + 1)), "{error}");
    }
}
