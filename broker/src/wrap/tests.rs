//! What the wrappers add. That they keep the contract is checked by the conformance suite, which runs over them as over any backend.

use super::*;
use crate::{
    Consumer, ConsumerExt, Embedded, EmbeddedSettings, ErrorKind, Event, GoneReason, Group, Message,
    MessageBroker, MessageBrokerExt, Owned, Published, Subscription, Target, TokioClock, Topic, TopicSpec,
};
use prometheus::{Encoder, Registry, TextEncoder};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

fn memory() -> Arc<dyn MessageBroker> {
    let settings = EmbeddedSettings { clock: Arc::new(TokioClock::default()), ..Default::default() };
    Embedded::memory(settings).unwrap()
}

async fn topic(broker: &dyn MessageBroker) -> Topic {
    let topic = Topic::new("orders").unwrap();
    broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
    topic
}

fn message(text: &str) -> Message {
    Message::builder().payload(text.to_owned()).build()
}

async fn join(broker: &dyn MessageBroker, topic: &Topic) -> (Box<dyn Consumer>, Owned) {
    let subscription = Subscription::new(Group::new("billing").unwrap(), [topic.clone()]);
    let mut consumer = broker.subscribe(subscription).await.unwrap();
    let Event::Assigned(assigned) = consumer.next().await.unwrap() else { panic!("not assigned") };
    (consumer, assigned[0].of.clone())
}

/// Skips what is not asked for.
async fn until<T>(consumer: &mut Box<dyn Consumer>, pick: impl Fn(Event) -> Option<T>) -> T {
    loop {
        if let Some(picked) = pick(consumer.next().await.unwrap()) {
            return picked;
        }
    }
}

async fn length(broker: &dyn MessageBroker, topic: &Topic) -> u64 {
    broker.admin().describe_topic(topic).await.unwrap().partitions[0].messages.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_meter_counts_by_topic_group_and_outcome() {
    let registry = Registry::new();
    let broker = Meter::around(memory(), &registry).unwrap();
    let topic = topic(&*broker).await;
    let batch = vec![message("1"), message("2"), message(&"x".repeat(6 << 20))];
    assert_eq!(
        broker.publish(&Target::from(&topic), batch).await.0.iter().filter(|p| p.is_acked()).count(),
        2
    );
    let missing = Topic::new("made.up").unwrap();
    broker.publish_one(&missing, message("3")).await.unwrap_err();
    let (mut consumer, of) = join(&*broker, &topic).await;
    let batch = until(&mut consumer, |event| match event {
        Event::Batch(batch) => Some(batch),
        _ => None,
    })
    .await;
    let out = vec![(Target::from(&topic), message("4")), (Target::from(&topic), message("5"))];
    let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
    assert!(consumer.control().forward(&of, &done, out).await.all_acked());
    let text = || {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let shown = text();
    for line in [
        r#"messaging_client_sent_messages_total{destination="orders",error_type="",system="memory"} 4"#,
        r#"messaging_client_sent_messages_total{destination="orders",error_type="too_large",system="memory"} 1"#,
        r#"messaging_client_sent_messages_total{destination="_other",error_type="not_found",system="memory"} 1"#,
        r#"messaging_client_consumed_messages_total{consumer_group="billing",destination="orders",system="memory"} 2"#,
        r#"messaging_client_operation_duration_seconds_count{destination="orders",operation="forward",system="memory"} 1"#,
        r#"ropeway_consumer_assigned_partitions{consumer_group="billing",system="memory"} 1"#,
    ] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
    assert!(!shown.contains("made.up"));
    drop(consumer);
    let gone = r#"ropeway_consumer_assigned_partitions{consumer_group="billing",system="memory"} 0"#;
    assert!(text().contains(gone));
    assert_eq!(Meter::around(memory(), &registry).unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_publishing_is_told_and_done_as_it_says() {
    let unavailable = ErrorKind::Unavailable;
    for (injection, in_log, told) in [
        (Injection::Refuse(unavailable), 0, "not written"),
        (Injection::LoseRequest(unavailable), 0, "unknown"),
        (Injection::LoseAnswer(unavailable), 1, "unknown"),
        (Injection::Duplicate, 2, "acked"),
        (Injection::Delay(Duration::from_secs(5)), 1, "acked"),
    ] {
        let broker = Fault::around(memory());
        let topic = topic(&*broker).await;
        broker.inject(Operation::Publish, injection, Times::Next(1)).unwrap();
        let start = Instant::now();
        let outcome = broker.publish(&Target::from(&topic), vec![message("1")]).await.0.remove(0);
        let seen = match &outcome {
            Published::Acked { .. } => "acked",
            Published::NotWritten(_) => "not written",
            Published::Unknown(_) => "unknown",
        };
        assert_eq!(seen, told, "{injection:?}");
        assert_eq!(length(&*broker, &topic).await, in_log, "{injection:?}");
        assert_eq!(start.elapsed() >= Duration::from_secs(5), matches!(injection, Injection::Delay(_)));
        if let Some(failed) = outcome.failed() {
            assert_eq!(failed.message.payload.as_deref(), Some(&b"1"[..]));
        }
        broker.publish_one(&topic, message("2")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_failed_message_by_message() {
    let broker = Fault::around(memory());
    let topic = topic(&*broker).await;
    broker.inject(Operation::Publish, Injection::Refuse(ErrorKind::Throttled), Times::Next(1)).unwrap();
    broker.inject(Operation::Publish, Injection::Duplicate, Times::Next(1)).unwrap();
    let batch = ["1", "2", "3"].map(message).to_vec();
    let acked: Vec<bool> =
        broker.publish(&Target::from(&topic), batch).await.0.iter().map(Published::is_acked).collect();
    assert_eq!(acked, [false, true, true]);
    assert_eq!(length(&*broker, &topic).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_drains_or_is_lost_and_comes_back_with_a_new_epoch() {
    let broker = Fault::around(memory());
    let topic = topic(&*broker).await;
    let (mut consumer, mut of) = join(&*broker, &topic).await;
    for (how, reason) in [
        (Revoke::Lost, GoneReason::Lost),
        (Revoke::Drain(Duration::from_secs(3)), GoneReason::DrainOver),
        (Revoke::Drain(Duration::from_secs(3)), GoneReason::GivenUp),
    ] {
        broker.revoke(&topic, 0, how);
        let start = Instant::now();
        if matches!(how, Revoke::Drain(_)) {
            let revoking = until(&mut consumer, |event| match event {
                Event::Revoking { partitions, .. } => Some(partitions),
                _ => None,
            })
            .await;
            assert_eq!(revoking, [of.clone()]);
        }
        if reason == GoneReason::GivenUp {
            consumer.control().give_up(&of);
        }
        let gone = until(&mut consumer, |event| match event {
            Event::Gone(of, reason) => Some((of, reason)),
            _ => None,
        })
        .await;
        assert_eq!(gone, (of.clone(), reason));
        assert_eq!(start.elapsed() >= Duration::from_secs(3), reason == GoneReason::DrainOver);
        let again = until(&mut consumer, |event| match event {
            Event::Assigned(mut assigned) => assigned.pop(),
            _ => None,
        })
        .await;
        assert!(again.of.epoch > of.epoch);
        of = again.of;
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_ended_tells_what_it_lost_first() {
    let broker = Fault::around(memory());
    let topic = topic(&*broker).await;
    let (mut consumer, of) = join(&*broker, &topic).await;
    broker.inject(Operation::Ack, Injection::Refuse(ErrorKind::Unavailable), Times::Next(1)).unwrap();
    assert_eq!(consumer.control().ack(&of, &[]).unwrap_err().kind(), ErrorKind::Unavailable);
    broker.inject(Operation::Poll, Injection::Refuse(ErrorKind::Fenced), Times::Next(1)).unwrap();
    let Event::Gone(gone, GoneReason::Lost) = consumer.next().await.unwrap() else { panic!("not gone") };
    assert_eq!(gone, of);
    for _ in 0..2 {
        assert_eq!(consumer.next().await.unwrap_err().kind(), ErrorKind::Fenced);
    }
    broker.heal();
    broker.inject(Operation::Admin, Injection::Refuse(ErrorKind::Unauthorized), Times::Next(1)).unwrap();
    assert_eq!(broker.admin().topics().await.unwrap_err().kind(), ErrorKind::Unauthorized);
    assert_eq!(broker.admin().topics().await.unwrap().len(), 1);
}
