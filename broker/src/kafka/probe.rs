//! Looks what lies first at an offset of a partition, with a client that gives its records to nobody.
//!
//! What the library brings behind damage is not to be believed, and may be of another partition: so one thing is asked at a time. Not here: what follows from the
//! answer (`damage.rs`, `standing.rs`), looking at many partitions at once, of which nothing is damaged (`offsets.rs`).

use super::{
    broker::Shared,
    follow::{is_damage, is_refusal},
    raw::{self, Code, Told},
};
use crate::{Result, Topic};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often it is looked what the log of the client says.
const SLICE: Duration = Duration::from_millis(100);
/// So many answers in a row of which the library makes nothing are no accident.
const UNREAD: u32 = 3;
/// For how long a server must fail to read, and how often at least.
const FAILS: (Duration, u32) = (Duration::from_millis(500), 3);

/// What lies first at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A record, or the end, and its offset.
    Other(u64),
    /// A batch that is damaged, and where it begins.
    Damaged(u64),
    /// The server cannot read there, and says that this is damaged; or it answers what cannot be read.
    Unreadable,
    /// The server fails to read there, each time, and does not say why.
    Fails,
}

/// A client that looks at one partition.
pub(super) struct Probe<'a> {
    shared: &'a Shared,
    client: raw::Consumer,
    name: Arc<str>,
    partition: i32,
}

impl<'a> Probe<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the client library.
    pub(super) fn open(shared: &'a Shared, (topic, partition): &(Topic, u32)) -> Result<Self> {
        let conf = shared.settings.consumer(None)?;
        let client = raw::Consumer::probe(conf, Arc::clone(&shared.notes));
        let client = client.map_err(|trouble| shared.failed(&trouble))?;
        let partition = i32::try_from(*partition).unwrap_or(i32::MAX);
        Ok(Self { shared, client, name: Arc::from(topic.as_str()), partition })
    }

    /// What comes first at that offset. `None`: nothing is known by then, or the library has lost its place.
    ///
    /// # Errors
    /// Those of the client library.
    pub(super) fn first(&mut self, offset: u64, until: Instant) -> Result<Option<Seen>> {
        self.place(offset)?;
        let (mut seen, mut lost, mut failed) = (None, false, None::<(Instant, u32)>);
        while seen.is_none() && !lost {
            let Some(left) = left(until) else { return Ok(None) };
            self.client.next(left.min(SLICE), 1, &mut |told| match told {
                Told::Record(record) => seen = u64::try_from(record.offset).ok().map(Seen::Other),
                Told::Problem { code, place: Some(place), .. } => match (code, u64::try_from(place.offset)) {
                    (Code::PARTITION_EOF, Ok(end)) => seen = Some(Seen::Other(end)),
                    (code, _) if is_refusal(code.0) => seen = Some(Seen::Unreadable),
                    (code, Ok(begin)) if is_damage(code.0) => seen = Some(Seen::Damaged(begin)),
                    (Code::UNKNOWN, _) => {
                        let (since, times) = failed.unwrap_or_else(|| (Instant::now(), 0));
                        failed = Some((since, times + 1));
                    }
                    _ => lost = true,
                },
                _ => {}
            });
            if seen.is_none() && self.client.unread(offset) >= UNREAD {
                seen = Some(Seen::Unreadable);
            }
            let fails = |(since, times): (Instant, u32)| since.elapsed() >= FAILS.0 && times >= FAILS.1;
            if seen.is_none() && failed.is_some_and(fails) {
                seen = Some(Seen::Fails);
            }
        }
        Ok(seen)
    }

    /// Whether a damaged batch comes behind what can be read last before that offset, from `low` on: so it shows where a server fails to read from there on.
    ///
    /// # Errors
    /// Those of the client library.
    pub(super) fn comes_damaged(&mut self, low: u64, offset: u64, until: Instant) -> Result<bool> {
        let (mut step, mut whole) = (1, offset);
        while whole == offset {
            let before = offset.saturating_sub(step).max(low);
            match self.first(before, until)? {
                Some(Seen::Other(_)) if before < offset => whole = before,
                Some(Seen::Damaged(at)) => return Ok(at <= offset),
                Some(Seen::Fails | Seen::Unreadable) if before > low => step = step.saturating_mul(4),
                _ => return Ok(false),
            }
        }
        self.place(whole)?;
        let mut found = None;
        while found.is_none() {
            let Some(left) = left(until) else { break };
            self.client.next(left.min(SLICE), 1, &mut |told| match told {
                Told::Record(record) if u64::try_from(record.offset).is_ok_and(|at| at >= offset) => {
                    found.get_or_insert(false);
                }
                Told::Problem { code, place: Some(place), .. }
                    if is_damage(code.0) && !is_refusal(code.0) =>
                {
                    found.get_or_insert_with(|| u64::try_from(place.offset).is_ok_and(|at| at <= offset));
                }
                _ => {}
            });
        }
        Ok(found == Some(true))
    }

    fn place(&self, offset: u64) -> Result<()> {
        let place = raw::Place::new(&self.name, self.partition, i64::try_from(offset).unwrap_or(i64::MAX));
        self.client.assign(&[place]).map_err(|trouble| self.shared.failed(&trouble))
    }
}

fn left(until: Instant) -> Option<Duration> {
    until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
