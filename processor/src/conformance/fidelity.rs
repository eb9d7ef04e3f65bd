//! Checks that a message stays what it was: from attempt to attempt, in the dead-letter topic, and in what follows from it.
//!
//! Not here: what the record of a failure says (`letters.rs`).

use super::{
    calls::{Calls, fails, steady},
    stage::{Stage, TYPE, numbered},
    suite::group,
};
use crate::{BoxError, FAILURE_HEADERS, Verdict};
use ropeway_broker::conformance::promise::{Ought, same};
use ropeway_broker::{Message, Timestamp, wire};
use std::time::Duration;

group! { "fidelity":
    "F4" a_message_is_the_same_in_every_attempt;
    "F4" a_dead_letter_is_the_message_unchanged_but_for_its_record;
    "" what_follows_from_an_event_carries_correlation_causation_and_trace;
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Messages of all shapes: keys, payloads and headers present, empty and absent, text and not.
fn of_all_shapes() -> Vec<Message> {
    let old = Timestamp::from_millis(1_234_567_890_123);
    let rich = Message::builder()
        .key(vec![0xff, 0x00, 0xfe])
        .event_type(TYPE)
        .header("twice", "first")
        .null_header("null")
        .header("bytes", [0xff, 0x00, 0x80])
        .header("twice", "second")
        .header("empty", "")
        .payload(vec![0xc3, 0x28, 0x00])
        .timestamp(old);
    vec![
        rich.build(),
        Message::builder().event_type(TYPE).key("").payload("").timestamp(old).build(),
        Message::builder().event_type(TYPE).timestamp(Timestamp::from_millis(1)).build(),
    ]
}

async fn a_message_is_the_same_in_every_attempt(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.route(|_| async { fails() })]);
    task.settings.retry = steady(3, Duration::from_millis(5));
    let sent = of_all_shapes();
    let receipts = stage.put(&topic, sent.clone()).await;
    let running = stage.start(&task).await;
    calls.until("each message is tried three times", |calls| calls.count() >= 9).await;
    stage.buried(&task, 3).await;
    stage.stop(running).await;
    for call in calls.all() {
        let promise = format!("a message is what was sent, in attempt {} too", call.attempt);
        let place = call.event.place().ought("an event of the bus has a place").clone();
        let index = receipts.iter().position(|receipt| receipt.position == Some(place.position));
        let index = index.ought("an event lies where it was written");
        same(&promise, call.event.message(), &sent[index]);
        same("an event tells where it lies", (&place.topic, place.partition), (&topic, 0));
    }
}

async fn a_dead_letter_is_the_message_unchanged_but_for_its_record(stage: &Stage) {
    let topic = stage.topic(1).await;
    let calls = Calls::default();
    let mut task = stage.task(&topic, [calls.route(|_| async { fails() })]);
    task.settings.retry = steady(2, Duration::from_millis(5));
    let sent = of_all_shapes();
    stage.put(&topic, sent.clone()).await;
    let running = stage.start(&task).await;
    let letters = stage.buried(&task, 3).await;
    stage.stop(running).await;
    for message in &sent {
        let found = letters.iter().find(|letter| letter.record.id == message.id);
        let letter = found.ought("the record of a dead letter has the id of its message");
        let kept = letter.message.headers.filtered(|name| !name.starts_with(FAILURE_HEADERS));
        let seen = Message { id: message.id, headers: kept, ..letter.message.clone() };
        same("key, payload, headers and timestamp are unchanged in a dead letter", &seen, message);
        same("the record tells the time of the message", letter.record.timestamp, message.timestamp);
        same("nothing is cut where all fits", letter.record.cut.len(), 0);
    }
}

async fn what_follows_from_an_event_carries_correlation_causation_and_trace(stage: &Stage) {
    let topic = stage.topic(1).await;
    let next = stage.topic(1).await;
    let calls = Calls::default();
    let to = next.clone();
    let route = calls.route(move |turn| {
        let to = to.clone();
        async move {
            let message = numbered(turn.number + 100);
            turn.cx.publish(&to, message).await.map_err(BoxError::from)?;
            Ok(Verdict::Done)
        }
    });
    let first = Message::builder()
        .event_type(TYPE)
        .payload("1")
        .header(wire::CORRELATION_ID, "order-17")
        .header(wire::TRACEPARENT, PARENT)
        .header(wire::TRACESTATE, "vendor=1")
        .build();
    let second = numbered(2);
    stage.put(&topic, vec![first.clone(), second.clone()]).await;
    let task = stage.task(&topic, [route]);
    let running = stage.start(&task).await;
    calls.until("both are handled", |calls| calls.done() >= 2).await;
    stage.stop(running).await;
    let followed = stage.content(&next).await;
    same("a handler publishes over the bus", followed.len(), 2);
    for message in followed {
        let of = |name: &str| message.headers.get_str(name).map(str::to_owned);
        let from_first = super::stage::number_of(&message) == 101;
        let (cause, correlation, trace) = if from_first {
            (first.id, "order-17".to_owned(), Some(PARENT.to_owned()))
        } else {
            (second.id, second.id.to_string(), None)
        };
        same("what follows names what it follows from", of(wire::CAUSATION_ID), Some(cause.to_string()));
        same("what follows has the correlation of its event", of(wire::CORRELATION_ID), Some(correlation));
        same("what follows has the trace of its event", of(wire::TRACEPARENT), trace);
    }
}
