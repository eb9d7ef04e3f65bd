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
fn a_batch_that_lies_about_where_it_is_is_a_gap_from_where_it_was_to_its_end() {
    let mut play = Play::owning(1);
    play.publish(0, 9);
    play.read(0, 2);
    // What was told before, or marks of transactions, are no such sign.
    play.bring(0, &[0, 1, 3, 3, 0, 4]);
    assert_eq!(play.told(), "batch 0: 0 1 3 4");
    play.bring(0, &[7, 8, 6, 7, 8, 9]);
    assert_eq!(play.told(), "batch 0: 7 8, gap 0: Some(5) to Some(9) damaged, batch 0: 9");
    let of = play.owned(0);
    play.ack(&of, &[0, 1, 3, 4, 7, 8, 9]).unwrap();
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!(play.stored(0).0, 10);
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
fn a_slow_partition_is_held_where_another_goes_without_and_read_again_when_it_is_drained() {
    let mut play = Play::with(2, |rules| rules.common.bound = Bound { messages: 64, bytes: 1 << 20 });
    play.give(0..2);
    _ = play.act();
    _ = play.told();
    play.publish(0, 20_000);
    play.publish(1, 10);
    play.read(0, 17_000);
    assert!(matches!(play.core.next_job(play.now), Job::Moment(_)));
    play.pass(Duration::from_millis(60));
    assert_eq!(play.act(), "", "there is enough for who takes it");
    _ = play.told();
    assert_eq!(play.act(), "");
    play.pass(Duration::from_millis(60));
    assert_eq!(play.act(), "hold", "nothing can be handed out any more, and the other has room");
    assert_eq!(play.core.held, BTreeSet::from([key(0)]));
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
        assert!(acked < 17_000);
    }
    assert!(acked >= 14_000, "{acked}");
}

#[test]
fn too_much_is_asked_for_again_when_a_quarter_is_left_and_answers_to_that_are_not_too_much() {
    let mut play = Play::with(4, |rules| rules.common.bound = Bound { messages: 1 << 20, bytes: 1 << 30 });
    play.give(0..4);
    _ = play.act();
    _ = play.told();
    for partition in 0..4 {
        play.publish(partition, 10_000);
        play.read(partition, 4097);
    }
    let lies = |play: &Play| play.core.owner.ahead.messages;
    while lies(&play) > 4096 {
        assert!(matches!(play.core.next_job(play.now), Job::Moment(_)), "{}", lies(&play));
        let (event, stirred) = play.core.poll(Waker::noop(), play.now);
        assert!(event.is_some());
        assert_eq!(stirred.feed, lies(&play) <= 4096, "its thread is called for that");
    }
    assert!(matches!(play.core.next_job(play.now), Job::Wait(_, 1024)));
    assert!(play.core.held.is_empty(), "nothing is thrown away");
}

#[test]
fn one_is_asked_for_now_and_then_and_all_are_held_where_that_becomes_too_much() {
    let mut play = Play::owning(2);
    play.publish(0, 30_000);
    play.read(0, 17_000);
    for _ in 0..3 {
        assert!(
            matches!(play.core.next_job(play.now), Job::Moment(until) if until <= play.now + Duration::from_millis(50))
        );
        play.pass(Duration::from_millis(500));
        assert_eq!(
            play.core.next_job(play.now),
            Job::Wait(play.now, 1),
            "changes of the assignment come with records"
        );
        play.read(0, 1);
    }
    play.read(0, 5000);
    assert_eq!(play.act(), "hold");
    assert_eq!(play.core.held.len(), 2);
    assert!(
        matches!(play.core.next_job(play.now), Job::Wait(until, _) if until <= play.now + Duration::from_millis(50))
    );
    // Another owner in between: it is read, as nobody remembers.
    play.take_back(0..2, false);
    _ = play.told();
    play.pass(DRAIN);
    assert!(play.act().ends_with("answer"));
    play.give(0..2);
    assert_eq!(play.act(), "look, commit, assign, resume");
}
