//! A member that owns many partitions: what it stores is too much for one commit, which a server writes as one batch.
//!
//! The server is told to take small ones, so that some hundreds of partitions do for some thousands. Not here: how much is read ahead (`cost.rs`), what a server takes
//! beside an offset, which cannot be changed while it runs (`broker/src/kafka/members/tests/storing.rs`).

use crate::{
    readers::{create, stage},
    server,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use ropeway_broker::{ConsumerExt, Event, Group, MessageId, Subscription, Topic};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{sleep, timeout};

crate::async_tests!(what_is_too_much_for_one_commit_is_stored_all_the_same,);

/// With names as long as they may be, a server writes some 600 bytes for each.
const PARTITIONS: u32 = 250;
const PATIENCE: Duration = Duration::from_secs(90);

/// From now on the server takes commits of so many bytes.
async fn take(bytes: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", server::host()).create().unwrap();
    // All that is set of that topic has to be named.
    let all = AlterConfig::new(ResourceSpecifier::Topic("__consumer_offsets"))
        .set("cleanup.policy", "compact")
        .set("compression.type", "producer")
        .set("segment.bytes", "104857600")
        .set("max.message.bytes", bytes);
    while !matches!(admin.alter_configs([&all], &AdminOptions::new()).await.as_deref(), Ok([Ok(_)])) {
        sleep(Duration::from_millis(200)).await;
    }
}

/// The server takes little while this is there, and what it takes by default from then on, however that ends: others are tested on it.
struct Little;

impl Little {
    async fn begin() -> Self {
        let little = Self;
        take("65536").await;
        little
    }
}

impl Drop for Little {
    fn drop(&mut self) {
        // On a thread of its own: the runtime of the test may be the one that is dropped.
        let restore = || crate::run(take("1048588"));
        assert!(
            std::thread::spawn(restore).join().is_ok() || std::thread::panicking(),
            "it takes little still"
        );
    }
}

async fn what_is_too_much_for_one_commit_is_stored_all_the_same() {
    let (broker, name) = stage().await;
    let topic = Topic::new(format!("{name}-{}", "t".repeat(248 - name.as_str().len()))).unwrap();
    create(&broker, &topic, PARTITIONS).await;
    // Beside this one, others are tested, which store less.
    let group = Group::new(format!("{}-{}", MessageId::new(), "g".repeat(200))).unwrap();
    broker.admin().describe_group(&group).await.unwrap_err();
    let little = Little::begin().await;
    let mut member = broker.subscribe(Subscription::new(group, [topic.clone()])).await.unwrap();
    let mut owned = BTreeSet::new();
    let all = async {
        while owned.len() < PARTITIONS as usize {
            if let Event::Assigned(list) = member.next().await.unwrap() {
                owned.extend(list.into_iter().map(|one| one.of.partition));
            }
        }
    };
    let all = timeout(PATIENCE, all).await;
    drop(little);
    assert!(all.is_ok(), "only {} are owned", owned.len());
    drop(member);
    _ = broker.admin().delete_topic(&topic).await;
}
