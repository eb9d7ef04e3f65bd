//! Checks of acks: how often a message comes, what an ack of it is worth, which acks are refused.
//!
//! Not here: publish and ack in one (`forward.rs`), who owns what (`groups.rs`), how it changes hands (`handover.rs`).

use super::{
    promise::{Ought, broken, promised, refused, same},
    stage::{QUIET, Stage, at, text, within},
    suite::group,
    watch::{Got, Watched},
};
use crate::{ErrorKind, GoneReason, Owned, Position, Subscription, Topic};
use std::{collections::BTreeMap, time::Duration};

group! { "settle":
    "S1" each_message_comes_exactly_once;
    "S1" what_was_acked_does_not_come_again_to_the_group;
    "S5" acks_out_of_order_survive_a_crash_and_only_the_rest_comes_again [Crash];
    "S5" acks_out_of_order_survive_a_reopen_and_only_the_rest_comes_again [Reopen];
    "S5" acks_out_of_order_hold_for_the_next_owner;
    "S6" acking_twice_is_once;
    "S6" an_ack_after_the_partition_went_is_refused_as_fenced;
    "S6" an_ack_after_close_is_refused_as_fenced;
    "S6" a_position_that_was_not_delivered_is_refused_with_the_whole_call;
    "S9" what_was_dropped_without_ack_comes_to_the_next_owner;
    "S9" what_was_acked_before_a_drop_takes_effect;
    "" an_ack_takes_effect_within_the_interval [Crash];
    "" flush_answers_when_acks_took_effect;
    "" what_was_flushed_survives_a_crash [Crash];
    "" acks_may_come_from_any_thread;
}

/// A subscription whose acks take effect when somebody asks for it.
pub(super) fn lazily(stage: &Stage, topic: &Topic) -> Subscription {
    Subscription {
        ack_interval: Duration::from_secs(60),
        ..Subscription::new(stage.group(), [topic.clone()])
    }
}

/// Flushes; everything must be durable.
pub(super) async fn flush(member: &Watched) {
    let refused = within("flush answers", member.control().flush()).await;
    promised(refused.is_empty(), "flush makes all acks durable where nothing fails", || {
        format!("{refused:?}")
    });
}

/// A topic of one partition with the numbers 0 to 4.
pub(super) async fn five(stage: &Stage) -> (Topic, Vec<Position>) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..5).await;
    (topic, positions)
}

/// What comes in this epoch: exactly these numbers, and no more.
pub(super) async fn exactly(member: &mut Watched, of: &Owned, promise: &str, expected: &[usize]) {
    let in_epoch =
        |w: &Watched| -> Vec<usize> { w.got().filter(|got| got.of == *of).map(Got::number).collect() };
    member.until(promise, |w| in_epoch(w).len() >= expected.len()).await;
    member.idle(QUIET).await;
    same(promise, in_epoch(member), expected.to_vec());
}

/// Joins and expects exactly these numbers.
async fn next_owner_sees(stage: &Stage, subscription: &Subscription, promise: &str, expected: &[usize]) {
    let mut next = stage.join(subscription.clone()).await;
    let of = next.own(1).await.remove(0);
    exactly(&mut next, &of, promise, expected).await;
}

async fn each_message_comes_exactly_once(stage: &Stage) {
    let topic = stage.topic(4).await;
    let mut member = stage.join_new(&topic).await;
    member.own(4).await;
    for round in 0..5 {
        let batch = (0..100).map(|i| super::stage::keyed(&(i % 13).to_string(), round * 100 + i)).collect();
        stage.put(&topic, batch).await;
        // Acks of the messages of a round in an order of their own, while the next round is under way.
        let got = member.take((round + 1) * 100).await;
        let mut latest: Vec<&Got> = got.iter().skip(round * 100).collect();
        latest.sort_by_key(|got| (got.number() * 37) % 101);
        for got in latest {
            member.control().ack(&got.of, &[got.position]).ought("what was delivered can be acked");
        }
    }
    member.idle(QUIET * 2).await;
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    member.numbers().into_iter().for_each(|number| *counts.entry(number).or_default() += 1);
    same("every message comes", counts.len(), 500);
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    promised(twice.is_empty(), "each message comes once where nothing fails", || format!("{twice:?}"));
}

async fn what_was_acked_does_not_come_again_to_the_group(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..6).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    for got in &member.take(6).await[..4] {
        member.control().ack(&got.of, &[got.position]).ought("what was delivered can be acked");
    }
    flush(&member).await;
    let left = within("close answers", member.control().close(Duration::ZERO)).await;
    same("close tells what was not acked", left.iter().map(|(_, p)| p.len()).sum::<usize>(), 2);
    member.ended("a closed consumer ends").await;
    next_owner_sees(stage, &subscription, "only what was not acked comes again", &[4, 5]).await;
}

async fn ack_three_of_five(stage: &Stage) -> Subscription {
    let (topic, positions) = five(stage).await;
    let subscription = lazily(stage, &topic);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    for i in [3, 0, 1] {
        member.control().ack(&of, &[positions[i]]).ought("acks may come in any order");
    }
    flush(&member).await;
    // The member lives until the store is opened again.
    std::mem::forget(member);
    subscription
}

async fn acks_out_of_order_survive_a_crash_and_only_the_rest_comes_again(stage: &Stage) {
    let subscription = ack_three_of_five(stage).await;
    stage.crash().await;
    next_owner_sees(stage, &subscription, "after a crash only what was not acked comes again", &[2, 4]).await;
}

async fn acks_out_of_order_survive_a_reopen_and_only_the_rest_comes_again(stage: &Stage) {
    let subscription = ack_three_of_five(stage).await;
    stage.reopen().await;
    next_owner_sees(stage, &subscription, "after a reopen only what was not acked comes again", &[2, 4])
        .await;
}

async fn acks_out_of_order_hold_for_the_next_owner(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let mut member = stage.join(lazily(stage, &topic)).await;
    let first = member.take(5).await[0].of.clone();
    member.control().ack(&first, &[positions[1], positions[3]]).ought("acks may come in any order");
    member.control().give_up(&first);
    member.until("what was given up comes back", |w| w.owned().iter().any(|of| *of != first)).await;
    let second = member.owned().remove(0);
    exactly(&mut member, &second, "the next owner sees only what was not acked", &[0, 2, 4]).await;
}

async fn acking_twice_is_once(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    let control = member.control();
    control.ack(&of, &[positions[1], positions[1]]).ought("a position twice in one ack is once");
    control.ack(&of, &[positions[1]]).ought("acking twice is once");
    flush(&member).await;
    control.ack(&of, &[positions[1]]).ought("acking what took effect is once");
    control.ack(&of, &[positions[0]]).ought("what was delivered can be acked");
    flush(&member).await;
    control.ack(&of, &[positions[0], positions[1]]).ought("acking what lies before the position is once");
    flush(&member).await;
    let seen = stage.group_partition(&subscription.group, &topic, 0).await;
    same("acking twice moves the position no further", seen.position, Some(positions[2]));
}

async fn an_ack_after_the_partition_went_is_refused_as_fenced(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let mut member = stage.join_new(&topic).await;
    let first = member.take(5).await[0].of.clone();
    member.control().give_up(&first);
    member.until("what is given up goes", |w| w.gone().iter().any(|(of, _)| *of == first)).await;
    let late = member.control().ack(&first, &positions[..2]);
    refused("an ack after Gone is refused", late, ErrorKind::Fenced);
    member.until("what was given up comes back", |w| w.owned().iter().any(|of| *of != first)).await;
    let second = member.owned().remove(0);
    let late = member.control().ack(&first, &positions[..2]);
    refused("an ack of an epoch that is over is refused", late, ErrorKind::Fenced);
    exactly(&mut member, &second, "a refused ack acks nothing", &[0, 1, 2, 3, 4]).await;
}

async fn an_ack_after_close_is_refused_as_fenced(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    let control = member.control();
    within("close answers", control.close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
    refused("an ack after close is refused", control.ack(&of, &positions), ErrorKind::Fenced);
    drop(member);
    refused(
        "an ack after the consumer was dropped is refused",
        control.ack(&of, &positions),
        ErrorKind::Fenced,
    );
    next_owner_sees(stage, &subscription, "a refused ack acks nothing", &[0, 1, 2, 3, 4]).await;
}

async fn a_position_that_was_not_delivered_is_refused_with_the_whole_call(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..5).await;
    let subscription = Subscription {
        in_flight: crate::Bound { messages: 2, bytes: 1024 * 1024 },
        ..Subscription::new(stage.group(), [topic.clone()])
    };
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(2).await[0].of.clone();
    let wrong = member.control().ack(&of, &[positions[0], positions[4]]);
    refused("a position that was not delivered is refused", wrong, ErrorKind::Invalid);
    flush(&member).await;
    let seen = stage.group_partition(&subscription.group, &topic, 0).await;
    let nothing = seen.position.is_none_or(|p| p <= positions[0]);
    promised(nothing, "nothing of a refused ack is acked", || format!("the position is {:?}", seen.position));
}

async fn what_was_dropped_without_ack_comes_to_the_next_owner(stage: &Stage) {
    let (topic, _) = five(stage).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    member.take(5).await;
    drop(member);
    let promise = "what was dropped without an ack comes to the next owner";
    next_owner_sees(stage, &subscription, promise, &[0, 1, 2, 3, 4]).await;
}

async fn what_was_acked_before_a_drop_takes_effect(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = lazily(stage, &topic);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    member.control().ack(&of, &[positions[0], positions[4]]).ought("what was delivered can be acked");
    drop(member);
    next_owner_sees(stage, &subscription, "acks given before a drop take effect", &[1, 2, 3]).await;
}

async fn an_ack_takes_effect_within_the_interval(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    member.control().ack(&of, &positions[..3]).ought("what was delivered can be acked");
    member.idle(subscription.ack_interval + stage.slack()).await;
    std::mem::forget(member);
    stage.crash().await;
    next_owner_sees(stage, &subscription, "an ack takes effect within the ack interval", &[3, 4]).await;
}

async fn flush_answers_when_acks_took_effect(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = lazily(stage, &topic);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    member.control().ack(&of, &positions[..2]).ought("what was delivered can be acked");
    flush(&member).await;
    let seen = stage.group_partition(&subscription.group, &topic, 0).await;
    same("what was acked before flush took effect when it answers", seen.position, Some(positions[2]));
}

async fn what_was_flushed_survives_a_crash(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = lazily(stage, &topic);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(5).await[0].of.clone();
    member.control().ack(&of, &positions[..3]).ought("what was delivered can be acked");
    flush(&member).await;
    std::mem::forget(member);
    stage.crash().await;
    next_owner_sees(stage, &subscription, "acks that were flushed survive a crash", &[3, 4]).await;
}

async fn acks_may_come_from_any_thread(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.put(at(&topic, 0), (0..200).map(text).collect()).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let got = member.take(200).await;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let control = member.control();
            let mine: Vec<_> = got.iter().skip(thread).step_by(4).cloned().collect();
            std::thread::spawn(move || mine.iter().try_for_each(|got| control.ack(&got.of, &[got.position])))
        })
        .collect();
    for thread in threads {
        match thread.join() {
            Ok(acked) => acked.ought("acks may come from any thread"),
            Err(_) => broken("acks may come from any thread", "a panic"),
        }
    }
    flush(&member).await;
    let seen = stage.group_partition(&subscription.group, &topic, 0).await;
    same("acks of all threads took effect", seen.lag, Some(0));
    same("nothing went meanwhile", member.gone(), Vec::<(Owned, GoneReason)>::new());
}
