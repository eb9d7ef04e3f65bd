//! Checks of publishing: outcomes, order of the calls, where a message goes, what an ack is worth.
//!
//! Not here: whether the bytes arrive as sent (`fidelity.rs`), messages for later (`delay.rs`).

use super::{
    promise::{Ought, not_written, promised, refused, same},
    stage::{Stage, at, keyed, text, within},
    suite::group,
};
use crate::{Durability, ErrorKind, Message, MessageId, Published, Target, partition_for_key};
use futures::{
    FutureExt,
    future::{join_all, select_all},
};
use std::collections::{BTreeMap, BTreeSet};

group! { "publish":
    "P2" each_message_of_a_batch_has_its_own_outcome;
    "" what_is_not_written_is_given_back_as_it_was;
    "" an_empty_batch_answers_an_empty_list;
    "" parts_of_a_batch_have_each_message_once_and_keep_the_order_of_calls;
    "P1" what_was_acked_survives_a_crash [Crash];
    "P1" what_was_acked_is_there_after_a_reopen [Reopen];
    "P3" a_dropped_answer_takes_nothing_back;
    "P3" an_answer_dropped_half_way_leaves_one_whole_copy;
    "P5" with_much_in_flight_each_message_is_acked_or_refused_and_never_lost;
    "P6" a_repeated_id_is_written_once [Dedup];
    "" calls_keep_their_order;
    "" publishers_at_the_same_time_lose_and_repeat_nothing;
    "" a_partition_of_ones_own_choice_is_taken_whatever_the_key;
    "" a_partition_that_does_not_exist_is_refused;
    "" a_key_goes_to_the_partition_of_the_java_client;
    "" messages_without_key_are_spread;
    "" a_durability_that_cannot_be_given_is_refused;
    "" an_ack_tells_what_the_topic_promises;
    "" an_ack_tells_where_the_message_lies;
}

async fn each_message_of_a_batch_has_its_own_outcome(stage: &Stage) {
    let topic = stage.topic(1).await;
    let most = stage.describe(&topic).await.max_message;
    let large = Message::builder().payload(vec![7; most + 1]).build();
    let batch = vec![text(0), text(1), large.clone(), text(3), text(4)];
    let outcomes = within("publish answers", stage.broker().publish(&at(&topic, 0), batch)).await;
    same("there is one outcome per message", outcomes.0.len(), 5);
    for (i, outcome) in outcomes.0.iter().enumerate() {
        if i == 2 {
            not_written("a message that is too large is given back", outcome, ErrorKind::TooLarge, &large);
        } else {
            promised(
                outcome.is_acked(),
                "the others of a batch do not depend on one that is refused",
                || format!("message {i}: {:?}", outcome.failed().map(|failed| &failed.error)),
            );
        }
    }
    let numbers: Vec<_> = stage.content(&topic).await.iter().map(super::watch::Got::number).collect();
    same("the rest of the batch is in the log, in its order", numbers, vec![0, 1, 3, 4]);
}

async fn what_is_not_written_is_given_back_as_it_was(stage: &Stage) {
    let batch: Vec<_> = (0..3)
        .map(|i| Message::builder().key("k").header("h", "v").null_header("n").payload(i.to_string()).build())
        .collect();
    let to = Target::from(stage.no_topic());
    let outcomes = within("publish answers", stage.broker().publish(&to, batch.clone())).await;
    same("there is one outcome per message", outcomes.0.len(), 3);
    for (outcome, message) in outcomes.0.iter().zip(&batch) {
        not_written("a topic that does not exist takes nothing", outcome, ErrorKind::NotFound, message);
    }
}

async fn an_empty_batch_answers_an_empty_list(stage: &Stage) {
    let topic = stage.topic(1).await;
    let outcomes = within("publish answers", stage.broker().publish(&topic.into(), Vec::new())).await;
    same("an empty batch answers an empty list", outcomes.0.len(), 0);
}

async fn parts_of_a_batch_have_each_message_once_and_keep_the_order_of_calls(stage: &Stage) {
    const KEYS: usize = 20;
    const EACH: usize = 30;
    let topic = stage.topic(4).await;
    let large = Message::builder().payload(vec![7; stage.describe(&topic).await.max_message + 1]).build();
    let mut open = Vec::new();
    for call in 0..3 {
        let keyed = |i| keyed(&format!("k{}", i % KEYS), call * EACH + i / KEYS);
        let mut batch: Vec<_> = (0..KEYS * EACH).map(keyed).collect();
        batch.insert(call * 100, large.clone());
        let batch = std::sync::Arc::new(batch);
        open.push((call * 100, batch.len(), stage.broker().publish_in_parts(&(&topic).into(), &batch)));
    }
    for (refused, count, parts) in open {
        let mut places: Vec<_> = parts.iter().flat_map(|part| part.places.clone()).collect();
        places.sort_unstable();
        same("each message is in one part", places, (0..count as u32).collect::<Vec<_>>());
        for part in parts {
            let outcomes = within("each part is answered", part.answer).await;
            same("there is one outcome per message of a part", outcomes.0.len(), part.places.len());
            for (place, outcome) in part.places.iter().zip(&outcomes.0) {
                if *place as usize == refused {
                    let promise = "a message that is too large is given back at its place";
                    not_written(promise, outcome, ErrorKind::TooLarge, &large);
                } else {
                    let why = || format!("{place}: {:?}", outcome.failed().map(|failed| &failed.error));
                    promised(outcome.is_acked(), "the others are acked", why);
                }
            }
        }
    }
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let content = stage.content(&topic).await;
    content.iter().for_each(|got| by_key.entry(got.key()).or_default().push(got.number()));
    same("every key is there", by_key.len(), KEYS);
    for (key, numbers) in by_key {
        let promise = format!("messages of {key} lie there once, in the order of the calls and their batch");
        same(&promise, numbers, (0..3 * EACH).collect::<Vec<_>>());
    }
}

async fn what_was_acked_survives_a_crash(stage: &Stage) {
    let topic = stage.topic(2).await;
    for i in 0..20 {
        stage.put_one(at(&topic, i % 2), text(i as usize)).await;
    }
    stage.crash().await;
    expect_numbers(stage, &topic, 20, "what was acked survives a crash").await;
}

async fn what_was_acked_is_there_after_a_reopen(stage: &Stage) {
    let topic = stage.topic(2).await;
    stage.put(at(&topic, 0), (0..10).map(text).collect()).await;
    stage.put(at(&topic, 1), (10..20).map(text).collect()).await;
    stage.reopen().await;
    expect_numbers(stage, &topic, 20, "what was acked is there after a reopen").await;
    stage.put(at(&topic, 1), vec![text(20)]).await;
    expect_numbers(stage, &topic, 21, "a log goes on after a reopen").await;
}

async fn expect_numbers(stage: &Stage, topic: &crate::Topic, count: usize, promise: &str) {
    let mut numbers: Vec<_> = stage.content(topic).await.iter().map(super::watch::Got::number).collect();
    numbers.sort_unstable();
    same(promise, numbers, (0..count).collect::<Vec<_>>());
}

async fn a_dropped_answer_takes_nothing_back(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut reader = stage.follow(&topic).await;
    drop(stage.broker().publish(&at(&topic, 0), vec![text(0), text(1)]));
    reader.until("a batch is written although its answer was dropped", |r| r.got().count() >= 2).await;
    stage.put(at(&topic, 0), vec![text(2)]).await;
    reader.until("what was published is read", |r| r.numbers().contains(&2)).await;
    same("it is written once, before later calls", reader.numbers(), vec![0, 1, 2]);
}

async fn an_answer_dropped_half_way_leaves_one_whole_copy(stage: &Stage) {
    let topic = stage.topic(1).await;
    let body = vec![9u8; 20_000];
    let send = |i: usize| {
        let message = Message::builder().key(i.to_string()).payload(body.clone()).build();
        stage.broker().publish(&at(&topic, 0), vec![message])
    };
    for i in 0..20 {
        let _ = send(i).now_or_never();
    }
    stage.put(at(&topic, 0), vec![keyed("last", 0)]).await;
    let content = stage.content(&topic).await;
    let keys: Vec<_> = content.iter().map(super::watch::Got::key).collect();
    let mut expected: Vec<_> = (0..20).map(|i| i.to_string()).collect();
    expected.push("last".into());
    same("each message is written once although its answer was polled once and dropped", keys, expected);
    let whole = content.iter().take(20).all(|got| got.message.payload.as_deref() == Some(&body[..]));
    promised(whole, "a message is in the log whole or not at all", || "a part of one".into());
}

async fn with_much_in_flight_each_message_is_acked_or_refused_and_never_lost(stage: &Stage) {
    let topic = stage.topic(1).await;
    let send = |i: usize| {
        let message = Message::builder().key(i.to_string()).payload(vec![b'x'; 65_536]).build();
        stage.broker().publish(&at(&topic, 0), vec![message])
    };
    let answers: Vec<_> = (0..256).map(send).collect();
    let answered = within("every publish is answered", join_all(answers)).await;
    let mut acked = Vec::new();
    for (i, outcomes) in answered.into_iter().enumerate() {
        let mut outcomes = outcomes.0;
        match outcomes.pop().ought("there is one outcome per message") {
            Published::Acked { .. } => acked.push(i.to_string()),
            Published::NotWritten(failed) => {
                same("what cannot be taken in is throttled", failed.error.kind(), ErrorKind::Throttled);
            }
            Published::Unknown(failed) => {
                super::promise::broken("what is refused is certainly not written", failed.error.to_string());
            }
        }
    }
    promised(!acked.is_empty(), "something is taken in", || "nothing was".into());
    let keys: Vec<_> = stage.content(&topic).await.iter().map(super::watch::Got::key).collect();
    same("exactly what was acked is in the log", keys, acked);
}

async fn a_repeated_id_is_written_once(stage: &Stage) {
    let topic = stage.topic(1).await;
    let id = MessageId::new();
    let message = Message::builder().id(id).payload("0").build();
    let first = stage.put_one(at(&topic, 0), message.clone()).await;
    promised(first.position.is_some(), "the first of an id is placed", || format!("{first:?}"));
    stage.put_one(at(&topic, 0), message.clone()).await;
    stage.put(at(&topic, 0), vec![text(1), message]).await;
    let numbers: Vec<_> = stage.content(&topic).await.iter().map(super::watch::Got::number).collect();
    same("a repeated id is acked and not written again", numbers, vec![0, 1]);
}

async fn calls_keep_their_order(stage: &Stage) {
    let topic = stage.topic(4).await;
    let broker = stage.broker();
    let calls =
        (0..60).map(|i| broker.publish(&(&topic).into(), vec![keyed("k", 2 * i), keyed("k", 2 * i + 1)]));
    // Awaited in the wrong order, all of them open at once.
    let mut answers: Vec<_> = calls.collect();
    while !answers.is_empty() {
        let last = answers.pop().ought("an answer");
        let (outcomes, _, rest) =
            within("publish answers", select_all(std::iter::once(last).chain(answers))).await;
        outcomes.into_result().ought("publish acks what is in order");
        answers = rest;
    }
    let numbers: Vec<_> = stage.content(&topic).await.iter().map(super::watch::Got::number).collect();
    same("messages of a key lie in the order of the calls", numbers, (0..120).collect::<Vec<_>>());
}

async fn publishers_at_the_same_time_lose_and_repeat_nothing(stage: &Stage) {
    let topic = stage.topic(4).await;
    let publishers = (0..8usize).map(|who| {
        let topic = &topic;
        async move {
            for i in 0..25 {
                stage.put_one(topic, keyed(&format!("k{who}"), i)).await;
                tokio::task::yield_now().await;
            }
        }
    });
    join_all(publishers).await;
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for got in stage.content(&topic).await {
        by_key.entry(got.key()).or_default().push(got.number());
    }
    same("every key is there", by_key.len(), 8);
    for (key, numbers) in by_key {
        same(&format!("messages of {key} are there once, in order"), numbers, (0..25).collect::<Vec<_>>());
    }
}

async fn a_partition_of_ones_own_choice_is_taken_whatever_the_key(stage: &Stage) {
    let topic = stage.topic(4).await;
    for partition in 0..4 {
        for key in ["a", "b", "c", "d"] {
            let receipt = stage.put_one(at(&topic, partition), keyed(key, partition as usize)).await;
            same("the chosen partition is taken whatever the key", receipt.partition, partition);
        }
    }
    for got in stage.content(&topic).await {
        same("a message lies in the chosen partition", got.of.partition as usize, got.number());
    }
}

async fn a_partition_that_does_not_exist_is_refused(stage: &Stage) {
    let topic = stage.topic(2).await;
    let message = keyed("k", 1);
    let outcomes =
        within("publish answers", stage.broker().publish(&at(&topic, 2), vec![message.clone()])).await;
    let outcome = outcomes.0.first().ought("there is one outcome per message");
    not_written("a partition that does not exist takes nothing", outcome, ErrorKind::NotFound, &message);
    same("nothing was written", stage.content(&topic).await.len(), 0);
}

async fn a_key_goes_to_the_partition_of_the_java_client(stage: &Stage) {
    let topic = stage.topic(7).await;
    let keys = ["21", "foobar", "a-little-bit-long-string", "abc", "", "vector"];
    for key in keys {
        let receipt = stage.put_one(&topic, keyed(key, 0)).await;
        let expected = partition_for_key(key.as_bytes(), 7);
        same(&format!("key {key:?} goes to its partition"), receipt.partition, expected);
    }
    for got in stage.content(&topic).await {
        let expected = partition_for_key(got.key().as_bytes(), 7);
        same(&format!("key {:?} lies in its partition", got.key()), got.of.partition, expected);
    }
}

async fn messages_without_key_are_spread(stage: &Stage) {
    let topic = stage.topic(4).await;
    let mut seen = BTreeSet::new();
    for i in 0..400 {
        seen.insert(stage.put_one(&topic, text(i)).await.partition);
    }
    same("messages without key are spread over all partitions", seen.len(), 4);
}

async fn a_durability_that_cannot_be_given_is_refused(stage: &Stage) {
    let topic = stage.topic(1).await;
    if stage.describe(&topic).await.durability == Durability::Replicated {
        return stage.ignore("it can give every durability");
    }
    let to = Target { at_least: Some(Durability::Replicated), ..at(&topic, 0) };
    let message = text(0);
    let outcomes = within("publish answers", stage.broker().publish(&to, vec![message.clone()])).await;
    let outcome = outcomes.0.first().ought("there is one outcome per message");
    if let Published::Acked { durability: Durability::Replicated, .. } = outcome {
        return stage.ignore("it can give every durability to who asks for it");
    }
    not_written("a durability that cannot be given is refused", outcome, ErrorKind::Unsupported, &message);
    same("nothing was written", stage.content(&topic).await.len(), 0);
}

async fn an_ack_tells_what_the_topic_promises(stage: &Stage) {
    let topic = stage.topic(1).await;
    let promised_by_topic = stage.describe(&topic).await.durability;
    for at_least in [None, Some(promised_by_topic)] {
        let receipt = stage.put_one(Target { at_least, ..at(&topic, 0) }, text(0)).await;
        promised(receipt.durability >= promised_by_topic, "an ack is worth what the topic says", || {
            format!("{:?} where the topic says {promised_by_topic:?}", receipt.durability)
        });
    }
    let missing = stage.broker();
    let missing = within("describe answers", missing.admin().describe_topic(&stage.no_topic())).await;
    refused("a topic that does not exist has no durability", missing, ErrorKind::NotFound);
}

async fn an_ack_tells_where_the_message_lies(stage: &Stage) {
    let topic = stage.topic(3).await;
    let mut told = BTreeMap::new();
    let mut last = BTreeMap::new();
    for i in 0..12 {
        let receipt = stage.put_one(at(&topic, i % 3), text(i as usize)).await;
        let position = receipt.position.ought("an ack of a message that is not delayed tells its position");
        let grew = last.insert(i % 3, position).is_none_or(|before| before < position);
        promised(grew, "positions of a partition grow", || position.to_string());
        told.insert(i as usize, (i % 3, position));
    }
    for got in stage.content(&topic).await {
        let seen = (got.of.partition, got.position);
        same("a message lies where its ack said", seen, told[&got.number()]);
    }
}
