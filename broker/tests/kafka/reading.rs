//! Reading without a group: batches, waking, pausing, ends, gaps, offsets.
//!
//! Not here: groups (`groups.rs`), commits (`commits.rs`).

use super::{
    raw::{Admin, Code, Consumer, OFFSET_BEGINNING, Place},
    server::{LONG, Member, Seen, conf, topic, unique, values, write},
    tests,
};
use std::{sync::Arc, thread, time::Duration};
use tokio::time::Instant;

tests![
    one_message_does_not_wait_for_others,
    a_batch_has_what_is_there_and_no_more_than_is_asked_for,
    a_waker_ends_waiting_and_is_not_forgotten,
    the_end_of_a_partition_is_not_told_and_nothing_is_skipped,
    with_ends_told_batches_skip_messages,
    a_paused_partition_is_silent_and_loses_nothing,
    a_gap_is_told_and_a_new_assignment_goes_on,
    a_partition_is_read_from_its_beginning_in_no_group,
    metadata_says_what_there_is,
    a_panic_while_records_are_shown_gives_all_back,
];

const SECOND: Duration = Duration::from_secs(1);

fn one_message_does_not_wait_for_others() {
    let topic = topic(1, &[]);
    write(&topic, 0, &values(0, 1));
    let mut member = Member::reading(&topic, 0, 0, &[]);
    assert_eq!(member.values(1), values(0, 1));
    let later = thread::spawn(move || {
        thread::sleep(SECOND / 2);
        write(&topic, 0, &values(1, 2));
    });
    // A batch of a thousand is asked for, within a minute.
    let began = Instant::now();
    while member.records().len() < 2 {
        member.poll(Duration::from_secs(60));
        assert!(began.elapsed() < SECOND * 20, "one message waited for others");
    }
    later.join().unwrap();
}

fn a_batch_has_what_is_there_and_no_more_than_is_asked_for() {
    let topic = topic(1, &[]);
    write(&topic, 0, &values(0, 500));
    let mut member = Member::reading(&topic, 0, 0, &[]);
    // Then all of one fetch is there.
    assert_eq!(member.values(500).len(), 500);
    member.consumer.assign(&[Place::new(&topic, 0, 0)]).unwrap();
    let mut offsets = Vec::new();
    let (mut shown, mut largest) = (0, 0);
    while shown < 500 {
        let count = member.consumer.next(LONG, 7, &mut |told| {
            if let super::raw::Told::Record(record) = told {
                offsets.push(record.offset);
            }
        });
        assert!(count <= 7);
        largest = largest.max(count);
        shown += count;
    }
    assert_eq!(largest, 7);
    assert_eq!(offsets, (0..500).collect::<Vec<i64>>());
}

fn a_waker_ends_waiting_and_is_not_forgotten() {
    let topic = topic(1, &[]);
    let mut member = Member::reading(&topic, 0, 0, &[]);
    member.poll_for(SECOND / 2);
    let waker = member.consumer.waker().unwrap();
    for _ in 0..50 {
        let other = waker.clone();
        let rings = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            other.wake();
        });
        let began = Instant::now();
        assert_eq!(member.poll(LONG), 0);
        assert!(began.elapsed() < LONG / 2);
        rings.join().unwrap();
    }
    // Rung before anybody waits: the next call returns, the one after it waits.
    waker.wake();
    let began = Instant::now();
    member.poll(LONG);
    assert!(began.elapsed() < LONG / 2);
    let began = Instant::now();
    assert_eq!(member.poll(SECOND / 2), 0);
    assert!(began.elapsed() >= SECOND / 2);
    // A waker outlives its consumer.
    assert!(member.consumer.close(LONG));
    waker.wake();
}

/// What is read of 400 values: a hundred, and three times a hundred that come while the partition is paused at its end.
fn read_across_pauses(member: &mut Member, topic: &Arc<str>) -> Vec<Vec<u8>> {
    let last = |seen: &Seen, offset| matches!(seen, Seen::Record { offset: at, .. } if *at == offset);
    for round in 0..4 {
        let place = [Place::new(topic, 0, 0)];
        if round > 0 {
            member.consumer.pause(&place).unwrap();
        }
        write(topic, 0, &values(100 * round, 100 * round + 100));
        member.poll_for(SECOND / 2);
        if round > 0 {
            member.consumer.resume(&place).unwrap();
        }
        let offset = 100 * round as i64 + 99;
        let until = Instant::now() + LONG;
        while !member.seen.iter().any(|seen| last(seen, offset)) {
            assert!(Instant::now() < until, "nothing comes up to {offset}");
            member.poll(SECOND / 10);
        }
        member.poll_for(SECOND / 2);
    }
    member.records().into_iter().map(|(_, value)| value).collect()
}

fn the_end_of_a_partition_is_not_told_and_nothing_is_skipped() {
    let topic = topic(1, &[]);
    // Asked for, and not had.
    let mut member = Member::reading(&topic, 0, 0, &[("enable.partition.eof", "true")]);
    assert_eq!(read_across_pauses(&mut member, &topic), values(0, 400));
    let problem = member.seen.iter().find(|seen| matches!(seen, Seen::Problem { .. }));
    assert!(problem.is_none(), "{problem:?}");
}

/// The double of the test before: with what it must not have, the same reads lose what comes first behind an end.
fn with_ends_told_batches_skip_messages() {
    let topic = topic(1, &[]);
    let settings = [
        ("group.id", "none"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
    ];
    let notes = Arc::default();
    let consumer = Consumer::made(conf(&settings), Arc::clone(&notes), 1_000).unwrap();
    let mut member = Member { consumer, notes, seen: Vec::new() };
    member.consumer.assign(&[Place::new(&topic, 0, 0)]).unwrap();
    let read = read_across_pauses(&mut member, &topic);
    let skipped: Vec<Vec<u8>> = values(0, 400).into_iter().filter(|value| !read.contains(value)).collect();
    let behind_ends: Vec<Vec<u8>> = [100, 200, 300].map(|at: i32| at.to_string().into_bytes()).into();
    assert!(!skipped.is_empty(), "the library lost nothing: where it does not, ends may be told");
    assert!(skipped.iter().all(|value| behind_ends.contains(value)), "{skipped:?}");
}

fn a_paused_partition_is_silent_and_loses_nothing() {
    let topic = topic(2, &[]);
    let mut member = Member::of(&unique("none"), &[]);
    let places = [Place::new(&topic, 0, 0), Place::new(&topic, 1, 0)];
    member.consumer.assign(&places).unwrap();
    for round in 0..5 {
        member.consumer.pause(&places[..1]).unwrap();
        let before = member.records().len();
        write(&topic, 0, &values(round * 50, round * 50 + 50));
        write(&topic, 1, &values(0, 50));
        // Those of the other partition, and none of this one.
        member.values(before + 50);
        let paused = |seen: &&Seen| matches!(seen, Seen::Record { partition: 0, .. });
        assert_eq!(member.seen.iter().filter(paused).count(), round * 50);
        member.consumer.resume(&places[..1]).unwrap();
        member.values(before + 100);
    }
    let first = member.seen.iter().filter_map(|seen| match seen {
        Seen::Record { partition: 0, offset, .. } => Some(*offset),
        _ => None,
    });
    assert!(first.eq(0..250));
    let unknown = Arc::from(unique("unknown"));
    assert_eq!(
        member.consumer.pause(&[Place::new(&unknown, 0, 0)]).unwrap_err().code,
        Code::UNKNOWN_PARTITION
    );
}

fn a_gap_is_told_and_a_new_assignment_goes_on() {
    let topic = topic(1, &[]);
    write(&topic, 0, &values(0, 100));
    let admin = Admin::open(conf(&[]), Arc::default()).unwrap();
    let removed = |partition, before| admin.delete_records(&topic, &[(partition, before)], LONG);
    let told = removed(0, 60).unwrap();
    assert!(matches!(&told[..], [(Place { partition: 0, offset: 60, .. }, Ok(()))]), "{told:?}");
    assert_eq!(removed(0, 500).unwrap()[0].1.as_ref().unwrap_err().code, Code::OFFSET_OUT_OF_RANGE);
    assert_eq!(removed(1, 0).unwrap_err().code, Code::UNKNOWN_TOPIC_OR_PART);
    let mut member = Member::reading(&topic, 0, 10, &[]);
    let (code, place) = member.until("problem", |seen| match seen {
        Seen::Problem { code, place } => Some((*code, place.clone())),
        _ => None,
    });
    assert_eq!(code, Code::AUTO_OFFSET_RESET);
    // With the offset that was wanted.
    assert_eq!(place, Some(Place::new(&topic, 0, 10)));
    member.poll_for(SECOND);
    assert_eq!(member.records(), []);
    member.consumer.incremental_unassign(&[Place::new(&topic, 0, 0)]).unwrap();
    member.consumer.incremental_assign(&[Place::new(&topic, 0, 60)]).unwrap();
    assert_eq!(member.values(40), values(60, 100));
    // Behind the end it is the same.
    member.consumer.assign(&[Place::new(&topic, 0, 500)]).unwrap();
    let place = member.until("problem", |seen| match seen {
        Seen::Problem { code: Code::AUTO_OFFSET_RESET, place } => place.clone(),
        _ => None,
    });
    assert_eq!(place.offset, 500);
}

fn a_partition_is_read_from_its_beginning_in_no_group() {
    let topic = topic(1, &[]);
    write(&topic, 0, &values(0, 10));
    let mut member = Member::reading(&topic, 0, OFFSET_BEGINNING, &[]);
    assert_eq!(member.values(10), values(0, 10));
    assert_eq!(member.consumer.membership(), None);
}

fn metadata_says_what_there_is() {
    let topic = topic(3, &[]);
    let producer = super::server::producer(&[]);
    let metadata = producer.metadata(Some(&topic), LONG).unwrap();
    assert!(metadata.nodes.iter().all(|node| !node.host.is_empty() && node.port > 0));
    assert_eq!(metadata.topics.len(), 1);
    let told = &metadata.topics[0];
    assert_eq!((&*told.name, told.code, told.partitions.len()), (&*topic, Code::NONE, 3));
    for partition in &told.partitions {
        assert!(metadata.nodes.iter().any(|node| node.id == partition.leader));
        assert_eq!((partition.code, &partition.replicas), (Code::NONE, &vec![partition.leader]));
        assert_eq!(partition.isr, partition.replicas);
    }
    let missing = producer.metadata(Some(&unique("missing")), LONG).unwrap();
    assert_eq!(missing.topics[0].code, Code::UNKNOWN_TOPIC_OR_PART);
    let all = producer.metadata(None, LONG).unwrap();
    assert!(all.topics.iter().any(|told| *told.name == *topic));
}

fn a_panic_while_records_are_shown_gives_all_back() {
    let topic: Arc<str> = topic(1, &[]);
    write(&topic, 0, &values(0, 100));
    let mut member = Member::reading(&topic, 0, 0, &[]);
    let mut shown = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while shown < 50 {
            member.consumer.next(LONG, 1_000, &mut |_| {
                shown += 1;
                assert!(shown < 10, "as a test does");
            });
        }
    }));
    assert!(panicked.is_err());
    // What was not shown is gone, nothing hangs, and it goes on behind it.
    write(&topic, 0, &values(100, 101));
    member.until("the next record", |seen| matches!(seen, Seen::Record { offset: 100, .. }).then_some(()));
    assert!(member.consumer.close(LONG));
}
