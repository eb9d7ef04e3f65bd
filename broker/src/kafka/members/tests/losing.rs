//! How a member loses what it owns without being asked.
//!
//! Not here: who plays the client and the server (`mod.rs`).

use super::*;

#[test]
fn who_is_expelled_loses_all_at_once_and_goes_on_when_the_client_has_joined_again() {
    let mut play = Play::owning(2);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.ack(&of, &[0]).unwrap();
    play.pass(Duration::from_millis(100));
    play.answer = || Verdict::Expelled;
    assert_eq!(play.act(), "commit");
    assert_eq!(play.told(), "gone 0 Lost, gone 1 Lost");
    assert_eq!(play.act(), "");
    play.read(0, 9);
    assert_eq!(play.told(), "");
    play.answer = || Verdict::Stored;
    play.take_back([0, 1], true);
    assert_eq!(play.act(), "answer");
    play.give([0, 1]);
    assert_eq!(play.act(), "look, commit, assign");
    assert_eq!(play.told(), "assigned 0@0 1@0, caught up 1");
    // A client that does not notice is of no use.
    play.pass(Duration::from_secs(1));
    let of = play.owned(0);
    play.read(0, 9);
    _ = play.told();
    play.ack(&of, &[0]).unwrap();
    play.pass(Duration::from_millis(100));
    play.answer = || Verdict::Expelled;
    assert_eq!(play.act(), "commit");
    play.pass(SESSION);
    play.answer = || Verdict::Stored;
    assert_eq!(play.act(), "reopen, subscribe");
}

#[test]
fn a_name_that_another_took_is_the_end_and_another_fatal_error_a_new_client() {
    let mut play = Play::owning(1);
    _ = play.told();
    _ = play.core.failed(true, play.now);
    assert_eq!(play.told(), "gone 0 Lost, end fenced");
    assert_eq!(play.told(), "end fenced");
    assert_eq!(play.act(), "end");
    let mut play = Play::owning(1);
    _ = play.told();
    _ = play.core.failed(false, play.now);
    assert_eq!(play.told(), "gone 0 Lost");
    assert_eq!(play.act(), "reopen, subscribe");
}

#[test]
fn a_newer_group_is_watched_and_who_hears_nothing_for_a_session_stops() {
    let mut play = Play::with(1, |rules| rules.watched = true);
    play.publish(0, 3);
    play.give([0]);
    _ = play.act();
    play.read(0, 9);
    assert_eq!(play.told(), "assigned 0@0, batch 0: 0 1 2, caught up 0");
    play.pass(SESSION / 3);
    assert_eq!(play.act(), "commit", "to see whether it is still a member");
    play.hold_commits = true;
    play.pass(SESSION / 3);
    assert_eq!(play.act(), "commit, look");
    play.publish(0, 1);
    play.read(0, 9);
    play.pass(SESSION / 2);
    assert_eq!(play.told(), "", "nothing is handed out where that is not known");
    play.pass(SESSION / 6);
    _ = play.act();
    assert_eq!(play.told(), "gone 0 Lost");
}

#[test]
fn who_was_stopped_hands_out_nothing_before_the_client_and_the_group_were_asked() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    play.pass(SESSION);
    assert_eq!(play.told(), "");
    play.core.polled = play.now;
    assert_eq!(play.told(), "", "the group may have given it away meanwhile");
    assert_eq!(play.act(), "commit, look");
    assert_eq!(play.told(), "batch 0: 0 1 2");
}

#[test]
fn whose_way_is_cut_hands_out_nothing_when_another_may_own_it_and_goes_on_when_the_group_answers() {
    let mut play = Play::owning(1);
    play.publish(0, 20);
    play.read(0, 20);
    assert_eq!(play.told(), "batch 0: 0 1 2 3 4 5 6 7");
    let of = play.owned(0);
    play.hold_commits = true;
    play.pass(SESSION / 3);
    assert_eq!(play.act(), "commit", "asked for in time: something lies ready");
    play.pass(SESSION / 3);
    play.ack(&of, &[0, 1]).unwrap();
    assert_eq!(play.told(), "batch 0: 8 9", "the session goes on");
    play.pass(SESSION / 3);
    play.ack(&of, &[2, 3]).unwrap();
    _ = play.act();
    assert_eq!(play.told(), "", "though the client was polled, and was told nothing");
    // What was sent that long ago proves nothing any more.
    let sent = play.open.take().unwrap();
    assert!(sent.sent + SESSION / 3 < play.now);
    play.hold_commits = false;
    play.commit(sent);
    assert!(play.act().starts_with("commit"));
    assert_eq!(play.told(), "batch 0: 10 11");
}

#[test]
fn an_assignment_proves_nothing_of_what_is_kept() {
    let mut play = Play::owning(2);
    play.publish(0, 3);
    play.read(0, 9);
    play.pass(SESSION);
    play.core.polled = play.now;
    // It may have lain on a way that was cut.
    play.give([]);
    assert_eq!(play.told(), "");
}

#[test]
fn who_has_nothing_to_hand_out_stores_nothing() {
    let mut play = Play::owning(1);
    for _ in 0..10 {
        play.pass(SESSION / 3);
        let done = play.act();
        assert!(!done.contains("commit"), "{done}");
    }
}

#[test]
fn a_topic_of_which_nothing_can_be_found_out_is_not_lost_and_is_looked_at_again() {
    let mut play = Play::owning(1);
    play.hold_looks = true;
    play.give([1]);
    assert_eq!(play.act(), "look");
    let (keys, check) = play.look.take().unwrap();
    let looked = Looked { unknown: [topic()].into(), ..Looked::default() };
    _ = play.core.looked(&keys, &check, Ok(looked), play.now);
    assert_eq!((play.act(), play.told()), (String::new(), String::new()));
    assert!(play.core.owner.shares.contains_key(&key(0)));
    play.pass(Duration::from_secs(1));
    assert_eq!(play.act(), "look");
}
