//! Checks that nothing is swallowed: what was removed, what began anew, what cannot be read.
//!
//! Not here: what purge does to the numbers of a topic (`admin.rs`).

use super::{
    promise::{Ought, promised, same},
    settle::exactly,
    stage::{QUIET, Stage, at, within},
    suite::group,
    watch::{Seen, Watched},
};
use crate::{GapReason, Message, Owned, Position, Start, Subscription, Topic};
use std::time::Duration;

group! { "gaps":
    "" a_group_is_told_of_what_was_removed_before_it_saw_it;
    "" a_reader_is_told_of_what_was_removed_before_it_saw_it;
    "" a_start_at_what_was_removed_goes_on_with_the_next_there_is;
    "" what_was_purged_is_unseen_at_once;
    "" a_group_is_told_that_its_topic_was_made_again;
    "" what_was_seen_and_then_removed_is_no_gap;
    "" an_unreadable_record_is_in_flight_like_a_message [Unreadable];
    "" an_unreadable_record_is_told_to_a_reader [Unreadable];
}

async fn purge(stage: &Stage, topic: &Topic, before: Start) {
    let broker = stage.broker();
    within("purge answers", broker.admin().purge_topic(topic, None, before))
        .await
        .ought("a topic can be purged");
}

/// One gap, for that reason, that ends there.
fn one_gap(watched: &Watched, promise: &str, why: GapReason, from: Option<Position>, to: Position) {
    let gaps = watched.gaps();
    same(promise, gaps.len(), 1);
    let (_, told_from, told_to, told_why) = &gaps[0];
    same("a gap tells its reason", *told_why, why);
    promised(
        told_to.is_none_or(|told| told == to),
        "a gap tells what will be seen next, where known",
        || format!("{told_to:?} instead of {to}"),
    );
    promised(
        told_from.is_none() || *told_from == from,
        "a gap tells what is missing first, where known",
        || format!("{told_from:?} instead of {from:?}"),
    );
}

async fn a_group_is_told_of_what_was_removed_before_it_saw_it(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..6).await;
    let subscription = Subscription {
        in_flight: crate::Bound { messages: 2, bytes: 1024 * 1024 },
        ..Subscription::new(stage.group(), [topic.clone()])
    };
    let mut member = stage.join(subscription.clone()).await;
    let got = member.take(2).await;
    member.control().ack(&got[0].of, &positions[..2]).ought("what was delivered can be acked");
    within("close answers", member.control().close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
    purge(stage, &topic, Start::At(positions[4])).await;
    let mut next = stage.join(subscription).await;
    next.take(2).await;
    let promise = "a group is told once of what was removed before it saw it";
    same("it goes on with what is there", next.numbers(), vec![4, 5]);
    one_gap(&next, promise, GapReason::Trimmed, Some(positions[2]), positions[4]);
    let gap = next.log.iter().position(|(_, seen)| matches!(seen, Seen::Gap { .. }));
    let message = next.log.iter().position(|(_, seen)| matches!(seen, Seen::Got(_)));
    promised(gap < message, "a gap is told where it lies", || next.told());
}

async fn a_reader_is_told_of_what_was_removed_before_it_saw_it(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut reader = stage.follow(&topic).await;
    let positions = stage.number(&topic, 0, 0..2).await;
    reader.take(2).await;
    let end = positions[1].next();
    // 48 MiB, more than a reader and a client library hold in their buffers: some of it was surely not read ahead.
    let mut more = Vec::new();
    for first in (2..3002).step_by(100) {
        let wide = (first..first + 100).map(|number| format!("{number:016384}"));
        let batch = wide.map(|number| Message::builder().payload(number).build()).collect();
        more.extend(stage.put(at(&topic, 0), batch).await);
    }
    let kept = more[2900].position.ought("an ack of a message that is not delayed tells its position");
    purge(stage, &topic, Start::At(kept)).await;
    reader.until("a reader goes on behind what was removed", |r| r.numbers().contains(&3001)).await;
    let gaps = reader.gaps();
    same("a reader is told once of what was removed before it saw it", gaps.len(), 1);
    same("a gap tells its reason", gaps[0].3, GapReason::Trimmed);
    promised(gaps[0].1.is_none_or(|from| from >= end), "a gap is told where it lies", || format!("{gaps:?}"));
    let numbers = reader.numbers();
    same("what remains is seen", numbers[numbers.len() - 100..].to_vec(), (2902..3002).collect::<Vec<_>>());
}

async fn a_start_at_what_was_removed_goes_on_with_the_next_there_is(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..6).await;
    purge(stage, &topic, Start::At(positions[3])).await;
    let subscription =
        Subscription { start: Start::At(positions[1]), ..Subscription::new(stage.group(), [topic.clone()]) };
    let mut member = stage.join(subscription).await;
    let of = member.own(1).await.remove(0);
    exactly(&mut member, &of, "a start at what was removed goes on with the next there is", &[3, 4, 5]).await;
    let mut reader = stage.reader().await;
    reader.follow(&topic, Some(0), Start::At(positions[1])).await.ought("a reader starts there");
    reader.take(3).await;
    same("a start at what was removed goes on with the next there is", reader.numbers(), vec![3, 4, 5]);
}

async fn what_was_purged_is_unseen_at_once(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..6).await;
    purge(stage, &topic, Start::After(positions[1])).await;
    let numbers: Vec<_> = stage.content(&topic).await.iter().map(super::watch::Got::number).collect();
    same("what was purged is unseen at once", numbers, vec![2, 3, 4, 5]);
    purge(stage, &topic, Start::At(positions[0])).await;
    let numbers: Vec<_> = stage.content(&topic).await.iter().map(super::watch::Got::number).collect();
    same("a purge before what was purged changes nothing", numbers, vec![2, 3, 4, 5]);
    purge(stage, &topic, Start::Latest).await;
    same("all can be purged", stage.content(&topic).await.len(), 0);
    let described = stage.describe(&topic).await.partitions.remove(0);
    same("the end stays where it is", described.end, positions[5].next());
    same("nothing lies before it", described.low, described.end);
}

async fn a_group_is_told_that_its_topic_was_made_again(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..4).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await.acking();
    member.take(4).await;
    super::settle::flush(&member).await;
    within("close answers", member.control().close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
    let broker = stage.broker();
    within("delete answers", broker.admin().delete_topic(&topic))
        .await
        .ought("a topic nobody uses can be deleted");
    stage.create(&topic, 1).await;
    let positions = stage.number(&topic, 0, 10..12).await;
    let mut next = stage.join(subscription).await;
    next.take(2).await;
    next.idle(QUIET).await;
    same(
        "a group that comes back to a topic that was made again sees all of it",
        next.numbers(),
        vec![10, 11],
    );
    let gaps = next.gaps();
    same("a group is told once that its topic was made again", gaps.len(), 1);
    same("a gap tells its reason", gaps[0].3, GapReason::Recreated);
    promised(gaps[0].2.is_none_or(|to| to <= positions[0]), "a gap tells what will be seen next", || {
        format!("{gaps:?}")
    });
}

async fn what_was_seen_and_then_removed_is_no_gap(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..4).await;
    let mut member = stage.join_new(&topic).await.acking();
    member.take(4).await;
    super::settle::flush(&member).await;
    let mut reader = stage.follow(&topic).await;
    reader.take(4).await;
    purge(stage, &topic, Start::After(positions[3])).await;
    stage.number(&topic, 0, 4..6).await;
    for watched in [&mut member, &mut reader] {
        watched.until("all goes on after a purge", |w| w.got().count() >= 6).await;
        watched.idle(QUIET).await;
        same("what was seen before it was removed is no gap", watched.gaps().len(), 0);
        same("nothing comes twice", watched.numbers(), (0..6).collect::<Vec<_>>());
    }
}

fn unreadable(watched: &Watched) -> Vec<(Owned, Position, Option<bytes::Bytes>)> {
    let told = |(_, seen): &(_, Seen)| match seen {
        Seen::Unreadable { of, position, raw, why } => {
            promised(!why.to_string().is_empty(), "it is told why a record cannot be read", || {
                "nothing".into()
            });
            Some((of.clone(), *position, raw.clone()))
        }
        _ => None,
    };
    watched.log.iter().filter_map(told).collect()
}

async fn an_unreadable_record_is_in_flight_like_a_message(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..1).await;
    let planted = stage.plant_unreadable(&topic, 0, b"\xff\xfenonsense").await;
    stage.number(&topic, 0, 1..3).await;
    let subscription = Subscription {
        in_flight: crate::Bound { messages: 2, bytes: 1024 * 1024 },
        ..Subscription::new(stage.group(), [topic.clone()])
    };
    let mut member = stage.join(subscription).await;
    let promise = "a record that cannot be read is told, where it lies";
    member.until(promise, |w| !unreadable(w).is_empty()).await;
    member.idle(QUIET).await;
    let told = unreadable(&member);
    same(promise, (told.len(), told[0].1), (1, planted));
    let raw = told[0].2.as_deref().is_none_or(|raw| raw == b"\xff\xfenonsense");
    promised(raw, "its bytes are as they lie there, where they can be had", || format!("{told:?}"));
    same("it counts as in flight", member.numbers(), vec![0]);
    let first = told[0].0.clone();
    member.control().give_up(&first);
    member.until("what was not acked is told again", |w| unreadable(w).len() >= 2).await;
    let second = member.owned().remove(0);
    member.control().ack(&second, &[planted]).ought("a record that cannot be read can be acked");
    super::settle::flush(&member).await;
    member.control().give_up(&second);
    member.until("what was given up comes back", |w| w.assigned().len() >= 3).await;
    let third = member.owned().remove(0);
    exactly(&mut member, &third, "what follows is delivered", &[0, 1]).await;
    same("an unreadable record that was acked does not come again", unreadable(&member).len(), 2);
}

async fn an_unreadable_record_is_told_to_a_reader(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..1).await;
    let planted = stage.plant_unreadable(&topic, 0, b"\xff\xfenonsense").await;
    stage.number(&topic, 0, 1..2).await;
    let mut reader = stage.follow(&topic).await;
    reader.take(2).await;
    let told: Vec<_> = unreadable(&reader).into_iter().map(|(_, position, _)| position).collect();
    same("a reader is told of a record that cannot be read", told, vec![planted]);
}
