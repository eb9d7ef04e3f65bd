//! Writing what was published: one connection, one order, as many messages at once as came while the last ones were answered.
//!
//! A message is appended by a plain `XADD`. Where the connection ends before the answer, nobody knows whether it is in the log: it is sent again
//! before all that came after it, by the script that looks for its id first (`scripts/add_once.lua`), until its deadline. Not here: the
//! queue before it (`publish.rs`).

use super::{
    broker::Tasks,
    commands::{self, converse},
    description::Description,
    failure::{BACKEND, failed, late, refused, strange},
    follow::ZERO,
    keys::PartitionKeys,
    layout,
    publish::{Counted, Job},
    request::Request,
    scripts,
    settings::RedisStreamsSettings,
    topics::{Topics, no_partition, not_found},
};
use crate::{
    Durability, Error, ErrorKind, Message, Outcomes, Position, Published, Result, Target, Timestamp, Topic,
    clock, partition_for_key,
};
use ropeway_store::redis::{self, Dedicated, Durable, Outcome, Redis, Reply, Server};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

/// How much is written at once, unless one batch is larger.
const MOST_MESSAGES: usize = 512;
/// The same in bytes.
const MOST_BYTES: usize = 1 << 20;
/// How long an answer may take before the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest pause between attempts to connect; it begins at a fortieth.
const PAUSE: Duration = Duration::from_secs(1);
/// How many entries are looked at for a message that is sent again.
const LOOKED_AT: u32 = 20_000;
/// How far back a message is looked for where its partition was not written to before.
const LOOKED_BACK: Duration = Duration::from_secs(300);
/// How far the clocks of this machine and the server may be apart.
const CLOCKS: Duration = Duration::from_secs(5);
/// Of how many partitions the last position is remembered.
const REMEMBERED: usize = 16_384;

/// What an acked message survives on that server, each about one machine.
pub(super) fn durability(server: &Server) -> Durability {
    match server.durable() {
        Durable::Always => Durability::PowerLoss,
        // An answer comes after the write to the file, so that it survives the process.
        Durable::EverySecond | Durable::Sometime => Durability::ProcessCrash,
        Durable::Nothing => Durability::Volatile,
    }
}

/// What the server said of itself when it was connected to last.
#[derive(Debug)]
pub(super) struct Facts(Mutex<Arc<Server>>);

impl Facts {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        Self(Mutex::new(Arc::clone(server)))
    }

    pub(super) fn server(&self) -> Arc<Server> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, server: &Arc<Server>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(server);
    }
}

/// Writes until nobody can publish any more.
pub(super) struct Writer {
    pub(super) redis: Redis,
    pub(super) topics: Arc<Topics>,
    pub(super) settings: RedisStreamsSettings,
    pub(super) counted: Arc<Counted>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) facts: Arc<Facts>,
    connection: Option<Dedicated>,
    /// The last position that was acked, by log.
    last: HashMap<String, Position>,
    spread: u32,
}

/// A batch under way.
struct Batch {
    job: Job,
    outcomes: Vec<Option<Published>>,
}

/// A message that is to be written.
struct Entry {
    batch: usize,
    at: usize,
    message: Message,
    partition: u32,
    keys: PartitionKeys,
    /// Not to be in the log yet.
    later: Option<Later>,
    /// Asked to survive the loss of the machine.
    replicated: bool,
    /// Since when nobody knows whether it is in the log, and behind which position it would lie.
    unknown: Option<Position>,
}

/// When a message is due, and in which life of its topic it is held.
struct Later {
    due: Timestamp,
    life: String,
}

impl Writer {
    pub(super) fn new(
        redis: Redis,
        connection: Dedicated,
        topics: Arc<Topics>,
        settings: RedisStreamsSettings,
        counted: Arc<Counted>,
        tasks: Arc<Tasks>,
        facts: Arc<Facts>,
    ) -> Self {
        Self {
            redis,
            topics,
            settings,
            counted,
            tasks,
            facts,
            connection: Some(connection),
            last: HashMap::new(),
            spread: 0,
        }
    }

    pub(super) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(first) = jobs.recv().await {
            let (mut messages, mut bytes) = (first.batch.len(), size(&first));
            let mut batches = vec![first];
            while messages < MOST_MESSAGES && bytes < MOST_BYTES {
                let Ok(next) = jobs.try_recv() else { break };
                messages += next.batch.len();
                bytes += size(&next);
                batches.push(next);
            }
            self.write(batches).await;
        }
    }

    async fn write(&mut self, jobs: Vec<Job>) {
        let mut batches = Vec::with_capacity(jobs.len());
        let mut entries = Vec::new();
        for mut job in jobs {
            let batch = std::mem::take(&mut job.batch);
            let mut outcomes = Vec::with_capacity(batch.len());
            let number = batches.len();
            for (at, message) in batch.into_iter().enumerate() {
                outcomes.push(match self.place(&job, &message).await {
                    Ok((partition, keys, later)) => {
                        let replicated = job.to.at_least == Some(Durability::Replicated);
                        entries.push(Entry {
                            batch: number,
                            at,
                            message,
                            partition,
                            keys,
                            later,
                            replicated,
                            unknown: None,
                        });
                        None
                    }
                    Err(error) => Some(Published::not_written(told(&job.to, error), message)),
                });
            }
            batches.push(Batch { job, outcomes });
        }
        self.deliver(&mut batches, entries).await;
        for Batch { job, outcomes } in batches {
            let outcomes = Outcomes(outcomes.into_iter().flatten().collect());
            self.counted.count(&outcomes);
            _ = job.answer.send(outcomes);
        }
    }

    /// Where a message goes.
    async fn place(&mut self, job: &Job, message: &Message) -> Result<(u32, PartitionKeys, Option<Later>)> {
        let to = &job.to;
        let description = description(&self.topics, &to.topic, job.deadline).await?;
        message.check(self.settings.max_message)?;
        self.can_give(to.at_least)?;
        let count = description.spec.partitions;
        let partition = match (to.partition, &message.key) {
            (Some(chosen), _) if chosen >= count => return Err(no_partition(&to.topic, chosen, count)),
            (Some(chosen), _) => chosen,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => {
                self.spread = self.spread.wrapping_add(1);
                self.spread % count
            }
        };
        self.tasks.keeper.publishes(job.from.as_ref(), &to.topic, &description, partition, message.size())?;
        let due = message.deliver_at.filter(|at| *at > clock::wall());
        let life = || description.life.map(|life| life.to_string()).unwrap_or_default();
        let later = due.map(|due| Later { due, life: life() });
        Ok((partition, self.topics.partition(&to.topic, &description, partition), later))
    }

    fn can_give(&self, at_least: Option<Durability>) -> Result<()> {
        let Some(at_least) = at_least else { return Ok(()) };
        let Some(server) = self.connection.as_ref().map(Dedicated::server) else { return Ok(()) };
        let gives = durability(server);
        let replicas = server.replicas.unwrap_or(0);
        if at_least <= gives || (at_least == Durability::Replicated && replicas > 0) {
            return Ok(());
        }
        let context = format!(
            "the server gives {} with {replicas} replicas, and {} is asked for; set appendonly and appendfsync, or add a replica",
            gives.as_str(),
            at_least.as_str()
        );
        Err(Error::new(ErrorKind::Unsupported, context))
    }

    /// Writes, until each is written, refused, or out of time.
    async fn deliver(&mut self, batches: &mut [Batch], mut entries: Vec<Entry>) {
        let mut pause = PAUSE / 40;
        while !entries.is_empty() {
            let error = match self.attempt(batches, &mut entries).await {
                Ok(()) => continue,
                Err(error) => failed(error),
            };
            let now = Instant::now();
            for entry in std::mem::take(&mut entries) {
                let Batch { job, outcomes } = &mut batches[entry.batch];
                let hopeless =
                    !error.is_retryable() && entry.unknown.is_none() || entry.may_have_moved(clock::wall());
                if now + pause < job.deadline && !hopeless {
                    entries.push(entry);
                    continue;
                }
                let error = told(&job.to, error.clone());
                outcomes[entry.at] = Some(match entry.unknown {
                    None => Published::not_written(error, entry.message),
                    Some(_) => Published::unknown(error, entry.message),
                });
            }
            if !entries.is_empty() {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE);
            }
        }
    }

    /// Writes all of them once. Those that are answered are removed; on an error the others stay, and know whether they were sent.
    async fn attempt(&mut self, batches: &mut [Batch], entries: &mut Vec<Entry>) -> Result<(), redis::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = commands::open(&self.redis).await?;
                self.facts.set(connection.server());
                connection
            }
        };
        let replicated = entries.iter().any(|entry| entry.replicated);
        let mut request = Request::default();
        entries.iter().for_each(|entry| entry.put(&mut request));
        if replicated {
            let wait = self.settings.wait.as_millis().max(1).to_string();
            request.command(&["WAIT", "1", &wait]);
        }
        let mut answers = Vec::with_capacity(request.commands());
        let limit = ANSWER + self.settings.wait;
        let result = converse(&mut connection, request, limit, &mut answers).await;
        self.counted.commits.fetch_add(1, Ordering::Relaxed);
        let copied = replicated
            && answers.len() > entries.len()
            && answers.pop().and_then(|n| n.int()).unwrap_or(0) > 0;
        let gives = durability(connection.server());
        let mut usable = result.is_ok();
        let unanswered = entries.split_off(answers.len().min(entries.len()));
        for (entry, answer) in entries.drain(..).zip(answers) {
            usable &= !ends_connection(&answer);
            let outcome = self.settle(
                &batches[entry.batch].job.to,
                &entry,
                answer,
                if copied { Durability::Replicated } else { gives },
            );
            batches[entry.batch].outcomes[entry.at] = Some(outcome.with(entry.message));
        }
        *entries = unanswered;
        if let Err(error) = &result
            && error.outcome() == Outcome::Unknown
        {
            for entry in &mut *entries {
                let behind = self.behind(entry.keys.log());
                entry.unknown.get_or_insert(behind);
            }
        }
        self.connection = usable.then_some(connection);
        result
    }

    /// Behind which position a message would lie that is sent now.
    fn behind(&self, log: &str) -> Position {
        let since = (clock::wall() - LOOKED_BACK).max(Timestamp::from_millis(0)).as_millis();
        let since = Position(u64::try_from(since).unwrap_or(0), 0);
        self.last.get(log).copied().unwrap_or(since)
    }

    fn settle(&mut self, to: &Target, entry: &Entry, answer: Reply, durability: Durability) -> Settled {
        let acked = |position: Option<Position>| match position {
            Some(position) => Ok(Some(position)),
            None => Err((true, strange("XADD", &[]))),
        };
        let position = match &answer {
            Reply::Error(text) if text.starts_with(b"NOSCRIPT") => Err((true, late("the server"))),
            // A script that was refused found nothing out.
            Reply::Error(text) => Err((entry.unknown.is_some(), refused(text))),
            Reply::Nil => Err((false, self.gone(&to.topic))),
            Reply::Bulk(_) => acked(answer.text().and_then(|id| id.parse().ok())),
            Reply::Array(items) => match items.first().and_then(Reply::text) {
                Some("held") => Ok(None),
                Some("life") => Err((entry.unknown.is_some(), self.gone(&to.topic))),
                Some("added" | "there") => acked(items.get(1).and_then(|id| id.text()?.parse().ok())),
                Some("none") => Err((entry.unknown.is_some(), self.gone(&to.topic))),
                Some("far") => Err((true, late("looking for the message among those that came since"))),
                _ => Err((true, strange("XADD", items))),
            },
            other => Err((true, strange("XADD", std::slice::from_ref(other)))),
        };
        match position {
            Err((unknown, error)) => Settled::Failed { unknown, error: told(to, error) },
            Ok(position) => {
                if let Some(position) = position {
                    self.remember(entry.keys.log(), position);
                }
                if let Some(later) = &entry.later {
                    self.tasks.mover.expect(&to.topic, later.due.since(clock::wall()));
                }
                if entry.replicated && durability < Durability::Replicated {
                    let context = "it is written, but no replica said in time that it has it; wait longer (`wait`), or see the replicas";
                    let error = told(to, Error::new(ErrorKind::Unavailable, context));
                    return Settled::Failed { unknown: true, error };
                }
                Settled::Acked { partition: entry.partition, position, durability }
            }
        }
    }

    fn gone(&self, topic: &Topic) -> Error {
        self.topics.forget(topic);
        not_found(topic)
    }

    fn remember(&mut self, log: &str, position: Position) {
        if let Some(last) = self.last.get_mut(log) {
            *last = (*last).max(position);
            return;
        }
        if self.last.len() >= REMEMBERED {
            self.last.clear();
        }
        self.last.insert(log.to_owned(), position.max(ZERO));
    }
}

/// What an answer says, before the message is given back with it.
enum Settled {
    Acked { partition: u32, position: Option<Position>, durability: Durability },
    Failed { unknown: bool, error: Error },
}

impl Settled {
    fn with(self, message: Message) -> Published {
        match self {
            Self::Acked { partition, position, durability } => {
                Published::Acked { partition, position, durability }
            }
            Self::Failed { unknown: true, error } => Published::unknown(error, message),
            Self::Failed { unknown: false, error } => Published::not_written(error, message),
        }
    }
}

impl Entry {
    /// Whether it may have been held, and moved to the log since: held again, it would come twice.
    fn may_have_moved(&self, now: Timestamp) -> bool {
        self.unknown.is_some() && self.later.as_ref().is_some_and(|later| later.due <= now + CLOCKS)
    }

    fn put(&self, request: &mut Request) {
        if let Some(later) = &self.later {
            let keys = [self.keys.log(), &self.keys.part(), &self.keys.delayed(), &self.keys.held()];
            let mut packed = Vec::with_capacity(self.message.size() + 128);
            layout::fields(&self.message, |word| {
                packed.extend_from_slice(&u32::try_from(word.len()).unwrap_or(u32::MAX).to_be_bytes());
                packed.extend_from_slice(word);
            });
            let id = self.message.id.as_u128().to_be_bytes();
            let due = later.due.as_millis().to_string();
            request.call(&scripts::HOLD, &keys, 4).word(&later.life).word(id).word(due).word(packed);
            return;
        }
        let Some(behind) = self.unknown else { return request.add(self.keys.log(), &self.message) };
        let args = 3 + layout::field_count(&self.message);
        request
            .call(&scripts::ADD_ONCE, &[self.keys.log()], args)
            .word(self.message.id.as_u128().to_be_bytes())
            .word(behind.to_string())
            .word(LOOKED_AT.to_string());
        layout::fields(&self.message, |word| _ = request.word(word));
    }
}

/// The description of a topic; asked for again while the server cannot be reached, until the deadline: what follows waits for it anyway.
async fn description(topics: &Topics, topic: &Topic, deadline: Instant) -> Result<Arc<Description>> {
    let mut pause = PAUSE / 40;
    loop {
        let asked = timeout_at(deadline, topics.get(topic)).await;
        match asked.unwrap_or_else(|_| Err(late("the server"))) {
            Err(error) if error.is_retryable() && Instant::now() + pause < deadline => sleep(pause).await,
            found => return found,
        }
        pause = (pause * 2).min(PAUSE);
    }
}

fn size(job: &Job) -> usize {
    job.batch.iter().map(Message::size).sum()
}

fn told(to: &Target, error: Error) -> Error {
    error.during(format!("publish to topic {:?}", to.topic)).on(BACKEND)
}

/// Whether the connection leads to a server that takes no writes any more, or that forgot our scripts.
fn ends_connection(answer: &Reply) -> bool {
    matches!(answer, Reply::Error(text) if text.starts_with(b"READONLY") || text.starts_with(b"NOSCRIPT"))
}
