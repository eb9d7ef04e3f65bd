//! Several movers of one log, as processes share a server: they share the work, and one of them may be killed at any time.
//!
//! Not here: the broker (`memory.rs`), one process (`conforms.rs`), single decisions (`decisions.rs`, `model.rs`).

use super::memory::{Hangs, Log, Loses, Memory, Says};
use crate::{
    Admin, Clock, ErrorKind, Event, Group, Message, MessageBroker, MessageBrokerExt, MessageId, ReaderExt,
    Start, Subscription, Target, Timestamp, Topic, TopicSpec,
    delay::names::{Names, PARTITIONS},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

fn topic() -> Topic {
    Topic::new("orders").unwrap()
}

/// So many processes on one log with a topic of two partitions.
async fn processes(count: usize) -> Vec<Memory> {
    let log = Log::new().unwrap();
    log.inner.admin().create_topic(&topic(), TopicSpec::partitions(2)).await.unwrap();
    (0..count).map(|_| Memory::new(log.shared())).collect()
}

fn later(at: Timestamp) -> Message {
    Message::builder().key("k").payload("x").deliver_at(at).build()
}

/// What lies in the topic, how often each.
async fn delivered(process: &Memory) -> BTreeMap<MessageId, usize> {
    let mut reader = process.read().await.unwrap();
    reader.follow(&topic(), None, Start::Earliest).await.unwrap();
    let mut seen = BTreeMap::new();
    while let Ok(event) = timeout(Duration::from_millis(50), reader.next()).await {
        if let Event::Batch(batch) = event.unwrap() {
            batch.deliveries.iter().for_each(|delivery| *seen.entry(delivery.message.id).or_default() += 1);
        }
    }
    seen
}

/// Waits until so many different messages are there.
async fn until(process: &Memory, count: usize) -> BTreeMap<MessageId, usize> {
    let start = Instant::now();
    loop {
        let seen = delivered(process).await;
        if seen.len() >= count {
            return seen;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{} of {count}", seen.len());
        sleep(Duration::from_millis(200)).await;
    }
}

async fn publish(process: &Memory, count: usize, ahead: impl Fn(usize) -> u64) -> Vec<MessageId> {
    let now = process.log.clock.now();
    let batch: Vec<_> = (0..count).map(|number| later(now + Duration::from_millis(ahead(number)))).collect();
    let ids = batch.iter().map(|message| message.id).collect();
    assert!(process.publish(&Target::from(topic()), batch).await.all_acked());
    ids
}

#[tokio::test(start_paused = true)]
async fn two_movers_share_the_work_and_each_message_comes_once() {
    let processes = processes(2).await;
    let mut ids = publish(&processes[0], 500, |number| 3000 + number as u64 * 7).await;
    ids.extend(publish(&processes[1], 500, |number| 3000 + number as u64 * 3).await);
    let seen = until(&processes[0], 1000).await;
    assert!(seen.values().all(|times| *times == 1));
    let group = Names::new(&topic(), life(&processes[0]).await).unwrap().group;
    let described = processes[0].describe_group(&group).await.unwrap();
    assert_eq!((described.members.len(), described.partitions.len()), (2, PARTITIONS as usize));
}

async fn life(process: &Memory) -> u64 {
    process.ground.look(&topic()).await.unwrap().life
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_mover_had_is_moved_by_another_and_nothing_is_lost() {
    for killed_after in [0, 1, 5, 200, 700, 1300] {
        let processes = processes(3).await;
        let ids = publish(&processes[0], 300, |number| 500 + number as u64 * 5).await;
        publish(&processes[1], 1, |_| 100).await;
        sleep(Duration::from_millis(killed_after)).await;
        processes[0].kill();
        let seen = until(&processes[2], 301).await;
        assert!(ids.iter().all(|id| seen.contains_key(id)), "killed after {killed_after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_no_right_to_move_leaves_it_to_those_who_have() {
    let all: [Loses; 2] = [|to, _| to.topic == topic(), |_, _| true];
    for forbids in all {
        let log = Log::new().unwrap();
        log.inner.admin().create_topic(&topic(), TopicSpec::partitions(2)).await.unwrap();
        let without = |_| {
            let mut other = log.shared();
            other.forbids = forbids;
            Memory::new(other)
        };
        // So many that they own all but one of the partitions.
        let others: Vec<Memory> = (1..PARTITIONS).map(without).collect();
        let may = Memory::new(log);
        let ids = publish(&may, 100, |number| 30_000 + number as u64 * 20).await;
        let mut consumers = Vec::new();
        for other in &others {
            // It consumes the topic: so it takes part in moving.
            let subscription = Subscription::new(Group::new("readers").unwrap(), [topic()]);
            consumers.push(other.subscribe(subscription).await.unwrap());
        }
        sleep(Duration::from_secs(60)).await;
        let seen = delivered(&may).await;
        assert_eq!(ids.iter().filter(|id| seen.contains_key(id)).count(), 100);
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_are_taken_back_at_once_share_who_looks_for_the_answers() {
    let processes = processes(2).await;
    // The first one owns all: the other has joined nothing yet.
    let ids = publish(&processes[0], 500, |_| 600_000).await;
    sleep(Duration::from_secs(2)).await;
    let asked = ids.iter().map(async |id| processes[1].cancel_delayed(&topic(), *id).await.unwrap());
    let answers = futures::future::join_all(asked).await;
    assert!(answers.into_iter().all(|cancelled| cancelled));
    let readers = *processes[1].log.readers.lock().unwrap();
    // One for each partition, and a few for those whose answers came behind what the one before had to see.
    assert!((1..50).contains(&readers), "{readers}");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_answered_by_who_owns_the_partition_wherever_that_is() {
    let processes = processes(3).await;
    let ids = publish(&processes[0], 40, |_| 60_000).await;
    publish(&processes[1], 1, |_| 60_000).await;
    sleep(Duration::from_secs(2)).await;
    // One of them owns nothing of it yet.
    for (number, id) in ids.iter().enumerate().take(30) {
        let asked = processes[number % 3].cancel_delayed(&topic(), *id).await.unwrap();
        assert!(asked, "{number}");
        let again = processes[(number + 1) % 3].cancel_delayed(&topic(), *id).await.unwrap();
        assert!(!again, "{number}");
    }
    sleep(Duration::from_secs(61)).await;
    let seen = delivered(&processes[0]).await;
    assert_eq!(seen.len(), 11);
    assert!(ids[30..].iter().all(|id| seen[id] == 1));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_takes_part_where_the_publisher_is_gone() {
    let processes = processes(2).await;
    publish(&processes[0], 3, |_| 5_000).await;
    processes[0].close(Duration::from_secs(5)).await;
    let looks = *processes[1].log.looks.lock().unwrap();
    assert_eq!(looks, 0);
    processes[1].delay.watch(&processes[1].ground, &topic());
    let start = Instant::now();
    until(&processes[1], 3).await;
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_delayed_a_consumer_looks_once_in_ten_seconds() {
    let processes = processes(1).await;
    processes[0].delay.watch(&processes[0].ground, &topic());
    sleep(Duration::from_secs(605)).await;
    let looks = *processes[0].log.looks.lock().unwrap();
    assert!((60..=2 * 62).contains(&looks), "{looks} looks in 10 minutes");
}

#[tokio::test(start_paused = true)]
async fn of_many_topics_that_are_consumed_it_is_asked_at_once() {
    let processes = processes(1).await;
    for number in 0..50 {
        let topic = Topic::new(format!("many-{number}")).unwrap();
        processes[0].create_topic(&topic, TopicSpec::partitions(1)).await.unwrap();
        processes[0].delay.watch(&processes[0].ground, &topic);
    }
    sleep(Duration::from_secs(605)).await;
    let looks = *processes[0].log.looks.lock().unwrap();
    assert!((60..=2 * 62).contains(&looks), "{looks} looks in 10 minutes");
}

#[tokio::test(start_paused = true)]
async fn what_waits_outlives_servers_that_say_for_a_while_that_its_topic_is_another_or_none() {
    for says in [Says::Missing, Says::Other] {
        let processes = processes(1).await;
        let process = &processes[0];
        process.delay.watch(&process.ground, &topic());
        let ids = publish(process, 5, |_| 100_000).await;
        sleep(Duration::from_secs(1)).await;
        *process.log.says.lock().unwrap() = Some(says);
        _ = process.cancel_delayed(&topic(), MessageId::new()).await;
        sleep(Duration::from_secs(60)).await;
        *process.log.says.lock().unwrap() = None;
        let came = until(process, 5).await;
        assert!(ids.iter().all(|id| came[id] == 1), "{says:?}: {came:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_internal_one_cannot_be_made_holds_up_no_other() {
    let mut log = Log::new().unwrap();
    log.hangs = Some(Hangs::Make("stuck"));
    let stuck = Topic::new("stuck").unwrap();
    for topic in [&topic(), &stuck] {
        log.inner.admin().create_topic(topic, TopicSpec::partitions(1)).await.unwrap();
    }
    let process = Memory::new(log);
    let due = process.log.clock.now() + Duration::from_secs(600);
    let held = process.publish(&stuck.into(), vec![later(due)]);
    sleep(Duration::from_secs(1)).await;
    let other = timeout(Duration::from_secs(5), process.publish(&topic().into(), vec![later(due)])).await;
    assert!(other.expect("it is not held up").all_acked());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn what_was_delayed_goes_with_its_topic_whoever_deletes_it() {
    let processes = processes(2).await;
    publish(&processes[0], 5, |_| 30_000).await;
    let names = Names::new(&topic(), life(&processes[0]).await).unwrap();
    sleep(Duration::from_secs(1)).await;
    // Another process deletes it, and makes one of the same name.
    processes[1].delete_topic(&topic()).await.unwrap();
    processes[1].create_topic(&topic(), TopicSpec::partitions(1)).await.unwrap();
    let ids = publish(&processes[1], 1, |_| 31_000).await;
    sleep(Duration::from_secs(33)).await;
    assert_eq!(delivered(&processes[1]).await.into_keys().collect::<Vec<_>>(), ids);
    sleep(Duration::from_secs(300)).await;
    let left = processes[0].topics().await.unwrap();
    assert!(!left.contains(&names.internal), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_delayed_just_after_another_process_made_the_topic_again_is_delivered_and_can_be_taken_back()
{
    let processes = processes(2).await;
    publish(&processes[0], 3, |_| 30_000).await;
    processes[1].delete_topic(&topic()).await.unwrap();
    // Gone: it is refused, and not acked into what goes with the topic.
    let due = processes[0].log.clock.now() + Duration::from_secs(5);
    let failed = processes[0].publish_one(topic(), later(due)).await.unwrap_err();
    assert_eq!((failed.may_be_written, failed.failed.error.kind()), (false, ErrorKind::NotFound));
    processes[1].create_topic(&topic(), TopicSpec::partitions(1)).await.unwrap();
    let ids = publish(&processes[0], 3, |_| 5_000).await;
    assert!(processes[1].cancel_delayed(&topic(), ids[1]).await.unwrap());
    assert!(processes[0].cancel_delayed(&topic(), ids[2]).await.unwrap());
    sleep(Duration::from_secs(40)).await;
    assert_eq!(delivered(&processes[1]).await.into_keys().collect::<Vec<_>>(), ids[..1]);
}

#[tokio::test(start_paused = true)]
async fn bad_input_is_refused_by_what_is_wrong_with_it() {
    let processes = processes(1).await;
    let process = &processes[0];
    let due = process.log.clock.now() + Duration::from_secs(60);
    let refused = async |to: Target, message: Message| {
        let failed = process.publish_one(to, message).await.unwrap_err();
        assert!(!failed.may_be_written);
        failed.failed.error.kind()
    };
    let missing = Topic::new("missing").unwrap();
    assert_eq!(refused(missing.clone().into(), later(due)).await, ErrorKind::NotFound);
    let beyond = Target { partition: Some(2), ..topic().into() };
    assert_eq!(refused(beyond, later(due)).await, ErrorKind::NotFound);
    let large = Message { payload: Some(vec![0; 6 << 20].into()), ..later(due) };
    assert_eq!(refused(topic().into(), large).await, ErrorKind::TooLarge);
    let names = Names::new(&topic(), life(process).await).unwrap();
    assert_eq!(refused(names.internal.into(), later(due)).await, ErrorKind::Invalid);
    let unknown = process.cancel_delayed(&missing, MessageId::new()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    process.close(Duration::from_secs(1)).await;
    assert_eq!(refused(topic().into(), later(due)).await, ErrorKind::Closed);
    assert_eq!(
        process.cancel_delayed(&topic(), MessageId::new()).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_both_kinds_is_answered_in_its_order() {
    let processes = processes(1).await;
    let now = processes[0].log.clock.now();
    let far = now + Duration::from_secs(60);
    let batch: Vec<_> = (0..9).map(|i| if i % 3 == 0 { later(far) } else { later(now) }).collect();
    let outcomes = processes[0].publish(&topic().into(), batch).await.0;
    let placed: Vec<bool> = outcomes
        .iter()
        .map(|outcome| matches!(outcome, crate::Published::Acked { position: Some(_), .. }))
        .collect();
    assert_eq!(placed, (0..9).map(|i| i % 3 != 0).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn more_than_memory_has_room_for_is_put_away_and_comes_in_time() {
    let processes = processes(1).await;
    // 12 MiB in each of four partitions, of which 8 are held.
    let now = processes[0].log.clock.now();
    let mut due = BTreeMap::new();
    for round in 0..48 {
        let batch: Vec<_> = (0..16u64)
            .map(|number| {
                let at = now + Duration::from_secs(120 + (round * 16 + number) % 600);
                let message = Message { payload: Some(vec![0; 64 << 10].into()), ..later(at) };
                due.insert(message.id, at);
                message
            })
            .collect();
        assert!(processes[0].publish(&topic().into(), batch).await.all_acked());
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!(processes[0].describe_topic(&topic()).await.unwrap().delayed, None, "some are put away");
    let mut reader = processes[0].read().await.unwrap();
    reader.follow(&topic(), None, Start::Earliest).await.unwrap();
    let mut seen = 0;
    while seen < due.len() {
        let event = timeout(Duration::from_secs(900), reader.next()).await.expect("they come").unwrap();
        let Event::Batch(batch) = event else { continue };
        let now = processes[0].log.clock.now();
        for delivery in batch.deliveries {
            seen += 1;
            let at = due[&delivery.message.id];
            assert!(now >= at && now.since(at) <= Duration::from_secs(1), "{:?} late", now.since(at));
        }
    }
    let left = processes[0].describe_topic(&topic()).await.unwrap().delayed;
    assert_eq!(left, Some(0));
    let _: &Arc<_> = &processes[0].log;
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_described_at_once_while_nobody_here_may_move_what_waits() {
    let log = Log::new().unwrap();
    log.inner.admin().create_topic(&topic(), TopicSpec::partitions(2)).await.unwrap();
    let without = |_| {
        let mut other = log.shared();
        other.forbids = |_, _| true;
        Memory::new(other)
    };
    // So many that some own what has to be written to: they find out, and pause for minutes.
    let others: Vec<Memory> = (1..PARTITIONS).map(without).collect();
    let may = Memory::new(log);
    publish(&may, 10, |_| 600_000).await;
    others.iter().for_each(|other| other.delay.watch(&other.ground, &topic()));
    sleep(Duration::from_secs(20)).await;
    for other in &others {
        let described = timeout(Duration::from_secs(5), other.describe_topic(&topic())).await;
        assert_eq!(described.expect("at once").unwrap().delayed, None, "it is not known here");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_delayed_is_answered_within_the_publish_deadline_whatever_stands_still() {
    const DEADLINE: Duration = Duration::from_secs(5);
    for hangs in [Hangs::Look, Hangs::Put] {
        let mut log = Log::new().unwrap();
        log.inner.admin().create_topic(&topic(), TopicSpec::partitions(2)).await.unwrap();
        (log.hangs, log.deadline) = (Some(hangs), DEADLINE);
        let process = Memory::new(log);
        let (due, start) = (process.log.clock.now() + Duration::from_secs(60), Instant::now());
        let outcomes = timeout(DEADLINE * 20, process.publish(&topic().into(), vec![later(due)])).await;
        let failed = outcomes.expect("it is answered").0.pop().unwrap();
        assert!(start.elapsed() < DEADLINE + Duration::from_secs(1), "{hangs:?}: {:?}", start.elapsed());
        assert_eq!(failed.failed().unwrap().error.kind(), ErrorKind::Unavailable);
        // What is on its way may be written yet.
        assert_eq!(matches!(failed, crate::Published::Unknown(_)), hangs == Hangs::Put);
    }
}
