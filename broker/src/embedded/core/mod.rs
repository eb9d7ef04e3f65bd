//! The state of the embedded broker, and everything that is decided about it.
//!
//! Pure but for reading the store: all methods take the time, change the state and add to a [`Step`] what is to be committed. The
//! shell (`engine.rs`) runs steps: commands are decided, the batch is committed, [`Core::apply`] makes it visible.
//! What was decided and not committed is known to later decisions and to nobody else.
//!
//! Topics are in `topics.rs`, appending and deduplication in `append.rs` and `appends.rs`, delay in `delay.rs`, who owns what in `groups.rs` and `handover.rs`, acks
//! in `cursors.rs`, what consumers get in `delivery.rs` and readers in `following.rs`, where messages lie in `segments.rs`, what is removed in
//! `retention.rs`, how much room there is in `room.rs`, where reading begins in `search.rs`, reports in `describe.rs`, loading in `recover.rs` and `migrate.rs`, what is due when in `timers.rs`.

mod append;
mod appends;
mod cursors;
mod delay;
mod delivery;
mod describe;
mod following;
mod groups;
mod handover;
mod member;
mod migrate;
mod recover;
mod retention;
mod room;
mod search;
mod segments;
mod step;
mod timers;
mod topic;
mod topics;

#[cfg(test)]
mod tests;

pub(super) use append::{Verdict, stored_as};
pub(super) use cursors::Settled;
pub(super) use delivery::{Next, Plan};
pub(super) use room::Quota;
pub(super) use segments::open_segment;
pub(super) use step::Step;
pub(super) use timers::Due;

use super::{
    state::{self, group_key, partition_key, topic_key},
    time::Steady,
};
use crate::{Durability, Error, ErrorKind, Group, Result, Statistics, Timestamp, Topic};
use appends::Appends;
use bytes::Bytes;
use member::{GroupState, Member, ReaderState, Share, Told};
use room::Room;
use ropeway_store::{KeyValue, Keyspace};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    task::Waker,
    time::Duration,
};
use timers::{Timer, Timers};
use topic::TopicState;
use topics::Making;

pub(super) type MemberId = u64;
pub(super) type ReaderId = u64;
pub(super) type ShareId = u64;
pub(super) type Life = u64;

/// The longest map of acks that is stored with a cursor, in bytes; what is beyond is delivered again after a restart.
const MAX_MAP: usize = 1024 * 1024;
/// How exactly it is stored when a group last had a member.
const SEEN_STEP: Duration = Duration::from_secs(3600);
/// How exactly it is stored what time it is; only with what is stored anyway.
const MARK_STEP: Duration = Duration::from_secs(1);
/// When background work is tried again that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What does not change while the broker is open.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) backend: &'static str,
    pub(super) durability: Durability,
    /// The most that can be asked for.
    pub(super) possible: Durability,
    pub(super) max_message: usize,
    /// How long ids are remembered, and how many.
    pub(super) dedup: Option<(Duration, u64)>,
    pub(super) group_expiry: Duration,
    /// The most bytes of a segment.
    pub(super) segment: u64,
    pub(super) quota: Quota,
}

#[derive(Clone, Copy, Debug)]
struct Spaces {
    state: Keyspace,
    schedule: Keyspace,
    dedup: Option<Keyspace>,
}

/// The state of the broker.
#[derive(Debug)]
pub(super) struct Core {
    rules: Rules,
    store: Arc<dyn KeyValue>,
    spaces: Spaces,
    names: BTreeMap<Topic, Life>,
    topics: BTreeMap<Life, TopicState>,
    /// Topics that are being made, until their keyspace is there.
    making: HashMap<Life, Making>,
    groups: BTreeMap<Group, GroupState>,
    shares: HashMap<ShareId, Share>,
    members: HashMap<MemberId, Member>,
    readers: HashMap<ReaderId, ReaderState>,
    /// What is due when in steady time.
    timers: Timers<Steady, Timer>,
    /// When the next delayed message of each topic is due.
    delays: Timers<Timestamp, Life>,
    /// When the time was stored last.
    marked: Option<Steady>,
    last_life: u64,
    /// The highest epoch of a group that was deleted.
    last_epoch: u64,
    last_id: u64,
    /// How many ids are remembered.
    remembered: u64,
    statistics: Statistics,
    room: Room,
    /// Empty: its room is for the next step.
    appends: Appends,
    poisoned: Option<Error>,
    closed: bool,
    /// The due time that waiting consumers know of, where they keep the timers.
    armed: Due,
}

impl Core {
    /// When [`Self::tick`] has something to do.
    pub(super) fn due(&self) -> Due {
        Due { steady: self.timers.next(), time_of_day: self.delays.next() }
    }

    /// Notes that somebody waits for the next due time.
    pub(super) fn arm(&mut self) -> Due {
        self.armed = self.due();
        self.armed
    }

    pub(super) const fn statistics_mut(&mut self) -> &mut Statistics {
        &mut self.statistics
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            consumers: self.members.len() as u64,
            readers: self.readers.len() as u64,
            ..self.statistics
        }
    }

    pub(super) const fn poisoned(&self) -> Option<&Error> {
        self.poisoned.as_ref()
    }

    /// Whether calls are answered.
    pub(super) fn open(&self) -> Result<()> {
        if self.closed { Err(closed(self.rules.backend)) } else { Ok(()) }
    }

    /// Whether something may be written.
    pub(super) fn writable(&self) -> Result<()> {
        self.open()?;
        self.poisoned.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn life(&self, topic: &Topic) -> Result<Life> {
        self.names.get(topic).copied().ok_or_else(|| no_topic(topic))
    }

    fn topic(&self, topic: &Topic) -> Result<&TopicState> {
        self.names.get(topic).and_then(|life| self.topics.get(life)).ok_or_else(|| no_topic(topic))
    }

    /// The partitions that a call is about: one, or all.
    fn chosen(&self, topic: &Topic, partition: Option<u32>) -> Result<std::ops::Range<u32>> {
        let count = self.topic(topic)?.count();
        match partition {
            None => Ok(0..count),
            Some(one) if one < count => Ok(one..one + 1),
            Some(one) => Err(no_partition(topic, one, count)),
        }
    }

    /// Does what is due, a bounded piece of it.
    pub(super) fn tick(&mut self, step: &mut Step) {
        step.appends = std::mem::take(&mut self.appends);
        // A piece that left something to do sets its timer to now: it is the next step's.
        let mut lives = Vec::new();
        while let Some(life) = self.delays.pop(step.time_of_day) {
            lives.push(life);
        }
        // After a failed commit nothing is moved or removed any more: it would never be done, and tried for ever.
        let (wait, writable) = (self.is_critical(), self.writable().is_ok());
        for life in lives.into_iter().filter(|_| writable) {
            if wait {
                self.delays.set(life, step.time_of_day + AGAIN);
            } else if let Err(error) = self.move_due(step, life) {
                tracing::error!(%error, "delayed messages cannot be moved; it is tried again");
                self.delays.set(life, step.time_of_day + AGAIN);
            }
        }
        let mut done = Vec::new();
        while let Some(timer) = self.timers.pop(step.now) {
            done.push(timer);
        }
        for timer in done {
            let result = match timer {
                Timer::Drain(share) => {
                    self.drain_over(step, share);
                    Ok(())
                }
                Timer::Acks(member) => {
                    self.store_acks(step, member);
                    Ok(())
                }
                Timer::Close(member) => {
                    self.close_over(step, member);
                    Ok(())
                }
                Timer::Retention(_) | Timer::Sweep(_) | Timer::Forget if !writable => Ok(()),
                Timer::Retention(life) => {
                    self.retain(step, life);
                    Ok(())
                }
                Timer::Sweep(life) => self.sweep(step, life),
                Timer::Forget => self.forget(step),
            };
            if let Err(error) = result {
                tracing::error!(%error, ?timer, "background work of the embedded broker failed; it is tried again");
                self.timers.set(timer, step.now + AGAIN);
            }
        }
    }

    /// Adds to the step the records of all that it changed.
    pub(super) fn finish(&mut self, step: &mut Step) {
        self.write_appended(step);
        self.note_appended(step);
        for (life, partition) in &step.touched {
            let Some(part) = self.topics.get_mut(life).and_then(|topic| topic.partition_mut(*partition))
            else {
                continue;
            };
            part.touched = false;
            step.batch.put(self.spaces.state, partition_key(*life, *partition), part.record().encode());
        }
        for life in &step.topics {
            if let Some(topic) = self.topics.get(life) {
                step.batch.put(self.spaces.state, topic_key(&topic.topic), topic.record().encode());
            }
        }
        let mut seen = BTreeSet::new();
        for id in &step.cursors {
            let Some(share) = self.shares.get_mut(id) else { continue };
            share.dirty = false;
            if self.rules.possible == Durability::Volatile {
                continue;
            }
            let key = state::cursor_key(&share.group, &share.topic, share.partition);
            step.batch.put(self.spaces.state, key, share.record(MAX_MAP).encode());
            seen.insert(share.group.clone());
        }
        for group in seen {
            let Some(state) = self.groups.get_mut(&group) else { continue };
            if !state.members.is_empty() && step.now.since(state.last_seen) > SEEN_STEP {
                state.last_seen = step.now;
                write_seen(step, self.spaces.state, &group, state);
            }
        }
        self.mark(step);
        step.bytes = step.batch.bytes() as u64;
    }

    /// Adds to the step what it appends to logs, partition by partition.
    fn write_appended(&mut self, step: &mut Step) {
        let appends = std::mem::take(&mut step.appends);
        for (life, partition) in &step.touched {
            let Some(topic) = self.topics.get_mut(life) else { continue };
            if let Some(row) = topic.partition_mut(*partition).and_then(|part| part.appended.take()) {
                appends.write(*partition, row, topic.segments.arena(), &mut step.batch);
            }
        }
        self.appends = appends.cleared();
    }

    /// Stores what time it is, so that steady time goes on from here when the broker is opened next.
    fn mark(&mut self, step: &mut Step) {
        let stale = self.marked.is_none_or(|marked| step.now.since(marked) >= MARK_STEP);
        let wanted = self.closed || (stale && !step.batch.is_empty());
        if wanted && self.rules.possible != Durability::Volatile && self.poisoned.is_none() {
            self.marked = Some(step.now);
            step.batch.put(
                self.spaces.state,
                Bytes::from_static(state::MARK),
                state::encode_mark(&step.mark),
            );
        }
    }

    /// Makes visible what was committed; answers whom to wake.
    pub(super) fn apply(&mut self, step: &mut Step) -> Vec<Waker> {
        self.statistics.published += std::mem::take(&mut step.published);
        self.room.written += std::mem::take(&mut step.bytes);
        let mut wake = Vec::new();
        for (life, partition) in std::mem::take(&mut step.touched) {
            self.show(life, partition, &mut wake);
        }
        for (member, told) in std::mem::take(&mut step.told) {
            self.tell(member, told, &mut wake);
        }
        if self.due().is_before(&self.armed) {
            wake.extend(self.members.values_mut().filter_map(|member| member.waker.take()));
            wake.extend(self.readers.values_mut().filter_map(|reader| reader.waker.take()));
        }
        wake
    }

    /// A commit failed: nothing of the step is shown, and nothing is written any more.
    pub(super) fn poison(&mut self, step: &mut Step, error: &Error) -> Vec<Waker> {
        self.refuse_writes("a commit to the disk failed", error);
        self.statistics.unknown += std::mem::take(&mut step.published);
        step.touched.clear();
        // What was taken away is gone, and consumers that end are told so; nobody gets anything.
        step.told.retain(|(_, told)| matches!(told, Told::Event(_) | Told::Over));
        self.refuse_topics(step);
        self.apply(step)
    }

    fn refuse_writes(&mut self, why: &'static str, error: &Error) {
        if self.poisoned.is_none() {
            tracing::error!(%error, "{why}: the embedded broker refuses all writes until it is opened again");
            let text = format!(
                "{why}, so nothing is written any more; close the broker and open it again to recover"
            );
            let refused = Error::new(ErrorKind::Unavailable, text).on(self.rules.backend);
            self.poisoned = Some(refused.caused_by(error.clone()));
        }
    }

    /// Shows a partition's new messages to who waits for them.
    fn show(&mut self, life: Life, partition: u32, wake: &mut Vec<Waker>) {
        let Some(topic) = self.topics.get_mut(&life) else { return };
        let name = topic.topic.clone();
        let Some(part) = topic.partition_mut(partition) else { return };
        part.end = part.next;
        for id in &part.shares {
            let Some(share) = self.shares.get_mut(id) else { continue };
            let Some(member) = share.owner.and_then(|owner| self.members.get_mut(&owner)) else { continue };
            // One that has no room is looked at when there is some, unless there is a gap to be told.
            if share.flows() && (!share.waiting || share.next < part.low) {
                member.queue(*id, share);
                wake.extend(member.waker.take());
            }
        }
        for id in &part.readers {
            let Some(reader) = self.readers.get_mut(id) else { continue };
            let key = (name.clone(), partition);
            if let Some(follow) = reader.follows.get_mut(&key).filter(|follow| !follow.queued) {
                follow.queued = true;
                reader.ready.push_back(key);
                wake.extend(reader.waker.take());
            }
        }
    }

    fn tell(&mut self, id: MemberId, told: Told, wake: &mut Vec<Waker>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match &told {
            Told::Assigned(list) => {
                self.statistics.assigned += list.len() as u64;
                for (share_id, assignment) in list {
                    let Some(share) = self.shares.get_mut(share_id) else { continue };
                    if share.owner == Some(id) && share.epoch == Some(assignment.of.epoch) {
                        share.live = true;
                        member.queue(*share_id, share);
                    }
                }
            }
            Told::Event(crate::Event::Gone(..)) => self.statistics.gone += 1,
            Told::Over => member.over = true,
            Told::Event(_) | Told::Revoking(_) => {}
        }
        member.told.push_back(told);
        wake.extend(member.waker.take());
    }

    /// Ends everything: who owns gives up, who waits is told. Nothing works afterwards.
    pub(super) fn close(&mut self, step: &mut Step) {
        for member in self.members.values_mut() {
            member.leaving = true;
        }
        let mut shares: Vec<ShareId> =
            self.shares.iter().filter(|(_, share)| share.owner.is_some()).map(|(id, _)| *id).collect();
        shares.sort_unstable();
        for id in shares {
            self.release(step, id, crate::GoneReason::Closed);
        }
        let groups: Vec<Group> = self.groups.keys().cloned().collect();
        for group in groups {
            if self.groups.get(&group).is_some_and(|state| !state.members.is_empty()) {
                self.note_seen(step, &group);
            }
        }
        // Who waits for a topic is told that the broker is closed.
        self.making.clear();
        let error = closed(self.rules.backend);
        for group in self.groups.values_mut() {
            group.members.clear();
        }
        let mut wake = Vec::new();
        for (id, member) in &mut self.members {
            member.ended.get_or_insert_with(|| error.clone());
            step.tell(*id, Told::Over);
            for closer in member.closers.drain(..) {
                let unacked = member.unacked.clone();
                step.after(move |_| _ = closer.send(unacked));
            }
        }
        for reader in self.readers.values_mut() {
            reader.ended.get_or_insert_with(|| error.clone());
            wake.extend(reader.waker.take());
        }
        step.after(move |_| wake.into_iter().for_each(Waker::wake));
        self.closed = true;
    }

    /// Who runs the steps has panicked: nothing works any more, and everybody is told.
    #[cfg(feature = "embedded")]
    pub(super) fn fall(&mut self) -> Vec<Waker> {
        let error = Error::new(
            ErrorKind::Unavailable,
            "the embedded broker has panicked, which is a defect; open it again to recover",
        )
        .on(self.rules.backend);
        self.making.clear();
        let mut wake = Vec::new();
        for member in self.members.values_mut() {
            for id in member.owned.values() {
                if let Some(share) = self.shares.get(id) {
                    let gone = crate::Event::Gone(share.owned(), crate::GoneReason::Lost);
                    member.told.push_back(Told::Event(gone));
                }
            }
            member.ended.get_or_insert_with(|| error.clone());
            (member.leaving, member.over) = (true, true);
            member.closers.clear();
            wake.extend(member.waker.take());
        }
        for reader in self.readers.values_mut() {
            reader.ended.get_or_insert_with(|| error.clone());
            wake.extend(reader.waker.take());
        }
        self.closed = true;
        wake
    }

    /// Stores that the group has or had a member now.
    fn note_seen(&mut self, step: &mut Step, group: &Group) {
        if let Some(state) = self.groups.get_mut(group) {
            state.last_seen = step.now;
            write_seen(step, self.spaces.state, group, state);
        }
    }
}

fn write_seen(step: &mut Step, space: Keyspace, group: &Group, state: &GroupState) {
    step.batch.put(space, group_key(group), state::encode_number(state.last_seen.as_millis()));
}

pub(super) fn closed(backend: &'static str) -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed; open it again").on(backend)
}

fn no_topic(topic: &Topic) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no topic {topic:?}; create it first"))
}

fn no_partition(topic: &Topic, partition: u32, count: u32) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("topic {topic:?} has no partition {partition}: it has {count}, counted from 0"),
    )
}

/// A failure of the store, in the words of the contract.
pub(super) fn store_error(error: ropeway_store::Error) -> Error {
    use ropeway_store::Error as Store;
    let kind = match &error {
        Store::Full { .. } => ErrorKind::Full,
        Store::Absent { .. } => ErrorKind::NotFound,
        Store::Corrupt { .. } => ErrorKind::Corrupt,
        Store::Version { .. } => ErrorKind::Unsupported,
        Store::Locked { .. } => ErrorKind::Conflict,
        Store::Closed => ErrorKind::Closed,
        _ => ErrorKind::Unavailable,
    };
    let text = error.to_string();
    match error {
        Store::Io { source, .. } | Store::Full { source } => Error::new(kind, text).caused_by(source),
        _ => Error::new(kind, text),
    }
}
