//! Checks of the administration of topics.
//!
//! Not here: the administration of groups (`group_admin.rs`), what a purge does to who reads (`gaps.rs`).

use super::{
    promise::{Ought, names, promised, refused, same},
    stage::{Stage, within},
    suite::group,
};
use crate::{ErrorKind, Health, Retention, Start, Topic, TopicSpec};
use std::sync::atomic::{AtomicBool, Ordering};

group! { "admin":
    "" a_topic_that_was_made_can_be_used_at_once;
    "" a_topic_that_exists_is_not_made_again;
    "" a_number_of_partitions_that_cannot_be_is_refused;
    "" what_cannot_be_kept_is_refused [NoCompaction];
    "" a_topic_that_does_not_exist_is_told_by_its_name;
    "" topics_are_listed_by_name;
    "" a_description_tells_where_a_partition_begins_and_ends;
    "" a_topic_grows_and_does_not_shrink;
    "" a_purge_names_what_does_not_exist;
    "" a_topic_in_use_is_not_deleted_and_its_groups_are_named;
    "" a_delete_that_is_refused_is_not_seen;
    "" a_deleted_topic_is_gone;
    "" a_broker_that_works_says_so;
    "" statistics_count_what_happened;
}

async fn a_topic_that_was_made_can_be_used_at_once(stage: &Stage) {
    let topic = stage.no_topic();
    let broker = stage.broker();
    let spec = TopicSpec { partitions: 3, retention: Retention::default() };
    within("create answers", broker.admin().create_topic(&topic, spec.clone()))
        .await
        .ought("a topic can be made");
    let described = stage.describe(&topic).await;
    same("a topic is what was asked for", described.spec, spec);
    same("each partition is described", described.partitions.len(), 3);
    stage.number(&topic, 2, 0..1).await;
    let mut member = stage.join_new(&topic).await;
    member.take(1).await;
}

async fn a_topic_that_exists_is_not_made_again(stage: &Stage) {
    let topic = stage.topic(2).await;
    stage.number(&topic, 1, 0..2).await;
    let broker = stage.broker();
    let promise = "a topic that exists is not made again";
    let again = within(promise, broker.admin().create_topic(&topic, TopicSpec::partitions(5))).await;
    names(promise, &refused(promise, again, ErrorKind::Exists), topic.as_str());
    same("it stays as it was", stage.describe(&topic).await.partitions.len(), 2);
    same("it keeps what is in it", stage.content(&topic).await.len(), 2);
}

async fn a_number_of_partitions_that_cannot_be_is_refused(stage: &Stage) {
    let broker = stage.broker();
    for partitions in [0, 4097, u32::MAX] {
        let topic = stage.no_topic();
        let promise = "a topic has 1 to 4,096 partitions";
        let made =
            within(promise, broker.admin().create_topic(&topic, TopicSpec::partitions(partitions))).await;
        refused(promise, made, ErrorKind::Invalid);
        let described = within("describe answers", broker.admin().describe_topic(&topic)).await;
        refused("what was refused does not exist", described, ErrorKind::NotFound);
    }
}

async fn what_cannot_be_kept_is_refused(stage: &Stage) {
    let broker = stage.broker();
    let spec = TopicSpec { partitions: 1, retention: Retention { compact: true, ..Retention::default() } };
    let promise = "what a backend cannot keep is refused";
    let made = within(promise, broker.admin().create_topic(&stage.no_topic(), spec)).await;
    names(promise, &refused(promise, made, ErrorKind::Unsupported), "compact");
}

async fn a_topic_that_does_not_exist_is_told_by_its_name(stage: &Stage) {
    let missing = stage.no_topic();
    let broker = stage.broker();
    let admin = broker.admin();
    let promise = "what does not exist is told by its name";
    let errors = [
        refused(promise, within(promise, admin.describe_topic(&missing)).await, ErrorKind::NotFound),
        refused(promise, within(promise, admin.grow_topic(&missing, 4)).await, ErrorKind::NotFound),
        refused(promise, within(promise, admin.delete_topic(&missing)).await, ErrorKind::NotFound),
        refused(
            promise,
            within(promise, admin.purge_topic(&missing, None, Start::Latest)).await,
            ErrorKind::NotFound,
        ),
    ];
    for error in errors {
        names(promise, &error, missing.as_str());
    }
}

async fn topics_are_listed_by_name(stage: &Stage) {
    let (one, two) = (stage.topic(1).await, stage.topic(1).await);
    let broker = stage.broker();
    let listed = within("topics answers", broker.admin().topics()).await.ought("topics can be listed");
    for topic in [&one, &two] {
        let times = listed.iter().filter(|listed| *listed == topic).count();
        same(&format!("{topic} is listed once"), times, 1);
    }
    promised(listed.is_sorted(), "topics are sorted by name", || format!("{listed:?}"));
    let gone = !listed.contains(&stage.no_topic());
    promised(gone, "what does not exist is not listed", || format!("{listed:?}"));
}

async fn a_description_tells_where_a_partition_begins_and_ends(stage: &Stage) {
    let topic = stage.topic(2).await;
    let empty = stage.describe(&topic).await.partitions;
    same("an empty partition ends where it begins", empty[0].low, empty[0].end);
    let positions = stage.number(&topic, 1, 0..5).await;
    let described = stage.describe(&topic).await.partitions;
    same("what was not written to is empty", &described[0], &empty[0]);
    let told = &described[1];
    promised(told.low <= positions[0], "a partition begins at its first message or before", || {
        format!("{told:?}")
    });
    let (last, end) = (positions[4], told.end);
    promised(end > last, "a partition ends behind its last message", || {
        format!("{end} where {last} is the last")
    });
    promised(told.messages.is_none_or(|n| n == 5), "messages are counted, where known", || {
        format!("{told:?}")
    });
    let next = stage.number(&topic, 1, 5..6).await[0];
    promised(next >= end, "the end is where the next message is written", || format!("{next} after {end}"));
    let broker = stage.broker();
    within("purge answers", broker.admin().purge_topic(&topic, Some(1), Start::At(positions[3])))
        .await
        .ought("a topic can be purged");
    let told = stage.describe(&topic).await.partitions.remove(1);
    same("after a purge a partition begins there", told.low, positions[3]);
    promised(told.messages.is_none_or(|n| n == 3), "messages are counted, where known", || {
        format!("{told:?}")
    });
}

async fn a_topic_grows_and_does_not_shrink(stage: &Stage) {
    let topic = stage.topic(2).await;
    stage.number(&topic, 1, 0..2).await;
    let broker = stage.broker();
    let grow = async |partitions| within("grow answers", broker.admin().grow_topic(&topic, partitions)).await;
    grow(4).await.ought("a topic can grow");
    same("a topic that grew has what was asked for", stage.describe(&topic).await.partitions.len(), 4);
    grow(4).await.ought("a topic that is large enough stays");
    refused("a topic does not shrink", grow(3).await, ErrorKind::Invalid);
    refused("a topic has 4,096 partitions at the most", grow(4097).await, ErrorKind::Invalid);
    same("a refused growth changes nothing", stage.describe(&topic).await.partitions.len(), 4);
    same("a topic that grew is described as such", stage.describe(&topic).await.spec.partitions, 4);
    stage.number(&topic, 3, 2..3).await;
    same("a topic that grew keeps what is in it", stage.content(&topic).await.len(), 3);
}

async fn a_purge_names_what_does_not_exist(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..2).await;
    let broker = stage.broker();
    let promise = "a purge of a partition that does not exist is refused";
    let purged = within(promise, broker.admin().purge_topic(&topic, Some(1), Start::Latest)).await;
    refused(promise, purged, ErrorKind::NotFound);
    same("a refused purge removes nothing", stage.content(&topic).await.len(), 2);
}

async fn a_topic_in_use_is_not_deleted_and_its_groups_are_named(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..2).await;
    let subscription = crate::Subscription::new(stage.group(), [topic.clone()]);
    let mut member = stage.join(subscription.clone()).await;
    member.take(2).await;
    let broker = stage.broker();
    let promise = "a topic with members on it is not deleted, and their group is named";
    let deleted = within(promise, broker.admin().delete_topic(&topic)).await;
    names(promise, &refused(promise, deleted, ErrorKind::Conflict), subscription.group.as_str());
    stage.number(&topic, 0, 2..3).await;
    member.take(3).await;
    promised(member.gone().is_empty(), "a refused delete changes nothing", || member.told());
}

async fn a_delete_that_is_refused_is_not_seen(stage: &Stage) {
    let topic = stage.topic(1).await;
    let mut member = stage.join_new(&topic).await;
    stage.number(&topic, 0, 0..1).await;
    member.take(1).await;
    let broker = stage.broker();
    let promise = "a topic is there while a delete of it is refused";
    let over = AtomicBool::new(false);
    let delete = async {
        for _ in 0..5 {
            let deleted = within(promise, broker.admin().delete_topic(&topic)).await;
            refused("a topic with members on it is not deleted", deleted, ErrorKind::Conflict);
        }
        over.store(true, Ordering::Relaxed);
    };
    let look = async {
        while !over.load(Ordering::Relaxed) {
            within(promise, broker.admin().describe_topic(&topic)).await.ought(promise);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(delete, look);
}

async fn a_deleted_topic_is_gone(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..2).await;
    let broker = stage.broker();
    let admin = broker.admin();
    within("delete answers", admin.delete_topic(&topic)).await.ought("a topic nobody uses can be deleted");
    let described = within("describe answers", admin.describe_topic(&topic)).await;
    refused("a deleted topic is gone", described, ErrorKind::NotFound);
    let listed: Vec<Topic> = within("topics answers", admin.topics()).await.ought("topics can be listed");
    promised(!listed.contains(&topic), "a deleted topic is not listed", || format!("{listed:?}"));
    stage.create(&topic, 1).await;
    same("a topic that was made again is empty", stage.content(&topic).await.len(), 0);
}

async fn a_broker_that_works_says_so(stage: &Stage) {
    let health = within("health answers within 5 s", stage.broker().health()).await;
    same("a broker that works is up", health, Health::Up);
    let capabilities = stage.broker().capabilities();
    promised(!capabilities.backend.is_empty(), "a backend has a name", || format!("{capabilities:?}"));
    same("capabilities do not change", stage.broker().capabilities(), capabilities);
}

async fn statistics_count_what_happened(stage: &Stage) {
    let topic = stage.topic(1).await;
    let before = stage.broker().statistics();
    stage.number(&topic, 0, 0..5).await;
    let refused = stage.broker().publish(&(&stage.no_topic()).into(), vec![super::stage::text(1)]);
    let _ = within("publish answers", refused).await;
    let mut member = stage.join_new(&topic).await;
    let got = member.take(5).await;
    member.control().ack(&got[0].of, &[got[0].position, got[1].position]).ought("they can be acked");
    super::settle::flush(&member).await;
    let mut reader = stage.follow(&topic).await;
    reader.take(5).await;
    let now = stage.broker().statistics();
    let counted = [
        ("published", now.published - before.published, 5),
        ("not written", now.not_written - before.not_written, 1),
        ("unknown", now.unknown - before.unknown, 0),
        ("delivered", now.delivered - before.delivered, 5),
        ("read", now.read - before.read, 5),
        ("acked", now.acked - before.acked, 2),
        ("assigned", now.assigned - before.assigned, 1),
        ("gone", now.gone - before.gone, 0),
        ("consumers", now.consumers, before.consumers + 1),
        ("readers", now.readers, before.readers + 1),
    ];
    for (what, seen, expected) in counted {
        same(&format!("statistics count what happened: {what}"), seen, expected);
    }
}
