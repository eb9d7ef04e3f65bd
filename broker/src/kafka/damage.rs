//! Where damage in a log ends.
//!
//! The library tells where a damaged batch begins, and nothing of its end. A server hands out the batch in which an offset lies: so offsets are tried, in steps that
//! double until one is behind it, and then by halves. Where the damage is told of the batch, nothing is passed over; where a server cannot read on, or answers what
//! nobody can read, offsets in between were not asked, and some of them are then, so that what is whole there comes.
//!
//! It is looked for beside everything else, and what is known is kept until the next time: it delays nobody. Not here: what lies at an offset (`probe.rs`), what is
//! told of damage (`follow.rs`, `members/reading.rs`), who stands before damage without being told (`standing.rs`).

use super::{
    broker::Shared,
    probe::{Probe, Seen},
};
use crate::{Result, Topic};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// How long a turn may take. What is not found by then is looked for in the next one.
const TURN: Duration = Duration::from_secs(10);
/// How many turns there are at a time: so many clients there are.
const AT_ONCE: usize = 8;
/// How long one question waits before it is asked again.
const ASK: Duration = Duration::from_secs(2);
/// How long who asks waits for what is found at once.
const SOON: Duration = Duration::from_millis(300);
/// For how long it is kept what nobody asks for.
const KEPT: Duration = Duration::from_secs(60);
/// How many of the offsets that were passed over are asked.
const SAMPLES: u64 = 15;

/// A batch that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Damaged {
    /// Where it is.
    pub(super) place: (Topic, u32),
    /// Which life of the topic it is.
    pub(super) life: u64,
    /// Where it begins.
    pub(super) begin: u64,
}

/// What is known of damaged batches.
#[derive(Debug, Default)]
pub(super) struct Damages {
    known: Mutex<BTreeMap<Damaged, Known>>,
    /// A turn ended.
    turn: Notify,
}

#[derive(Debug)]
struct Known {
    search: Search,
    runs: bool,
    asked: Instant,
}

impl Damages {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Damaged, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first offset behind each of these batches, as far as it is known. Beside each: where the log begins and ends. What is not is looked for meanwhile.
pub(super) async fn ends(
    shared: &Arc<Shared>,
    mut of: Vec<(Damaged, (u64, u64))>,
) -> BTreeMap<(Topic, u32), u64> {
    if of.is_empty() {
        return BTreeMap::new();
    }
    // Each time another one is first, so that those whose end cannot be found hold nobody back for good.
    let first = rand::random_range(0..of.len());
    of.rotate_left(first);
    let until = Instant::now() + SOON;
    loop {
        let turn = shared.damages.turn.notified();
        tokio::pin!(turn);
        turn.as_mut().enable();
        let found = look(shared, &of);
        if found.len() == of.len() || timeout_at(until, turn).await.is_err() {
            return found;
        }
    }
}

/// What is known, and a turn for each of which it is not.
fn look(shared: &Arc<Shared>, of: &[(Damaged, (u64, u64))]) -> BTreeMap<(Topic, u32), u64> {
    let now = Instant::now();
    let mut all = shared.damages.known();
    all.retain(|_, known| known.runs || now < known.asked + KEPT);
    let mut running = all.values().filter(|known| known.runs).count();
    let mut found = BTreeMap::new();
    for (damaged, extent) in of {
        let fresh = || Known { search: Search::new(damaged.begin, *extent), runs: false, asked: now };
        let known = all.entry(damaged.clone()).or_insert_with(fresh);
        known.asked = now;
        if !known.runs {
            known.search.grow(extent.1);
        }
        if known.search.next().is_none() {
            found.insert(damaged.place.clone(), known.search.resumes);
        } else if !known.runs && running < AT_ONCE {
            (known.runs, running) = (true, running + 1);
            tokio::spawn(turn(Arc::clone(shared), damaged.clone(), known.search.clone()));
        }
    }
    found
}

async fn turn(shared: Arc<Shared>, damaged: Damaged, mut search: Search) {
    let (looking, place) = (Arc::clone(&shared), damaged.place.clone());
    let searched = tokio::task::spawn_blocking(move || {
        let found = find(&looking, &place, &mut search);
        (search, found)
    });
    let searched = searched.await;
    if let Some(known) = shared.damages.known().get_mut(&damaged) {
        known.runs = false;
        if let Ok((search, found)) = searched {
            known.search = search;
            if let Err(error) = found {
                tracing::debug!(%error, "the end of a damaged batch is looked for again");
            }
        }
    }
    shared.damages.turn.notify_waiters();
}

fn find(shared: &Shared, place: &(Topic, u32), search: &mut Search) -> Result<()> {
    let until = Instant::now() + TURN;
    let mut probe = Probe::open(shared, place)?;
    while let Some(offset) = search.next() {
        let part = until.min(Instant::now() + ASK);
        if Instant::now() >= until {
            break;
        }
        // The library may drop what it has to say of a damaged batch: it is asked again.
        let Some(seen) = probe.first(offset, part)? else { continue };
        if seen == Seen::Fails && !is_of_damage(&mut probe, search, until)? {
            let ((topic, partition), begin) = (place, search.begin);
            tracing::warn!(
                %topic, partition, begin, offset,
                "a batch of records is damaged, and its server fails to read what lies behind without saying why; it is waited for: see the log of the server"
            );
            break;
        }
        search.told(offset, seen);
    }
    Ok(())
}

/// Whether a server that does not say why it fails to read does so for that damage: where it reads the end of the log, and what lies before the damage.
fn is_of_damage(probe: &mut Probe<'_>, search: &mut Search, until: Instant) -> Result<bool> {
    if !search.comes {
        search.comes = probe.comes_damaged(search.first, search.begin, until)?;
    }
    let part = until.min(Instant::now() + ASK);
    Ok(search.comes && matches!(probe.first(search.end, part)?, Some(Seen::Other(_))))
}

/// What is known of where damage ends. Pure.
#[derive(Clone, Debug)]
struct Search {
    begin: u64,
    /// Where the log begins.
    first: u64,
    /// That batch shows behind what lies before it.
    comes: bool,
    /// Up to here it is that batch.
    sure: u64,
    /// Here it is damaged.
    low: u64,
    /// Here it is not.
    high: u64,
    /// What lies there is at this offset.
    resumes: u64,
    /// Where the log ends.
    end: u64,
    step: u64,
    /// Where nothing can be read, which may be of other damage than what lies before it.
    bad: BTreeSet<u64>,
}

impl Search {
    fn new(begin: u64, (first, end): (u64, u64)) -> Self {
        let high = end.max(begin + 1);
        let comes = false;
        Self {
            begin,
            first,
            comes,
            sure: begin,
            low: begin,
            high,
            resumes: high,
            end,
            step: 1,
            bad: BTreeSet::new(),
        }
    }

    /// The log has grown: where nothing could be read up to its end, that may go on.
    fn grow(&mut self, end: u64) {
        if self.high == self.end && end > self.end {
            (self.high, self.resumes, self.end) = (end, end, end);
        }
    }

    /// The offset to be looked at next. `None`: it ends before [`Self::high`].
    fn next(&self) -> Option<u64> {
        let rest = self.high - self.low;
        if rest > 1 {
            return Some(self.low + self.step.min(rest / 2));
        }
        // What was passed over in between.
        let over = self.high - self.sure;
        let sample = |number: u64| {
            let part = u128::from(over) * u128::from(number) / u128::from(SAMPLES + 1);
            self.sure + u64::try_from(part).unwrap_or(0)
        };
        let open = |offset: &u64| *offset > self.sure && *offset < self.high && !self.bad.contains(offset);
        if self.bad.is_empty() { None } else { (1..=SAMPLES).map(sample).find(open) }
    }

    /// What lies there.
    fn told(&mut self, offset: u64, seen: Seen) {
        match seen {
            Seen::Damaged(at) if at <= self.begin => {
                self.sure = self.sure.max(offset);
                self.bad.retain(|bad| *bad > offset);
            }
            Seen::Unreadable | Seen::Fails => _ = self.bad.insert(offset),
            Seen::Damaged(_) | Seen::Other(_) => {
                let at = if let Seen::Other(at) = seen { at } else { offset };
                (self.high, self.resumes) = (offset, if at <= self.end { at.max(offset) } else { offset });
                self.bad.retain(|bad| *bad < offset);
                self.low = self.bad.last().copied().unwrap_or(self.sure).max(self.sure);
                return;
            }
        }
        if offset > self.low {
            (self.low, self.step) = (offset, self.step.saturating_mul(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How it is told: `seen` says what lies at an offset.
    fn searched(begin: u64, end: u64, seen: impl Fn(u64) -> Seen) -> (u64, usize) {
        let (mut search, mut asked) = (Search::new(begin, (0, end)), 0);
        while let Some(offset) = search.next() {
            assert!(offset > begin && offset < end && asked < 1000, "{search:?}");
            search.told(offset, seen(offset));
            asked += 1;
        }
        (search.resumes, asked)
    }

    #[test]
    fn the_end_of_a_batch_is_found_wherever_it_lies() {
        for to in [11, 12, 20, 1000, 1_000_000] {
            let seen = |offset| if offset < to { Seen::Damaged(10) } else { Seen::Other(offset) };
            let (found, asked) = searched(10, 2_000_000, seen);
            assert!(found == to && asked < 50, "{found}, asked {asked}");
            // Another one follows at once.
            let seen = |offset| Seen::Damaged(if offset < to { 10 } else { to });
            assert_eq!(searched(10, 2_000_000, seen).0, to);
        }
        assert_eq!(searched(10, 11, Seen::Other).0, 11);
        assert_eq!(searched(10, 20, |_| Seen::Damaged(10)).0, 20, "up to the end");
    }

    #[test]
    fn where_servers_cannot_read_on_it_is_found_too() {
        for (seen, to) in [(Seen::Unreadable, 20), (Seen::Fails, 20), (Seen::Unreadable, 70_000)] {
            let at = |offset| if offset < to { seen } else { Seen::Other(offset) };
            let (found, asked) = searched(10, 100_000, at);
            assert!(found == to && asked < 60, "{found}, asked {asked}");
        }
        assert_eq!(searched(10, 40, |_| Seen::Unreadable).0, 40);
    }

    #[test]
    fn what_reaches_the_end_is_looked_at_again_when_the_log_has_grown() {
        let mut search = Search::new(10, (0, 20));
        while let Some(offset) = search.next() {
            search.told(offset, Seen::Unreadable);
        }
        assert_eq!(search.resumes, 20);
        search.grow(30);
        while let Some(offset) = search.next() {
            search.told(offset, if offset < 24 { Seen::Unreadable } else { Seen::Other(offset) });
        }
        assert_eq!(search.resumes, 24);
        search.grow(40);
        assert_eq!((search.next(), search.resumes), (None, 24), "it ended before");
    }

    #[test]
    fn what_a_server_passes_over_by_itself_is_missing_too() {
        // It takes the batch for one of a single record.
        assert_eq!(searched(10, 40, |_| Seen::Other(20)).0, 20);
        assert_eq!(searched(10, 40, |_| Seen::Other(245)).0, 11, "there is no such offset");
    }

    #[test]
    fn what_is_whole_between_two_places_that_cannot_be_read_is_not_passed_over() {
        // The steps fall into the second one.
        let at = |offset| if (14..17).contains(&offset) { Seen::Other(offset) } else { Seen::Unreadable };
        assert_eq!(searched(10, 26, at).0, 14);
        // The same where a part is known to be of one batch.
        let seen = |offset| match offset {
            ..14 => Seen::Damaged(10),
            14..17 => Seen::Other(offset),
            _ => Seen::Unreadable,
        };
        assert_eq!(searched(10, 26, seen).0, 14);
    }
}
