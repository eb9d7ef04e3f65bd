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
    standing,
    start::Extent,
    topics::Identity,
};
use crate::{Epoch, ErrorKind, Owned, Topic};
use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How often at the most, however doubtful things are.
const PAUSE: Duration = Duration::from_millis(50);
/// The same where something could not be asked, such as a partition without a leader.
const AGAIN: Duration = Duration::from_millis(200);

/// Until the reader ends.
pub(super) async fn run(shared: Arc<Shared>, following: Arc<Following>) {
    tokio::select! {
        () = looks(&shared, &following) => {}
        () = beside(&shared, &following) => {}
    }
}

/// What looks at the logs themselves, which may take long where one cannot be read.
async fn beside(shared: &Arc<Shared>, following: &Arc<Following>) {
    loop {
        tokio::time::sleep(LOOK).await;
        catch_up(shared, following).await;
        stand(shared, following).await;
    }
}

/// Finds out why partitions stand still.
async fn stand(shared: &Arc<Shared>, following: &Following) {
    let standing = following.state().standing(Instant::now());
    let turns: BTreeMap<Place, u64> =
        standing.iter().map(|(standing, turn)| (standing.place.clone(), *turn)).collect();
    let of = standing.into_iter().map(|(standing, _)| standing).collect();
    for (standing, why) in standing::look(shared, of).await {
        let turn = turns.get(&standing.place).copied().unwrap_or_default();
        if following.change(|state| state.stands(&standing, turn, why)) {
            following.look.notify_one();
        }
    }
}

async fn looks(shared: &Arc<Shared>, following: &Arc<Following>) {
    loop {
        _ = tokio::time::timeout(LOOK, following.look.notified()).await;
        if following.state().ended().is_some() {
            return;
        }
        let topics = following.state().topics();
        let all = look(shared, following, &topics).await;
        let again = following.state().holds_back();
        if !all || !again {
            tokio::time::sleep(if all { PAUSE } else { AGAIN }).await;
        }
        if again {
            // It came while we looked.
            following.look.notify_one();
        }
    }
}

/// What is to be asked of a topic: partitions in their turn, and those that are new.
struct Asked {
    topic: Topic,
    identity: Identity,
    places: Vec<(Place, u64)>,
    added: Range<u32>,
}

/// Looks at topics, at all of them by one question. `false`: something cannot be asked now, and is asked the next time.
async fn look(shared: &Arc<Shared>, following: &Following, topics: &[Topic]) -> bool {
    let found = match shared.topics.identify(topics).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "a reader looks again");
            return false;
        }
    };
    let (mut all, mut asked) = (true, Vec::new());
    let now = Instant::now();
    for (topic, told) in found {
        let identity = match told {
            Ok(identity) => Some(identity),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::debug!(%error, %topic, "a reader looks again");
                all = false;
                continue;
            }
        };
        let seen = identity.as_ref().map(|identity| (identity.life, identity.count()));
        let (places, added) = following.change(|state| state.looked(&topic, seen, now));
        if let Some(identity) = identity.filter(|_| !places.is_empty() || !added.is_empty()) {
            asked.push(Asked { topic, identity, places, added });
        }
    }
    all & ask(shared, following, asked).await
}

/// Asks partitions what they say of themselves. `false`: not all did.
async fn ask(shared: &Arc<Shared>, following: &Following, asked: Vec<Asked>) -> bool {
    if asked.is_empty() {
        return true;
    }
    let meant = |Asked { topic, identity, places, added }: &Asked| {
        let partitions = places.iter().map(|(place, _)| place.1).chain(added.clone());
        (topic.clone(), identity.life, identity.askable(partitions))
    };
    let meant: Vec<_> = asked.iter().map(meant).collect();
    let mut answers = offsets::extents_of(shared, &meant).await;
    // They say nothing of their topic: it is to be the same before and after.
    let after = shared.topics.identify(asked.iter().map(|asked| &asked.topic)).await.unwrap_or_default();
    let life = |topic: &Topic| after.get(topic)?.as_ref().ok().map(|identity| identity.life);
    answers.retain(|(topic, _), extent| life(topic) == Some(extent.life));
    let stuck: Vec<(Place, u64)> = {
        let state = following.state();
        let stuck = |(place, turn): &(Place, u64)| Some((place.clone(), state.stuck_at(place, *turn)?));
        asked.iter().flat_map(|asked| &asked.places).filter_map(stuck).collect()
    };
    let whole = asked.iter().zip(&meant).all(|(asked, (topic, ..))| {
        let partitions = asked.places.iter().map(|(place, _)| place.1).chain(asked.added.clone());
        partitions.into_iter().all(|partition| answers.contains_key(&(topic.clone(), partition)))
    });
    following.change(|state| {
        let now = Instant::now();
        for Asked { topic, places, added, .. } in &asked {
            for (place, turn) in places {
                if let Some(extent) = answers.get(place) {
                    state.answer(place, *turn, extent, now);
                }
            }
            state.grown(topic, added.start, begun(topic, added.clone(), &answers), now);
        }
    });
    let count = stuck.len();
    let known = |(place, begin): &(Place, u64)| {
        let extent = answers.get(place)?;
        Some((Damaged { place: place.clone(), life: extent.life, begin: *begin }, (extent.low, extent.end)))
    };
    let ends = damage::ends(shared, stuck.iter().filter_map(known).collect()).await;
    let found = ends.len() == count;
    for (place, begin) in stuck {
        if let Some(to) = ends.get(&place) {
            following.change(|state| state.past_damage(&place, begin, *to));
        }
    }
    if !whole {
        following.look.notify_one();
    }
    whole && found
}

/// Partitions that were added, from their beginning; those behind one that could not be asked come the next time.
fn begun(topic: &Topic, added: Range<u32>, answers: &BTreeMap<Place, Extent>) -> Vec<Followed> {
    let begin = |partition| {
        let of = Owned { topic: topic.clone(), partition, epoch: Epoch(0) };
        Some(Followed::starting(of, answers.get(&(topic.clone(), partition))?, 0))
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
