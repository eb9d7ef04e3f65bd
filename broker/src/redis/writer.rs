//! Writing what was published: one connection, one order, and more on its way while the answers to what was written before are awaited.
//!
//! A message is appended by a plain `XADD`. Redis does what comes over one connection in order, so that a few writes may be open at once. Where
//! the connection ends before the answers, nobody knows what of them is in the log, and nothing else is sent until that is settled: the old
//! connection is ended at the server first, so that it can do nothing any more; then all that was open is sent again, in its order, by the script
//! that looks for the id first (`scripts/add_once.lua`), until its deadline. What the server refuses in passing, since it is a replica by now or reads
//! its data, waits until all that was sent behind it is answered: it may have become a primary meanwhile, and what it did of a log then must not
//! come before; where those answers were lost, the log is searched (`searching.rs`). So nothing overtakes what came before it. Not here: the queue before it (`publish.rs`), where messages go (`placing.rs`), what a
//! write consists of (`write.rs`), what answers mean (`settling.rs`).

use super::{
    broker::Tasks,
    bulk::{self, Bulk},
    commands::{self, Ended},
    delay::mark,
    description::Description,
    facts::Facts,
    failure::{failed, late, named},
    placing::Placing,
    publish::{Job, Jobs},
    request::Request,
    searching::{self, Withheld},
    settings::RedisStreamsSettings,
    settling::Settling,
    topics::Topics,
    write::Write,
};
use crate::{Error, Result, Timestamp, Topic, clock, counted::Counted};
use futures::future::BoxFuture;
use ropeway_store::redis::{Redis, Reply, Routed};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// How many writes may be open, so that the server has work while answers are on their way. What is open is all looked for again after a cut.
const WINDOW: usize = 4;
/// With so many open, another one waits until it is as large as one may be: so writes are not smaller because more of them may be open. And it waits while
/// what is open is as many bytes as one may have: with 2.4 MB of messages of 1 KiB on their way instead of 1.2 the server took a tenth longer for each.
const GATHERING: usize = 2;
/// How much is written at once, unless one batch is larger.
const MOST_MESSAGES: usize = 512;
/// The same in bytes.
const MOST_BYTES: usize = 1 << 20;
/// How long an answer may take before the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest pause between attempts to connect; it begins at a fortieth.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes until nobody can publish any more.
pub(super) struct Writer {
    redis: Redis,
    /// As errors call it.
    server: Arc<str>,
    topics: Arc<Topics>,
    settings: RedisStreamsSettings,
    counted: Arc<Counted>,
    facts: Arc<Facts>,
    connection: Option<Routed>,
    /// A connection that ended with something open.
    ended: Option<Ended>,
    /// What is written and not answered, in order; nothing, where there is no connection.
    open: VecDeque<Write>,
    /// What was refused in passing before what is open.
    kept: Write,
    /// Nothing more goes over the connection; what is open is still answered.
    retiring: bool,
    /// What is to be written next, as soon as its topic is known.
    asking: Option<Asking>,
    placing: Placing,
    settling: Settling,
    bulk: Bulk,
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
            settling: Settling::new(
                &redis,
                settings.copies(),
                Arc::clone(&topics),
                tasks,
                Arc::clone(&facts),
            ),
            server: named(&redis),
            redis,
            topics,
            settings,
            counted,
            facts,
            connection: Some(connection),
            ended: None,
            open: VecDeque::new(),
            kept: Write::default(),
            retiring: false,
            asking: None,
            bulk: Bulk::default(),
        }
    }

    pub(super) async fn run(mut self, mut jobs: Jobs) {
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
    async fn turn(&mut self, jobs: &mut Jobs, closed: bool, answers: &mut Vec<Reply>) -> Turn {
        let room = self.has_room(jobs);
        let mut limit = limit(self.open.front(), self.settings.wait);
        if let Some(deadline) = self.kept.deadline() {
            limit = limit.min(deadline.saturating_duration_since(Instant::now()));
        }
        let Self { connection, asking, .. } = self;
        tokio::select! {
            biased;
            result = next_answers(connection, limit, answers), if !self.open.is_empty() => Turn::Answered(result),
            description = described(asking), if room && asking.is_some() => Turn::Described(description),
            job = jobs.recv(), if room && !closed && asking.is_none() => job.map_or(Turn::Closed, Turn::Taken),
            else => Turn::Closed,
        }
    }

    /// Whether another write may be opened, as far as is known of what waits.
    fn has_room(&self, jobs: &Jobs) -> bool {
        let bytes = self.open.iter().map(|write| write.bytes).sum();
        let waiting = || {
            let messages = self.open.iter().map(|write| write.entries.len()).sum::<usize>();
            jobs.waiting((messages + self.kept.entries.len(), bytes + self.kept.bytes))
        };
        !self.retiring && may_open(self.open.len(), bytes, waiting)
    }

    /// Adds batches to a write: `job`, and those that wait behind it, up to the first whose topic is not known.
    fn gather(&mut self, job: Option<Job>, mut write: Write, jobs: &mut Jobs) -> Write {
        let mut next = job.or_else(|| jobs.try_recv());
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
            next = if full { None } else { jobs.try_recv() };
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
        let mut request = write.request(self.settings.copies(), self.settings.wait);
        let by = by(&write);
        if !self.redis.is_cluster() && self.bulk.carries(write.bytes, Instant::now()) {
            let mut wide = bulk::widen();
            wide.append(&request);
            request = wide;
            self.open.push_back(Write { expected: 1, ..Write::default() });
        }
        self.open.push_back(write);
        self.counted.commits.fetch_add(1, Ordering::Relaxed);
        let replies = request.commands();
        if let Err(error) = send(connection, &self.server, request, replies, by).await {
            self.recover(error, usize::MAX).await;
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
            self.retiring |= !self.settle(&mut write);
            if write.entries.is_empty() {
                write.answer(|outcomes| self.counted.count(outcomes));
                continue;
            }
            self.kept.append(write);
            if self.redis.is_cluster() {
                // What is open behind it is sent by who waits for its answers: it never is.
                return self.recover(late(&self.server), 0).await;
            }
        }
        match result {
            Err(error) => self.recover(error, if self.redis.is_cluster() { 1 } else { usize::MAX }).await,
            Ok(()) if !self.retiring || !self.open.is_empty() => {}
            Ok(()) if self.kept.entries.is_empty() => {
                std::mem::take(&mut self.kept).answer(|outcomes| self.counted.count(outcomes));
                self.give_up();
            }
            Ok(()) => self.recover(late(&self.server), 0).await,
        }
    }

    /// Settles what is answered of a write, and gives back what was refused before it and would come behind it.
    fn settle(&mut self, write: &mut Write) -> bool {
        if let Some(connection) = &self.connection {
            // In a cluster a connection mends itself, and may lead to other nodes by now.
            self.facts.set(connection.server());
        }
        self.settling.settle(write, &mut self.kept)
    }

    /// Gives the connection up, and settles all that is open before anything else is sent. `sent`: how many of the open writes went out.
    async fn recover(&mut self, error: Error, sent: usize) {
        self.give_up();
        for (at, mut write) in std::mem::take(&mut self.open).into_iter().enumerate() {
            if at >= sent {
                write.expected = 0;
            }
            self.settle(&mut write);
            self.kept.append(write);
        }
        let mut all = std::mem::take(&mut self.kept);
        all.hold_back(&self.server);
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
            self.connection = Some(connected.unwrap_or_else(|_| Err(late(&self.server)))?);
        }
        let (withheld, failure) = self.search(write, by).await;
        // Without a cluster it is one server, which cannot be asked; of a cluster others may be there.
        let goes_on = failure.is_none() || self.redis.is_cluster();
        let sent =
            if goes_on && !write.entries.is_empty() { self.send_again(write, by).await } else { Ok(()) };
        let result = sent.and(failure.map_or(Ok(()), Err));
        if result.is_err() {
            self.give_up();
        }
        write.put_back(withheld);
        result
    }

    /// Sends all of them over the connection, and settles what is answered.
    async fn send_again(&mut self, write: &mut Write, by: Instant) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let request = write.request(self.settings.copies(), self.settings.wait);
        let expected = write.expected;
        self.counted.commits.fetch_add(1, Ordering::Relaxed);
        let mut result = send(connection, &self.server, request, expected, by).await;
        while result.is_ok() && !write.is_answered() {
            let limit = limit(Some(write), self.settings.wait);
            result = connection.receive_many(limit, &mut write.answers).await.map_err(failed);
        }
        if !self.settle(write) {
            self.give_up();
        }
        write.hold_back(&self.server);
        result
    }

    /// Looks for what may be in its log before it is sent again, and gives back what was overtaken there.
    async fn search(&mut self, write: &mut Write, by: Instant) -> Withheld {
        let searches = searching::needed(write);
        let Some(connection) = self.connection.as_mut().filter(|_| !searches.is_empty()) else {
            return (Vec::new(), None);
        };
        let (request, asked) = (searching::request(&searches, write), searches.len());
        let asking = connection.ask(request.into_bytes(), asked, limit(Some(write), self.settings.wait));
        let answers: Vec<Result<Reply>> = match timeout_at(by, asking).await {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(failed)).collect(),
            Err(_) => (0..asked).map(|_| Err(late(&self.server))).collect(),
        };
        searching::settle(searches, answers, write, &self.server)
    }

    /// Connects again, and ends what is left of the connection before at the server.
    async fn connect(&mut self) -> Result<Routed> {
        let connection = commands::open_after(&self.redis, self.ended.as_ref()).await.map_err(failed)?;
        self.facts.set(connection.server());
        (self.ended, self.bulk) = (None, Bulk::default());
        Ok(connection)
    }
}

/// Whether another write may be opened beside so many of so many bytes; `waiting`: how much waits to be written, in messages and bytes.
fn may_open(open: usize, bytes: usize, waiting: impl FnOnce() -> (usize, usize)) -> bool {
    let is_full = |(messages, bytes)| messages >= MOST_MESSAGES || bytes >= MOST_BYTES;
    open < GATHERING || open < WINDOW && bytes < MOST_BYTES && is_full(waiting())
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
async fn send(
    connection: &mut Routed,
    server: &str,
    request: Request,
    replies: usize,
    by: Instant,
) -> Result<()> {
    match timeout_at(by, connection.send_packed(request.into_bytes(), replies)).await {
        Ok(sent) => sent.map_err(failed),
        Err(_) => Err(late(server)),
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
        match asked.unwrap_or_else(|_| Err(late(topics.commands.server()))) {
            Err(error) if error.is_retryable() && Instant::now() + pause < deadline => sleep(pause).await,
            found => return found,
        }
        pause = (pause * 2).min(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writes_are_opened_at_once_and_more_only_where_they_are_full_and_those_are_small() {
        let never = || -> (usize, usize) { panic!("nobody has to know what waits") };
        assert!(may_open(0, 0, never) && may_open(1, usize::MAX, never));
        for open in [2, 3] {
            assert!(!may_open(open, 0, || (MOST_MESSAGES - 1, MOST_BYTES - 1)));
            assert!(may_open(open, MOST_BYTES - 1, || (MOST_MESSAGES, 0)));
            assert!(may_open(open, 0, || (1, MOST_BYTES)));
            assert!(!may_open(open, MOST_BYTES, never));
        }
        assert!(!may_open(WINDOW, 0, never));
    }
}
