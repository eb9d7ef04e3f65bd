//! Groups: what a member is told, when it answers, what its commits tell it.
//!
//! Not here: commits without a rebalance (`commits.rs`), what the backend makes of all this (its conformance).

use super::{
    raw::{Code, Place, Told},
    server::{LONG, Member, Seen, topic, unique, values, write},
    tests,
};
use std::{sync::Arc, thread, time::Duration};

tests![
    a_revocation_is_answered_later,
    the_generation_grows_for_partitions_that_stay,
    a_commit_that_is_refused_in_a_rebalance_is_taken_after_it,
    who_drains_too_long_is_told_by_its_commit,
    who_does_not_poll_loses_what_it_has,
    the_new_protocol_gives_and_takes,
    a_member_that_closes_answers_what_it_had_not,
    a_member_with_a_name_closes_at_any_moment_while_it_joins,
];

const SECOND: Duration = Duration::from_secs(1);

/// The settings of the new protocol (KIP-848).
const NEW: &[(&str, &str)] = &[("group.protocol", "consumer")];

fn commits(places: &[Place], offset: i64) -> Vec<Place> {
    places.iter().map(|place| Place::new(&place.topic, place.partition, offset)).collect()
}

fn numbers(places: &[Place]) -> Vec<i32> {
    let mut numbers: Vec<i32> = places.iter().map(|place| place.partition).collect();
    numbers.sort_unstable();
    numbers
}

/// A member that has all four partitions, and a second one that has just asked for some.
fn two(topic: &Arc<str>, settings: &[(&str, &str)]) -> (Member, Member) {
    let group = unique("group");
    let mut first = Member::of(&group, settings);
    first.join(topic, 4);
    let second = Member::of(&group, settings);
    second.consumer.subscribe(&[topic]).unwrap();
    (first, second)
}

/// Polls a member, and answers where it is given nothing: the group waits for that.
fn turn(member: &mut Member, wait: Duration) {
    member.poll(wait);
    let none = |seen: &Seen| matches!(seen, Seen::Assigned(places) if places.is_empty());
    if member.seen.iter().any(none) {
        member.seen.retain(|seen| !none(seen));
        member.consumer.incremental_assign(&[]).unwrap();
    }
}

/// Polls both until the first is told to give back.
fn revoked(first: &mut Member, second: &mut Member) -> Vec<Place> {
    for _ in 0..400 {
        second.poll(Duration::from_millis(20));
        first.poll(Duration::from_millis(20));
        if first.seen.iter().any(|seen| matches!(seen, Seen::Revoked { .. })) {
            break;
        }
    }
    let (partitions, lost) = first.revoked();
    assert!(!lost);
    partitions
}

fn a_revocation_is_answered_later() {
    later(&[]);
    later(NEW);
}

fn later(settings: &[(&str, &str)]) {
    let topic = topic(4, &[]);
    let (mut first, mut second) = two(&topic, settings);
    let going = revoked(&mut first, &mut second);
    assert_eq!(going.len(), 2);
    // While it does not answer: it can poll and commit, all its partitions are paused, and nobody has what is going.
    first.seen.clear();
    (0..4).for_each(|partition| write(&topic, partition, &values(0, 5)));
    for _ in 0..20 {
        turn(&mut first, Duration::from_millis(50));
        turn(&mut second, Duration::from_millis(50));
    }
    assert!(first.records().is_empty(), "{:?}", first.seen);
    let has = |member: &Member| {
        member.seen.iter().any(|seen| matches!(seen, Seen::Assigned(places) if !places.is_empty()))
    };
    assert!(!has(&second), "{:?}", second.seen);
    let (result, _) = first.commit(&commits(&going, 3));
    assert_eq!(result, Ok(()));
    first.consumer.incremental_unassign(&going).unwrap();
    let until = tokio::time::Instant::now() + LONG;
    while !has(&second) {
        assert!(tokio::time::Instant::now() < until, "nobody takes what is given back: {:?}", second.seen);
        turn(&mut first, Duration::from_millis(20));
        turn(&mut second, Duration::from_millis(20));
    }
    let came = second.assigned();
    assert_eq!(numbers(&came), numbers(&going));
    second.consumer.incremental_assign(&commits(&came, 3)).unwrap();
    // From where the first committed: two each.
    assert_eq!(second.values(4).len(), 4);
    // And what stayed goes on.
    while first.records().len() < 10 {
        assert!(tokio::time::Instant::now() < until, "what stayed does not go on: {:?}", first.seen);
        turn(&mut first, Duration::from_millis(50));
        turn(&mut second, Duration::from_millis(10));
    }
    assert_eq!(first.records().len(), 10);
}

fn the_generation_grows_for_partitions_that_stay() {
    let topic = topic(4, &[]);
    let group = unique("group");
    let mut first = Member::of(&group, &[]);
    first.join(&topic, 4);
    let (before, member) = first.consumer.membership().unwrap();
    let mut second = Member::of(&group, &[]);
    second.consumer.subscribe(&[&topic]).unwrap();
    let going = revoked(&mut first, &mut second);
    // Already the revocation shows the generation to come, of two partitions that have not moved.
    let (after, same) = first.consumer.membership().unwrap();
    assert!(after > before, "{before} {after}");
    assert_eq!((member, going.len()), (same, 2));
}

fn a_commit_that_is_refused_in_a_rebalance_is_taken_after_it() {
    let topic = topic(4, &[]);
    let (mut first, mut second) = two(&topic, &[]);
    let going = revoked(&mut first, &mut second);
    let stays: Vec<Place> = (0..4)
        .filter(|partition| !numbers(&going).contains(partition))
        .map(|partition| Place::new(&topic, partition, 1))
        .collect();
    first.consumer.incremental_unassign(&going).unwrap();
    // Between its answer and the next assignment it commits what stays.
    for offset in 1..200 {
        first.consumer.commit(&commits(&stays, offset), offset as u64).unwrap();
        first.poll(Duration::from_millis(5));
        second.poll(Duration::from_millis(5));
        if first.seen.iter().any(|seen| matches!(seen, Seen::Assigned(_))) {
            break;
        }
    }
    // A commit of a member that waits for others waits with it: its requests are answered in their order. So the second goes on as well.
    let harmless = [Code::ILLEGAL_GENERATION, Code::REBALANCE_IN_PROGRESS, Code::WAIT_COORD];
    let until = tokio::time::Instant::now() + LONG;
    let mut taken = false;
    while !taken {
        assert!(tokio::time::Instant::now() < until, "no commit is taken");
        first.consumer.commit(&commits(&stays, 500), 500).unwrap();
        let mut answer = None;
        while answer.is_none() && tokio::time::Instant::now() < until {
            for member in [&mut first, &mut second] {
                member.poll(Duration::from_millis(10));
                if member.seen.iter().any(|seen| matches!(seen, Seen::Assigned(_))) {
                    member.take();
                }
            }
            answer = first.seen.iter().find_map(|seen| match seen {
                Seen::Committed { result, token: 500, .. } => Some(result.clone()),
                _ => None,
            });
        }
        first.seen.retain(|seen| !matches!(seen, Seen::Committed { token: 500, .. }));
        taken = answer
            .unwrap()
            .map_err(|trouble| assert!(harmless.contains(&trouble.code), "{trouble:?}"))
            .is_ok();
    }
    for seen in &first.seen {
        if let Seen::Committed { result: Err(trouble), .. } = seen {
            assert!(harmless.contains(&trouble.code), "{trouble:?}");
        }
        assert!(!matches!(seen, Seen::Revoked { lost: true, .. }), "{seen:?}");
    }
}

fn who_drains_too_long_is_told_by_its_commit() {
    let topic = topic(4, &[]);
    let mut settings = NEW.to_vec();
    settings.push(("max.poll.interval.ms", "6000"));
    let (mut first, mut second) = two(&topic, &settings);
    let going = revoked(&mut first, &mut second);
    let stays: Vec<Place> = (0..4)
        .filter(|partition| !numbers(&going).contains(partition))
        .map(|n| Place::new(&topic, n, 1))
        .collect();
    // Longer than the server allows. It polls all the time.
    let until = tokio::time::Instant::now() + LONG;
    while tokio::time::Instant::now() < until {
        first.poll(Duration::from_millis(10));
        second.poll(Duration::from_millis(10));
        if second.seen.iter().any(|seen| matches!(seen, Seen::Assigned(places) if !places.is_empty())) {
            break;
        }
    }
    // Nothing else says that it has lost also what it was to keep.
    assert!(!first.seen.iter().any(|seen| matches!(seen, Seen::Revoked { .. })), "{:?}", first.seen);
    let (result, _) = first.commit(&stays);
    let code = result.unwrap_err().code;
    assert!(matches!(code, Code::UNKNOWN_MEMBER_ID | Code::FENCED_MEMBER_EPOCH), "{code:?}");
}

fn who_does_not_poll_loses_what_it_has() {
    let topic = topic(2, &[]);
    let mut member = Member::of(&unique("group"), &[("max.poll.interval.ms", "6000")]);
    member.join(&topic, 2);
    thread::sleep(SECOND * 9);
    let (partitions, lost) = member.revoked();
    assert_eq!((numbers(&partitions), lost), (vec![0, 1], true));
    member.consumer.incremental_unassign(&partitions).unwrap();
    // It comes back by itself.
    let mut has = 0;
    while has < 2 {
        has += member.take().len();
    }
}

fn the_new_protocol_gives_and_takes() {
    let topic = topic(4, &[]);
    write(&topic, 0, &values(0, 10));
    let mut member = Member::of(&unique("group"), NEW);
    let has = member.join(&topic, 4);
    assert_eq!(numbers(&has), [0, 1, 2, 3]);
    assert_eq!(member.values(10), values(0, 10));
    let (epoch, id) = member.consumer.membership().unwrap();
    assert!(epoch > 0 && !id.is_empty());
    assert!(member.consumer.close(LONG));
}

fn a_member_that_closes_answers_what_it_had_not() {
    let topic = topic(4, &[]);
    // With an unanswered assignment.
    let mut member = Member::of(&unique("group"), &[]);
    member.consumer.subscribe(&[&topic]).unwrap();
    member.assigned();
    assert!(member.consumer.close(LONG), "it hangs on an assignment");
    // With an unanswered revocation: the other gets everything.
    let (mut first, mut second) = two(&topic, &[]);
    revoked(&mut first, &mut second);
    assert!(first.consumer.close(LONG), "it hangs on a revocation");
    let mut has = 0;
    while has < 4 {
        has += second.take().len();
    }
    // With an assignment that nobody has seen yet.
    let mut third = Member::of(&unique("group"), &[]);
    third.consumer.subscribe(&[&topic]).unwrap();
    for _ in 0..10 {
        third.consumer.next(SECOND / 10, 1, &mut |told| assert!(!matches!(told, Told::Record(_))));
    }
    assert!(third.consumer.close(LONG));
}

fn a_member_with_a_name_closes_at_any_moment_while_it_joins() {
    let topic = topic(1, &[]);
    for after in (0..200).step_by(5).map(Duration::from_millis) {
        let group = unique("group");
        let members = ["anna", "bert"].map(|name| {
            let member = Member::of(&group, &[("group.instance.id", name)]);
            member.consumer.subscribe(&[&topic]).unwrap();
            member
        });
        // Nobody polls them: what the group tells them meanwhile is not answered.
        thread::sleep(after);
        let closing = members.map(|member| thread::spawn(move || member.consumer.close(LONG)));
        assert!(
            closing.into_iter().all(|closed| closed.join().unwrap()),
            "one hangs that closes after {after:?}"
        );
    }
}
