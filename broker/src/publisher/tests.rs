//! What a publisher promises, over a broker that fails on request. Not here: which message goes into which batch (`queue.rs`).

use super::*;
use crate::{
    Bound, Embedded, EmbeddedSettings, Event, MessageBrokerExt, ReaderExt, Start, TokioClock, Topic,
    TopicSpec,
    wrap::{Fault, Injection, Operation, Times},
};
use futures::{FutureExt, future::join_all};
use std::sync::atomic::{AtomicUsize, Ordering};

async fn broker() -> (Arc<Fault>, Topic) {
    let settings = EmbeddedSettings { clock: Arc::new(TokioClock::default()), ..Default::default() };
    let fault = Fault::around(Embedded::memory(settings).unwrap());
    let topic = Topic::new("t").unwrap();
    fault.admin().create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
    (fault, topic)
}

fn message(i: usize) -> Message {
    Message::builder().key(format!("k{}", i % 3)).payload(i.to_string()).build()
}

/// The payloads in the log, in order.
async fn log(broker: &dyn MessageBroker, topic: &Topic) -> Vec<usize> {
    let mut reader = broker.read().await.unwrap();
    reader.follow(topic, None, Start::Earliest).await.unwrap();
    let mut all = Vec::new();
    loop {
        match reader.next().await.unwrap() {
            Event::Batch(batch) => all.extend(batch.deliveries.iter().map(|delivery| {
                let payload = delivery.message.payload.as_deref().unwrap();
                std::str::from_utf8(payload).unwrap().parse::<usize>().unwrap()
            })),
            Event::CaughtUp(_) => return all,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_message_is_answered_once_in_any_style() {
    let (broker, topic) = broker().await;
    let publisher = Publisher::new(broker.clone(), PublisherSettings::default()).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    for i in 0..300 {
        match i % 3 {
            0 => _ = publisher.publish(&topic, message(i)).await.unwrap(),
            1 => drop(publisher.enqueue(&topic, message(i)).await.unwrap()),
            _ => {
                let told = told.clone();
                let tell = move |result: Result<Receipt, PublishFailed>| {
                    result.unwrap();
                    told.fetch_add(1, Ordering::Relaxed);
                };
                publisher.publish_with(&topic, message(i), tell).await.unwrap();
            }
        }
    }
    publisher.flush(Duration::from_secs(10)).await.unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 100);
    assert_eq!(publisher.in_flight(), 0);
    assert_eq!(log(&*broker, &topic).await, (0..300).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_publishes_more_than_the_bound_waits() {
    let (broker, topic) = broker().await;
    broker.inject(Operation::Publish, Injection::Delay(Duration::from_secs(1)), Times::Always).unwrap();
    let in_flight = Bound { messages: 4, bytes: 1 << 20 };
    let publisher =
        Publisher::new(broker.clone(), PublisherSettings { in_flight, ..Default::default() }).unwrap();
    let start = Instant::now();
    let pending: Vec<_> = join_all((0..4).map(|i| publisher.enqueue(&topic, message(i)))).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    publisher.enqueue(&topic, message(4)).await.unwrap().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    for pending in pending {
        pending.unwrap().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_gives_the_message_back() {
    let (broker, topic) = broker().await;
    let publisher = Publisher::new(broker.clone(), PublisherSettings::default()).unwrap();
    broker.inject(Operation::Publish, Injection::Refuse(ErrorKind::Throttled), Times::Next(1)).unwrap();
    let sent = message(1);
    let failed = publisher.publish(&topic, sent.clone()).await.unwrap_err();
    assert!(!failed.may_be_written);
    assert_eq!(failed.failed.message, sent);
    let missing = Topic::new("missing").unwrap();
    let failed = publisher.publish(&missing, sent.clone()).await.unwrap_err();
    assert_eq!(failed.failed.error.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn ordered_publishing_keeps_the_order_of_a_key_through_failures() {
    let (broker, topic) = broker().await;
    let share = Times::Share { probability: 0.2, seed: 11 };
    broker.inject(Operation::Publish, Injection::Refuse(ErrorKind::Unavailable), share).unwrap();
    let order = PublishOrder::Ordered { retry_for: Duration::from_secs(60) };
    let publisher =
        Publisher::new(broker.clone(), PublisherSettings { order, ..Default::default() }).unwrap();
    let mut pending = Vec::new();
    for i in 0..200 {
        pending.push(publisher.enqueue(&topic, message(i)).await.unwrap());
    }
    for result in join_all(pending).await {
        result.unwrap();
    }
    let log = log(&*broker, &topic).await;
    assert_eq!(log.len(), 200);
    for key in 0..3 {
        assert!(log.iter().filter(|i| **i % 3 == key).is_sorted());
    }
}

#[tokio::test(start_paused = true)]
async fn flush_ends_lingering_and_says_how_many_are_left() {
    let (broker, topic) = broker().await;
    let linger = Duration::from_secs(3600);
    let publisher =
        Publisher::new(broker.clone(), PublisherSettings { linger, ..Default::default() }).unwrap();
    let pending = publisher.enqueue(&topic, message(0)).await.unwrap();
    let start = Instant::now();
    publisher.flush(Duration::from_secs(5)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    pending.await.unwrap();
    broker.inject(Operation::Publish, Injection::Delay(Duration::from_secs(60)), Times::Always).unwrap();
    let pending = publisher.enqueue(&topic, message(1)).await.unwrap();
    let error = publisher.flush(Duration::from_secs(5)).await.unwrap_err();
    assert!(error.to_string().contains("1 messages"), "{error}");
    pending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_close_the_message_comes_back_and_what_was_taken_over_is_written() {
    let (broker, topic) = broker().await;
    let publisher = Publisher::new(broker.clone(), PublisherSettings::default()).unwrap();
    for i in 0..50 {
        drop(publisher.enqueue(&topic, message(i)).await.unwrap());
    }
    publisher.close(Duration::from_secs(5)).await.unwrap();
    publisher.close(Duration::from_secs(5)).await.unwrap();
    let failed = publisher.publish(&topic, message(50)).await.unwrap_err();
    assert_eq!(failed.failed.error.kind(), ErrorKind::Closed);
    assert!(!failed.may_be_written);
    assert_eq!(log(&*broker, &topic).await.len(), 50);
    broker.publish_one(&topic, message(51)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_panics_harms_nobody_else() {
    let (broker, topic) = broker().await;
    let linger = Duration::from_millis(5);
    let publisher =
        Publisher::new(broker.clone(), PublisherSettings { linger, ..Default::default() }).unwrap();
    publisher.publish_with(&topic, message(0), |_| panic!("on purpose")).await.unwrap();
    let pending = publisher.enqueue(&topic, message(1)).await.unwrap();
    pending.await.unwrap();
    publisher.flush(Duration::from_secs(5)).await.unwrap();
    assert_eq!(publisher.in_flight(), 0);
}

#[test]
fn a_runtime_that_ends_gives_messages_back_and_the_next_one_goes_on() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (broker, topic) = first.block_on(broker());
    broker.inject(Operation::Publish, Injection::Delay(Duration::from_secs(3600)), Times::Next(1)).unwrap();
    let settings = PublisherSettings { open_batches: 1, ..Default::default() };
    let publisher = Publisher::new(broker, settings).unwrap();
    let (asked, waiting) = first.block_on(async {
        let asked = publisher.enqueue(&topic, message(0)).await.unwrap();
        (asked, publisher.enqueue(&topic, message(1)).await.unwrap())
    });
    drop(first);
    let second = runtime();
    let asked = second.block_on(asked).unwrap_err();
    assert!(asked.may_be_written);
    assert_eq!(asked.failed.message.payload.as_deref(), Some(&b"0"[..]));
    let waiting = second.block_on(waiting).unwrap_err();
    assert!(!waiting.may_be_written);
    assert_eq!(waiting.failed.error.kind(), ErrorKind::Closed);
    assert_eq!(waiting.failed.message.payload.as_deref(), Some(&b"1"[..]));
    second.block_on(publisher.publish(&topic, message(2))).unwrap();
    assert_eq!(publisher.in_flight(), 0);
}

#[test]
fn a_runtime_that_ends_while_many_are_told_gives_back_what_they_published_next() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (broker, topic) = first.block_on(broker());
    let settings = PublisherSettings { linger: Duration::from_millis(5), ..Default::default() };
    let publisher = Publisher::new(broker, settings).unwrap();
    let (next,) = first.block_on(async {
        for i in 0..20 {
            drop(publisher.enqueue(&topic, message(i)).await.unwrap());
        }
        let (tell, told) = oneshot::channel();
        let (again, to) = (publisher.clone(), topic.clone());
        let publish_next = move |_| _ = tell.send(again.enqueue(&to, message(21)).now_or_never().unwrap());
        publisher.publish_with(&topic, message(20), publish_next).await.unwrap();
        (told.await.unwrap().unwrap(),)
    });
    drop(first);
    let second = runtime();
    let waits = async { timeout(Duration::from_secs(10), next).await };
    let failed = second.block_on(waits).expect("it is given back").unwrap_err();
    assert!(!failed.may_be_written);
    assert_eq!(failed.failed.error.kind(), ErrorKind::Closed);
    assert_eq!(failed.failed.message.payload.as_deref(), Some(&b"21"[..]));
    second.block_on(publisher.publish(&topic, message(22))).unwrap();
    assert_eq!(publisher.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn settings_out_of_bounds_are_refused_by_name() {
    let (broker, _) = broker().await;
    for (settings, name) in [
        (PublisherSettings { linger: Duration::MAX, ..Default::default() }, "linger"),
        (
            PublisherSettings {
                order: PublishOrder::Ordered { retry_for: Duration::MAX },
                ..Default::default()
            },
            "retry_for",
        ),
        (PublisherSettings { open_batches: 0, ..Default::default() }, "open_batches"),
    ] {
        let error = Publisher::new(broker.clone(), settings).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
