//! Checks of the administration of groups: what they look like from outside, seek, delete.
//!
//! Not here: topics (`admin.rs`), membership itself (`groups.rs`).

use super::{
    promise::{Ought, names, promised, refused, same},
    settle::{exactly, flush},
    stage::{QUIET, Stage, eventually, within},
    suite::group,
    watch::Watched,
};
use crate::{ErrorKind, Group, Position, Start, Subscription, Topic};
use std::{sync::Arc, time::Duration};

group! { "group_admin":
    "" a_group_is_described_with_members_owners_and_epochs;
    "" lag_counts_what_lies_behind_the_position;
    "" unfinished_leaves_out_what_is_done_beyond_the_position;
    "" lag_in_time_is_the_age_of_the_oldest_that_is_not_done;
    "" groups_are_listed_by_name;
    "" a_group_that_does_not_exist_is_told_by_its_name;
    "" a_seek_moves_a_group_and_forgets_what_it_did_beyond;
    "" a_static_name_that_closed_is_no_member [Leaves];
    "" a_seek_makes_the_group;
    "" a_seek_of_a_group_with_members_is_refused_and_names_them;
    "" a_seek_names_what_does_not_exist;
    "" a_deleted_group_is_forgotten;
    "" a_group_with_members_is_not_deleted_and_they_are_named;
}

fn named(stage: &Stage, topic: &Topic, name: &str) -> Subscription {
    Subscription { member: Some(Arc::from(name)), ..Subscription::new(stage.group(), [topic.clone()]) }
}

async fn leave(member: &mut Watched) {
    within("close answers", member.control().close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
}

async fn a_group_is_described_with_members_owners_and_epochs(stage: &Stage) {
    let topic = stage.topic(2).await;
    let subscription = named(stage, &topic, "anna");
    let mut members = vec![stage.join(subscription.clone()).await];
    let second = Subscription { member: Some(Arc::from("bert")), ..subscription.clone() };
    members.push(stage.join(second).await);
    super::watch::until(&mut members, "both members get their part", |m| {
        m.iter().all(|m| m.owned().len() == 1)
    })
    .await;
    super::watch::idle(&mut members, QUIET).await;
    let described = stage.describe_group(&subscription.group).await;
    let told: Vec<_> = described.members.iter().map(|m| (m.name.as_str(), m.topics.clone())).collect();
    let expected = vec![("anna", vec![topic.clone()]), ("bert", vec![topic.clone()])];
    same("members are told by name, with their topics", told, expected);
    same("each partition is told once, sorted", described.partitions.len(), 2);
    for (member, name) in members.iter().zip(["anna", "bert"]) {
        let of = member.owned().remove(0);
        let told = &described.partitions[of.partition as usize];
        same("a partition is told with its owner", told.owner.as_deref(), Some(name));
        same("a partition is told with its epoch", told.epoch, Some(of.epoch));
    }
}

/// A group whose only member did 0, 1 and 3 of 0 to 4.
async fn three_of_five(stage: &Stage) -> (Topic, Vec<Position>, Subscription, Watched) {
    let topic = stage.topic(1).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let (positions, member) = three_of(stage, &topic, &subscription).await;
    (topic, positions, subscription, member)
}

/// The same, and its member is `anna`.
async fn three_by_anna(stage: &Stage) -> (Topic, Vec<Position>, Subscription, Watched) {
    let topic = stage.topic(1).await;
    let subscription = named(stage, &topic, "anna");
    let (positions, member) = three_of(stage, &topic, &subscription).await;
    (topic, positions, subscription, member)
}

async fn three_of(stage: &Stage, topic: &Topic, subscription: &Subscription) -> (Vec<Position>, Watched) {
    let positions = stage.number(topic, 0, 0..5).await;
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    let done = [positions[0], positions[1], positions[3]];
    member.control().ack(&of, &done).ought("what was delivered can be acked");
    flush(&member).await;
    (positions, member)
}

async fn lag_counts_what_lies_behind_the_position(stage: &Stage) {
    let (topic, positions, subscription, mut member) = three_of_five(stage).await;
    let told = stage.group_partition(&subscription.group, &topic, 0).await;
    same("the position is the first that is not done", told.position, Some(positions[2]));
    promised(told.end > positions[4], "the end is behind the last message", || format!("{told:?}"));
    promised(told.lag.is_none_or(|lag| lag == 3), "lag is end minus position", || format!("{told:?}"));
    leave(&mut member).await;
    stage.number(&topic, 0, 5..7).await;
    let told = stage.group_partition(&subscription.group, &topic, 0).await;
    same("the position stays when the member left", told.position, Some(positions[2]));
    same("nobody owns what was left", &told.owner, &None);
    promised(told.lag.is_none_or(|lag| lag == 5), "lag grows with what is published", || format!("{told:?}"));
}

async fn unfinished_leaves_out_what_is_done_beyond_the_position(stage: &Stage) {
    let (topic, _, subscription, member) = three_of_five(stage).await;
    let told = stage.group_partition(&subscription.group, &topic, 0).await;
    let right = told.unfinished.is_none_or(|unfinished| unfinished == 2);
    promised(right, "unfinished is lag minus what is done beyond the position", || format!("{told:?}"));
    drop(member);
}

async fn lag_in_time_is_the_age_of_the_oldest_that_is_not_done(stage: &Stage) {
    let topic = stage.topic(1).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await.acking();
    stage.number(&topic, 0, 0..1).await;
    member.take(1).await;
    flush(&member).await;
    let lag_time = async || stage.group_partition(&subscription.group, &topic, 0).await.lag_time;
    let idle = lag_time().await;
    promised(idle.is_none_or(|lag| lag.is_zero()), "lag in time is zero where nothing waits", || {
        format!("{idle:?}")
    });
    leave(&mut member).await;
    let before = stage.now();
    stage.number(&topic, 0, 1..2).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    stage.number(&topic, 0, 2..3).await;
    let seen = lag_time().await;
    // The broker's clock may be some milliseconds off.
    let most = stage.now().since(before) + Duration::from_millis(50);
    let right = seen.is_none_or(|lag| lag >= Duration::from_millis(240) && lag <= most);
    promised(right, "lag in time is the age of the oldest that is not done", || {
        format!("{seen:?} where it is between 250 ms and {most:?}")
    });
}

async fn list(stage: &Stage) -> Vec<Group> {
    let broker = stage.broker();
    within("groups answers", broker.admin().groups()).await.ought("groups can be listed")
}

async fn groups_are_listed_by_name(stage: &Stage) {
    let topic = stage.topic(1).await;
    let subscriptions = [named(stage, &topic, "a"), named(stage, &topic, "b")];
    let mut members = Vec::new();
    for subscription in &subscriptions {
        members.push(stage.join(subscription.clone()).await);
    }
    members[0].own(1).await;
    leave(&mut members[0]).await;
    let listed = list(stage).await;
    for subscription in &subscriptions {
        let times = listed.iter().filter(|group| **group == subscription.group).count();
        same("a group with members or positions is listed once", times, 1);
    }
    promised(listed.is_sorted(), "groups are sorted by name", || format!("{listed:?}"));
}

async fn a_group_that_does_not_exist_is_told_by_its_name(stage: &Stage) {
    let missing = stage.group();
    let broker = stage.broker();
    let promise = "a group that does not exist is told by its name";
    let described = within(promise, broker.admin().describe_group(&missing)).await;
    names(promise, &refused(promise, described, ErrorKind::NotFound), missing.as_str());
    let deleted = within(promise, broker.admin().delete_group(&missing)).await;
    names(promise, &refused(promise, deleted, ErrorKind::NotFound), missing.as_str());
}

async fn seek(
    stage: &Stage,
    group: &Group,
    topic: &Topic,
    partition: Option<u32>,
    to: Start,
) -> crate::Result<()> {
    let broker = stage.broker();
    within("seek answers", broker.admin().seek_group(group, topic, partition, to)).await
}

async fn a_seek_moves_a_group_and_forgets_what_it_did_beyond(stage: &Stage) {
    let (topic, positions, subscription, mut member) = three_of_five(stage).await;
    leave(&mut member).await;
    for (to, expected) in [
        (Start::At(positions[1]), vec![1, 2, 3, 4]),
        (Start::Earliest, vec![0, 1, 2, 3, 4]),
        (Start::After(positions[3]), vec![4]),
        (Start::Latest, vec![]),
    ] {
        seek(stage, &subscription.group, &topic, Some(0), to)
            .await
            .ought("a group without members can be moved");
        let mut next = stage.join(subscription.clone()).await;
        let of = next.own(1).await.remove(0);
        exactly(&mut next, &of, "a group that was moved goes on there", &expected).await;
        leave(&mut next).await;
    }
}

async fn a_seek_makes_the_group(stage: &Stage) {
    let topic = stage.topic(2).await;
    let positions = stage.number(&topic, 1, 0..3).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let promise = "a seek makes the group where there is none";
    seek(stage, &subscription.group, &topic, Some(1), Start::At(positions[2])).await.ought(promise);
    promised(list(stage).await.contains(&subscription.group), promise, || "it is not listed".into());
    let told = stage.group_partition(&subscription.group, &topic, 1).await;
    same(promise, told.position, Some(positions[2]));
    let mut member = stage.join(subscription).await;
    member.own(2).await;
    member.take(1).await;
    member.idle(QUIET).await;
    same("it goes on where it was put", member.numbers(), vec![2]);
}

async fn a_static_name_that_closed_is_no_member(stage: &Stage) {
    let (topic, positions, subscription, mut member) = three_by_anna(stage).await;
    leave(&mut member).await;
    let told = stage.describe_group(&subscription.group).await;
    same("who closed is not told as a member", told.members.len(), 0);
    let promise = "a group whose members closed can be moved";
    seek(stage, &subscription.group, &topic, Some(0), Start::At(positions[4])).await.ought(promise);
    let told = stage.group_partition(&subscription.group, &topic, 0).await;
    same(promise, told.position, Some(positions[4]));
}

async fn a_seek_of_a_group_with_members_is_refused_and_names_them(stage: &Stage) {
    let (topic, positions, subscription, _member) = three_by_anna(stage).await;
    let promise = "a group with members is not moved, and they are named";
    let moved = seek(stage, &subscription.group, &topic, None, Start::Latest).await;
    names(promise, &refused(promise, moved, ErrorKind::Conflict), "anna");
    let told = stage.group_partition(&subscription.group, &topic, 0).await;
    same("a refused seek moves nothing", told.position, Some(positions[2]));
}

async fn a_seek_names_what_does_not_exist(stage: &Stage) {
    let topic = stage.topic(1).await;
    let missing = stage.no_topic();
    let promise = "a seek refuses what does not exist by its name";
    let error = seek(stage, &stage.group(), &missing, None, Start::Latest).await;
    names(promise, &refused(promise, error, ErrorKind::NotFound), missing.as_str());
    let error = seek(stage, &stage.group(), &topic, Some(3), Start::Latest).await;
    refused(promise, error, ErrorKind::NotFound);
}

async fn a_deleted_group_is_forgotten(stage: &Stage) {
    let (_, _, subscription, mut member) = three_of_five(stage).await;
    leave(&mut member).await;
    let broker = stage.broker();
    let promise = "a group without members can be deleted";
    within(promise, broker.admin().delete_group(&subscription.group)).await.ought(promise);
    let ask = async || list(stage).await.contains(&subscription.group);
    eventually("a deleted group is not listed", ask, |there| !there).await;
    let mut next = stage.join(subscription).await;
    let of = next.own(1).await.remove(0);
    same("a deleted group has no position", next.assigned()[0].resumed, None);
    exactly(&mut next, &of, "a deleted group starts anew", &[0, 1, 2, 3, 4]).await;
}

async fn a_group_with_members_is_not_deleted_and_they_are_named(stage: &Stage) {
    let (topic, positions, subscription, _member) = three_by_anna(stage).await;
    let broker = stage.broker();
    let promise = "a group with members is not deleted, and they are named";
    let deleted = within(promise, broker.admin().delete_group(&subscription.group)).await;
    names(promise, &refused(promise, deleted, ErrorKind::Conflict), "anna");
    let told = stage.group_partition(&subscription.group, &topic, 0).await;
    same("a refused delete forgets nothing", told.position, Some(positions[2]));
}
