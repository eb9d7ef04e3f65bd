//! What becomes of messages on a real server: alone, in company, and when the topic changes under them.
//!
//! Not here: what all backends promise (`broker/src/conformance`).

use crate::{
    server::{broker, delete, grow, make, name, topic, url},
    tests,
};
use ropeway_broker::{
    Durability, ErrorKind, Health, Kafka, Message, MessageBroker, Position, Published, Target, Topic,
    partition_for_key,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

tests! {
    neighbours_of_a_message_that_is_too_large_go_through,
    a_topic_that_takes_small_batches_takes_many_small_messages,
    what_a_server_would_refuse_with_its_batch_is_refused_alone,
    a_topic_that_does_not_exist_is_answered_at_once,
    a_topic_that_is_made_while_somebody_publishes_is_published_to,
    a_topic_that_was_made_again_has_positions_of_its_new_life,
    a_topic_that_takes_smaller_batches_from_now_on_does_not_wait_for_others,
    keys_go_to_added_partitions_soon,
    durability_is_what_the_topic_gives,
    what_is_refused_is_bounded_by_the_queue,
    a_publisher_whose_sequence_is_refused_is_replaced,
    statistics_tell_what_became_of_messages,
    health_asks_the_servers,
}

fn text(i: usize) -> Message {
    Message::builder().key(format!("k{i}")).payload(i.to_string()).build()
}

async fn put(broker: &Arc<dyn MessageBroker>, topic: &Topic, batch: Vec<Message>) -> Vec<Published> {
    broker.publish(&topic.into(), batch).await.0
}

fn kind(published: &Published) -> Option<ErrorKind> {
    published.failed().map(|failed| failed.error.kind())
}

fn position(published: &Published) -> Position {
    match published {
        Published::Acked { position: Some(position), .. } => *position,
        other => panic!("{other:?}"),
    }
}

async fn neighbours_of_a_message_that_is_too_large_go_through() {
    let broker = broker("linger=50ms").await;
    let topic = topic(1, &[("max.message.bytes", "20000")]).await;
    let large = Message::builder().key("large").payload(vec![0; 20_000]).build();
    let mut batch: Vec<_> =
        (0..20).map(|i| Message::builder().key(format!("k{i}")).payload(vec![1; 500]).build()).collect();
    batch.insert(10, large.clone());
    let all = put(&broker, &topic, batch).await;
    for (at, published) in all.iter().enumerate() {
        let expected = (at == 10).then_some(ErrorKind::TooLarge);
        assert_eq!(kind(published), expected, "{at}: {published:?}");
    }
    assert_eq!(all[10].failed().unwrap().message, large);
}

async fn a_topic_that_takes_small_batches_takes_many_small_messages() {
    let broker = broker("linger=50ms").await;
    for limit in ["3000", "20000", "600000"] {
        let topic = topic(1, &[("max.message.bytes", limit)]).await;
        let batch = (0..2000)
            .map(|i| Message::builder().key(format!("k{i}")).payload(vec![1; 500]).build())
            .collect();
        let all = put(&broker, &topic, batch).await;
        assert!(all.iter().all(Published::is_acked), "{limit}: {:?}", all.iter().find(|one| !one.is_acked()));
        assert!(
            all.windows(2).all(|pair| position(&pair[0]) < position(&pair[1])),
            "they lie in their order"
        );
    }
}

async fn what_a_server_would_refuse_with_its_batch_is_refused_alone() {
    let broker = broker("linger=50ms").await;
    let compacted = topic(1, &[("cleanup.policy", "compact")]).await;
    let batch = vec![text(0), Message::builder().payload("no key").build(), text(2)];
    let kinds: Vec<_> = put(&broker, &compacted, batch).await.iter().map(kind).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Invalid), None]);
    let timely = topic(1, &[("message.timestamp.after.max.ms", "60000")]).await;
    let ahead = ropeway_broker::Timestamp::now() + Duration::from_secs(3600);
    let batch = vec![text(0), Message::builder().key("ahead").timestamp(ahead).payload("").build(), text(2)];
    let kinds: Vec<_> = put(&broker, &timely, batch).await.iter().map(kind).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Invalid), None]);
}

async fn a_topic_that_does_not_exist_is_answered_at_once() {
    let broker = broker("").await;
    let missing = name("missing");
    for _ in 0..2 {
        let start = Instant::now();
        let all = put(&broker, &missing, vec![text(0), text(1)]).await;
        assert!(start.elapsed() < Duration::from_secs(15), "after {:?}", start.elapsed());
        for published in &all {
            assert!(
                matches!(published, Published::NotWritten(failed) if failed.error.kind() == ErrorKind::NotFound),
                "{published:?}"
            );
            let error = published.failed().unwrap().error.to_string();
            assert!(error.contains(missing.as_str()) && error.contains("create it"), "{error}");
        }
    }
}

async fn a_topic_that_is_made_while_somebody_publishes_is_published_to() {
    let broker = broker("").await;
    let topic = name("later");
    assert_eq!(kind(&put(&broker, &topic, vec![text(0)]).await[0]), Some(ErrorKind::NotFound));
    make(&topic, 2, &[]).await;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let all = put(&broker, &topic, vec![text(1)]).await;
        if all[0].is_acked() {
            break;
        }
        assert!(Instant::now() < end, "{all:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn a_topic_that_was_made_again_has_positions_of_its_new_life() {
    let broker = broker("").await;
    let topic = topic(1, &[]).await;
    let before = position(&put(&broker, &topic, vec![text(0)]).await[0]);
    delete(&topic).await;
    make(&topic, 1, &[]).await;
    // The time for which a description is believed.
    sleep(Duration::from_millis(1100)).await;
    let start = Instant::now();
    let after = loop {
        let all = put(&broker, &topic, vec![text(1)]).await;
        match &all[0] {
            Published::Acked { position: Some(position), .. } => break *position,
            other => assert!(start.elapsed() < Duration::from_secs(20), "{other:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_ne!(before.0, after.0, "another life");
    assert_eq!(after.1, 0, "the first of its log");
}

async fn a_topic_that_takes_smaller_batches_from_now_on_does_not_wait_for_others() {
    let broker = broker("").await;
    let (changes, busy) = (topic(1, &[]).await, topic(1, &[]).await);
    assert!(put(&broker, &changes, vec![text(0)]).await[0].is_acked());
    // Something of the other one is always on its way.
    let publishes = |_| {
        let (broker, busy) = (Arc::clone(&broker), busy.clone());
        tokio::spawn(async move {
            loop {
                assert!(put(&broker, &busy, (0..200).map(text).collect()).await[0].is_acked());
            }
        })
    };
    let others: Vec<_> = (0..64).map(publishes).collect();
    delete(&changes).await;
    make(&changes, 1, &[("max.message.bytes", "20000")]).await;
    sleep(Duration::from_millis(1100)).await;
    let start = Instant::now();
    while !put(&broker, &changes, vec![text(1)]).await[0].is_acked() {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    for other in others {
        assert!(!other.is_finished(), "it published all the time");
        other.abort();
    }
}

async fn keys_go_to_added_partitions_soon() {
    let broker = broker("").await;
    let topic = topic(2, &[]).await;
    let batch = || (0..50).map(text).collect::<Vec<_>>();
    assert!(put(&broker, &topic, batch()).await.iter().all(Published::is_acked));
    grow(&topic, 12).await;
    // Until servers and this client know it, which takes longer on a busy machine.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        sleep(Duration::from_millis(1500)).await;
        let all = put(&broker, &topic, batch()).await;
        let is_right = |(i, published): (usize, &Published)| {
            let Published::Acked { partition, .. } = published else { panic!("{published:?}") };
            *partition == partition_for_key(format!("k{i}").as_bytes(), 12)
        };
        if all.iter().enumerate().all(is_right) {
            return;
        }
        assert!(Instant::now() < end, "{all:?}");
    }
}

async fn durability_is_what_the_topic_gives() {
    let broker = broker("").await;
    for (settings, gives) in
        [(&[][..], Durability::ProcessCrash), (&[("flush.messages", "1")][..], Durability::PowerLoss)]
    {
        let topic = topic(1, settings).await;
        let all = put(&broker, &topic, vec![text(0)]).await;
        let Published::Acked { durability, .. } = &all[0] else { panic!("{all:?}") };
        assert_eq!(*durability, gives);
        let to = Target { at_least: Some(Durability::Replicated), ..Target::from(&topic) };
        let all = broker.publish(&to, vec![text(1)]).await.0;
        let failed = all[0].failed().unwrap();
        assert_eq!(failed.error.kind(), ErrorKind::Unsupported);
        assert!(failed.error.to_string().contains("min.insync.replicas"), "{}", failed.error);
    }
}

async fn what_is_refused_is_bounded_by_the_queue() {
    let broker = broker("queue_messages=10&linger=1s").await;
    let topic = topic(1, &[]).await;
    let first = broker.publish(&(&topic).into(), (0..8).map(text).collect());
    let second = broker.publish(&(&topic).into(), (0..8).map(text).collect()).await;
    assert!(second.0.iter().all(|one| kind(one) == Some(ErrorKind::Throttled)));
    assert!(first.await.all_acked());
    assert!(broker.publish(&(&topic).into(), (0..8).map(text).collect()).await.all_acked());
}

async fn a_publisher_whose_sequence_is_refused_is_replaced() {
    let kafka = Kafka::of_url(&url()).await.unwrap();
    let broker: Arc<dyn MessageBroker> = Arc::clone(&kafka) as _;
    let topic = topic(1, &[]).await;
    assert!(put(&broker, &topic, (0..5).map(text).collect()).await.iter().all(Published::is_acked));
    kafka.break_publisher();
    // One batch finds out, and is given back with what can be done.
    let all = put(&broker, &topic, vec![text(5)]).await;
    let failed = all[0].failed().unwrap();
    assert_eq!(failed.error.kind(), ErrorKind::Unavailable);
    assert!(failed.error.to_string().contains("try again"), "{}", failed.error);
    let again = put(&broker, &topic, vec![failed.message.clone(), text(6)]).await;
    assert_eq!(again.iter().map(|one| position(one).1).collect::<Vec<_>>(), [5, 6]);
}

async fn statistics_tell_what_became_of_messages() {
    let broker = broker("").await;
    let topic = topic(1, &[]).await;
    assert!(put(&broker, &topic, (0..5).map(text).collect()).await.iter().all(Published::is_acked));
    put(&broker, &name("missing"), vec![text(0)]).await;
    // Nobody waits for this one.
    drop(broker.publish(&(&topic).into(), vec![text(6)]));
    let published = async |number| {
        let start = Instant::now();
        while broker.statistics().published < number {
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", broker.statistics());
            sleep(Duration::from_millis(10)).await;
        }
    };
    published(6).await;
    // Nobody looks at this one when its report comes, and it is dropped then. One message of it is refused, which is counted, too.
    let large = Message::builder().payload(vec![0; 2_000_000]).build();
    let answer = broker.publish(&(&topic).into(), vec![text(7), large]);
    let end = async || broker.admin().describe_topic(&topic).await.unwrap().partitions[0].end;
    while end().await.1 < 7 {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(200)).await;
    drop(answer);
    // Where its report comes later than that.
    published(7).await;
    let told = broker.statistics();
    assert_eq!((told.published, told.not_written, told.unknown), (7, 2, 0));
}

async fn health_asks_the_servers() {
    let broker = broker("").await;
    assert_eq!(broker.health().await, Health::Up);
    broker.close(Duration::from_secs(5)).await;
    assert!(!broker.health().await.is_ready());
}
