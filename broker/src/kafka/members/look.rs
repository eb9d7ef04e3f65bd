//! Looks what partitions begin with: which topic it is, where it begins and ends, what the group has committed, and where it starts.
//!
//! Not here: what follows from that (`taking.rs`), starting a group without members (`starts.rs`).

use super::{
    Member,
    taking::{Looked, Seen, Stored},
};
use crate::{
    Error, ErrorKind, Group, Result, Start, Timestamp, Topic,
    balance::TopicPartition,
    kafka::{
        broker::Shared,
        damage::{self, Damaged},
        failure::late,
        offsets, standing,
        start::Extent,
    },
    members::Shell as _,
};
use futures::{StreamExt as _, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(20);
/// Of how many topics it is asked at a time where a time is, if the group starts there.
const AT_ONCE: usize = 8;

/// Looks, and tells the core.
pub(super) fn spawn(member: &Arc<Member>, keys: Vec<TopicPartition>, check: BTreeSet<Topic>) {
    let (runtime, broken) = (member.runtime.clone(), late(&member.servers));
    let (looks, asked) = (Arc::clone(member), (keys.clone(), check.clone()));
    let member = Arc::clone(member);
    let tell = Tell::new(broken, move |found| {
        let stirred = member.core().looked(&keys, &check, found, Instant::now());
        member.stir(stirred);
    });
    if !asked.1.is_empty() {
        runtime.spawn(stand(Arc::clone(&looks)));
    }
    runtime.spawn(async move {
        // All of it, so that it is dropped with the task.
        let mut tell = tell;
        let found = timeout(LOOK, look(&looks, &asked.0, &asked.1)).await;
        tell.tell(found.unwrap_or_else(|_| Err(late(&looks.servers))));
    });
}

/// Tells what was found, also where the task that looks breaks off or ends with its runtime: else nobody would ever look again.
struct Tell<F: FnOnce(Result<Looked>)> {
    tell: Option<F>,
    broken: Error,
}

impl<F: FnOnce(Result<Looked>)> Tell<F> {
    const fn new(broken: Error, tell: F) -> Self {
        Self { tell: Some(tell), broken }
    }

    fn tell(&mut self, found: Result<Looked>) {
        if let Some(tell) = self.tell.take() {
            tell(found);
        }
    }
}

impl<F: FnOnce(Result<Looked>)> Drop for Tell<F> {
    fn drop(&mut self) {
        self.tell(Err(self.broken.clone()));
    }
}

/// Looks why partitions stand still, beside everything else.
async fn stand(member: Arc<Member>) {
    let of = member.core().standing(Instant::now());
    for (standing, why) in standing::look(&member.shared, of).await {
        let stirred = member.core().stands(&standing, why, Instant::now());
        member.stir(stirred);
    }
}

async fn look(member: &Member, keys: &[TopicPartition], check: &BTreeSet<Topic>) -> Result<Looked> {
    let shared = &member.shared;
    let mut looked = Looked { clock: Timestamp::now(), asked: Some(Instant::now()), ..Looked::default() };
    let mut stored = if keys.is_empty() { BTreeMap::new() } else { committed(shared, &member.group).await? };
    let mut asked: BTreeMap<&Topic, Vec<u32>> = check.iter().map(|topic| (topic, Vec::new())).collect();
    keys.iter().for_each(|(topic, partition)| asked.entry(topic).or_default().push(*partition));
    let mut meant = Vec::new();
    for (topic, told) in shared.topics.identify(asked.keys().copied()).await? {
        match told {
            Ok(identity) => {
                let stored = stored.remove(&topic).unwrap_or_default();
                let partitions = asked.remove(&topic).unwrap_or_default();
                // Where the group has nothing of a topic, it is to start in all of it.
                let partitions = match stored.is_empty() && !partitions.is_empty() {
                    true => (0..identity.count()).collect(),
                    false => partitions,
                };
                let known = shared.members.knew(&member.group, &topic, identity.life);
                looked.known.extend(known.map(|life| (topic.clone(), life)));
                meant.push((topic.clone(), identity.life, identity.askable(partitions)));
                let seen = Seen { life: identity.life, count: identity.count(), stored, ..Seen::default() };
                looked.topics.insert(topic, seen);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::debug!(%error, %topic, "a member of a group looks again");
                looked.unknown.insert(topic);
            }
        }
    }
    for ((topic, partition), extent) in offsets::extents_of(shared, &meant).await {
        if let Some(seen) = looked.topics.get_mut(&topic) {
            seen.ends.insert(partition, (extent.low, extent.end));
        }
    }
    find_starts(member, &mut looked).await;
    find_ends(member, keys, &mut looked).await;
    ask_again(member, &mut looked).await?;
    Ok(looked)
}

/// Asks again, last of all, what the group has committed where that was nothing: others may have begun while the rest was found out.
async fn ask_again(member: &Member, looked: &mut Looked) -> Result<()> {
    if looked.topics.values().all(|seen| seen.starts.is_empty()) {
        return Ok(());
    }
    looked.asked = Some(Instant::now());
    let mut stored = committed(&member.shared, &member.group).await?;
    for (topic, seen) in looked.topics.iter_mut().filter(|(_, seen)| !seen.starts.is_empty()) {
        seen.stored = stored.remove(topic).unwrap_or_default();
    }
    Ok(())
}

/// Where the group starts in topics of which it has nothing, as far as all of their partitions answered.
async fn find_starts(member: &Member, looked: &mut Looked) {
    let whole = |seen: &Seen| seen.stored.is_empty() && seen.ends.len() == seen.count as usize;
    let fresh = looked.topics.iter().filter(|(_, seen)| whole(seen)).map(|(topic, seen)| {
        let extent = |(partition, ends): (&u32, &(u64, u64))| {
            (*partition, Extent { life: seen.life, low: ends.0, end: ends.1 })
        };
        let from = member.core().topics.get(topic).copied().unwrap_or(Start::Earliest);
        (topic.clone(), seen.ends.iter().map(extent).collect::<Vec<_>>(), from)
    });
    let fresh: Vec<_> = fresh.collect();
    let find = |(topic, extents, from): (Topic, Vec<(u32, Extent)>, Start)| async move {
        // What cannot be meant was refused when it was asked for; in a topic that was made again it means the beginning.
        let found = offsets::starts(&member.shared, &topic, &extents, from).await;
        let found = found.unwrap_or_else(|_| extents.iter().map(|(_, extent)| extent.low).collect());
        (topic, extents.iter().map(|(partition, _)| *partition).zip(found).collect::<BTreeMap<_, _>>())
    };
    let found: Vec<_> = stream::iter(fresh).map(find).buffer_unordered(AT_ONCE).collect().await;
    for (topic, starts) in found {
        looked.topics.entry(topic).or_default().starts = starts;
    }
}

/// Where damaged batches end that the client does not get over.
async fn find_ends(member: &Member, keys: &[TopicPartition], looked: &mut Looked) {
    let damaged = member.core().damaged(keys);
    let known = |damaged: Damaged| {
        let seen = looked.topics.get(&damaged.place.0).filter(|seen| seen.life == damaged.life)?;
        let extent = seen.ends.get(&damaged.place.1).copied()?;
        Some((damaged, extent))
    };
    let damaged = damaged.into_iter().filter_map(known).collect();
    for ((topic, partition), to) in damage::ends(&member.shared, damaged).await {
        if let Some(seen) = looked.topics.get_mut(&topic) {
            seen.behind.insert(partition, to);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn who_looked_and_broke_off_is_told_of_so_that_it_is_looked_again() {
        for breaks in [false, true] {
            let told = Arc::new(Mutex::new(Vec::new()));
            let tells = Arc::clone(&told);
            let tell = Tell::new(late("h:1"), move |found| tells.lock().unwrap().push(found.is_ok()));
            let looked = tokio::spawn(async move {
                let mut tell = tell;
                assert!(!breaks, "it breaks off");
                tell.tell(Ok(Looked::default()));
            });
            assert_eq!(looked.await.is_err(), breaks);
            assert_eq!(*told.lock().unwrap(), [!breaks]);
        }
    }
}
