//! Checks of membership: who joins, who owns what, who comes back.
//!
//! Not here: how a partition changes hands (`handover.rs`), what groups look like from outside (`admin.rs`).

use super::{
    promise::{Ought, names, promised, refused, same},
    stage::{QUIET, Stage, at, eventually, keyed, text, within},
    suite::group,
    watch::{self, Got, Seen, Watched},
};
use crate::{Bound, ErrorKind, GoneReason, Owned, Subscription, Topic};
use std::{sync::Arc, time::Duration};

group! { "groups":
    "" the_first_event_tells_what_was_assigned_even_if_it_is_nothing;
    "G4" every_partition_is_owned_by_exactly_one_member;
    "G1" a_storm_of_joins_and_leaves_loses_and_repeats_nothing;
    "G3" a_static_name_that_comes_back_gets_what_it_had;
    "" a_second_member_of_a_static_name_takes_over [TakesOver];
    "" each_group_gets_everything;
    "" a_dropped_answer_of_subscribe_leaves_no_member;
    "" a_topic_that_does_not_exist_is_refused_by_name;
    "" a_bound_of_nothing_is_refused;
    "" topics_can_be_changed_in_the_same_membership;
    "" a_change_to_a_topic_that_does_not_exist_changes_nothing;
    "" partitions_of_several_topics_come_to_one_member;
}

/// The partitions that several members own, sorted; one that two own is there twice.
fn owned_by_all(members: &[Watched]) -> Vec<(Topic, u32)> {
    let all = members.iter().flat_map(Watched::owned);
    let mut all: Vec<_> = all.map(|of| (of.topic, of.partition)).collect();
    all.sort();
    all
}

fn partitions(topic: &Topic, count: u32) -> Vec<(Topic, u32)> {
    (0..count).map(|partition| (topic.clone(), partition)).collect()
}

async fn the_first_event_tells_what_was_assigned_even_if_it_is_nothing(stage: &Stage) {
    let topic = stage.topic(1).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members = vec![stage.join(subscription.clone()).await];
    members[0].own(1).await;
    members.push(stage.join(subscription).await);
    watch::until(&mut members, "a member without work is told that nothing was assigned", |m| {
        !m[1].log.is_empty() || m[1].end.is_some()
    })
    .await;
    for member in &members {
        let first = member.log.first().map(|(_, seen)| seen);
        promised(
            matches!(first, Some(Seen::AssignedEvent)),
            "the first event tells what was assigned",
            || member.told(),
        );
    }
}

async fn every_partition_is_owned_by_exactly_one_member(stage: &Stage) {
    let topic = stage.topic(8).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let all = partitions(&topic, 8);
    let promise = "every partition is owned by exactly one member";
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(stage.join(subscription.clone()).await);
        watch::until(&mut members, promise, |m| owned_by_all(m) == all).await;
        // One who joins may be given partitions only now: meanwhile nobody owns those.
        watch::idle(&mut members, QUIET).await;
        watch::until(&mut members, promise, |m| owned_by_all(m) == all).await;
    }
    within("close answers", members[0].control().close(Duration::ZERO)).await;
    watch::until(&mut members, promise, |m| m[0].end.is_some() && owned_by_all(m) == all).await;
    drop(members.remove(1));
    watch::until(&mut members, promise, |m| owned_by_all(m) == all).await;
    stage.put(&topic, (0..40).map(|i| keyed(&i.to_string(), i)).collect()).await;
    watch::until(&mut members, "messages of all partitions are delivered", |m| m[1].got().count() >= 40)
        .await;
}

async fn a_storm_of_joins_and_leaves_loses_and_repeats_nothing(stage: &Stage) {
    let topic = stage.topic(8).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members: Vec<Watched> = Vec::new();
    let mut seen: Vec<usize> = Vec::new();
    let mut sent = 0;
    for step in 0..40usize {
        stage.put(&topic, (sent..sent + 10).map(|i| keyed(&i.to_string(), i)).collect()).await;
        sent += 10;
        if step % 2 == 0 || members.len() < 2 {
            members.push(stage.join(subscription.clone()).await.acking());
        } else {
            // Some leave in order, others just go.
            let leaver = members.remove((step * 7) % members.len());
            seen.extend(leaver.numbers());
            drop(leaver);
        }
        watch::idle(&mut members, Duration::from_millis(5)).await;
    }
    let before = seen.len();
    watch::until(&mut members, "all is delivered after a storm of joins and leaves", |m| {
        before + m.iter().map(|m| m.got().count()).sum::<usize>() >= sent
    })
    .await;
    watch::idle(&mut members, QUIET).await;
    seen.extend(members.iter().flat_map(Watched::numbers));
    seen.sort_unstable();
    same("each message was delivered once", seen, (0..sent).collect::<Vec<_>>());
}

async fn a_static_name_that_comes_back_gets_what_it_had(stage: &Stage) {
    let topic = stage.topic(6).await;
    let group = stage.group();
    let named = |name: &str| Subscription {
        member: Some(Arc::from(name)),
        ..Subscription::new(group.clone(), [topic.clone()])
    };
    let mut members = vec![stage.join(named("anna")).await, stage.join(named("bert")).await];
    let all = partitions(&topic, 6);
    watch::until(&mut members, "both members get their part", |m| {
        owned_by_all(m) == all && m.iter().all(|m| m.owned().len() == 3)
    })
    .await;
    watch::idle(&mut members, QUIET).await;
    let had = owned_by_all(&members[..1]);
    within("close answers", members[0].control().close(Duration::ZERO)).await;
    watch::until(&mut members, "a closed consumer ends", |m| m[0].end.is_some()).await;
    members[0] = stage.join(named("anna")).await;
    watch::until(&mut members, "who comes back with its name gets back what it owned", |m| {
        owned_by_all(&m[..1]) == had
    })
    .await;
    watch::idle(&mut members, QUIET).await;
    same("who comes back with its name gets back what it owned", owned_by_all(&members[..1]), had);
    same("everything is owned once", owned_by_all(&members), all);
}

async fn a_second_member_of_a_static_name_takes_over(stage: &Stage) {
    let topic = stage.topic(3).await;
    let subscription =
        Subscription { member: Some(Arc::from("anna")), ..Subscription::new(stage.group(), [topic.clone()]) };
    let mut members = vec![stage.join(subscription.clone()).await];
    members[0].own(3).await;
    members.push(stage.join(subscription).await);
    let promise = "of two members of a static name the first ends and the second has its partitions";
    watch::until(&mut members, promise, |m| m[0].end.is_some() && m[1].owned().len() == 3).await;
    let end = members[0].ended(promise).await;
    same("the first member of a static name ends as fenced", end.kind(), ErrorKind::Fenced);
    watch::idle(&mut members, QUIET).await;
    promised(members[1].end.is_none(), "the second member of a static name stays", || members[1].told());
}

async fn each_group_gets_everything(stage: &Stage) {
    let topic = stage.topic(2).await;
    let mut members = vec![stage.join_new(&topic).await.acking(), stage.join_new(&topic).await.acking()];
    stage.put(&topic, (0..30).map(|i| keyed(&i.to_string(), i)).collect()).await;
    watch::until(&mut members, "each group gets everything", |m| m.iter().all(|m| m.got().count() >= 30))
        .await;
    watch::idle(&mut members, QUIET).await;
    for member in &members {
        let mut numbers = member.numbers();
        numbers.sort_unstable();
        same("each group gets everything once", numbers, (0..30).collect::<Vec<_>>());
    }
}

async fn a_dropped_answer_of_subscribe_leaves_no_member(stage: &Stage) {
    let topic = stage.topic(2).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let polled = stage.broker().subscribe(subscription.clone());
    drop(stage.broker().subscribe(subscription.clone()));
    let _ = futures::FutureExt::now_or_never(polled);
    let mut member = stage.join(subscription.clone()).await;
    member.own(2).await;
    member.idle(QUIET).await;
    same("a dropped answer leaves no member that owns something", member.owned().len(), 2);
    let described = stage.describe_group(&subscription.group).await;
    same("a dropped answer leaves no member", described.members.len(), 1);
}

async fn a_topic_that_does_not_exist_is_refused_by_name(stage: &Stage) {
    let there = stage.topic(1).await;
    let missing = stage.no_topic();
    let subscription = Subscription::new(stage.group(), [there, missing.clone()]);
    let promise = "subscribe refuses a topic that does not exist by its name";
    let joined = within(promise, stage.broker().subscribe(subscription)).await;
    names(promise, &refused(promise, joined, ErrorKind::NotFound), missing.as_str());
}

async fn a_bound_of_nothing_is_refused(stage: &Stage) {
    let topic = stage.topic(1).await;
    for in_flight in [Bound { messages: 0, bytes: 1024 }, Bound { messages: 8, bytes: 0 }] {
        let subscription = Subscription { in_flight, ..Subscription::new(stage.group(), [topic.clone()]) };
        let promise = "a bound is at least one message and one byte";
        let joined = within(promise, stage.broker().subscribe(subscription)).await;
        refused(promise, joined, ErrorKind::Invalid);
    }
}

async fn topics_can_be_changed_in_the_same_membership(stage: &Stage) {
    let (one, two, three) = (stage.topic(1).await, stage.topic(1).await, stage.topic(1).await);
    for (i, topic) in [&one, &two, &three].into_iter().enumerate() {
        stage.number(topic, 0, i..i + 1).await;
    }
    let subscription = Subscription::new(stage.group(), [one.clone(), two.clone()]);
    let mut member = stage.join(subscription).await;
    let before = member.own(2).await;
    member.take(2).await;
    let changed = member.control().set_topics(vec![two.clone(), three.clone()]);
    within("set_topics answers", changed).await.ought("topics that exist can be consumed instead");
    let topics = |owned: Vec<Owned>| owned.into_iter().map(|of| of.topic).collect::<Vec<_>>();
    let mut expected = vec![two.clone(), three.clone()];
    expected.sort();
    member.until("the topics are consumed instead", |w| topics(w.owned()) == expected).await;
    member.until("messages of the added topic come", |w| w.numbers().contains(&2)).await;
    member.idle(QUIET).await;
    let kept = before.iter().find(|of| of.topic == two).ought("it was owned");
    promised(member.owned().contains(kept), "what stays is kept in its epoch", || member.told());
    let fell = before.iter().find(|of| of.topic == one).ought("it was owned").clone();
    same(
        "what falls away was revoked and given up",
        member.gone(),
        vec![(fell.clone(), GoneReason::GivenUp)],
    );
    let revoked: Vec<_> = member.revoking().into_iter().map(|(of, _)| of).collect();
    same("what falls away is revoked as in a rebalance", revoked, vec![fell]);
    stage.number(&one, 0, 10..11).await;
    member.idle(QUIET).await;
    promised(!member.numbers().contains(&10), "nothing of a topic that fell away comes", || member.told());
}

async fn a_change_to_a_topic_that_does_not_exist_changes_nothing(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await;
    let before = member.own(1).await;
    let missing = stage.no_topic();
    let promise = "set_topics refuses a topic that does not exist by its name";
    let changed = within(promise, member.control().set_topics(vec![missing.clone()])).await;
    names(promise, &refused(promise, changed, ErrorKind::NotFound), missing.as_str());
    stage.put(at(&topic, 0), vec![text(1)]).await;
    member.take(1).await;
    same("a refused change changes nothing", member.owned(), before);
    promised(member.revoking().is_empty(), "a refused change revokes nothing", || member.told());
}

async fn partitions_of_several_topics_come_to_one_member(stage: &Stage) {
    let topics = [stage.topic(2).await, stage.topic(3).await];
    let mut member = stage.join(Subscription::new(stage.group(), topics.clone())).await;
    member.own(5).await;
    for (i, topic) in topics.iter().enumerate() {
        for partition in 0..2 {
            stage.number(topic, partition, 10 * i..10 * i + 3).await;
        }
    }
    let got: Vec<Got> = member.take(12).await;
    for got in got {
        let promise = "a message is told under the topic it was published to";
        same(promise, &got.of.topic, &topics[got.number() / 10]);
    }
    eventually("all is delivered once", async || member.got().count(), |count| *count == 12).await;
}
