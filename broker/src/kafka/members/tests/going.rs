//! How partitions are given back.
//!
//! Not here: who plays the client and the server (`mod.rs`).

use super::*;

#[test]
fn a_revocation_is_answered_when_the_last_acks_are_stored() {
    let mut play = Play::owning(2);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.take_back([0], false);
    assert_eq!(play.told(), "revoking 0 2s");
    play.read(0, 9);
    assert_eq!(play.act(), "");
    play.ack(&of, &[0, 1]).unwrap();
    _ = play.core.give_up(&of, play.now);
    assert_eq!(play.told(), "", "its last acks are not stored yet");
    assert_eq!(play.act(), "commit, answer");
    assert_eq!(play.told(), "gone 0 GivenUp");
    assert_eq!(play.stored(0).0, 2);
    assert_eq!(play.ack(&of, &[2]).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(play.reads.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn what_is_kept_too_long_goes_when_the_time_is_over_and_polling_starts_it_again_once() {
    let mut play = Play::owning(1);
    play.take_back([0], false);
    play.pass(DRAIN - Duration::from_millis(1));
    assert_eq!(play.told(), "revoking 0 2s");
    play.pass(Duration::from_millis(2));
    assert_eq!(play.act(), "", "it counts from when that was returned");
    play.pass(DRAIN);
    assert_eq!(play.act(), "answer");
    assert_eq!(play.told(), "gone 0 DrainOver");
    // Nobody polls.
    let mut play = Play::owning(1);
    play.take_back([0], false);
    play.pass(DRAIN);
    assert_eq!(play.act(), "answer");
}

#[test]
fn a_server_that_does_not_answer_holds_no_revocation_up_for_ever() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.hold_commits = true;
    play.ack(&of, &[0]).unwrap();
    play.take_back([0], false);
    _ = play.told();
    _ = play.core.give_up(&of, play.now);
    assert_eq!(play.act(), "commit");
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!(play.told(), "gone 0 GivenUp");
    play.pass(Duration::from_secs(9));
    assert_eq!(play.act(), "answer");
    // What was on its way comes late: nobody owns it any more.
    let batch = play.open.take().unwrap();
    play.commit(batch);
    assert_eq!(play.told(), "");
}

#[test]
fn a_lost_partition_is_answered_at_once_and_told_apart_from_a_revoked_one() {
    let mut play = Play::owning(2);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.ack(&of, &[0]).unwrap();
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    let (confirm, mut confirmed) = oneshot::channel();
    _ = play.core.owner.confirm(&of, confirm);
    play.take_back([0, 1], true);
    assert_eq!(play.told(), "gone 0 Lost, gone 1 Lost");
    assert_eq!(play.act(), "answer");
    let failed = answered.try_recv().unwrap();
    assert_eq!((failed[0].0.clone(), failed[0].1.kind()), (of.clone(), ErrorKind::Fenced));
    assert_eq!(confirmed.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Fenced);
    // It is a member again.
    play.pass(Duration::from_millis(1));
    play.give([0, 1]);
    assert_eq!(play.act(), "look, commit, assign");
    assert!(play.owned(0).epoch > of.epoch);
}

#[test]
fn what_falls_away_with_its_topic_is_drained_although_the_client_calls_it_lost() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    _ = play.core.set_topics(vec![Topic::new("other").unwrap()]).unwrap();
    assert_eq!(play.act(), "subscribe");
    play.take_back([0], true);
    assert_eq!(play.told(), "revoking 0 2s");
    play.ack(&of, &[0]).unwrap();
    _ = play.core.give_up(&of, play.now);
    assert_eq!(play.act(), "commit, answer");
    assert_eq!(play.told(), "gone 0 GivenUp");
    assert_eq!(play.stored(0).0, 1);
}

#[test]
fn what_is_given_up_unasked_comes_back_in_a_new_epoch_with_what_was_done() {
    let mut play = Play::owning(2);
    play.publish(0, 5);
    play.read(0, 9);
    _ = play.told();
    let first = play.owned(0);
    play.ack(&first, &[0, 1, 3]).unwrap();
    play.pass(Duration::from_millis(5));
    _ = play.core.give_up(&first, play.now);
    assert_eq!(play.act(), "commit, unassign, look, commit, assign");
    let second = play.owned(0);
    assert!(second.epoch > first.epoch);
    assert_eq!(play.told(), "gone 0 GivenUp, assigned 0@2");
    play.read(0, 9);
    assert_eq!(play.told(), "batch 0: 2 4, caught up 0");
}

#[test]
fn no_partition_is_read_anew_while_a_revocation_is_open() {
    let mut play = Play::owning(2);
    _ = play.told();
    play.take_back([0], false);
    assert_eq!(play.told(), "revoking 0 2s");
    let of = play.owned(1);
    play.pass(Duration::from_millis(5));
    _ = play.core.give_up(&of, play.now);
    // The client would take it for the answer.
    assert_eq!(play.act(), "look, commit");
    assert_eq!(play.reads[&1], 0);
    play.publish(1, 3);
    play.read(1, 9);
    assert_eq!(play.told(), "gone 1 GivenUp, assigned 1@0, caught up 1", "what comes is of the old place");
    let of = play.owned(0);
    _ = play.core.give_up(&of, play.now);
    assert_eq!(play.act(), "answer, unassign, assign");
    play.read(1, 9);
    assert_eq!(play.told(), "gone 0 GivenUp, batch 1: 0 1 2");
}

#[test]
fn closing_waits_for_what_is_in_flight_and_answers_with_what_is_left() {
    let mut play = Play::owning(2);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    let (answer, mut answered) = oneshot::channel();
    let _: Stirred = play.core.close(Duration::from_secs(5), Some(answer), play.now);
    assert_eq!(play.told(), "gone 1 Closed");
    play.ack(&of, &[0]).unwrap();
    assert_eq!(play.act(), "unassign");
    play.pass(Duration::from_secs(5));
    assert_eq!(play.act(), "commit, leave, end");
    assert_eq!(play.told(), "gone 0 Closed, end closed");
    assert_eq!(answered.try_recv().unwrap(), vec![(of, vec![p(1), p(2)])]);
    assert_eq!(play.stored(0).0, 1);
}

#[test]
fn acks_given_before_a_drop_are_stored_though_a_rebalance_refuses_them_at_first() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.ack(&of, &[0, 2]).unwrap();
    play.answer = || Verdict::Again;
    _ = play.core.abandon(play.now);
    assert_eq!(play.act(), "commit");
    play.pass(Duration::from_secs(2));
    assert_eq!(play.act(), "commit");
    play.answer = || Verdict::Stored;
    play.give([1]);
    assert_eq!(play.act(), "commit, leave, end", "what comes while it closes is not taken");
    assert_eq!(play.stored(0).0, 1);
    assert_eq!(play.stored(0).1.done_beyond(p(1)), 1);
}

#[test]
fn a_close_ends_where_no_commit_is_answered() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.hold_commits = true;
    play.ack(&of, &[0]).unwrap();
    _ = play.core.close(Duration::ZERO, None, play.now);
    assert_eq!(play.act(), "commit");
    play.pass(Duration::from_secs(10));
    assert_eq!(play.act(), "leave, end");
    assert_eq!(play.told(), "gone 0 Closed, end closed");
}

#[test]
fn a_close_ends_though_no_other_client_can_be_opened() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    _ = play.core.failed(false, play.now);
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.close(Duration::ZERO, Some(answer), play.now);
    assert_eq!(play.act(), "leave, end", "no other client is needed to leave");
    assert_eq!(play.told(), "gone 0 Lost, end closed");
    assert!(answered.try_recv().is_ok());
}

#[test]
fn a_close_names_what_was_not_acked_of_a_partition_whose_drain_ended_meanwhile() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.close(Duration::from_secs(30), Some(answer), play.now);
    play.take_back([0], false);
    assert_eq!(play.told(), "revoking 0 2s");
    play.ack(&of, &[1]).unwrap();
    play.pass(DRAIN);
    assert_eq!(play.act(), "commit, answer, leave, end");
    assert_eq!(play.told(), "gone 0 DrainOver, end closed");
    assert_eq!(answered.try_recv().unwrap(), vec![(of, vec![p(0), p(2)])]);
}
