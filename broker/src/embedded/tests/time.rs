//! What depends on the clock: delay, retention, remembered ids, and starting at a time.

use super::support::*;
use crate::{
    Event, Message, MessageBroker, MessageId, Published, ReaderExt, Retention, Start, Timestamp, TopicSpec,
};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_delayed_message_comes_at_its_time_and_never_early() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let mut reader = broker.read().await.unwrap();
    reader.follow(&orders, None, Start::Earliest).await.unwrap();
    assert!(matches!(next_read(&mut *reader).await, Event::CaughtUp(_)));
    let begun = Instant::now();
    let due = Timestamp::from_millis(1_700_000_000_000) + Duration::from_secs(5);
    let id = MessageId::new();
    let later = Message::builder().id(id).payload("later").deliver_at(due).build();
    let kept = Message::builder().payload("kept").deliver_at(due + Duration::from_secs(1)).build();
    let mut waiting = tokio::spawn(async move {
        let first = next_read(&mut *reader).await;
        (first, Instant::now(), reader)
    });
    tokio::task::yield_now().await;
    let outcomes = broker.publish(&(&orders).into(), vec![later, kept.clone()]).await;
    assert!(outcomes.0.iter().all(|p| matches!(p, Published::Acked { position: None, .. })));
    assert_eq!(broker.admin().describe_topic(&orders).await.unwrap().delayed, Some(2));
    let (event, at, mut reader) = (&mut waiting).await.unwrap();
    let Event::Batch(batch) = event else { panic!("{event:?}") };
    assert_eq!(texts(&contents(&batch)), ["later"]);
    assert!(at - begun >= Duration::from_secs(5), "{:?}", at - begun);
    assert!(!broker.admin().cancel_delayed(&orders, id).await.unwrap(), "it came already");
    assert!(broker.admin().cancel_delayed(&orders, kept.id).await.unwrap());
    assert!(!broker.admin().cancel_delayed(&orders, kept.id).await.unwrap(), "twice is once");
    assert_eq!(broker.admin().describe_topic(&orders).await.unwrap().delayed, Some(0));
    assert!(tokio::time::timeout(Duration::from_secs(60), reader.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_id_that_comes_again_within_the_window_is_acked_and_not_written() {
    let broker = memory_with(|settings| {
        settings.dedup_window = Some(Duration::from_secs(60));
        settings.dedup_count = 2;
    });
    let orders = make(&broker, "orders", 1).await;
    let message = text("once");
    for (n, batch) in [vec![message.clone(), message.clone()], vec![message.clone()]].into_iter().enumerate()
    {
        let outcomes = broker.publish(&(&orders).into(), batch).await;
        let repeat = outcomes.0.last().unwrap();
        assert!(matches!(repeat, Published::Acked { position: None, .. }), "{n}: {repeat:?}");
    }
    let end = async || broker.admin().describe_topic(&orders).await.unwrap().partitions[0].end.1;
    assert_eq!(end().await, 1);
    tokio::time::advance(Duration::from_secs(61)).await;
    broker.publish(&(&orders).into(), vec![message.clone()]).await.into_result().unwrap();
    assert_eq!(end().await, 2, "the window is over");
    for other in ["x", "y"] {
        broker.publish(&(&orders).into(), vec![text(other)]).await.into_result().unwrap();
    }
    broker.publish(&(&orders).into(), vec![message]).await.into_result().unwrap();
    assert_eq!(end().await, 5, "of more than 2 the oldest is forgotten");
}

#[tokio::test(start_paused = true)]
async fn retention_removes_by_age_and_bytes_and_waits_for_live_groups() {
    let broker = memory_with(|settings| {
        settings.group_expiry = Duration::from_secs(3600);
        settings.segment = 1;
    });
    let orders = topic("orders");
    let spec = TopicSpec {
        partitions: 1,
        retention: Retention { age: Some(Duration::from_secs(60)), bytes: None, compact: false },
    };
    broker.admin().create_topic(&orders, spec).await.unwrap();
    publish(&broker, &orders, 0, &["a", "b"]).await;
    let consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    drop(consumer);
    let low = async || {
        tokio::time::advance(Duration::from_secs(2)).await;
        // Any call does what is due.
        broker.health().await;
        broker.admin().describe_topic(&orders).await.unwrap().partitions[0].low.1
    };
    tokio::time::advance(Duration::from_secs(120)).await;
    assert_eq!(low().await, 0, "the group may come back");
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(low().await, 2, "the group is gone for good");

    let spec =
        TopicSpec { partitions: 1, retention: Retention { age: None, bytes: Some(200), compact: false } };
    let small = topic("small");
    broker.admin().create_topic(&small, spec).await.unwrap();
    for _ in 0..20 {
        publish(&broker, &small, 0, &["aaaaaaaaaa"]).await;
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    broker.health().await;
    let info = broker.admin().describe_topic(&small).await.unwrap();
    let left = info.partitions[0].messages.unwrap();
    assert!((5..=6).contains(&left), "{left} messages of 44 bytes are left");
}

#[tokio::test(start_paused = true)]
async fn reading_starts_with_the_first_message_since_a_time() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let mut times = Vec::new();
    for n in 0..20 {
        times.push(1_700_000_000_000 + n * 1000);
        publish(&broker, &orders, 0, &[&format!("{n}")]).await;
        if n == 9 {
            broker.plant_unreadable(&orders, 0, "junk".into()).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    for (at, expected) in
        [(times[0] - 5, "0"), (times[7], "7"), (times[7] + 1, "8"), (times[10], "10"), (times[19], "19")]
    {
        let mut reader = broker.read().await.unwrap();
        reader.follow(&orders, Some(0), Start::Time(Timestamp::from_millis(at))).await.unwrap();
        let first = loop {
            match next_read(&mut *reader).await {
                Event::Batch(batch) => break contents(&batch)[0].1.clone(),
                Event::Unreadable { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(first, expected, "{at}");
    }
}
