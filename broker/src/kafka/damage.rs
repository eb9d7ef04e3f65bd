//! Where damaged batches end.
//!
//! The library tells where such a batch begins, and nothing of its end. A server hands out the batch in which an offset lies: so offsets are tried, in steps that
//! double until one is behind it, and then by halves. A client looks for one of them, and gives its records to nobody: what the library brings behind damage is not to be
//! believed, and that may be of another partition. Not here: what is told of damage (`follow.rs`, `members/reading.rs`).

use super::{
    broker::Shared,
    follow::is_damage,
    raw::{self, Code, Told},
};
use crate::{Result, Topic};
use futures::{StreamExt as _, stream};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long all of it may take. What is not found by then is looked for the next time.
const LOOK: Duration = Duration::from_secs(5);
/// How many ends are looked for at a time: so many clients there are.
const AT_ONCE: usize = 8;
/// How long one question waits before it is asked again: twice what a server waits for something to come.
const ASK: Duration = Duration::from_secs(1);

/// A batch that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damaged {
    /// Where it is.
    pub(super) place: (Topic, u32),
    /// Where it begins.
    pub(super) begin: u64,
    /// Where the log ends.
    pub(super) end: u64,
}

/// The first offset behind each of these batches, as far as it could be found now.
pub(super) async fn ends(shared: &Arc<Shared>, mut of: Vec<Damaged>) -> BTreeMap<(Topic, u32), u64> {
    if of.is_empty() {
        return BTreeMap::new();
    }
    // Each time another one is first, so that those whose end cannot be found hold nobody back for good.
    let first = rand::random_range(0..of.len());
    of.rotate_left(first);
    let until = Instant::now() + LOOK;
    let found = stream::iter(of).map(|damaged| end(Arc::clone(shared), damaged, until));
    found.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

/// `None`: it could not be found out now.
async fn end(shared: Arc<Shared>, damaged: Damaged, until: Instant) -> Option<((Topic, u32), u64)> {
    let place = damaged.place.clone();
    let found = tokio::task::spawn_blocking(move || find(&shared, &damaged, until)).await.ok()?;
    match found {
        Ok(found) => found.map(|end| (place, end)),
        Err(error) => {
            tracing::debug!(%error, "the end of a damaged batch is looked for again");
            None
        }
    }
}

fn find(shared: &Shared, damaged: &Damaged, until: Instant) -> Result<Option<u64>> {
    if Instant::now() >= until {
        return Ok(None);
    }
    let conf = shared.settings.consumer(None, None)?;
    let client = raw::Consumer::probe(conf, Arc::clone(&shared.notes));
    let mut client = client.map_err(|trouble| shared.failed(&trouble))?;
    let Damaged { place: (topic, partition), begin, end } = damaged;
    let (name, number) = (Arc::from(topic.as_str()), i32::try_from(*partition).unwrap_or(i32::MAX));
    // At `low` it is that batch, at `high` it is not.
    let (mut low, mut high, mut step) = (*begin, (*end).max(begin + 1), 1);
    while high - low > 1 {
        let now = Instant::now();
        if now >= until {
            return Ok(None);
        }
        let middle = low + step.min((high - low) / 2);
        let place = raw::Place::new(&name, number, i64::try_from(middle).unwrap_or(i64::MAX));
        client.assign(&[place]).map_err(|trouble| shared.failed(&trouble))?;
        match first_seen(&mut client, until.min(now + ASK)) {
            Some(Seen::Damaged(at)) if at <= *begin => (low, step) = (middle, step.saturating_mul(2)),
            Some(_) => high = middle,
            // The library may drop what it has to say of a damaged batch: it is asked again.
            None => {}
        }
    }
    Ok(Some(high))
}

/// What comes first of an offset.
enum Seen {
    /// A batch that is damaged, and where it begins.
    Damaged(u64),
    /// A record, or the end.
    Other,
}

/// `None`: nothing is known by then, or the library has lost its place.
fn first_seen(client: &mut raw::Consumer, until: Instant) -> Option<Seen> {
    let (mut seen, mut lost) = (None, false);
    while seen.is_none() && !lost {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        client.next(left, 1, &mut |told| match told {
            Told::Record(_) | Told::Problem { code: Code::PARTITION_EOF, .. } => seen = Some(Seen::Other),
            Told::Problem { code, place: Some(place), .. } if is_damage(code.0) => {
                seen = u64::try_from(place.offset).ok().map(Seen::Damaged);
            }
            Told::Problem { place: Some(_), .. } => lost = true,
            _ => {}
        });
    }
    seen
}
