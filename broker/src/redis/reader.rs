//! Following without a group: a task that reads, and the end from which its user takes.
//!
//! Not here: the connection (`feed.rs`), what a read comes to (`follow.rs`), where it starts (`start.rs`).

use super::{
    broker::Shared,
    failure::{BACKEND, closed},
    feed::{Ask, Brought, Feed, answered},
    follow::{Counts, Followed, Told},
    keys::PartitionKeys,
    topics::{chosen, not_found},
    wake::Wake,
};
use crate::{Answer, Batch, Delivery, Epoch, Error, Event, Owned, Reader, Result, Start, Topic};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

/// What lies ready at the most, in messages.
const MOST_MESSAGES: usize = 1024;
/// The same in bytes; one message may be larger.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How much of one partition is read at once.
const AT_ONCE: usize = 256;
/// How long a read waits; as often it is looked whether a topic that is followed whole has grown.
const WAIT: Duration = Duration::from_secs(1);
/// The longest pause after a failure; it begins at a twentieth.
const PAUSE: Duration = Duration::from_secs(1);

/// A partition of a topic.
type Place = (Topic, u32);

/// What a reader and its task share.
#[derive(Debug)]
pub(super) struct Following {
    state: Mutex<State>,
    changed: Notify,
    wake: Wake,
}

#[derive(Debug, Default)]
struct State {
    followed: BTreeMap<Place, Slot>,
    /// Topics that are followed whole: the life and the partitions that are known.
    whole: BTreeMap<Topic, u32>,
    ready: VecDeque<(Place, Event, Size)>,
    held: Size,
    waker: Option<Waker>,
    ended: Option<Error>,
    /// Goes up whenever something is followed anew, so that what was read before is told apart.
    turns: u64,
}

#[derive(Debug)]
struct Slot {
    followed: Followed,
    turn: u64,
    /// Something was read since it was last compared with the counts of the stream.
    unverified: bool,
    /// The server it was read from, by its number ([`super::commands::Home`]); 0 before the first read.
    home: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    messages: usize,
    bytes: usize,
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

impl State {
    fn follow(&mut self, followed: Followed) {
        let place = (followed.of.topic.clone(), followed.of.partition);
        self.unfollow(&place);
        self.turns += 1;
        self.followed.insert(place, Slot { followed, turn: self.turns, unverified: false, home: 0 });
    }

    fn unfollow(&mut self, place: &Place) {
        self.followed.remove(place);
        let mut held = self.held;
        self.ready.retain(|(of, _, size)| {
            let keep = of != place;
            if !keep {
                held.messages -= size.messages;
                held.bytes -= size.bytes;
            }
            keep
        });
        self.held = held;
    }

    /// What to read next: logs, how much of each, and whether to wait for more. `None`: nothing now.
    fn plan(&self) -> Option<Plan> {
        let room = MOST_MESSAGES.saturating_sub(self.held.messages);
        if self.followed.is_empty() || room == 0 || self.held.bytes >= MOST_BYTES {
            return None;
        }
        let count = (room / self.followed.len()).clamp(1, AT_ONCE);
        let wait = if self.followed.values().all(|slot| slot.followed.is_caught_up()) {
            WAIT
        } else {
            Duration::ZERO
        };
        let ask = |slot: &Slot| Ask { keys: slot.followed.keys.clone(), after: slot.followed.after() };
        Some(Plan {
            asks: self.followed.values().map(ask).collect(),
            turns: self.followed.iter().map(|(place, slot)| (place.clone(), slot.turn)).collect(),
            count,
            wait,
        })
    }

    /// Takes what a read brought, as far as there is room: what there is none for is read again.
    fn take(&mut self, plan: &Plan, brought: Vec<Brought>) {
        for ((place, turn), mut brought) in plan.turns.iter().zip(brought) {
            let Some(slot) = self.followed.get_mut(place).filter(|slot| slot.turn == *turn) else { continue };
            let read = brought.entries.len();
            let fits = fitting(self.held, &brought);
            brought.entries.truncate(fits);
            let asked = if fits < read { fits } else { plan.count };
            slot.unverified |= !brought.entries.is_empty();
            let told = slot.followed.take(brought.entries, brought.marks, asked);
            let of = slot.followed.of.clone();
            self.tell(place, &of, told);
        }
    }

    fn tell(&mut self, place: &Place, of: &Owned, told: Vec<Told>) {
        for (event, size) in events(of, told) {
            self.held.messages += size.messages;
            self.held.bytes += size.bytes;
            self.ready.push_back((place.clone(), event, size));
        }
    }

    /// A topic is gone, and nobody deleted it.
    fn lose(&mut self, topic: &Topic) -> Option<Waker> {
        let lose = |(place, slot): (&Place, &mut Slot)| {
            let told = slot.followed.lose()?;
            Some((place.clone(), slot.followed.of.clone(), told))
        };
        let of = self.followed.iter_mut().filter(|(place, _)| place.0 == *topic);
        let lost: Vec<_> = of.filter_map(lose).collect();
        lost.into_iter().for_each(|(place, of, told)| self.tell(&place, &of, vec![told]));
        if self.ready.is_empty() { None } else { self.waker.take() }
    }

    /// What was read of since it was last compared with the counts of the stream.
    fn unverified(&mut self) -> Vec<(Place, u64, PartitionKeys)> {
        let fresh = |(place, slot): (&Place, &mut Slot)| {
            let unverified = std::mem::take(&mut slot.unverified);
            unverified.then(|| (place.clone(), slot.turn, slot.followed.keys.clone()))
        };
        self.followed.iter_mut().filter_map(fresh).collect()
    }

    /// That server was read: what was read from another one before, which is to be compared first.
    fn arrived(&mut self, home: u64) -> Vec<(Place, u64, PartitionKeys)> {
        let mut elsewhere = Vec::new();
        for (place, slot) in &mut self.followed {
            if slot.home == 0 {
                slot.home = home;
            } else if slot.home != home {
                elsewhere.push((place.clone(), slot.turn, slot.followed.keys.clone()));
            }
        }
        elsewhere
    }

    /// It is read from that server from now on, which has these counts.
    fn moved(&mut self, place: &Place, turn: u64, home: u64, counts: Counts) {
        let Some(slot) = self.followed.get_mut(place).filter(|slot| slot.turn == turn) else { return };
        slot.home = home;
        let (told, of) = (slot.followed.moved(counts), slot.followed.of.clone());
        self.tell(place, &of, told.into_iter().collect());
    }

    /// Compares what was read with the counts of the stream, which were taken after it.
    fn verify(&mut self, place: &Place, turn: u64, counts: Counts) {
        let Some(slot) = self.followed.get_mut(place).filter(|slot| slot.turn == turn) else { return };
        let (told, of) = (slot.followed.verify(counts), slot.followed.of.clone());
        self.tell(place, &of, told.into_iter().collect());
    }
}

/// A read that is under way.
#[derive(Debug)]
struct Plan {
    asks: Vec<Ask>,
    turns: Vec<(Place, u64)>,
    count: usize,
    wait: Duration,
}

/// How many of the entries there is room for: at least one where nothing else is held.
fn fitting(held: Size, brought: &Brought) -> usize {
    let room = MOST_MESSAGES.saturating_sub(held.messages);
    let mut bytes = held.bytes;
    let fits = brought.entries.iter().take(room).take_while(|entry| {
        let before = bytes;
        bytes += entry.fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        bytes <= MOST_BYTES || before == 0
    });
    fits.count()
}

/// What a reader is told, in order; messages that follow each other in one batch.
fn events(of: &Owned, told: Vec<Told>) -> Vec<(Event, Size)> {
    let mut events = Vec::new();
    let mut deliveries: Vec<Delivery> = Vec::new();
    let flush = |deliveries: &mut Vec<Delivery>, events: &mut Vec<(Event, Size)>| {
        if !deliveries.is_empty() {
            let deliveries = std::mem::take(deliveries);
            let bytes = deliveries.iter().map(|delivery| delivery.message.size()).sum();
            let size = Size { messages: deliveries.len(), bytes };
            events.push((Event::Batch(Batch { of: of.clone(), deliveries }), size));
        }
    };
    for told in told {
        let of = of.clone();
        let (event, size) = match told {
            Told::Message(delivery) => {
                deliveries.push(delivery);
                continue;
            }
            Told::Unreadable { at, raw, why } => {
                let size = Size { messages: 1, bytes: raw.len() };
                (Event::Unreadable { of, position: at, raw: Some(raw), why: why.on(BACKEND) }, size)
            }
            Told::Gap { from, to, why } => (Event::Gap { of, from, to, why }, Size::default()),
            Told::CaughtUp => (Event::CaughtUp(of), Size::default()),
            // Nothing comes until it is made again, which is a gap; that nobody deleted it is found out (`lost`).
            Told::Deleted => continue,
        };
        flush(&mut deliveries, &mut events);
        events.push((event, size));
    }
    flush(&mut deliveries, &mut events);
    events
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
        state.held.messages -= size.messages;
        state.held.bytes -= size.bytes;
        let drained = state.held.messages <= MOST_MESSAGES / 2 && state.held.bytes <= MOST_BYTES / 2;
        drop(state);
        if drained {
            self.following.changed.notify_one();
        }
        match &event {
            Event::Batch(batch) => {
                _ = self.shared.counted.read.fetch_add(batch.deliveries.len() as u64, Ordering::Relaxed);
            }
            Event::Unreadable { .. } => _ = self.shared.counted.unreadable.fetch_add(1, Ordering::Relaxed),
            Event::Gap { .. } => _ = self.shared.counted.gaps.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
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
    let mut pause = PAUSE / 20;
    loop {
        following.wake.turn();
        let plan = {
            let state = following.state();
            if state.ended.is_some() {
                return;
            }
            state.plan()
        };
        let Some(mut plan) = plan else {
            _ = tokio::time::timeout(WAIT, following.changed.notified()).await;
            continue;
        };
        match feed.read(&plan.asks, plan.count, plan.wait, None, following.wake.blocked()).await {
            Ok(brought) => {
                pause = PAUSE / 20;
                let brought = answered(&mut plan.asks, &mut plan.turns, brought);
                let doubtful = feed.may_be_another();
                let elsewhere = following.state().arrived(feed.home());
                if !elsewhere.is_empty() {
                    moved(&shared, &following, feed.home(), elsewhere).await;
                    continue;
                }
                let mut state = following.state();
                state.followed.values_mut().for_each(|slot| slot.unverified |= doubtful);
                state.take(&plan, brought);
                let waker = if state.ready.is_empty() { None } else { state.waker.take() };
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            }
            Err(error) => {
                tracing::debug!(%error, "a reader tries again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE);
            }
        }
        if looked.elapsed() >= WAIT {
            looked = Instant::now();
            grown(&shared, &following).await;
            verify(&shared, &following).await;
            lost(&shared, &following).await;
        }
    }
}

/// Finds logs that are there no more, and topics that are gone though nobody deleted them.
async fn lost(shared: &Shared, following: &Following) {
    let (topics, mut there, mut gone) = (shared.topics(), Vec::new(), BTreeSet::new());
    for (place, slot) in &following.state().followed {
        if slot.followed.is_ours() {
            there.push((place.0.clone(), slot.followed.keys.clone()));
        } else if slot.followed.is_deleted() {
            gone.insert(place.0.clone());
        }
    }
    let there: Vec<_> = there.iter().map(|(topic, keys)| (topic, keys)).collect();
    // What cannot be asked now is asked the next time.
    _ = topics.check(&there, shared.redis().is_cluster()).await;
    for topic in gone {
        // Where only the marks of a partition are gone, this makes them again.
        topics.suspect(&topic);
        _ = topics.ask(&topic).await;
        if let Ok(None) = topics.look(&topic).await {
            following.state().lose(&topic).into_iter().for_each(Waker::wake);
        }
    }
}

/// Finds what somebody else trimmed before it was read. Nobody reads meanwhile.
async fn verify(shared: &Shared, following: &Following) {
    let unverified = following.state().unverified();
    for (place, turn, keys) in unverified {
        // What is gone is told by the next read, and what cannot be reached is compared when more was read.
        let Ok(extents) = shared.topics().extents(&place.0, std::slice::from_ref(&keys)).await else {
            continue;
        };
        let mut state = following.state();
        extents.iter().for_each(|extent| state.verify(&place, turn, extent.counts));
        let waker = if state.ready.is_empty() { None } else { state.waker.take() };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
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
async fn grown(shared: &Shared, following: &Following) {
    let whole = following.state().whole.clone();
    for (topic, known) in whole {
        let topics = shared.topics();
        // What is deleted may be made again, and what cannot be reached is asked the next time.
        let Ok(description) = topics.ask(&topic).await else { continue };
        let count = description.spec.partitions;
        if count == known {
            continue;
        }
        let keys: Vec<_> =
            (known..count).map(|partition| topics.partition(&topic, &description, partition)).collect();
        let Ok(extents) = topics.extents(&topic, &keys).await else { continue };
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;
    use crate::redis::{
        follow::{Entry, Marks},
        keys::Keys,
    };

    fn state(partitions: u32) -> State {
        let mut state = State::default();
        let topic = Topic::new("t").unwrap();
        for partition in 0..partitions {
            let keys = Keys::new("x").unwrap().partition(&topic, partition);
            let of = Owned { topic: topic.clone(), partition, epoch: Epoch(0) };
            let begin = Position(7, 1);
            state.follow(Followed::resuming(of, keys, Some(7), begin, Some(0), begin));
        }
        state
    }

    fn brought(range: std::ops::RangeInclusive<u64>, bytes: usize) -> Brought {
        let field = (bytes::Bytes::from_static(b"payload"), bytes::Bytes::from(vec![1; bytes]));
        let entries = range.map(|seq| Entry { at: Position(7, seq), fields: vec![field.clone()] }).collect();
        Brought { entries, marks: Marks { life: Some(7), removed: None } }
    }

    #[test]
    fn no_more_is_held_than_the_bounds_and_what_had_no_room_is_read_again() {
        let mut state = state(1);
        let mut last = 0;
        while let Some(plan) = state.plan() {
            assert!(plan.count <= AT_ONCE);
            state.take(&plan, vec![brought(last + 1..=last + plan.count as u64, 100)]);
            last = plan.asks[0].after.1 + plan.count as u64;
            assert_eq!(state.followed.values().next().unwrap().followed.after(), Position(7, last));
        }
        assert_eq!(state.held, Size { messages: MOST_MESSAGES, bytes: 100 * MOST_MESSAGES });
        let mut large = self::state(1);
        let plan = large.plan().unwrap();
        large.take(&plan, vec![brought(1..=3, MOST_BYTES / 2 + 1)]);
        assert_eq!(
            (large.held.messages, large.followed.values().next().unwrap().followed.after()),
            (1, Position(7, 1))
        );
        let mut huge = self::state(1);
        let plan = huge.plan().unwrap();
        huge.take(&plan, vec![brought(1..=1, 2 * MOST_BYTES)]);
        assert_eq!(huge.held.messages, 1);
        assert!(huge.plan().is_none());
    }

    #[test]
    fn what_was_read_before_a_move_is_not_told_after_it() {
        let mut state = state(2);
        let plan = state.plan().unwrap();
        state.take(&plan, vec![brought(1..=2, 1), brought(1..=1, 1)]);
        let place = (Topic::new("t").unwrap(), 0);
        let again = state.followed[&place].followed.clone();
        let plan = state.plan().unwrap();
        state.follow(again);
        assert_eq!((state.held.messages, state.ready.iter().filter(|(of, ..)| *of == place).count()), (1, 0));
        state.take(&plan, vec![brought(3..=4, 1), brought(2..=2, 1)]);
        assert_eq!(state.held.messages, 2, "only the other one was taken");
        state.unfollow(&(place.0, 1));
        assert_eq!((state.held, state.ready.len()), (Size::default(), 0));
    }
}
