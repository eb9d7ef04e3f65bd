//! The task that removes what retention lets go, of the topics with a limit that this process publishes to, reads or consumes.
//!
//! It looks once a second, and sooner where this process published much. Any process does, so that none is needed, and several do no harm: what goes is
//! looked at again by the script that removes it. Not here: what goes (`retention.rs`).

use super::{
    commands::Told,
    delay::{Agenda, MOST},
    description::Description,
    group_admin::{Starts, millis},
    keys::PartitionKeys,
    lasting::{self, Seldom},
    request::Request,
    retention::{Concerned, Measured, Share, Wanted, allowed, piece},
    scripts,
    settings::RedisStreamsSettings,
    topics::{Topics, chosen},
};
use crate::{Error, ErrorKind, Group, Position, Result, Topic};
use futures::{StreamExt as _, stream::FuturesUnordered};
use ropeway_store::redis::Reply;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// How many entries of a partition are counted at once.
const AT_ONCE: &str = "1000";
/// How soon is looked where more is to be counted.
const AGAIN: Duration = Duration::from_millis(1);
/// How soon is looked where this process published a piece.
const SOON: Duration = Duration::from_millis(100);

/// Keeps topics within their limits until it is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    watched: Arc<Watched>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Watched {
    topics: Arc<Topics>,
    /// The bytes of a piece, at most.
    segment: u64,
    expiry: Duration,
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    agenda: Agenda,
    /// Bytes that this process published since the last look.
    published: HashMap<Topic, u64>,
    /// Partitions that hold more than they may, and the group that lags.
    full: HashMap<Topic, BTreeMap<u32, String>>,
}

/// What a look found.
#[derive(Default)]
struct Looked {
    full: BTreeMap<u32, String>,
    more: bool,
    /// What kept it from some partitions.
    failure: Option<Error>,
}

impl Watched {
    fn kept<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Keeper {
    pub(super) fn start(topics: Arc<Topics>, settings: &RedisStreamsSettings) -> Self {
        let watched = Arc::new(Watched {
            topics,
            segment: settings.segment,
            expiry: settings.group_expiry,
            kept: Mutex::default(),
            changed: Notify::new(),
        });
        let task = tokio::spawn(run(Arc::clone(&watched))).abort_handle();
        Self { watched, task }
    }

    /// Looks after a topic from now on, if it has a limit.
    pub(super) fn watch(&self, topic: &Topic) {
        self.watched.kept(|kept| kept.agenda.watch(topic, Instant::now()));
        self.watched.changed.notify_one();
    }

    /// Takes note of what is to be published, or forwarded by a group.
    ///
    /// # Errors
    /// `Throttled` where the partition is at its bound, with the group that lags; but not to that group itself, which acks what it forwards.
    pub(super) fn publishes(
        &self,
        from: Option<&Group>,
        topic: &Topic,
        description: &Description,
        partition: u32,
        size: usize,
    ) -> Result<()> {
        let retention = &description.spec.retention;
        if retention.age.is_none() && retention.bytes.is_none() {
            return Ok(());
        }
        let piece = retention.bytes.map_or(u64::MAX, |bytes| piece(bytes, self.watched.segment));
        let soon = self.watched.kept(|kept| {
            let lags = kept.full.get(topic).and_then(|full| full.get(&partition));
            if let Some(group) = lags.filter(|group| from.is_none_or(|from| from.as_str() != **group)) {
                return Err(at_bound(topic, partition, group));
            }
            let now = Instant::now();
            if !kept.published.contains_key(topic) {
                kept.agenda.watch(topic, now);
                kept.published.insert(topic.clone(), 0);
                return Ok(true);
            }
            let published = kept.published.entry(topic.clone()).or_default();
            *published = published.saturating_add(size as u64);
            let soon = *published >= piece;
            if soon {
                *published = 0;
                kept.agenda.expect(topic, SOON, now);
            }
            Ok(soon)
        })?;
        if soon {
            self.watched.changed.notify_one();
        }
        Ok(())
    }

    /// Looks after nothing any more.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

fn at_bound(topic: &Topic, partition: u32, group: &str) -> Error {
    let context = format!(
        "partition {partition} of topic {topic:?} holds all the bytes it may, and group {group:?} has not finished them; let it catch up, delete it, or purge the topic"
    );
    Error::new(ErrorKind::Throttled, context)
}

async fn run(watched: Arc<Watched>) {
    let (mut seldom, mut looks) = (Seldom::default(), FuturesUnordered::new());
    loop {
        let (due, next, left_out) = watched
            .kept(|kept| (kept.agenda.due(Instant::now()), kept.agenda.next(), kept.agenda.left_out()));
        if let Some(topic) = left_out {
            tracing::warn!(
                %topic,
                "this process keeps {MOST} topics within their limits already: this one, and others beyond, grow unless another process keeps them"
            );
        }
        let begin = async |topic: Topic| (look(&watched, &topic).await, topic);
        looks.extend(due.into_iter().map(|(topic, _)| begin(topic)));
        tokio::select! {
            Some((looked, topic)) = looks.next() => watched.kept(|kept| kept.note(topic, looked, &mut seldom)),
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            () = watched.changed.notified() => {}
        }
    }
}

impl Kept {
    /// Takes note of what a look at a topic found.
    fn note(&mut self, topic: Topic, looked: Result<Option<Looked>>, seldom: &mut Seldom) {
        self.agenda.done(&topic);
        let failure = match looked {
            // It has no limit.
            Ok(None) => return self.forget(&topic),
            Ok(Some(looked)) => {
                if looked.more {
                    self.agenda.expect(&topic, AGAIN, Instant::now());
                }
                self.full.insert(topic.clone(), looked.full);
                looked.failure
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return self.forget(&topic),
            Err(error) => Some(error),
        };
        // It is looked at again in a while.
        let Some(error) = failure else { return };
        match seldom.tell_of(&error, Instant::now()) {
            Some(untold) => {
                tracing::warn!(%error, %topic, untold, "the limits of a topic are not applied; it is tried again");
            }
            None => tracing::debug!(%error, %topic, "what a topic may keep is looked at again"),
        }
    }

    fn forget(&mut self, topic: &Topic) {
        self.agenda.forget(topic);
        self.published.remove(topic);
        self.full.remove(topic);
    }
}

/// Removes what may go of a topic; `None` where it has no limit.
async fn look(watched: &Watched, topic: &Topic) -> Result<Option<Looked>> {
    let topics = &watched.topics;
    let description = topics.get(topic).await?;
    let retention = &description.spec.retention;
    let Some(life) = description.life else { return Ok(None) };
    if retention.age.is_none() && retention.bytes.is_none() {
        return Ok(None);
    }
    let life = life.to_string();
    let keys: Vec<PartitionKeys> = chosen(topic, &description, None)?
        .into_iter()
        .map(|partition| topics.partition(topic, &description, partition))
        .collect();
    let piece = retention.bytes.map(|bytes| piece(bytes, watched.segment).to_string()).unwrap_or_default();
    let mut looked = Looked::default();
    let mut wanted = Vec::new();
    for (at, measured) in
        measure(topics, topic, &keys, &[&life, &piece, AT_ONCE]).await?.into_iter().enumerate()
    {
        match measured {
            Ok(measured) => {
                looked.more |= measured.more;
                wanted.extend(Wanted::of(retention, &measured).map(|wanted| (at, wanted)));
            }
            Err(error) => looked.fail(error),
        }
    }
    if !wanted.is_empty() {
        trim(watched, topic, &life, &keys, &wanted, &mut looked).await?;
    }
    Ok(Some(looked))
}

impl Looked {
    /// What one partition cannot have, others can; what is refused is told rather.
    fn fail(&mut self, error: Error) {
        self.failure = lasting::told(self.failure.take(), error);
    }
}

async fn measure(
    topics: &Topics,
    topic: &Topic,
    keys: &[PartitionKeys],
    args: &[&str],
) -> Result<Vec<Result<Measured>>> {
    let names: Vec<_> = keys.iter().map(|keys| [keys.log().to_owned(), keys.part()]).collect();
    let calls: Vec<_> = names.iter().map(|names| (&names[..], args)).collect();
    let told = topics.commands.scripts(&scripts::PARTITION_MEASURE, &calls).await?;
    let measured = told.into_iter().map(|told| {
        let told = told?;
        match told.word() {
            "measured" => measured(&told).ok_or_else(|| told.strange()),
            // Deleted, and perhaps made again, since it was described.
            "life" | "none" => {
                topics.forget(topic);
                Ok(Measured::default())
            }
            _ => Err(told.strange()),
        }
    });
    Ok(measured.collect())
}

fn measured(told: &Told) -> Option<Measured> {
    let words: Vec<&str> = told.text(4).split_whitespace().collect();
    let piece = |pair: &[&str]| Some((pair[0].parse().ok()?, pair[1].parse().ok()?));
    Some(Measured {
        now: told.text(1).parse().ok()?,
        first: told.text(2).parse().ok(),
        bytes: told.text(3).parse().ok()?,
        pieces: words.chunks_exact(2).map(piece).collect::<Option<_>>()?,
        more: told.text(5) == "more",
    })
}

/// Removes what is wanted of partitions and no live group holds back; those that stay too full, with the group that lags.
async fn trim(
    watched: &Watched,
    topic: &Topic,
    life: &str,
    keys: &[PartitionKeys],
    wanted: &[(usize, Wanted)],
    looked: &mut Looked,
) -> Result<()> {
    let topics = &watched.topics;
    let (now, groups) = concerned(topics, topic, keys).await?;
    let (live, dead): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.is_live(now, watched.expiry));
    let expiry = watched.expiry.as_millis().to_string();
    let mut calls = Vec::new();
    for (at, wanted) in wanted {
        let keys = &keys[*at];
        let holds = live.iter().filter_map(|group| Some((&group.group, group.holds(now, life, *at)?)));
        let (upto, holder) = allowed(wanted.upto, holds);
        let names: Vec<String> = [keys.log().to_owned(), keys.part()]
            .into_iter()
            .chain(live.iter().map(|group| keys.group(&group.group)))
            .collect();
        let args: Vec<String> = [life.to_owned(), upto.to_string(), expiry.clone()]
            .into_iter()
            .chain(live.iter().chain(&dead).map(|group| group.group.to_string()))
            .collect();
        calls.push((names, args, *wanted, holder, *at));
    }
    let sent: Vec<_> = calls.iter().map(|(names, args, ..)| (&names[..], &args[..])).collect();
    let told = topics.commands.scripts(&scripts::PARTITION_TRIM, &sent).await?;
    for (told, (_, _, wanted, holder, at)) in told.into_iter().zip(&calls) {
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                looked.fail(error);
                continue;
            }
        };
        match told.word() {
            "trimmed" => {
                let upto: Position = told.text(2).parse().map_err(|_| told.strange())?;
                let holder = match told.text(3) {
                    "" => holder.map(Group::as_str).unwrap_or_default(),
                    holder => holder,
                };
                if wanted.is_full(upto) {
                    looked.full.insert(u32::try_from(*at).unwrap_or(u32::MAX), holder.to_owned());
                }
            }
            "life" | "none" => topics.forget(topic),
            _ => return Err(told.strange()),
        }
    }
    Ok(())
}

/// The groups that have to do with a topic, and the server's time in milliseconds.
async fn concerned(topics: &Topics, topic: &Topic, keys: &[PartitionKeys]) -> Result<(u64, Vec<Concerned>)> {
    let names = topics.commands.one(&["SMEMBERS", &topics.keys.groups_of(topic)]).await?;
    let groups: Vec<Group> = names.items().iter().filter_map(|name| Group::new(name.text()?).ok()).collect();
    let mut request = Request::default();
    request.command(&["TIME"]);
    for group in &groups {
        let of = topics.keys.group(group);
        request.command(&["ZREVRANGE", &of.members(), "0", "0", "WITHSCORES"]);
        request.command(&["HGET", &of.had(), "@seen"]);
        request.command(&["HGET", &of.starts(), topic.as_str()]);
        for keys in keys {
            request.command(&["HMGET", &keys.group(group), "life", "position", "at"]);
        }
    }
    let mut answers = topics.commands.ask_each(request, None).await?.unwrap_or_default().into_iter();
    let time = answers.next().unwrap_or(Ok(Reply::Nil))?;
    let now = millis(&time);
    let answers: Vec<Result<Reply>> = answers.collect();
    let concerned = groups.into_iter().zip(answers.chunks_exact(3 + keys.len())).map(|(group, answers)| {
        let shares =
            answers[3..].iter().map(|answer| answer.as_ref().map_or_else(|_| Share::unknown(now), share));
        let shares = shares.collect();
        let [Ok(leases), Ok(seen), Ok(starts)] = &answers[..3] else {
            return Concerned::unknown(group, shares);
        };
        let number =
            |reply: Option<&Reply>| reply.and_then(Reply::text).and_then(|text| text.parse::<f64>().ok());
        Concerned {
            group,
            lease: number(leases.items().get(1)).unwrap_or(0.0) as u64,
            seen: number(Some(seen)).unwrap_or(0.0) as u64,
            starts: starts.text().map(Starts::parse),
            shares,
        }
    });
    Ok((now, concerned.collect()))
}

/// What a group has of a partition, as it is stored.
fn share(reply: &Reply) -> Share {
    let text = |at: usize| reply.items().get(at).and_then(Reply::text);
    Share {
        life: text(0).map(ToOwned::to_owned),
        position: text(1).and_then(|position| position.parse().ok()),
        at: text(2).and_then(|at| at.parse().ok()).unwrap_or(0),
    }
}
