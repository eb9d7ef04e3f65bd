//! What is read, what is missing, and how much lies ready.
//!
//! Not here: who plays the client and the server (`mod.rs`).

use super::*;

#[test]
fn what_was_removed_under_a_reader_is_a_gap_and_reading_goes_on_behind_it() {
    let mut play = Play::owning(1);
    play.publish(0, 9);
    play.read(0, 2);
    assert_eq!(play.told(), "batch 0: 0 1");
    let of = play.owned(0);
    play.logs.get_mut(&0).unwrap().low = 6;
    play.core.stuck(&key(0), 2);
    assert_eq!(play.act(), "look, unassign, assign");
    assert_eq!(play.reads[&0], 6);
    play.read(0, 9);
    assert_eq!(play.told(), "gap 0: Some(2) to Some(6) trimmed, batch 0: 6 7 8");
    play.ack(&of, &[0, 1]).unwrap();
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!(play.stored(0).0, 6, "what is gone holds nothing up");
}

#[test]
fn what_had_been_seen_when_it_was_removed_is_no_gap() {
    let mut play = Play::owning(1);
    play.publish(0, 4);
    play.read(0, 9);
    _ = play.told();
    play.logs.get_mut(&0).unwrap().low = 4;
    play.core.stuck(&key(0), 4);
    assert_eq!(play.act(), "look, unassign, assign");
    play.publish(0, 2);
    play.read(0, 9);
    assert_eq!(play.told(), "batch 0: 4 5");
}

#[test]
fn a_damaged_batch_is_one_unreadable_record_and_a_gap_to_its_end() {
    let mut play = Play::owning(1);
    play.publish(0, 9);
    play.read(0, 2);
    // The client goes on anywhere behind it.
    play.damage(0, 2, 7..8);
    play.core.stuck(&key(0), 3_544_953_225_383_850_290);
    assert_eq!(play.told(), "batch 0: 0 1, unreadable 0: 2");
    assert_eq!(play.act(), "unassign, look", "nobody reads it while its end is looked for");
    assert!(play.told().is_empty() && play.reads.is_empty());
    play.behind.insert(0, 5);
    play.pass(Duration::from_secs(1));
    assert_eq!(play.act(), "look, assign");
    assert_eq!((play.told().as_str(), play.reads[&0]), ("gap 0: Some(3) to Some(5) damaged", 5));
    play.read(0, 1);
    assert_eq!(play.told(), "batch 0: 5");
    let of = play.owned(0);
    play.ack(&of, &[0, 1, 2, 5]).unwrap();
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!(play.stored(0).0, 6, "what cannot be read holds nothing up");
    // One record, and the last.
    play.damage(0, 8, 0..0);
    play.behind.insert(0, 9);
    assert!(play.act().contains("unassign, look, assign"));
    assert_eq!((play.told().as_str(), play.reads[&0]), ("unreadable 0: 8", 9));
}

#[test]
fn an_offset_that_the_client_made_of_a_damaged_batch_is_no_end_of_the_log() {
    let mut play = Play::owning(1);
    play.publish(0, 9);
    play.read(0, 2);
    play.core.stuck(&key(0), 3_689_060_940_247_152_430);
    assert_eq!(play.act(), "look, unassign, assign");
    assert_eq!((play.told().as_str(), play.reads[&0]), ("batch 0: 0 1", 2), "it is read again");
}

#[test]
fn a_damaged_batch_that_is_removed_before_its_end_was_found_is_a_gap_to_what_is_left() {
    let mut play = Play::owning(1);
    play.publish(0, 9);
    play.damage(0, 0, 0..0);
    play.logs.get_mut(&0).unwrap().low = 6;
    assert_eq!(play.act(), "unassign, look, assign");
    assert_eq!(play.told(), "unreadable 0: 0, gap 0: Some(1) to Some(6) trimmed");
}

#[test]
fn a_log_that_lost_its_end_is_another_epoch_and_told_first() {
    let mut play = Play::owning(1);
    play.publish(0, 9);
    play.read(0, 6);
    _ = play.told();
    let of = play.owned(0);
    play.ack(&of, &[0, 1]).unwrap();
    play.pass(Duration::from_millis(100));
    _ = play.act();
    play.logs.get_mut(&0).unwrap().high = 4;
    play.core.stuck(&key(0), 6);
    assert_eq!(play.act(), "look, unassign, look, commit, assign");
    assert_eq!(play.told(), "gone 0 Lost, assigned 0@2, gap 0: Some(6) to Some(2) truncated");
    play.read(0, 9);
    assert_eq!(play.told(), "batch 0: 2 3, caught up 0");
}

#[test]
fn a_slow_partition_is_held_after_a_moment_and_read_again_when_it_is_drained() {
    let mut play = Play::with(2, |rules| rules.common.bound = Bound { messages: 64, bytes: 1 << 20 });
    play.give(0..2);
    _ = play.act();
    _ = play.told();
    play.publish(0, 20_000);
    play.publish(1, 10);
    play.read(0, 10_000);
    assert!(matches!(play.core.next_job(play.now), Job::Moment(_)));
    play.pass(Duration::from_millis(60));
    assert_eq!(play.act(), "hold");
    play.read(1, 10);
    assert!(play.told().contains("batch 1: 0 1 2"));
    let mut acked = 0;
    let of = play.owned(0);
    while !play.core.held.is_empty() {
        let done: Vec<u64> = (acked..acked + 20).collect();
        if play.ack(&of, &done).is_ok() {
            acked += 20;
        }
        _ = play.told();
        _ = play.act();
        assert!(acked < 10_000);
    }
    assert!(acked >= 5_000, "{acked}");
}

#[test]
fn partitions_that_were_held_are_read_again_together() {
    let mut play = Play::with(4, |rules| rules.common.bound = Bound { messages: 1 << 20, bytes: 1 << 30 });
    play.give(0..4);
    _ = play.act();
    _ = play.told();
    for partition in 0..4 {
        play.publish(partition, 4352);
        // Full is one of them, and all have a lot.
        play.read(partition, if partition == 0 { 4352 } else { 4096 });
    }
    play.pass(Duration::from_millis(60));
    assert_eq!(play.act(), "hold");
    assert_eq!(play.core.held.len(), 4, "together");
    let ready = |play: &Play, partition| play.core.owner.shares[&key(partition)].ahead.messages;
    let pause = |play: &mut Play, partition, paused| {
        let of = play.owned(partition);
        _ = play.core.pause(&of, paused);
    };
    (1..4).for_each(|partition| pause(&mut play, partition, true));
    // One of them alone is handed out: it is read again when it is nearly empty.
    while ready(&play, 0) > 0 {
        assert!(play.poll().is_some());
        let (left, acts) = (ready(&play, 0), play.act());
        assert_eq!(acts == "resume", left <= 4096 / 16 && left + 256 > 4096 / 16, "{left} {acts}");
    }
    play.publish(0, 4352);
    play.read(0, 4352);
    play.pass(Duration::from_millis(60));
    assert_eq!(play.act(), "hold");
    // As much of it lies ready as of the others.
    assert!(play.poll().is_some());
    // All: they are when a quarter lies ready, at once.
    (1..4).for_each(|partition| pause(&mut play, partition, false));
    let lies = |play: &Play| (0..4).map(|partition| ready(play, partition)).sum::<usize>();
    while !play.core.held.is_empty() {
        assert!(play.poll().is_some());
        let (left, acts) = (lies(&play), play.act());
        assert_eq!(acts == "resume", left <= 4096, "{left} {acts}");
        assert!(acts.is_empty() || play.core.held.is_empty(), "together");
    }
}
