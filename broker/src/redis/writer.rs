//! Writing what was published: one connection, one order, and more on its way while the answers to what was written before are awaited.
//!
//! A message is appended by a plain `XADD`. Redis does what comes over one connection in order, so that a few writes may be open at once. Where
//! the connection ends before the answers, nobody knows what of them is in the log, and nothing else is sent until that is settled: the old
//! connection is ended at the server first, so that it can do nothing any more; then all that was open is sent again, in its order, by the script
//! that looks for the id first (`scripts/add_once.lua`), until its deadline. So nothing overtakes what came before it. Not here: the queue
//! before it (`publish.rs`), where messages go (`placing.rs`), what a write consists of (`write.rs`).

use super::{
    broker::Tasks,
    commands::{self, Ended},
    delay::mark,
    description::Description,
    failure::{failed, is_refused, is_unknown_script, late, named, refused, strange},
    follow::ZERO,
    placing::Placing,
    publish::{Counted, Job},
    request::Request,
    settings::RedisStreamsSettings,
    topics::{Topics, lost},
    write::{Batch, Entry, Write, told},
};
use crate::{
    Durability, Error, ErrorKind, Message, Position, Published, Result, Target, Timestamp, Topic, clock,
};
use futures::future::BoxFuture;
use ropeway_store::redis::{Durable, Redis, Reply, Routed, Server, Target as Servers};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

/// How many writes may be open. What is open is all looked for again after a cut.
const WINDOW: usize = 2;
/// How much is written at once, unless one batch is larger.
const MOST_MESSAGES: usize = 512;
/// The same in bytes.
const MOST_BYTES: usize = 1 << 20;
/// How long an answer may take before the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest pause between attempts to connect; it begins at a fortieth.
const PAUSE: Duration = Duration::from_secs(1);
/// How far back a message is looked for where its partition was not written to before.
const LOOKED_BACK: Duration = Duration::from_secs(300);
/// Of how many partitions the last position is remembered.
const REMEMBERED: usize = 16_384;

/// What an acked message survives on that server, each about one machine.
pub(super) fn durability(server: &Server) -> Durability {
    // Our keys have no time to live, so that only these policies forget them.
    let evicts = server.eviction.as_deref().is_none_or(|policy| policy.starts_with("allkeys"));
    if evicts && server.max_memory != Some(0) {
        return Durability::Volatile;
    }
    match server.durable() {
        Durable::Always => Durability::PowerLoss,
        // Not with `appendfsync everysec`: while a sync takes long Redis answers before it writes to the file.
        _ if server.writes_first() => Durability::ProcessCrash,
        _ => Durability::Volatile,
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
    connection: Option<Routed>,
    /// A connection that ended with something open.
    ended: Option<Ended>,
    /// What is written and not answered, in order; nothing, where there is no connection.
    open: VecDeque<Write>,
    /// Nothing more goes over the connection; what is open is still answered.
    retiring: bool,
    /// What is to be written next, as soon as its topic is known.
    asking: Option<Asking>,
    /// The last position that was acked, by log.
    last: HashMap<String, Position>,
    placing: Placing,
}

/// A batch whose topic is being asked for.
struct Asking {
    job: Job,
    answer: BoxFuture<'static, Result<Arc<Description>>>,
}

/// What happened.
enum Turn {
    /// A batch was taken over.
    Taken(Job),
    /// The topic of the next batch is known, or is not to be had.
    Described(Result<Arc<Description>>),
    /// Answers came, or will not come any more.
    Answered(Result<()>),
    /// Nobody can publish any more.
    Closed,
}

impl Writer {
    pub(super) fn new(
        redis: Redis,
        connection: Routed,
        topics: Arc<Topics>,
        settings: RedisStreamsSettings,
        counted: Arc<Counted>,
        tasks: Arc<Tasks>,
        facts: Arc<Facts>,
    ) -> Self {
        Self {
            placing: Placing::new(Arc::clone(&topics), &settings, Arc::clone(&tasks)),
            redis,
            topics,
            settings,
            counted,
            tasks,
            facts,
            connection: Some(connection),
            ended: None,
            open: VecDeque::new(),
            retiring: false,
            asking: None,
            last: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let (mut closed, mut answers) = (false, Vec::new());
        while !(closed && self.open.is_empty() && self.asking.is_none()) {
            match self.turn(&mut jobs, closed, &mut answers).await {
                Turn::Closed => closed = true,
                Turn::Answered(result) => self.answered(&mut answers, result).await,
                Turn::Taken(job) => {
                    let write = self.gather(Some(job), Write::default(), &mut jobs);
                    self.begin(write).await;
                }
                Turn::Described(description) => {
                    let Some(Asking { job, .. }) = self.asking.take() else { continue };
                    let mut write = Write::default();
                    self.place(job, &description, &mut write);
                    let write = self.gather(None, write, &mut jobs);
                    self.begin(write).await;
                }
            }
        }
    }

    /// Waits for what happens next.
    async fn turn(
        &mut self,
        jobs: &mut mpsc::UnboundedReceiver<Job>,
        closed: bool,
        answers: &mut Vec<Reply>,
    ) -> Turn {
        let room = self.open.len() < WINDOW && !self.retiring;
        let limit = limit(self.open.front(), self.settings.wait);
        let Self { connection, asking, .. } = self;
        tokio::select! {
            biased;
            result = next_answers(connection, limit, answers), if !self.open.is_empty() => Turn::Answered(result),
            description = described(asking), if room && asking.is_some() => Turn::Described(description),
            job = jobs.recv(), if room && !closed && asking.is_none() => job.map_or(Turn::Closed, Turn::Taken),
            else => Turn::Closed,
        }
    }

    /// Adds batches to a write: `job`, and those that wait behind it, up to the first whose topic is not known.
    fn gather(
        &mut self,
        job: Option<Job>,
        mut write: Write,
        jobs: &mut mpsc::UnboundedReceiver<Job>,
    ) -> Write {
        let mut next = job.or_else(|| jobs.try_recv().ok());
        while let Some(job) = next {
            let kept = self.topics.kept(&job.to.topic);
            let later = job.last_due(clock::wall());
            let marked = |kept: &Arc<Description>| later.is_none_or(|due| mark(due, kept.held).is_none());
            let Some(description) = kept.filter(marked) else {
                let topics = Arc::clone(&self.topics);
                let (topic, deadline) = (job.to.topic.clone(), job.deadline);
                let answer = Box::pin(async move { description(&topics, &topic, later, deadline).await });
                self.asking = Some(Asking { job, answer });
                break;
            };
            self.place(job, &Ok(description), &mut write);
            let full = write.entries.len() >= MOST_MESSAGES || write.bytes >= MOST_BYTES;
            next = if full { None } else { jobs.try_recv().ok() };
        }
        write
    }

    /// Adds a batch to a write.
    fn place(&mut self, job: Job, description: &Result<Arc<Description>>, write: &mut Write) {
        let server = self.connection.as_ref().map(|connection| &**connection.server());
        self.placing.put(job, description, server, write);
    }

    /// Writes behind what is open.
    async fn begin(&mut self, mut write: Write) {
        if write.entries.is_empty() {
            return write.answer(|outcomes| self.counted.count(outcomes));
        }
        let Some(connection) = &mut self.connection else { return self.deliver(write, None).await };
        let request = write.request(self.settings.replicas, self.settings.wait);
        let (expected, by) = (write.expected, by(&write));
        self.open.push_back(write);
        self.counted.commits.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = send(connection, request, expected, by).await {
            self.recover(error).await;
        }
    }

    /// Takes answers to what is open.
    async fn answered(&mut self, answers: &mut Vec<Reply>, result: Result<()>) {
        for answer in answers.drain(..) {
            let Some(write) = self.open.front_mut() else { break };
            write.answers.push(answer);
            if !write.is_answered() {
                continue;
            }
            let Some(mut write) = self.open.pop_front() else { break };
            self.retiring |= !self.settle_all(&mut write);
            if write.entries.is_empty() {
                write.answer(|outcomes| self.counted.count(outcomes));
            } else {
                // A script that the server forgot: what was written behind it is looked for again as well.
                self.open.push_front(write);
                return self.recover(late("the server")).await;
            }
        }
        match result {
            Err(error) => self.recover(error).await,
            Ok(()) if self.retiring && self.open.is_empty() => self.give_up(),
            Ok(()) => {}
        }
    }

    /// Gives the connection up, and settles all that is open before anything else is sent.
    async fn recover(&mut self, error: Error) {
        self.give_up();
        let mut all = Write::default();
        for mut write in std::mem::take(&mut self.open) {
            self.settle_all(&mut write);
            all.append(write);
        }
        self.deliver(all, Some(error)).await;
    }

    /// Uses the connection no more. It is ended at the server before anything is sent again: in a cluster by itself, which keeps what it knows.
    fn give_up(&mut self) {
        self.retiring = false;
        if let Some(mut connection) = self.connection.take() {
            if connection.abandon() {
                self.connection = Some(connection);
                return;
            }
            self.ended = commands::ended(&connection);
        }
    }

    /// Writes, until each is written, refused, or out of time; nothing else is written meanwhile. `error`: what it failed by before.
    async fn deliver(&mut self, mut write: Write, mut error: Option<Error>) {
        let mut pause = PAUSE / 40;
        while !write.entries.is_empty() {
            if let Some(error) = error.take() {
                write.give_back(&error, pause);
            }
            if write.entries.is_empty() {
                break;
            }
            if let Err(failed) = self.attempt(&mut write).await {
                write.give_back(&failed, pause);
                if !write.entries.is_empty() {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE);
                }
            }
        }
        write.answer(|outcomes| self.counted.count(outcomes));
    }

    /// Writes all of them once. Those that are answered are removed; on an error the others stay, and know whether they were sent.
    async fn attempt(&mut self, write: &mut Write) -> Result<()> {
        let by = by(write);
        if self.connection.is_none() {
            let connected = timeout_at(by, self.connect()).await;
            self.connection = Some(connected.unwrap_or_else(|_| Err(late("the server")))?);
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let request = write.request(self.settings.replicas, self.settings.wait);
        let expected = write.expected;
        self.counted.commits.fetch_add(1, Ordering::Relaxed);
        let mut result = send(connection, request, expected, by).await;
        while result.is_ok() && !write.is_answered() {
            let limit = limit(Some(write), self.settings.wait);
            result = connection.receive_many(limit, &mut write.answers).await.map_err(failed);
        }
        if !self.settle_all(write) || result.is_err() {
            self.give_up();
        }
        result
    }

    /// Connects again, and ends what is left of the connection before at the server.
    async fn connect(&mut self) -> Result<Routed> {
        let connection = commands::open_after(&self.redis, self.ended.as_ref()).await.map_err(failed)?;
        self.facts.set(connection.server());
        self.ended = None;
        Ok(connection)
    }

    /// Settles what is answered of a write. What is not stays, and is unknown from then on. Whether the connection can be used on.
    fn settle_all(&mut self, write: &mut Write) -> bool {
        let replicated = write.is_replicated();
        let whole = write.is_answered();
        let mut answers = std::mem::take(&mut write.answers);
        if replicated && !whole {
            // Nobody knows what replicas have: it is asked again.
            answers.clear();
        }
        let wanted = i64::from(self.settings.replicas);
        let copied =
            replicated && whole && answers.pop().and_then(|count| count.int()).unwrap_or(0) >= wanted;
        if let Some(connection) = &self.connection {
            // In a cluster a connection mends itself, and may lead to other nodes by now.
            self.facts.set(connection.server());
        }
        let gives = if copied { Durability::Replicated } else { durability(&self.facts.server()) };
        let entries = std::mem::take(&mut write.entries);
        let sent = write.expected;
        let mut usable = true;
        let mut answers = answers.into_iter();
        for (at, mut entry) in entries.into_iter().enumerate() {
            match answers.next() {
                Some(answer) if is_unknown_script(&answer) || self.is_passing(&answer) => {
                    usable = false;
                    write.entries.push(entry);
                }
                Some(answer) => {
                    usable &= !is_refused(&answer, "READONLY");
                    write.not_behind(entry.keys.log());
                    let Batch { job, outcomes } = &mut write.batches[entry.batch];
                    let settled = self.settle(&job.to, &entry, &answer, gives);
                    outcomes[entry.at] = Some(settled.with(entry.message));
                }
                None => {
                    if at < sent {
                        let behind = self.behind(entry.keys.log());
                        entry.unknown.get_or_insert(behind);
                    }
                    write.entries.push(entry);
                }
            }
        }
        usable
    }

    /// Whether the server did nothing, and another one, or the same in a while, does it: it is a replica by now, reads its data, or a slot moves.
    /// Nobody but the user knows another one where the URL names one server.
    fn is_passing(&self, answer: &Reply) -> bool {
        const PASSING: [&str; 6] = ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"];
        let others = !matches!(self.redis.settings().target, Servers::Single(_));
        others && is_refused(answer, "READONLY") || PASSING.iter().any(|code| is_refused(answer, code))
    }

    /// Behind which position a message would lie that is sent now.
    fn behind(&self, log: &str) -> Position {
        let since = (clock::wall() - LOOKED_BACK).max(Timestamp::from_millis(0)).as_millis();
        let since = Position(u64::try_from(since).unwrap_or(0), 0);
        self.last.get(log).copied().unwrap_or(since)
    }

    fn settle(&mut self, to: &Target, entry: &Entry, answer: &Reply, durability: Durability) -> Settled {
        let acked = |position: Option<Position>| match position {
            Some(position) => Ok(Some(position)),
            None => Err((true, strange("XADD", &[]))),
        };
        let position = match answer {
            // A script that was refused found nothing out.
            Reply::Error(text) => Err((entry.unknown.is_some(), refused(&named(&self.redis), text))),
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
                    let context = "it is written, but too few replicas said in time that they have it; wait longer (`wait`), or see the replicas";
                    let error = told(to, Error::new(ErrorKind::Unavailable, context));
                    return Settled::Failed { unknown: true, error };
                }
                Settled::Acked { partition: entry.partition, position, durability }
            }
        }
    }

    fn gone(&self, topic: &Topic) -> Error {
        self.topics.suspect(topic);
        lost(topic)
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

/// When a write is to have reached the server.
fn by(write: &Write) -> Instant {
    let latest = Instant::now() + ANSWER;
    write.deadline().map_or(latest, |deadline| deadline.min(latest))
}

/// How long the next answer to a write may take. `wait`: how long replicas have.
fn limit(write: Option<&Write>, wait: Duration) -> Duration {
    let wait = if write.is_some_and(Write::is_replicated) { wait } else { Duration::ZERO };
    let left = write.and_then(Write::deadline).map(|at| at.saturating_duration_since(Instant::now()));
    left.map_or(ANSWER + wait, |left| left.min(ANSWER + wait))
}

/// Sends commands that will be answered by so many replies.
async fn send(connection: &mut Routed, request: Request, replies: usize, by: Instant) -> Result<()> {
    match timeout_at(by, connection.send_packed(request.into_bytes(), replies)).await {
        Ok(sent) => sent.map_err(failed),
        Err(_) => Err(late("the server")),
    }
}

/// The next answers over the connection. Cancel safe.
async fn next_answers(
    connection: &mut Option<Routed>,
    limit: Duration,
    answers: &mut Vec<Reply>,
) -> Result<()> {
    match connection {
        Some(connection) => connection.receive_many(limit, answers).await.map_err(failed),
        None => std::future::pending().await,
    }
}

/// The description that is asked for. Cancel safe.
async fn described(asking: &mut Option<Asking>) -> Result<Arc<Description>> {
    match asking {
        Some(asking) => asking.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The description of a topic, which is marked before something is held until `later`; asked for again while the server cannot be reached, until the
/// deadline: what follows waits for it anyway.
async fn description(
    topics: &Topics,
    topic: &Topic,
    later: Option<Timestamp>,
    deadline: Instant,
) -> Result<Arc<Description>> {
    let mut pause = PAUSE / 40;
    loop {
        let asked = timeout_at(deadline, topics.marked(topic, later)).await;
        match asked.unwrap_or_else(|_| Err(late("the server"))) {
            Err(error) if error.is_retryable() && Instant::now() + pause < deadline => sleep(pause).await,
            found => return found,
        }
        pause = (pause * 2).min(PAUSE);
    }
}
