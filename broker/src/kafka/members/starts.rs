//! Where a group starts that has no position in a topic: stored in one step, before anybody is a member.
//!
//! A group with members takes such a thing from them alone; then who owns the first partition stores it (`duty.rs`). Not here: what a start comes to
//! in a partition (`../start.rs`), what a partition begins with (`taking.rs`).

use super::{
    look::committed,
    storing::{COMMIT, Room, size},
    taking,
};
use crate::{
    Group, Result, Start, Topic,
    kafka::{broker::Shared, delay, offsets, raw::Place, start::one_place},
};
use std::sync::Arc;

/// Makes sure that the topics are there and that it is stored where the group starts in each, as far as it has no members. What is delayed in them is looked
/// after here from now on.
///
/// # Errors
/// `NotFound` names the topic; `Invalid` for a start that cannot be meant; those of the connection.
pub(super) async fn ensure(
    shared: &Arc<Shared>,
    group: &Group,
    topics: &[Topic],
    start: Start,
) -> Result<()> {
    begin(shared, group, topics, start).await?;
    let below = delay::below(shared);
    topics.iter().for_each(|topic| shared.delay.watch(&below, topic));
    Ok(())
}

async fn begin(shared: &Arc<Shared>, group: &Group, topics: &[Topic], start: Start) -> Result<()> {
    for (_, told) in shared.topics.identify(topics).await? {
        told?;
    }
    let stored = committed(shared, group).await?;
    let fresh = topics.iter().filter(|topic| !stored.contains_key(*topic)).cloned().collect();
    let mut places = Vec::new();
    for (topic, (life, extents)) in offsets::ask_all(shared, &fresh).await? {
        one_place(&topic, extents.len(), start)?;
        if shared.members.knows(group, &topic).is_some_and(|known| known != life) {
            // It was made again: who takes it tells that, and begins at its beginning.
            continue;
        }
        let from = offsets::starts(shared, &topic, &extents, start).await?;
        let name: Arc<str> = Arc::from(topic.as_str());
        for ((partition, _), offset) in extents.iter().zip(from) {
            let metadata = taking::start(life).into_bytes();
            let (partition, offset) =
                (i32::try_from(*partition).unwrap_or(i32::MAX), i64::try_from(offset).unwrap_or(i64::MAX));
            places.push(Place { metadata: Some(metadata), ..Place::new(&name, partition, offset) });
        }
    }
    if places.is_empty() {
        return Ok(());
    }
    // One after the other: a server writes what it is given at once as one batch. Who is stopped in between has a group that begins in the rest at the beginning.
    for part in parts(group, places) {
        let name = group.to_string();
        let stored = shared.ask(move |admin, wait| admin.alter_group_offsets(&name, &part, wait)).await;
        if let Err(error) = stored {
            // It has members: they store it.
            tracing::debug!(%error, %group, "where a group starts is left to its members");
            break;
        }
    }
    Ok(())
}

/// What is stored at a time.
fn parts(group: &Group, places: Vec<Place>) -> Vec<Vec<Place>> {
    let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), Room::of(COMMIT));
    for place in places {
        let size = size(group.as_str(), &place.topic, place.metadata.as_ref().map_or(0, Vec::len));
        if !room.take(size) {
            parts.push(std::mem::take(&mut part));
            room = Room::of(COMMIT);
            room.take(size);
        }
        part.push(place);
    }
    parts.push(part);
    parts
}
