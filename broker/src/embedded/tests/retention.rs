//! Segments on a disk: they are made and removed behind the back of who publishes, and a restart finds those that there are. What the disk may
//! take is bounded.

use super::support::*;
use crate::{
    Durability, Embedded, EmbeddedSettings, Error, ErrorKind, Event, Health, MessageBroker, Position,
    Published, Retention, Start, Topic, TopicSpec,
};
use std::{path::Path, sync::Arc, time::Duration};

const KIB: u64 = 1024;

fn open(dir: &Path) -> Arc<Embedded> {
    let settings = EmbeddedSettings { segment: 64 * KIB, ..EmbeddedSettings::default() };
    Embedded::open(dir, settings).unwrap()
}

async fn low_and_end(broker: &Embedded, topic: &Topic) -> (Position, Position) {
    let about = broker.admin().describe_topic(topic).await.unwrap();
    (about.partitions[0].low, about.partitions[0].end)
}

#[tokio::test]
async fn segments_come_and_go_on_the_disk_and_a_restart_goes_on_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open(dir.path());
    let orders = topic("orders");
    let retention = Retention { bytes: Some(256 * KIB), ..Retention::default() };
    let spec = TopicSpec { retention, ..TopicSpec::partitions(1) };
    broker.admin().create_topic(&orders, spec).await.unwrap();
    let payload = "x".repeat(1000);
    let removed = async {
        loop {
            publish(&broker, &orders, 0, &[&*payload; 8]).await;
            if low_and_end(&broker, &orders).await.0.1 > 100 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, removed).await.expect("the oldest segments go");
    let mut kept = low_and_end(&broker, &orders).await;
    for _ in 0..2 {
        drop(broker);
        broker = open(dir.path());
        // What is behind the bound goes when there is time for it, before the restart or after; nothing else does.
        let found = low_and_end(&broker, &orders).await;
        assert!(found.0 >= kept.0 && found.1 == kept.1, "{kept:?} became {found:?}");
        kept = found;
        let mut reader = broker.read().await.unwrap();
        reader.follow(&orders, Some(0), Start::Earliest).await.unwrap();
        let mut next: Option<Position> = None;
        while next.is_none_or(|next| next < kept.1) {
            // Retention may have passed where it began to read.
            let Event::Batch(batch) = next_read(&mut *reader).await else { continue };
            for one in batch.deliveries {
                assert_eq!(one.position, *next.get_or_insert(one.position));
                assert!(one.position >= kept.0);
                next = next.map(Position::next);
            }
        }
        let (low, end) = low_and_end(&broker, &orders).await;
        assert!((end.1 - low.1) * 1_200 >= 256 * KIB, "less is kept than retention says: {low:?} to {end:?}");
    }
    broker.admin().delete_topic(&orders).await.unwrap();
    let gone = async {
        while broker.engine().store().keyspaces().unwrap().iter().any(|name| name.starts_with("log-")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing is left of a deleted topic");
}

/// Publishes until it is refused for want of room, and answers why.
async fn fill(broker: &Embedded, topic: &Topic, payload: &str) -> Error {
    let refused = async {
        loop {
            let outcomes = broker.publish(&topic.into(), vec![text(payload); 64]).await;
            let failed = outcomes.0.into_iter().find_map(|published| match published {
                Published::Acked { .. } => None,
                Published::NotWritten(failed) => Some(failed),
                unknown => panic!("{unknown:?}"),
            });
            if let Some(failed) = failed {
                assert_eq!(failed.message.payload.as_deref(), Some(payload.as_bytes()), "given back");
                return failed.error;
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the disk is bounded")
}

#[tokio::test]
async fn a_directory_that_takes_all_it_may_refuses_to_publish_and_recovers_when_room_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        max_disk: 100 * KIB * KIB,
        durability: Durability::ProcessCrash,
        ..EmbeddedSettings::default()
    };
    let broker = Embedded::open(dir.path(), settings).unwrap();
    let (orders, others) = (make(&broker, "orders", 1).await, make(&broker, "others", 1).await);
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    let error = fill(&broker, &orders, &"x".repeat(16 * 1024)).await;
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert!(error.to_string().contains("`max_disk` allows 104857600"), "{error}");
    let health = broker.health().await;
    assert!(matches!(&health, Health::Degraded(why) if why.contains("max_disk")), "{health:?}");
    assigned(&mut *consumer).await;
    let (of, got) = batch(&mut *consumer).await;
    let done: Vec<Position> = got.iter().map(|(position, _)| *position).collect();
    consumer.control().ack(&of, &done).unwrap();
    assert!(consumer.control().flush().await.is_empty(), "acks are stored");
    drop(consumer);
    broker.admin().delete_topic(&orders).await.unwrap();
    let works = async {
        while !broker.publish(&(&others).into(), vec![text("x")]).await.all_acked() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, works).await.expect("room came back");
    assert_eq!(broker.health().await, Health::Up);
}

#[tokio::test]
async fn what_must_stay_free_on_the_file_system_stays() {
    let dir = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings { min_free: u64::MAX / 2, ..EmbeddedSettings::default() };
    let broker = Embedded::open(dir.path(), settings).unwrap();
    let orders = make(&broker, "orders", 1).await;
    let error = fill(&broker, &orders, "x").await;
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert!(error.to_string().contains("`min_free`"), "{error}");
    broker.admin().delete_topic(&orders).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_gone_is_written_to_no_more_and_that_is_told() {
    let place = tempfile::tempdir().unwrap();
    let (dir, aside) = (place.path().join("data"), place.path().join("aside"));
    let broker = open(&dir);
    let orders = make(&broker, "orders", 1).await;
    publish(&broker, &orders, 0, &["a"]).await;
    std::fs::rename(&dir, &aside).unwrap();
    let told = async {
        loop {
            if let Health::Down(why) = broker.health().await {
                break why;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let why = tokio::time::timeout(PATIENCE, told).await.expect("it is noticed");
    assert!(why.contains("open it again"), "{why}");
    let outcomes = broker.publish(&(&orders).into(), vec![text("b")]).await;
    let Published::NotWritten(failed) = &outcomes.0[0] else { panic!("{outcomes:?}") };
    let cause = std::error::Error::source(&failed.error).unwrap();
    assert!(cause.to_string().contains(&*dir.to_string_lossy()), "{cause}");
}
