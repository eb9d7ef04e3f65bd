//! What is known of topics and their partitions: asked from the server, and kept for a short time.
//!
//! A description that is kept may be old for [`FRESH`]: that long another process that publishes may not know of added partitions. What was
//! deleted is found out by writing or reading it. So is a partition that lost its log or its marks alone (evicted, or removed by somebody): its topic is
//! suspected then, and mended when it is asked for next (`scripts/partition_mend.lua`). Not here: changing topics (`admin.rs`), what a description is (`description.rs`).

use super::{
    commands::{Commands, Told},
    delay::mark,
    description::{Description, State},
    failure::strange,
    follow::{Counts, Marks},
    keys::{Keys, PartitionKeys},
    lasting,
    request::Request,
    scripts,
    start::Extent,
};
use crate::{Error, ErrorKind, Position, Result, Timestamp, Topic};
use ropeway_store::redis::Reply;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// For how long a description is believed.
const FRESH: Duration = Duration::from_secs(1);
/// How many descriptions are kept.
const KEPT: usize = 4096;

/// Descriptions of topics.
#[derive(Debug)]
pub(super) struct Topics {
    pub(super) commands: Commands,
    pub(super) keys: Keys,
    known: Mutex<HashMap<Topic, Known>>,
    /// Something of these was not there.
    suspected: Mutex<HashSet<Topic>>,
}

#[derive(Debug)]
struct Known {
    description: Arc<Description>,
    at: Instant,
}

impl Topics {
    pub(super) fn new(commands: Commands, keys: Keys) -> Self {
        Self { commands, keys, known: Mutex::default(), suspected: Mutex::default() }
    }

    /// The description, where it was asked for a moment ago.
    pub(super) fn kept(&self, topic: &Topic) -> Option<Arc<Description>> {
        let known = self.known();
        let known = known.get(topic).filter(|known| known.at.elapsed() < FRESH)?;
        Some(Arc::clone(&known.description))
    }

    /// The description, which may be a moment old.
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    pub(super) async fn get(&self, topic: &Topic) -> Result<Arc<Description>> {
        match self.kept(topic) {
            Some(kept) => Ok(kept),
            None => self.ask(topic).await,
        }
    }

    /// The description as it is now.
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    pub(super) async fn ask(&self, topic: &Topic) -> Result<Arc<Description>> {
        let found = self.look(topic).await?.filter(|description| description.state == State::Ready);
        let Some(description) = found else {
            self.forget(topic);
            return Err(not_found(topic));
        };
        if self.suspected().remove(topic)
            && let Err(error) = self.mend(topic, &description).await
        {
            tracing::debug!(%error, %topic, "a topic that lost something is looked at again");
            self.suspect(topic);
        }
        let description = Arc::new(description);
        let mut known = self.known();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(topic.clone(), Known { description: Arc::clone(&description), at: Instant::now() });
        Ok(description)
    }

    /// The description as it is now, or as it was known last where its server is away: who asks is told by the life if the topic is another.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub(super) async fn ask_or_known(&self, topic: &Topic) -> Result<Arc<Description>> {
        match self.ask(topic).await {
            Err(error) if error.is_retryable() => {
                let known = self.known();
                known.get(topic).map(|known| Arc::clone(&known.description)).ok_or(error)
            }
            asked => asked,
        }
    }

    /// The description, and the topic is marked if something is to be held in it until `later` ([`super::delay`]).
    ///
    /// # Errors
    /// `NotFound`; those of the connection.
    pub(super) async fn marked(&self, topic: &Topic, later: Option<Timestamp>) -> Result<Arc<Description>> {
        let description = self.get(topic).await?;
        let Some(until) = later.and_then(|due| mark(due, description.held)) else { return Ok(description) };
        let Some(life) = description.life else { return Ok(description) };
        let args = [life.to_string(), until.as_millis().to_string()];
        let told = self.commands.script(&scripts::TOPIC_HOLD, &[self.keys.topic(topic)], &args).await?;
        let description = self.ask(topic).await?;
        if told.word() != "marked" || description.life != Some(life) {
            let context = format!("topic {topic:?} was made again while it was written to; try again");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        Ok(description)
    }

    /// Does not believe what is kept any more.
    pub(super) fn forget(&self, topic: &Topic) {
        self.known().remove(topic);
    }

    /// Something of it was not there: before it is believed again, what partitions lost is made again.
    pub(super) fn suspect(&self, topic: &Topic) {
        self.forget(topic);
        let mut suspected = self.suspected();
        if suspected.len() >= KEPT {
            suspected.clear();
        }
        suspected.insert(topic.clone());
    }

    /// Looks whether these logs are there; in a cluster one by one. Where one is not, its topic is mended, so that a read of it tells what was lost.
    ///
    /// # Errors
    /// Those of the connection; what the server refused. What can be asked is looked at all the same.
    pub(super) async fn check(&self, logs: &[(&Topic, &PartitionKeys)], is_cluster: bool) -> Result<()> {
        if logs.is_empty() {
            return Ok(());
        }
        let parts = || logs.chunks(if is_cluster { 1 } else { logs.len() });
        let mut request = Request::default();
        for some in parts() {
            let mut words = vec!["EXISTS"];
            words.extend(some.iter().map(|(_, keys)| keys.log()));
            request.command(&words);
        }
        let (mut missing, mut failed) = (HashSet::new(), None);
        for (some, answer) in parts().zip(self.commands.ask_each(request, None).await?.unwrap_or_default()) {
            match answer.and_then(|answer| self.commands.checked("EXISTS of logs", answer)) {
                Ok(there) if there.int().and_then(|there| there.try_into().ok()) == Some(some.len()) => {}
                Ok(_) => missing.extend(some.iter().map(|(topic, _)| *topic)),
                Err(error) => failed = lasting::told(failed, error),
            }
        }
        for topic in missing {
            self.suspect(topic);
            match self.ask(topic).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes again what partitions of a topic lost alone.
    async fn mend(&self, topic: &Topic, description: &Description) -> Result<()> {
        let Some(life) = description.life else { return Ok(()) };
        let args = [life.to_string()];
        let all = (0..description.spec.partitions).map(|partition| self.keys.partition(topic, partition));
        let all: Vec<_> = all.collect();
        let names: Vec<_> = all.iter().map(|keys| [keys.log().to_owned(), keys.part()]).collect();
        let calls: Vec<_> = names.iter().map(|names| (&names[..], &args[..])).collect();
        let mut mended = Vec::new();
        for (told, keys) in
            self.commands.scripts(&scripts::PARTITION_MEND, &calls).await?.into_iter().zip(all)
        {
            if told?.word() == "mended" {
                tracing::error!(
                    log = keys.log(),
                    "a log or what is kept beside it was lost: it was evicted, or somebody removed it; what lay there is told as a gap"
                );
                mended.push([keys.log().to_owned(), keys.part(), keys.delayed(), keys.held()]);
            }
        }
        // Somebody deleted it meanwhile: it was not lost.
        let same = |found: Description| found.state == State::Ready && found.life == Some(life);
        if !mended.is_empty() && !self.look(topic).await?.is_some_and(same) {
            let calls: Vec<_> = mended.iter().map(|names| (&names[..], &args[..])).collect();
            self.commands.scripts(&scripts::PARTITION_DROP, &calls).await?;
        }
        Ok(())
    }

    /// What is stored of a topic, in whatever state; `None` where there is nothing.
    ///
    /// # Errors
    /// Those of the connection; a description that cannot be read.
    pub(super) async fn look(&self, topic: &Topic) -> Result<Option<Description>> {
        let mut request = Request::default();
        request.command(&["HGETALL", &self.keys.topic(topic)]).command(&["TYPE", topic.as_str()]);
        let answers = self.commands.read(request).await?;
        let [fields, kind] = <[Reply; 2]>::try_from(answers)
            .map_err(|all| strange(self.commands.server(), "HGETALL", &all))?;
        let about = format!("HGETALL {}", self.keys.topic(topic));
        let fields = pairs(&self.commands.checked(about, fields)?);
        let fields = Description::parse(self.commands.server(), topic, &fields)?;
        let foreign =
            || self.commands.checked("TYPE", kind).ok().filter(|kind| kind.text() == Some("stream"));
        Ok(match fields {
            Some(description) => Some(description),
            None => foreign().map(|_| Description::foreign()),
        })
    }

    /// The keys of a partition.
    pub(super) fn partition(
        &self,
        topic: &Topic,
        description: &Description,
        partition: u32,
    ) -> PartitionKeys {
        match description.life {
            Some(_) => self.keys.partition(topic, partition),
            None => self.keys.foreign(topic),
        }
    }

    /// What each of these partitions says of itself now.
    ///
    /// # Errors
    /// `NotFound` where one is gone; those of the connection.
    pub(super) async fn extents(&self, topic: &Topic, partitions: &[PartitionKeys]) -> Result<Vec<Extent>> {
        let names: Vec<_> = partitions.iter().map(|keys| [keys.log().to_owned(), keys.part()]).collect();
        let calls: Vec<(&[String], &[&str])> = names.iter().map(|names| (&names[..], &[][..])).collect();
        let ask = async || self.commands.scripts(&scripts::EXTENT, &calls).await?.into_iter().collect();
        let told: Result<Vec<Told>> = match ask().await {
            // Nothing is changed by it.
            Err(error) if error.is_retryable() => ask().await,
            told => told,
        };
        let extent = |told: Told| {
            if told.word() == "none" {
                self.suspect(topic);
                return Err(lost(topic));
            }
            extent(&told).ok_or_else(|| told.strange())
        };
        told?.into_iter().map(extent).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Topic, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspected(&self) -> MutexGuard<'_, HashSet<Topic>> {
        self.suspected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn not_found(topic: &Topic) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no topic {topic:?}; create it first"))
}

/// Something of the topic is not there: by the next call it is known whether all of it is gone.
pub(super) fn lost(topic: &Topic) -> Error {
    let context = format!(
        "topic {topic:?} is gone, or one of its logs was lost (evicted, or removed by somebody); try again to know, and see what `ropeway doctor` says of eviction"
    );
    Error::new(ErrorKind::NotFound, context)
}

pub(super) fn no_partition(topic: &Topic, partition: u32, partitions: u32) -> Error {
    let context = format!("topic {topic:?} has no partition {partition}; it has {partitions}, from 0 on");
    Error::new(ErrorKind::NotFound, context)
}

/// The partitions that are meant.
///
/// # Errors
/// `NotFound`.
pub(super) fn chosen(topic: &Topic, description: &Description, partition: Option<u32>) -> Result<Vec<u32>> {
    let count = description.spec.partitions;
    match partition {
        None => Ok((0..count).collect()),
        Some(one) if one < count => Ok(vec![one]),
        Some(one) => Err(no_partition(topic, one, count)),
    }
}

/// Names and values.
pub(super) fn pairs(list: &Reply) -> BTreeMap<String, bytes::Bytes> {
    let pairs = list.items().chunks_exact(2);
    pairs.filter_map(|pair| Some((pair[0].text()?.to_owned(), pair[1].bytes()?.clone()))).collect()
}

/// The id of an entry.
pub(super) fn position(reply: &Reply) -> Option<Position> {
    reply.text()?.parse().ok()
}

/// The answer to `HMGET part life removed`.
pub(super) fn marks(reply: &Reply) -> Marks {
    let [life, removed] = reply.items() else { return Marks::default() };
    Marks { life: life.text().and_then(|life| life.parse().ok()), removed: position(removed) }
}

fn extent(told: &Told) -> Option<Extent> {
    let number = |at: usize| told.text(at).parse().ok();
    let place = |at: usize| told.items.get(at).and_then(position);
    let counts = Counts { added: number(1)?, length: number(2)?, last: place(3)? };
    Some(Extent { marks: Marks { life: number(5), removed: place(6) }, counts, first: place(4) })
}
