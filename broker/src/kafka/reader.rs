//! Following without a group: a thread that reads, and the end from which its user takes.
//!
//! One client for a reader, without a group: it is given partitions with offsets, and commits nothing. All calls of it are made by one thread. Not here:
//! what is read, and what is told of it (`following/`, `follow.rs`), what is looked after once a second (`reader_watch.rs`), where it starts
//! (`start.rs`, `offsets.rs`).

use super::{
    broker::Shared,
    delay,
    failure::{BACKEND, closed},
    follow::{Content, Followed, Meaning, meaning},
    following::{Begin, Brought, Place, State, Step},
    layout::{Blocks, Lies},
    offsets,
    raw::{self, Told},
    reader_watch,
    start::one_place,
};
use crate::{
    Answer, Epoch, Error, ErrorKind, Event, Owned, Position, Reader, Result, Start, Topic, batched::Size,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, atomic::Ordering},
    task::{Context, Poll, Waker},
    thread::{self, Thread},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

/// How long a read waits at the most. A change wakes it.
const WAIT: Duration = Duration::from_secs(1);
/// The longest pause after a failure; it begins at a twentieth.
const PAUSE: Duration = Duration::from_secs(1);

/// What a reader, its thread and its task share.
pub(super) struct Following {
    state: Mutex<State>,
    thread: OnceLock<Thread>,
    /// Wakes the thread while it is in its client.
    client: Mutex<Option<raw::Waker>>,
    /// Somebody must look at a partition before it is read on.
    pub(super) look: Notify,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Following {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is followed: its user hears what it is told then, and the thread that something changed.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        let waker = state.waiting();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        self.moved();
        changed
    }

    /// Ends it: every later poll answers so.
    fn end(&self, error: Error) {
        self.change(|state| state.end(error));
        self.look.notify_one();
    }

    /// Wakes the thread, whatever it waits for.
    fn moved(&self) {
        if let Some(client) = &*self.client.lock().unwrap_or_else(PoisonError::into_inner) {
            client.wake();
        }
        self.thread.get().into_iter().for_each(Thread::unpark);
    }
}

/// The readers that are open.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Vec<Weak<Following>>>);

impl Readers {
    fn add(&self, reader: &Arc<Following>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|reader| reader.strong_count() > 0);
        all.push(Arc::downgrade(reader));
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.iter().filter_map(Weak::upgrade).for_each(|reader| reader.end(closed().on(BACKEND)));
    }
}

/// A reader as its user sees it.
#[derive(Debug)]
struct LogReader {
    shared: Arc<Shared>,
    following: Arc<Following>,
    task: JoinHandle<()>,
}

/// Opens a reader that follows nothing yet.
///
/// # Errors
/// `Unavailable` where the machine has no thread for it.
pub(super) fn open(shared: &Arc<Shared>) -> Result<Box<dyn Reader>> {
    let following = Arc::new(Following {
        state: Mutex::default(),
        thread: OnceLock::new(),
        client: Mutex::default(),
        look: Notify::new(),
    });
    let reading = Reading::new(Arc::clone(shared), Arc::clone(&following));
    let thread = thread::Builder::new().name("ropeway-reader".into()).spawn(move || reading.run());
    let thread = thread.map_err(|error| {
        let context = "the machine has no thread for a reader; see what limits them";
        Error::new(ErrorKind::Unavailable, context).caused_by(error)
    })?;
    _ = following.thread.set(thread.thread().clone());
    shared.readers.add(&following);
    shared.counted.readers.fetch_add(1, Ordering::Relaxed);
    let task = tokio::spawn(reader_watch::run(Arc::clone(shared), Arc::clone(&following)));
    Ok(Box::new(LogReader { shared: Arc::clone(shared), following, task }))
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.task.abort();
        self.following.end(closed());
        self.shared.counted.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reader for LogReader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let mut state = self.following.state();
        if let Some(error) = state.ended() {
            return Poll::Ready(Err(error.clone()));
        }
        let Some(event) = state.pop(cx.waker()) else { return Poll::Pending };
        let made_room = state.made_room();
        drop(state);
        if made_room {
            self.following.moved();
        }
        self.shared.counted.count_read(&event);
        Poll::Ready(Ok(event))
    }

    fn follow(&mut self, topic: &Topic, partition: Option<u32>, from: Start) -> Answer<Result<()>> {
        let (shared, following, topic) =
            (Arc::clone(&self.shared), Arc::clone(&self.following), topic.clone());
        Box::pin(async move {
            let resolved = shared.call(resolve(&shared, &topic, partition, from)).await;
            let (count, followed) =
                resolved.map_err(|error| error.during(format!("follow topic {topic:?}")).on(BACKEND))?;
            following.change(|state| {
                if partition.is_none() {
                    state.follow_whole(&topic, count);
                }
                let now = Instant::now();
                followed.into_iter().for_each(|followed| state.follow(followed, now));
            });
            shared.delay.watch(&delay::below(&shared), &topic);
            Ok(())
        })
    }

    fn unfollow(&mut self, topic: &Topic, partition: Option<u32>) {
        self.following.change(|state| state.unfollow_all(topic, partition));
    }
}

/// How many partitions the topic has, and those that are meant, each at its start.
async fn resolve(
    shared: &Arc<Shared>,
    topic: &Topic,
    partition: Option<u32>,
    from: Start,
) -> Result<(u32, Vec<Followed>)> {
    let found = offsets::ask(shared, topic, partition).await?;
    one_place(topic, found.extents.len(), from)?;
    let starts = offsets::starts(shared, topic, &found.extents, from).await?;
    let follow = |((partition, extent), start): (&(u32, _), u64)| {
        let of = Owned { topic: topic.clone(), partition: *partition, epoch: Epoch(0) };
        Followed::starting(of, extent, start)
    };
    Ok((found.described.count(), found.extents.iter().zip(starts).map(follow).collect()))
}

/// The thread that reads.
struct Reading {
    shared: Arc<Shared>,
    following: Arc<Following>,
    client: Option<raw::Consumer>,
    /// What the client reads, with the life of its topic.
    lives: BTreeMap<Place, u64>,
    blocks: Blocks,
    pause: Duration,
}

impl Reading {
    fn new(shared: Arc<Shared>, following: Arc<Following>) -> Self {
        let (lives, blocks) = (BTreeMap::new(), Blocks::default());
        Self { shared, following, client: None, lives, blocks, pause: PAUSE / 20 }
    }

    /// Until the reader ends.
    fn run(mut self) {
        loop {
            let step = self.following.state().step();
            let done = match step {
                Step::End => break,
                Step::Renew => {
                    self.leave();
                    Ok(())
                }
                Step::Change { drop, add } => self.give(&drop, &add),
                Step::Read(room) => self.read(room),
                Step::Hold => {
                    thread::park_timeout(WAIT);
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a reader tries again with another client");
                self.following.state().renew();
                thread::park_timeout(self.pause);
                self.pause = (self.pause * 2).min(PAUSE);
            }
        }
        self.leave();
    }

    /// Ends the client.
    fn leave(&mut self) {
        self.lives.clear();
        *self.following.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.client = None;
    }

    /// The client; it is opened where there is none.
    fn client(&mut self) -> Result<&mut raw::Consumer> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let conf = self.shared.settings.consumer(None)?;
                let client = raw::Consumer::open(conf, Arc::clone(&self.shared.notes));
                let client = client.map_err(|trouble| self.shared.failed(&trouble))?;
                let waker = client.waker().map_err(|trouble| self.shared.failed(&trouble))?;
                *self.following.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
                client
            }
        };
        Ok(self.client.insert(client))
    }

    /// Takes partitions from the client and gives it others.
    fn give(&mut self, drop: &[Place], add: &[Begin]) -> Result<()> {
        let place = |place: &Place, offset: i64| {
            raw::Place::new(&Arc::from(place.0.as_str()), i32::try_from(place.1).unwrap_or(-1), offset)
        };
        let dropped: Vec<_> = drop.iter().map(|of| place(of, raw::OFFSET_INVALID)).collect();
        let added: Vec<_> = add
            .iter()
            .map(|begin| place(&begin.place, i64::try_from(begin.offset).unwrap_or(i64::MAX)))
            .collect();
        let client = self.client()?;
        let given = match dropped.is_empty() {
            true => Ok(()),
            false => client.incremental_unassign(&dropped),
        };
        let given = given.and_then(|()| match added.is_empty() {
            true => Ok(()),
            false => client.incremental_assign(&added),
        });
        given.map_err(|trouble| self.shared.failed(&trouble))?;
        drop.iter().for_each(|place| _ = self.lives.remove(place));
        self.lives.extend(add.iter().map(|begin| (begin.place.clone(), begin.life)));
        Ok(())
    }

    /// Reads what there is, or waits.
    fn read(&mut self, room: Size) -> Result<()> {
        self.client()?;
        let Self { client: Some(client), lives, blocks, .. } = self else { return Ok(()) };
        let mut brought = Brought::new(room);
        let (mut lasting, mut renew) = (None, None);
        let mut last: Option<(Place, u64)> = None;
        let taken = client.next(WAIT, room.messages, &mut |told| match told {
            Told::Record(record) => {
                let known = |(place, _): &(Place, u64)| {
                    place.0.as_str() == &**record.topic && i64::from(place.1) == i64::from(record.partition)
                };
                if !last.as_ref().is_some_and(known) {
                    last = find(lives, record.topic, record.partition);
                }
                if let Some((place, life)) = &last
                    && let Ok(offset) = u64::try_from(record.offset)
                    && brought
                        .has_room(record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len))
                {
                    let content = content(blocks, place, Position(*life, offset), &record);
                    brought.add(place.clone(), offset, content);
                }
            }
            Told::Problem { code, text, place } => match (meaning(code.0, &text), place) {
                (Meaning::Passing, _) | (Meaning::Doubtful(_) | Meaning::Damaged, None) => {
                    tracing::debug!(?code, text, "a reader goes on");
                }
                (Meaning::Doubtful(doubt), Some(place)) => {
                    if let Some((place, _)) = find(lives, &place.topic, place.partition) {
                        brought.doubt(place, doubt);
                    }
                }
                (Meaning::Damaged, Some(place)) => {
                    let begin = u64::try_from(place.offset).ok();
                    if let (Some((place, _)), Some(begin)) =
                        (find(lives, &place.topic, place.partition), begin)
                        // It says nothing of records before it for which there was no room.
                        && brought.has_room(0)
                    {
                        let context = format!("a batch of records is damaged: {text}");
                        brought.add(place, begin, Content::Damaged(Error::new(ErrorKind::Corrupt, context)));
                    }
                }
                (Meaning::Renew, _) => renew = Some(raw::Trouble { code, text }),
                (Meaning::Lasting, _) => lasting = Some(raw::Trouble { code, text }),
            },
            // There is no group, and nothing is committed.
            Told::Assigned(_) | Told::Revoked { .. } | Told::Committed { .. } => {}
        });
        if let Some(trouble) = lasting {
            let error = self.shared.failed(&trouble).during("read").on(BACKEND);
            self.following.end(error);
            return Ok(());
        }
        brought.is_more = taken >= room.messages;
        if taken > 0 {
            self.pause = PAUSE / 20;
        }
        let mut state = self.following.state();
        let look = state.take(brought, Instant::now());
        let waker = state.waiting();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        if look {
            self.following.look.notify_one();
        }
        renew.map_or(Ok(()), |trouble| Err(self.shared.failed(&trouble)))
    }
}

/// A partition that the client reads, and the life of its topic.
fn find(lives: &BTreeMap<Place, u64>, topic: &str, partition: i32) -> Option<(Place, u64)> {
    let partition = u32::try_from(partition).ok()?;
    let mut places = lives.iter().filter(|(place, _)| place.1 == partition && place.0.as_str() == topic);
    places.next().map(|(place, life)| (place.clone(), *life))
}

/// What a record holds.
fn content(blocks: &mut Blocks, place: &Place, at: Position, record: &raw::RecordRef<'_>) -> Content {
    let lies = Lies { topic: &place.0, partition: place.1, at };
    let unreadable = |blocks: &mut Blocks, why: Error| Content::Unreadable {
        raw: record.value.map(|value| blocks.copy(value)),
        why,
    };
    blocks.read(lies, record).map_or_else(|why| unreadable(blocks, why), Content::Message)
}
