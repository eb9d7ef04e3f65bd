//! What a member is given, and what it begins with.
//!
//! Not here: who plays the client and the server (`mod.rs`).

use super::*;

#[test]
fn nothing_is_handed_out_before_the_epoch_is_stored() {
    let mut play = Play::of(1);
    play.publish(0, 3);
    play.hold_commits = true;
    play.give([0]);
    assert_eq!(play.act(), "subscribe, look, commit");
    play.read(0, 9);
    assert_eq!(play.told(), "");
    let batch = play.open.take().unwrap();
    assert!(play.reads.is_empty(), "it is not even read");
    play.commit(batch);
    assert_eq!(play.act(), "assign");
    assert_eq!(play.stored(0).1.epoch, Epoch(1000));
    play.read(0, 9);
    assert_eq!(play.told(), "assigned 0@0, batch 0: 0 1 2, caught up 0");
}

#[test]
fn a_refused_epoch_is_no_assignment() {
    for (verdict, expected) in [
        ((|| Verdict::Again) as fn() -> Verdict, "commit"),
        (|| Verdict::Expelled, ""),
        (|| Verdict::Missing, "commit, look"),
    ] {
        let mut play = Play::of(1);
        play.publish(0, 3);
        play.answer = verdict;
        play.give([0]);
        _ = play.act();
        assert_eq!(play.told(), "");
        play.pass(Duration::from_secs(2));
        assert_eq!(play.act(), expected);
        assert!(play.reads.is_empty());
        assert_eq!(play.told(), "");
    }
}

#[test]
fn who_is_given_nothing_is_told_so() {
    let mut play = Play::of(1);
    play.give([]);
    _ = play.act();
    assert_eq!(play.told(), "assigned ");
    // A group that says nothing to who gets nothing.
    let mut play = Play::of(1);
    _ = play.act();
    play.core.joined = Some(play.now);
    _ = play.act();
    assert_eq!(play.told(), "");
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!(play.told(), "assigned ");
}

#[test]
fn what_comes_after_a_pause_waits_for_a_look_whether_the_topic_is_the_same() {
    let mut play = Play::owning(1);
    play.publish(0, 2);
    play.read(0, 9);
    assert_eq!(play.told(), "batch 0: 0 1");
    play.hold_looks = true;
    play.pass(Duration::from_secs(1));
    play.publish(0, 2);
    play.read(0, 9);
    assert_eq!(play.told(), "");
    assert_eq!(play.act(), "look");
    // More comes while it is looked: that is of the same time.
    play.read(0, 9);
    let (keys, check) = play.look.take().unwrap();
    play.looked(&keys, &check);
    assert_eq!(play.told(), "batch 0: 2 3");
    // The same where it is another: its records are not handed out, and none of them is acked by mistake.
    play.pass(Duration::from_secs(1));
    play.publish(0, 2);
    play.read(0, 9);
    play.life = 6;
    play.hold_looks = false;
    assert_eq!(play.act(), "look, unassign, look, reopen, subscribe");
    assert_eq!(play.told(), "gone 0 Lost");
    play.give([0]);
    assert_eq!(play.act(), "look, commit, assign");
    play.read(0, 9);
    assert_eq!(
        play.told(),
        "assigned 0@0, gap 0: Some(0) to Some(0) recreated, batch 0: 0 1 2 3 4 5, caught up 0"
    );
}

#[test]
fn a_topic_that_was_made_again_is_noticed_by_a_look_and_told_first() {
    for kept in [true, false] {
        let mut play = Play::owning(1);
        play.publish(0, 8);
        play.read(0, 9);
        _ = play.told();
        let of = play.owned(0);
        play.ack(&of, &[0, 1]).unwrap();
        play.pass(Duration::from_millis(100));
        _ = play.act();
        play.life = 6;
        let log = play.logs.get_mut(&0).unwrap();
        log.high = 1;
        if !kept {
            log.stored = None;
        }
        play.pass(super::super::duty::CHECK);
        assert_eq!(play.act(), "look, unassign, look, reopen, subscribe", "the client knows the other topic");
        play.give([0]);
        assert_eq!(play.act(), "look, commit, assign");
        play.read(0, 9);
        let from = if kept { "Some(2)" } else { "None" };
        let gap = format!("gap 0: {from} to Some(0) recreated");
        assert_eq!(play.told(), format!("gone 0 Lost, assigned 0@0, {gap}, batch 0: 0, caught up 0"));
    }
}

#[test]
fn a_group_that_has_nothing_starts_in_one_step_by_who_owns_the_first_partition() {
    let mut play = Play::of(3);
    play.publish(1, 7);
    play.give([0]);
    assert_eq!(play.act(), "subscribe, look, commit, assign");
    for partition in 1..3 {
        assert_eq!(play.stored(partition).1.epoch, Epoch(0), "a start that nobody owned");
    }
    // Another waits for it, but not for ever.
    let mut other = Play::of(3);
    other.give([1]);
    assert_eq!(other.act(), "subscribe, look");
    other.pass(Duration::from_millis(50));
    assert_eq!(other.act(), "look");
    other.logs.clone_from(&play.logs);
    other.pass(Duration::from_millis(50));
    assert_eq!(other.act(), "look, commit, assign");
    let mut alone = Play::of(3);
    alone.give([1]);
    _ = alone.act();
    alone.pass(Duration::from_secs(2));
    assert_eq!(alone.act(), "look, commit, assign");
}

/// What another stored of a partition: it acked up to there.
fn others(offset: u64, epoch: u64) -> Option<Stored> {
    let metadata = Metadata { life: LIFE, epoch: Epoch(epoch), oldest: None, before: None, map: Vec::new() };
    Some(Stored { offset, metadata: Some(metadata.encode().into_bytes()) })
}

#[test]
fn where_a_group_starts_is_not_stored_over_what_another_acked_while_it_was_looked() {
    let mut play = Play::of(2);
    play.publish(1, 9);
    play.hold_looks = true;
    play.give([0]);
    assert_eq!(play.act(), "subscribe, look");
    let (keys, check) = play.look.take().unwrap();
    let (found, at) = (play.logs.clone(), play.now);
    // While that look is on its way, another waits no longer, takes the second partition, and acks.
    play.pass(Duration::from_secs(3));
    play.logs.get_mut(&1).unwrap().stored = others(7, 3000);
    let (now, logs) = (std::mem::replace(&mut play.now, at), std::mem::replace(&mut play.logs, found));
    let looked = play.found();
    (play.now, play.logs) = (now, logs);
    _ = play.core.looked(&keys, &check, Ok(looked), play.now);
    play.hold_looks = false;
    play.pass(Duration::from_millis(50));
    assert_eq!(play.act(), "look, commit, assign", "it is looked again");
    assert_eq!((play.stored(1).0, play.stored(1).1.epoch), (7, Epoch(3000)));
}

/// What happens while a commit is not answered.
type Meanwhile = fn(&mut Play);

#[test]
fn where_a_group_starts_is_not_stored_late() {
    // What holds the commit up: a coordinator that is away for long; the first partition is another's by then; the second is this member's by then.
    let cases: [(Meanwhile, u64); 3] = [
        (|play| play.pass(Duration::from_secs(3)), 3000),
        (
            |play| {
                play.take_back([0], true);
                play.pass(Duration::from_millis(300));
            },
            3000,
        ),
        (
            |play| {
                play.logs.get_mut(&1).unwrap().stored = others(7, 3000);
                play.give([1]);
                play.pass(Duration::from_millis(300));
            },
            3001,
        ),
    ];
    for (meanwhile, epoch) in cases {
        let mut play = Play::of(2);
        play.publish(1, 9);
        play.answer = || Verdict::Again;
        play.give([0]);
        assert_eq!(play.act(), "subscribe, look, commit");
        meanwhile(&mut play);
        play.logs.get_mut(&1).unwrap().stored = others(7, 3000);
        play.answer = || Verdict::Stored;
        _ = play.act();
        assert_eq!((play.stored(1).0, play.stored(1).1.epoch), (7, Epoch(epoch)));
    }
}

#[test]
fn who_waits_for_the_start_of_a_group_waits_anew_when_it_is_given_a_partition_again() {
    let mut play = Play::of(2);
    play.give([1]);
    assert_eq!(play.act(), "subscribe, look");
    play.take_back([1], true);
    assert_eq!(play.act(), "answer");
    play.pass(Duration::from_secs(9));
    play.give([1]);
    assert_eq!(play.act(), "look", "who owns the first partition may be about to store it");
}

#[test]
fn what_a_look_found_of_a_partition_that_another_had_since_is_not_used() {
    for lost in [false, true] {
        let mut play = Play::of(1);
        play.publish(0, 9);
        play.give([0]);
        play.hold_looks = true;
        assert_eq!(play.act(), "subscribe, look");
        let (keys, check) = play.look.take().unwrap();
        let found = play.logs.clone();
        // While that look is on its way, another owns it and acks what it got.
        play.take_back([0], lost);
        assert_eq!(play.act(), "answer");
        play.pass(Duration::from_secs(3));
        let metadata =
            Metadata { life: LIFE, epoch: Epoch(3000), oldest: None, before: None, map: Vec::new() };
        let stored = Stored { offset: 7, metadata: Some(metadata.encode().into_bytes()) };
        play.logs.get_mut(&0).unwrap().stored = Some(stored);
        play.give([0]);
        let (now, clock) =
            (std::mem::replace(&mut play.logs, found), std::mem::replace(&mut play.clock, 1000));
        play.looked(&keys, &check);
        (play.logs, play.clock) = (now, clock);
        play.hold_looks = false;
        assert_eq!(play.act(), "look, commit, assign", "it is looked again");
        assert_eq!(play.told(), "assigned 0@7");
        assert!(play.owned(0).epoch > Epoch(3000));
    }
}
