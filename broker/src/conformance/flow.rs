//! Checks of back-pressure: how much is in flight, what one partition may take, what a pause does, who is woken.
//!
//! Not here: how much a publisher may have open (`publish.rs`, `publisher.rs`).

use super::{
    promise::{Ought, promised, same},
    stage::{PATIENCE, QUIET, Stage, at, text, within},
    suite::group,
    watch::{self, Got, Watched},
};
use crate::{Bound, Event, Message, Owned, Subscription, Topic};
use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::{Instant, timeout};

group! { "flow":
    "B1" no_more_messages_are_in_flight_than_the_bound;
    "B1" no_more_bytes_are_in_flight_than_the_bound;
    "B1" one_message_larger_than_the_bound_is_delivered_alone;
    "B1" the_bound_holds_over_all_partitions;
    "B2" a_partition_takes_no_more_than_its_share;
    "" what_goes_makes_room_for_what_stays;
    "B2" a_topic_that_is_not_settled_does_not_stall_another;
    "B3" a_paused_partition_delivers_nothing_and_goes_on_where_it_was;
    "B3" a_pause_keeps_membership_epoch_and_what_is_in_flight;
    "" a_pause_of_what_is_not_owned_does_nothing;
    "" nothing_is_lost_with_a_future_that_is_dropped;
    "" the_last_one_who_polled_is_woken;
}

fn bounded(stage: &Stage, topic: &Topic, messages: usize, bytes: usize) -> Subscription {
    Subscription { in_flight: Bound { messages, bytes }, ..Subscription::new(stage.group(), [topic.clone()]) }
}

fn sized(size: usize) -> Message {
    Message::builder().payload(vec![b'x'; size]).build()
}

fn ack(member: &Watched, got: &[Got]) {
    for got in got {
        member.control().ack(&got.of, &[got.position]).ought("what was delivered can be acked");
    }
}

/// As many as there may be, and not one more.
async fn settles_at(member: &mut Watched, promise: &str, count: usize) {
    member.until(promise, |w| w.got().count() >= count).await;
    member.idle(QUIET).await;
    same(promise, member.got().count(), count);
}

async fn no_more_messages_are_in_flight_than_the_bound(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..50).await;
    let mut member = stage.join(bounded(stage, &topic, 10, 1 << 20)).await;
    let promise = "as many messages are in flight as the bound says, and no more";
    settles_at(&mut member, promise, 10).await;
    let got: Vec<Got> = member.got().cloned().collect();
    ack(&member, &got[2..5]);
    settles_at(&mut member, promise, 13).await;
    ack(&member, &got[2..5]);
    settles_at(&mut member, "an ack twice makes room once", 13).await;
    ack(&member, &got[..2]);
    settles_at(&mut member, promise, 15).await;
    same("they come in order", member.numbers(), (0..15).collect::<Vec<_>>());
}

async fn no_more_bytes_are_in_flight_than_the_bound(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.put(at(&topic, 0), (0..20).map(|_| sized(1000)).collect()).await;
    let mut member = stage.join(bounded(stage, &topic, 1000, 5_500)).await;
    let promise = "as many bytes are in flight as the bound says, and no more";
    settles_at(&mut member, promise, 5).await;
    let got: Vec<Got> = member.got().cloned().collect();
    ack(&member, &got[..3]);
    settles_at(&mut member, promise, 8).await;
}

async fn one_message_larger_than_the_bound_is_delivered_alone(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.put(at(&topic, 0), [5000, 100, 100, 5000, 100].map(sized).to_vec()).await;
    let mut member = stage.join(bounded(stage, &topic, 100, 1000)).await;
    let promise = "a message that is larger than the bound is delivered when nothing else is in flight";
    settles_at(&mut member, promise, 1).await;
    ack(&member, &member.got().cloned().collect::<Vec<_>>());
    settles_at(&mut member, promise, 3).await;
    ack(&member, &member.got().skip(1).take(1).cloned().collect::<Vec<_>>());
    settles_at(&mut member, promise, 3).await;
    ack(&member, &member.got().skip(2).cloned().collect::<Vec<_>>());
    settles_at(&mut member, promise, 4).await;
    ack(&member, &member.got().skip(3).cloned().collect::<Vec<_>>());
    settles_at(&mut member, promise, 5).await;
}

async fn the_bound_holds_over_all_partitions(stage: &Stage) {
    let topic = stage.topic(3).await;
    for partition in 0..3 {
        stage.number(&topic, partition, 0..30).await;
    }
    let mut member = stage.join(bounded(stage, &topic, 40, 1 << 20)).await;
    // Up to an eighth may be kept for partitions that have little in flight.
    let promise = "the bound holds over all partitions of a member, and at least 7/8 of it are used";
    for acked in [0, 7] {
        ack(&member, &member.got().take(acked).cloned().collect::<Vec<_>>());
        member.until(promise, |w| w.got().count() >= acked + 35).await;
        member.idle(QUIET).await;
        let seen = member.got().count();
        promised(seen <= acked + 40, promise, || format!("{seen} with {acked} acked"));
    }
    for _ in 0..10 {
        ack(&member, &member.got().cloned().collect::<Vec<_>>());
        member.idle(Duration::from_millis(20)).await;
    }
    member.until("all is delivered as room is made", |w| w.got().count() >= 90).await;
}

async fn a_partition_takes_no_more_than_its_share(stage: &Stage) {
    let topic = stage.topic(8).await;
    stage.number(&topic, 0, 0..300).await;
    for partition in 1..8 {
        stage.number(&topic, partition, 1000..1010).await;
    }
    let mut member = stage.join(bounded(stage, &topic, 256, 1 << 26)).await;
    let promise = "of 8 partitions none takes more than 64 of 256 messages, and the others are delivered";
    settles_at(&mut member, promise, 70 + 64).await;
    same(promise, member.got().filter(|got| got.of.partition == 0).count(), 64);
}

async fn a_topic_that_is_not_settled_does_not_stall_another(stage: &Stage) {
    let (slow, fast) = (stage.topic(5).await, stage.topic(3).await);
    for partition in 0..5 {
        stage.number(&slow, partition, 0..100).await;
    }
    let subscription = Subscription {
        in_flight: Bound { messages: 200, bytes: 1 << 26 },
        ..Subscription::new(stage.group(), [slow.clone(), fast.clone()])
    };
    let mut member = stage.join(subscription).await;
    member.own(8).await;
    member.until("the slow topic is delivered up to its shares", |w| w.got().count() >= 150).await;
    member.idle(QUIET).await;
    for round in 0..4 {
        for partition in 0..3 {
            stage.number(&fast, partition, 1000..1020).await;
        }
        let promise =
            "a topic that is not settled does not stall another, even where most partitions are stuck";
        let mut acked = 60 * round;
        while acked < 60 * (round + 1) {
            member.until(promise, |w| w.got().filter(|got| got.of.topic == fast).count() > acked).await;
            let got: Vec<Got> = member.got().filter(|got| got.of.topic == fast).cloned().collect();
            ack(&member, &got[acked..]);
            acked = got.len();
        }
    }
}

async fn what_goes_makes_room_for_what_stays(stage: &Stage) {
    let topic = stage.topic(2).await;
    for partition in 0..2 {
        stage.number(&topic, partition, 0..30).await;
    }
    let subscription = bounded(stage, &topic, 12, 1 << 20);
    let mut members = vec![stage.join(subscription.clone()).await];
    members[0].own(2).await;
    members[0].idle(QUIET).await;
    members.push(stage.join(subscription).await);
    let promise = "what goes makes room for what stays, up to the bound, although nothing was acked";
    let kept = |member: &Watched| -> usize {
        let owned = member.owned();
        member.got().filter(|got| owned.contains(&got.of)).count()
    };
    watch::until(&mut members, promise, |m| m.iter().all(|m| m.owned().len() == 1 && kept(m) >= 12)).await;
    watch::idle(&mut members, QUIET).await;
    same(promise, members.iter().map(kept).collect::<Vec<_>>(), vec![12, 12]);
}

async fn a_paused_partition_delivers_nothing_and_goes_on_where_it_was(stage: &Stage) {
    let topic = stage.topic(2).await;
    let mut member = stage.join_new(&topic).await;
    let owned = member.own(2).await;
    stage.number(&topic, 0, 0..3).await;
    member.take(3).await;
    stage.number(&topic, 0, 3..6).await;
    // What may lie ready by now does not come once it is paused.
    member.control().pause(&owned[0], true);
    stage.number(&topic, 1, 100..103).await;
    member.until("other partitions are delivered", |w| w.numbers().contains(&102)).await;
    member.idle(QUIET).await;
    let promise = "from the next poll on nothing comes of a paused partition";
    same(promise, member.numbers(), vec![0, 1, 2, 100, 101, 102]);
    stage.number(&topic, 0, 6..8).await;
    member.control().pause(&owned[0], false);
    member.until("a partition goes on after its pause", |w| w.numbers().contains(&7)).await;
    member.idle(QUIET).await;
    let of_first: Vec<_> = member.got().filter(|got| got.of.partition == 0).map(Got::number).collect();
    same("a partition goes on where it was", of_first, (0..8).collect::<Vec<_>>());
}

async fn a_pause_keeps_membership_epoch_and_what_is_in_flight(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..4).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    let of = member.take(4).await[0].of.clone();
    member.control().pause(&of, true);
    member.idle(QUIET).await;
    same("a pause keeps what is owned, and its epoch", member.owned(), vec![of.clone()]);
    let described = stage.describe_group(&subscription.group).await;
    same("a pause keeps the member in the group", described.members.len(), 1);
    member.control().ack(&of, &positions[..2]).ought("what is in flight of a paused partition can be acked");
    super::settle::flush(&member).await;
    let seen = stage.group_partition(&subscription.group, &topic, 0).await;
    same("acks of a paused partition take effect", seen.position, Some(positions[2]));
    member.control().pause(&of, false);
    member.idle(QUIET).await;
    same("what is in flight does not come again after a pause", member.numbers(), vec![0, 1, 2, 3]);
}

async fn a_pause_of_what_is_not_owned_does_nothing(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await;
    let of = member.own(1).await.remove(0);
    let control = member.control();
    control.pause(&Owned { topic: stage.no_topic(), ..of.clone() }, true);
    control.pause(&Owned { partition: 7, ..of.clone() }, true);
    control.pause(&Owned { epoch: crate::Epoch(1), ..of }, true);
    stage.number(&topic, 0, 0..3).await;
    member.until("a pause of what is not owned does nothing", |w| w.got().count() >= 3).await;
}

async fn nothing_is_lost_with_a_future_that_is_dropped(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await;
    let mut reader = stage.follow(&topic).await;
    let mut seen: [Vec<Event>; 2] = Default::default();
    for i in 0..40 {
        stage.put(at(&topic, 0), vec![text(i)]).await;
        for (watched, seen) in [&mut member, &mut reader].into_iter().zip(&mut seen) {
            // Futures that are polled once and dropped, and one that is dropped while it waits.
            for _ in 0..3 {
                let once = poll_fn(|cx| Poll::Ready(watched.poll(cx))).await;
                if let Poll::Ready(event) = once {
                    seen.push(event.ought("a consumer or reader goes on"));
                }
            }
            let short = timeout(Duration::from_millis(1), poll_fn(|cx| watched.poll(cx)));
            if let Ok(event) = short.await {
                seen.push(event.ought("a consumer or reader goes on"));
            }
        }
    }
    for (watched, seen) in [&mut member, &mut reader].into_iter().zip(seen) {
        let mut numbers: Vec<usize> = seen.into_iter().flat_map(numbers_of).collect();
        let before = numbers.len();
        watched.until("all is delivered", |w| before + w.got().count() >= 40).await;
        numbers.extend(watched.numbers());
        same(
            "nothing is lost or repeated with a future that is dropped",
            numbers,
            (0..40).collect::<Vec<_>>(),
        );
    }
}

fn numbers_of(event: Event) -> Vec<usize> {
    let Event::Batch(batch) = event else { return Vec::new() };
    let payloads = batch.deliveries.into_iter().filter_map(|delivery| delivery.message.payload);
    payloads.filter_map(|payload| std::str::from_utf8(&payload).ok()?.parse().ok()).collect()
}

async fn the_last_one_who_polled_is_woken(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await;
    let mut reader = stage.follow(&topic).await;
    for watched in [&mut member, &mut reader] {
        watched.until("who reads catches up", |w| w.caught_up().len() == 1).await;
    }
    for watched in [&mut member, &mut reader] {
        watched.idle(QUIET).await;
        // Somebody polls and goes away; who polls after that is woken.
        let gone = watched.poll(&mut Context::from_waker(Waker::noop()));
        promised(gone.is_pending(), "nothing comes where nothing is published", || format!("{gone:?}"));
        let (broker, to) = (stage.broker(), at(&topic, 0));
        let publishing = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            broker.publish(&to, vec![text(0)]).await
        });
        let start = Instant::now();
        let event = timeout(PATIENCE, poll_fn(|cx| watched.poll(cx))).await;
        let in_time = event.is_ok() && start.elapsed() < PATIENCE / 4;
        promised(in_time, "the last one who polled is woken", || {
            format!("nobody after {:?}", start.elapsed())
        });
        within("publish answers", publishing)
            .await
            .ought("publish answers")
            .into_result()
            .ought("it is acked");
    }
}
