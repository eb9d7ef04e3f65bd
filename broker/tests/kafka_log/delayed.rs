//! Delayed messages on a real server: when they come, and that all come where the process that was to move them is killed.
//!
//! Not here: what all backends promise of them (`broker/src/conformance`), what movers decide (`broker/src/delay`).

#![expect(
    clippy::print_stdout,
    reason = "what was measured is shown, and a process of it tells its parent what it published"
)]

use crate::{
    readers::{create, stage},
    server,
};
use ropeway_broker::{
    Consumer, Event, Group, Message, MessageBroker, MessageId, Published, Subscription, Target, Timestamp,
    Topic,
};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

crate::async_tests!(
    they_come_soon_after_they_are_due_and_never_before,
    all_come_where_a_process_that_moves_them_is_killed,
    what_is_delayed_just_after_another_client_made_the_topic_again_comes,
    what_waits_for_a_topic_that_a_member_takes_up_later_comes_though_its_publisher_is_gone,
    what_is_delayed_later_comes_to_a_member_though_its_publisher_is_gone,
    a_member_moves_what_is_delayed_though_its_broker_was_dropped,
    a_broker_closes_though_nobody_waits_for_it_while_messages_are_delayed,
);

/// What a process of this program is told that it is to move messages, and of which topic.
const MOVES: &str = "ROPEWAY_TEST_KAFKA_MOVES";
const MANY: usize = 300;

fn after(millis: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().as_millis() + millis)
}

/// Publishes messages that are due one after the other, from a time on until another.
async fn put(broker: &Arc<dyn MessageBroker>, topic: &Topic, from: i64, to: i64) -> Vec<MessageId> {
    let due = |at: usize| from + (to - from) * i64::try_from(at).unwrap() / i64::try_from(MANY).unwrap();
    let batch: Vec<Message> = (0..MANY)
        .map(|at| Message::builder().key(at.to_string()).payload("x").deliver_at(after(due(at))).build())
        .collect();
    let ids = batch.iter().map(|message| message.id).collect();
    let outcomes = broker.publish(&Target::from(topic), batch).await.0;
    assert!(outcomes.iter().all(Published::is_acked), "{:?}", outcomes.iter().find(|one| !one.is_acked()));
    ids
}

async fn subscribed(broker: &Arc<dyn MessageBroker>, topic: &Topic) -> Box<dyn Consumer> {
    let group = Group::new(format!("of-{topic}-{}", MessageId::new())).unwrap();
    broker.subscribe(Subscription::new(group, [topic.clone()])).await.unwrap()
}

/// How late each came, in milliseconds, as often as it came.
async fn comes(
    consumer: &mut dyn Consumer,
    late: &mut BTreeMap<MessageId, Vec<i64>>,
    wait: Duration,
) -> bool {
    let event = match timeout(wait, poll_fn(|cx| consumer.poll_next(cx))).await {
        Ok(event) => event.unwrap(),
        Err(_) => return false,
    };
    if let Event::Batch(batch) = event {
        let now = Timestamp::now().as_millis();
        let positions: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
        for delivery in batch.deliveries {
            let due = delivery.message.deliver_at.unwrap().as_millis();
            late.entry(delivery.message.id).or_default().push(now - due);
        }
        consumer.control().ack(&batch.of, &positions).unwrap();
    }
    true
}

async fn they_come_soon_after_they_are_due_and_never_before() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 2).await;
    let mut consumer = subscribed(&broker, &topic).await;
    // The first one makes the internal topic.
    let ids = put(&broker, &topic, 4_000, 10_000).await;
    let mut late = BTreeMap::new();
    while late.len() < MANY {
        assert!(comes(&mut *consumer, &mut late, Duration::from_secs(60)).await, "{} of {MANY}", late.len());
    }
    assert!(ids.iter().all(|id| late.contains_key(id)));
    let mut all: Vec<i64> = late.into_values().flatten().collect();
    all.sort_unstable();
    let at = |of: usize| all[all.len() * of / 100];
    println!("delayed by ms: least {}, p50 {}, p99 {}, most {}", all[0], at(50), at(99), all[all.len() - 1]);
    assert!(all[0] >= 0, "it came {} ms before it was due", -all[0]);
    // What is promised holds of an idle machine.
    assert!(at(99) < 10_000, "p99 is {} ms late", at(99));
    broker.close(Duration::from_secs(10)).await;
}

async fn what_is_delayed_just_after_another_client_made_the_topic_again_comes() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 2).await;
    let gone = put(&broker, &topic, 60_000, 61_000).await;
    let other = ropeway_broker::connect(&server::url()).await.unwrap();
    // Asked for anew each time, so that it is known to the first as what it was.
    broker.admin().describe_topic(&topic).await.unwrap();
    other.admin().delete_topic(&topic).await.unwrap();
    create(&other, &topic, 2).await;
    let ids = put(&broker, &topic, 2_000, 3_000).await;
    let mut consumer = subscribed(&other, &topic).await;
    let mut late = BTreeMap::new();
    while late.len() < MANY {
        assert!(comes(&mut *consumer, &mut late, Duration::from_secs(60)).await, "{} of {MANY}", late.len());
    }
    assert!(ids.iter().all(|id| late.contains_key(id)) && gone.iter().all(|id| !late.contains_key(id)));
    broker.close(Duration::from_secs(10)).await;
}

async fn what_waits_for_a_topic_that_a_member_takes_up_later_comes_though_its_publisher_is_gone() {
    let (publisher, later) = stage().await;
    let (broker, topic) = stage().await;
    for topic in [&topic, &later] {
        create(&broker, topic, 1).await;
    }
    let mut consumer = subscribed(&broker, &topic).await;
    let ids = put(&publisher, &later, 6_000, 7_000).await;
    publisher.close(Duration::from_secs(10)).await;
    consumer.control().set_topics(vec![topic, later]).await.unwrap();
    let mut late = BTreeMap::new();
    while late.len() < MANY {
        assert!(comes(&mut *consumer, &mut late, Duration::from_secs(30)).await, "{} of {MANY}", late.len());
    }
    assert!(ids.iter().all(|id| late.contains_key(id)));
    broker.close(Duration::from_secs(10)).await;
}

/// What is published for later, by a process that is gone then, long after a member was there alone.
async fn delayed_later(drops: bool) {
    let (publisher, _) = stage().await;
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let mut consumer = subscribed(&broker, &topic).await;
    let kept = (!drops).then_some(broker);
    // It asks every 10 s whether somebody delays.
    sleep(Duration::from_secs(12)).await;
    let ids = put(&publisher, &topic, 6_000, 7_000).await;
    publisher.close(Duration::from_secs(10)).await;
    let mut late = BTreeMap::new();
    while late.len() < MANY {
        assert!(comes(&mut *consumer, &mut late, Duration::from_secs(30)).await, "{} of {MANY}", late.len());
    }
    assert!(ids.iter().all(|id| late.contains_key(id)));
    if let Some(broker) = kept {
        broker.close(Duration::from_secs(10)).await;
    }
}

async fn what_is_delayed_later_comes_to_a_member_though_its_publisher_is_gone() {
    delayed_later(false).await;
}

async fn a_member_moves_what_is_delayed_though_its_broker_was_dropped() {
    delayed_later(true).await;
}

/// Ends the process with the test.
struct Mover(Child);

impl Drop for Mover {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

async fn all_come_where_a_process_that_moves_them_is_killed() {
    let (setup, topic) = stage().await;
    create(&setup, &topic, 2).await;
    let program = Command::new(std::env::current_exe().unwrap())
        .env(MOVES, topic.as_str())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut mover = Mover(program);
    let told = BufReader::new(mover.0.stdout.take().unwrap());
    let told =
        tokio::task::spawn_blocking(move || told.lines().take(MANY).map(Result::unwrap).collect::<Vec<_>>());
    let ids: Vec<MessageId> = told.await.unwrap().iter().map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids.len(), MANY);
    // In the middle of them: this process takes over when the session of the other is over.
    let broker = ropeway_broker::connect(&format!("{}?session=6s", server::url())).await.unwrap();
    let mut consumer = subscribed(&broker, &topic).await;
    let (mut late, began) = (BTreeMap::new(), Instant::now());
    while late.len() < MANY / 3 {
        assert!(comes(&mut *consumer, &mut late, Duration::from_secs(60)).await, "{} of {MANY}", late.len());
    }
    mover.0.kill().unwrap();
    let (killed, had) = (Instant::now(), late.len());
    assert!(had < MANY, "all came before it was killed");
    while late.len() < MANY {
        assert!(comes(&mut *consumer, &mut late, Duration::from_secs(60)).await, "{} of {MANY}", late.len());
    }
    let whole = killed.elapsed();
    sleep(Duration::from_millis(500)).await;
    while comes(&mut *consumer, &mut late, Duration::from_millis(500)).await {}
    assert!(ids.iter().all(|id| late.contains_key(id)));
    let twice = late.values().filter(|times| times.len() > 1).count();
    assert!(late.values().flatten().all(|late| *late >= 0), "one came before it was due");
    println!("{had} had come after {:?}; all {whole:?} after the kill, {twice} twice", killed - began);
    broker.close(Duration::from_secs(10)).await;
}

/// Moves the messages of a topic until it is killed, where the environment says so: it publishes them first, and tells their ids.
pub(crate) fn moves() -> bool {
    let Ok(topic) = std::env::var(MOVES) else { return false };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let topic = Topic::new(topic).unwrap();
        let broker = ropeway_broker::connect(&format!("{}?session=6s", server::url())).await.unwrap();
        let mut consumer = subscribed(&broker, &topic).await;
        for id in put(&broker, &topic, 6_000, 16_000).await {
            println!("{id}");
        }
        let mut late = BTreeMap::new();
        while comes(&mut *consumer, &mut late, Duration::from_secs(120)).await {}
    });
    true
}

async fn a_broker_closes_though_nobody_waits_for_it_while_messages_are_delayed() {
    let (broker, topic) = stage().await;
    create(&broker, &topic, 1).await;
    let mut consumer = subscribed(&broker, &topic).await;
    put(&broker, &topic, 600_000, 601_000).await;
    drop(broker.close(Duration::MAX));
    let late = broker.publish(&Target::from(&topic), vec![Message::builder().build()]).await.into_result();
    assert_eq!(late.unwrap_err().kind(), ropeway_broker::ErrorKind::Closed);
    let end = timeout(Duration::from_secs(20), async {
        loop {
            if let Err(error) = poll_fn(|cx| consumer.poll_next(cx)).await {
                return error;
            }
        }
    });
    assert_eq!(end.await.unwrap().kind(), ropeway_broker::ErrorKind::Closed);
}
