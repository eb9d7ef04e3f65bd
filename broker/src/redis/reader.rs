//! Following without a group: a task that reads, and the end from which its user takes.
//!
//! Not here: the connection (`feed.rs`), what is read next and what there is room for (`following.rs`), what a read comes to (`follow.rs`), where it starts (`start.rs`).

use super::{
    broker::Shared,
    failure::{BACKEND, closed},
    feed::{Feed, answered},
    follow::Followed,
    following::{MOST_BYTES, MOST_MESSAGES, Place, State, WAIT},
    keys::PartitionKeys,
    lasting::{Refusals, is_refusal},
    topics::{chosen, not_found},
    wake::Wake,
};
use crate::{Answer, Epoch, Error, Event, Owned, Reader, Result, Start, Topic};
use futures::future::join_all;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

/// The longest pause after a failure; it begins at a twentieth.
const PAUSE: Duration = Duration::from_secs(1);

/// What a reader and its task share.
#[derive(Debug)]
pub(super) struct Following {
    state: Mutex<State>,
    changed: Notify,
    wake: Wake,
}

impl Following {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it: every later poll answers so.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state();
        state.ended.get_or_insert(error);
        state.ready.clear();
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        self.changed.notify_one();
    }

    fn moved(self: &Arc<Self>, shared: &Shared) {
        self.changed.notify_one();
        self.wake.wake(&shared.topics().commands);
    }
}

/// A reader as its user sees it.
#[derive(Debug)]
pub(super) struct LogReader {
    shared: Arc<Shared>,
    following: Arc<Following>,
    task: JoinHandle<()>,
}

impl LogReader {
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        let following =
            Arc::new(Following { state: Mutex::default(), changed: Notify::new(), wake: Wake::default() });
        shared.readers.add(&following);
        shared.counted.readers.fetch_add(1, Ordering::Relaxed);
        let task = tokio::spawn(run(Arc::clone(&shared), Arc::clone(&following)));
        Self { shared, following, task }
    }
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
        if let Some(error) = &state.ended {
            return Poll::Ready(Err(error.clone()));
        }
        let Some((_, event, size)) = state.ready.pop_front() else {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.held.take(size);
        let drained = state.held.messages <= MOST_MESSAGES / 2 && state.held.bytes <= MOST_BYTES / 2;
        drop(state);
        if drained {
            self.following.changed.notify_one();
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
                resolved.map_err(|error| error.during(format!("follow topic {topic:?}")))?;
            shared.tasks.watch(&topic);
            {
                let mut state = following.state();
                if partition.is_none() {
                    state.whole.insert(topic, count);
                }
                followed.into_iter().for_each(|followed| state.follow(followed));
            }
            following.moved(&shared);
            Ok(())
        })
    }

    fn unfollow(&mut self, topic: &Topic, partition: Option<u32>) {
        let mut state = self.following.state();
        if partition.is_none() {
            state.whole.remove(topic);
        }
        let places: Vec<Place> = state.followed.keys().cloned().collect();
        for place in places {
            if place.0 == *topic && partition.is_none_or(|partition| partition == place.1) {
                state.unfollow(&place);
            }
        }
        drop(state);
        self.following.moved(&self.shared);
    }
}

/// How many partitions the topic has, and those that are meant, each at its start.
async fn resolve(
    shared: &Shared,
    topic: &Topic,
    partition: Option<u32>,
    from: Start,
) -> Result<(u32, Vec<Followed>)> {
    let topics = shared.topics();
    let description = topics.ask(topic).await?;
    let partitions = chosen(topic, &description, partition)?;
    super::admin::one_place(topic, partitions.len(), from)?;
    let keys: Vec<_> =
        partitions.iter().map(|partition| topics.partition(topic, &description, *partition)).collect();
    let extents = topics.extents(topic, &keys).await?;
    let mut followed = Vec::with_capacity(keys.len());
    for ((partition, keys), extent) in partitions.into_iter().zip(keys).zip(extents) {
        if extent.marks.life != description.life {
            return Err(not_found(topic));
        }
        let start = extent.resolve(topic, from)?;
        let of = Owned { topic: topic.clone(), partition, epoch: Epoch(0) };
        let count = extent.added_before(start);
        followed.push(Followed::starting(of, keys, extent.marks, start, count, extent.end()));
    }
    Ok((description.spec.partitions, followed))
}

/// Reads what is followed, until the reader ends.
async fn run(shared: Arc<Shared>, following: Arc<Following>) {
    let mut feed = Feed::new(shared.redis().clone(), shared.topics().commands.clone());
    let mut looked = Instant::now();
    let (mut pause, mut refusals, mut blind) = (PAUSE / 20, Refusals::default(), Refusals::default());
    loop {
        following.wake.turn();
        let plan = {
            let mut state = following.state();
            if state.ended.is_some() {
                return;
            }
            state.plan(Instant::now())
        };
        let Some(mut plan) = plan else {
            _ = tokio::time::timeout(WAIT, following.changed.notified()).await;
            continue;
        };
        match feed.read(&plan.asks, plan.count, plan.wait, None, following.wake.blocked()).await {
            Ok(brought) => {
                pause = PAUSE / 20;
                refusals.over();
                let brought = answered(&mut plan.asks, &mut plan.moved, brought);
                let doubtful = feed.may_be_another();
                let elsewhere = following.state().arrived(feed.home());
                if !elsewhere.is_empty() {
                    moved(&shared, &following, feed.home().number, elsewhere).await;
                    continue;
                }
                let mut state = following.state();
                state.followed.values_mut().for_each(|slot| slot.unverified |= doubtful);
                state.take(&plan, brought, Instant::now());
                let waker = if state.ready.is_empty() { None } else { state.waker.take() };
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            }
            Err(error) if following.state().can_do_with_less(&error) => {
                tracing::debug!(%error, "a reader asks for less");
            }
            Err(error) if refusals.last(&error, Instant::now()) => {
                return following.end(error.during("read").on(BACKEND));
            }
            Err(error) => {
                tracing::debug!(%error, "a reader tries again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE);
            }
        }
        if looked.elapsed() >= WAIT {
            looked = Instant::now();
            match look(&shared, &following).await {
                Err(error) if blind.last(&error, looked) => {
                    return following.end(error.during("read").on(BACKEND));
                }
                Err(error) => tracing::debug!(%error, "a reader looks again"),
                Ok(()) => blind.over(),
            }
        }
    }
}

/// Finds what reading alone does not show. What cannot be asked now is asked the next time.
///
/// # Errors
/// What the server refuses to tell: without that, losses would go without a word.
async fn look(shared: &Shared, following: &Following) -> Result<()> {
    grown(shared, following).await?;
    verify(shared, following).await?;
    lost(shared, following).await
}

/// What was asked, if it could be; what the server refuses is an error.
fn asked<T>(asked: Result<T>) -> Result<Option<T>> {
    match asked {
        Ok(told) => Ok(Some(told)),
        Err(error) if is_refusal(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Finds logs that are there no more, and topics that are gone though nobody deleted them.
async fn lost(shared: &Shared, following: &Following) -> Result<()> {
    let (topics, mut there, mut gone) = (shared.topics(), Vec::new(), BTreeSet::new());
    for (place, slot) in &following.state().followed {
        if slot.followed.is_ours() {
            there.push((place.0.clone(), slot.followed.keys.clone()));
        } else if slot.followed.is_deleted() {
            gone.insert(place.0.clone());
        }
    }
    let there: Vec<_> = there.iter().map(|(topic, keys)| (topic, keys)).collect();
    asked(topics.check(&there, shared.redis().is_cluster()).await)?;
    for topic in gone {
        // Where only the marks of a partition are gone, this makes them again.
        topics.suspect(&topic);
        _ = topics.ask(&topic).await;
        if let Ok(None) = topics.look(&topic).await {
            following.state().lose(&topic).into_iter().for_each(Waker::wake);
        }
    }
    Ok(())
}

/// Finds what somebody else trimmed before it was read. Nobody reads meanwhile.
async fn verify(shared: &Shared, following: &Following) -> Result<()> {
    let unverified = following.state().unverified();
    // At once, whatever their number.
    let extents = unverified.iter().map(|(place, _, keys)| {
        let (topic, keys) = (place.0.clone(), keys.clone());
        async move { shared.topics().extents(&topic, std::slice::from_ref(&keys)).await }
    });
    let extents = join_all(extents).await;
    for ((place, turn, _), extents) in unverified.into_iter().zip(extents) {
        // What is gone is told by the next read, and what cannot be reached is compared when more was read.
        let Some(extents) = asked(extents)? else { continue };
        let mut state = following.state();
        extents.iter().for_each(|extent| state.verify(&place, turn, extent));
        let waker = if state.ready.is_empty() { None } else { state.waker.take() };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
    Ok(())
}

/// Goes on with another server. What cannot be asked now is asked with the next read, which is not taken before.
async fn moved(shared: &Shared, following: &Following, home: u64, of: Vec<(Place, u64, PartitionKeys)>) {
    for (place, turn, keys) in of {
        let Ok(extents) = shared.topics().extents(&place.0, std::slice::from_ref(&keys)).await else {
            return tokio::time::sleep(PAUSE / 20).await;
        };
        let mut state = following.state();
        extents.iter().for_each(|extent| state.moved(&place, turn, home, extent.counts));
        let waker = if state.ready.is_empty() { None } else { state.waker.take() };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Looks whether topics that are followed whole have other partitions by now. Those that were added are read from their beginning.
async fn grown(shared: &Shared, following: &Following) -> Result<()> {
    let whole = following.state().whole.clone();
    for (topic, known) in whole {
        let topics = shared.topics();
        // What is deleted may be made again, and what cannot be reached is asked the next time.
        let Some(description) = asked(topics.ask(&topic).await)? else { continue };
        let count = description.spec.partitions;
        if count == known {
            continue;
        }
        let keys: Vec<_> =
            (known..count).map(|partition| topics.partition(&topic, &description, partition)).collect();
        let Some(extents) = asked(topics.extents(&topic, &keys).await)? else { continue };
        let mut state = following.state();
        if state.whole.get(&topic) != Some(&known) {
            continue;
        }
        state.whole.insert(topic.clone(), count);
        (count..known).for_each(|partition| state.unfollow(&(topic.clone(), partition)));
        for ((partition, keys), extent) in (known..count).zip(keys).zip(extents) {
            let of = Owned { topic: topic.clone(), partition, epoch: Epoch(0) };
            let begin = description.base().next();
            state.follow(Followed::resuming(of, keys, description.life, begin, Some(0), extent.end()));
        }
    }
    Ok(())
}
