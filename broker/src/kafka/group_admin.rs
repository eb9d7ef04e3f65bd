//! Administration of groups: what they are like from outside, without joining them; seek; delete.
//!
//! Members are shown by their static name, else by the id that Kafka knows them by. Not here: what follows from what a group committed (`group_lag.rs`),
//! members themselves (`members/`).

use super::{
    broker::Shared,
    failure::late,
    group_lag::{self, Committed, asked_for},
    metadata::{self, Metadata},
    offsets,
    raw::{self, Code},
    start::one_place,
};
use crate::{
    Epoch, Error, ErrorKind, Group, GroupInfo, GroupPartition, MemberInfo, Result, Start, Timestamp, Topic,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(25);
/// How long it is waited for the end of a rebalance: before it nobody says who owns what.
const REST: Duration = Duration::from_secs(5);
/// The pause before a group is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// A member, as the servers tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    owns: BTreeSet<(Topic, u32)>,
    topics: BTreeSet<Topic>,
}

/// All groups, sorted.
///
/// # Errors
/// Those of the connection.
pub(super) async fn list(shared: &Arc<Shared>) -> Result<Vec<Group>> {
    let listed = shared.ask(|admin, wait| admin.list_groups(wait)).await?;
    let mut groups: Vec<Group> = listed
        .iter()
        .filter(|group| !group.state.is_dead())
        .filter_map(|group| Group::new(&group.name).ok())
        .collect();
    groups.sort();
    groups.dedup();
    Ok(groups)
}

/// The groups that have members on the topic.
///
/// # Errors
/// Those of the connection.
pub(super) async fn users(shared: &Arc<Shared>, topic: &Topic) -> Result<Vec<String>> {
    let groups = list(shared).await?;
    let members = members(shared, &groups).await?;
    let uses = |members: &[Member]| members.iter().any(|member| member.topics.contains(topic));
    let used = groups.iter().zip(&members).filter(|(_, members)| uses(members));
    Ok(used.map(|(group, _)| group.to_string()).collect())
}

/// The members of each group, sorted by name; waits a while for groups that are just being rebalanced.
async fn members(shared: &Arc<Shared>, groups: &[Group]) -> Result<Vec<Vec<Member>>> {
    let until = Instant::now() + REST;
    let mut all = Vec::with_capacity(groups.len());
    for (group, mut told) in groups.iter().zip(ask(shared, groups).await?) {
        let members = loop {
            let Some(described) = told.take().filter(|described| !described.members.is_empty()) else {
                break Vec::new();
            };
            let asked = subscriptions(shared, group).await;
            // In a rebalance nobody says what members asked for, and who owns what.
            let moves = described.state.is_rebalancing() || asked.values().any(Vec::is_empty);
            if !moves || Instant::now() > until {
                let told = |described| member(described, asked.get(&described.id));
                break described.members.iter().map(told).collect();
            }
            sleep(PAUSE).await;
            told = ask(shared, std::slice::from_ref(group)).await?.pop().flatten();
        };
        all.push(members);
    }
    all.iter_mut().for_each(|members| members.sort_by(|a, b| a.name.cmp(&b.name)));
    Ok(all)
}

/// What the servers tell of these groups; `None` of one that is not there.
async fn ask(shared: &Arc<Shared>, groups: &[Group]) -> Result<Vec<Option<raw::GroupDescription>>> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
    let told = shared.ask(move |admin, wait| admin.describe_groups(&names, wait)).await?;
    let one = |told: Result<raw::GroupDescription, raw::Trouble>| match told {
        Ok(described) => Ok(Some(described)),
        Err(trouble) if trouble.code == Code::GROUP_ID_NOT_FOUND => Ok(None),
        Err(trouble) => Err(shared.failed(&trouble)),
    };
    told.into_iter().map(one).collect()
}

fn member(described: &raw::MemberDescription, asked: Option<&Vec<Topic>>) -> Member {
    let owned =
        |place: &raw::Place| Some((Topic::new(&*place.topic).ok()?, u32::try_from(place.partition).ok()?));
    let owns: BTreeSet<(Topic, u32)> = described.assignment.iter().filter_map(owned).collect();
    let topics = owns.iter().map(|(topic, _)| topic).chain(asked.into_iter().flatten()).cloned().collect();
    let name = described.instance.as_ref().unwrap_or(&described.id).clone();
    Member { name, owns, topics }
}

/// What members of a group asked for, by their ids; those of the new protocol do not tell.
async fn subscriptions(shared: &Arc<Shared>, group: &Group) -> BTreeMap<String, Vec<Topic>> {
    let (asked, group) = (Arc::clone(shared), group.clone());
    let told = tokio::task::spawn_blocking(move || {
        let groups = asked.admin.inner().fetch_group_list(Some(group.as_str()), ANSWER).ok()?;
        let members = groups.groups().iter().flat_map(|group| group.members());
        let told = |member: &rdkafka::groups::GroupMemberInfo| {
            (member.id().to_owned(), asked_for(member.metadata().unwrap_or_default()))
        };
        Some(members.map(told).collect())
    });
    // What they own is known all the same.
    told.await.ok().flatten().unwrap_or_default()
}

/// What a group committed.
async fn committed(shared: &Arc<Shared>, group: &Group) -> Result<BTreeMap<(Topic, u32), Committed>> {
    let name = group.to_string();
    let places = shared.ask(move |admin, wait| admin.group_offsets(&name, wait)).await?;
    let of = |place: &raw::Place| {
        let known = metadata::parse(place.metadata.as_deref());
        let committed = Committed { offset: u64::try_from(place.offset).ok()?, known };
        Some(((Topic::new(&*place.topic).ok()?, u32::try_from(place.partition).ok()?), committed))
    };
    Ok(places.iter().filter_map(of).collect())
}

fn no_group(group: &Group) -> Error {
    let context =
        format!("there is no group {group:?}; a group begins with its first member, or with a seek");
    Error::new(ErrorKind::NotFound, context)
}

async fn unused(shared: &Arc<Shared>, group: &Group) -> Result<()> {
    let members = members(shared, std::slice::from_ref(group)).await?.pop().unwrap_or_default();
    if members.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    Err(in_use(group, &names.join(", ")))
}

fn in_use(group: &Group, names: &str) -> Error {
    let context = format!("group {group:?} has these members: {names}; close them first");
    Error::new(ErrorKind::Conflict, context)
}

/// Members, and what the group has of each partition.
///
/// # Errors
/// `NotFound`; those of the connection.
pub(super) async fn describe(shared: &Arc<Shared>, group: &Group) -> Result<GroupInfo> {
    let members = members(shared, std::slice::from_ref(group)).await?.pop().unwrap_or_default();
    let committed = committed(shared, group).await?;
    if members.is_empty() && committed.is_empty() {
        return Err(no_group(group));
    }
    let topics: BTreeSet<&Topic> = committed
        .keys()
        .map(|(topic, _)| topic)
        .chain(members.iter().flat_map(|member| &member.topics))
        .collect();
    let mut partitions = Vec::new();
    for topic in topics {
        match of_topic(shared, topic, &committed, &members).await {
            Ok(of) => partitions.extend(of),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let info = |member: Member| MemberInfo { name: member.name, topics: member.topics.into_iter().collect() };
    Ok(GroupInfo { members: members.into_iter().map(info).collect(), partitions })
}

async fn of_topic(
    shared: &Arc<Shared>,
    topic: &Topic,
    committed: &BTreeMap<(Topic, u32), Committed>,
    members: &[Member],
) -> Result<Vec<GroupPartition>> {
    let found = offsets::ask(shared, topic, None).await?;
    let of = |partition: u32| committed.get(&(topic.clone(), partition));
    let looked = |(partition, extent): &(u32, _)| {
        Some((topic.clone(), *partition, of(*partition)?.looked_for(extent)?))
    };
    let first = offsets::first_at(shared, found.extents.iter().filter_map(looked).collect()).await;
    let now = Timestamp::now();
    let partition = |(partition, extent): &(u32, _)| {
        let place = (topic.clone(), *partition);
        let owner =
            members.iter().find(|member| member.owns.contains(&place)).map(|member| member.name.clone());
        let first = first.get(&place).copied();
        group_lag::partition((topic, *partition), owner, of(*partition), extent, first, now)
    };
    Ok(found.extents.iter().map(partition).collect())
}

/// Puts a group without members at a place, and makes it where there is none.
///
/// # Errors
/// `NotFound`, `Conflict`, `Invalid`; those of the connection.
pub(super) async fn seek(
    shared: &Arc<Shared>,
    group: &Group,
    topic: &Topic,
    partition: Option<u32>,
    to: Start,
) -> Result<()> {
    let found = offsets::ask(shared, topic, partition).await?;
    one_place(topic, found.extents.len(), to)?;
    unused(shared, group).await?;
    let starts = offsets::starts(shared, topic, &found.extents, to).await?;
    let committed = committed(shared, group).await?;
    let name: Arc<str> = Arc::from(topic.as_str());
    let place = |((partition, _), start): (&(u32, _), u64)| {
        let epoch = committed.get(&(topic.clone(), *partition)).and_then(Committed::epoch);
        let metadata = Metadata {
            life: found.described.life,
            epoch: epoch.unwrap_or(Epoch(1)),
            oldest: None,
            before: None,
            map: Vec::new(),
        };
        let (partition, offset) = (i32::try_from(*partition).ok()?, i64::try_from(start).ok()?);
        let place = raw::Place::new(&name, partition, offset);
        Some(raw::Place { metadata: Some(metadata.encode().into_bytes()), ..place })
    };
    let places: Vec<_> = found.extents.iter().zip(starts).filter_map(place).collect();
    let asked = group.to_string();
    let answers = shared.ask(move |admin, wait| admin.alter_group_offsets(&asked, &places, wait)).await?;
    for (_, answer) in answers {
        let Err(trouble) = answer else { continue };
        // Somebody joined meanwhile.
        if matches!(
            trouble.code,
            Code::UNKNOWN_MEMBER_ID | Code::NON_EMPTY_GROUP | Code::REBALANCE_IN_PROGRESS
        ) {
            unused(shared, group).await?;
            return Err(in_use(group, "one that is just joining or leaving"));
        }
        return Err(shared.failed(&trouble));
    }
    Ok(())
}

/// Forgets a group.
///
/// # Errors
/// `NotFound`, `Conflict`; those of the connection.
pub(super) async fn delete(shared: &Arc<Shared>, group: &Group) -> Result<()> {
    unused(shared, group).await?;
    let name = group.to_string();
    let asked = Arc::clone(&shared.raw);
    let answer = tokio::task::spawn_blocking(move || asked.delete_group(&name, ANSWER)).await;
    match answer.map_err(|_| late(shared.servers()))? {
        Ok(()) => {}
        Err(trouble) if trouble.code == Code::GROUP_ID_NOT_FOUND => return Err(no_group(group)),
        Err(trouble) if trouble.code == Code::NON_EMPTY_GROUP => {
            unused(shared, group).await?;
            return Err(in_use(group, "one that is just joining or leaving"));
        }
        Err(trouble) => return Err(shared.failed(&trouble)),
    }
    Ok(())
}
