//! Administration of topics.
//!
//! A change is made by the controller, and each node learns of it a moment later: so creating and deleting answer when all nodes that live know. Topics that
//! Kafka keeps for itself are not shown, and not touched. Kafka cannot hold a topic while it is looked at: a member that joins between the look at its groups and the end
//! of a topic loses it. Not here: a controller that does not answer (`change.rs`), groups (`group_admin.rs`), what is kept how (`retention.rs`), what is known of topics
//! (`topics.rs`).

use super::{
    broker::{Kafka, Shared},
    change::{change, perhaps},
    delay,
    failure::{BACKEND, failed_by_crate, not_found, refused},
    group_admin,
    layout::OVERHEAD,
    offsets,
    raw::{Code, Trouble},
    retention::{self, check_partitions},
    start::one_place,
};
use crate::{
    Admin, Error, ErrorKind, Group, GroupInfo, MessageId, Result, Start, Topic, TopicInfo, TopicSpec,
};
use async_trait::async_trait;
use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(25);
/// How long the nodes may take to learn of a change.
const KNOWN: Duration = Duration::from_secs(5);
/// How long one of them may take to answer.
const NODE: Duration = Duration::from_secs(2);
/// How long partitions may have no leader.
const LED: Duration = Duration::from_secs(15);
/// How long the name of a deleted topic may be taken.
const FREED: Duration = Duration::from_secs(5);
/// The pause before something is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// Topics that Kafka keeps for itself.
const KAFKAS: &[&str] =
    &["__cluster_metadata", "__consumer_offsets", "__share_group_state", "__transaction_state"];

#[async_trait]
impl Admin for Kafka {
    async fn create_topic(&self, topic: &Topic, spec: TopicSpec) -> Result<()> {
        let shared = &self.shared;
        let created = shared.call(create(shared, topic, &spec, None)).await.map_err(perhaps);
        during(created, || format!("create topic {topic:?}"))
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo> {
        let shared = &self.shared;
        during(shared.call(describe(shared, topic)).await, || format!("describe topic {topic:?}"))
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        let shared = &self.shared;
        during(shared.call(list(shared)).await, || "list topics".into())
    }

    async fn grow_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        let shared = &self.shared;
        let grown = shared.call(grow(shared, topic, partitions)).await.map_err(perhaps);
        during(grown, || format!("grow topic {topic:?}"))
    }

    async fn purge_topic(&self, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()> {
        let shared = &self.shared;
        let purged = shared.call(purge(shared, topic, partition, before)).await;
        during(purged, || format!("purge topic {topic:?}"))
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        let shared = &self.shared;
        let deleted = shared.call(async {
            let life = shared.topics.describe(topic).await?.life;
            delete(shared, topic).await?;
            shared.delay.deleted(&delay::below(shared), topic, life).await;
            Ok(())
        });
        during(deleted.await.map_err(perhaps), || format!("delete topic {topic:?}"))
    }

    async fn cancel_delayed(&self, topic: &Topic, id: MessageId) -> Result<bool> {
        let shared = &self.shared;
        let cancelled = shared.call(shared.delay.cancel(&delay::below(shared), topic, id)).await;
        during(cancelled, || format!("cancel message {id} of topic {topic:?}"))
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let shared = &self.shared;
        let mut groups = during(shared.call(group_admin::list(shared)).await, || "list groups".into())?;
        groups.retain(|group| !crate::delay::is_own_group(group));
        Ok(groups)
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupInfo> {
        let shared = &self.shared;
        during(shared.call(group_admin::describe(shared, group)).await, || {
            format!("describe group {group:?}")
        })
    }

    async fn seek_group(
        &self,
        group: &Group,
        topic: &Topic,
        partition: Option<u32>,
        to: Start,
    ) -> Result<()> {
        let shared = &self.shared;
        let sought = shared.call(group_admin::seek(shared, group, topic, partition, to)).await;
        during(sought, || format!("seek group {group:?} in topic {topic:?}"))
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        let shared = &self.shared;
        during(shared.call(group_admin::delete(shared, group)).await, || format!("delete group {group:?}"))
    }
}

fn during<T>(result: Result<T>, what: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|error| error.during(what()).on(BACKEND))
}

/// Refuses what Kafka keeps for itself.
///
/// # Errors
/// `Unsupported`.
fn not_kafkas(topic: &Topic) -> Result<()> {
    if !KAFKAS.contains(&topic.as_str()) {
        return Ok(());
    }
    let context = format!("{topic:?} is what Kafka keeps for itself; choose another name");
    Err(Error::new(ErrorKind::Unsupported, context))
}

fn exists(topic: &Topic) -> Error {
    Error::new(ErrorKind::Exists, format!("topic {topic:?} exists; use it, or choose another name"))
}

/// A topic is there after a server did not answer that was to make it.
fn whose(shared: &Shared, topic: &Topic) -> Error {
    let context = format!(
        "kafka {} did not answer in time at first, and topic {topic:?} is there by now, made by this call or by somebody else",
        shared.servers()
    );
    Error::new(ErrorKind::Unavailable, context)
}

/// Makes a topic; where it is told, one that takes messages of that many bytes.
pub(super) async fn create(
    shared: &Arc<Shared>,
    topic: &Topic,
    spec: &TopicSpec,
    max_message: Option<usize>,
) -> Result<()> {
    check_partitions(spec.partitions)?;
    not_kafkas(topic)?;
    let configs = retention::configs(spec);
    let min_insync = shared.settings.min_insync_replicas.map(|count| count.to_string());
    let mut new = NewTopic::new(
        topic.as_str(),
        i32::try_from(spec.partitions).unwrap_or(i32::MAX),
        TopicReplication::Fixed(shared.settings.replication.map_or(-1, i32::from)),
    );
    for (name, value) in &configs {
        new = new.set(name, value);
    }
    let max_message = max_message.map(|bytes| (bytes + OVERHEAD).to_string());
    if let Some(bytes) = &max_message {
        new = new.set("max.message.bytes", bytes);
    }
    if let Some(count) = &min_insync {
        new = new.set("min.insync.replicas", count);
    }
    let until = Instant::now() + FREED;
    loop {
        let said = change(shared, |options| shared.admin.create_topics([&new], &options)).await?;
        let Err(code) = said.answer else { break };
        if code != Code::TOPIC_ALREADY_EXISTS {
            return Err(refused(shared.servers(), &format!("topic {topic:?}"), code));
        }
        if said.doubted {
            return Err(whose(shared, topic));
        }
        // The name of one that was deleted a moment ago is taken for a moment yet.
        match shared.topics.describe(topic).await {
            Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < until => sleep(PAUSE).await,
            _ => return Err(exists(topic)),
        }
    }
    shared.topics.forget(topic);
    known(shared, topic).await?;
    led(shared, topic, spec.partitions).await
}

/// Waits until each node that lives knows the topic.
async fn known(shared: &Arc<Shared>, topic: &Topic) -> Result<()> {
    let until = Instant::now() + KNOWN;
    for node in nodes(shared).await? {
        // Who may not ask how topics are configured does not find out, and goes on.
        while !knows(shared, topic, node).await && Instant::now() < until {
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Waits until each node that lives knows that the topic is gone.
async fn gone(shared: &Arc<Shared>, topic: &Topic) -> Result<()> {
    let until = Instant::now() + KNOWN;
    for node in nodes(shared).await? {
        while knows(shared, topic, node).await {
            if Instant::now() > until {
                let context = format!(
                    "node {node} of kafka {} still knows topic {topic:?}, which is deleted; see whether it keeps up with the controller",
                    shared.servers()
                );
                return Err(Error::new(ErrorKind::Unavailable, context));
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// The numbers of the nodes that live.
async fn nodes(shared: &Arc<Shared>) -> Result<Vec<i32>> {
    let nodes = shared.ask(|admin, wait| admin.nodes(wait)).await?;
    Ok(nodes.iter().map(|node| node.id).collect())
}

/// Whether a node knows the topic: whether it says how that is configured. (The crate does not tell why it does not.)
async fn knows(shared: &Shared, topic: &Topic, node: i32) -> bool {
    let options = AdminOptions::new().request_timeout(Some(NODE)).broker_id(node);
    let answer = shared.admin.describe_configs([&ResourceSpecifier::Topic(topic.as_str())], &options).await;
    let first = answer.ok().and_then(|all| all.into_iter().next()?.ok());
    first.is_some_and(|resource| !resource.entries.is_empty())
}

/// Waits until each partition has a leader that answers for it. A node is said to lead one a moment before it takes anything for it; what is published in
/// that moment may not be acked (`raw/producer.rs`).
async fn led(shared: &Arc<Shared>, topic: &Topic, partitions: u32) -> Result<()> {
    let until = Instant::now() + LED;
    let all: Vec<u32> = (0..partitions).collect();
    loop {
        let led = async {
            let described = shared.topics.describe(topic).await?;
            let led = described.partitions.iter().filter(|partition| partition.led).count();
            if described.count() < partitions || led < partitions as usize {
                return Ok(false);
            }
            offsets::extents(shared, topic, described.life, &all).await.map(|_| true)
        };
        match led.await {
            Ok(true) => return Ok(()),
            // One that was asked stands still: then another one.
            Err(error) if error.is_retryable() && Instant::now() < until => sleep(PAUSE).await,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ if Instant::now() > until => {
                let context = format!(
                    "partitions of topic {topic:?} have no leader; see which nodes of kafka {} run",
                    shared.servers()
                );
                return Err(Error::new(ErrorKind::Unavailable, context));
            }
            _ => sleep(PAUSE).await,
        }
    }
}

async fn describe(shared: &Arc<Shared>, topic: &Topic) -> Result<TopicInfo> {
    let found = offsets::ask(shared, topic, None).await?;
    let config = &found.described.config;
    // Offsets of what was compacted are there no more.
    let counted = !config.compact;
    Ok(TopicInfo {
        spec: TopicSpec {
            partitions: found.described.count(),
            retention: crate::Retention { age: config.age, bytes: config.bytes, compact: config.compact },
        },
        durability: found.described.durability(),
        max_message: found.described.max_message(),
        delayed: shared.delay.count(&delay::below(shared), topic).await?,
        partitions: found.extents.iter().map(|(_, extent)| extent.info(counted)).collect(),
    })
}

async fn list(shared: &Arc<Shared>) -> Result<Vec<Topic>> {
    let asked = Arc::clone(shared);
    let listed = tokio::task::spawn_blocking(move || {
        let metadata = asked.admin.inner().fetch_metadata(None, ANSWER);
        let metadata = metadata.map_err(|error| failed_by_crate(asked.servers(), &error))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect::<Vec<_>>())
    });
    let names = listed.await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))??;
    Ok(ours(&names))
}

/// The topics that are not Kafka's own, sorted.
fn ours(names: &[String]) -> Vec<Topic> {
    let ours = names.iter().filter(|name| !KAFKAS.contains(&name.as_str()));
    let mut topics: Vec<Topic> = ours.filter_map(|name| Topic::new(name).ok()).collect();
    topics.sort();
    topics
}

pub(super) async fn grow(shared: &Arc<Shared>, topic: &Topic, wanted: u32) -> Result<()> {
    check_partitions(wanted)?;
    not_kafkas(topic)?;
    if !grows(topic, shared.topics.describe(topic).await?.count(), wanted)? {
        return Ok(());
    }
    let new = NewPartitions::new(topic.as_str(), wanted as usize);
    let said = change(shared, |options| shared.admin.create_partitions([&new], &options)).await?;
    match said.answer {
        Ok(()) => {}
        Err(Code::UNKNOWN_TOPIC_OR_PART) => return Err(not_found(topic)),
        Err(code) => {
            // Somebody else may have been faster.
            if grows(topic, shared.topics.describe(topic).await?.count(), wanted)? {
                return Err(refused(shared.servers(), &format!("topic {topic:?}"), code));
            }
        }
    }
    shared.topics.forget(topic);
    led(shared, topic, wanted).await
}

/// Whether it has to grow for that.
///
/// # Errors
/// `Invalid` where it has more.
fn grows(topic: &Topic, there: u32, wanted: u32) -> Result<bool> {
    if wanted < there {
        let context =
            format!("topic {topic:?} has {there} partitions and cannot have {wanted}: a topic only grows");
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    Ok(wanted > there)
}

pub(super) async fn purge(
    shared: &Arc<Shared>,
    topic: &Topic,
    partition: Option<u32>,
    before: Start,
) -> Result<()> {
    not_kafkas(topic)?;
    let found = offsets::ask(shared, topic, partition).await?;
    one_place(topic, found.extents.len(), before)?;
    let starts = offsets::starts(shared, topic, &found.extents, before).await?;
    let mut before = Vec::new();
    for ((partition, extent), start) in found.extents.iter().zip(starts) {
        let (Ok(partition), Ok(offset)) = (i32::try_from(*partition), i64::try_from(start)) else { continue };
        if start > extent.low {
            before.push((partition, offset));
        }
    }
    if before.is_empty() {
        return Ok(());
    }
    let name: Arc<str> = Arc::from(topic.as_str());
    let told = shared.ask(move |admin, _| admin.delete_records(&name, &before, ANSWER)).await?;
    match told.into_iter().find_map(|(_, told)| told.err()) {
        None => Ok(()),
        Some(Trouble { code: Code::POLICY_VIOLATION, .. }) => Err(only_compacts(topic)),
        Some(Trouble { code: Code::UNKNOWN_TOPIC_OR_PART, .. }) => Err(not_found(topic)),
        Some(trouble) => Err(shared.failed(&trouble)),
    }
}

fn only_compacts(topic: &Topic) -> Error {
    let context = format!(
        "topic {topic:?} is compacted, and Kafka removes records only from topics whose cleanup.policy has `delete` in it: set it to `compact,delete`, with retention.ms and retention.bytes of -1"
    );
    Error::new(ErrorKind::Unsupported, context)
}

pub(super) async fn delete(shared: &Arc<Shared>, topic: &Topic) -> Result<()> {
    not_kafkas(topic)?;
    shared.topics.describe(topic).await?;
    let users = group_admin::users(shared, topic).await?;
    if !users.is_empty() {
        let context = format!(
            "topic {topic:?} has members of these groups on it: {}; close them first",
            users.join(", ")
        );
        return Err(Error::new(ErrorKind::Conflict, context));
    }
    let said = change(shared, |options| shared.admin.delete_topics(&[topic.as_str()], &options)).await?;
    match said.answer {
        Ok(()) => {}
        // The one that did not answer did it.
        Err(Code::UNKNOWN_TOPIC_OR_PART) if said.doubted => {}
        Err(Code::UNKNOWN_TOPIC_OR_PART) => return Err(not_found(topic)),
        Err(code) => return Err(refused(shared.servers(), &format!("topic {topic:?}"), code)),
    }
    shared.topics.forget(topic);
    gone(shared, topic).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafka_keeps_for_itself_is_not_shown_and_not_touched() {
        let names = ["b", "__consumer_offsets", "__ropeway.jobs", "a", "not a name"].map(str::to_owned);
        let shown: Vec<_> = ours(&names).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["__ropeway.jobs", "a", "b"]);
        let refused = not_kafkas(&Topic::new("__transaction_state").unwrap()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(refused.to_string().contains("__transaction_state"), "{refused}");
    }

    #[test]
    fn a_topic_only_grows() {
        let topic = Topic::new("t").unwrap();
        assert!(grows(&topic, 2, 3).unwrap() && !grows(&topic, 3, 3).unwrap());
        assert_eq!(grows(&topic, 3, 2).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
