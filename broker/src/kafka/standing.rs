//! Partitions that stand still though there is something: whether it is damage that nobody is told.
//!
//! The library passes over a batch whose length or format cannot be without a word, and servers that cannot read on may say nothing of why. What comes late is no sign of
//! that: it counts that an answer came of which nothing can be made, or that the server says so, while the end of the log can be read. Where that is not sure, nothing is passed over; it is
//! written to the log. Not here: who stands still (`following/`, `members/duty.rs`), where damage ends (`damage.rs`).

use super::{
    broker::Shared,
    offsets::{self, Meant},
    probe::{Probe, Seen},
};
use crate::{Error, ErrorKind, Result, Topic};
use futures::{StreamExt as _, stream};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// For how long nothing came of a partition before it is looked whether there is something, and the pause before it is looked again.
pub(super) const STANDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// How long a look at one may take.
const LOOK: Duration = Duration::from_secs(20);
/// The same of a part of it.
const PART: Duration = Duration::from_secs(3);
/// How many are looked at at a time: so many clients there are.
const AT_ONCE: usize = 4;

/// A partition of which nothing came for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) place: (Topic, u32),
    pub(super) life: u64,
    /// Where it is to be read on.
    pub(super) next: u64,
    /// Up to there nothing was missing when it was looked last.
    pub(super) fine: u64,
}

/// Why it stands.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// Nothing is missing up to there.
    Fine(u64),
    /// It is damaged where it is to be read on.
    Damaged(Error),
}

/// Why each of these stands, as far as it can be said.
pub(super) async fn look(shared: &Arc<Shared>, of: Vec<Standing>) -> Vec<(Standing, Why)> {
    if of.is_empty() {
        return Vec::new();
    }
    let mut topics: BTreeMap<(&Topic, u64), Vec<u32>> = BTreeMap::new();
    for Standing { place, life, .. } in &of {
        topics.entry((&place.0, *life)).or_default().push(place.1);
    }
    let meant: Vec<Meant> =
        topics.into_iter().map(|((topic, life), partitions)| (topic.clone(), life, partitions)).collect();
    let ends = offsets::extents_of(shared, &meant).await;
    let end = |of: &Standing| ends.get(&of.place).map(|extent| (extent.low, extent.end));
    let behind = |of: Standing| {
        let (low, end) = end(&of)?;
        (of.next >= low && end > of.next.max(of.fine)).then_some((of, (low, end)))
    };
    let behind: Vec<(Standing, (u64, u64))> = of.into_iter().filter_map(behind).collect();
    let places = behind.iter().map(|(of, _)| (of.place.0.clone(), of.place.1, of.next)).collect();
    let first = offsets::first_at(shared, places).await;
    let judge = |(of, extent): (Standing, (u64, u64))| {
        // A record, or no more: what is slow comes by itself.
        let fine =
            first.get(&of.place).is_some_and(|first| first.is_none_or(|first| first.timestamp.is_some()));
        let none = first.get(&of.place).is_some_and(Option::is_none);
        async move {
            if fine {
                let up_to = if none { extent.1 } else { of.fine };
                return Some((of, Why::Fine(up_to)));
            }
            judge(Arc::clone(shared), of, extent).await
        }
    };
    stream::iter(behind).map(judge).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

/// `None`: it cannot be said, which is written to the log.
async fn judge(shared: Arc<Shared>, of: Standing, extent: (u64, u64)) -> Option<(Standing, Why)> {
    let asked = of.clone();
    let judged = tokio::task::spawn_blocking(move || is_damaged(&shared, &asked, extent)).await.ok()?;
    let (topic, partition) = &of.place;
    let (offset, end) = (of.next, extent.1);
    match judged {
        Ok(Some(true)) => {
            let context = format!(
                "a batch of records is damaged: nothing can be read of partition {partition} of topic {topic:?} at offset {offset}"
            );
            Some((of, Why::Damaged(Error::new(ErrorKind::Corrupt, context))))
        }
        Ok(Some(false)) => None,
        Ok(None) => {
            tracing::warn!(
                %topic, partition, offset, end,
                "nothing comes of a partition though it has more, and nobody says why; it is waited for: see the log of its server"
            );
            None
        }
        Err(error) => {
            tracing::warn!(%error, %topic, partition, offset, end, "nothing comes of a partition though it has more");
            None
        }
    }
}

/// Whether a partition is damaged where it is to be read on. `None`: it cannot be said.
fn is_damaged(shared: &Shared, of: &Standing, (low, end): (u64, u64)) -> Result<Option<bool>> {
    let until = Instant::now() + LOOK;
    let part = || until.min(Instant::now() + PART);
    let mut probe = Probe::open(shared, &of.place)?;
    let sure = match probe.first(of.next, part())? {
        None => return Ok(None),
        Some(Seen::Other(_)) => return Ok(Some(false)),
        Some(Seen::Damaged(_) | Seen::Unreadable) => true,
        // Something else may be wrong with the server, such as what it keeps elsewhere.
        Some(Seen::Fails) => probe.comes_damaged(low, of.next, until)?,
    };
    let reads = sure && matches!(probe.first(end, part())?, Some(Seen::Other(_)));
    Ok(reads.then_some(true))
}
