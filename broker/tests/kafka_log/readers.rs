//! Readers on a real server: what happens to the log while it is read.
//!
//! Rules are those of the client library that the unsafe module tests by number (5: no partition EOF, 6: one record does not wait for others, 14: what is out of
//! range): here, that a reader keeps to them. Not here: what all backends promise (`broker/src/conformance`).

use crate::server;
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use ropeway_broker::{
    Delivery, Event, GapReason, Message, MessageBroker, MessageId, Position, Published, Reader, Retention,
    Start, Target, Topic, TopicSpec,
};
use std::{future::poll_fn, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

crate::async_tests!(
    rule_5_nothing_is_skipped_where_a_reader_waits_for_room,
    rule_6_one_message_comes_at_once,
    rule_14_a_reader_goes_on_behind_what_was_purged_while_it_reads,
    a_reader_goes_on_with_a_topic_that_is_made_again,
    a_reader_goes_on_with_a_topic_that_is_made_again_and_is_longer,
    added_partitions_are_read_from_their_beginning,
    two_readers_do_not_disturb_each_other,
    a_reader_catches_up_behind_the_marks_of_transactions,
    a_compacted_topic_can_be_purged_and_is_no_gap,
);

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker on the server, and a name that nobody used.
pub(crate) async fn stage() -> (Arc<dyn MessageBroker>, Topic) {
    let broker = ropeway_broker::connect(&server::url()).await.unwrap();
    (broker, Topic::new(format!("reader-{}", MessageId::new())).unwrap())
}

pub(crate) async fn create(broker: &Arc<dyn MessageBroker>, topic: &Topic, partitions: u32) {
    broker.admin().create_topic(topic, TopicSpec::partitions(partitions)).await.unwrap();
}

/// Publishes numbers to a partition; where they lie.
pub(crate) async fn put(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    partition: u32,
    numbers: std::ops::Range<usize>,
) -> Vec<Position> {
    let target = Target { partition: Some(partition), ..topic.into() };
    let batch = numbers.map(|number| Message::builder().payload(number.to_string()).build()).collect();
    publish(broker, &target, batch).await
}

/// Publishes to a place; where each lies.
pub(crate) async fn publish(
    broker: &Arc<dyn MessageBroker>,
    target: &Target,
    batch: Vec<Message>,
) -> Vec<Position> {
    let position = |published: Published| match published {
        Published::Acked { position, .. } => position.unwrap(),
        other => panic!("{other:?}"),
    };
    broker.publish(target, batch).await.into_iter().map(position).collect()
}

/// A reader, and what it told.
struct Reads {
    reader: Box<dyn Reader>,
    got: Vec<(u32, Position, usize)>,
    gaps: Vec<(Option<Position>, Option<Position>, GapReason, usize)>,
    caught_up: usize,
}

impl Reads {
    async fn of(broker: &Arc<dyn MessageBroker>, topic: &Topic) -> Self {
        let mut reads =
            Self { reader: broker.read().await.unwrap(), got: vec![], gaps: vec![], caught_up: 0 };
        reads.reader.follow(topic, None, Start::Earliest).await.unwrap();
        reads
    }

    async fn step(&mut self) {
        let event = timeout(PATIENCE, poll_fn(|cx| self.reader.poll_next(cx))).await;
        match event
            .unwrap_or_else(|_| panic!("nothing came; {} so far, gaps {:?}", self.got.len(), self.gaps))
            .unwrap()
        {
            Event::Batch(batch) => {
                for Delivery { position, message } in batch.deliveries {
                    let number =
                        std::str::from_utf8(message.payload.as_deref().unwrap()).unwrap().parse().unwrap();
                    self.got.push((batch.of.partition, position, number));
                }
            }
            Event::Gap { from, to, why, .. } => self.gaps.push((from, to, why, self.got.len())),
            Event::CaughtUp(_) => self.caught_up += 1,
            other => panic!("{other:?}"),
        }
    }

    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            self.step().await;
        }
    }

    /// Nothing more comes.
    async fn rests(&mut self) {
        let more = timeout(Duration::from_millis(500), poll_fn(|cx| self.reader.poll_next(cx))).await;
        assert!(more.is_err(), "{more:?}");
    }

    fn numbers(&self) -> Vec<usize> {
        self.got.iter().map(|(_, _, number)| *number).collect()
    }
}

async fn rule_5_nothing_is_skipped_where_a_reader_waits_for_room() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let mut reads = Reads::of(&broker, &topic).await;
    put(&broker, &topic, 0, 0..2500).await;
    for round in 0..4 {
        // It is full by now, and its client was told to stop; then more comes.
        sleep(Duration::from_millis(100)).await;
        put(&broker, &topic, 0, 2500 + round * 10..2510 + round * 10).await;
        reads.until(|reads| reads.got.len() >= (round + 1) * 600).await;
    }
    reads.until(|reads| reads.got.len() >= 2540).await;
    reads.rests().await;
    assert_eq!(reads.numbers(), (0..2540).collect::<Vec<_>>());
    assert!(reads.gaps.is_empty(), "{:?}", reads.gaps);
}

async fn rule_6_one_message_comes_at_once() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let mut reads = Reads::of(&broker, &topic).await;
    reads.until(|reads| reads.caught_up == 1).await;
    let mut fastest = Duration::MAX;
    for number in 0..10 {
        put(&broker, &topic, 0, number..number + 1).await;
        let acked = Instant::now();
        reads.until(|reads| reads.got.len() > number).await;
        fastest = fastest.min(acked.elapsed());
    }
    // A read of many that waits until it is full takes as long as it may wait: a second.
    assert!(fastest < Duration::from_millis(500), "{fastest:?}");
}

async fn rule_14_a_reader_goes_on_behind_what_was_purged_while_it_reads() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let mut reads = Reads::of(&broker, &topic).await;
    // More than a reader and its client hold.
    let message = |number: usize| {
        Message::builder().header("fill", "x".repeat(8192)).payload(number.to_string()).build()
    };
    let target = Target { partition: Some(0), ..(&topic).into() };
    let positions = publish(&broker, &target, (0..5000).map(message).collect()).await;
    reads.until(|reads| reads.got.len() >= 100).await;
    sleep(Duration::from_millis(100)).await;
    broker.admin().purge_topic(&topic, None, Start::At(positions[4000])).await.unwrap();
    reads.until(|reads| reads.numbers().last() == Some(&4999)).await;
    reads.rests().await;
    let [(from, to, GapReason::Trimmed, at)] = reads.gaps[..] else { panic!("{:?}", reads.gaps) };
    // What it held comes; then one gap that begins there, and ends where messages begin.
    assert_eq!(from, Some(reads.got[at - 1].1.next()));
    assert_eq!((to, to), (Some(positions[4000]), Some(reads.got[at].1)));
    let expected: Vec<usize> = (0..at).chain(4000..5000).collect();
    assert_eq!(reads.numbers(), expected);
}

async fn a_reader_goes_on_with_a_topic_that_is_made_again() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 2).await;
    let mut reads = Reads::of(&broker, &topic).await;
    let old = put(&broker, &topic, 0, 0..100).await;
    reads.until(|reads| reads.got.len() == 100 && reads.caught_up == 2).await;
    broker.admin().delete_topic(&topic).await.unwrap();
    // Nothing is told of a topic that is deleted.
    reads.rests().await;
    create(&broker, &topic, 2).await;
    let new = put(&broker, &topic, 0, 100..105).await;
    reads.until(|reads| reads.got.len() == 105 && reads.gaps.len() == 2).await;
    reads.rests().await;
    assert_eq!(reads.numbers(), (0..105).collect::<Vec<_>>());
    for (from, to, why, _) in &reads.gaps {
        assert_eq!((*from, *to, *why), (None, Some(Position(new[0].0, 0)), GapReason::Recreated));
    }
    assert_ne!(old[0].0, new[0].0);
    assert_eq!(reads.got.last().unwrap().1, new[4]);
    assert_eq!(reads.caught_up, 2, "told once for each start");
}

async fn a_reader_goes_on_with_a_topic_that_is_made_again_and_is_longer() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let mut reads = Reads::of(&broker, &topic).await;
    put(&broker, &topic, 0, 0..10).await;
    reads.until(|reads| reads.got.len() == 10).await;
    broker.admin().delete_topic(&topic).await.unwrap();
    create(&broker, &topic, 1).await;
    let new = put(&broker, &topic, 0, 100..200).await;
    reads.until(|reads| reads.gaps.len() == 1).await;
    reads.until(|reads| reads.got.len() == 110).await;
    reads.rests().await;
    // All of it comes, from the first on, and nothing of it as if it were of the old one, though there was something at the old place.
    assert_eq!(reads.numbers(), (0..10).chain(100..200).collect::<Vec<_>>());
    assert_eq!((reads.gaps[0].3, reads.got[10].1), (10, new[0]));
    assert_eq!(reads.gaps[0].2, GapReason::Recreated);
}

async fn added_partitions_are_read_from_their_beginning() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let mut whole = Reads::of(&broker, &topic).await;
    let mut one = Reads { reader: broker.read().await.unwrap(), got: vec![], gaps: vec![], caught_up: 0 };
    one.reader.follow(&topic, Some(0), Start::Latest).await.unwrap();
    broker.admin().grow_topic(&topic, 3).await.unwrap();
    put(&broker, &topic, 2, 0..20).await;
    put(&broker, &topic, 0, 20..21).await;
    whole.until(|reads| reads.got.len() == 21 && reads.caught_up == 3).await;
    let of_two: Vec<_> =
        whole.got.iter().filter(|(partition, ..)| *partition == 2).map(|got| got.2).collect();
    assert_eq!(of_two, (0..20).collect::<Vec<_>>());
    one.until(|reads| reads.got.len() == 1).await;
    one.rests_but_caught_up().await;
    assert_eq!(one.numbers(), [20], "a partition was followed, not the topic");
}

impl Reads {
    async fn rests_but_caught_up(&mut self) {
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            _ = timeout(Duration::from_millis(100), self.step()).await;
        }
    }
}

async fn two_readers_do_not_disturb_each_other() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 2).await;
    put(&broker, &topic, 0, 0..3000).await;
    let (mut slow, mut fast) = (Reads::of(&broker, &topic).await, Reads::of(&broker, &topic).await);
    slow.until(|reads| !reads.got.is_empty()).await;
    // One waits for room; the other goes on, moves, and leaves a partition.
    fast.until(|reads| reads.got.len() == 3000).await;
    fast.reader.unfollow(&topic, Some(0));
    put(&broker, &topic, 0, 3000..3001).await;
    put(&broker, &topic, 1, 3001..3002).await;
    fast.until(|reads| reads.got.len() == 3001).await;
    assert_eq!(fast.numbers().last(), Some(&3001));
    slow.until(|reads| reads.got.len() == 3002).await;
    let mut numbers = slow.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..3002).collect::<Vec<_>>());
    drop(fast);
    put(&broker, &topic, 1, 3002..3003).await;
    slow.until(|reads| reads.got.len() == 3003).await;
    assert!(slow.gaps.is_empty());
}

/// A producer of somebody else, in a transaction or not.
fn foreign(transactional: Option<&str>) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server::host());
    if let Some(id) = transactional {
        config.set("transactional.id", id);
    }
    config.create().unwrap()
}

async fn a_reader_catches_up_behind_the_marks_of_transactions() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let name = topic.to_string();
    tokio::task::spawn_blocking(move || {
        let producer = foreign(Some(&name));
        let wait = Duration::from_secs(20);
        producer.init_transactions(wait).unwrap();
        producer.begin_transaction().unwrap();
        for number in 0..3 {
            let payload = number.to_string();
            producer.send(BaseRecord::<str, str>::to(&name).payload(&payload).partition(0)).unwrap();
        }
        producer.commit_transaction(wait).unwrap();
    })
    .await
    .unwrap();
    // The mark behind them has an offset, and is no message. It is written a moment later.
    while broker.admin().describe_topic(&topic).await.unwrap().partitions[0].end.1 < 4 {
        sleep(Duration::from_millis(50)).await;
    }
    let mut reads = Reads::of(&broker, &topic).await;
    reads.until(|reads| reads.caught_up == 1).await;
    assert_eq!((reads.numbers(), reads.gaps.len()), (vec![0, 1, 2], 0));
    // Nor is it a gap.
    put(&broker, &topic, 0, 3..4).await;
    reads.until(|reads| reads.got.len() == 4).await;
    assert!(reads.gaps.is_empty(), "{:?}", reads.gaps);
}

async fn a_compacted_topic_can_be_purged_and_is_no_gap() {
    let (broker, topic) = stage().await;
    let retention = Retention { compact: true, ..Retention::default() };
    let spec = TopicSpec { partitions: 1, retention };
    broker.admin().create_topic(&topic, spec.clone()).await.unwrap();
    let described = broker.admin().describe_topic(&topic).await.unwrap();
    assert_eq!((described.spec, described.partitions[0].messages), (spec, None));
    let keyed = |number: usize| Message::builder().key("a").payload(number.to_string()).build();
    let third = publish(&broker, &(&topic).into(), (0..5).map(keyed).collect()).await[3];
    broker.admin().purge_topic(&topic, None, Start::At(third)).await.unwrap();
    let mut reads = Reads::of(&broker, &topic).await;
    reads.until(|reads| reads.caught_up == 1).await;
    assert_eq!((reads.numbers(), reads.gaps.len()), (vec![3, 4], 0));
}
