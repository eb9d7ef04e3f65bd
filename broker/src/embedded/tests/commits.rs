//! Which commits there are: what one has in it, who waits for which, and what happens when one fails.
//!
//! Not here: what a directory keeps (`restart.rs`).

use super::{disk::Disk, support::*};
use crate::{
    Answer, Consumer, ConsumerExt, Durability, Embedded, EmbeddedSettings, Error, ErrorKind, Event,
    GoneReason, Health, Message, MessageBroker, Outcomes, Published, Publisher, PublisherSettings, ReaderExt,
    Start, Target, Timestamp, Topic,
};
use futures::{FutureExt, future::join_all};
use ropeway_store::KeyValue;
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

fn open(disk: &Arc<Disk>) -> Arc<Embedded> {
    open_with(disk, |_| ())
}

fn open_with(disk: &Arc<Disk>, change: impl FnOnce(&mut EmbeddedSettings)) -> Arc<Embedded> {
    let mut settings = EmbeddedSettings { clock: HandClock::starting_at(1_000_000), ..Default::default() };
    change(&mut settings);
    Embedded::on_store(disk.clone(), settings, Durability::PowerLoss, false).unwrap()
}

fn to(topic: &Topic) -> Target {
    topic.into()
}

/// A broker with a topic of two partitions, and a member that has both and the first message.
async fn at_work(broker: &Embedded) -> (Topic, Box<dyn Consumer>, crate::Owned, crate::Position) {
    let orders = make(broker, "orders", 2).await;
    let position = publish(broker, &orders, 0, &["a"]).await[0];
    let mut consumer = subscribe(broker, |s| s.ack_interval = Duration::from_secs(60), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    let (of, _) = batch(&mut *consumer).await;
    (orders, consumer, of, position)
}

/// Whether it is answered, and nothing else is waited for.
fn is_open<T>(answer: &mut Answer<T>) -> bool {
    answer.now_or_never().is_none()
}

fn refused(outcomes: &Outcomes) -> &Error {
    let Published::NotWritten(failed) = &outcomes.0[0] else { panic!("{outcomes:?}") };
    &failed.error
}

fn unknown(outcomes: &Outcomes) -> &Error {
    let Published::Unknown(failed) = &outcomes.0[0] else { panic!("{outcomes:?}") };
    &failed.error
}

fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(one) = cause {
        text.push_str(&format!(": {one}"));
        cause = one.source();
    }
    text
}

#[tokio::test]
async fn what_comes_while_the_disk_is_busy_is_one_commit() {
    let disk = Arc::<Disk>::default();
    let broker = open(&disk);
    let (orders, consumer, of, position) = at_work(&broker).await;
    let before = disk.commits();
    disk.hold();
    let mut first = broker.publish(&to(&orders), vec![text("first")]);
    disk.until_begun(before + 1).await;
    // Many publishers, acks, forwards, groups and administration, all while one commit waits for the disk.
    let publishes: Vec<_> =
        (0..500).map(|n| broker.publish(&to(&orders), vec![text(&n.to_string())])).collect();
    let control = consumer.control();
    let forward = control.forward(&of, &[position], vec![(to(&orders), text("moved"))]);
    let others: Vec<_> = (0..10)
        .map(|n| broker.subscribe(crate::Subscription::new(group(&format!("g{n}")), [orders.clone()])))
        .collect();
    let flush = control.flush();
    disk.let_end(1);
    first.as_mut().await.into_result().unwrap();
    disk.until_begun(before + 2).await;
    disk.release();
    for outcomes in join_all(publishes).await {
        outcomes.into_result().unwrap();
    }
    forward.await.into_result().unwrap();
    assert!(flush.await.is_empty());
    let members = join_all(others).await;
    assert!(members.iter().all(Result::is_ok));
    assert_eq!(disk.commits(), before + 2);
}

#[tokio::test]
async fn no_timer_makes_batches_and_a_message_alone_is_a_commit_alone() {
    let disk = Arc::<Disk>::default();
    let broker = open(&disk);
    let orders = make(&broker, "orders", 1).await;
    let publisher = Publisher::new(broker.clone(), PublisherSettings::default()).unwrap();
    let before = disk.commits();
    for n in 1..=20 {
        // Answered by the commit that it causes: nothing else comes, and no time passes by the broker's clock.
        publisher.publish(&orders, text("x")).await.unwrap();
        assert_eq!(disk.commits(), before + n);
    }
    // What comes while the disk is busy makes the next batches, whose sizes are bounded.
    disk.hold();
    let pending = join_all((0..1000).map(|_| publisher.publish(&orders, text("y"))));
    let release = async {
        while publisher.in_flight() < 1000 {
            tokio::task::yield_now().await;
        }
        disk.release();
    };
    let (outcomes, ()) = tokio::join!(pending, release);
    assert!(outcomes.iter().all(Result::is_ok));
    let commits = disk.commits() - before - 20;
    assert!(commits <= 10, "{commits} commits for 1,000 at once");
}

#[tokio::test]
async fn settling_and_administration_wait_for_one_commit_of_publishing_however_much_is_queued() {
    let disk = Arc::<Disk>::default();
    let broker = open(&disk);
    let (orders, consumer, of, position) = at_work(&broker).await;
    let other = subscribe(&broker, |_| (), "other", &[&orders]).await;
    let leaving = subscribe(&broker, |_| (), "leaving", &[&orders]).await;
    let before = disk.commits();
    disk.hold();
    let big = || Message::builder().payload(vec![0; 1024 * 1024 - 100]).build();
    let mut publishes: Vec<_> = (0..64).map(|_| broker.publish(&to(&orders), vec![big()])).collect();
    disk.until_begun(before + 1).await;
    let control = consumer.control();
    control.ack(&of, &[position]).unwrap();
    let mut settled: Vec<(&str, Answer<bool>)> = vec![
        ("flush", control.flush().map(|refused| refused.is_empty()).boxed()),
        ("confirm", control.confirm(&of).map(|confirmed| confirmed.is_ok()).boxed()),
        ("forward", control.forward(&of, &[], vec![(to(&orders), text("x"))]).map(|o| o.all_acked()).boxed()),
        ("set topics", control.set_topics(vec![orders.clone()]).map(|set| set.is_ok()).boxed()),
        ("close", leaving.control().close(Duration::ZERO).map(|_| true).boxed()),
        ("health", broker.health().map(|health| health == Health::Up).boxed()),
    ];
    let admin = broker.clone();
    settled.push((
        "seek",
        async move {
            admin.admin().seek_group(&group("fresh"), &topic("orders"), None, Start::Earliest).await.is_ok()
        }
        .boxed(),
    ));
    // Administration takes over what it is asked when it is polled first.
    for (what, answer) in &mut settled {
        assert!(is_open(answer), "{what} cannot be done before the disk is");
    }
    other.control().give_up(&of);
    disk.let_end(1);
    disk.until_begun(before + 2).await;
    disk.let_end(1);
    for (what, answer) in settled {
        let done = tokio::time::timeout(PATIENCE, answer).await;
        assert_eq!(done, Ok(true), "{what} waits for its own commit and the one before alone");
    }
    let open = publishes.iter_mut().filter_map(|answer| is_open(answer).then_some(())).count();
    assert!(open >= 64 - 2 * 4, "{open} of 64 MiB still wait");
    disk.release();
    drop(broker);
    for answer in publishes.into_iter().skip(64 - open) {
        answer.await.into_result().unwrap();
    }
}

#[tokio::test]
async fn closing_writes_what_was_taken_over_before_and_refuses_what_comes_after() {
    let disk = Arc::<Disk>::default();
    let broker = open(&disk);
    let orders = make(&broker, "orders", 1).await;
    disk.hold();
    let big = || Message::builder().payload(vec![0; 1024 * 1024]).build();
    let publishes: Vec<_> = (0..32).map(|_| broker.publish(&to(&orders), vec![big()])).collect();
    let mut close = broker.close(PATIENCE);
    assert!(is_open(&mut close));
    assert_eq!(refused(&broker.publish(&to(&orders), vec![text("late")]).await).kind(), ErrorKind::Closed);
    disk.release();
    for answer in publishes {
        answer.await.into_result().unwrap();
    }
    close.await;
    assert_eq!(disk.closed(), 1);
}

#[tokio::test]
async fn a_forward_whose_commit_fails_is_unknown_and_its_message_comes_again() {
    let disk = Arc::<Disk>::default();
    let broker = open(&disk);
    let (orders, consumer, of, position) = at_work(&broker).await;
    disk.commits_fail.store(true, SeqCst);
    let outcomes = consumer.control().forward(&of, &[position], vec![(to(&orders), text("moved"))]).await;
    assert!(causes(unknown(&outcomes)).contains("on fire"), "{outcomes:?}");
    disk.commits_fail.store(false, SeqCst);
    let outcomes = consumer.control().forward(&of, &[], vec![(to(&orders), text("again"))]).await;
    let why = causes(refused(&outcomes));
    assert!(why.contains("open it again") && why.contains("on fire"), "the first cause is named: {why}");
    broker.close(PATIENCE).await;
    drop((broker, consumer));
    let broker = open(&disk);
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    assert_eq!(texts(&batch(&mut *consumer).await.1), ["a"]);
    assert_eq!(
        broker
            .admin()
            .describe_topic(&orders)
            .await
            .unwrap()
            .partitions
            .iter()
            .filter_map(|p| p.messages)
            .sum::<u64>(),
        1
    );
}

#[tokio::test]
async fn acks_whose_commit_fails_are_named_and_come_again() {
    for by_interval in [false, true] {
        let disk = Arc::<Disk>::default();
        let clock = HandClock::starting_at(1_000_000);
        let broker = open_with(&disk, |settings| settings.clock = clock.clone());
        let (orders, consumer, of, position) = at_work(&broker).await;
        let control = consumer.control();
        control.ack(&of, &[position]).unwrap();
        disk.commits_fail.store(true, SeqCst);
        if by_interval {
            let begun = disk.commits();
            clock.pass(Duration::from_secs(60));
            disk.until_begun(begun + 1).await;
        }
        let unsafe_acks = control.flush().await;
        assert_eq!(
            unsafe_acks.len(),
            usize::from(!by_interval),
            "what failed before is not to be stored any more"
        );
        disk.commits_fail.store(false, SeqCst);
        let Health::Down(why) = broker.health().await else { panic!("by interval: {by_interval}") };
        assert!(why.contains("open it again"), "{why}");
        let outcomes = broker.publish(&to(&orders), vec![text("x")]).await;
        assert!(causes(refused(&outcomes)).contains("on fire"));
        drop((broker, consumer));
        let broker = open(&disk);
        let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
        assigned(&mut *consumer).await;
        assert_eq!(texts(&batch(&mut *consumer).await.1), ["a"]);
    }
}

#[tokio::test]
async fn a_delayed_message_whose_move_fails_comes_once_after_the_broker_is_opened_again() {
    let disk = Arc::<Disk>::default();
    let clock = HandClock::starting_at(1_000_000);
    let broker = open_with(&disk, |settings| settings.clock = clock.clone());
    let orders = make(&broker, "orders", 1).await;
    let later = Message::builder().payload("x").deliver_at(Timestamp::from_millis(1_005_000)).build();
    broker.publish(&to(&orders), vec![later]).await.into_result().unwrap();
    let mut reader = broker.read().await.unwrap();
    reader.follow(&orders, None, Start::Earliest).await.unwrap();
    assert!(matches!(next_read(&mut *reader).await, Event::CaughtUp(_)));
    let begun = disk.commits();
    disk.commits_fail.store(true, SeqCst);
    clock.pass(Duration::from_secs(5));
    disk.until_begun(begun + 1).await;
    disk.commits_fail.store(false, SeqCst);
    assert!(matches!(broker.health().await, Health::Down(_)));
    assert!(reader.next().now_or_never().is_none(), "what is not committed is not shown");
    broker.close(PATIENCE).await;
    let broker = open_with(&disk, |settings| settings.clock = clock.clone());
    let mut reader = broker.read().await.unwrap();
    reader.follow(&orders, None, Start::Earliest).await.unwrap();
    let came = loop {
        match next_read(&mut *reader).await {
            Event::Batch(batch) => break batch,
            Event::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(texts(&contents(&came)), ["x"]);
    let info = broker.admin().describe_topic(&orders).await.unwrap();
    assert_eq!((info.delayed, info.partitions[0].messages), (Some(0), Some(1)));
}

#[tokio::test]
async fn a_close_whose_commit_fails_ends_all_the_same() {
    let disk = Arc::<Disk>::default();
    let broker = open(&disk);
    let (orders, mut consumer, of, position) = at_work(&broker).await;
    consumer.control().ack(&of, &[position]).unwrap();
    disk.commits_fail.store(true, SeqCst);
    broker.close(PATIENCE).await;
    assert_eq!(disk.closed(), 1);
    let mut gone = 0;
    let error = loop {
        match consumer.next().await {
            Ok(Event::Gone(_, GoneReason::Closed)) => gone += 1,
            Ok(Event::CaughtUp(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((gone, error.kind()), (2, ErrorKind::Closed));
    disk.commits_fail.store(false, SeqCst);
    let broker = open(&disk);
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    assert_eq!(texts(&batch(&mut *consumer).await.1), ["a"], "the ack was not stored");
}

#[tokio::test]
async fn a_panic_of_the_thread_of_steps_is_told_to_everybody_and_opening_again_recovers() {
    let disk = Arc::<Disk>::default();
    let broker = open(&disk);
    let (orders, mut consumer, of, _) = at_work(&broker).await;
    let mut reader = broker.read().await.unwrap();
    let begun = disk.commits();
    disk.hold();
    let written = broker.publish(&to(&orders), vec![text("b")]);
    disk.until_begun(begun + 1).await;
    // It ends in the next step, in which these wait.
    broker.engine().order(|_, _| panic!("a defect"));
    let waiting = broker.publish(&to(&orders), vec![text("c")]);
    let flush = consumer.control().flush();
    let confirm = consumer.control().confirm(&of);
    disk.release();
    written.await.into_result().unwrap();
    assert_eq!(refused(&waiting.await).kind(), ErrorKind::Closed);
    assert!(confirm.await.is_err());
    flush.await;
    let mut gone = 0;
    let error = loop {
        match tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap() {
            Ok(Event::Gone(_, GoneReason::Lost)) => gone += 1,
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(gone, 2);
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().is_err());
    assert_eq!(refused(&broker.publish(&to(&orders), vec![text("d")]).await).kind(), ErrorKind::Closed);
    assert!(matches!(broker.health().await, Health::Down(_)));
    broker.close(PATIENCE).await;
    drop((broker, consumer, reader));
    let broker = open(&disk);
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    let mut all = Vec::new();
    while all.len() < 2 {
        all.extend(texts(&batch(&mut *consumer).await.1).into_iter().map(str::to_owned));
    }
    all.sort();
    assert_eq!(all, ["a", "b"]);
}

#[tokio::test]
async fn a_read_that_fails_refuses_what_needs_it_and_harms_nothing_else() {
    let disk = Arc::<Disk>::default();
    let broker = open_with(&disk, |settings| settings.dedup_window = Some(Duration::from_secs(60)));
    let (orders, consumer, of, position) = at_work(&broker).await;
    let control = consumer.control();
    disk.reads_fail.store(true, SeqCst);
    let out = || vec![(to(&orders), text("x")), (to(&orders), text("y"))];
    let outcomes = control.forward(&of, &[position], out()).await;
    assert_eq!(outcomes.0.len(), 2);
    assert!(causes(refused(&outcomes)).contains("on fire"), "{outcomes:?}");
    assert!(causes(refused(&broker.publish(&to(&orders), vec![text("z")]).await)).contains("on fire"));
    disk.reads_fail.store(false, SeqCst);
    let info = broker.admin().describe_group(&group("g")).await.unwrap();
    assert_eq!(
        info.partitions.iter().filter_map(|p| p.unfinished).sum::<u64>(),
        1,
        "nothing was acked or written"
    );
    control.forward(&of, &[position], out()).await.into_result().unwrap();
    assert_eq!(broker.health().await, Health::Up);
}

#[tokio::test]
async fn more_than_may_wait_is_throttled_and_forwards_have_room_of_their_own() {
    let disk = Arc::<Disk>::default();
    let broker = open_with(&disk, |settings| settings.queue_messages = 10);
    let (orders, consumer, of, position) = at_work(&broker).await;
    disk.hold();
    let begun = disk.commits();
    let first = broker.publish(&to(&orders), vec![text("first")]);
    disk.until_begun(begun + 1).await;
    let waiting: Vec<_> = (0..10).map(|_| broker.publish(&to(&orders), vec![text("x")])).collect();
    let outcomes = broker.publish(&to(&orders), vec![text("too much")]).await;
    assert_eq!(refused(&outcomes).kind(), ErrorKind::Throttled);
    let forward = consumer.control().forward(&of, &[position], vec![(to(&orders), text("moved"))]);
    disk.release();
    for outcomes in join_all(waiting.into_iter().chain([first, forward])).await {
        outcomes.into_result().unwrap();
    }
}

#[tokio::test]
async fn what_could_not_be_removed_is_removed_when_the_disk_lets_it() {
    let disk = Arc::new(Disk::default());
    let broker = open(&disk);
    let orders = make(&broker, "orders", 1).await;
    let logs = || disk.keyspaces().unwrap().iter().filter(|name| name.starts_with("log-")).count();
    assert_eq!(logs(), 1);
    disk.drops_fail.store(true, SeqCst);
    broker.admin().delete_topic(&orders).await.unwrap();
    let until = async |done: &dyn Fn() -> bool| {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let tried_twice = || disk.failed_drops.load(SeqCst) > 1;
    tokio::time::timeout(PATIENCE, until(&tried_twice)).await.expect("it is tried again");
    assert_eq!(logs(), 1);
    let health = broker.health().await;
    assert!(matches!(&health, Health::Degraded(why) if why.contains("on fire")), "{health:?}");
    disk.drops_fail.store(false, SeqCst);
    tokio::time::timeout(PATIENCE, until(&|| logs() == 0)).await.expect("its room comes back");
    let is_well = async {
        while broker.health().await != Health::Up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_well).await.expect("nothing is wrong any more");
}
