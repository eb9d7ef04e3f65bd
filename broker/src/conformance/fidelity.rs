//! Checks that a message arrives as it was sent, and that what no backend can carry is refused.
//!
//! Not here: outcomes in general (`publish.rs`).

use super::{
    promise::{Ought, not_written, same},
    stage::{Stage, at, within},
    suite::group,
};
use crate::{ErrorKind, Headers, Message, MessageId, Subscription, Timestamp, Topic};
use bytes::Bytes;

group! { "fidelity":
    "F1" payloads_from_nothing_to_the_largest_arrive_and_one_byte_more_is_refused;
    "F1" bytes_of_every_value_arrive_in_key_and_payload;
    "F2" headers_keep_order_repeats_null_empty_and_any_bytes;
    "F2" a_thousand_headers_arrive;
    "F2" ten_thousand_headers_are_refused;
    "F3" no_key_and_an_empty_key_differ;
    "F3" a_tombstone_and_an_empty_payload_differ;
    "F3" the_longest_key_arrives_and_a_longer_one_is_refused;
    "F4" id_and_time_arrive_as_sent;
}

/// Publishes, and expects all of it as it was, from a group and from a reader.
async fn arrives(stage: &Stage, promise: &str, batch: Vec<Message>) {
    let topic = stage.topic(1).await;
    let mut subscription = Subscription::new(stage.group(), [topic.clone()]);
    subscription.in_flight.bytes = 512 * 1024 * 1024;
    let mut member = stage.join(subscription).await;
    for message in &batch {
        stage.put_one(at(&topic, 0), message.clone()).await;
    }
    let delivered = member.take(batch.len()).await;
    let read = stage.content(&topic).await;
    for got in [delivered, read] {
        same("each message arrives once", got.len(), batch.len());
        for (got, sent) in got.iter().zip(&batch) {
            same(promise, &got.message, sent);
        }
    }
}

async fn refused(stage: &Stage, promise: &str, topic: &Topic, message: Message) {
    let answer = stage.broker().publish(&at(topic, 0), vec![message.clone()]);
    let outcomes = within("publish answers", answer).await;
    let outcome = outcomes.0.first().ought("there is one outcome per message");
    not_written(promise, outcome, ErrorKind::TooLarge, &message);
    same("what is refused is not in the log", stage.content(topic).await.len(), 0);
}

async fn payloads_from_nothing_to_the_largest_arrive_and_one_byte_more_is_refused(stage: &Stage) {
    let topic = stage.topic(1).await;
    let most = stage.describe(&topic).await.max_message;
    let pattern: Vec<u8> = (0..251).collect();
    let payload = |size: usize| {
        let mut bytes = pattern.repeat(size / pattern.len() + 1);
        bytes.truncate(size);
        Message::builder().payload(bytes).build()
    };
    let sizes = [0, 1, 65_535, 65_536, 1024 * 1024, most].into_iter().filter(|size| *size <= most);
    arrives(stage, "a payload of any size the topic takes arrives as sent", sizes.map(payload).collect())
        .await;
    refused(stage, "one byte more than the largest is refused", &topic, payload(most + 1)).await;
    let with_key = Message::builder().key("k").payload(vec![1; most]).build();
    refused(stage, "the key counts for the size of a message", &topic, with_key).await;
}

async fn bytes_of_every_value_arrive_in_key_and_payload(stage: &Stage) {
    let all: Bytes = (0..=255u8).collect();
    let message = Message::builder().key(all.clone()).payload(all).build();
    arrives(stage, "bytes arrive as sent, text or not", vec![message]).await;
}

async fn headers_keep_order_repeats_null_empty_and_any_bytes(stage: &Stage) {
    let message = Message::builder()
        .header("z", "last name first")
        .header("a", "1")
        .header("a", [0xff, 0x00, 0xfe])
        .null_header("a")
        .header("a", "")
        .header("größe-尺寸", "unicode name")
        .header("", "empty name")
        .null_header("null")
        .payload("x")
        .build();
    let plain = Message::builder().payload("no headers").build();
    arrives(stage, "headers keep order, repeats, null, empty and bytes", vec![message, plain]).await;
}

async fn a_thousand_headers_arrive(stage: &Stage) {
    let message = (0..1000)
        .fold(Message::builder(), |b, i| b.header(&format!("h{}", i % 10), i.to_string()))
        .payload("x")
        .build();
    arrives(stage, "a thousand headers arrive", vec![message]).await;
}

async fn ten_thousand_headers_are_refused(stage: &Stage) {
    let topic = stage.topic(1).await;
    let many = |count: usize| {
        let headers = (0..count).fold(Headers::builder(), |b, i| b.add(&i.to_string(), Some("v")));
        Message::builder().headers(&headers.build()).payload("x").build()
    };
    refused(stage, "ten thousand headers are refused", &topic, many(10_000)).await;
    let long_name = Message::builder().header(&"n".repeat(Headers::MAX_NAME + 1), "v").build();
    refused(stage, "a name of a header that is too long is refused", &topic, long_name).await;
}

async fn no_key_and_an_empty_key_differ(stage: &Stage) {
    let batch = vec![
        Message::builder().payload("no key").build(),
        Message::builder().key("").payload("empty key").build(),
    ];
    arrives(stage, "no key and an empty key differ", batch).await;
}

async fn a_tombstone_and_an_empty_payload_differ(stage: &Stage) {
    let batch = vec![Message::builder().key("k").build(), Message::builder().key("k").payload("").build()];
    arrives(stage, "a tombstone and an empty payload differ", batch).await;
}

async fn the_longest_key_arrives_and_a_longer_one_is_refused(stage: &Stage) {
    let topic = stage.topic(1).await;
    let key = |size: usize| Message::builder().key(vec![b'k'; size]).payload("x").build();
    arrives(stage, "the longest key arrives", vec![key(Message::MAX_KEY)]).await;
    refused(stage, "a longer key is refused", &topic, key(Message::MAX_KEY + 1)).await;
}

async fn id_and_time_arrive_as_sent(stage: &Stage) {
    let message = |id: u128, millis: i64| {
        let id = MessageId::from_u128(id);
        Message::builder().id(id).timestamp(Timestamp::from_millis(millis)).payload("x").build()
    };
    let batch = vec![message(1, 1), message(u128::MAX, 1_234_567_890_123), message(7, 4_102_444_800_000)];
    arrives(stage, "id and time arrive as sent", batch).await;
}
