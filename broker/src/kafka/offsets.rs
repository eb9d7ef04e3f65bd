//! Asks what partitions say of themselves: where they begin and end, where a time is, what lies first behind an offset.
//!
//! A partition says nothing of its topic's life, so that is asked before and after. Not here: what follows from the answers (`start.rs`, `follow.rs`), where damage
//! ends (`damage.rs`).

use super::{
    broker::Shared,
    facts::Described,
    follow::is_damage,
    raw::{self, Answered, Code, Spec, Told},
    start::{Extent, Resolved},
    topics::ANSWER,
};
use crate::{Error, ErrorKind, Result, Start, Timestamp, Topic};
use futures::{StreamExt as _, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// How often a topic may change its life while it is asked about.
const TRIES: u32 = 5;
/// The pause before partitions without a leader are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long many topics are asked about together, before each is by itself.
const TOGETHER: Duration = Duration::from_secs(3);
/// How many are asked about at a time then.
const AT_ONCE: usize = 8;
/// How long a look at single records may take.
const LOOK: Duration = Duration::from_secs(5);

/// A topic, and what partitions of it say of themselves.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) described: Arc<Described>,
    /// Those that were meant, by number.
    pub(super) extents: Vec<(u32, Extent)>,
}

/// What a topic, and all or one of its partitions, say of themselves now.
///
/// # Errors
/// `NotFound` names the topic or the partition; those of the connection.
pub(super) async fn ask(shared: &Arc<Shared>, topic: &Topic, partition: Option<u32>) -> Result<Found> {
    let mut described = shared.topics.describe(topic).await?;
    for _ in 0..TRIES {
        let partitions = chosen(topic, described.count(), partition)?;
        let extents = extents(shared, topic, described.life, &partitions).await;
        let now = shared.topics.describe(topic).await?;
        if now.life == described.life {
            return Ok(Found { described: now, extents: extents? });
        }
        described = now;
    }
    let context = format!("topic {topic:?} is made again and again while it is asked about; try again");
    Err(Error::new(ErrorKind::Unavailable, context))
}

/// The partitions that are meant.
///
/// # Errors
/// `NotFound`.
fn chosen(topic: &Topic, count: u32, partition: Option<u32>) -> Result<Vec<u32>> {
    match partition {
        None => Ok((0..count).collect()),
        Some(one) if one < count => Ok(vec![one]),
        Some(one) => {
            let context = format!("topic {topic:?} has no partition {one}; it has {count}, from 0 on");
            Err(Error::new(ErrorKind::NotFound, context))
        }
    }
}

/// Where these partitions begin and end, given the life of their topic.
///
/// # Errors
/// `NotFound` where one is gone; those of the connection.
pub(super) async fn extents(
    shared: &Arc<Shared>,
    topic: &Topic,
    life: u64,
    partitions: &[u32],
) -> Result<Vec<(u32, Extent)>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let low = list(shared, topic, partitions, Spec::Earliest);
    let end = list(shared, topic, partitions, Spec::Latest);
    let (low, end) = tokio::try_join!(low, end)?;
    let offset = |offset: Option<i64>| offset.and_then(|offset| u64::try_from(offset).ok());
    let both = |(low, end): (&Listed, &Listed)| (low.0, extent(life, offset(low.1), offset(end.1)));
    Ok(low.iter().zip(&end).map(both).collect())
}

/// What was removed between the two answers is not there.
fn extent(life: u64, low: Option<u64>, end: Option<u64>) -> Extent {
    let low = low.unwrap_or(0);
    Extent { life, low, end: end.unwrap_or(0).max(low) }
}

/// A topic, its life, and partitions of it.
pub(super) type Meant = (Topic, u64, Vec<u32>);

/// Where partitions of many topics begin and end, all by one question. Those that cannot be asked about now are left out.
pub(super) async fn extents_of(shared: &Arc<Shared>, of: &[Meant]) -> BTreeMap<(Topic, u32), Extent> {
    let found = together(shared, of, TOGETHER).await;
    if !found.is_empty() || of.len() < 2 {
        return found;
    }
    // Where one of them fails, the client library may say nothing of the others.
    let one = |meant: Meant| async move { together(shared, &[meant], ANSWER).await };
    stream::iter(of.to_vec()).map(one).buffer_unordered(AT_ONCE).map(stream::iter).flatten().collect().await
}

async fn together(shared: &Arc<Shared>, of: &[Meant], limit: Duration) -> BTreeMap<(Topic, u32), Extent> {
    let lives: BTreeMap<&Topic, u64> = of.iter().map(|(topic, life, _)| (topic, *life)).collect();
    let places = |(topic, _, partitions): &Meant| {
        let name: Arc<str> = Arc::from(topic.as_str());
        let number = |partition: &u32| Some((Arc::clone(&name), i32::try_from(*partition).ok()?));
        partitions.iter().filter_map(number).collect::<Vec<_>>()
    };
    let places: Vec<(Arc<str>, i32)> = of.iter().flat_map(places).collect();
    if places.is_empty() {
        return BTreeMap::new();
    }
    let ask = |spec: Spec| {
        let asks: Vec<_> = places.iter().map(|(name, number)| (Arc::clone(name), *number, spec)).collect();
        shared.ask(move |admin, wait| admin.list_offsets(&asks, wait.min(limit)))
    };
    let (low, end) = match tokio::try_join!(ask(Spec::Earliest), ask(Spec::Latest)) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "where partitions begin and end is asked again");
            return BTreeMap::new();
        }
    };
    let both = |(low, end): (Answered, Answered)| {
        let ((place, low_told), (last, end_told)) = (low, end);
        (low_told.and(end_told)).ok()?;
        let topic = Topic::new(&*place.topic).ok()?;
        let life = *lives.get(&topic)?;
        let extent = extent(life, u64::try_from(place.offset).ok(), u64::try_from(last.offset).ok());
        Some(((topic, u32::try_from(place.partition).ok()?), extent))
    };
    low.into_iter().zip(end).filter_map(both).collect()
}

/// What topics and all of their partitions say of themselves, by as many questions as of one: the life of each, and its partitions by number.
///
/// # Errors
/// `NotFound` names a topic; those of the connection.
pub(super) async fn ask_all(
    shared: &Arc<Shared>,
    topics: &BTreeSet<Topic>,
) -> Result<BTreeMap<Topic, (u64, Vec<(u32, Extent)>)>> {
    let mut found = BTreeMap::new();
    let mut missing = topics.clone();
    for turn in 0.. {
        if missing.is_empty() {
            break;
        }
        if turn > 0 {
            // One without a leader just now, or one that is made again.
            tokio::time::sleep(PAUSE).await;
        }
        let mut meant = Vec::new();
        for (topic, identity) in shared.topics.identify(&missing).await? {
            let identity = identity?;
            meant.push((topic, identity.life, identity.askable(0..identity.count())));
        }
        let mut extents = extents_of(shared, &meant).await;
        for (topic, identity) in shared.topics.identify(&missing).await? {
            let identity = identity?;
            let all = (0..identity.count()).map(|partition| {
                let extent = extents.remove(&(topic.clone(), partition))?;
                (extent.life == identity.life).then_some((partition, extent))
            });
            if let Some(all) = all.collect() {
                missing.remove(&topic);
                found.insert(topic, (identity.life, all));
            }
        }
    }
    Ok(found)
}

/// Where a start is in each of these partitions.
///
/// # Errors
/// `Invalid` for a position of another life; those of the connection.
pub(super) async fn starts(
    shared: &Arc<Shared>,
    topic: &Topic,
    extents: &[(u32, Extent)],
    from: Start,
) -> Result<Vec<u64>> {
    let mut time = None;
    let mut starts = Vec::with_capacity(extents.len());
    for (_, extent) in extents {
        match extent.resolve(topic, from)? {
            Resolved::At(offset) => starts.push(offset),
            Resolved::Time(millis) => time = Some(millis),
        }
    }
    let Some(millis) = time else { return Ok(starts) };
    let partitions: Vec<u32> = extents.iter().map(|(partition, _)| *partition).collect();
    let found = list(shared, topic, &partitions, Spec::Time(millis)).await?;
    let first = |first: Option<i64>| first.and_then(|first| u64::try_from(first).ok());
    Ok(extents.iter().zip(found).map(|((_, extent), (_, found))| extent.at_time(first(found))).collect())
}

/// A partition, and the offset that was asked for, where there is one.
type Listed = (u32, Option<i64>);

/// One offset of each partition, in their order; `None` where there is none. Partitions that have no leader just now are asked again.
async fn list(shared: &Arc<Shared>, topic: &Topic, partitions: &[u32], spec: Spec) -> Result<Vec<Listed>> {
    let name: Arc<str> = Arc::from(topic.as_str());
    let mut found = BTreeMap::new();
    loop {
        let missing = partitions.iter().filter(|partition| !found.contains_key(*partition));
        let asks: Vec<(Arc<str>, i32, Spec)> = missing
            .filter_map(|partition| Some((Arc::clone(&name), i32::try_from(*partition).ok()?, spec)))
            .collect();
        if asks.is_empty() {
            return Ok(found.into_iter().collect());
        }
        for answer in shared.ask(move |admin, wait| admin.list_offsets(&asks, wait)).await? {
            match (u32::try_from(answer.0.partition), answer.1) {
                (Ok(partition), Ok(())) => {
                    let offset = answer.0.offset;
                    found.insert(partition, (offset >= 0).then_some(offset));
                }
                (_, Err(trouble)) if is_passing(trouble.code) => {}
                (_, Err(trouble)) => return Err(shared.failed(&trouble)),
                (Err(_), Ok(())) => {}
            }
        }
        if found.len() < partitions.len() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether a partition that answers so has no leader just now: LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, the epoch of another leader
/// (FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH), OFFSET_NOT_AVAILABLE, or what the client library says of such.
fn is_passing(code: Code) -> bool {
    matches!(code.0, 5 | 6 | 74 | 75 | 78) || code == Code::TRANSPORT
}

/// A record that lies first behind an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) offset: u64,
    pub(super) timestamp: Option<Timestamp>,
}

/// The first record at or behind an offset in each of these partitions, `None` where there is none. What is absent is not known: it could not be
/// reached, or there is nothing at that offset any more. A client of its own looks, which gives its records to nobody.
pub(super) async fn first_at(
    shared: &Arc<Shared>,
    of: Vec<(Topic, u32, u64)>,
) -> BTreeMap<(Topic, u32), Option<First>> {
    if of.is_empty() {
        return BTreeMap::new();
    }
    let looking = Arc::clone(shared);
    let looked = tokio::task::spawn_blocking(move || look(&looking, &of)).await;
    looked.ok().and_then(Result::ok).unwrap_or_default()
}

fn look(shared: &Shared, of: &[(Topic, u32, u64)]) -> Result<BTreeMap<(Topic, u32), Option<First>>> {
    let conf = shared.settings.consumer(None)?;
    let client = raw::Consumer::probe(conf, Arc::clone(&shared.notes));
    let mut client = client.map_err(|trouble| shared.failed(&trouble))?;
    let place = |(topic, partition, offset): &(Topic, u32, u64)| {
        let (partition, offset) = (i32::try_from(*partition).ok()?, i64::try_from(*offset).ok()?);
        Some(raw::Place::new(&Arc::from(topic.as_str()), partition, offset))
    };
    let places: Vec<_> = of.iter().filter_map(place).collect();
    client.assign(&places).map_err(|trouble| shared.failed(&trouble))?;
    let mut found = BTreeMap::new();
    let end = Instant::now() + LOOK;
    while found.len() < of.len() {
        let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            break;
        };
        let mut told = |topic: &str, partition: i32, first: Option<First>| {
            let meant = |(name, number, _): &&(Topic, u32, u64)| {
                name.as_str() == topic && i64::from(*number) == i64::from(partition)
            };
            if let Some((topic, partition, _)) = of.iter().find(meant) {
                found.entry((topic.clone(), *partition)).or_insert(first);
            }
        };
        client.next(left, 1, &mut |seen| match seen {
            Told::Record(record) => {
                let Ok(offset) = u64::try_from(record.offset) else { return };
                let timestamp = record.timestamp.map(Timestamp::from_millis);
                told(record.topic, record.partition, Some(First { offset, timestamp }));
            }
            Told::Problem { code: Code::PARTITION_EOF, place: Some(place), .. } => {
                told(&place.topic, place.partition, None);
            }
            // Something lies there, and nobody knows of when it is.
            Told::Problem { code, place: Some(place), .. } if is_damage(code.0) => {
                let Ok(offset) = u64::try_from(place.offset) else { return };
                told(&place.topic, place.partition, Some(First { offset, timestamp: None }));
            }
            _ => {}
        });
    }
    Ok(found)
}
