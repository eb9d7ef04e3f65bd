//! When acks are stored, and what a refusal comes to.
//!
//! Not here: who plays the client and the server (`mod.rs`).

use super::*;

#[test]
fn acks_are_stored_within_the_interval_with_all_that_is_known() {
    let mut play = Play::owning(1);
    play.publish(0, 6);
    play.read(0, 9);
    let of = play.owned(0);
    assert_eq!(play.told(), "batch 0: 0 1 2 3 4 5");
    play.ack(&of, &[0, 1, 4]).unwrap();
    assert_eq!(play.act(), "");
    play.pass(Duration::from_millis(100));
    assert_eq!(play.act(), "commit");
    let (offset, metadata) = play.stored(0);
    assert_eq!((offset, metadata.epoch, metadata.life), (2, of.epoch, LIFE));
    assert_eq!(metadata.oldest, Some(Timestamp::from_millis(2)));
    assert_eq!(metadata.done_beyond(p(2)), 1);
    let error = play.ack(&of, &[2, 9]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = play.ack(&Owned { epoch: Epoch(1), ..of }, &[2]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[test]
fn one_message_that_stays_out_costs_no_memory_for_those_that_are_done_meanwhile() {
    let mut play = Play::owning(1);
    play.publish(0, 5000);
    let of = play.owned(0);
    for from in (0..5000).step_by(5) {
        play.read(0, 5);
        _ = play.told();
        let done: Vec<u64> = (from.max(1)..from + 5).collect();
        play.ack(&of, &done).unwrap();
    }
    let share = &play.core.owner.shares[&key(0)];
    assert_eq!(share.window.open(), 1);
    assert!(share.log.times.len() < 100, "{}", share.log.times.len());
    // When the one was written is known all the same.
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!((play.stored(0).0, play.stored(0).1.oldest), (0, Some(Timestamp::from_millis(0))));
}

#[test]
fn a_commit_that_is_refused_by_a_rebalance_is_made_again_and_nothing_is_lost() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    let of = play.owned(0);
    _ = play.told();
    play.ack(&of, &[0]).unwrap();
    play.answer = || Verdict::Again;
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    assert_eq!(play.act(), "commit");
    play.ack(&of, &[1]).unwrap();
    assert!(answered.try_recv().is_err());
    // The rebalance is over.
    play.answer = || Verdict::Stored;
    play.give([]);
    assert_eq!(play.act(), "commit");
    assert_eq!(play.stored(0).0, 2);
    assert!(answered.try_recv().unwrap().is_empty());
    assert_eq!(play.told(), "");
}

#[test]
fn one_commit_is_under_way_and_acks_that_come_meanwhile_are_stored_by_the_next() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    let of = play.owned(0);
    _ = play.told();
    play.hold_commits = true;
    play.ack(&of, &[0]).unwrap();
    let (answer, mut first) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    assert_eq!(play.act(), "commit");
    play.ack(&of, &[1]).unwrap();
    let (answer, mut second) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    assert_eq!(play.act(), "");
    let batch = play.open.take().unwrap();
    play.commit(batch);
    assert!(first.try_recv().unwrap().is_empty());
    assert!(second.try_recv().is_err());
    assert_eq!(play.act(), "commit");
    let batch = play.open.take().unwrap();
    play.commit(batch);
    assert!(second.try_recv().unwrap().is_empty());
    assert_eq!(play.stored(0).0, 2);
}

#[test]
fn a_commit_that_is_refused_for_good_is_told_and_made_again_later() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.ack(&of, &[0]).unwrap();
    play.answer = || Verdict::Refused(Error::new(ErrorKind::Unauthorized, "no right"));
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    let (confirm, mut confirmed) = oneshot::channel();
    _ = play.core.owner.confirm(&of, confirm);
    assert_eq!(play.act(), "commit");
    assert_eq!(answered.try_recv().unwrap()[0].1.kind(), ErrorKind::Unauthorized);
    assert_eq!(confirmed.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Unauthorized);
    play.answer = || Verdict::Stored;
    play.pass(Duration::from_secs(1));
    assert_eq!(play.act(), "commit");
    assert_eq!(play.stored(0).0, 1);
}

#[test]
fn a_map_that_outgrows_its_place_leaves_out_the_farthest_and_counts_that() {
    let mut play = Play::with(1, |rules| rules.common.bound = Bound { messages: 100_000, bytes: 1 << 30 });
    play.give([0]);
    _ = play.act();
    play.publish(0, 12_000);
    play.read(0, 12_000);
    _ = play.told();
    let of = play.owned(0);
    let every_second: Vec<u64> = (0..12_000).filter(|offset| offset % 2 == 1).collect();
    play.ack(&of, &every_second).unwrap();
    play.pass(Duration::from_secs(1));
    assert!(play.act().contains("commit"));
    let done = play.stored(0).1.done_beyond(p(0));
    assert!(done > 500 && done < 6000, "{done}");
    assert!(play.core.owner.numbers.left_out > 0);
}

#[test]
fn a_confirm_is_answered_by_a_commit_that_was_sent_after_it_was_asked_for() {
    let mut play = Play::owning(1);
    play.publish(0, 3);
    play.read(0, 9);
    _ = play.told();
    let of = play.owned(0);
    play.hold_commits = true;
    let (first, mut confirmed) = oneshot::channel();
    _ = play.core.owner.confirm(&of, first);
    assert_eq!(play.act(), "commit");
    // The process stands still here: another may have owned it when it goes on, and the answer lies ready.
    let (second, mut confirmed_later) = oneshot::channel();
    _ = play.core.owner.confirm(&of, second);
    let batch = play.open.take().unwrap();
    play.commit(batch);
    assert!(confirmed.try_recv().unwrap().is_ok());
    assert!(confirmed_later.try_recv().is_err(), "what was sent before says nothing of now");
    assert_eq!(play.act(), "commit", "at once");
    let batch = play.open.take().unwrap();
    play.commit(batch);
    assert!(confirmed_later.try_recv().unwrap().is_ok());
}

/// Acks every other message of each of these partitions, so that a map of about that many bytes is to be stored.
fn scatter(play: &mut Play, partitions: Range<u32>, count: u64) {
    for partition in partitions {
        play.publish(partition, count);
        play.read(partition, count);
        while !play.told().is_empty() {}
        let done: Vec<u64> = (0..count).filter(|offset| offset % 2 == 1).collect();
        let of = play.owned(partition);
        play.ack(&of, &done).unwrap();
    }
    play.pass(Duration::from_secs(1));
}

#[test]
fn what_is_too_much_for_one_commit_is_stored_by_several_and_none_waits_for_ever() {
    let mut play = Play::with(300, |rules| rules.common.bound = Bound { messages: 1 << 20, bytes: 1 << 30 });
    play.give(0..300);
    _ = play.act();
    _ = play.told();
    scatter(&mut play, 0..300, 3000);
    play.hold_commits = true;
    let (mut seen, mut parts) = (BTreeSet::new(), 0);
    while seen.len() < 300 {
        _ = play.act();
        let batch = play.open.take().unwrap();
        let size: usize = batch.commits.iter().map(|commit| commit.metadata.len()).sum();
        assert!(size < 512 * 1024, "{size} bytes in one commit");
        seen.extend(batch.commits.iter().map(|commit| commit.of.partition));
        parts += 1;
        assert!(parts < 6, "{} of 300 are stored", seen.len());
        play.commit(batch);
        // Half of them are due again by now.
        for partition in 0..150 {
            let open = play.core.owner.shares[&key(partition)].window.open_positions().last().unwrap();
            let of = play.owned(partition);
            play.ack(&of, &[open.1]).unwrap();
        }
        play.pass(Duration::from_secs(1));
    }
}

#[test]
fn a_commit_that_the_servers_do_not_take_is_made_smaller_until_they_do() {
    let mut play = Play::with(3, |rules| rules.common.bound = Bound { messages: 1 << 20, bytes: 1 << 30 });
    play.give(0..3);
    _ = play.act();
    _ = play.told();
    scatter(&mut play, 0..3, 3000);
    let error = || Error::new(ErrorKind::TooLarge, "too large");
    play.hold_commits = true;
    // The server takes 5,000 bytes at a time, and 700 beside an offset.
    let mut stored = 0;
    for _ in 0..30 {
        _ = play.act();
        let Some(batch) = play.open.take() else { break };
        let sizes: Vec<usize> = batch.commits.iter().map(|commit| commit.metadata.len()).collect();
        let verdict = if sizes.iter().sum::<usize>() > 5000 {
            Verdict::TooLarge(Large::Commit, error())
        } else if sizes.iter().any(|size| *size > 700) {
            Verdict::TooLarge(Large::Metadata, error())
        } else {
            stored += sizes.len();
            Verdict::Stored
        };
        let verdicts = vec![verdict; sizes.len()];
        _ = play.core.committed(batch, verdicts, play.now);
    }
    assert_eq!(stored, 3);
    assert!(play.core.owner.numbers.left_out > 3000, "{}", play.core.owner.numbers.left_out);
    assert!(play.core.owner.dirty().is_empty());
}

#[test]
fn who_waits_is_told_where_a_commit_cannot_be_made_smaller() {
    let mut play = Play::owning(1);
    play.publish(0, 1);
    play.read(0, 1);
    _ = play.told();
    let of = play.owned(0);
    play.ack(&of, &[0]).unwrap();
    play.answer = || Verdict::TooLarge(Large::Metadata, Error::new(ErrorKind::TooLarge, "too large"));
    let (answer, mut answered) = oneshot::channel();
    _ = play.core.owner.flush(answer);
    _ = play.act();
    assert_eq!(answered.try_recv().unwrap().len(), 1);
}

#[test]
fn a_server_that_fails_without_a_reason_gets_smaller_commits_and_all_of_what_is_done() {
    let mut play = Play::owning(2);
    play.publish(0, 3);
    play.read(0, 3);
    _ = play.told();
    let of = play.owned(0);
    play.ack(&of, &[1]).unwrap();
    let refuse = || Verdict::TooLarge(Large::Perhaps, Error::new(ErrorKind::Unavailable, "unknown"));
    play.answer = refuse;
    for _ in 0..40 {
        play.pass(Duration::from_secs(1));
        _ = play.act();
    }
    play.answer = || Verdict::Stored;
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!(play.stored(0).1.done_beyond(p(0)), 1);
}

#[test]
fn what_was_done_beyond_messages_that_are_removed_meanwhile_is_stored_without_another_ack() {
    let mut play = Play::owning(1);
    play.publish(0, 7);
    play.read(0, 9);
    assert_eq!(play.told(), "batch 0: 0 1 2 3 4 5 6");
    let of = play.owned(0);
    play.ack(&of, &[5, 6]).unwrap();
    play.take_back([0], false);
    _ = play.told();
    _ = play.core.give_up(&of, play.now);
    _ = play.act();
    assert_eq!(play.stored(0).0, 0);
    // Nobody will be handed a message that can be acked.
    play.logs.get_mut(&0).unwrap().low = 5;
    play.give([0]);
    _ = play.act();
    play.read(0, 9);
    _ = play.told();
    play.pass(Duration::from_secs(1));
    _ = play.act();
    assert_eq!(play.stored(0).0, 7, "all is done");
}
