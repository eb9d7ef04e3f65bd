//! Histories that the checker must flag, each a good one with one thing changed; and the good one, which it must pass.

use crate::{
    check::{Evidence, check},
    history::{Event, Id, Open, Outcome, Place},
};
use libtest_mimic::{Failed, Trial};
use ropeway_broker::Position;

fn id(text: &str) -> Id {
    text.parse().unwrap_or_else(|()| panic!("{text:?} is not an id"))
}

fn place(position: u64) -> Place {
    Place { partition: 0, position: format!("7-{position}") }
}

/// Two lives: `a:1` is done and confirmed, `a:2` done and acked when the kill comes (and repeated after it), `b:1` is rejected, `b:2` was
/// in doubt and is written, `b:3` in doubt and not, `c:1` refused.
fn good() -> Evidence {
    let invoke = |text| Event::Invoke(id(text));
    let start = |text| Event::Start(id(text));
    let end = |text, outcome| Event::End(id(text), outcome);
    Evidence {
        lives: vec![
            vec![
                Event::Ready,
                invoke("a:1"),
                invoke("a:2"),
                Event::Acked(id("a:1"), place(0)),
                Event::Acked(id("a:2"), place(1)),
                invoke("b:1"),
                start("a:1"),
                Event::Acked(id("b:1"), place(2)),
                start("b:1"),
                end("a:1", Outcome::Failed),
                start("a:1"),
                end("b:1", Outcome::Rejected),
                end("a:1", Outcome::Done),
                Event::Forwarded(id("b:1")),
                Event::Ack(1, vec![id("a:1")]),
                invoke("c:1"),
                Event::Refused(id("c:1")),
                Event::Confirmed(vec![id("a:1")]),
                start("a:2"),
                end("a:2", Outcome::Done),
                Event::Ack(1, vec![id("a:2")]),
                invoke("b:2"),
                invoke("b:3"),
            ],
            vec![
                Event::Ready,
                start("a:2"),
                start("b:2"),
                end("b:2", Outcome::Done),
                end("a:2", Outcome::Done),
                Event::Ack(2, vec![id("b:2"), id("a:2")]),
                Event::Confirmed(vec![id("b:2"), id("a:2")]),
                Event::Drained,
            ],
        ],
        log: vec![(place(0), id("a:1")), (place(1), id("a:2")), (place(2), id("b:1")), (place(3), id("b:2"))],
        low: vec![Position(7, 0)],
        dead: vec![id("b:1")],
        atomic: true,
    }
}

type Change = fn(&mut Evidence);

/// What is changed, and what the checker must say of it.
const BAD: &[(&str, Change, &str)] = &[
    ("an_acked_message_that_vanished", |e| drop(e.log.remove(1)), "a:2 was acked and is not in the log"),
    (
        "an_acked_message_that_nobody_handled",
        |e| remove(e, &["start a:2", "end a:2 done", "ack 1 a:2", "ack 2 b:2 a:2", "confirmed b:2 a:2"]),
        "a:2 was acked, and neither handled nor dead-lettered",
    ),
    (
        "a_delayed_message_that_vanished",
        |e| e.lives[0].extend([Event::Invoke(id("d:1")), Event::Delayed(id("d:1"))]),
        "d:1 was acked and is not in the log",
    ),
    (
        "a_message_that_retention_removed_before_it_was_handled",
        |e| {
            e.lives[0].extend([Event::Invoke(id("e:1")), Event::Acked(id("e:1"), place(4))]);
            e.low = vec![Position(7, 5)];
            e.log.clear();
        },
        "e:1 was acked, and neither handled nor dead-lettered",
    ),
    (
        "a_message_that_vanished_from_where_retention_keeps",
        |e| {
            e.low = vec![Position(7, 1)];
            e.log.drain(..2);
        },
        "a:2 was acked and is not in the log",
    ),
    (
        "an_ack_after_a_failed_commit",
        |e| {
            let late =
                [Event::Unknown(id("b:3")), Event::Invoke(id("b:4")), Event::Acked(id("b:4"), place(4))];
            e.lives[0].extend(late);
        },
        "b:4 was acked, though a commit had failed",
    ),
    (
        "a_written_message_in_doubt_that_nobody_handled",
        |e| remove(e, &["start b:2", "end b:2 done", "ack 2 b:2 a:2", "confirmed b:2 a:2"]),
        "b:2 is in the log and no handler completed it",
    ),
    ("an_ack_of_another_place", |e| e.log[1].0 = place(9), "a:2 was acked at"),
    ("a_message_written_twice", |e| e.log.push((place(4), id("b:2"))), "b:2 is in the log twice"),
    ("a_log_out_of_order", |e| e.log.swap(0, 1), "a:1 is in the log behind a larger number"),
    (
        "a_refused_message_that_appears",
        |e| {
            e.log.push((place(4), id("c:1")));
            e.lives[1].splice(1..1, [Event::Start(id("c:1")), Event::End(id("c:1"), Outcome::Done)]);
        },
        "c:1 appeared, though its publisher was told",
    ),
    (
        "a_message_that_nobody_published",
        |e| drop(e.lives[1].splice(1..1, [Event::Start(id("z:9")), Event::End(id("z:9"), Outcome::Done)])),
        "z:9 appeared and was never published",
    ),
    (
        "a_repeat_without_a_kill",
        |e| {
            let again = [Event::Start(id("a:2")), Event::End(id("a:2"), Outcome::Done)];
            e.lives[0].extend(again);
        },
        "a:2 completed twice with no kill between",
    ),
    (
        "a_repeat_after_a_durable_ack",
        |e| drop(e.lives[1].splice(1..1, [Event::Start(id("a:1")), Event::End(id("a:1"), Outcome::Done)])),
        "a:1 was delivered again after its ack was durable",
    ),
    (
        "a_repeat_after_its_dead_letter",
        |e| {
            drop(e.lives[1].splice(1..1, [Event::Start(id("b:1")), Event::End(id("b:1"), Outcome::Rejected)]))
        },
        "b:1 was delivered again after its ack was durable",
    ),
    (
        "a_key_out_of_order",
        |e| {
            let early = [Event::Start(id("a:3")), Event::End(id("a:3"), Outcome::Done)];
            e.lives[0].splice(1..1, [Event::Invoke(id("a:3"))]);
            e.lives[0].splice(7..7, early);
            e.log.push((place(4), id("a:3")));
        },
        "a:1 completed first after number 3 of its key",
    ),
    (
        "two_handlers_of_one_key_at_once",
        |e| drop(e.lives[1].splice(2..2, [Event::Start(id("a:5"))])),
        "a:5 began while number 2 of its key was being handled",
    ),
    (
        "an_ack_before_the_end",
        |e| e.lives[0].insert(7, Event::Ack(1, vec![id("a:2")])),
        "before its handler had ended",
    ),
    (
        "a_confirmed_ack_that_nobody_gave",
        |e| e.lives[1].insert(6, Event::Confirmed(vec![id("a:1")])),
        "the ack of a:1 was confirmed, and nobody gave it",
    ),
    ("a_rejected_message_without_dead_letter", |e| e.dead.clear(), "b:1 was rejected and is not among"),
    ("a_dead_letter_twice", |e| e.dead.push(id("b:1")), "b:1 is dead-lettered 2 times"),
    (
        "a_dead_letter_twice_of_what_was_rejected_once",
        |e| {
            e.atomic = false;
            e.dead.push(id("b:1"));
        },
        "b:1 is dead-lettered 2 times",
    ),
    (
        "a_dead_letter_of_a_good_message",
        |e| e.dead.push(id("a:1")),
        "a:1 is dead-lettered and was not rejected",
    ),
    (
        "a_message_rejected_once_and_done_once",
        |e| e.lives[1][4] = Event::End(id("a:2"), Outcome::Rejected),
        "a:2 ended Done and then Rejected",
    ),
    ("a_group_that_never_drained", |e| drop(e.lives[1].pop()), "did not end drained"),
];

fn remove(evidence: &mut Evidence, lines: &[&str]) {
    for life in &mut evidence.lives {
        life.retain(|event| !lines.contains(&event.to_string().as_str()));
    }
}

fn flags(change: Change, expected: &str) -> Result<(), Failed> {
    let mut evidence = good();
    change(&mut evidence);
    let (_, wrong) = check(&evidence);
    if wrong.iter().any(|why| why.contains(expected)) {
        return Ok(());
    }
    Err(format!("expected {expected:?} among {wrong:?}").into())
}

fn passes_the_good_one() -> Result<(), Failed> {
    let (counts, wrong) = check(&good());
    if !wrong.is_empty() {
        return Err(format!("{wrong:?}").into());
    }
    let seen = (counts.acked, counts.in_doubt, counts.in_doubt_written, counts.completed, counts.duplicates);
    if seen != (3, 2, 1, 4, 1) || counts.dead != 1 {
        return Err(format!("{counts:?}").into());
    }
    Ok(())
}

/// Where publishing and acking are two steps, a kill between them has it rejected and dead-lettered once more.
fn passes_a_dead_letter_for_each_rejection() -> Result<(), Failed> {
    let mut evidence = good();
    evidence.atomic = false;
    evidence.lives[0].retain(|event| !matches!(event, Event::Forwarded(_)));
    let again = [Event::Start(id("b:1")), Event::End(id("b:1"), Outcome::Rejected)];
    evidence.lives[1].splice(1..1, again);
    evidence.dead.push(id("b:1"));
    match check(&evidence).1 {
        wrong if wrong.is_empty() => Ok(()),
        wrong => Err(format!("{wrong:?}").into()),
    }
}

fn passes_delayed_ones_in_any_order() -> Result<(), Failed> {
    let mut evidence = good();
    for number in [2, 1] {
        let id = Id { key: "d".into(), number };
        evidence.lives[0].extend([Event::Invoke(id.clone()), Event::Delayed(id.clone())]);
        evidence.lives[1]
            .splice(1..1, [Event::Start(id.clone()), Event::End(id.clone(), Outcome::Done)])
            .for_each(drop);
        evidence.log.push((place(10 - number), id));
    }
    match check(&evidence).1 {
        wrong if wrong.is_empty() => Ok(()),
        wrong => Err(format!("{wrong:?}").into()),
    }
}

fn nobody_hears_a_promise_after_the_power_is_gone() -> Result<(), Failed> {
    let promise = Event::Acked(id("a:1"), place(0));
    let begun = Event::Invoke(id("a:2"));
    let told = vec![promise.clone(), Event::Cut, begun.clone(), promise.clone()];
    let heard = crate::history::heard(told);
    if heard != [promise, Event::Cut, begun] {
        return Err(format!("{heard:?}").into());
    }
    Ok(())
}

fn open_work_is_counted() -> Result<(), Failed> {
    let mut life = good().lives.remove(0);
    let before = Open::at_the_end_of(&life);
    if before != (Open { publishes: 2, handlers: 0, acks: 1 }) || before.counts() {
        return Err(format!("{before:?}").into());
    }
    life.push(Event::Start(id("b:2")));
    if !Open::at_the_end_of(&life).counts() {
        return Err("a kill with all three open must count".into());
    }
    Ok(())
}

fn lines_round_trip() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history");
    let writer = crate::history::Writer::create(&path)?;
    let life = good().lives.concat();
    life.iter().for_each(|event| writer.write(event));
    if crate::history::read(&path)? != life {
        return Err("what was read is not what was written".into());
    }
    Ok(())
}

/// The trials of the checker itself.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("checker::passes_a_good_history", passes_the_good_one),
        Trial::test(
            "checker::passes_a_dead_letter_for_each_rejection",
            passes_a_dead_letter_for_each_rejection,
        ),
        Trial::test("checker::passes_delayed_messages_in_any_order", passes_delayed_ones_in_any_order),
        Trial::test(
            "checker::hears_no_promise_after_a_power_cut",
            nobody_hears_a_promise_after_the_power_is_gone,
        ),
        Trial::test("checker::counts_what_was_open_at_a_kill", open_work_is_counted),
        Trial::test("checker::reads_what_was_written", lines_round_trip),
    ];
    trials.extend(BAD.iter().map(|(name, change, expected)| {
        Trial::test(format!("checker::flags::{name}"), move || flags(*change, expected))
    }));
    trials
}
