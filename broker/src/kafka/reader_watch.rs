//! What a reader looks after beside reading, once a second or when something is doubtful: whether its topics are those that they were, whether they
//! have grown, what became of what is out of range, and whether what it waits for is there at all.
//!
//! A client that reads by offset does not notice that a topic was made again, where that is as long as before. So its id is asked. Not here: what follows
//! from the answers (`following/`, `follow.rs`).

use super::{
    broker::Shared,
    damage::{self, Damaged},
    follow::Followed,
    following::Place,
    offsets::{self, First},
    reader::Following,
};
use crate::{Epoch, ErrorKind, Owned, Topic};
use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How often at the most, however doubtful things are.
const PAUSE: Duration = Duration::from_millis(50);

/// Until the reader ends.
pub(super) async fn run(shared: Arc<Shared>, following: Arc<Following>) {
    loop {
        _ = tokio::time::timeout(LOOK, following.look.notified()).await;
        if following.state().ended().is_some() {
            return;
        }
        let topics = following.state().topics();
        let mut all = true;
        for topic in topics {
            all &= look(&shared, &following, &topic).await;
        }
        catch_up(&shared, &following).await;
        let again = following.state().holds_back();
        if !all || !again {
            tokio::time::sleep(PAUSE).await;
        }
        if again {
            // It came while we looked.
            following.look.notify_one();
        }
    }
}

/// Looks at a topic. `false`: something cannot be asked now, and is asked the next time.
async fn look(shared: &Arc<Shared>, following: &Following, topic: &Topic) -> bool {
    let found = match shared.topics.describe(topic).await {
        Ok(described) => Some((described.life, described.count())),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::debug!(%error, %topic, "a reader looks again");
            return false;
        }
    };
    let (asked, added) = following.change(|state| state.looked(topic, found, Instant::now()));
    let Some((life, _)) = found else { return true };
    let partitions: Vec<u32> = asked.iter().map(|(place, _)| place.1).chain(added.clone()).collect();
    let Some(answers) = extents(shared, topic, life, &partitions).await else {
        following.look.notify_one();
        return false;
    };
    let stuck: Vec<(Place, u64)> = {
        let state = following.state();
        let stuck = |(place, turn): &(Place, u64)| Some((place.clone(), state.stuck_at(place, *turn)?));
        asked.iter().filter_map(stuck).collect()
    };
    following.change(|state| {
        let now = Instant::now();
        for (place, turn) in &asked {
            if let Some(extent) = answers.get(&place.1) {
                state.answer(place, *turn, extent, now);
            }
        }
        state.grown(topic, added.start, begun(topic, added, &answers), now);
    });
    let count = stuck.len();
    let known = |(place, begin): &(Place, u64)| {
        Some(Damaged { place: place.clone(), begin: *begin, end: answers.get(&place.1)?.end })
    };
    let ends = damage::ends(shared, stuck.iter().filter_map(known).collect()).await;
    let all = ends.len() == count;
    for (place, begin) in stuck {
        if let Some(to) = ends.get(&place) {
            following.change(|state| state.past_damage(&place, begin, *to));
        }
    }
    all
}

/// What partitions say of themselves, if the topic is of that life before and after.
async fn extents(
    shared: &Arc<Shared>,
    topic: &Topic,
    life: u64,
    partitions: &[u32],
) -> Option<BTreeMap<u32, super::start::Extent>> {
    if partitions.is_empty() {
        return Some(BTreeMap::new());
    }
    let answers = offsets::extents(shared, topic, life, partitions).await;
    let now = shared.topics.describe(topic).await;
    match (answers, now) {
        (Ok(answers), Ok(now)) if now.life == life => Some(answers.into_iter().collect()),
        (answers, now) => {
            let error = answers.err().or_else(|| now.err());
            tracing::debug!(?error, %topic, "a reader asks again");
            None
        }
    }
}

/// Partitions that were added, from their beginning; those behind one that could not be asked come the next time.
fn begun(topic: &Topic, added: Range<u32>, answers: &BTreeMap<u32, super::start::Extent>) -> Vec<Followed> {
    let begin = |partition| {
        let of = Owned { topic: topic.clone(), partition, epoch: Epoch(0) };
        Some(Followed::starting(of, answers.get(&partition)?, 0))
    };
    added.map_while(begin).collect()
}

/// Finds out whether something lies where a user waits for it, though nothing came for a while: what ends in marks of transactions, or was compacted, is
/// all there is, and no record tells that.
async fn catch_up(shared: &Arc<Shared>, following: &Following) {
    let behind: Vec<(Place, u64, u64)> = following.state().behind();
    let of = behind.iter().map(|(place, _, from)| (place.0.clone(), place.1, *from)).collect();
    let found = offsets::first_at(shared, of).await;
    if found.is_empty() {
        return;
    }
    following.change(|state| {
        for (place, turn, from) in &behind {
            if let Some(first) = found.get(place) {
                let offset = first.as_ref().map_or(u64::MAX, |first: &First| first.offset);
                state.nothing_before(place, *turn, *from, offset);
            }
        }
    });
}
