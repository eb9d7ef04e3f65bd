//! Looks what partitions begin with: which topic it is, where it begins and ends, what the group has committed, and where it starts.
//!
//! Not here: what follows from that (`taking.rs`), starting a group without members (`starts.rs`).

use super::{
    Member,
    taking::{Looked, Seen, Stored},
};
use crate::{
    ErrorKind, Group, Result, Timestamp, Topic,
    balance::TopicPartition,
    kafka::{
        broker::Shared,
        damage::{self, Damaged},
        offsets,
    },
    members::Shell as _,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(10);

/// Looks, and tells the core.
pub(super) fn spawn(member: &Arc<Member>, keys: Vec<TopicPartition>, check: BTreeSet<Topic>) {
    let member = Arc::clone(member);
    let runtime = member.runtime.clone();
    runtime.spawn(async move {
        let found = match timeout(LOOK, look(&member, &keys, &check)).await {
            Ok(found) => found,
            Err(_) => Err(crate::kafka::failure::late(&member.servers)),
        };
        let stirred = member.core().looked(&keys, &check, found, Instant::now());
        member.stir(stirred);
    });
}

async fn look(member: &Member, keys: &[TopicPartition], check: &BTreeSet<Topic>) -> Result<Looked> {
    let shared = &member.shared;
    let mut looked = Looked { clock: Timestamp::now(), ..Looked::default() };
    let mut stored = if keys.is_empty() { BTreeMap::new() } else { committed(shared, &member.group).await? };
    let topics: BTreeSet<&Topic> = check.iter().chain(keys.iter().map(|key| &key.0)).collect();
    for topic in topics {
        let partitions: Vec<u32> = keys.iter().filter(|key| key.0 == *topic).map(|key| key.1).collect();
        match seen(member, topic, &partitions, stored.remove(topic).unwrap_or_default()).await {
            Ok(seen) => {
                let known = member.shared.members.knew(&member.group, topic, seen.life);
                looked.known.extend(known.map(|life| (topic.clone(), life)));
                looked.topics.insert(topic.clone(), seen);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    find_ends(member, keys, &mut looked).await;
    Ok(looked)
}

/// Where damaged batches end that the client does not get over.
async fn find_ends(member: &Member, keys: &[TopicPartition], looked: &mut Looked) {
    let damaged = member.core().damaged(keys);
    let known = |(key, begin): (TopicPartition, u64)| {
        let (_, end) = looked.topics.get(&key.0)?.ends.get(&key.1).copied()?;
        Some(Damaged { place: key, begin, end })
    };
    let damaged = damaged.into_iter().filter_map(known).collect();
    for ((topic, partition), to) in damage::ends(&member.shared, damaged).await {
        if let Some(seen) = looked.topics.get_mut(&topic) {
            seen.behind.insert(partition, to);
        }
    }
}

async fn seen(
    member: &Member,
    topic: &Topic,
    partitions: &[u32],
    stored: BTreeMap<u32, Stored>,
) -> Result<Seen> {
    let shared = &member.shared;
    let described = shared.topics.describe(topic).await?;
    let mut seen = Seen { life: described.life, stored, ..Seen::default() };
    if partitions.is_empty() {
        return Ok(seen);
    }
    let is_new = seen.stored.is_empty();
    let all: Vec<u32> = (0..described.count()).collect();
    let asked = if is_new { &all } else { partitions };
    let asked: Vec<u32> = asked.iter().copied().filter(|partition| *partition < described.count()).collect();
    let extents = offsets::extents(shared, topic, described.life, &asked).await?;
    seen.ends = extents.iter().map(|(partition, extent)| (*partition, (extent.low, extent.end))).collect();
    if is_new {
        let from = member.core().topics.get(topic).copied().unwrap_or(crate::Start::Earliest);
        // What cannot be meant was refused when it was asked for; in a topic that was made again it means the beginning.
        let from = offsets::starts(shared, topic, &extents, from).await;
        let from = from.unwrap_or_else(|_| extents.iter().map(|(_, extent)| extent.low).collect());
        seen.starts = extents.iter().zip(from).map(|((partition, _), offset)| (*partition, offset)).collect();
    }
    Ok(seen)
}

/// What the group has committed.
///
/// # Errors
/// Those of the connection.
pub(super) async fn committed(
    shared: &Arc<Shared>,
    group: &Group,
) -> Result<BTreeMap<Topic, BTreeMap<u32, Stored>>> {
    let name = group.to_string();
    let places = shared.ask(move |admin, wait| admin.group_offsets(&name, wait)).await?;
    let mut stored: BTreeMap<Topic, BTreeMap<u32, Stored>> = BTreeMap::new();
    for place in places {
        let (Ok(topic), Ok(partition), Ok(offset)) =
            (Topic::new(&*place.topic), u32::try_from(place.partition), u64::try_from(place.offset))
        else {
            continue;
        };
        let known = Stored { offset, metadata: place.metadata };
        stored.entry(topic).or_default().insert(partition, known);
    }
    Ok(stored)
}
