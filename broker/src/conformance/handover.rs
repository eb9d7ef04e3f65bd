//! Checks of how a partition changes hands: what is told, in which order, and what the next owner gets.
//!
//! Not here: who should own what (`groups.rs`), which acks are refused (`settle.rs`).

use super::{
    promise::{Ought, promised, same},
    settle::{exactly, five, lazily},
    stage::{QUIET, Stage, keyed, within},
    suite::group,
    watch::{self, Got, Seen, Watched},
};
use crate::{Epoch, GoneReason, Owned, Subscription};
use std::{collections::BTreeMap, time::Duration};

group! { "handover":
    "" each_partition_ends_in_one_gone_with_its_reason;
    "" what_is_told_of_a_partition_has_its_order;
    "" after_revoking_no_batch_comes;
    "" what_is_kept_too_long_is_taken_when_the_drain_time_is_over;
    "" what_is_given_up_unasked_goes_to_another_member [Chooses];
    "" what_the_only_member_gives_up_comes_back_in_a_new_epoch;
    "" acks_given_before_give_up_take_effect;
    "" the_next_owner_gets_nothing_before_the_last_one_lost_it;
    "" an_assignment_tells_where_it_resumes;
    "" epochs_grow_with_each_owner;
    "" epochs_grow_across_a_reopen [Reopen];
}

async fn each_partition_ends_in_one_gone_with_its_reason(stage: &Stage) {
    let topic = stage.topic(4).await;
    let group = stage.group();
    let subscription = Subscription::new(group, [topic.clone()]);
    let mut members = vec![stage.join(subscription.clone()).await];
    let all = members[0].own(4).await;
    members.push(stage.join(subscription).await);
    watch::until(&mut members, "a second member gets its part", |m| {
        m[0].owned().len() + m[1].owned().len() == 4 && m[1].owned().len() == 2
    })
    .await;
    let given_up: Vec<Owned> = members[0].gone().into_iter().map(|(of, _)| of).collect();
    within("close answers", members[0].control().close(Duration::ZERO)).await;
    watch::until(&mut members, "a closed consumer ends", |m| m[0].end.is_some()).await;
    let mut gone: BTreeMap<u32, Vec<GoneReason>> = BTreeMap::new();
    members[0].gone().into_iter().for_each(|(of, why)| gone.entry(of.partition).or_default().push(why));
    for of in all {
        let was_given_up = given_up.contains(&of);
        let expected = if was_given_up { GoneReason::GivenUp } else { GoneReason::Closed };
        let told = gone.remove(&of.partition).unwrap_or_default();
        same("each owned partition ends in exactly one Gone, with its reason", told, vec![expected]);
    }
}

async fn what_is_told_of_a_partition_has_its_order(stage: &Stage) {
    let topic = stage.topic(2).await;
    stage.put(&topic, (0..40).map(|i| keyed(&i.to_string(), i)).collect()).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members = vec![stage.join(subscription.clone()).await.acking()];
    members[0].take(40).await;
    members[0].until("a partition is caught up", |w| w.caught_up().len() == 2).await;
    members.push(stage.join(subscription).await.acking());
    watch::until(&mut members, "a second member gets its part", |m| m[1].owned().len() == 1).await;
    within("close answers", members[0].control().close(Duration::ZERO)).await;
    watch::until(&mut members, "a closed consumer ends", |m| m[0].end.is_some()).await;
    let mut state: BTreeMap<(u32, Epoch), &str> = BTreeMap::new();
    for (_, seen) in &members[0].log {
        let (of, kind) = match seen {
            Seen::AssignedEvent => continue,
            Seen::Assigned(a) => (&a.of, "assigned"),
            Seen::Revoking(of, _) => (of, "revoking"),
            Seen::Gone(of, _) => (of, "gone"),
            Seen::Got(Got { of, .. })
            | Seen::Unreadable { of, .. }
            | Seen::Gap { of, .. }
            | Seen::CaughtUp(of) => (of, "told"),
        };
        let before = state.insert((of.partition, of.epoch), kind);
        let in_order = match kind {
            "assigned" => before.is_none(),
            "told" => matches!(before, Some("assigned" | "told")),
            "revoking" => matches!(before, Some("assigned" | "told")),
            _ => matches!(before, Some("assigned" | "told" | "revoking")),
        };
        promised(in_order, "of a partition are told: Assigned, its messages, perhaps Revoking, Gone", || {
            format!("{kind} after {before:?} for partition {} in epoch {}", of.partition, of.epoch)
        });
    }
}

async fn after_revoking_no_batch_comes(stage: &Stage) {
    let topic = stage.topic(2).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members = vec![stage.join(subscription.clone()).await.keeping()];
    let owned = members[0].own(2).await;
    members.push(stage.join(subscription).await);
    watch::until(&mut members, "a newcomer makes an owner revoke", |m| !m[0].revoking().is_empty()).await;
    let revoked: Vec<Owned> = members[0].revoking().into_iter().map(|(of, _)| of).collect();
    for of in &owned {
        stage.number(&topic, of.partition, 0..5).await;
    }
    watch::idle(&mut members, QUIET).await;
    let late: Vec<_> = members[0].got().filter(|got| revoked.contains(&got.of)).collect();
    promised(late.is_empty(), "no batch comes after Revoking", || format!("{} messages", late.len()));
    for of in &revoked {
        members[0].control().give_up(of);
    }
    watch::until(&mut members, "all goes on after the hand-over", |m| {
        m.iter().map(|m| m.got().count()).sum::<usize>() >= 10
    })
    .await;
}

async fn what_is_kept_too_long_is_taken_when_the_drain_time_is_over(stage: &Stage) {
    let drain = Duration::from_millis(400);
    let topic = stage.topic(2).await;
    for partition in 0..2 {
        stage.number(&topic, partition, 0..3).await;
    }
    let subscription = Subscription { drain, ..Subscription::new(stage.group(), [topic.clone()]) };
    let mut members = vec![stage.join(subscription.clone()).await.keeping()];
    members[0].take(6).await;
    members.push(stage.join(subscription).await);
    let promise = "what is kept too long is taken when the drain time is over";
    watch::until(&mut members, promise, |m| {
        m[0].gone().iter().any(|(_, why)| *why == GoneReason::DrainOver) && m[1].got().count() >= 3
    })
    .await;
    let (of, left) = members[0].revoking().into_iter().next().ought("Revoking comes before it is taken");
    promised(left <= drain, "Revoking tells how long is left of the drain time", || format!("{left:?}"));
    let when = |wanted: &dyn Fn(&Seen) -> bool| {
        members[0].log.iter().find(|(_, seen)| wanted(seen)).map(|(at, _)| *at).ought(promise)
    };
    let revoking = when(&|seen| matches!(seen, Seen::Revoking(..)));
    let gone = when(&|seen| matches!(seen, Seen::Gone(..)));
    let kept = gone - revoking;
    // A broker may count whole milliseconds.
    promised(kept + Duration::from_millis(2) >= left, "it may be kept for the time that was told", || {
        format!("it was taken after {kept:?} of {left:?}")
    });
    same("what was not acked is for the next owner", members[1].numbers(), vec![0, 1, 2]);
    let late =
        members[0].control().ack(&of, &[members[0].got().find(|g| g.of == of).ought("it came").position]);
    super::promise::refused("its acks are refused from then on", late, crate::ErrorKind::Fenced);
}

async fn what_is_given_up_unasked_goes_to_another_member(stage: &Stage) {
    let topic = stage.topic(2).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members = vec![stage.join(subscription.clone()).await, stage.join(subscription).await];
    watch::until(&mut members, "both members get their part", |m| m.iter().all(|m| m.owned().len() == 1))
        .await;
    watch::idle(&mut members, QUIET).await;
    let given = members[0].owned().remove(0);
    stage.number(&topic, given.partition, 0..2).await;
    watch::until(&mut members, "messages come", |m| m[0].got().filter(|got| got.of == given).count() >= 2)
        .await;
    members[0].control().give_up(&given);
    let promise = "what is given up unasked goes to another member that can take it";
    watch::until(&mut members, promise, |m| m[1].got().count() >= 2).await;
    same(promise, members[1].numbers(), vec![0, 1]);
    let went: Vec<_> = members[0].gone().into_iter().filter(|(of, _)| *of == given).collect();
    same("it goes as given up", went, vec![(given, GoneReason::GivenUp)]);
}

async fn what_the_only_member_gives_up_comes_back_in_a_new_epoch(stage: &Stage) {
    let (topic, _) = five(stage).await;
    let mut member = stage.join_new(&topic).await;
    let first = member.take(5).await[0].of.clone();
    member.control().give_up(&first);
    let promise = "what the only member gives up comes back to it in a new epoch";
    member.until(promise, |w| w.assigned().len() >= 2).await;
    let second = member.owned().remove(0);
    promised(second.epoch > first.epoch, promise, || format!("{} after {}", second.epoch, first.epoch));
    exactly(&mut member, &second, "what was not acked comes again", &[0, 1, 2, 3, 4]).await;
    same("it went as given up", member.gone(), vec![(first, GoneReason::GivenUp)]);
}

async fn acks_given_before_give_up_take_effect(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let mut member = stage.join(lazily(stage, &topic)).await;
    let first = member.take(5).await[0].of.clone();
    member.control().ack(&first, &positions[..3]).ought("what was delivered can be acked");
    member.control().give_up(&first);
    member.until("what was given up comes back", |w| w.assigned().len() >= 2).await;
    let second = member.owned().remove(0);
    exactly(&mut member, &second, "acks given before give_up take effect", &[3, 4]).await;
}

async fn the_next_owner_gets_nothing_before_the_last_one_lost_it(stage: &Stage) {
    let topic = stage.topic(4).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members: Vec<Watched> = vec![stage.join(subscription.clone()).await.keeping()];
    for partition in 0..4 {
        stage.number(&topic, partition, 0..4).await;
    }
    members[0].take(16).await;
    members.push(stage.join(subscription).await);
    watch::until(&mut members, "a newcomer makes an owner revoke", |m| !m[0].revoking().is_empty()).await;
    watch::idle(&mut members, QUIET).await;
    let promise = "a partition that is being drained is delivered to nobody else";
    promised(members[1].got().count() == 0 && members[0].gone().is_empty(), promise, || members[1].told());
    // What finishes while it drains is acked, and is not for the next owner.
    let revoked: Vec<Owned> = members[0].revoking().into_iter().map(|(of, _)| of).collect();
    for of in &revoked {
        let mine: Vec<_> = members[0].got().filter(|got| got.of == *of).map(|got| got.position).collect();
        members[0].control().ack(of, &mine[..3]).ought("what finishes while it drains can be acked");
        members[0].control().give_up(of);
    }
    let promise = "the next owner gets what was not acked while it drained";
    watch::until(&mut members, promise, |m| m[1].got().count() >= revoked.len()).await;
    watch::idle(&mut members, QUIET).await;
    same(promise, members[1].numbers(), vec![3; revoked.len()]);
}

async fn an_assignment_tells_where_it_resumes(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let got = member.take(5).await;
    let promise = "an assignment tells the position of the group, and that there was none";
    same(promise, member.assigned()[0].resumed, None);
    member.control().ack(&got[0].of, &positions[..2]).ought("what was delivered can be acked");
    within("close answers", member.control().close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
    let mut next = stage.join(subscription).await;
    next.own(1).await;
    same(promise, next.assigned()[0].resumed, Some(positions[2]));
    same("reading resumes there", next.take(3).await[0].number(), 2);
}

async fn epochs_grow_with_each_owner(stage: &Stage) {
    let topic = stage.topic(1).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut last = Epoch(0);
    for round in 0..4 {
        let mut member = stage.join(subscription.clone()).await;
        let of = member.own(1).await.remove(0);
        promised(of.epoch > last, "the epoch grows with each owner", || format!("{} after {last}", of.epoch));
        last = of.epoch;
        if round % 2 == 0 {
            within("close answers", member.control().close(Duration::ZERO)).await;
            member.ended("a closed consumer ends").await;
        }
    }
}

async fn epochs_grow_across_a_reopen(stage: &Stage) {
    let topic = stage.topic(1).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut last = Epoch(0);
    for _ in 0..3 {
        let mut member = stage.join(subscription.clone()).await;
        let of = member.own(1).await.remove(0);
        promised(of.epoch > last, "the epoch grows across a reopen", || format!("{} after {last}", of.epoch));
        last = of.epoch;
        stage.reopen().await;
    }
}
