//! Checks of order per key, and of fencing, which keeps it.
//!
//! Not here: the order of publish calls (`publish.rs`).

use super::{
    promise::{Ought, promised, refused, same},
    settle::{exactly, five},
    stage::{QUIET, Stage, keyed, text, within},
    suite::group,
    watch::{self, Got, Watched},
};
use crate::{ErrorKind, Subscription};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

group! { "order":
    "O1" order_of_a_key_holds_whatever_the_order_of_acks;
    "O4" order_of_a_key_holds_while_members_join_and_leave;
    "O5" a_former_owner_can_neither_ack_nor_forward [TakesOver];
    "G2" the_position_of_a_group_only_grows_and_never_passes_what_is_not_acked;
}

/// Fails unless each key's numbers came in order, each once; `got` in the order of delivery.
fn in_order(got: &[&Got], keys: usize, each: usize) {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    got.iter().for_each(|got| by_key.entry(got.key()).or_default().push(got.number()));
    same("every key is there", by_key.len(), keys);
    for (key, numbers) in by_key {
        let promise = format!("messages of {key} come once, in order");
        same(&promise, numbers, (0..each).collect::<Vec<_>>());
    }
}

async fn order_of_a_key_holds_whatever_the_order_of_acks(stage: &Stage) {
    let topic = stage.topic(4).await;
    let mut member = stage.join_new(&topic).await;
    let broker = stage.broker();
    let publishers = (0..5usize).map(|who| {
        let (broker, topic) = (Arc::clone(&broker), topic.clone());
        async move {
            for i in 0..40 {
                let batch = (0..4).map(|k| keyed(&format!("k{}", who * 4 + k), i)).collect();
                broker
                    .publish(&(&topic).into(), batch)
                    .await
                    .into_result()
                    .ought("publish acks what is in order");
                if i % 8 == 7 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let publishing = futures::future::join_all(publishers);
    let consuming = async {
        let mut acked = 0;
        while acked < 800 {
            member.until("all is delivered", |w| w.got().count() > acked).await;
            // The newest first, in several calls.
            let fresh: Vec<Got> = member.got().skip(acked).cloned().collect();
            for got in fresh.iter().rev() {
                member.control().ack(&got.of, &[got.position]).ought("acks may come in any order");
            }
            acked += fresh.len();
        }
    };
    within("all is published and delivered", futures::future::join(publishing, consuming)).await;
    member.idle(QUIET).await;
    in_order(&member.got().collect::<Vec<_>>(), 20, 40);
}

async fn order_of_a_key_holds_while_members_join_and_leave(stage: &Stage) {
    let topic = stage.topic(4).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut members: Vec<Watched> = vec![stage.join(subscription.clone()).await.acking()];
    let mut left: Vec<Got> = Vec::new();
    for round in 0..24 {
        stage.put(&topic, (0..15).map(|k| keyed(&format!("k{k}"), round)).collect()).await;
        if round % 3 == 0 {
            members.push(stage.join(subscription.clone()).await.acking());
        } else if round % 3 == 1 && members.len() > 1 {
            let mut leaver = members.remove(round % members.len());
            within("close answers", leaver.control().close(Duration::from_secs(5))).await;
            leaver.ended("a closed consumer ends").await;
            left.extend(leaver.got().cloned());
        }
        watch::idle(&mut members, Duration::from_millis(4)).await;
    }
    let before = left.len();
    watch::until(&mut members, "all is delivered while members join and leave", |m| {
        before + m.iter().map(|m| m.got().count()).sum::<usize>() >= 24 * 15
    })
    .await;
    watch::idle(&mut members, QUIET).await;
    let mut all: Vec<&Got> = left.iter().chain(members.iter().flat_map(Watched::got)).collect();
    all.sort_by_key(|got| got.turn);
    in_order(&all, 15, 24);
}

async fn a_former_owner_can_neither_ack_nor_forward(stage: &Stage) {
    let (topic, positions) = five(stage).await;
    let to = stage.topic(1).await;
    let subscription =
        Subscription { member: Some(Arc::from("anna")), ..Subscription::new(stage.group(), [topic.clone()]) };
    let mut former = stage.join(subscription.clone()).await;
    let of = former.take(5).await[0].of.clone();
    let mut members = vec![former, stage.join(subscription.clone()).await];
    watch::until(&mut members, "a second member of a static name takes over", |m| {
        m[0].end.is_some() && m[1].got().count() >= 5
    })
    .await;
    let former = members[0].control();
    refused("an ack of a former owner is refused", former.ack(&of, &positions), ErrorKind::Fenced);
    let forward = former.forward(&of, &positions[..1], vec![(super::stage::at(&to, 0), text(9))]);
    let outcomes = within("forward answers", forward).await;
    let outcome = outcomes.0.first().and_then(|outcome| outcome.failed());
    let kind = outcome.ought("a forward of a former owner is refused").error.kind();
    same("a forward of a former owner is refused", kind, ErrorKind::Fenced);
    refused(
        "a former owner is not confirmed",
        within("confirm answers", former.confirm(&of)).await,
        ErrorKind::Fenced,
    );
    same("nothing of a former owner is written", stage.content(&to).await.len(), 0);
    let now = members[1].owned().remove(0);
    promised(now.epoch > of.epoch, "the epoch grows with each owner", || {
        format!("{} after {}", now.epoch, of.epoch)
    });
    members[1].control().give_up(&now);
    members[1].until("what was given up comes back", |w| w.assigned().len() >= 2).await;
    let back = members[1].owned().remove(0);
    exactly(&mut members[1], &back, "acks of a former owner take no effect", &[0, 1, 2, 3, 4]).await;
}

async fn the_position_of_a_group_only_grows_and_never_passes_what_is_not_acked(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..60).await;
    let subscription = Subscription {
        ack_interval: Duration::from_millis(10),
        ..Subscription::new(stage.group(), [topic.clone()])
    };
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(60).await[0].of.clone();
    let mut open: Vec<usize> = (0..60).collect();
    let mut last = None;
    for step in 0..60usize {
        let done = open.remove((step * 17) % open.len());
        member.control().ack(&of, &[positions[done]]).ought("acks may come in any order");
        if step % 2 == 0 {
            super::settle::flush(&member).await;
        } else {
            member.idle(Duration::from_millis(2)).await;
        }
        let seen = stage.group_partition(&subscription.group, &topic, 0).await.position;
        promised(seen >= last, "the position of a group only grows", || format!("{seen:?} after {last:?}"));
        let limit = open.iter().map(|i| positions[*i]).min();
        let passed = limit.is_some_and(|limit| seen.is_some_and(|seen| seen > limit));
        promised(!passed, "the position of a group never passes what is not acked", || {
            format!("{seen:?} where {limit:?} is not acked")
        });
        last = seen;
    }
    super::settle::flush(&member).await;
    let seen = stage.group_partition(&subscription.group, &topic, 0).await;
    same("when all is acked the position is the end", seen.position, Some(seen.end));
}
