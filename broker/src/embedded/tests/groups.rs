//! Who owns what: joining, handing over, coming back under a name; and what happens to acks on the way.

use super::support::*;
use crate::{ConsumerExt, ErrorKind, Event, GapReason, GoneReason, MessageBroker, Start, TopicSpec};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn what_is_published_is_consumed_acked_and_not_seen_again() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let positions = publish(&broker, &orders, 0, &["a", "b", "c"]).await;
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    let list = assigned(&mut *consumer).await;
    assert_eq!((list.len(), list[0].resumed), (1, None));
    let (of, got) = batch(&mut *consumer).await;
    assert_eq!(texts(&got), ["a", "b", "c"]);
    assert!(matches!(next(&mut *consumer).await, Event::CaughtUp(_)));
    consumer.control().ack(&of, &[positions[0], positions[2]]).unwrap();
    assert!(consumer.control().flush().await.is_empty());
    drop(consumer);
    let mut again = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assert_eq!(assigned(&mut *again).await[0].resumed, Some(positions[1]));
    assert_eq!(texts(&batch(&mut *again).await.1), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_its_part_when_the_owner_has_given_it_up() {
    let broker = memory();
    let orders = make(&broker, "orders", 4).await;
    let mut first = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assert_eq!(assigned(&mut *first).await.len(), 4);
    for _ in 0..4 {
        assert!(matches!(next(&mut *first).await, Event::CaughtUp(_)));
    }
    let mut second = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assert!(assigned(&mut *second).await.is_empty());
    nothing(&mut *second).await;
    let Event::Revoking { partitions, left } = next(&mut *first).await else { panic!() };
    assert_eq!((partitions.len(), left), (2, Duration::from_secs(10)));
    publish(&broker, &orders, partitions[0].partition, &["x"]).await;
    nothing(&mut *first).await;
    first.control().give_up(&partitions[0]);
    assert!(matches!(next(&mut *first).await, Event::Gone(of, GoneReason::GivenUp) if of == partitions[0]));
    let list = assigned(&mut *second).await;
    assert!(list[0].of.epoch > partitions[0].epoch);
    assert_eq!(texts(&batch(&mut *second).await.1), ["x"]);
    // The other goes when its time is over.
    let begun = tokio::time::Instant::now();
    let gone = tokio::select! {
        event = next(&mut *first) => event,
        event = async { next(&mut *second).await; next(&mut *second).await } => event,
    };
    assert!(begun.elapsed() >= Duration::from_secs(9), "{gone:?}");
    assert_eq!(
        first.control().ack(&partitions[1], &[]).unwrap_err().kind(),
        ErrorKind::Fenced,
        "its epoch is over"
    );
}

#[tokio::test(start_paused = true)]
async fn a_static_name_takes_over_and_comes_back_to_what_it_had() {
    let broker = memory();
    let orders = make(&broker, "orders", 4).await;
    let named =
        |name: &'static str| move |s: &mut crate::Subscription| s.member = Some(std::sync::Arc::from(name));
    let mut old = subscribe(&broker, named("a"), "g", &[&orders]).await;
    let owned = assigned(&mut *old).await;
    let mut new = subscribe(&broker, named("a"), "g", &[&orders]).await;
    assert_eq!(assigned(&mut *new).await.len(), 4);
    for _ in 0..4 {
        let event = next(&mut *old).await;
        assert!(matches!(event, Event::Gone(_, GoneReason::Lost)), "{event:?}");
    }
    assert_eq!(old.next().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(old.next().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(old.control().ack(&owned[0].of, &[]).unwrap_err().kind(), ErrorKind::Fenced);
    drop(old);
    let info = broker.admin().describe_group(&group("g")).await.unwrap();
    assert_eq!(info.members.len(), 1, "the deposed one does not take the name along");
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_is_in_flight_and_tells_what_was_not_acked() {
    let broker = memory();
    let orders = make(&broker, "orders", 2).await;
    let positions = publish(&broker, &orders, 0, &["a", "b"]).await;
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    let (of, _) = batch(&mut *consumer).await;
    let control = consumer.control();
    let closing = tokio::spawn(control.close(Duration::from_secs(60)));
    tokio::task::yield_now().await;
    control.ack(&of, &positions[..1]).unwrap();
    let unacked = closing.await.unwrap();
    assert_eq!(unacked, [(of, vec![positions[1]])]);
    let mut gone = 0;
    let end = loop {
        match consumer.next().await {
            Ok(Event::Gone(_, GoneReason::Closed)) => gone += 1,
            Ok(Event::CaughtUp(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((gone, end.kind()), (2, ErrorKind::Closed));
    assert!(control.close(Duration::ZERO).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unasked_give_up_goes_to_another_or_comes_back() {
    let broker = memory();
    let orders = make(&broker, "orders", 2).await;
    let mut alone = subscribe(&broker, |_| (), "g", &[&orders]).await;
    let mine = assigned(&mut *alone).await;
    alone.control().give_up(&mine[0].of);
    let again = loop {
        match next(&mut *alone).await {
            Event::Assigned(list) => break list,
            Event::Gone(of, GoneReason::GivenUp) => assert_eq!(of, mine[0].of),
            Event::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(again[0].of.partition, mine[0].of.partition);
    assert!(again[0].of.epoch > mine[0].of.epoch);
}

#[tokio::test(start_paused = true)]
async fn gaps_tell_what_was_trimmed_and_what_was_made_again() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let positions = publish(&broker, &orders, 0, &["a", "b", "c"]).await;
    let consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    drop(consumer);
    broker.admin().purge_topic(&orders, None, Start::At(positions[2])).await.unwrap();
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assert_eq!(assigned(&mut *consumer).await[0].resumed, Some(positions[0]));
    let Event::Gap { from, to, why, .. } = next(&mut *consumer).await else { panic!() };
    assert_eq!((from, to, why), (Some(positions[0]), Some(positions[2]), GapReason::Trimmed));
    let (of, got) = batch(&mut *consumer).await;
    assert_eq!(texts(&got), ["c"]);
    consumer.control().ack(&of, &[positions[2]]).unwrap();
    let error = broker.admin().delete_topic(&orders).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains('g'), "{error}");
    drop(consumer);
    broker.admin().delete_topic(&orders).await.unwrap();
    broker.admin().create_topic(&orders, TopicSpec::partitions(1)).await.unwrap();
    let new = publish(&broker, &orders, 0, &["d"]).await;
    assert!(new[0] > positions[2]);
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assert_eq!(assigned(&mut *consumer).await[0].resumed, Some(positions[2].next()));
    let Event::Gap { from, to, why, .. } = next(&mut *consumer).await else { panic!() };
    assert_eq!((from, to, why), (Some(positions[2].next()), Some(new[0]), GapReason::Recreated));
    assert_eq!(texts(&batch(&mut *consumer).await.1), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_subscribe_leaves_no_member_and_close_ends_everything() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    drop(broker.subscribe(crate::Subscription::new(group("g"), [orders.clone()])));
    let info = broker.admin().describe_group(&group("g")).await.unwrap();
    assert!(info.members.is_empty());
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    let mine = assigned(&mut *consumer).await;
    broker.close(Duration::from_secs(1)).await;
    let event = next(&mut *consumer).await;
    assert!(matches!(&event, Event::Gone(of, GoneReason::Closed) if *of == mine[0].of), "{event:?}");
    assert_eq!(consumer.next().await.unwrap_err().kind(), ErrorKind::Closed);
    let outcomes = broker.publish(&(&orders).into(), vec![text("x")]).await;
    assert_eq!(outcomes.into_result().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(broker.admin().topics().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(broker.read().await.unwrap_err().kind(), ErrorKind::Closed);
}
