//! What a member does of which a server does nothing, or refuses it: the rest goes on.
//!
//! Not here: the same on a real cluster (`broker/tests/redis/away.rs`).

use super::{super::duty::AT_ONCE, Error, ErrorKind, Job, LIFE, Play, of};
use crate::redis::failure::late;
use std::time::Duration;
use tokio::sync::oneshot;

const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn what_cannot_be_taken_over_now_is_tried_again_by_itself_and_the_rest_is_taken() {
    let mut play = Play::of(2);
    play.away.insert(0, late("h:1"));
    assert_eq!(play.act(), "claim, take t/0 t/1");
    assert_eq!(play.told(), "assigned 1@2");
    play.read(1, 1..=1, Some(LIFE));
    assert_eq!(play.told(), "1@2: 1");
    let mut tries = 0;
    for _ in 0..200 {
        play.pass(MOMENT / 5);
        let done = play.act();
        assert!(["", "take t/0"].contains(&done.as_str()), "{done}");
        tries += usize::from(!done.is_empty());
    }
    assert!((4..=6).contains(&tries), "in two seconds: {tries}");
    assert_eq!(play.told(), "");
    play.away.clear();
    play.pass(MOMENT * 20);
    assert_eq!(play.act(), "take t/0");
    assert_eq!(play.told(), format!("assigned 0@{}", play.epoch));
}

#[test]
fn what_cannot_be_stored_now_is_told_and_tried_again_and_the_rest_is_stored() {
    let mut play = Play::of(2);
    play.act();
    play.told();
    for partition in [0, 1] {
        play.read(partition, 1..=2, Some(LIFE));
    }
    play.told();
    play.away.insert(0, late("h:1"));
    let acks = |play: &mut Play, seq| {
        for partition in [0, 1] {
            play.ack(&of(partition, u64::from(partition) + 1), &[seq]).unwrap();
        }
    };
    acks(&mut play, 1);
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    assert_eq!(play.act(), "commit");
    let failed = answered.try_recv().unwrap();
    assert_eq!(failed.iter().map(|(of, _)| of.partition).collect::<Vec<_>>(), [0]);
    assert_eq!(play.act(), "", "after a pause of its own");
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    assert_eq!(
        (play.act().as_str(), answered.try_recv().unwrap().len()),
        ("commit", 1),
        "who waits is told at once"
    );
    acks(&mut play, 2);
    play.commits.clear();
    play.pass(Duration::from_millis(100));
    assert_eq!(play.act(), "commit");
    assert_eq!(play.commits.len(), 2);
    // Nothing is left of the one, and the lease goes on.
    play.commits.clear();
    for _ in 0..30 {
        play.pass(MOMENT * 2);
        play.act();
    }
    assert!(play.commits.iter().all(|commit| commit.of.partition == 0), "{:?}", play.commits);
    assert!((2..=4).contains(&play.commits.len()), "in three seconds: {}", play.commits.len());
    assert!(play.now - play.core.renewed <= MOMENT * 20, "{:?}", play.now - play.core.renewed);
    play.away.clear();
    play.pass(MOMENT * 20);
    assert_eq!((play.act().as_str(), play.told().as_str()), ("commit", ""));
    assert!(play.core.owner.dirty().is_empty());
}

#[test]
fn what_is_refused_for_good_of_one_partition_ends_the_member_though_others_are_stored() {
    let mut play = Play::of(2);
    play.act();
    play.told();
    play.away.insert(0, Error::new(ErrorKind::Conflict, "a key of another type"));
    for seq in 1..=40 {
        for partition in [0, 1] {
            play.read(partition, seq..=seq, Some(LIFE));
        }
        play.told();
        for partition in [0, 1] {
            _ = play.ack(&of(partition, u64::from(partition) + 1), &[seq]);
        }
        play.pass(Duration::from_millis(100));
        let done = play.act();
        if done.contains("leave") {
            assert!(seq >= 30, "not at once: {seq}");
            let told = play.told();
            return assert!(told.ends_with("ended conflict"), "{told}");
        }
    }
    panic!("it goes on");
}

#[test]
fn many_partitions_are_taken_over_in_parts() {
    let count = 2 * AT_ONCE as u32 + 3;
    let mut play = Play::of(count);
    let done = play.act();
    let parts: Vec<usize> = done
        .split(", ")
        .filter(|job| job.starts_with("take"))
        .map(|job| job.split(' ').count() - 1)
        .collect();
    assert_eq!(parts, [AT_ONCE, AT_ONCE, 3]);
}

#[test]
fn a_failed_commit_is_told_to_who_flushes_and_tried_again() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=2, Some(LIFE));
    play.told();
    play.ack(&of(0, 1), &[1]).unwrap();
    let (flush, mut flushed) = oneshot::channel();
    _ = play.core.owner.flush(flush);
    let job = play.core.next_job(play.now);
    let error = Error::new(ErrorKind::Unavailable, "no answer");
    _ = play.core.failed(&job, &error, play.now);
    assert_eq!(flushed.try_recv().unwrap()[0].1.kind(), ErrorKind::Unavailable);
    assert!(matches!(play.core.next_job(play.now), Job::Wait(_)), "not at once");
    play.pass(Duration::from_millis(200));
    assert_eq!(play.act(), "commit");
}
