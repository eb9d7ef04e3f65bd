//! Checks of the end: closing a consumer, closing a broker, and what is answered after that.
//!
//! Not here: a crash (`publish.rs`, `settle.rs`).

use super::{
    promise::{Ought, names, not_written, promised, refused, same},
    settle::{exactly, five, lazily},
    stage::{PATIENCE, QUIET, Stage, at, text, within},
    suite::group,
    watch,
};
use crate::{ErrorKind, GoneReason, MessageId, Start, Subscription, TopicSpec};
use std::{future::poll_fn, time::Duration};

group! { "close":
    "" a_closing_consumer_gives_up_at_once_what_is_idle;
    "" a_closing_consumer_keeps_what_is_in_flight_until_it_is_acked;
    "" a_closing_consumer_ends_at_its_deadline_and_tells_what_was_not_acked;
    "" a_closing_consumer_gets_no_more_batches;
    "" an_ended_consumer_answers_the_same_again;
    "P4" after_close_every_call_answers_closed;
    "" close_ends_consumers_and_readers;
    "" close_answers_what_was_taken_over_before;
    "" acks_given_before_close_take_effect [Reopen];
    "" closing_twice_is_once;
}

async fn a_closing_consumer_gives_up_at_once_what_is_idle(stage: &Stage) {
    let topic = stage.topic(2).await;
    stage.number(&topic, 0, 0..2).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members = vec![stage.join(subscription).await];
    members[0].own(2).await;
    let got = members[0].take(2).await;
    let closing = tokio::spawn(members[0].control().close(Duration::from_secs(60)));
    let promise = "a closing consumer gives up at once what has nothing in flight";
    watch::until(&mut members, promise, |m| !m[0].gone().is_empty()).await;
    watch::idle(&mut members, QUIET).await;
    let gone: Vec<_> = members[0].gone().into_iter().map(|(of, why)| (of.partition, why)).collect();
    same(promise, gone, vec![(1, GoneReason::Closed)]);
    promised(!closing.is_finished(), "it waits for what is in flight", || "it answered".into());
    let positions: Vec<_> = got.iter().map(|got| got.position).collect();
    members[0].control().ack(&got[0].of, &positions).ought("what is in flight can be acked");
    watch::until(&mut members, "a closed consumer ends", |m| m[0].end.is_some()).await;
    let left = within("close answers", closing).await.ought("close answers");
    same("all was acked", left.len(), 0);
}

async fn a_closing_consumer_keeps_what_is_in_flight_until_it_is_acked(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    let closing = tokio::spawn(member.control().close(Duration::from_secs(60)));
    member.control().ack(&of, &positions[..4]).ought("what is in flight can be acked");
    member.idle(QUIET).await;
    let waits = !closing.is_finished() && member.gone().is_empty();
    promised(waits, "a closing consumer waits for its last ack", || member.told());
    member.control().ack(&of, &positions[4..]).ought("what is in flight can be acked");
    let promise = "a closing consumer ends with its last ack";
    let end = member.ended(promise).await;
    same(promise, end.kind(), ErrorKind::Closed);
    let left = within("close answers", closing).await.ought("close answers");
    same("all was acked", left.len(), 0);
    same("what it had is gone as closed", member.gone(), vec![(of, GoneReason::Closed)]);
    let seen = stage.group_partition(&subscription.group, &topic, 0).await;
    same("acks given while it closed took effect", seen.position, Some(seen.end));
}

async fn a_closing_consumer_ends_at_its_deadline_and_tells_what_was_not_acked(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = lazily(stage, &topic);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    member.control().ack(&of, &[positions[1], positions[3]]).ought("acks may come in any order");
    let start = tokio::time::Instant::now();
    let closing = tokio::spawn(member.control().close(Duration::from_millis(300)));
    let end = member.ended("a closing consumer ends at its deadline").await;
    same("a closed consumer ends as closed", end.kind(), ErrorKind::Closed);
    let took = start.elapsed();
    let in_time = took >= Duration::from_millis(280) && took <= Duration::from_millis(300) + stage.slack();
    promised(in_time, "a closing consumer ends at its deadline of 300 ms", || format!("after {took:?}"));
    let left = within("close answers", closing).await.ought("close answers");
    let expected = vec![(of, vec![positions[0], positions[2], positions[4]])];
    same("close tells what was not acked", left, expected);
    let mut next = stage.join(subscription).await;
    let of = next.own(1).await.remove(0);
    exactly(&mut next, &of, "what was not acked is for the next owner", &[0, 2, 4]).await;
}

async fn a_closing_consumer_gets_no_more_batches(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..1).await;
    let mut member = stage.join_new(&topic).await;
    let got = member.take(1).await;
    stage.number(&topic, 0, 1..3).await;
    let closing = tokio::spawn(member.control().close(Duration::from_secs(60)));
    tokio::task::yield_now().await;
    let before = member.got().count();
    stage.number(&topic, 0, 3..5).await;
    member.idle(QUIET).await;
    same("a closing consumer gets no more batches", member.got().count(), before);
    member.control().ack(&got[0].of, &[got[0].position]).ought("what is in flight can be acked");
    member.ended("a closing consumer ends with its last ack").await;
    within("close answers", closing).await.ought("close answers");
}

async fn an_ended_consumer_answers_the_same_again(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await;
    member.own(1).await;
    within("close answers", member.control().close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
    for _ in 0..3 {
        let promise = "who ended answers the same to every later call";
        let again = within(promise, poll_fn(|cx| member.poll(cx))).await;
        refused(promise, again.map(|_| ()), ErrorKind::Closed);
    }
    let again = within("close answers", member.control().close(Duration::ZERO)).await;
    same("nothing is left of who ended", again.len(), 0);
}

async fn after_close_every_call_answers_closed(stage: &Stage) {
    let topic = stage.topic(1).await;
    let broker = stage.broker();
    let mut member = stage.join_new(&topic).await;
    member.own(1).await;
    within("close ends within its deadline", broker.close(Duration::from_secs(5))).await;
    let message = text(1);
    let outcomes = within("publish answers", broker.publish(&at(&topic, 0), vec![message.clone()])).await;
    let outcome = outcomes.0.first().ought("there is one outcome per message");
    not_written("after close nothing is written", outcome, ErrorKind::Closed, &message);
    let promise = "after close every call answers Closed";
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    refused(promise, within(promise, broker.subscribe(subscription)).await, ErrorKind::Closed);
    refused(promise, within(promise, broker.read()).await, ErrorKind::Closed);
    let (admin, group) = (broker.admin(), stage.group());
    let answers = [
        within(promise, admin.create_topic(&stage.no_topic(), TopicSpec::default())).await,
        within(promise, admin.describe_topic(&topic)).await.map(|_| ()),
        within(promise, admin.topics()).await.map(|_| ()),
        within(promise, admin.grow_topic(&topic, 3)).await,
        within(promise, admin.purge_topic(&topic, None, Start::Latest)).await,
        within(promise, admin.delete_topic(&topic)).await,
        within(promise, admin.cancel_delayed(&topic, MessageId::new())).await.map(|_| ()),
        within(promise, admin.groups()).await.map(|_| ()),
        within(promise, admin.describe_group(&group)).await.map(|_| ()),
        within(promise, admin.seek_group(&group, &topic, None, Start::Latest)).await,
        within(promise, admin.delete_group(&group)).await,
    ];
    for answer in answers {
        refused(promise, answer, ErrorKind::Closed);
    }
    let health = within("health answers within 5 s", broker.health()).await;
    promised(!health.is_ready(), "a closed broker is not ready", || format!("{health:?}"));
}

async fn close_ends_consumers_and_readers(stage: &Stage) {
    let (topic, _) = five(stage).await;
    let mut member = stage.join_new(&topic).await;
    let of = member.take(5).await[0].of.clone();
    let mut reader = stage.follow(&topic).await;
    reader.take(5).await;
    let closing = tokio::spawn(stage.broker().close(Duration::from_millis(300)));
    let mut watched = vec![member, reader];
    let promise = "close of the broker ends every consumer and reader";
    watch::until(&mut watched, promise, |w| w.iter().all(|w| w.end.is_some())).await;
    within("close ends within its deadline", closing).await.ought("close answers");
    for watched in &mut watched {
        same(promise, watched.ended(promise).await.kind(), ErrorKind::Closed);
    }
    same("what a consumer had is gone as closed", watched[0].gone(), vec![(of, GoneReason::Closed)]);
}

async fn close_answers_what_was_taken_over_before(stage: &Stage) {
    let topic = stage.topic(1).await;
    let broker = stage.broker();
    let answers: Vec<_> = (0..30).map(|i| broker.publish(&at(&topic, 0), vec![text(i)])).collect();
    let closing = broker.close(Duration::from_secs(10));
    let promise = "close answers every publish that was taken over before";
    let all = futures::future::join(futures::future::join_all(answers), closing);
    let (answered, ()) = within(promise, all).await;
    for outcomes in answered {
        promised(outcomes.all_acked(), promise, || format!("{outcomes:?}"));
    }
}

async fn acks_given_before_close_take_effect(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = lazily(stage, &topic);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    member.control().ack(&of, &positions[..2]).ought("what was delivered can be acked");
    stage.reopen().await;
    let mut next = stage.join(subscription).await;
    let of = next.own(1).await.remove(0);
    exactly(&mut next, &of, "acks given before the broker was closed take effect", &[2, 3, 4]).await;
}

async fn closing_twice_is_once(stage: &Stage) {
    let broker = stage.broker();
    let both =
        futures::future::join(broker.close(Duration::from_secs(5)), broker.close(Duration::from_secs(5)));
    within("closing twice is once", both).await;
    within("closing again is nothing", broker.close(PATIENCE)).await;
    let promise = "after close every call answers Closed";
    let error = refused(promise, within(promise, broker.admin().topics()).await, ErrorKind::Closed);
    names("an error says what is wrong", &error, "closed");
}
