//! Checks of what is kept: by age, by bytes, never past what a live group has not finished; and of what a topic at its bound answers.
//!
//! Not here: what is removed by a purge (`gaps.rs`, `admin.rs`).

use super::{
    promise::{Ought, names, not_written, promised, same},
    settle::flush,
    stage::{Stage, at, eventually, within},
    suite::group,
    watch::{Got, Watched},
};
use crate::{
    ErrorKind, GapReason, Group, Message, Published, Retention, Start, Subscription, Topic, TopicSpec,
};
use std::time::Duration;
use tokio::time::sleep;

group! { "retention":
    "" what_is_too_old_goes_once_live_groups_have_finished_it [Retention];
    "" what_is_too_old_stays_until_a_live_group_has_finished_it [Retention];
    "" a_group_that_was_sought_in_one_partition_keeps_the_others_too [Retention];
    "" no_more_bytes_stay_than_the_bound_and_a_piece [Retention];
    "" the_newest_message_stays_however_small_the_bound [Retention];
    "" a_reader_is_told_from_where_to_where_retention_removed [Retention];
    "" at_its_bound_a_topic_takes_no_more_while_a_live_group_lags [Retention];
    "" at_its_bound_a_topic_keeps_what_a_live_group_has_not_finished [Retention];
    "" a_topic_at_its_bound_goes_on_when_the_group_has_finished [Retention];
}

/// The pieces of these checks, in bytes.
pub(super) const PIECE: u64 = 1000;
/// The payload of their messages, in bytes.
const PAYLOAD: usize = 100;
const AGE: Duration = Duration::from_secs(2);

/// A topic that keeps that.
async fn keeping(stage: &Stage, partitions: u32, retention: Retention) -> Topic {
    let topic = stage.no_topic();
    let promise = "a topic with a bound can be made";
    let spec = TopicSpec { partitions, retention };
    within(promise, stage.broker().admin().create_topic(&topic, spec)).await.ought(promise);
    topic
}

async fn aged(stage: &Stage, partitions: u32) -> Topic {
    keeping(stage, partitions, Retention { age: Some(AGE), ..Retention::default() }).await
}

async fn bounded(stage: &Stage, bytes: u64) -> Topic {
    keeping(stage, 1, Retention { bytes: Some(bytes), ..Retention::default() }).await
}

/// A message of [`PAYLOAD`] bytes that begins with the number.
fn sized(number: usize) -> Message {
    Message::builder().payload(format!("{number:0PAYLOAD$}")).build()
}

/// Publishes a message, at a pace at which pieces can be ended in time.
async fn put(stage: &Stage, topic: &Topic, message: Message) -> Published {
    sleep(Duration::from_millis(5)).await;
    let outcomes = within("publish answers", stage.broker().publish(&at(topic, 0), vec![message])).await;
    outcomes.0.into_iter().next().ought("publish answers one outcome per message")
}

/// Publishes to a topic of that bound, whose group lags, until it is at its bound; what was taken.
async fn fill_to_bound(stage: &Stage, topic: &Topic, group: &Group, bytes: u64) -> usize {
    let promise = "a topic that holds its bound and a piece takes no more while a live group lags";
    let mut taken = 0;
    let (message, refused) = loop {
        let message = sized(taken);
        match put(stage, topic, message.clone()).await {
            Published::Acked { .. } => taken += 1,
            other => break (message, other),
        }
        // How large a piece gets that cannot be ended in time is not promised.
        let seen = || format!("{taken} messages of {PAYLOAD} bytes");
        promised(taken * PAYLOAD < 4 * bytes as usize, promise, seen);
    };
    not_written(promise, &refused, ErrorKind::Throttled, &message);
    if let Published::NotWritten(failed) = refused {
        names("a refusal names the group that lags", &failed.error, group.to_string());
    }
    promised(taken * 2 * PAYLOAD >= bytes as usize, "a topic takes what its bound allows", || {
        format!("{taken} messages of {PAYLOAD} bytes where {bytes} bytes are allowed")
    });
    taken
}

/// Joins, finishes all of that many messages, and stays.
async fn finish(stage: &Stage, subscription: Subscription, count: usize) -> Watched {
    let mut member = stage.join(subscription).await.acking();
    member.take(count).await;
    flush(&member).await;
    member
}

async fn leave(mut member: Watched) {
    within("close answers", member.control().close(Duration::ZERO)).await;
    member.ended("a closed consumer ends").await;
}

async fn what_is_too_old_goes_once_live_groups_have_finished_it(stage: &Stage) {
    let topic = aged(stage, 1).await;
    // There before the messages are, so that none of them is too old for it.
    let mut member = stage.join_new(&topic).await.acking();
    member.own(1).await;
    let positions = stage.number(&topic, 0, 0..10).await;
    member.take(10).await;
    flush(&member).await;
    let promise = "what is older than the age goes, when each live group has finished it";
    let end = positions[9].next();
    eventually(promise, async || stage.describe(&topic).await.partitions[0].low, |low| *low == end).await;
    same(promise, stage.content(&topic).await.len(), 0);
}

async fn what_is_too_old_stays_until_a_live_group_has_finished_it(stage: &Stage) {
    let topic = aged(stage, 1).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    member.own(1).await;
    let positions = stage.number(&topic, 0, 0..10).await;
    let got = member.take(10).await;
    member.control().ack(&got[0].of, &positions[..5]).ought("what was delivered can be acked");
    leave(member).await;
    sleep(3 * AGE).await;
    let next = finish(stage, subscription, 5).await;
    let promise = "what a live group has not finished stays, however old, though it has no member";
    same(promise, next.numbers(), (5..10).collect::<Vec<_>>());
    same(promise, next.gaps(), Vec::new());
}

async fn a_group_that_was_sought_in_one_partition_keeps_the_others_too(stage: &Stage) {
    let topic = aged(stage, 2).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let broker = stage.broker();
    let sought = broker.admin().seek_group(&subscription.group, &topic, Some(0), Start::Latest);
    within("seek answers", sought).await.ought("a group can be sought in one partition");
    stage.number(&topic, 1, 0..10).await;
    sleep(3 * AGE).await;
    let member = finish(stage, subscription, 10).await;
    let promise = "a group that has a position in one partition keeps and gets all of the others";
    same(promise, member.numbers(), (0..10).collect::<Vec<_>>());
    same(promise, member.gaps(), Vec::new());
}

async fn no_more_bytes_stay_than_the_bound_and_a_piece(stage: &Stage) {
    let bound = 2 * PIECE;
    let topic = bounded(stage, bound).await;
    let promise = "no more bytes stay than the bound and a piece, and the newest are among them";
    let mut published = 0;
    let publish_and_see = async || {
        for _ in 0..50 {
            let outcome = put(stage, &topic, sized(published)).await;
            let acked = matches!(outcome, Published::Acked { .. });
            promised(acked, "a topic that no group consumes is never at its bound", || {
                format!("{outcome:?}")
            });
            published += 1;
        }
        let kept: Vec<usize> = stage.content(&topic).await.iter().map(Got::number).collect();
        same(promise, kept.clone(), (published - kept.len()..published).collect::<Vec<_>>());
        kept.len() * PAYLOAD
    };
    eventually(promise, publish_and_see, |kept| *kept <= (bound + PIECE) as usize).await;
}

async fn the_newest_message_stays_however_small_the_bound(stage: &Stage) {
    let topic = bounded(stage, 1).await;
    for number in 0..20 {
        stage.put(at(&topic, 0), vec![sized(number)]).await;
        let kept = stage.content(&topic).await;
        let promise = "the newest message of a topic stays, however small its bound";
        same(promise, kept.last().map(Got::number), Some(number));
    }
}

async fn a_reader_is_told_from_where_to_where_retention_removed(stage: &Stage) {
    let topic = bounded(stage, PIECE).await;
    let mut reader = stage.follow(&topic).await;
    stage.put(at(&topic, 0), vec![sized(0)]).await;
    let first = reader.take(1).await.remove(0);
    // More than it may hold in its buffers.
    for batch in 0..300 {
        stage.put(at(&topic, 0), (batch * 10..batch * 10 + 10).map(sized).collect()).await;
    }
    let removed = "retention removes what no group has to finish";
    let behind = first.position.next();
    let low = async || stage.describe(&topic).await.partitions[0].low;
    // And has come to rest: what it removes while the reader reads on is another gap.
    let rests = async || {
        let before = low().await;
        // Several times as long as a broker takes from one look to the next.
        sleep(Duration::from_secs(4)).await;
        before > behind && low().await == before
    };
    eventually(removed, rests, |rests| *rests).await;
    reader.until("a reader goes on behind what was removed", |r| r.numbers().contains(&2999)).await;
    let promise = "a reader is told by one gap from where to where retention removed what it had not seen";
    let gaps = reader.gaps();
    same(promise, gaps.iter().map(|gap| gap.3).collect::<Vec<_>>(), vec![GapReason::Trimmed]);
    let got: Vec<_> = reader.got().cloned().collect();
    // What was read ahead comes yet.
    let (from, to) = (gaps[0].1.ought(promise), gaps[0].2.ought(promise));
    promised(from > first.position && from <= to, promise, || format!("{from} to {to}"));
    let before: Vec<_> = got.iter().filter(|got| got.position < from).collect();
    same(promise, before.last().map(|last| last.position.next()), Some(from));
    same(promise, got.get(before.len()).map(|next| next.position), Some(to));
}

async fn at_its_bound_a_topic_takes_no_more_while_a_live_group_lags(stage: &Stage) {
    let bound = 3 * PIECE;
    let topic = bounded(stage, bound).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    member.own(1).await;
    // Though it has no member just now.
    leave(member).await;
    fill_to_bound(stage, &topic, &subscription.group, bound).await;
}

async fn at_its_bound_a_topic_keeps_what_a_live_group_has_not_finished(stage: &Stage) {
    let bound = 4 * PIECE;
    let topic = bounded(stage, bound).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    member.own(1).await;
    let taken = fill_to_bound(stage, &topic, &subscription.group, bound).await;
    member.take(taken).await;
    leave(member).await;
    let promise = "a topic at its bound keeps what a live group has not finished";
    let again = finish(stage, subscription, taken).await;
    same(promise, again.numbers(), (0..taken).collect::<Vec<_>>());
    same(promise, again.gaps(), Vec::new());
}

async fn a_topic_at_its_bound_goes_on_when_the_group_has_finished(stage: &Stage) {
    let bound = 5 * PIECE;
    let topic = bounded(stage, bound).await;
    let subscription = Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    member.own(1).await;
    let taken = fill_to_bound(stage, &topic, &subscription.group, bound).await;
    leave(member).await;
    let mut member = finish(stage, subscription, taken).await;
    let promise = "a topic at its bound goes on when the group has finished what would go";
    let again = async || matches!(put(stage, &topic, sized(taken)).await, Published::Acked { .. });
    eventually(promise, again, |acked| *acked).await;
    member.take(taken + 1).await;
    same(promise, member.numbers(), (0..=taken).collect::<Vec<_>>());
}
