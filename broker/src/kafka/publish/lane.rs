//! What is published to one topic, in the order of the calls.
//!
//! While the topic is known a call hands its messages to the client library itself. Where it is not known, or what is known is a second old, the topic is asked for
//! first, and calls wait behind each other meanwhile; so nothing overtakes. What is known is refreshed beside publishing, so that this is rare. A topic
//! that does not exist is answered at once. Not here: where a message goes (`placing.rs`) and whether it may (`../facts.rs`), what becomes of it (`outcome.rs`).

use super::{
    super::{
        counted::Counted,
        facts::Described,
        failure, layout,
        raw::{Code, HeaderList, ProducerTopic, Record, Report, Written},
        topics::Topics,
    },
    answer::{Answering, Reports},
    lines::{Line, Lines},
    outcome::{Batch, told},
    placing::{Together, parts, place},
};
use crate::{Error, ErrorKind, Message, Outcomes, Part, Result, Target, Topic, clock, queued::Held};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

/// How old what is known of a topic may be for publishing to it.
const FRESH: Duration = Duration::from_secs(1);
/// How old it is when it is asked for again, beside publishing.
const STALE: Duration = Duration::from_millis(500);
/// The pause before something that failed is asked for again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the client that publishes is given to learn of a topic.
const LEARN: Duration = Duration::from_secs(5);
/// How many messages without key go to one partition before those that follow go to the next.
const RUN: usize = 64;

/// What all lanes use.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) topics: Arc<Topics>,
    pub(super) lines: Lines,
    pub(super) counted: Arc<Counted>,
    pub(super) servers: Arc<str>,
}

/// What is published to one topic.
#[derive(Debug)]
pub(super) struct Lane {
    topic: Topic,
    means: Arc<Means>,
    state: Mutex<State>,
    /// What is known is wrong: a server said so.
    doubted: AtomicBool,
    /// How many messages without key there were.
    spread: AtomicUsize,
    /// How many batches were handed over and are not reported.
    open: AtomicUsize,
}

/// A batch of a lane that was handed over, until this is dropped.
struct Open(Arc<Lane>);

impl Open {
    fn of(lane: &Arc<Lane>) -> Self {
        lane.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(lane))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

/// Who asks for the topic. Dropped before that is over, with its runtime, it leaves that to who publishes next.
struct Asks {
    lane: Arc<Lane>,
    over: bool,
}

impl Asks {
    /// Asks, in a task that hands over what waits. Not under the lock: a runtime that is ending drops the task at once.
    fn start(self) {
        tokio::spawn(async move {
            // All of it, so that it is dropped with the task.
            let mut asks = self;
            asks.lane.asked().await;
            asks.over = true;
        });
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        if !self.over {
            self.lane.state().asking = false;
        }
    }
}

#[derive(Debug, Default)]
struct State {
    ready: Option<Arc<Ready>>,
    waiting: VecDeque<Arc<Job>>,
    /// Somebody asks for the topic, and hands over what waits after that.
    asking: bool,
    /// Why the topic is not known.
    why: Option<Error>,
}

/// A topic that can be published to.
struct Ready {
    described: Arc<Described>,
    line: Arc<Line>,
    topic: ProducerTopic,
    /// How many partitions the client knows of.
    known: u32,
    at: Instant,
    /// How often something was forgotten by then.
    changes: u64,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("described", &self.described).finish_non_exhaustive()
    }
}

/// What was taken over.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) to: Target,
    pub(super) messages: Arc<Vec<Message>>,
    pub(super) deadline: Instant,
    /// Given back when the servers answered, or it is dropped.
    pub(super) held: Held,
}

/// A parcel that waits for its topic.
#[derive(Debug)]
struct Job {
    /// Absent once it was handed over or given back.
    parcel: Mutex<Option<Parcel>>,
    handed: Mutex<Option<oneshot::Sender<Handed>>>,
}

/// What became of a parcel that waited.
#[derive(Debug)]
enum Handed {
    Sent(Answering),
    Refused(Outcomes),
}

impl Job {
    fn take(&self) -> Option<Parcel> {
        self.parcel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn tell(&self, handed: Handed) {
        if let Some(sender) = self.handed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            _ = sender.send(handed);
        }
    }
}

/// How a batch is answered.
pub(super) enum Taken {
    /// It was handed over.
    Sent(Answering),
    /// It waits for its topic.
    Waits(Waiting),
}

/// A batch that waits for its topic.
pub(super) struct Waiting {
    job: Arc<Job>,
    handed: oneshot::Receiver<Handed>,
    deadline: Instant,
    /// How many.
    messages: usize,
    lane: Arc<Lane>,
}

impl Waiting {
    /// What became of each message.
    pub(super) async fn outcomes(mut self) -> Outcomes {
        let handed = match timeout_at(self.deadline, &mut self.handed).await {
            Ok(handed) => handed,
            Err(_) => match self.job.take() {
                Some(parcel) => return self.lane.refuse(parcel, None),
                // It is being handed over.
                None => self.handed.await,
            },
        };
        match handed {
            Ok(Handed::Sent(answering)) => answering.outcomes().await,
            Ok(Handed::Refused(outcomes)) => outcomes,
            // It ends with the runtime.
            Err(_) => Outcomes(Vec::new()),
        }
    }
}

/// What becomes of a batch first.
enum Begun {
    /// The topic is known: it is handed over now. Counted from here on, so that who changes the client waits for it.
    Now(Arc<Ready>, Parcel, Open),
    Waits(Waiting),
}

impl Lane {
    pub(super) fn new(topic: Topic, means: Arc<Means>) -> Arc<Self> {
        // Publishers begin at different partitions.
        let spread = AtomicUsize::new(rand::random_range(0..1 << 16) * RUN);
        let (state, doubted) = (Mutex::default(), AtomicBool::new(false));
        let open = AtomicUsize::new(0);
        Arc::new(Self { topic, means, state, doubted, spread, open })
    }

    /// Whether nothing waits in it.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && !state.asking
    }

    /// What is known has changed: it is asked for before the next message.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Takes a batch over.
    pub(super) fn take(self: &Arc<Self>, parcel: Parcel, now: Instant) -> Taken {
        match self.begin(parcel, now) {
            Begun::Now(ready, parcel, _open) => Taken::Sent(self.send(&ready, parcel)),
            Begun::Waits(waiting) => Taken::Waits(waiting),
        }
    }

    /// Takes a batch over that is answered in parts: in one where it waits.
    pub(super) fn take_in_parts(self: &Arc<Self>, parcel: Parcel, now: Instant) -> Vec<Part> {
        match self.begin(parcel, now) {
            Begun::Now(ready, parcel, _open) => self.send_in_parts(&ready, parcel),
            Begun::Waits(waiting) => {
                let messages = waiting.messages;
                vec![Part::whole(messages, Box::pin(waiting.outcomes()))]
            }
        }
    }

    fn begin(self: &Arc<Self>, parcel: Parcel, now: Instant) -> Begun {
        let mut state = self.state();
        let doubted = self.doubted.load(Ordering::Relaxed);
        let ready = state
            .ready
            .as_ref()
            .filter(|ready| !doubted && state.waiting.is_empty() && self.holds(ready, now));
        if let Some(ready) = ready {
            let ready = Arc::clone(ready);
            let asks = (now.duration_since(ready.at) > STALE).then(|| self.asks(&mut state)).flatten();
            let open = Open::of(self);
            drop(state);
            asks.into_iter().for_each(Asks::start);
            return Begun::Now(ready, parcel, open);
        }
        let (sender, handed) = oneshot::channel();
        let (deadline, messages) = (parcel.deadline, parcel.messages.len());
        let job = Arc::new(Job { parcel: Mutex::new(Some(parcel)), handed: Mutex::new(Some(sender)) });
        state.waiting.push_back(Arc::clone(&job));
        let asks = self.asks(&mut state);
        drop(state);
        asks.into_iter().for_each(Asks::start);
        Begun::Waits(Waiting { job, handed, deadline, messages, lane: Arc::clone(self) })
    }

    /// Gives back what waits.
    pub(super) fn end(&self, error: &Error) {
        let waiting: Vec<_> = self.state().waiting.iter().cloned().collect();
        for job in waiting {
            if let Some(parcel) = job.take() {
                job.tell(Handed::Refused(self.refuse(parcel, Some(error))));
            }
        }
    }

    /// Who is to ask for the topic, unless somebody does.
    fn asks(self: &Arc<Self>, state: &mut State) -> Option<Asks> {
        let asks = !std::mem::replace(&mut state.asking, true);
        asks.then(|| Asks { lane: Arc::clone(self), over: false })
    }

    async fn asked(self: &Arc<Self>) {
        loop {
            self.doubted.store(false, Ordering::Relaxed);
            let before = self.state().ready.clone();
            match self.learn(before).await {
                Ok(ready) => {
                    let ready = Arc::new(ready);
                    self.state().ready = Some(Arc::clone(&ready));
                    if self.hand_over(&ready) {
                        return;
                    }
                }
                Err(error) if error.is_retryable() => {
                    self.state().why = Some(error);
                    if self.nobody_waits() {
                        return;
                    }
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    self.state().ready = None;
                    if self.refuse_all(&error) {
                        return;
                    }
                }
            }
        }
    }

    /// Hands over what waits. `false`: what is known does not hold any more, and something waits still.
    fn hand_over(self: &Arc<Self>, ready: &Arc<Ready>) -> bool {
        // Most of it waited before the topic was asked for: the answer is good for that however long it took.
        let known = Instant::now();
        loop {
            let job = {
                let mut state = self.state();
                let Some(job) = state.waiting.front().cloned() else {
                    state.asking = false;
                    return true;
                };
                job
            };
            if self.doubted.load(Ordering::Relaxed) || !self.stands(ready) || known.elapsed() >= FRESH {
                return false;
            }
            if let Some(parcel) = job.take() {
                job.tell(Handed::Sent(self.send(ready, parcel)));
            }
            // Behind it only now, so that nobody overtakes it.
            self.state().waiting.pop_front();
        }
    }

    /// Gives back what is out of time. Whether nothing waits any more: then nobody asks.
    fn nobody_waits(&self) -> bool {
        let now = Instant::now();
        let (late, over) = {
            let mut state = self.state();
            // The first ones have the earliest deadline. Those that were answered are empty.
            let mut late = Vec::new();
            while let Some(job) = state.waiting.pop_front() {
                let is_late =
                    |parcel: &Option<Parcel>| parcel.as_ref().is_none_or(|parcel| parcel.deadline <= now);
                if is_late(&job.parcel.lock().unwrap_or_else(PoisonError::into_inner)) {
                    late.push(job);
                } else {
                    state.waiting.push_front(job);
                    break;
                }
            }
            // Decided here, once: who publishes from now on asks, where nobody does.
            state.asking = !state.waiting.is_empty();
            (late, !state.asking)
        };
        for job in late {
            if let Some(parcel) = job.take() {
                job.tell(Handed::Refused(self.refuse(parcel, None)));
            }
        }
        over
    }

    /// Gives back all that waits. Whether nothing waits any more: then nobody asks.
    fn refuse_all(&self, error: &Error) -> bool {
        let waiting = std::mem::take(&mut self.state().waiting);
        for job in waiting {
            if let Some(parcel) = job.take() {
                job.tell(Handed::Refused(self.refuse(parcel, Some(error))));
            }
        }
        let mut state = self.state();
        state.asking = !state.waiting.is_empty();
        !state.asking
    }

    /// Certainly not written.
    fn refuse(&self, parcel: Parcel, error: Option<&Error>) -> Outcomes {
        let why = || self.state().why.clone().unwrap_or_else(|| failure::late(&self.means.servers));
        let error = error.cloned().unwrap_or_else(why);
        let messages = Arc::unwrap_or_clone(parcel.messages);
        let outcomes = Outcomes::all_not_written(&told(&parcel.to, error), messages);
        self.means.counted.count(&outcomes);
        outcomes
    }

    /// What is needed to publish to the topic.
    async fn learn(&self, before: Option<Arc<Ready>>) -> Result<Ready> {
        let (at, changes) = (Instant::now(), self.means.topics.changes());
        let described = self.means.topics.describe(&self.topic).await?;
        let line = self.means.lines.line(described.config.max_message_bytes)?;
        let same = before.as_ref().filter(|before| {
            Arc::ptr_eq(&before.line, &line)
                && before.described.id == described.id
                && before.known >= described.count()
        });
        let failed = |trouble| failure::failed(&self.means.servers, &trouble);
        if let Some(before) = same {
            let topic = line.producer.topic(self.topic.as_str()).map_err(failed)?;
            return Ok(Ready { described, topic, known: before.known, line, at, changes });
        }
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(&before.line, &line)) {
            self.leave(&before).await;
        }
        let topic = line.producer.topic(self.topic.as_str()).map_err(failed)?;
        let (producer, name) = (line.producer.clone(), self.topic.as_str().to_owned());
        let asked = tokio::task::spawn_blocking(move || producer.metadata(Some(&name), LEARN));
        let metadata = asked.await.map_err(|_| failure::late(&self.means.servers))?.map_err(failed)?;
        let found = metadata.topics.iter().find(|topic| topic.name == self.topic.as_str());
        let known = found.map_or(0, |topic| u32::try_from(topic.partitions.len()).unwrap_or(0));
        if known < described.count() {
            let context = format!(
                "kafka {}: not all servers know of all partitions of topic {:?} yet; try again",
                self.means.servers, self.topic
            );
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        Ok(Ready { described, topic, known, line, at, changes })
    }

    /// Lets nothing more go over a client, and waits for what went: it is in the log first. Other topics go on using that client.
    async fn leave(&self, before: &Ready) {
        self.state().ready = None;
        while !before.line.is_broken() && self.open.load(Ordering::Acquire) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Hands a batch to the client library.
    fn send(self: &Arc<Self>, ready: &Arc<Ready>, parcel: Parcel) -> Answering {
        let all = self.place(ready, &parcel, 1).pop().unwrap_or_default();
        let Parcel { to, messages, deadline, held } = parcel;
        self.hand(ready, to, messages, all, deadline, held)
    }

    /// The same, in parts.
    fn send_in_parts(self: &Arc<Self>, ready: &Arc<Ready>, parcel: Parcel) -> Vec<Part> {
        let parts = parts(&parcel.to, &ready.described, parcel.messages.len());
        let placed = self.place(ready, &parcel, parts);
        let Parcel { to, messages, deadline, mut held } = parcel;
        let hand = |together: Together| {
            let places = together.places();
            let bytes = places.iter().map(|at| messages[*at as usize].size()).sum();
            let held = held.part(places.len(), bytes);
            let answering = self.hand(ready, to.clone(), Arc::clone(&messages), together, deadline, held);
            Part { places, answer: Box::pin(answering.outcomes()) }
        };
        placed.into_iter().map(hand).collect()
    }

    fn place(&self, ready: &Ready, parcel: &Parcel, parts: usize) -> Vec<Together> {
        let spread = || self.spread.fetch_add(1, Ordering::Relaxed) / RUN;
        place(&self.topic, &ready.described, &parcel.to, &parcel.messages, parts, clock::wall(), spread)
    }

    /// Hands messages over that are answered together.
    fn hand(
        self: &Arc<Self>,
        ready: &Arc<Ready>,
        to: Target,
        messages: Arc<Vec<Message>>,
        together: Together,
        deadline: Instant,
        held: Held,
    ) -> Answering {
        let Together { placed, refused } = together;
        let described = Arc::clone(&ready.described);
        self.means.counted.count_published(0, refused.len() as u64, 0);
        let sent = (!placed.is_empty()).then(|| {
            let (sender, reports) = oneshot::channel();
            let records = placed.iter().map(|placed| {
                let message = &messages[placed.at as usize];
                Record {
                    at: placed.at as usize,
                    partition: i32::try_from(placed.partition).unwrap_or(i32::MAX),
                    key: message.key.as_deref(),
                    timestamp: message.timestamp.as_millis(),
                    headers: |headers: &mut HeaderList| {
                        layout::headers(message, |name, value| headers.add(name, value));
                    },
                }
            });
            let (open, line) = (Open::of(self), Arc::clone(&ready.line));
            let done = move |reports: Vec<Report>| {
                let lane = &open.0;
                lane.heed(&line, &reports);
                // There is room before somebody knows of it.
                drop(held);
                if let Err(reports) = sender.send(reports) {
                    lane.means.counted.count_reports(reports.into_iter().map(Some));
                }
            };
            let reports = Reports::new(reports, Arc::clone(&self.means.counted));
            (ready.line.producer.send(&ready.topic, &messages, records, Box::new(done)), reports)
        });
        let servers = Arc::clone(&self.means.servers);
        let batch = Batch { to, messages, placed, refused, described, servers };
        Answering { batch, sent, deadline }
    }

    /// What reports say of the topic and of the client.
    fn heed(&self, line: &Line, reports: &[Report]) {
        let passing = [Code::MSG_TIMED_OUT, Code::PURGE_QUEUE, Code::PURGE_INFLIGHT];
        let mut failed = reports.iter().filter(|report| report.written != Written::Yes);
        if failed.any(|report| !passing.contains(&report.code)) {
            // The topic was made again, takes less, is gone: whatever it is, it is asked for again.
            self.doubt();
            if line.producer.fatal().is_some() {
                line.break_off();
            }
        }
    }

    /// Whether what was learned can be used.
    fn holds(&self, ready: &Ready, now: Instant) -> bool {
        now.duration_since(ready.at) < FRESH && self.stands(ready)
    }

    /// The same, whenever that was.
    fn stands(&self, ready: &Ready) -> bool {
        !ready.line.is_broken() && ready.changes == self.means.topics.changes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
