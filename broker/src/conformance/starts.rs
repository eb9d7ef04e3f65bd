//! Checks of where reading starts, for groups and readers, and where it resumes.
//!
//! Not here: what a start finds missing (`gaps.rs`).

use super::{
    promise::{Ought, refused, same},
    stage::{QUIET, Stage, within},
    suite::group,
};
use crate::{ErrorKind, Start, Subscription, Topic};
use std::time::Duration;

group! { "starts":
    "" earliest_starts_with_the_first_message;
    "" latest_starts_with_what_comes_from_now_on;
    "" a_time_starts_with_the_first_message_the_log_took_then;
    "" at_a_position_starts_there;
    "" after_a_position_starts_behind_it;
    "" a_start_is_for_groups_without_a_position_only;
    "" a_start_is_stored_before_the_first_delivery;
    "" a_position_of_another_life_of_the_topic_is_refused;
    "" partitions_that_are_added_start_at_their_beginning;
}

/// A group and a reader that start there see exactly these numbers. Then `later` are published, and they see them too.
async fn start(stage: &Stage, topic: &Topic, from: Start, promise: &str, expected: &[usize]) {
    let subscription = Subscription { start: from, ..Subscription::new(stage.group(), [topic.clone()]) };
    let mut member = stage.join(subscription).await;
    member.own(1).await;
    let mut reader = stage.reader().await;
    reader.follow(topic, Some(0), from).await.ought("a reader starts there");
    let mut whole_topic = stage.reader().await;
    whole_topic.follow(topic, None, from).await.ought("a reader of all partitions starts there");
    stage.number(topic, 0, 100..102).await;
    let expected: Vec<_> = expected.iter().copied().chain([100, 101]).collect();
    for watched in [&mut member, &mut reader, &mut whole_topic] {
        watched.until(promise, |w| w.numbers().contains(&101)).await;
        watched.idle(QUIET).await;
        same(promise, watched.numbers(), expected.clone());
    }
}

async fn earliest_starts_with_the_first_message(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..7).await;
    let all = [0, 1, 2, 3, 4, 5, 6];
    start(stage, &topic, Start::Earliest, "Earliest starts with the first message", &all).await;
}

async fn latest_starts_with_what_comes_from_now_on(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..4).await;
    start(stage, &topic, Start::Latest, "Latest starts with what comes from now on", &[]).await;
}

async fn a_time_starts_with_the_first_message_the_log_took_then(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let then = stage.now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.number(&topic, 0, 3..6).await;
    let promise = "a time starts with the first message that the log took then or later";
    start(stage, &topic, Start::Time(then), promise, &[3, 4, 5]).await;
}

async fn at_a_position_starts_there(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..5).await;
    start(stage, &topic, Start::At(positions[2]), "At starts at the position", &[2, 3, 4]).await;
}

async fn after_a_position_starts_behind_it(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..5).await;
    start(stage, &topic, Start::After(positions[2]), "After starts behind the position", &[3, 4]).await;
}

async fn a_start_is_for_groups_without_a_position_only(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..5).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let got = member.take(5).await;
    member.control().ack(&got[0].of, &positions[..2]).ought("what was delivered can be acked");
    within("close answers", member.control().close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
    for from in [Start::Latest, Start::At(positions[4]), Start::Earliest] {
        let mut next = stage.join(Subscription { start: from, ..subscription.clone() }).await;
        next.take(3).await;
        next.idle(QUIET).await;
        same("a group that has a position resumes there", next.numbers(), vec![2, 3, 4]);
        within("close answers", next.control().close(Duration::ZERO)).await;
        next.ended("a closed consumer ends").await;
    }
}

async fn a_start_is_stored_before_the_first_delivery(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..3).await;
    let subscription =
        Subscription { start: Start::Latest, ..Subscription::new(stage.group(), [topic.clone()]) };
    let mut member = stage.join(subscription.clone()).await;
    member.own(1).await;
    drop(member);
    stage.number(&topic, 0, 3..5).await;
    let mut next = stage.join(subscription).await;
    next.take(2).await;
    next.idle(QUIET).await;
    same("a start is stored with the first assignment, not found anew", next.numbers(), vec![3, 4]);
}

async fn a_position_of_another_life_of_the_topic_is_refused(stage: &Stage) {
    let topic = stage.topic(1).await;
    let old = stage.number(&topic, 0, 0..3).await[1];
    let broker = stage.broker();
    within("delete answers", broker.admin().delete_topic(&topic))
        .await
        .ought("a topic nobody uses can be deleted");
    stage.create(&topic, 1).await;
    stage.number(&topic, 0, 0..3).await;
    let promise = "a position of another life of the topic is refused";
    for from in [Start::At(old), Start::After(old)] {
        let subscription = Subscription { start: from, ..Subscription::new(stage.group(), [topic.clone()]) };
        refused(promise, within(promise, broker.subscribe(subscription)).await, ErrorKind::Invalid);
        let mut reader = stage.reader().await;
        refused(promise, reader.follow(&topic, Some(0), from).await, ErrorKind::Invalid);
        let purged = within(promise, broker.admin().purge_topic(&topic, Some(0), from)).await;
        refused(promise, purged, ErrorKind::Invalid);
        let sought = within(promise, broker.admin().seek_group(&stage.group(), &topic, Some(0), from)).await;
        refused(promise, sought, ErrorKind::Invalid);
    }
    same("nothing was purged", stage.content(&topic).await.len(), 3);
}

async fn partitions_that_are_added_start_at_their_beginning(stage: &Stage) {
    let topic = stage.topic(1).await;
    let subscription =
        Subscription { start: Start::Latest, ..Subscription::new(stage.group(), [topic.clone()]) };
    let mut member = stage.join(subscription.clone()).await;
    member.own(1).await;
    let mut reader = stage.reader().await;
    reader.follow(&topic, None, Start::Latest).await.ought("a reader follows a topic that exists");
    let broker = stage.broker();
    within("grow answers", broker.admin().grow_topic(&topic, 3)).await.ought("a topic can grow");
    stage.number(&topic, 1, 0..3).await;
    stage.number(&topic, 2, 3..6).await;
    for watched in [&mut member, &mut reader] {
        let promise = "partitions that are added later start at their beginning";
        watched.until(promise, |w| w.got().count() >= 6).await;
        watched.idle(QUIET).await;
        let mut numbers = watched.numbers();
        numbers.sort_unstable();
        same(promise, numbers, (0..6).collect::<Vec<_>>());
    }
    same("a group owns what was added", member.owned().len(), 3);
}
