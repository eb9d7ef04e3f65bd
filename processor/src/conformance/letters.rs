//! Checks of dead letters: what ends there, once, with which record, and what happens while they cannot be written.
//!
//! Not here: that the message in them is unchanged (`fidelity.rs`), their order (`order.rs`).

use super::{
    calls::{Calls, done, fails, steady},
    stage::{Stage, TYPE, eventually, keyed, number_of, numbered},
    suite::group,
};
use crate::{FAILURE_HEADERS, FailureClass, Unknown, Verdict, json};
use ropeway_broker::conformance::promise::{Ought, promised, same};
use ropeway_broker::{
    ErrorKind, Message, Topic,
    wrap::{Injection, Operation, Times},
};
use std::{sync::Arc, time::Duration};

group! { "letters":
    "S4" what_is_rejected_never_returns_and_is_dead_lettered_once;
    "S4" the_record_of_a_failure_is_complete;
    "" an_event_of_unknown_type_is_dead_lettered;
    "" unknown_types_are_dropped_only_where_that_is_spelled_out;
    "" what_does_not_decode_is_dead_lettered_without_a_retry;
    "" an_unreadable_record_is_dead_lettered [Unreadable];
    "" a_dead_letter_that_cannot_be_written_holds_its_source_until_it_can;
    "" a_repeated_dead_letter_has_the_same_id;
    "" a_dead_letter_of_unknown_fate_is_written_again;
    "" a_dead_letter_that_is_too_large_is_cut_and_marked;
    "" dead_letters_go_to_the_topic_that_is_named;
    "" a_redriven_message_that_fails_again_counts_its_round;
}

async fn what_is_rejected_never_returns_and_is_dead_lettered_once(stage: &Stage) {
    let topic = stage.topic(2).await;
    let calls = Calls::default();
    let route = calls.route(|turn| async move {
        if turn.number % 3 == 0 { Ok(Verdict::reject("divisible by three")) } else { done() }
    });
    let task = stage.task(&topic, [route]);
    stage.put(&topic, (0..30).map(|n| keyed(&format!("k{n}"), n)).collect()).await;
    let running = stage.start(&task).await;
    stage.buried(&task, 10).await;
    stage.all_acked(&task).await;
    stage.stop(running).await;
    let running = stage.start(&task).await;
    stage.quiet().await;
    stage.stop(running).await;
    let again: Vec<usize> = (0..30).filter(|n| calls.of(*n).len() != 1).collect();
    same("what is rejected is not tried again, now or by the next owner", again, Vec::<usize>::new());
    let mut numbers: Vec<usize> =
        stage.letters(&task).await.iter().map(super::stage::Letter::number).collect();
    numbers.sort_unstable();
    same("each is dead-lettered once", numbers, (0..30).step_by(3).collect::<Vec<_>>());
}

async fn the_record_of_a_failure_is_complete(stage: &Stage) {
    let topic = stage.topic(3).await;
    let calls = Calls::default();
    let route = calls.named("bill", "*", |turn| async move {
        if turn.number == 1 { Ok(Verdict::reject("no such customer")) } else { Err("card 17 refused".into()) }
    });
    let mut task = stage.task(&topic, [route]);
    task.settings.retry = steady(3, Duration::from_millis(30));
    let sent = vec![keyed("a", 1), keyed("b", 2)];
    let before = stage.now();
    let receipts = stage.put(&topic, sent.clone()).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 2).await;
    stage.stop(running).await;
    for (message, receipt) in sent.iter().zip(receipts) {
        let letter = letters.iter().find(|letter| letter.number() == number_of(message));
        let record = &letter.ought("each has its letter").record;
        let rejected = number_of(message) == 1;
        let (class, error) = if rejected {
            (FailureClass::Rejected, "no such customer")
        } else {
            (FailureClass::Error, "card 17 refused")
        };
        let attempts = calls.of(number_of(message)).len();
        let seen = (record.class, record.error.as_str(), record.attempts as usize, record.handler.as_deref());
        same("the record says what failed", seen, (class, error, attempts, Some("bill")));
        let place = (&record.topic, record.partition, Some(record.position), record.id);
        let expected = (&topic, receipt.partition, receipt.position, message.id);
        same("the record says where the message lies", place, expected);
        let who = (record.node.as_str(), &record.group, record.round);
        same("the record says who gave it up", who, ("node-of-the-check", &task.subscription.group, 1));
        same("the record has a fingerprint", record.fingerprint.len(), 16);
        let took = record.last.since(record.first);
        // Two waits lie between. A thread may be interrupted before it notes the first failure, while the first of them passes.
        let waits = if stage.is_exact() { 55 } else { 29 };
        let least = Duration::from_millis(if rejected { 0 } else { waits });
        let in_time = record.first >= before && record.last <= stage.now();
        promised(took >= least && in_time, "the record says when it failed first and last", || {
            format!("first {:?}, last {:?}, the check began {before:?}", record.first, record.last)
        });
    }
}

fn of_type(event_type: &str, number: usize) -> Message {
    Message::builder().event_type(event_type).payload(number.to_string()).build()
}

async fn an_event_of_unknown_type_is_dead_lettered(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let task = stage.task(&topic, [calls.named("known", "known", |_| async { done() })]);
    let untyped = Message::builder().payload("3").build();
    stage.put(&topic, vec![of_type("known", 1), of_type("strange", 2), untyped]).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 2).await;
    stage.stop(running).await;
    same("what a handler takes is handled", (calls.count(), calls.of(1).len()), (1, 1));
    for letter in &letters {
        let seen = (letter.record.class, letter.record.attempts, letter.record.handler.as_deref());
        same("what no handler takes is dead-lettered untried", seen, (FailureClass::UnknownType, 0, None));
    }
    let strange = letters.iter().find(|letter| letter.number() == 2).ought("each has its letter");
    promised(strange.record.error.contains("strange"), "the record names the type", || {
        strange.record.error.clone()
    });
}

async fn unknown_types_are_dropped_only_where_that_is_spelled_out(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.named("known", "known", |_| async { done() })]);
    task.unknown = Unknown::Ignore;
    stage.put(&topic, vec![of_type("strange", 1), of_type("known", 2)]).await;
    let running = stage.start(&task).await;
    calls.until("what a handler takes is handled", |calls| calls.done() == 1).await;
    stage.all_acked(&task).await;
    let skipped = running.snapshot().skipped;
    stage.stop(running).await;
    let seen = (skipped, stage.letters(&task).await.len());
    same("what is ignored is counted and not dead-lettered", seen, (1, 0));
}

async fn what_does_not_decode_is_dead_lettered_without_a_retry(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut route = calls.named("typed", "*", |_| async { done() });
    route.handler = Arc::new(json(|_: std::collections::BTreeMap<String, u32>, _| async { done() }));
    let task = stage.task(&topic, [route]);
    let bad = Message::builder().event_type(TYPE).payload(r#"{"a": "text"}"#).build();
    let good = Message::builder().event_type(TYPE).payload(r#"{"a": 1}"#).build();
    stage.put(&topic, vec![bad, good]).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 1).await;
    let handled = async || running.snapshot().handled;
    eventually("what decodes is handled", handled, |handled| *handled == 1).await;
    let snapshot = running.snapshot();
    stage.stop(running).await;
    let record = &letters[0].record;
    let seen = (record.class, record.attempts, snapshot.retried, snapshot.handled);
    same("no retry makes a payload decode", seen, (FailureClass::Undecodable, 1, 0, 1));
    promised(record.error.starts_with("a: "), "the record says where in the document", || {
        record.error.clone()
    });
}

async fn an_unreadable_record_is_dead_lettered(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let task = stage.task(&topic, [calls.route(|_| async { done() })]);
    stage.put(&topic, vec![numbered(1)]).await;
    let position = stage.plant_unreadable(&topic, b"\xffno message").await;
    stage.put(&topic, vec![numbered(2)]).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 1).await;
    calls.until("what lies around it is handled", |calls| calls.done() >= 2).await;
    stage.stop(running).await;
    let record = &letters[0].record;
    let seen = (record.class, record.position, record.partition, record.attempts);
    same("a record that is no message is dead-lettered", seen, (FailureClass::Unreadable, position, 0, 0));
    same("what lies around it is handled", calls.count(), 2);
}

async fn a_dead_letter_that_cannot_be_written_holds_its_source_until_it_can(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let route =
        calls.route(|turn| async move { if turn.number == 0 { Ok(Verdict::reject("no")) } else { done() } });
    let task = stage.task(&topic, [route]);
    let refuse = Injection::Refuse(ErrorKind::Unavailable);
    stage.broker().inject(Operation::Forward, refuse, Times::Always).ought("a forward can be refused");
    stage.put(&topic, vec![keyed("a", 0), keyed("a", 1), keyed("b", 2)]).await;
    let running = stage.start(&task).await;
    calls.until("other keys go on", |calls| calls.of(2).iter().any(super::calls::Call::is_done)).await;
    let promise = "a dead letter that is refused is written again and again, and its source is held";
    eventually(promise, async || running.snapshot().letters_refused, |refused| *refused >= 4).await;
    same(promise, running.snapshot().held, 1);
    stage.quiet().await;
    let left = stage.unfinished(&task).await;
    promised(left >= 1, "what is held is not acked", || format!("{left} messages are not acked"));
    stage.broker().heal();
    let letters = stage.buried(&task, 1).await;
    calls.until("its key goes on when the letter is written", |calls| calls.of(1).len() == 1).await;
    let held = running.snapshot().held;
    stage.stop(running).await;
    same(
        "the letter is that of the message, which is not handled again",
        (letters[0].number(), calls.of(0).len()),
        (0, 1),
    );
    same("nothing is held any more", held, 0);
}

async fn a_repeated_dead_letter_has_the_same_id(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let task = stage.task(&topic, [calls.route(|_| async { Ok(Verdict::reject("no")) })]);
    let lose = Injection::LoseAnswer(ErrorKind::Unavailable);
    stage.broker().inject(Operation::Forward, lose, Times::Next(1)).ought("an answer can be lost");
    let sent = vec![numbered(7), numbered(7)];
    stage.put(&topic, sent.clone()).await;
    let running = stage.start(&task).await;
    let promise = "where the answer is lost the letter is written again, or recognised";
    eventually(promise, async || running.snapshot().dead_lettered, |dead| *dead == 2).await;
    stage.buried(&task, 2).await;
    stage.stop(running).await;
    let letters = stage.letters(&task).await;
    for message in &sent {
        let ids: Vec<_> =
            letters.iter().filter(|l| l.record.id == message.id).map(|l| l.message.id).collect();
        let first = *ids.first().ought("each has its letter");
        promised(ids.iter().all(|id| *id == first), "a repeated letter has the id of the first", || {
            format!("{ids:?}")
        });
        promised(first != message.id, "a letter has an id of its own", || first.to_string());
    }
    let id_of = |message: &Message| letters.iter().find(|l| l.record.id == message.id).map(|l| l.message.id);
    let (first, second) = (id_of(&sent[0]), id_of(&sent[1]));
    promised(first != second, "letters of two messages differ in their id", || format!("{first:?}"));
}

async fn a_dead_letter_of_unknown_fate_is_written_again(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let task = stage.task(&topic, [calls.route(|_| async { Ok(Verdict::reject("no")) })]);
    let lose = Injection::LoseRequest(ErrorKind::Unavailable);
    stage.broker().inject(Operation::Forward, lose, Times::Next(2)).ought("a request can be lost");
    stage.put(&topic, vec![numbered(7)]).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 1).await;
    stage.stop(running).await;
    let seen = (letters[0].number(), calls.count());
    same(
        "a letter that may not be written is written again, and its message not handled again",
        seen,
        (7, 1),
    );
}

async fn a_dead_letter_that_is_too_large_is_cut_and_marked(stage: &Stage) {
    let topic = stage.topic(1).await;
    let described = stage.describe(&topic).await;
    let most = described.max_message;
    let calls = Calls::default();
    let route = calls.route(|_| async { Ok(Verdict::reject("no ".repeat(3000))) });
    let task = stage.task(&topic, [route]);
    let sized = |name: &str, header: usize| {
        let message =
            Message::builder().event_type(TYPE).key(name.to_owned()).header("large", "x".repeat(header));
        let room = most - message.clone().build().size();
        message.payload(vec![b'p'; room]).build()
    };
    // One whose header gives way, and one whose payload has to.
    let sent = vec![sized("header", 200_000), sized("payload", 1)];
    stage.put(&topic, sent.clone()).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 2).await;
    stage.stop(running).await;
    let of = |message: &Message| {
        let letter = letters.iter().find(|letter| letter.record.id == message.id);
        letter.ought("a message that fills its topic is dead-lettered too").clone()
    };
    let header = of(&sent[0]);
    let marked = header.record.cut.iter().any(|what| what == "large");
    promised(marked, "what is cut is marked", || format!("{:?}", header.record.cut));
    same("the payload stays where a header can give way", header.message.payload, sent[0].payload.clone());
    let payload = of(&sent[1]);
    let size = sent[1].payload.as_ref().map(|payload| payload.len() as u64);
    let seen = (payload.message.payload.clone(), payload.record.payload_left_out);
    same("a payload that does not fit is left out, and its size told", seen, (None, size));
    same(
        "what is left out can be found at its place",
        (&payload.record.topic, payload.record.id),
        (&topic, sent[1].id),
    );
}

async fn dead_letters_go_to_the_topic_that_is_named(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.route(|_| async { Ok(Verdict::reject("no")) })]);
    let named: Topic = stage.no_topic();
    task.dead_letters = Some(named.clone());
    stage.put(&topic, vec![numbered(1)]).await;
    let running = stage.start(&task).await;
    let promise = "the dead-letter topic that is named is made, and takes the letters";
    let is_there = async || stage.topics().await.contains(&named);
    eventually(promise, is_there, |there| *there).await;
    let letters = stage.buried(&task, 1).await;
    stage.stop(running).await;
    same(promise, letters[0].number(), 1);
}

async fn a_redriven_message_that_fails_again_counts_its_round(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.route(|_| async { fails() })]);
    task.settings.retry = steady(1, Duration::from_millis(1));
    stage.put(&topic, vec![keyed("a", 1)]).await;
    let running = stage.start(&task).await;
    let first = stage.buried(&task, 1).await.remove(0);
    stage.put(&topic, vec![Message { id: ropeway_broker::MessageId::new(), ..first.message.clone() }]).await;
    let letters = stage.buried(&task, 2).await;
    stage.stop(running).await;
    let second = letters.iter().find(|letter| letter.record.round == 2);
    let second = second.ought("a message that was dead-lettered before says how often");
    let own = |message: &Message| {
        message.headers.iter().filter(|(name, _)| name.starts_with(FAILURE_HEADERS)).count()
    };
    same("a letter has one record", own(&second.message), own(&first.message));
    let headers = |message: &Message| message.headers.filtered(|name| !name.starts_with(FAILURE_HEADERS));
    same("its headers are those of the message", headers(&second.message), headers(&first.message));
}
