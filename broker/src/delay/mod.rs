//! Delay for brokers that have none: made of publishing, a hidden group and readers, for Kafka and Pulsar.
//!
//! A message that is due later is acked when it is durable in an internal topic, `__ropeway.delay.<topic>.<life>`, and is published to its topic, as
//! it was, when it is due by the clock of who moves it. Every process that publishes for later to a topic, takes something back, or consumes it takes
//! part in moving: it joins the hidden group of the same name, and owns some of the partitions. Order among delayed messages is not promised.
//!
//! # Promises
//! * Never early by the mover's clock. Late by some milliseconds where nothing is wrong: what takes an append, a commit and a publish. After a
//!   mover was killed, what it owned waits until the group notices (its session).
//! * A crash loses nothing. What was being moved may be moved again, with the same id.
//! * Taking back: `true` means that it will not be delivered; decided by the order of the log, with no clocks compared. `false` for what is not
//!   there, is due in less than 200 ms, or was put away (below).
//! * A message of a deleted topic goes with it: at once, where this process deletes it and moves its messages, or nobody does; else when the servers have
//!   said for 5 minutes, asked 30 times, that it is none or another. A server that lags says that of a topic that is there. One of that name that is made
//!   again has another life, and so another internal topic.
//! * Memory is bounded: 32,768 messages or 8 MiB in each of 4 partitions, and 1,024 in each of 4 others, of each topic. Nothing is held while nothing
//!   is delayed: who consumes asks once in 10 s whether somebody delays, by two questions for all topics.
//!
//! # The log of a partition
//! The id of a message chooses one of four partitions, for ever. In it stand messages, cancels, and what owners write (`record.rs`):
//!
//! | Record | Means |
//! |---|---|
//! | message | waits; or is a *copy* of one that lay before |
//! | cancel | somebody wants it back |
//! | take | an owner begins. Closes and copies of owners before it that arrive behind it count for nothing |
//! | close | these are moved from now on: a cancel is refused |
//! | done | these were moved, or taken back |
//! | answer | to a cancel of another process |
//!
//! A message goes: close 200 ms before it is due, a fenced commit ([`Control::confirm`](crate::Control::confirm)), publish when it is due, ack, done. The
//! commit succeeds only before a later owner is chosen, whose take then lies behind the close: so every later owner knows that it may have been moved. A
//! cancel: the owner reads it, and where the message is open it appends *done*, makes the same fenced commit, and answers `true`: every later owner reads
//! *done* before it acts. A new owner decides nothing before it has read its own take. `tests/model.rs` checks that with crashes between any two steps,
//! owners that do not know that they are deposed, writes that arrive late, and acks that are forgotten (a map of acks that outgrew its place).
//!
//! # Far from due
//! What is due in a year must hold back neither the group's position nor the memory.
//! * **The position**: when more than 4,096 records and four for each that waits lie behind the oldest message, it is appended again at the end, as a copy
//!   that names what it copies, and the old one is acked when the copy is read. The copy counts only if the old one was neither taken back nor closed before
//!   it in the log, so a cancel between the two hits both. Cost: in the long run less than one copy for every two records written, however long
//!   messages wait; nothing is copied while nobody writes. What lies before the position is purged.
//! * **The map of acks** may forget (Kafka: 4 kB): *done* records stand in the log, so that a new owner repeats nothing that it reads them for. A take-over
//!   reads at most the window above, at the speed of the log.
//! * **Memory**: more than fits is put away, what is due last first: closed, appended to one of four partitions that wait for 1 min, 8 min, 2 h and 2 days,
//!   and brought back when that is over (`tier.rs`). Each such partition is worked off from its front, so it takes no memory and no map. A message
//!   due in a year is written again once in 2 days there. It cannot be taken back any more: for that an index of all ids would have to be held.
//!   What is due within 90 s is not put away: where more of that comes than is held, the rest is read later, and may be late.
//! * Not chosen: a topic for each span of time (a cancel would not know where to look, and topics are dear); an index on its own with bodies
//!   fetched when due (the log could be purged no more); only waiting partitions (each message would be written several times even in common use, and
//!   none could be taken back).
//!
//! A limit that is left: where an owner is crowded out of memory *before* it has read its own take (more than 49,152 messages, or 12 MiB, behind the
//! position), it moves on without knowing all. Then what the map of acks forgot may be moved again. Cancels are refused while a partition is crowded.
//!
//! Who has no right to write to the topic, or to the internal one, leaves the group when it finds out, and tries again after 5 minutes: it would hold back what it owns.
//!
//! Another one: who moves asks once a second at the most which topic it is. What is due within that second after another process deleted the topic and
//! made it again may land in the new one. Nothing is lost by that: whoever publishes for later, or takes something back, asks the servers first, so
//! that what is acked waits for the topic that is there.
//!
//! # Cost
//! For each topic with delayed messages: 8 partitions, and in each process that takes part one member of a group. For each message: one record in the internal
//! topic, its share of a close and a done record (some 10 bytes each in a batch), two group commits a batch;
//! and one question to the servers, which all share that publish for later at the same time.
//!
//! # Where things are
//! Pure: `record.rs`, `shelf.rs` (what is known), `plan.rs` (what to do), `tier.rs`, `names.rs`. Acting: `engine.rs` (the task of a topic), `job.rs`, `publish.rs`,
//! `cancel.rs`, `desk.rs`. What a backend passes in: `ground.rs`. Not here: delay of backends that have it (`embedded/core/delay.rs`, `redis/delay.rs`).

mod cancel;
mod desk;
mod engine;
mod ground;
mod job;
mod names;
mod plan;
mod publish;
mod record;
mod shelf;
#[cfg(test)]
mod tests;
mod tier;

pub(crate) use ground::{Ground, Seen};
#[cfg(feature = "kafka")]
pub(crate) use names::is_own_group;

use crate::{Answer, Error, ErrorKind, Message, MessageId, Outcomes, Result, Target, Timestamp, Topic};
use engine::Engine;
use futures::future::join_all;
use names::{Names, PARTITIONS, is_own};
use publish::{Split, put_later};
use record::OVERHEAD;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

/// How often it is asked whether somebody delays messages of a topic that is consumed here.
const LOOK: Duration = Duration::from_secs(10);
/// How many topics are asked for.
const MOST_WATCHED: usize = 4096;
/// How many bytes may be on their way into internal topics.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// How long beyond the publish deadline it is waited for the answer that there is no place for what is delayed, which comes at the deadline.
const MOMENT: Duration = Duration::from_millis(100);

/// The delayed messages of one broker. It starts tasks that hold the broker until [`Self::stop`].
#[derive(Debug, Default)]
pub(crate) struct Delay {
    known: Mutex<Known>,
    /// Topics are consumed here that were not before.
    more: Arc<Notify>,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    /// For each life of a topic.
    engines: BTreeMap<(Topic, u64), Arc<Engine>>,
    /// Held while the internal topic of a topic is made.
    making: BTreeMap<Topic, Arc<tokio::sync::Mutex<()>>>,
    watched: BTreeSet<Topic>,
    /// Those of which nobody has asked yet whether somebody delays.
    new: BTreeSet<Topic>,
    looker: Option<AbortHandle>,
    closed: bool,
}

/// Bytes that are on their way, until this is dropped.
#[derive(Debug)]
struct OnTheWay {
    delay: Arc<Delay>,
    bytes: usize,
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.delay.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whether a message has to wait.
fn waits(message: &Message, now: Timestamp) -> bool {
    message.deliver_at.is_some_and(|at| at > now)
}

impl Delay {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a batch: what is due goes to [`Ground::put`] at once, the rest waits in the internal topic.
    ///
    /// As [`MessageBroker::publish`](crate::MessageBroker::publish); a batch with nothing for later costs a look at each message.
    pub(crate) fn publish(
        self: &Arc<Self>,
        ground: &Arc<dyn Ground>,
        to: &Target,
        batch: Vec<Message>,
    ) -> Answer<Outcomes> {
        let delayed = batch.iter().any(|message| message.deliver_at.is_some());
        if !delayed {
            return ground.put(to, batch);
        }
        let now = ground.now();
        let (split, direct, later) = Split::of(batch, |message| waits(message, now));
        let direct = (!direct.is_empty()).then(|| ground.put(to, direct));
        let until = Instant::now() + ground.deadline();
        // A task, so that a dropped answer takes nothing back.
        let put = Arc::clone(self).put_later(Arc::clone(ground), to.clone(), later.clone(), until);
        let task = tokio::spawn(put);
        Box::pin(async move {
            let later = match timeout_at(until + MOMENT, task).await {
                Ok(Ok(outcomes)) => outcomes,
                Ok(Err(_)) => {
                    let error = Error::new(ErrorKind::Closed, "the broker was closed meanwhile");
                    Outcomes::all_unknown(&error, later)
                }
                Err(_) => {
                    let why = "the topic of delayed messages did not answer within the publish deadline";
                    Outcomes::all_unknown(&Error::new(ErrorKind::Unavailable, why), later)
                }
            };
            let direct = match direct {
                Some(direct) => direct.await,
                None => Outcomes(Vec::new()),
            };
            split.join(direct, later)
        })
    }

    async fn put_later(
        self: Arc<Self>,
        ground: Arc<dyn Ground>,
        to: Target,
        later: Vec<Message>,
        until: Instant,
    ) -> Outcomes {
        if later.is_empty() {
            return Outcomes(later.into_iter().map(crate::ext::no_outcome).collect());
        }
        let bytes = later.iter().map(|message| message.size() + OVERHEAD).sum();
        let _on_the_way = match self.take_over(bytes) {
            Ok(on_the_way) => on_the_way,
            Err(error) => return Outcomes::all_not_written(&error, later),
        };
        match timeout_at(until, self.engine(&ground, &to.topic)).await {
            Ok(Ok((engine, seen))) => put_later(&engine.site, seen, &to, later).await,
            Ok(Err(error)) => Outcomes::all_not_written(&error, later),
            Err(_) => {
                let why = "the topic of delayed messages was not found or made within the publish deadline";
                Outcomes::all_not_written(&Error::new(ErrorKind::Unavailable, why), later)
            }
        }
    }

    fn take_over(self: &Arc<Self>, bytes: usize) -> Result<OnTheWay> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let on_the_way = OnTheWay { delay: Arc::clone(self), bytes };
        // One batch always fits.
        if before > 0 && before + bytes > MOST_BYTES {
            let why = format!("{before} bytes of delayed messages are on their way, of at most {MOST_BYTES}");
            return Err(Error::new(ErrorKind::Throttled, why));
        }
        Ok(on_the_way)
    }

    /// Takes part in moving the messages of a topic that is consumed here, as soon as somebody delays any.
    pub(crate) fn watch(self: &Arc<Self>, ground: &Arc<dyn Ground>, topic: &Topic) {
        let mut known = self.known();
        if known.closed || is_own(topic) || known.watched.len() >= MOST_WATCHED {
            return;
        }
        known.watched.insert(topic.clone());
        known.new.insert(topic.clone());
        if known.looker.is_none() {
            let look = look(Arc::downgrade(self), Arc::clone(&self.more), Arc::clone(ground));
            known.looker = Some(tokio::spawn(look).abort_handle());
        }
        drop(known);
        self.more.notify_one();
    }

    /// [`Admin::cancel_delayed`](crate::Admin::cancel_delayed).
    ///
    /// # Errors
    /// `NotFound` for the topic; `Closed`; `Unavailable` where nobody who moves messages answers.
    pub(crate) async fn cancel(
        self: &Arc<Self>,
        ground: &Arc<dyn Ground>,
        topic: &Topic,
        id: MessageId,
    ) -> Result<bool> {
        self.open()?;
        let seen = ground.look_now(topic).await?;
        match self.find_as(ground, topic, seen).await? {
            Some(engine) => cancel::cancel(&engine.site, id).await,
            // Nobody ever delayed anything.
            None => Ok(false),
        }
    }

    /// [`TopicInfo::delayed`](crate::TopicInfo::delayed): known where there is none, or where this process owns all that wait.
    ///
    /// # Errors
    /// `NotFound` for the topic; those of the connection.
    pub(crate) async fn count(
        self: &Arc<Self>,
        ground: &Arc<dyn Ground>,
        topic: &Topic,
    ) -> Result<Option<u64>> {
        let seen = ground.look(topic).await?;
        if is_own(topic) {
            return Ok(Some(0));
        }
        let here = self.here(topic, seen.life);
        match here {
            Some(engine) => Ok(engine.count().await),
            None => Ok(internal(ground, &Names::new(topic, seen.life)?).await?.is_none().then_some(0)),
        }
    }

    /// Removes what waits for a topic that was deleted in that life.
    pub(crate) async fn deleted(&self, ground: &Arc<dyn Ground>, topic: &Topic, life: u64) {
        let engine = self.known().engines.remove(&(topic.clone(), life));
        if let Some(engine) = engine {
            // It ends by itself, and removes what there is.
            engine.gone();
            tokio::spawn(async move { engine.ended().await });
        } else if let Ok(names) = Names::new(topic, life)
            && let Err(error) = ground.delete(&names.internal).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(%topic, %error, "what is left of a deleted topic is removed by others");
        }
    }

    /// Finishes what is on its way, as far as that goes within the deadline, and ends. Everything else is answered `Closed` from the call on.
    pub(crate) async fn close(&self, deadline: Duration) {
        let engines: Vec<_> = {
            let mut known = self.known();
            known.closed = true;
            known.engines.values().cloned().collect()
        };
        let all = join_all(engines.iter().map(|engine| engine.stop()));
        if timeout(deadline, all).await.is_err() {
            tracing::debug!("what was being moved may be moved again");
        }
        drop(engines);
        self.stop();
    }

    /// Whether nothing is on its way, and no group is joined.
    #[cfg(feature = "kafka")]
    pub(crate) fn is_idle(&self) -> bool {
        self.known().engines.is_empty()
    }

    /// Ends at once.
    pub(crate) fn stop(&self) {
        let mut known = self.known();
        known.closed = true;
        known.engines.clear();
        if let Some(looker) = known.looker.take() {
            looker.abort();
        }
    }

    /// What looks after this life of the topic here.
    fn here(&self, topic: &Topic, life: u64) -> Option<Arc<Engine>> {
        let known = self.known();
        let engine = known.engines.get(&(topic.clone(), life))?;
        (!engine.is_over()).then(|| Arc::clone(engine))
    }

    fn open(&self) -> Result<()> {
        if self.known().closed {
            return Err(Error::new(ErrorKind::Closed, "the broker is closed"));
        }
        Ok(())
    }

    /// Takes part in moving the messages of a topic that is known, if there is an internal topic.
    async fn find_as(
        &self,
        ground: &Arc<dyn Ground>,
        topic: &Topic,
        seen: Seen,
    ) -> Result<Option<Arc<Engine>>> {
        if let Some(engine) = self.here(topic, seen.life) {
            return Ok(Some(engine));
        }
        let names = Names::new(topic, seen.life)?;
        match internal(ground, &names).await? {
            Some(_) => self.start(ground, names).map(Some),
            None => Ok(None),
        }
    }

    /// Held while the internal topic of a topic is made: one that cannot be made holds up no other.
    fn making(&self, topic: &Topic) -> Arc<tokio::sync::Mutex<()>> {
        let mut known = self.known();
        known.making.retain(|_, making| Arc::strong_count(making) > 1);
        Arc::clone(known.making.entry(topic.clone()).or_default())
    }

    /// Takes part in moving the messages of a topic. Makes the internal topic where there is none.
    async fn engine(&self, ground: &Arc<dyn Ground>, topic: &Topic) -> Result<(Arc<Engine>, Seen)> {
        self.open()?;
        if is_own(topic) {
            let why = format!("topic {topic:?} holds delayed messages; nothing can be delayed in it");
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        let seen = ground.look_now(topic).await?;
        if let Some(engine) = self.here(topic, seen.life) {
            return Ok((engine, seen));
        }
        let making = self.making(topic);
        let _one = making.lock().await;
        if let Some(engine) = self.here(topic, seen.life) {
            return Ok((engine, seen));
        }
        let names = Names::new(topic, seen.life)?;
        match ground.make(&names.internal, PARTITIONS, seen.max_message + OVERHEAD).await {
            Err(error) if error.kind() == ErrorKind::Exists => {
                // Somebody made it by hand, with fewer.
                let has = ground.look(&names.internal).await?.partitions;
                if has < PARTITIONS {
                    ground.grow(&names.internal, PARTITIONS).await?;
                }
            }
            made => made?,
        }
        Ok((self.start(ground, names)?, seen))
    }

    fn start(&self, ground: &Arc<dyn Ground>, names: Names) -> Result<Arc<Engine>> {
        self.open()?;
        let of = (names.topic.clone(), names.life);
        let mut known = self.known();
        known.engines.retain(|_, engine| !engine.is_over());
        let engine = known.engines.entry(of);
        let engine = engine.or_insert_with(|| Arc::new(Engine::start(Arc::clone(ground), names)));
        Ok(Arc::clone(engine))
    }

    /// Looks for internal topics of what is consumed here: of all of it, or of what was not asked for yet.
    async fn look(&self, ground: &Arc<dyn Ground>, all: bool) -> Result<()> {
        let topics: Vec<Topic> = {
            let mut known = self.known();
            let new = std::mem::take(&mut known.new);
            let looked_after: BTreeSet<&Topic> = known
                .engines
                .iter()
                .filter(|(_, engine)| !engine.is_over() && !engine.site.desk.is_doubted())
                .map(|((topic, _), _)| topic)
                .collect();
            let topics = if all { &known.watched } else { &new };
            topics.iter().filter(|topic| !looked_after.contains(topic)).cloned().collect()
        };
        if topics.is_empty() {
            return Ok(());
        }
        let mut names = BTreeMap::new();
        for (topic, life) in ground.lives(topics).await? {
            let Some(life) = life else {
                self.known().watched.remove(&topic);
                continue;
            };
            if self.here(&topic, life).is_none()
                && let Ok(of) = Names::new(&topic, life)
            {
                names.insert(of.internal.clone(), of);
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        for (internal, life) in ground.lives(names.keys().cloned().collect()).await? {
            if let (Some(_), Some(names)) = (life, names.remove(&internal)) {
                self.start(ground, names)?;
            }
        }
        Ok(())
    }
}

/// What is known of the internal topic; `None`: there is none.
async fn internal(ground: &Arc<dyn Ground>, names: &Names) -> Result<Option<Seen>> {
    match ground.look(&names.internal).await {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn look(delay: Weak<Delay>, more: Arc<Notify>, ground: Arc<dyn Ground>) {
    let mut next = Instant::now() + LOOK;
    loop {
        let all = timeout_at(next, more.notified()).await.is_err();
        let Some(delay) = delay.upgrade() else { return };
        if all {
            next = Instant::now() + LOOK;
        }
        if let Err(error) = delay.look(&ground, all).await {
            tracing::debug!(%error, "it is asked again in a while whether messages are delayed");
        }
    }
}
