//! What a directory keeps: positions, holes, delays, epochs, remembered ids; who may open it; and what happens when a commit fails.

use super::{disk::Disk, support::*};
use crate::{
    ConsumerExt, Durability, Embedded, EmbeddedSettings, ErrorKind, Event, GoneReason, Health, Message,
    MessageBroker, Published, ReaderExt, Start, Target, Timestamp,
};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

fn open(dir: &Path) -> Arc<Embedded> {
    Embedded::open(dir, EmbeddedSettings::default()).unwrap()
}

#[tokio::test]
async fn positions_holes_and_epochs_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let orders = make(&broker, "orders", 2).await;
    let positions = publish(&broker, &orders, 0, &["a", "b", "c", "d", "e"]).await;
    let mut consumer = subscribe(&broker, |s| s.member = Some("one".into()), "g", &[&orders]).await;
    let before = assigned(&mut *consumer).await;
    let (of, got) = batch(&mut *consumer).await;
    assert_eq!(got.len(), 5);
    consumer.control().ack(&of, &[positions[0], positions[2], positions[4]]).unwrap();
    // Dropping is enough: acks given before take effect.
    drop(consumer);
    drop(broker);

    let broker = open(dir.path());
    assert_eq!(broker.admin().topics().await.unwrap(), std::slice::from_ref(&orders));
    let info = broker.admin().describe_group(&group("g")).await.unwrap();
    let first = &info.partitions[0];
    assert_eq!((first.position, first.lag, first.unfinished), (Some(positions[1]), Some(4), Some(2)));
    assert!(first.lag_time.unwrap() > Duration::ZERO);
    let more = publish(&broker, &orders, 0, &["f"]).await;
    assert!(more[0] > positions[4]);
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    let after = assigned(&mut *consumer).await;
    assert_eq!(after[0].resumed, Some(positions[1]));
    for (before, after) in before.iter().zip(&after) {
        assert!(after.of.epoch > before.of.epoch);
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(batch(&mut *consumer).await.1.into_iter().map(|(_, text)| text));
    }
    assert_eq!(seen, ["b", "d", "f"]);
}

#[tokio::test]
async fn acks_are_stored_within_the_interval_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let orders = make(&broker, "orders", 1).await;
    let positions = publish(&broker, &orders, 0, &["a", "b"]).await;
    let mut consumer =
        subscribe(&broker, |s| s.ack_interval = Duration::from_millis(20), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    let (of, _) = batch(&mut *consumer).await;
    consumer.control().ack(&of, &positions[..1]).unwrap();
    // The flush finds nothing to store once the interval has done it.
    let stored = async {
        while broker.engine().core().due().steady.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.unwrap();
    assert!(consumer.control().flush().await.is_empty());
    consumer.control().confirm(&of).await.unwrap();
}

#[tokio::test]
async fn a_static_member_gets_back_after_a_restart_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let orders = make(&broker, "orders", 4).await;
    let named = |name: &'static str| move |s: &mut crate::Subscription| s.member = Some(name.into());
    let mut a = subscribe(&broker, named("a"), "g", &[&orders]).await;
    let mine = assigned(&mut *a).await;
    let mut b = subscribe(&broker, named("b"), "g", &[&orders]).await;
    assigned(&mut *b).await;
    let given = loop {
        if let Event::Revoking { partitions, .. } = next(&mut *a).await {
            break partitions;
        }
    };
    for of in &given {
        a.control().give_up(of);
    }
    let mut of_b = Vec::new();
    while of_b.len() < 2 {
        if let Event::Assigned(list) = next(&mut *b).await {
            of_b.extend(list.into_iter().map(|assignment| assignment.of.partition));
        }
    }
    assert_eq!(mine.len() - given.len(), 2);
    // The process ends with both; they come back in the other order.
    drop((a, b, broker));
    let broker = open(dir.path());
    let mut b = subscribe(&broker, named("b"), "g", &[&orders]).await;
    assigned(&mut *b).await;
    let mut a = subscribe(&broker, named("a"), "g", &[&orders]).await;
    assigned(&mut *a).await;
    let given = loop {
        if let Event::Revoking { partitions, .. } = next(&mut *b).await {
            break partitions;
        }
    };
    assert!(given.iter().all(|of| !of_b.contains(&of.partition)), "{given:?} of {of_b:?}");
}

#[tokio::test]
async fn delays_and_remembered_ids_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::starting_at(1_000_000);
    let settings = EmbeddedSettings {
        clock: clock.clone(),
        dedup_window: Some(Duration::from_secs(60)),
        ..EmbeddedSettings::default()
    };
    let broker = Embedded::open(dir.path(), settings.clone()).unwrap();
    let orders = make(&broker, "orders", 1).await;
    let later = |payload: &str, at| {
        Message::builder().payload(payload.to_owned()).deliver_at(Timestamp::from_millis(at)).build()
    };
    let (one, two) = (later("one", 1_005_000), later("two", 1_004_000));
    broker.publish(&(&orders).into(), vec![one.clone(), two.clone()]).await.into_result().unwrap();
    drop(broker);
    let broker = Embedded::open(dir.path(), settings.clone()).unwrap();
    assert_eq!(broker.admin().describe_topic(&orders).await.unwrap().delayed, Some(2));
    let again = broker.publish(&(&orders).into(), vec![one.clone()]).await;
    assert!(matches!(again.0[0], Published::Acked { position: None, .. }));
    assert_eq!(broker.admin().describe_topic(&orders).await.unwrap().delayed, Some(2));
    assert!(broker.admin().cancel_delayed(&orders, one.id).await.unwrap());
    let mut reader = broker.read().await.unwrap();
    reader.follow(&orders, None, Start::Earliest).await.unwrap();
    assert!(matches!(next_read(&mut *reader).await, Event::CaughtUp(_)));
    clock.set(1_010_000);
    let Event::Batch(batch) = next_read(&mut *reader).await else { panic!() };
    assert_eq!(texts(&contents(&batch)), ["two"]);
    assert_eq!(batch.deliveries[0].message, two);
}

#[tokio::test]
async fn a_deleted_topic_leaves_nothing_behind_and_its_name_starts_a_new_life() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let orders = make(&broker, "orders", 1).await;
    let old = publish(&broker, &orders, 0, &["a"]).await;
    let due = Timestamp::now() + Duration::from_secs(3600);
    let later = Message::builder().deliver_at(due).build();
    broker.publish(&(&orders).into(), vec![later]).await.into_result().unwrap();
    broker.admin().delete_topic(&orders).await.unwrap();
    drop(broker);
    let broker = open(dir.path());
    assert!(broker.admin().topics().await.unwrap().is_empty());
    make(&broker, "orders", 1).await;
    let new = publish(&broker, &orders, 0, &["b"]).await;
    assert!(new[0] > old[0]);
    let error = broker.admin().purge_topic(&orders, None, Start::At(old[0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_purge_is_kept_and_freed_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let orders = make(&broker, "orders", 1).await;
    let positions = publish(&broker, &orders, 0, &["a"; 3000]).await;
    broker.admin().purge_topic(&orders, Some(0), Start::At(positions[2990])).await.unwrap();
    drop(broker);
    let broker = open(dir.path());
    let info = broker.admin().describe_topic(&orders).await.unwrap();
    assert_eq!((info.partitions[0].low, info.partitions[0].messages), (positions[2990], Some(10)));
    let mut reader = broker.read().await.unwrap();
    reader.follow(&orders, Some(0), Start::Earliest).await.unwrap();
    let Event::Batch(batch) = next_read(&mut *reader).await else { panic!() };
    assert_eq!(batch.deliveries[0].position, positions[2990]);
}

#[tokio::test]
async fn the_second_opener_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let error = Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    broker.close(Duration::from_secs(10)).await;
    // The handle is still there; the directory is free.
    open(dir.path());
    let error = crate::connect(&format!("embedded:{}?durabilty=x", dir.path().display())).await.unwrap_err();
    assert!(error.to_string().contains("did you mean `durability`"), "{error}");
}

#[tokio::test]
async fn consumers_keep_the_broker_open_when_its_handle_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let orders = make(&broker, "orders", 1).await;
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    let positions = publish(&broker, &orders, 0, &["a"]).await;
    drop(broker);
    assigned(&mut *consumer).await;
    let (of, _) = batch(&mut *consumer).await;
    let control = consumer.control();
    let sent = control.forward(&of, &positions, vec![((&orders).into(), text("b"))]).await;
    sent.into_result().unwrap();
    assert_eq!(texts(&batch(&mut *consumer).await.1), ["b"]);
    drop(consumer);
    assert_eq!(control.ack(&of, &positions).unwrap_err().kind(), ErrorKind::Fenced);
    open(dir.path());
}

#[tokio::test]
async fn durability_is_what_was_asked_for_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}?durability=process_crash", dir.path().display());
    let broker = crate::connect(&url).await.unwrap();
    let orders = topic("orders");
    broker.admin().create_topic(&orders, crate::TopicSpec::partitions(1)).await.unwrap();
    let asked = async |at_least| {
        let to = Target { topic: orders.clone(), partition: None, at_least };
        broker.publish(&to, vec![text("x")]).await.0.remove(0)
    };
    for (at_least, given) in
        [(None, Durability::ProcessCrash), (Some(Durability::PowerLoss), Durability::PowerLoss)]
    {
        let published = asked(at_least).await;
        assert!(matches!(published, Published::Acked { durability, .. } if durability == given));
    }
    let refused = asked(Some(Durability::Replicated)).await;
    assert_eq!(refused.failed().unwrap().error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_batch_is_one_commit_and_what_is_refused_is_none() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let commits = || broker.statistics().commits;
    let before = commits();
    publish(&broker, &orders, 0, &["a", "b", "c"]).await;
    assert_eq!(commits(), before + 1);
    let _ = broker.publish(&topic("none").into(), vec![text("d")]).await;
    assert_eq!(commits(), before + 1);
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_written_and_what_was_committed_is_read() {
    let store = Arc::new(Disk::default());
    let settings = EmbeddedSettings::default;
    let broker = Embedded::on_store(store.clone(), settings(), Durability::PowerLoss, false).unwrap();
    let orders = make(&broker, "orders", 1).await;
    let positions = publish(&broker, &orders, 0, &["a"]).await;
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    let (of, _) = batch(&mut *consumer).await;
    store.commits_fail.store(true, SeqCst);
    let outcomes = broker.publish(&(&orders).into(), vec![text("lost?")]).await;
    let Published::Unknown(failed) = &outcomes.0[0] else { panic!("{outcomes:?}") };
    assert_eq!(failed.message.payload.as_deref(), Some(&b"lost?"[..]));
    let statistics = broker.statistics();
    assert_eq!((statistics.published, statistics.unknown), (1, 1));
    let mut cause = std::error::Error::source(&failed.error);
    while let Some(deeper) = cause.and_then(|error| error.source()) {
        cause = Some(deeper);
    }
    assert!(cause.unwrap().to_string().contains("on fire"), "{cause:?}");
    // From now on the disk would work again; nobody can know what it holds, so nothing is written.
    store.commits_fail.store(false, SeqCst);
    let outcomes = broker.publish(&(&orders).into(), vec![text("later")]).await;
    let Published::NotWritten(failed) = &outcomes.0[0] else { panic!("{outcomes:?}") };
    assert!(failed.error.to_string().contains("open it again"), "{}", failed.error);
    assert!(matches!(broker.health().await, Health::Down(_)));
    consumer.control().ack(&of, &positions).unwrap();
    assert_eq!(consumer.control().flush().await.len(), 1, "the ack cannot be stored, and that is told");
    let mut reader = broker.read().await.unwrap();
    reader.follow(&orders, None, Start::Earliest).await.unwrap();
    let Event::Batch(read) = next_read(&mut *reader).await else { panic!() };
    assert_eq!(texts(&contents(&read)), ["a"]);
    consumer.control().give_up(&of);
    loop {
        match next(&mut *consumer).await {
            Event::Gone(gone, GoneReason::GivenUp) => break assert_eq!(gone, of),
            Event::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    }
    broker.close(Duration::from_secs(10)).await;
    assert_eq!(consumer.next().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::Closed);

    let broker = Embedded::on_store(store, settings(), Durability::PowerLoss, false).unwrap();
    let again = publish(&broker, &orders, 0, &["b"]).await;
    assert_eq!(again[0], positions[0].next(), "what was not committed left no hole");
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assert_eq!(assigned(&mut *consumer).await[0].resumed, Some(positions[0]));
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_swept_or_moved_for_ever() {
    let store = Arc::new(Disk::default());
    let clock = HandClock::starting_at(1_000_000);
    let settings = EmbeddedSettings { clock: clock.clone(), ..EmbeddedSettings::default() };
    let broker = Embedded::on_store(store.clone(), settings, Durability::PowerLoss, true).unwrap();
    let (orders, more) = (make(&broker, "orders", 1).await, make(&broker, "more", 1).await);
    let later = || Message::builder().deliver_at(Timestamp::from_millis(1_005_000)).build();
    for topic in [&orders, &more] {
        // More than is moved in one piece.
        broker.publish(&topic.into(), (0..600).map(|_| later()).collect()).await.into_result().unwrap();
    }
    store.commits_fail.store(true, SeqCst);
    broker.admin().delete_topic(&orders).await.unwrap_err();
    clock.set(1_010_000);
    assert!(matches!(broker.health().await, Health::Down(_)));
}
