//! Segments on a disk: they are made and removed behind the back of who publishes, and a restart finds those that there are.

use super::support::*;
use crate::{Embedded, EmbeddedSettings, Event, MessageBroker, Position, Retention, Start, Topic, TopicSpec};
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
    let kept = low_and_end(&broker, &orders).await;
    for _ in 0..2 {
        drop(broker);
        broker = open(dir.path());
        assert_eq!(low_and_end(&broker, &orders).await, kept);
        let mut reader = broker.read().await.unwrap();
        reader.follow(&orders, Some(0), Start::Earliest).await.unwrap();
        let mut next = kept.0;
        while next < kept.1 {
            let Event::Batch(batch) = next_read(&mut *reader).await else { panic!() };
            for one in batch.deliveries {
                assert_eq!(one.position, next);
                next = next.next();
            }
        }
    }
    broker.admin().delete_topic(&orders).await.unwrap();
    let gone = async {
        while broker.engine().store().keyspaces().unwrap().iter().any(|name| name.starts_with("log-")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing is left of a deleted topic");
}
