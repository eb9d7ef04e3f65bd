//! Checks of `forward`, publish and ack in one, and of `confirm`.
//!
//! Not here: acks alone (`settle.rs`).

use super::{
    promise::{Ought, promised, refused, same},
    settle::{exactly, five, flush},
    stage::{Stage, at, text, within},
    suite::group,
    watch::{Got, Watched},
};
use crate::{ErrorKind, Message, Outcomes, Owned, Published, Subscription, Target, Topic};
use futures::FutureExt;

group! { "forward":
    "" forward_publishes_and_acks;
    "" forward_to_several_topics_keeps_outcomes_in_order;
    "" forward_is_all_or_nothing [AtomicForward];
    "" forward_that_is_refused_acks_nothing;
    "O5" forward_by_a_former_owner_writes_nothing;
    "" a_dropped_answer_of_forward_takes_nothing_back;
    "" forward_survives_a_crash_whole [Crash, AtomicForward];
    "" confirm_tells_who_owns_the_partition;
}

async fn numbers(stage: &Stage, topic: &Topic) -> Vec<usize> {
    stage.content(topic).await.iter().map(Got::number).collect()
}

/// A member that has five messages in flight and a topic to forward to.
async fn ready(stage: &Stage) -> (Watched, Vec<Got>, Topic, Subscription) {
    let (topic, _) = five(stage).await;
    let to = stage.topic(1).await;
    let subscription = Subscription::new(stage.group(), [topic]);
    let mut member = stage.join(subscription.clone()).await;
    let got = member.take(5).await;
    (member, got, to, subscription)
}

/// Gives the partition up and expects exactly these numbers when it is back.
async fn again(member: &mut Watched, of: &Owned, promise: &str, expected: &[usize]) {
    flush(member).await;
    member.control().give_up(of);
    member.until("what was given up comes back", |w| w.owned().iter().any(|o| o != of)).await;
    let back = member.owned().remove(0);
    exactly(member, &back, promise, expected).await;
}

async fn forward_publishes_and_acks(stage: &Stage) {
    let (mut member, got, to, _) = ready(stage).await;
    let done = [got[1].position, got[2].position];
    let answer =
        member.control().forward(&got[1].of, &done, vec![(at(&to, 0), text(70)), (at(&to, 0), text(71))]);
    let outcomes = within("forward answers", answer).await;
    same("there is one outcome per message", outcomes.0.len(), 2);
    outcomes.into_result().ought("forward acks what is in order");
    same("what was forwarded is in the log once", numbers(stage, &to).await, vec![70, 71]);
    again(&mut member, &got[0].of, "what was forwarded is acked", &[0, 3, 4]).await;
}

async fn forward_to_several_topics_keeps_outcomes_in_order(stage: &Stage) {
    let (member, got, one, _) = ready(stage).await;
    let two = stage.topic(4).await;
    let out = vec![
        (at(&two, 3), text(0)),
        (at(&one, 0), text(1)),
        (at(&two, 1), text(2)),
        (at(&one, 0), text(3)),
        (Target::from(&two), super::stage::keyed("k", 4)),
    ];
    let outcomes =
        within("forward answers", member.control().forward(&got[0].of, &[got[0].position], out)).await;
    let partitions: Vec<_> = outcomes
        .0
        .iter()
        .map(|outcome| match outcome {
            Published::Acked { partition, .. } => *partition,
            other => super::promise::broken("forward acks what is in order", format!("{other:?}")),
        })
        .collect();
    let by_key = crate::partition_for_key(b"k", 4);
    same("outcomes are in the order of the messages", partitions, vec![3, 0, 1, 0, by_key]);
    same("each topic has its own", numbers(stage, &one).await, vec![1, 3]);
    let mut second = numbers(stage, &two).await;
    second.sort_unstable();
    same("each topic has its own", second, vec![0, 2, 4]);
}

/// Forwards one good message and one that is too large.
async fn one_too_large(stage: &Stage, member: &Watched, got: &Got, to: &Topic) -> (Outcomes, Vec<Message>) {
    let most = stage.describe(to).await.max_message;
    let out = vec![text(80), Message::builder().payload(vec![1; most + 1]).build(), text(82)];
    let targets = out.iter().map(|message| (at(to, 0), message.clone())).collect();
    let answer = member.control().forward(&got.of, &[got.position], targets);
    (within("forward answers", answer).await, out)
}

async fn forward_is_all_or_nothing(stage: &Stage) {
    let (mut member, got, to, _) = ready(stage).await;
    let (outcomes, out) = one_too_large(stage, &member, &got[0], &to).await;
    same("there is one outcome per message", outcomes.0.len(), 3);
    for (outcome, message) in outcomes.0.iter().zip(&out) {
        let promise = "one refused message of an atomic forward refuses all, with the same kind";
        super::promise::not_written(promise, outcome, ErrorKind::TooLarge, message);
    }
    same("nothing of it is in the log", numbers(stage, &to).await, Vec::<usize>::new());
    again(&mut member, &got[0].of, "nothing of it is acked", &[0, 1, 2, 3, 4]).await;
}

async fn forward_that_is_refused_acks_nothing(stage: &Stage) {
    let (mut member, got, to, _) = ready(stage).await;
    let (outcomes, _) = one_too_large(stage, &member, &got[2], &to).await;
    promised(!outcomes.0[1].is_acked(), "a message that is too large is refused", || "it was acked".into());
    let nowhere = vec![(Target::from(stage.no_topic()), text(1))];
    let answer = member.control().forward(&got[3].of, &[got[3].position], nowhere);
    let outcomes = within("forward answers", answer).await;
    let outcome = outcomes.0.first().ought("there is one outcome per message");
    super::promise::not_written(
        "a topic that does not exist takes nothing",
        outcome,
        ErrorKind::NotFound,
        &{ outcome.failed().ought("it is refused").message.clone() },
    );
    again(&mut member, &got[0].of, "a refused forward acks nothing", &[0, 1, 2, 3, 4]).await;
}

async fn forward_by_a_former_owner_writes_nothing(stage: &Stage) {
    let (mut member, got, to, _) = ready(stage).await;
    let first = got[0].of.clone();
    member.control().give_up(&first);
    member.until("what was given up comes back", |w| w.owned().iter().any(|of| *of != first)).await;
    let second = member.owned().remove(0);
    let message = text(90);
    let answer = member.control().forward(&first, &[got[0].position], vec![(at(&to, 0), message.clone())]);
    let outcomes = within("forward answers", answer).await;
    let outcome = outcomes.0.first().ought("there is one outcome per message");
    let promise = "a forward in an epoch that is over is refused";
    super::promise::not_written(promise, outcome, ErrorKind::Fenced, &message);
    same("nothing of it is in the log", numbers(stage, &to).await, Vec::<usize>::new());
    exactly(&mut member, &second, "nothing of it is acked", &[0, 1, 2, 3, 4]).await;
}

async fn a_dropped_answer_of_forward_takes_nothing_back(stage: &Stage) {
    let (mut member, got, to, _) = ready(stage).await;
    let control = member.control();
    drop(control.forward(&got[0].of, &[got[0].position], vec![(at(&to, 0), text(60))]));
    let _ = control.forward(&got[1].of, &[got[1].position], vec![(at(&to, 0), text(61))]).now_or_never();
    let mut reader = stage.follow(&to).await;
    reader.until("a forward whose answer was dropped is written", |r| r.got().count() >= 2).await;
    same("each is written once", reader.numbers(), vec![60, 61]);
    again(&mut member, &got[0].of, "a forward whose answer was dropped acks", &[2, 3, 4]).await;
}

async fn forward_survives_a_crash_whole(stage: &Stage) {
    let (member, got, to, subscription) = ready(stage).await;
    let answer = member.control().forward(&got[0].of, &[got[0].position], vec![(at(&to, 0), text(50))]);
    within("forward answers", answer).await.into_result().ought("forward acks what is in order");
    std::mem::forget(member);
    stage.crash().await;
    let written = numbers(stage, &to).await == [50];
    let mut next = stage.join(subscription).await;
    let of = next.own(1).await.remove(0);
    promised(written, "what was forwarded survives a crash", || "nothing".into());
    exactly(&mut next, &of, "after a crash both halves of a forward are true", &[1, 2, 3, 4]).await;
}

async fn confirm_tells_who_owns_the_partition(stage: &Stage) {
    let (mut member, got, _, _) = ready(stage).await;
    let first = got[0].of.clone();
    let confirm =
        async |member: &Watched, of: &Owned| within("confirm answers", member.control().confirm(of)).await;
    confirm(&member, &first).await.ought("the owner is confirmed with nothing to ack");
    member.control().ack(&first, &[got[0].position]).ought("what was delivered can be acked");
    confirm(&member, &first).await.ought("the owner is confirmed");
    member.control().give_up(&first);
    member.until("what was given up comes back", |w| w.owned().iter().any(|of| *of != first)).await;
    refused("a former owner is not confirmed", confirm(&member, &first).await, ErrorKind::Fenced);
    let second = member.owned().remove(0);
    confirm(&member, &second).await.ought("the owner is confirmed");
}
