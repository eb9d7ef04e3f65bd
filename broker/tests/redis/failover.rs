//! What becomes of publishing and consuming when another server becomes the primary, and what is told of what that lost.

use super::nodes::{Node, until};
use ropeway_broker::{
    Admin, Consumer, ConsumerExt, Durability, Epoch, Event, GapReason, GoneReason, Message, MessageBroker,
    Published, ReaderExt, RedisStreams, Start, Subscription, Target, Topic, TopicSpec,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long anything may take that must come.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// For how long nothing comes, where all has come and would come again only by a fault.
const QUIET: Duration = Duration::from_secs(1);

/// A primary, its replica, the sentinel that watches them, and a broker on them.
struct Stage {
    primary: Node,
    replica: Node,
    sentinel: Node,
    broker: Arc<RedisStreams>,
    topic: Topic,
}

impl Stage {
    async fn set(partitions: u32) -> Self {
        let primary = Node::start(None, &[]);
        let replica = primary.replica(None);
        let sentinel = primary.sentinel(&replica, None);
        let broker = Self::open(&sentinel).await;
        let topic = Topic::new("t").unwrap();
        broker.create_topic(&topic, TopicSpec::partitions(partitions)).await.unwrap();
        Self { primary, replica, sentinel, broker, topic }
    }

    async fn open(sentinel: &Node) -> Arc<RedisStreams> {
        let url = format!("redis+sentinel://127.0.0.1:{}/main?lease=2s&publish_deadline=40s", sentinel.port);
        RedisStreams::of_url(&url).await.unwrap()
    }

    fn to(&self, at_least: Option<Durability>) -> Target {
        Target { at_least, ..self.topic.clone().into() }
    }

    async fn publish(&self, number: u32, at_least: Option<Durability>) -> Published {
        let message = Message::builder().key((number % 5).to_string()).payload(number.to_string()).build();
        self.broker.publish(&self.to(at_least), vec![message]).await.0.pop().unwrap()
    }

    async fn join(&self) -> Box<dyn Consumer> {
        let group = ropeway_broker::Group::new("g").unwrap();
        let subscription =
            Subscription { start: Start::Earliest, ..Subscription::new(group, [self.topic.clone()]) };
        self.broker.subscribe(subscription).await.unwrap()
    }

    /// Lets the replica have nothing that is written from now on.
    fn cut_off(&self) {
        self.replica.signal("STOP");
        assert_eq!(self.primary.cli(&["CLIENT", "KILL", "TYPE", "replica"]), "1");
    }

    /// Kills the primary, and waits until the replica took its place.
    fn fail_over(&mut self) {
        self.primary.kill();
        self.replica.signal("CONT");
        until("the replica is the primary", || self.replica.cli(&["ROLE"]).starts_with("master"));
    }
}

pub(super) fn number(message: &Message) -> u32 {
    let payload = message.payload.clone().unwrap_or_default();
    std::str::from_utf8(&payload).unwrap().parse().unwrap()
}

/// What comes to a consumer, until nothing came for so long: numbers, in order. Everything is acked.
pub(super) async fn taken(consumer: &mut Box<dyn Consumer>, quiet: Duration) -> (Vec<u32>, Vec<Event>) {
    taken_with(consumer, quiet, |_, _| true).await
}

/// The same, but that it takes longer where what must come has not come yet.
pub(super) async fn taken_with(
    consumer: &mut Box<dyn Consumer>,
    quiet: Duration,
    enough: impl Fn(&[u32], &[Event]) -> bool,
) -> (Vec<u32>, Vec<Event>) {
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    while let Ok(event) = timeout(if enough(&numbers, &others) { quiet } else { SOON }, consumer.next()).await
    {
        match event.unwrap() {
            Event::Batch(batch) => {
                let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
                numbers.extend(batch.deliveries.iter().map(|delivery| number(&delivery.message)));
                _ = consumer.control().ack(&batch.of, &done);
            }
            other => others.push(other),
        }
    }
    (numbers, others)
}

/// Whether all of these are there.
pub(super) fn has(numbers: &[u32], all: std::ops::Range<u32>) -> bool {
    let there: BTreeSet<u32> = numbers.iter().copied().collect();
    all.into_iter().all(|number| there.contains(&number))
}

/// Whether the numbers of each key came in order; the same one may come again.
pub(super) fn in_order(numbers: &[u32]) -> bool {
    let mut seen = BTreeSet::new();
    let first: Vec<u32> = numbers.iter().copied().filter(|number| seen.insert(*number)).collect();
    (0..5).all(|key| first.iter().filter(|number| *number % 5 == key).is_sorted())
}

async fn what_replicas_have_survives_the_kill_of_a_primary_and_everybody_goes_on() {
    let mut stage = Stage::set(3).await;
    let mut consumer = stage.join().await;
    for number in 0..100 {
        let told = stage.publish(number, Some(Durability::Replicated)).await;
        assert!(matches!(told, Published::Acked { durability: Durability::Replicated, .. }), "{told:?}");
    }
    let (early, _) = taken_with(&mut consumer, QUIET, |all, _| has(all, 0..100)).await;
    assert_eq!(early.len(), 100);
    stage.primary.kill();
    for number in 100..200 {
        let told = stage.publish(number, None).await;
        assert!(matches!(told, Published::Acked { .. }), "{told:?}");
    }
    let (late, _) = taken_with(&mut consumer, QUIET, |all, _| has(all, 100..200)).await;
    let all: Vec<u32> = early.into_iter().chain(late).collect();
    assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), (0..200).collect(), "nothing is lost");
    assert!(in_order(&all), "{all:?}");
    assert_eq!(stage.replica.cli(&["ROLE"]).lines().next(), Some("master"));
    // There is no replica any more: what cannot be promised is refused.
    let refused = stage.publish(200, Some(Durability::Replicated)).await;
    assert!(
        matches!(&refused, Published::NotWritten(failed) if failed.error.to_string().contains("replica")),
        "{refused:?}"
    );
}

async fn a_primary_that_becomes_a_replica_is_left_and_no_publish_fails_by_it() {
    let stage = Stage::set(3).await;
    let mut consumer = stage.join().await;
    let mut reader = stage.broker.read().await.unwrap();
    reader.follow(&stage.topic, None, Start::Earliest).await.unwrap();
    for number in 0..400 {
        if number == 100 {
            assert_eq!(stage.sentinel.cli(&["SENTINEL", "FAILOVER", "main"]), "OK");
        }
        let told = stage.publish(number, None).await;
        assert!(matches!(told, Published::Acked { .. }), "{number}: {told:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("the replica is the primary", || stage.replica.cli(&["ROLE"]).starts_with("master"));
    let (all, _) = taken_with(&mut consumer, QUIET, |all, _| all.contains(&399)).await;
    assert!(in_order(&all), "{all:?}");
    let mut read = BTreeSet::new();
    let quiet = |read: &BTreeSet<u32>| if read.contains(&399) { QUIET } else { SOON };
    while let Ok(event) = timeout(quiet(&read), reader.next()).await {
        if let Event::Batch(batch) = event.unwrap() {
            read.extend(batch.deliveries.iter().map(|delivery| number(&delivery.message)));
        }
    }
    // What the old primary took and the new one never got was acked for no more than the old one.
    assert!(read.len() > 300 && read.contains(&399) && all.contains(&399), "{} {}", read.len(), all.len());
}

async fn the_epoch(consumer: &mut Box<dyn Consumer>) -> Epoch {
    loop {
        let event = timeout(Duration::from_secs(20), consumer.next()).await.unwrap().unwrap();
        if let Event::Assigned(assigned) = event
            && let Some(assigned) = assigned.first()
        {
            return assigned.of.epoch;
        }
    }
}

async fn what_a_failover_lost_is_told_and_no_epoch_comes_again() {
    let mut stage = Stage::set(1).await;
    let mut consumer = stage.join().await;
    let first = the_epoch(&mut consumer).await;
    for number in 0..10 {
        stage.publish(number, Some(Durability::Replicated)).await;
    }
    assert_eq!(taken_with(&mut consumer, QUIET, |all, _| has(all, 0..10)).await.0.len(), 10);
    consumer.control().close(Duration::from_secs(1)).await;
    let mut reader = stage.broker.read().await.unwrap();
    reader.follow(&stage.topic, None, Start::Earliest).await.unwrap();

    stage.cut_off();
    let mut consumer = stage.join().await;
    let second = the_epoch(&mut consumer).await;
    assert!(second > first);
    for number in 10..30 {
        let told = stage.publish(number, None).await;
        assert!(matches!(told, Published::Acked { durability: Durability::ProcessCrash, .. }), "{told:?}");
    }
    let (numbers, _) = taken_with(&mut consumer, QUIET, |all, _| has(all, 10..30)).await;
    assert_eq!(numbers, (10..30).collect::<Vec<_>>());
    assert!(consumer.control().flush().await.is_empty());
    let mut seen = Vec::new();
    while seen.len() < 30 {
        let event = timeout(SOON, reader.next()).await.unwrap().unwrap();
        if let Event::Batch(batch) = event {
            seen.extend(batch.deliveries.iter().map(|delivery| number(&delivery.message)));
        }
    }

    stage.fail_over();
    for number in 30..40 {
        let told = stage.publish(number, None).await;
        assert!(matches!(told, Published::Acked { .. }), "{told:?}");
    }
    let truncated =
        |event: &Event| matches!(event, Event::Gap { why: GapReason::Truncated, .. } | Event::Gone(..));
    let all = |numbers: &[u32], others: &[Event]| has(numbers, 30..40) && others.iter().any(truncated);
    let (late, others) = taken_with(&mut consumer, QUIET, all).await;
    assert!((30..40).all(|number| late.contains(&number)), "{late:?} {others:?}");
    let epochs: Vec<Epoch> = others
        .iter()
        .flat_map(|event| {
            if let Event::Assigned(all) = event {
                all.iter().map(|a| a.of.epoch).collect()
            } else {
                Vec::new()
            }
        })
        .collect();
    assert!(epochs.iter().all(|epoch| *epoch > second), "{second:?} {epochs:?}");
    consumer.control().close(Duration::from_secs(1)).await;
    let mut again = stage.join().await;
    let third = the_epoch(&mut again).await;
    assert!(third > second, "{third:?} after {second:?}, which was lost");

    let (mut told, mut rest) = (false, Vec::new());
    while let Ok(event) = timeout(if told && has(&rest, 30..40) { QUIET } else { SOON }, reader.next()).await
    {
        match event.unwrap() {
            Event::Batch(batch) => {
                rest.extend(batch.deliveries.iter().map(|delivery| number(&delivery.message)))
            }
            Event::Gap { why: GapReason::Truncated, .. } => told = true,
            _ => {}
        }
    }
    assert_eq!(rest, (30..40).collect::<Vec<_>>());
    assert!(told, "a reader is told that the log lost its end");
    assert!(others.iter().any(truncated), "a member is told: {others:?}");
}

async fn what_only_the_new_primary_has_is_not_passed_over_by_who_read_the_old_one() {
    let mut stage = Stage::set(1).await;
    let mut consumer = stage.join().await;
    for number in 0..5 {
        stage.publish(number, Some(Durability::Replicated)).await;
    }
    let (numbers, _) = taken_with(&mut consumer, QUIET, |all, _| has(all, 0..5)).await;
    assert_eq!(numbers, (0..5).collect::<Vec<_>>());
    assert!(consumer.control().flush().await.is_empty());
    // Both take writes, and the old one those with the later positions, as many and more.
    assert_eq!(stage.replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    let new = RedisStreams::of_url(&format!("redis://127.0.0.1:{}", stage.replica.port)).await.unwrap();
    for number in 100..110 {
        let message = Message::builder().key((number % 5).to_string()).payload(number.to_string()).build();
        let told = new.publish(&stage.to(None), vec![message]).await.0.pop().unwrap();
        assert!(matches!(told, Published::Acked { .. }), "{told:?}");
    }
    for number in 20..30 {
        let told = stage.publish(number, None).await;
        assert!(matches!(told, Published::Acked { .. }), "{told:?}");
    }
    let (old, _) = taken_with(&mut consumer, QUIET, |all, _| has(all, 20..30)).await;
    assert_eq!(old, (20..30).collect::<Vec<_>>(), "it reads the old one");
    assert!(consumer.control().flush().await.is_empty());

    stage.primary.kill();
    let lost = |event: &Event| matches!(event, Event::Gone(_, GoneReason::Lost));
    let all = |numbers: &[u32], others: &[Event]| has(numbers, 100..110) && others.iter().any(lost);
    let (late, others) = taken_with(&mut consumer, QUIET, all).await;
    assert_eq!(late, (100..110).collect::<Vec<_>>(), "{others:?}");
    assert!(others.iter().any(lost), "{others:?}");
}

async fn a_message_that_too_few_replicas_have_in_time_is_unknown_and_what_cannot_be_is_refused() {
    let stage = Stage::set(1).await;
    let url =
        |more: &str| format!("redis+sentinel://127.0.0.1:{}/main?wait=300ms{more}", stage.sentinel.port);
    let publish = async |broker: &RedisStreams| {
        let message = vec![Message::builder().payload("1").build()];
        broker.publish(&stage.to(Some(Durability::Replicated)), message).await.0.pop().unwrap()
    };
    let (one, two) =
        (RedisStreams::of_url(&url("")).await.unwrap(), RedisStreams::of_url(&url("&replicas=2")).await);
    let acked = publish(&one).await;
    assert!(matches!(acked, Published::Acked { durability: Durability::Replicated, .. }), "{acked:?}");
    let refused = publish(&two.unwrap()).await;
    assert!(
        matches!(&refused, Published::NotWritten(failed) if failed.error.to_string().contains("replicas=2")),
        "{refused:?}"
    );
    stage.replica.signal("STOP");
    let unknown = publish(&one).await;
    assert!(
        matches!(&unknown, Published::Unknown(failed) if failed.error.to_string().contains("replicas")),
        "{unknown:?}"
    );
    stage.replica.signal("CONT");
}

super::async_tests! {
    a_message_that_too_few_replicas_have_in_time_is_unknown_and_what_cannot_be_is_refused,
    what_replicas_have_survives_the_kill_of_a_primary_and_everybody_goes_on,
    a_primary_that_becomes_a_replica_is_left_and_no_publish_fails_by_it,
    what_a_failover_lost_is_told_and_no_epoch_comes_again,
    what_only_the_new_primary_has_is_not_passed_over_by_who_read_the_old_one,
}
