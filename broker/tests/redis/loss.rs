//! What is told of what one server lost: all of it (FLUSHALL, a restart without its append-only file), its end (an older file), or single keys (eviction).
//!
//! Not here: failover to another server (`failover.rs`).

use super::{
    failover::{SOON, has, number, taken_with},
    nodes::Node,
};
use ropeway_broker::{
    Admin, Consumer, Durability, Epoch, Error, ErrorKind, Event, GapReason, GoneReason, Group, Message,
    MessageBroker, Published, Reader, ReaderExt, RedisStreams, Start, Subscription, Topic, TopicSpec,
};
use std::{collections::BTreeSet, path::Path, process::Command, sync::Arc, time::Duration};
use tokio::time::timeout;

/// For how long nothing comes where nothing more is to come: longer than a lease.
const QUIET: Duration = Duration::from_secs(3);

/// A server, a broker on it, and a topic.
struct Stage {
    server: Node,
    broker: Arc<RedisStreams>,
    topic: Topic,
    group: Group,
}

impl Stage {
    async fn set(partitions: u32, args: &[&str]) -> Self {
        let server = Node::start(None, args);
        let broker = Self::open(&server).await;
        let stage = Self { server, broker, topic: Topic::new("t").unwrap(), group: Group::new("g").unwrap() };
        stage.create(partitions).await;
        stage
    }

    async fn open(server: &Node) -> Arc<RedisStreams> {
        let url = format!("redis://127.0.0.1:{}?lease=2s", server.port);
        RedisStreams::of_url(&url).await.unwrap()
    }

    async fn create(&self, partitions: u32) {
        self.broker.create_topic(&self.topic, TopicSpec::partitions(partitions)).await.unwrap();
    }

    async fn publish(&self, number: u32) -> Published {
        let message = Message::builder().key((number % 5).to_string()).payload(number.to_string()).build();
        self.broker.publish(&self.topic.clone().into(), vec![message]).await.0.pop().unwrap()
    }

    async fn acked(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let told = self.publish(number).await;
            assert!(matches!(told, Published::Acked { .. }), "{number}: {told:?}");
        }
    }

    async fn subscribe(&self) -> Result<Box<dyn Consumer>, Error> {
        let subscription = Subscription {
            start: Start::Earliest,
            ..Subscription::new(self.group.clone(), [self.topic.clone()])
        };
        self.broker.subscribe(subscription).await
    }

    async fn follow(&self) -> Box<dyn Reader> {
        let mut reader = self.broker.read().await.unwrap();
        reader.follow(&self.topic, None, Start::Earliest).await.unwrap();
        reader
    }

    fn delete(&self, key: &str) {
        assert_eq!(self.server.cli(&["DEL", key]), "1", "{key}");
    }

    /// The whole lag of the group.
    async fn lag(&self) -> u64 {
        let group = self.broker.describe_group(&self.group).await.unwrap();
        group.partitions.iter().map(|partition| partition.lag.unwrap()).sum()
    }

    /// Publishing is refused with words that name the topic, and nothing is written.
    async fn is_refused(&self) {
        let told = self.publish(999).await;
        let named =
            |error: &Error| error.kind() == ErrorKind::NotFound && error.to_string().contains("\"t\"");
        assert!(matches!(&told, Published::NotWritten(failed) if named(&failed.error)), "{told:?}");
    }
}

/// What comes to a reader until that is enough, and then until nothing came for a while.
async fn read(
    reader: &mut Box<dyn Reader>,
    enough: impl Fn(&[u32], &[Event]) -> bool,
) -> (Vec<u32>, Vec<Event>) {
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    while let Ok(event) = timeout(if enough(&numbers, &others) { QUIET } else { SOON }, reader.next()).await {
        match event.unwrap() {
            Event::Batch(batch) => {
                numbers.extend(batch.deliveries.iter().map(|delivery| number(&delivery.message)));
            }
            other => others.push(other),
        }
    }
    (numbers, others)
}

fn gaps(events: &[Event], reason: GapReason) -> usize {
    events.iter().filter(|event| matches!(event, Event::Gap { why, .. } if *why == reason)).count()
}

fn lost(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Gone(_, GoneReason::Lost))).count()
}

/// Assignments in the order in which they came: epochs, and whether the group had a position.
fn assigned(events: &[Event]) -> Vec<(Epoch, bool)> {
    let each = |event: &Event| match event {
        Event::Assigned(all) => all.iter().map(|one| (one.of.epoch, one.resumed.is_some())).collect(),
        _ => Vec::new(),
    };
    events.iter().flat_map(each).collect()
}

/// All is gone while a publisher, a reader and a member are at work; then the topic is made again.
async fn everything_goes(stage: &mut Stage, go: impl FnOnce(&mut Node)) {
    let mut consumer = stage.subscribe().await.unwrap();
    let mut reader = stage.follow().await;
    stage.acked(0..20).await;
    assert_eq!(taken_with(&mut consumer, QUIET, |all, _| all.len() >= 20).await.0.len(), 20);
    assert_eq!(read(&mut reader, |all, _| all.len() >= 20).await.0.len(), 20);

    go(&mut stage.server);
    // What was on its way when a connection ended may have been written before all was lost.
    match stage.publish(998).await {
        Published::Unknown(failed) | Published::NotWritten(failed) => {
            assert_eq!(failed.error.kind(), ErrorKind::NotFound, "{}", failed.error);
        }
        told => panic!("{told:?}"),
    }
    stage.is_refused().await;
    let (numbers, told) = taken_with(&mut consumer, QUIET, |_, told| lost(told) >= 2).await;
    assert_eq!((numbers.len(), lost(&told)), (0, 2), "a member is told: {told:?}");
    let (numbers, told) = read(&mut reader, |_, told| gaps(told, GapReason::Truncated) >= 2).await;
    assert_eq!(
        (numbers.len(), gaps(&told, GapReason::Truncated)),
        (0, 2),
        "a reader is told, once: {told:?}"
    );
    let asked = stage.broker.describe_topic(&stage.topic).await.unwrap_err();
    assert!(asked.kind() == ErrorKind::NotFound && asked.to_string().contains("\"t\""), "{asked}");

    stage.create(2).await;
    stage.acked(20..40).await;
    let all = |all: &[u32], told: &[Event]| has(all, 20..40) && gaps(told, GapReason::Recreated) >= 2;
    let (numbers, told) = taken_with(&mut consumer, QUIET, all).await;
    assert_eq!(numbers.iter().copied().collect::<BTreeSet<_>>(), (20..40).collect(), "{told:?}");
    assert_eq!(gaps(&told, GapReason::Recreated), 2, "{told:?}");
    let (numbers, told) = read(&mut reader, all).await;
    assert_eq!(numbers.into_iter().collect::<BTreeSet<_>>(), (20..40).collect(), "{told:?}");
    assert_eq!(gaps(&told, GapReason::Recreated), 2, "{told:?}");

    // The group is known as before: it is listed, holds the topic, and its lag is counted.
    assert!(consumer.control().flush().await.is_empty());
    assert_eq!(stage.broker.groups().await.unwrap(), std::slice::from_ref(&stage.group));
    assert_eq!(stage.lag().await, 0);
    let used = stage.broker.delete_topic(&stage.topic).await.unwrap_err();
    assert_eq!(used.kind(), ErrorKind::Conflict, "{used}");
}

async fn flushall_is_told_to_all_who_are_at_work() {
    let mut stage = Stage::set(2, &[]).await;
    everything_goes(&mut stage, |server| assert_eq!(server.cli(&["FLUSHALL"]), "OK")).await;
}

async fn a_restart_without_its_append_only_file_is_told_to_all_who_are_at_work() {
    let mut stage = Stage::set(2, &[]).await;
    everything_goes(&mut stage, |server| {
        server.kill();
        std::fs::remove_dir_all(server.dir().join("appendonlydir")).unwrap();
        server.up();
    })
    .await;
}

async fn flushall_while_nobody_is_at_work_is_told_to_who_comes_and_a_group_begins_anew() {
    let stage = Stage::set(1, &[]).await;
    let mut consumer = stage.subscribe().await.unwrap();
    stage.acked(0..5).await;
    assert_eq!(taken_with(&mut consumer, QUIET, |all, _| all.len() >= 5).await.0.len(), 5);
    consumer.control().close(Duration::from_secs(1)).await;
    assert_eq!(stage.server.cli(&["FLUSHALL"]), "OK");
    // Longer than a description is believed.
    tokio::time::sleep(Duration::from_millis(1100)).await;

    stage.is_refused().await;
    let named = |error: Error| (error.kind(), error.to_string().contains("\"t\""));
    assert_eq!(stage.subscribe().await.map(|_| ()).map_err(named), Err((ErrorKind::NotFound, true)));
    let mut reader = stage.broker.read().await.unwrap();
    let followed = reader.follow(&stage.topic, None, Start::Earliest).await;
    assert_eq!(followed.map_err(named), Err((ErrorKind::NotFound, true)));
    assert_eq!(stage.broker.describe_group(&stage.group).await.unwrap_err().kind(), ErrorKind::NotFound);

    stage.create(1).await;
    stage.acked(5..8).await;
    let mut consumer = stage.subscribe().await.unwrap();
    let (numbers, told) = taken_with(&mut consumer, QUIET, |all, _| has(all, 5..8)).await;
    assert_eq!(numbers, [5, 6, 7]);
    assert!(matches!(assigned(&told)[..], [(_, false)]), "it begins anew: {told:?}");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

async fn a_restart_with_an_older_append_only_file_is_told_to_all_who_are_at_work() {
    let mut stage = Stage::set(1, &[]).await;
    let mut consumer = stage.subscribe().await.unwrap();
    let mut reader = stage.follow().await;
    stage.acked(0..10).await;
    let (numbers, told) = taken_with(&mut consumer, QUIET, |all, _| all.len() >= 10).await;
    let first = assigned(&told)[0].0;
    assert_eq!(numbers.len(), 10);
    assert_eq!(read(&mut reader, |all, _| all.len() >= 10).await.0.len(), 10);
    assert!(consumer.control().flush().await.is_empty());
    let (now, old) = (stage.server.dir().join("appendonlydir"), stage.server.dir().join("old"));
    copy(&now, &old);
    stage.acked(10..30).await;
    assert_eq!(taken_with(&mut consumer, QUIET, |all, _| all.len() >= 20).await.0.len(), 20);
    assert_eq!(read(&mut reader, |all, _| all.len() >= 20).await.0.len(), 20);
    assert!(consumer.control().flush().await.is_empty());

    stage.server.kill();
    std::fs::remove_dir_all(&now).unwrap();
    copy(&old, &now);
    stage.server.up();
    stage.acked(30..40).await;
    let (numbers, told) = taken_with(&mut consumer, QUIET, |all, told| {
        has(all, 30..40) && gaps(told, GapReason::Truncated) + lost(told) > 0
    })
    .await;
    assert!((30..40).all(|number| numbers.contains(&number)), "{numbers:?} {told:?}");
    assert!(gaps(&told, GapReason::Truncated) + lost(&told) > 0, "a member is told: {told:?}");
    assert!(assigned(&told).iter().all(|(epoch, _)| *epoch > first), "{told:?}");
    let (numbers, told) =
        read(&mut reader, |all, told| has(all, 30..40) && gaps(told, GapReason::Truncated) > 0).await;
    assert_eq!(numbers, (30..40).collect::<Vec<_>>());
    assert_eq!(gaps(&told, GapReason::Truncated), 1, "a reader is told: {told:?}");
}

async fn a_log_that_goes_alone_is_told_as_a_gap_to_all_and_publishing_goes_on() {
    let stage = Stage::set(2, &[]).await;
    let idle = Subscription::new(Group::new("idle").unwrap(), [stage.topic.clone()]);
    let mut consumer =
        stage.broker.subscribe(Subscription { start: Start::Earliest, ..idle.clone() }).await.unwrap();
    stage.acked(0..10).await;
    assert_eq!(taken_with(&mut consumer, QUIET, |all, _| all.len() >= 10).await.0.len(), 10);
    consumer.control().close(Duration::from_secs(1)).await;
    let mut consumer = stage.subscribe().await.unwrap();
    let mut reader = stage.follow().await;
    stage.acked(10..20).await;
    assert_eq!(taken_with(&mut consumer, QUIET, |all, _| all.len() >= 20).await.0.len(), 20);
    assert_eq!(read(&mut reader, |all, _| all.len() >= 20).await.0.len(), 20);

    for partition in 0..2 {
        stage.delete(&format!("ropeway:{{t/{partition}}}:log"));
    }
    // Nobody publishes: it is found out all the same.
    let (numbers, told) = read(&mut reader, |_, told| gaps(told, GapReason::Trimmed) >= 2).await;
    assert_eq!((numbers.len(), gaps(&told, GapReason::Trimmed)), (0, 2), "{told:?}");
    let (numbers, told) =
        taken_with(&mut consumer, QUIET, |_, told| gaps(told, GapReason::Trimmed) >= 2).await;
    assert_eq!((numbers.len(), gaps(&told, GapReason::Trimmed)), (0, 2), "{told:?}");
    stage.acked(20..40).await;
    let all: BTreeSet<u32> = (20..40).collect();
    assert_eq!(
        taken_with(&mut consumer, QUIET, |all, _| has(all, 20..40))
            .await
            .0
            .into_iter()
            .collect::<BTreeSet<_>>(),
        all
    );
    assert_eq!(
        read(&mut reader, |all, _| has(all, 20..40)).await.0.into_iter().collect::<BTreeSet<_>>(),
        all
    );
    assert!(consumer.control().flush().await.is_empty());
    assert_eq!(stage.lag().await, 0);
    consumer.control().close(Duration::from_secs(1)).await;

    // Who was not there is told when he comes, and counted right before that.
    let there = stage.broker.describe_group(&idle.group).await.unwrap();
    assert_eq!(there.partitions.iter().map(|partition| partition.lag.unwrap()).sum::<u64>(), 20);
    let mut consumer = stage.broker.subscribe(idle).await.unwrap();
    let (numbers, told) =
        taken_with(&mut consumer, QUIET, |all, told| has(all, 20..40) && gaps(told, GapReason::Trimmed) >= 2)
            .await;
    assert_eq!(numbers.into_iter().collect::<BTreeSet<_>>(), all);
    assert_eq!(gaps(&told, GapReason::Trimmed), 2, "{told:?}");
}

async fn a_log_that_goes_alone_is_told_to_who_publishes_and_it_is_made_again_for_the_next() {
    let stage = Stage::set(1, &[]).await;
    stage.acked(0..3).await;
    stage.delete("ropeway:{t/0}:log");
    stage.is_refused().await;
    stage.acked(3..6).await;
    stage.delete("ropeway:{t/0}:log");
    let asked = stage.broker.describe_topic(&stage.topic).await.unwrap_err();
    assert!(asked.to_string().contains("evicted"), "{asked}");
    assert_eq!(stage.broker.describe_topic(&stage.topic).await.unwrap().partitions[0].messages, Some(0));
    // A topic that is deleted is none that lost something.
    stage.broker.delete_topic(&stage.topic).await.unwrap();
    stage.is_refused().await;
    stage.is_refused().await;
    assert_eq!(stage.server.cli(&["EXISTS", "ropeway:{t/0}:log", "ropeway:{t/0}:part"]), "0");
}

async fn marks_that_go_alone_are_made_again_and_nothing_is_skipped() {
    let stage = Stage::set(1, &[]).await;
    let mut consumer = stage.subscribe().await.unwrap();
    let mut reader = stage.follow().await;
    stage.acked(0..10).await;
    assert_eq!(taken_with(&mut consumer, QUIET, |all, _| all.len() >= 10).await.0.len(), 10);
    assert_eq!(read(&mut reader, |all, _| all.len() >= 10).await.0.len(), 10);
    stage.delete("ropeway:{t/0}:part");
    stage.acked(10..20).await;
    let (numbers, told) = taken_with(&mut consumer, QUIET, |all, _| has(all, 10..20)).await;
    assert_eq!(numbers.into_iter().collect::<BTreeSet<_>>(), (10..20).collect(), "{told:?}");
    let (numbers, told) = read(&mut reader, |all, _| has(all, 10..20)).await;
    assert_eq!(numbers, (10..20).collect::<Vec<_>>(), "{told:?}");
    stage.acked(20..30).await;
    assert_eq!(
        taken_with(&mut consumer, QUIET, |all, _| has(all, 20..30)).await.0,
        (20..30).collect::<Vec<_>>()
    );
    assert_eq!(read(&mut reader, |all, _| has(all, 20..30)).await.0, (20..30).collect::<Vec<_>>());
    assert!(consumer.control().flush().await.is_empty());
    assert_eq!(stage.lag().await, 0);
}

async fn what_a_group_has_of_a_partition_goes_alone_and_all_comes_again() {
    let stage = Stage::set(1, &[]).await;
    let mut consumer = stage.subscribe().await.unwrap();
    stage.acked(0..10).await;
    let (_, told) = taken_with(&mut consumer, QUIET, |all, _| all.len() >= 10).await;
    let first = assigned(&told)[0].0;
    stage.delete("ropeway:{t/0}:group:g");
    stage.acked(10..20).await;
    let (numbers, told) =
        taken_with(&mut consumer, QUIET, |all, told| has(all, 0..20) && lost(told) > 0).await;
    assert_eq!(
        numbers.into_iter().collect::<BTreeSet<_>>(),
        (0..20).collect(),
        "nothing is skipped: {told:?}"
    );
    assert_eq!(lost(&told), 1, "{told:?}");
    assert!(assigned(&told).iter().all(|(epoch, resumed)| *epoch > first && !resumed), "{told:?}");
    assert!(consumer.control().flush().await.is_empty());
    assert_eq!(stage.lag().await, 0);
}

async fn what_a_group_knows_of_its_members_goes_key_by_key_and_it_goes_on() {
    let stage = Stage::set(2, &[]).await;
    let mut consumer = stage.subscribe().await.unwrap();
    let mut next = 0;
    for key in ["members", "asked", "owners", "news", "starts"] {
        stage.delete(&format!("ropeway:{{group/g}}:{key}"));
        stage.acked(next..next + 10).await;
        let (numbers, told) = taken_with(&mut consumer, QUIET, |all, _| has(all, next..next + 10)).await;
        let numbers: BTreeSet<u32> = numbers.into_iter().collect();
        assert!((next..next + 10).all(|number| numbers.contains(&number)), "{key}: {numbers:?} {told:?}");
        next += 10;
    }
}

async fn a_server_that_evicts_promises_nothing_and_tells_what_it_took() {
    let args = ["--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru"];
    let stage = Stage::set(2, &args).await;
    let mut reader = stage.follow().await;
    let mut consumer = stage.subscribe().await.unwrap();
    let (mut acked, mut refused) = (BTreeSet::new(), 0);
    let filling = "x".repeat(20_000);
    for number in 0..1500u32 {
        let message = Message::builder()
            .key(number.to_string())
            .header("filling", filling.as_str())
            .payload(number.to_string());
        match stage.broker.publish(&stage.topic.clone().into(), vec![message.build()]).await.0.pop().unwrap()
        {
            Published::Acked { durability, .. } => {
                assert_eq!(durability, Durability::Volatile);
                acked.insert(number);
            }
            Published::NotWritten(failed) => {
                let kinds = [ErrorKind::NotFound, ErrorKind::Full];
                assert!(kinds.contains(&failed.error.kind()), "{}", failed.error);
                refused += 1;
                if stage.broker.describe_topic(&stage.topic).await.is_err() {
                    // Its description went.
                    _ = stage.broker.create_topic(&stage.topic, TopicSpec::partitions(2)).await;
                }
            }
            Published::Unknown(failed) => panic!("{}", failed.error),
        }
    }
    assert!(refused > 0, "the server evicted something");
    let all = |numbers: &[u32]| numbers.iter().copied().collect::<BTreeSet<_>>() == acked;
    let is_told = |event: &Event| matches!(event, Event::Gap { .. });
    let (numbers, told) = read(&mut reader, |numbers, told| all(numbers) || told.iter().any(is_told)).await;
    assert!(numbers.iter().all(|number| acked.contains(number)));
    assert!(all(&numbers) || told.iter().any(is_told), "{told:?}");
    // Where what says who owns it went, it is told as gone when the member has had its time to finish.
    let is_told = |event: &Event| matches!(event, Event::Gap { .. } | Event::Gone(..));
    let enough = |numbers: &[u32], told: &[Event]| all(numbers) || told.iter().any(is_told);
    let (numbers, told) = taken_with(&mut consumer, QUIET, enough).await;
    assert!(all(&numbers) || told.iter().any(is_told), "{told:?}");
}

super::async_tests! {
    flushall_is_told_to_all_who_are_at_work,
    flushall_while_nobody_is_at_work_is_told_to_who_comes_and_a_group_begins_anew,
    a_restart_without_its_append_only_file_is_told_to_all_who_are_at_work,
    a_restart_with_an_older_append_only_file_is_told_to_all_who_are_at_work,
    a_log_that_goes_alone_is_told_as_a_gap_to_all_and_publishing_goes_on,
    a_log_that_goes_alone_is_told_to_who_publishes_and_it_is_made_again_for_the_next,
    marks_that_go_alone_are_made_again_and_nothing_is_skipped,
    what_a_group_has_of_a_partition_goes_alone_and_all_comes_again,
    what_a_group_knows_of_its_members_goes_key_by_key_and_it_goes_on,
    a_server_that_evicts_promises_nothing_and_tells_what_it_took,
}
