//! Checks of messages that are to be delivered later.
//!
//! Not here: everything that holds for any message (`publish.rs`, `settle.rs`).

use super::{
    promise::{Ought, names, promised, refused, same},
    stage::{PATIENCE, QUIET, Stage, at, eventually, text, within},
    suite::group,
    watch::Watched,
};
use crate::{ErrorKind, Message, MessageId, Start, Timestamp, Topic};
use std::time::Duration;

group! { "delay":
    "" a_delayed_message_is_never_early_and_comes_once;
    "" a_delayed_message_does_not_hold_others_back;
    "" delayed_messages_come_when_each_is_due;
    "" what_is_due_already_is_delivered_at_once;
    "" what_was_cancelled_is_not_delivered;
    "" what_cannot_be_cancelled_says_so;
    "" delayed_messages_are_counted;
    "" delayed_messages_survive_a_reopen [Reopen];
    "" what_became_due_while_closed_is_delivered [Reopen];
    "" a_delete_takes_delayed_messages_with_it;
    "" a_delayed_message_arrives_as_sent;
}

fn later(number: usize, at: Timestamp) -> Message {
    Message::builder().payload(number.to_string()).deliver_at(at).build()
}

/// Publishes for later; where it will lie is not known yet, unless it took so long that it is due.
async fn put_later(stage: &Stage, topic: &Topic, message: Message) -> MessageId {
    let (id, due) = (message.id, message.deliver_at);
    let receipt = stage.put_one(at(topic, 0), message).await;
    if due.is_some_and(|due| stage.now() < due) {
        same("a message that is not placed yet has no position", receipt.position, None);
    }
    id
}

async fn delayed(stage: &Stage, topic: &Topic) -> Option<u64> {
    stage.describe(topic).await.delayed
}

/// What comes next; when, by the broker's clock.
async fn arrival(stage: &Stage, watched: &mut Watched, count: usize) -> Timestamp {
    watched.until("a delayed message comes when it is due", |w| w.got().count() >= count).await;
    stage.now()
}

async fn a_delayed_message_is_never_early_and_comes_once(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await.acking();
    let mut reader = stage.follow(&topic).await;
    let due = stage.now() + Duration::from_millis(700);
    put_later(stage, &topic, later(1, due)).await;
    let acked = stage.now();
    let arrived = arrival(stage, &mut member, 1).await;
    promised(arrived >= due, "a delayed message is never early", || {
        format!("{:?} early", due.since(arrived))
    });
    let late = arrived.since(due.max(acked));
    promised(
        late <= Duration::from_secs(1) + stage.slack(),
        "a delayed message comes when it is due",
        || format!("{late:?} late"),
    );
    reader.take(1).await;
    member.idle(QUIET).await;
    reader.idle(QUIET).await;
    same("a delayed message comes once", (member.numbers(), reader.numbers()), (vec![1], vec![1]));
}

async fn a_delayed_message_does_not_hold_others_back(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await.acking();
    put_later(stage, &topic, later(9, stage.now() + Duration::from_secs(3600))).await;
    stage.number(&topic, 0, 0..3).await;
    member.take(3).await;
    member.idle(QUIET).await;
    same("a delayed message is outside of the order", member.numbers(), vec![0, 1, 2]);
}

async fn delayed_messages_come_when_each_is_due(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await.acking();
    let now = stage.now();
    // Where the first delayed message of a topic takes long, the others are published late.
    let first = Duration::from_millis(300) + stage.slack();
    let due = |i: usize| now + first + Duration::from_millis(450 * i as u64);
    for i in [2, 0, 1] {
        put_later(stage, &topic, later(i, due(i))).await;
    }
    let mut come = 0;
    while come < 3 {
        let arrived = arrival(stage, &mut member, come + 1).await;
        // Some may come together: all but the last of them late.
        come = member.got().count();
        same(
            "delayed messages come in the order they are due",
            member.numbers(),
            (0..come).collect::<Vec<_>>(),
        );
        let due = due(come - 1);
        promised(arrived >= due, "a delayed message is never early", || {
            format!("{:?} early", due.since(arrived))
        });
    }
}

async fn what_is_due_already_is_delivered_at_once(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await.acking();
    let now = stage.now();
    for (i, due) in [Timestamp::from_millis(1), now - Duration::from_secs(5), now].into_iter().enumerate() {
        stage.put_one(at(&topic, 0), later(i, due)).await;
    }
    let promise = "what is due already is delivered at once";
    let acked = stage.now();
    member.until(promise, |w| w.got().count() >= 3).await;
    let took = stage.now().since(acked);
    promised(took <= Duration::from_secs(1) + stage.slack(), promise, || format!("after {took:?}"));
}

async fn what_was_cancelled_is_not_delivered(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await.acking();
    let due = stage.now() + Duration::from_secs(4);
    let first = put_later(stage, &topic, later(1, due)).await;
    put_later(stage, &topic, later(2, due)).await;
    let broker = stage.broker();
    let cancelled = within("cancel answers", broker.admin().cancel_delayed(&topic, first)).await;
    let cancelled = cancelled.ought("cancel answers for a topic that exists");
    promised(cancelled, "what is far from due can be cancelled", || "false".into());
    let again = within("cancel answers", broker.admin().cancel_delayed(&topic, first)).await;
    same("what was cancelled is gone", again.ought("cancel answers"), false);
    member.take(1).await;
    member.idle(QUIET).await;
    same("what was cancelled is not delivered", member.numbers(), vec![2]);
}

async fn what_cannot_be_cancelled_says_so(stage: &Stage) {
    let topic = stage.topic(1).await;
    let broker = stage.broker();
    let mut member = stage.join_new(&topic).await.acking();
    let delivered = put_later(stage, &topic, later(1, stage.now() + Duration::from_millis(200))).await;
    member.take(1).await;
    let cancel = async |id| within("cancel answers", broker.admin().cancel_delayed(&topic, id)).await;
    same("what was delivered cannot be cancelled", cancel(delivered).await.ought("cancel answers"), false);
    let unknown = cancel(MessageId::new()).await.ought("cancel answers");
    same("what is unknown cannot be cancelled", unknown, false);
    let missing = stage.no_topic();
    let promise = "cancel refuses a topic that does not exist by its name";
    let answer = within(promise, broker.admin().cancel_delayed(&missing, MessageId::new())).await;
    names(promise, &refused(promise, answer, ErrorKind::NotFound), missing.as_str());
}

async fn delayed_messages_are_counted(stage: &Stage) {
    let topic = stage.topic(2).await;
    if delayed(stage, &topic).await.is_none() {
        return stage.ignore("it does not know how many messages are delayed");
    }
    let promise = "delayed messages that are not due are counted";
    same(promise, delayed(stage, &topic).await, Some(0));
    let far = stage.now() + Duration::from_secs(3600);
    let first = put_later(stage, &topic, later(1, far)).await;
    put_later(stage, &topic, later(2, far)).await;
    put_later(stage, &topic, later(3, stage.now() + Duration::from_millis(300))).await;
    // Nobody consumes: a report is right all the same.
    let mut ask = async || {
        tokio::time::sleep(Duration::from_millis(10)).await;
        delayed(stage, &topic).await
    };
    eventually(promise, &mut ask, |count| *count == Some(2)).await;
    let broker = stage.broker();
    let cancelled = within("cancel answers", broker.admin().cancel_delayed(&topic, first)).await;
    promised(cancelled.ought("cancel answers"), "what is far from due can be cancelled", || "false".into());
    eventually(promise, &mut ask, |count| *count == Some(1)).await;
}

async fn delayed_messages_survive_a_reopen(stage: &Stage) {
    let topic = stage.topic(1).await;
    let due = stage.now() + Duration::from_secs(6);
    put_later(stage, &topic, later(1, due)).await;
    let cancelled = put_later(stage, &topic, later(2, due)).await;
    let broker = stage.broker();
    let answer = within("cancel answers", broker.admin().cancel_delayed(&topic, cancelled)).await;
    promised(answer.ought("cancel answers"), "what is far from due can be cancelled", || "false".into());
    drop(broker);
    stage.reopen().await;
    let mut member = stage.join_new(&topic).await.acking();
    let arrived = arrival(stage, &mut member, 1).await;
    promised(arrived >= due, "a delayed message is never early", || {
        format!("{:?} early", due.since(arrived))
    });
    member.idle(QUIET).await;
    same("delayed messages survive a reopen, cancelled ones do not", member.numbers(), vec![1]);
}

async fn what_became_due_while_closed_is_delivered(stage: &Stage) {
    let topic = stage.topic(1).await;
    put_later(stage, &topic, later(1, stage.now() + Duration::from_millis(300))).await;
    within("close ends within its deadline", stage.broker().close(Duration::from_secs(5))).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    stage.reopen().await;
    let mut member = stage.join_new(&topic).await.acking();
    member.take(1).await;
    member.idle(QUIET).await;
    same("what became due while the broker was closed is delivered once", member.numbers(), vec![1]);
}

async fn a_delete_takes_delayed_messages_with_it(stage: &Stage) {
    let topic = stage.topic(1).await;
    let due = stage.now() + Duration::from_millis(600);
    put_later(stage, &topic, later(1, due)).await;
    let broker = stage.broker();
    within("delete answers", broker.admin().delete_topic(&topic))
        .await
        .ought("a topic nobody uses can be deleted");
    stage.create(&topic, 1).await;
    stage.put(at(&topic, 0), vec![text(2)]).await;
    let mut reader = stage.reader().await;
    reader.follow(&topic, None, Start::Earliest).await.ought("a reader follows a topic that exists");
    reader.take(1).await;
    reader.idle(Duration::from_millis(1500).min(PATIENCE)).await;
    same("a delete takes delayed messages with it", reader.numbers(), vec![2]);
}

async fn a_delayed_message_arrives_as_sent(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await.acking();
    let sent = Message::builder()
        .key("k")
        .header("h", [0xff])
        .null_header("n")
        .deliver_at(stage.now() + Duration::from_millis(100))
        .build();
    put_later(stage, &topic, sent.clone()).await;
    let got = member.take(1).await.remove(0).message;
    same("a delayed message arrives as it was sent", &got, &sent);
}
