//! Administration of topics.
//!
//! A topic spans slots of a cluster, so it is made and deleted in steps, each a script, in an order in which a step that is missing is seen:
//! a topic is seen when its description says `ready`, which comes last; it is not seen any more when it says `deleting`, which comes first.
//! Who makes a topic that was left half deleted ends that first. Not here: groups (`group_admin.rs`), what the scripts do
//! (`scripts/`).

use super::{
    broker::RedisStreams,
    commands::Told,
    description::{self, Description, State},
    follow::ZERO,
    group_admin,
    keys::PartitionKeys,
    request::Request,
    scripts,
    start::Extent,
    topics::{Topics, chosen, not_found},
};
use crate::{
    Admin, Error, ErrorKind, Group, GroupInfo, MemberInfo, MessageId, Position, Result, Start, Topic,
    TopicInfo, TopicSpec, clock,
};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// For how long a name is held for who makes a topic.
const CLAIM: Duration = Duration::from_secs(30);

#[async_trait]
impl Admin for RedisStreams {
    async fn create_topic(&self, topic: &Topic, spec: TopicSpec) -> Result<()> {
        self.call(create(Self::topics(self), topic, &spec))
            .await
            .map_err(|e| e.during(format!("create topic {topic:?}")))
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicInfo> {
        self.call(describe(self, topic)).await.map_err(|e| e.during(format!("describe topic {topic:?}")))
    }

    async fn topics(&self) -> Result<Vec<Topic>> {
        self.call(list(Self::topics(self))).await.map_err(|e| e.during("list topics"))
    }

    async fn grow_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        self.call(grow(Self::topics(self), topic, partitions))
            .await
            .map_err(|e| e.during(format!("grow topic {topic:?}")))
    }

    async fn purge_topic(&self, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()> {
        self.call(purge(Self::topics(self), topic, partition, before))
            .await
            .map_err(|e| e.during(format!("purge topic {topic:?}")))
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.call(delete(Self::topics(self), topic))
            .await
            .map_err(|e| e.during(format!("delete topic {topic:?}")))
    }

    async fn cancel_delayed(&self, topic: &Topic, id: MessageId) -> Result<bool> {
        self.call(cancel(Self::topics(self), topic, id))
            .await
            .map_err(|e| e.during(format!("cancel a message of topic {topic:?}")))
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.call(group_admin::list(Self::topics(self))).await.map_err(|e| e.during("list groups"))
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupInfo> {
        self.call(group_admin::describe(Self::topics(self), group))
            .await
            .map_err(|e| e.during(format!("describe group {group:?}")))
    }

    async fn seek_group(
        &self,
        group: &Group,
        topic: &Topic,
        partition: Option<u32>,
        to: Start,
    ) -> Result<()> {
        self.call(group_admin::seek(Self::topics(self), group, topic, partition, to))
            .await
            .map_err(|e| e.during(format!("seek group {group:?} in topic {topic:?}")))
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.call(group_admin::delete(Self::topics(self), group))
            .await
            .map_err(|e| e.during(format!("delete group {group:?}")))
    }
}

async fn create(topics: &Topics, topic: &Topic, spec: &TopicSpec) -> Result<()> {
    description::check(spec)?;
    let life = claim(topics, topic, spec).await?;
    make(topics, topic, &life, 0..spec.partitions).await?;
    let mut index = Request::default();
    index.command(&["SADD", &topics.keys.topics(), topic.as_str()]);
    topics.commands.ask(index).await?;
    let moved = shift(topics, topic, ["making", &life, "ready"], &[]).await?;
    topics.forget(topic);
    match moved {
        Shift::Moved => Ok(()),
        Shift::Is(State::Ready) => Err(exists(topic)),
        Shift::Is(_) | Shift::Gone => Err(busy(topic)),
    }
}

/// Holds the name; the life that the topic will have.
async fn claim(topics: &Topics, topic: &Topic, spec: &TopicSpec) -> Result<String> {
    if topics.look(topic).await?.is_some_and(|found| found.life.is_none()) {
        return Err(exists(topic));
    }
    let token = Uuid::new_v4().simple().to_string();
    let optional = |number: Option<u128>| number.map(|number| number.to_string()).unwrap_or_default();
    let args = [
        token,
        description::VERSION.to_owned(),
        spec.partitions.to_string(),
        optional(spec.retention.age.map(|age| age.as_millis().min(u128::from(u64::MAX)))),
        optional(spec.retention.bytes.map(u128::from)),
        CLAIM.as_millis().to_string(),
    ];
    for _ in 0..2 {
        let told = topics.commands.script(&scripts::TOPIC_CLAIM, &[topics.keys.topic(topic)], &args).await?;
        match told.word() {
            "claimed" => return Ok(told.text(1).to_owned()),
            "exists" => return Err(exists(topic)),
            "claimed-by" => return Err(busy(topic)),
            "version" => {
                return Err(description::other_version(topics.commands.server(), topic, told.text(1)));
            }
            "deleting" => end_delete(topics, topic).await?,
            _ => return Err(told.strange()),
        }
    }
    Err(busy(topic))
}

/// Makes partitions that nobody sees yet.
async fn make(topics: &Topics, topic: &Topic, life: &str, partitions: std::ops::Range<u32>) -> Result<()> {
    let keys: Vec<_> = partitions.map(|partition| topics.keys.partition(topic, partition)).collect();
    let names: Vec<_> = keys.iter().map(|keys| [keys.log().to_owned(), keys.part()]).collect();
    let args = [life];
    let calls: Vec<_> = names.iter().map(|names| (&names[..], &args[..])).collect();
    for (told, keys) in
        topics.commands.scripts(&scripts::PARTITION_MAKE, &calls).await?.into_iter().zip(&keys)
    {
        let told = told?;
        let why = match told.word() {
            "made" => continue,
            "kind" => format!("something else ({}) has the name of its key", told.text(1)),
            "full" => format!("{} messages lie there that no topic speaks of", told.text(1)),
            _ => return Err(told.strange()),
        };
        let log = keys.log();
        let context = format!("{why}: look at key {log:?}, and remove it if nobody needs it");
        return Err(Error::new(ErrorKind::Conflict, context));
    }
    Ok(())
}

/// What became of a change of state.
enum Shift {
    Moved,
    Is(State),
    Gone,
}

/// From a state, in a life, to another.
async fn shift(topics: &Topics, topic: &Topic, [from, life, to]: [&str; 3], set: &[&str]) -> Result<Shift> {
    let args = [&[from, life, to], set].concat();
    let told = topics.commands.script(&scripts::TOPIC_MOVE, &[topics.keys.topic(topic)], &args).await?;
    match (told.word(), told.text(1)) {
        ("moved", _) => Ok(Shift::Moved),
        ("is", "ready") => Ok(Shift::Is(State::Ready)),
        ("is", "making") => Ok(Shift::Is(State::Making)),
        ("is", "deleting") => Ok(Shift::Is(State::Deleting)),
        ("is", "deleted") => Ok(Shift::Is(State::Deleted)),
        ("is", _) => Ok(Shift::Gone),
        _ => Err(told.strange()),
    }
}

async fn describe(broker: &RedisStreams, topic: &Topic) -> Result<TopicInfo> {
    let topics = broker.topics();
    let description = topics.ask(topic).await?;
    let keys = partitions(topics, topic, &description, None)?;
    let extents = topics.extents(topic, &keys).await?;
    let mut delayed = Request::default();
    let now = format!("({}", clock::wall().as_millis());
    keys.iter().for_each(|keys| _ = delayed.command(&["ZCOUNT", &keys.delayed(), &now, "+inf"]));
    let delayed = topics.commands.read(delayed).await?;
    let delayed = delayed.iter().map(|count| count.int().and_then(|count| u64::try_from(count).ok()));
    Ok(TopicInfo {
        spec: description.spec.clone(),
        durability: broker.durability(),
        max_message: broker.settings().max_message,
        delayed: delayed.sum(),
        partitions: extents.iter().map(Extent::info).collect(),
    })
}

fn partitions(
    topics: &Topics,
    topic: &Topic,
    description: &Description,
    partition: Option<u32>,
) -> Result<Vec<PartitionKeys>> {
    let chosen = chosen(topic, description, partition)?;
    Ok(chosen.into_iter().map(|partition| topics.partition(topic, description, partition)).collect())
}

async fn list(topics: &Topics) -> Result<Vec<Topic>> {
    let names = topics.commands.one(&["SMEMBERS", &topics.keys.topics()]).await?;
    let mut all: Vec<Topic> = names.items().iter().filter_map(|name| Topic::new(name.text()?).ok()).collect();
    all.sort();
    let mut states = Request::default();
    all.iter().for_each(|topic| _ = states.command(&["HGET", &topics.keys.topic(topic), "state"]));
    let states = topics.commands.read(states).await?;
    let ready = all.into_iter().zip(states).filter(|(_, state)| state.text() == Some("ready"));
    Ok(ready.map(|(topic, _)| topic).collect())
}

async fn grow(topics: &Topics, topic: &Topic, wanted: u32) -> Result<()> {
    description::check_partitions(wanted)?;
    let description = topics.ask(topic).await?;
    let there = description.spec.partitions;
    let fewer = || {
        let context =
            format!("topic {topic:?} has {there} partitions and cannot have {wanted}: a topic only grows");
        Err(Error::new(ErrorKind::Invalid, context))
    };
    if wanted <= there {
        return if wanted == there { Ok(()) } else { fewer() };
    }
    let life = own(topic, &description)?;
    make(topics, topic, &life, there..wanted).await?;
    let args = [life, wanted.to_string()];
    let told = topics.commands.script(&scripts::TOPIC_GROW, &[topics.keys.topic(topic)], &args).await?;
    topics.forget(topic);
    match told.word() {
        "grown" if told.text(1) == args[1] => Ok(()),
        // Somebody else was faster, and asked for more.
        "grown" => fewer(),
        "is" => Err(not_found(topic)),
        _ => Err(told.strange()),
    }
}

async fn purge(topics: &Topics, topic: &Topic, partition: Option<u32>, before: Start) -> Result<()> {
    let description = topics.ask(topic).await?;
    let keys = partitions(topics, topic, &description, partition)?;
    one_place(topic, keys.len(), before)?;
    let extents = topics.extents(topic, &keys).await?;
    let life = description.life.map(|life| life.to_string()).unwrap_or_default();
    let mut calls = Vec::new();
    for (keys, extent) in keys.iter().zip(&extents) {
        let before = extent.resolve(topic, before)?;
        if before > ZERO {
            calls.push(([keys.log().to_owned(), keys.part()], [life.clone(), before.to_string()]));
        }
    }
    let calls: Vec<_> = calls.iter().map(|(keys, args)| (&keys[..], &args[..])).collect();
    for told in topics.commands.scripts(&scripts::PARTITION_PURGE, &calls).await? {
        let told = told?;
        match told.word() {
            "purged" => {}
            "life" | "none" => return Err(not_found(topic)),
            _ => return Err(told.strange()),
        }
    }
    Ok(())
}

async fn cancel(topics: &Topics, topic: &Topic, id: MessageId) -> Result<bool> {
    let description = topics.ask(topic).await?;
    let keys = partitions(topics, topic, &description, None)?;
    let names: Vec<_> = keys.iter().map(|keys| [keys.delayed(), keys.held()]).collect();
    let args = [id.as_u128().to_be_bytes()];
    let calls: Vec<_> = names.iter().map(|names| (&names[..], &args[..])).collect();
    let mut taken = false;
    for told in topics.commands.scripts(&scripts::CANCEL, &calls).await? {
        let told = told?;
        match (told.word(), told.text(1)) {
            ("cancelled", count) => taken |= count != "0",
            _ => return Err(told.strange()),
        }
    }
    Ok(taken)
}

/// A position is a place of one partition.
///
/// # Errors
/// `Invalid`.
pub(super) fn one_place(topic: &Topic, partitions: usize, start: Start) -> Result<()> {
    match start {
        Start::At(position) | Start::After(position) if partitions > 1 => {
            let context = format!(
                "position {position} is a place of one partition, and {partitions} of topic {topic:?} are meant; name the partition"
            );
            Err(Error::new(ErrorKind::Invalid, context))
        }
        _ => Ok(()),
    }
}

async fn delete(topics: &Topics, topic: &Topic) -> Result<()> {
    let description = topics.ask(topic).await?;
    let life = own(topic, &description)?;
    // First, so that a delete that is refused is not seen by anybody.
    unused(topics, topic).await?;
    if !matches!(shift(topics, topic, ["ready", &life, "deleting"], &[]).await?, Shift::Moved) {
        return Err(not_found(topic));
    }
    topics.forget(topic);
    // Somebody may have joined meanwhile; from here on nobody does.
    if let Err(error) = unused(topics, topic).await {
        _ = shift(topics, topic, ["deleting", &life, "ready"], &[]).await?;
        return Err(error);
    }
    remove(topics, topic, &description, &life).await
}

/// Whether no group has members on the topic.
///
/// # Errors
/// `Conflict` names the groups; those of the connection.
async fn unused(topics: &Topics, topic: &Topic) -> Result<()> {
    let users = users(topics, topic).await?;
    if users.is_empty() {
        return Ok(());
    }
    let context =
        format!("topic {topic:?} has members of these groups on it: {}; close them first", users.join(", "));
    Err(Error::new(ErrorKind::Conflict, context))
}

/// Ends what somebody began.
async fn end_delete(topics: &Topics, topic: &Topic) -> Result<()> {
    let Some(found) = topics.look(topic).await?.filter(|found| found.state == State::Deleting) else {
        return Ok(());
    };
    let life = own(topic, &found)?;
    if users(topics, topic).await?.is_empty() {
        remove(topics, topic, &found, &life).await
    } else {
        Err(busy(topic))
    }
}

/// The groups that have members on the topic.
async fn users(topics: &Topics, topic: &Topic) -> Result<Vec<String>> {
    let groups = topics.commands.one(&["SMEMBERS", &topics.keys.groups_of(topic)]).await?;
    let mut groups: Vec<Group> =
        groups.items().iter().filter_map(|name| Group::new(name.text()?).ok()).collect();
    groups.sort();
    let members = group_admin::members(topics, &groups).await?;
    let uses = |members: &[MemberInfo]| members.iter().any(|member| member.topics.contains(topic));
    let used = groups.iter().zip(&members).filter(|(_, members)| uses(members));
    Ok(used.map(|(group, _)| group.to_string()).collect())
}

async fn remove(topics: &Topics, topic: &Topic, description: &Description, life: &str) -> Result<()> {
    let keys = partitions(topics, topic, description, None)?;
    let names: Vec<_> =
        keys.iter().map(|keys| [keys.log().to_owned(), keys.part(), keys.delayed(), keys.held()]).collect();
    let args = [life];
    let calls: Vec<_> = names.iter().map(|names| (&names[..], &args[..])).collect();
    let mut last = Position(0, 0);
    for told in topics.commands.scripts(&scripts::PARTITION_DROP, &calls).await? {
        let told: Told = told?;
        match told.word() {
            "dropped" => last = last.max(told.text(1).parse().unwrap_or(ZERO)),
            "life" => return Err(busy(topic)),
            _ => return Err(told.strange()),
        }
    }
    let last = last.max(description.base()).to_string();
    _ = shift(topics, topic, ["deleting", life, "deleted"], &["last", &last]).await?;
    let mut index = Request::default();
    index.command(&["SREM", &topics.keys.topics(), topic.as_str()]);
    topics.commands.ask(index).await?;
    Ok(())
}

/// The life of a topic of ours.
fn own(topic: &Topic, description: &Description) -> Result<String> {
    description.life.map(|life| life.to_string()).ok_or_else(|| {
        let context =
            format!("{topic:?} is a stream that somebody else made; change it with the means of who made it");
        Error::new(ErrorKind::Unsupported, context)
    })
}

fn exists(topic: &Topic) -> Error {
    Error::new(ErrorKind::Exists, format!("topic {topic:?} exists; use it, or choose another name"))
}

fn busy(topic: &Topic) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("somebody makes or deletes topic {topic:?} right now; try again in a moment"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_of_one_partition() {
        let topic = Topic::new("t").unwrap();
        assert!(one_place(&topic, 1, Start::At(ZERO)).is_ok() && one_place(&topic, 2, Start::Latest).is_ok());
        assert_eq!(one_place(&topic, 2, Start::After(ZERO)).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
