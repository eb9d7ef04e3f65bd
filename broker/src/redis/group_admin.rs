//! Administration of groups: what they look like from outside, seek, delete.
//!
//! A group has no list of its topics but where it starts in each (`starts`): who joins or seeks writes that first. What it has of a
//! partition lies with the partition. Not here: topics (`admin.rs`), members at work.

use super::{
    description::{Description, State},
    failure::no_epoch,
    follow::{ZERO, before},
    keys::PartitionKeys,
    request::Request,
    scripts,
    start::Extent,
    topics::{self, Topics, chosen, not_found, pairs},
};
use crate::{
    Epoch, Error, ErrorKind, Group, GroupInfo, GroupPartition, MemberInfo, Position, Result, Start, Topic,
};
use bytes::Bytes;
use ropeway_store::redis::Reply;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Where a group starts in a topic, as it is stored: the life of the topic, then a position for each partition that there was.
#[derive(Debug)]
pub(super) struct Starts {
    /// Empty for a stream that somebody else made.
    pub(super) life: String,
    pub(super) positions: Vec<Position>,
}

impl Starts {
    pub(super) fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let life = words.next().unwrap_or_default().to_owned();
        Self { life, positions: words.map_while(|word| word.parse().ok()).collect() }
    }
}

/// The members of groups whose lease holds, with their topics, sorted by name.
///
/// # Errors
/// Those of the connection.
pub(super) async fn members(topics: &Topics, groups: &[Group]) -> Result<Vec<Vec<MemberInfo>>> {
    let mut request = Request::default();
    request.command(&["TIME"]);
    for group in groups {
        let keys = topics.keys.group(group);
        request.command(&["HGETALL", &keys.asked()]);
        request.command(&["ZRANGE", &keys.members(), "0", "-1", "WITHSCORES"]);
    }
    let answers = topics.commands.ask(request).await?;
    let Some((time, rest)) = answers.split_first() else { return Ok(Vec::new()) };
    let now = millis(time);
    Ok(rest.chunks_exact(2).map(|pair| living(&pairs(&pair[0]), &pairs(&pair[1]), now)).collect())
}

/// Those whose lease ends later than `now`.
fn living(asked: &BTreeMap<String, Bytes>, leases: &BTreeMap<String, Bytes>, now: u64) -> Vec<MemberInfo> {
    let lives = |name: &str| {
        let end = leases.get(name).and_then(|end| std::str::from_utf8(end).ok()?.parse::<f64>().ok());
        end.is_some_and(|end| end > now as f64)
    };
    let member = |(name, asked): (&String, &Bytes)| {
        let asked = String::from_utf8_lossy(asked);
        let names = asked.split_once(' ').map_or("", |(_, names)| names).split(',');
        let mut topics: Vec<Topic> = names.filter_map(|name| Topic::new(name).ok()).collect();
        topics.sort();
        MemberInfo { name: name.clone(), topics }
    };
    asked.iter().filter(|(name, _)| lives(name)).map(member).collect()
}

/// The answer to `TIME`, in milliseconds.
pub(super) fn millis(time: &Reply) -> u64 {
    let part =
        |at: usize| time.items().get(at).and_then(Reply::int).and_then(|part| u64::try_from(part).ok());
    part(0).unwrap_or(0).saturating_mul(1000).saturating_add(part(1).unwrap_or(0) / 1000)
}

/// All groups with members or positions, sorted.
///
/// # Errors
/// Those of the connection.
pub(super) async fn list(topics: &Topics) -> Result<Vec<Group>> {
    let names = topics.commands.one(&["SMEMBERS", &topics.keys.groups()]).await?;
    let mut all: Vec<Group> = names.items().iter().filter_map(|name| Group::new(name.text()?).ok()).collect();
    all.sort();
    let mut request = Request::default();
    all.iter().for_each(|group| _ = request.command(&["EXISTS", &topics.keys.group(group).starts()]));
    let starts = topics.commands.ask(request).await?;
    let members = members(topics, &all).await?;
    let there = all.into_iter().zip(starts).zip(members);
    let there = there.filter(|((_, starts), members)| starts.int() == Some(1) || !members.is_empty());
    Ok(there.map(|((group, _), _)| group).collect())
}

/// A group, where there is one.
struct Found {
    members: Vec<MemberInfo>,
    starts: BTreeMap<Topic, Starts>,
    owners: BTreeMap<String, Bytes>,
    now: u64,
}

async fn find(topics: &Topics, group: &Group) -> Result<Found> {
    let keys = topics.keys.group(group);
    let mut request = Request::default();
    request.command(&["TIME"]).command(&["HGETALL", &keys.starts()]).command(&["HGETALL", &keys.owners()]);
    let answers = topics.commands.ask(request).await?;
    let members = members(topics, std::slice::from_ref(group)).await?.pop().unwrap_or_default();
    let [time, starts, owners] = &answers[..] else { return Err(no_group(group)) };
    let starts: BTreeMap<Topic, Starts> = pairs(starts)
        .iter()
        .filter_map(|(topic, starts)| {
            Some((Topic::new(topic).ok()?, Starts::parse(std::str::from_utf8(starts).ok()?)))
        })
        .collect();
    if starts.is_empty() && members.is_empty() {
        return Err(no_group(group));
    }
    Ok(Found { members, starts, owners: pairs(owners), now: millis(time) })
}

fn no_group(group: &Group) -> Error {
    let context =
        format!("there is no group {group:?}; a group begins with its first member, or with a seek");
    Error::new(ErrorKind::NotFound, context)
}

fn in_use(group: &Group, members: &[MemberInfo]) -> Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    let context = format!("group {group:?} has these members: {}; close them first", names.join(", "));
    Err(Error::new(ErrorKind::Conflict, context))
}

/// Members, and what the group has of each partition.
///
/// # Errors
/// `NotFound`; those of the connection.
pub(super) async fn describe(topics: &Topics, group: &Group) -> Result<GroupInfo> {
    let found = find(topics, group).await?;
    let consumed = found.members.iter().flat_map(|member| &member.topics);
    let all: BTreeSet<&Topic> = found.starts.keys().chain(consumed).collect();
    let mut partitions = Vec::new();
    for topic in all {
        let Some(description) = topics.look(topic).await?.filter(|found| found.state == State::Ready) else {
            continue;
        };
        partitions.extend(of_topic(topics, group, &found, topic, &description).await?);
    }
    Ok(GroupInfo { members: found.members, partitions })
}

async fn of_topic(
    topics: &Topics,
    group: &Group,
    found: &Found,
    topic: &Topic,
    description: &Description,
) -> Result<Vec<GroupPartition>> {
    let keys = all_partitions(topics, topic, description)?;
    let extents = match topics.extents(topic, &keys).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        extents => extents?,
    };
    let mut request = Request::default();
    for keys in &keys {
        request.command(&["HMGET", &keys.group(group), "epoch", "life", "position", "read", "beyond"]);
    }
    let stored = topics.commands.ask(request).await?;
    let life = description.life.map(|life| life.to_string()).unwrap_or_default();
    let starts = found.starts.get(topic).filter(|starts| starts.life == life);
    let mut partitions: Vec<GroupPartition> = Vec::with_capacity(keys.len());
    let mut oldest = Request::default();
    for (partition, (stored, extent)) in stored.iter().zip(&extents).enumerate() {
        let stored = Stored::of(stored, &life);
        let position = stored.position.or_else(|| starts?.positions.get(partition).copied());
        let lag = position.and_then(|position| lag(&stored, extent, position));
        let owner =
            found.owners.get(&format!("{topic}/{partition}")).map(|name| String::from_utf8_lossy(name));
        let lives = |name: &str| found.members.iter().any(|member| member.name == name);
        let from = position.unwrap_or(ZERO).to_string();
        oldest.command(&["XRANGE", keys[partition].log(), &from, "+", "COUNT", "1"]);
        partitions.push(GroupPartition {
            topic: topic.clone(),
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            owner: owner.filter(|name| lives(name)).map(std::borrow::Cow::into_owned),
            epoch: stored.epoch,
            position,
            end: extent.end(),
            lag,
            unfinished: lag.map(|lag| lag.saturating_sub(stored.beyond)),
            lag_time: None,
        });
    }
    for (partition, oldest) in partitions.iter_mut().zip(topics.commands.ask(oldest).await?) {
        let taken = oldest.items().first().and_then(|entry| topics::position(entry.items().first()?));
        let age = taken.map_or(0, |taken| found.now.saturating_sub(taken.0));
        partition.lag_time = partition.position.map(|_| Duration::from_millis(age));
    }
    Ok(partitions)
}

/// What a group has of a partition.
struct Stored {
    epoch: Option<Epoch>,
    position: Option<Position>,
    read: Option<u64>,
    beyond: u64,
}

impl Stored {
    /// A position of another life is none.
    fn of(reply: &Reply, life: &str) -> Self {
        let text = |at: usize| reply.items().get(at).and_then(Reply::text);
        let number = |at: usize| text(at)?.parse::<u64>().ok();
        let mine = text(1) == Some(life);
        Self {
            epoch: number(0).map(Epoch),
            position: text(2).filter(|_| mine).and_then(|position| position.parse().ok()),
            read: number(3).filter(|_| mine),
            beyond: number(4).filter(|_| mine).unwrap_or(0),
        }
    }
}

fn lag(stored: &Stored, extent: &Extent, position: Position) -> Option<u64> {
    // A log that was made again, as the one before was lost, counts anew.
    let read = extent.added_before(position).or(stored.read)?;
    Some(extent.counts.added.saturating_sub(read).min(extent.counts.length))
}

fn all_partitions(topics: &Topics, topic: &Topic, description: &Description) -> Result<Vec<PartitionKeys>> {
    let all = chosen(topic, description, None)?;
    Ok(all.into_iter().map(|partition| topics.partition(topic, description, partition)).collect())
}

/// Puts a group without members at a place, and makes it where there is none.
///
/// # Errors
/// `NotFound`, `Conflict`, `Invalid`; those of the connection.
pub(super) async fn seek(
    topics: &Topics,
    group: &Group,
    topic: &Topic,
    partition: Option<u32>,
    to: Start,
) -> Result<()> {
    let description = topics.ask(topic).await?;
    let partitions = chosen(topic, &description, partition)?;
    super::admin::one_place(topic, partitions.len(), to)?;
    let members = members(topics, std::slice::from_ref(group)).await?.pop().unwrap_or_default();
    in_use(group, &members)?;
    let keys: Vec<_> =
        partitions.iter().map(|partition| topics.partition(topic, &description, *partition)).collect();
    let extents = topics.extents(topic, &keys).await?;
    let life = description.life.map(|life| life.to_string()).unwrap_or_default();
    let mut calls = Vec::with_capacity(keys.len());
    for (keys, extent) in keys.iter().zip(&extents) {
        let position = extent.resolve(topic, to)?;
        let read = extent.added_before(position).map(|read| read.to_string()).unwrap_or_default();
        let names = [keys.log().to_owned(), keys.part(), keys.group(group)];
        let done = before(position).to_string();
        calls.push((names, [life.clone(), group.to_string(), position.to_string(), read, done]));
    }
    announce(topics, group, topic, &life).await?;
    let calls: Vec<_> = calls.iter().map(|(keys, args)| (&keys[..], &args[..])).collect();
    for (told, (names, _)) in topics.commands.scripts(&scripts::SEEK, &calls).await?.into_iter().zip(&calls) {
        let told = told?;
        match told.word() {
            "sought" => {}
            "epoch" => return Err(no_epoch(topics.commands.server(), &names[2], told.text(1))),
            "life" | "none" => return Err(not_found(topic)),
            _ => return Err(told.strange()),
        }
    }
    Ok(())
}

/// Makes a group known, and that it has to do with a topic. Where it has no start there, it starts at the beginning.
async fn announce(topics: &Topics, group: &Group, topic: &Topic, life: &str) -> Result<()> {
    let starts = topics.keys.group(group).starts();
    let mut request = Request::default();
    request.command(&["SADD", &topics.keys.groups(), group.as_str()]);
    request.command(&["SADD", &topics.keys.groups_of(topic), group.as_str()]);
    request.command(&["HGET", &starts, topic.as_str()]);
    let answers = topics.commands.ask(request).await?;
    let known = answers.get(2).and_then(Reply::text).is_some_and(|text| Starts::parse(text).life == life);
    if !known {
        topics.commands.one(&["HSET", &starts, topic.as_str(), life]).await?;
    }
    Ok(())
}

/// Forgets a group.
///
/// # Errors
/// `NotFound`, `Conflict`; those of the connection.
pub(super) async fn delete(topics: &Topics, group: &Group) -> Result<()> {
    let found = find(topics, group).await?;
    in_use(group, &found.members)?;
    for topic in found.starts.keys() {
        // What is left of a deleted topic still says how many partitions it had.
        let Some(description) = topics.look(topic).await? else { continue };
        let keys = all_partitions(topics, topic, &description)?;
        let names: Vec<_> = keys.iter().map(|keys| [keys.log().to_owned(), keys.group(group)]).collect();
        let args = [group.as_str()];
        let calls: Vec<_> = names.iter().map(|names| (&names[..], &args[..])).collect();
        topics
            .commands
            .scripts(&scripts::FORGET, &calls)
            .await?
            .into_iter()
            .try_for_each(|told| told.map(drop))?;
        topics.commands.one(&["SREM", &topics.keys.groups_of(topic), group.as_str()]).await?;
    }
    let keys = topics.keys.group(group);
    let all = [keys.members(), keys.asked(), keys.owners(), keys.had(), keys.news(), keys.starts()];
    let mut request = Request::default();
    request.begin(1 + all.len()).word("UNLINK");
    all.iter().for_each(|key| _ = request.word(key));
    request.command(&["SREM", &topics.keys.groups(), group.as_str()]);
    topics.commands.ask(request).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, Bytes> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())))
            .collect()
    }

    #[test]
    fn members_are_those_whose_lease_holds_with_their_topics() {
        let asked = map(&[("anna", "token b,a"), ("bert", "token a"), ("carl", "token a")]);
        let leases = map(&[("anna", "1001"), ("bert", "1000")]);
        let found = living(&asked, &leases, 1000);
        assert_eq!(found.len(), 1);
        let topics: Vec<_> = found[0].topics.iter().map(Topic::as_str).collect();
        assert_eq!((found[0].name.as_str(), topics), ("anna", vec!["a", "b"]));
    }

    #[test]
    fn starts_are_read_as_far_as_they_go() {
        let starts = Starts::parse("77 77-0 80-3");
        assert_eq!((starts.life.as_str(), starts.positions), ("77", vec![Position(77, 0), Position(80, 3)]));
        let none = Starts::parse("77");
        assert_eq!((none.life.as_str(), none.positions.len()), ("77", 0));
        assert_eq!(Starts::parse(" 5-1").positions, [Position(5, 1)]);
    }
}
