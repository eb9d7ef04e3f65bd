//! What a reader follows, decided without a server: what the client is to read where, what of it there is room for, and what its user is told.
//!
//! No more is held than the bounds say. Where there is no room, the client is not asked for more before half of it is free: it stops by itself when it has read
//! ahead what it may (`../settings/clients.rs`), and keeps that. Taking partitions from it would make it forget what it has, and the servers would send it again: to a slow user
//! dozens of times what he takes. So that is done only for a message that turned out larger than the room there was (next time fewer are asked for), and where keys and headers are
//! large, which the client does not count. Where reading goes on then is decided here. What came of a partition before it was given to the client anew is told apart by turns.
//!
//! A topic that is made again is read on where the old one was read, if it is as long: the client library says nothing. It pauses half a second then,
//! so what comes after a pause is told only when the topic was looked at since it came. Where the client has more than was taken, a pause would not show: there it
//! counts from when all of it was taken.
//!
//! `brought.rs` is what the client brings. Not here: the thread that reads, and the end from which its user takes (`reader.rs`), what of a topic is looked
//! after once a second (`reader_watch.rs`).

mod brought;

pub(in crate::kafka) use brought::Brought;

use super::{
    follow::{Content, Followed, Told},
    standing::{STANDS, Standing, Why},
    start::Extent,
};
use crate::{Error, Event, Topic, batched::Size};
use brought::{Arrived, events};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    task::Waker,
    time::Duration,
};
use tokio::time::Instant;

/// What lies ready at the most, in messages.
pub(in crate::kafka) const MOST_MESSAGES: usize = 1024;
/// The same in bytes; one message may be larger.
pub(in crate::kafka) const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How much is taken from the client at once.
const AT_ONCE: usize = 256;
/// After how long a pause it is looked whether the topic is the one that it was. The client library waits 500 ms where it is not.
const PAUSE: Duration = Duration::from_millis(200);

/// A partition of a topic.
pub(in crate::kafka) type Place = (Topic, u32);

#[derive(Debug, Default)]
pub(in crate::kafka) struct State {
    followed: BTreeMap<Place, Slot>,
    /// Topics that are followed whole: the partitions that are known.
    whole: BTreeMap<Topic, u32>,
    ready: VecDeque<(Place, Event, Size)>,
    held: Size,
    /// Nothing is read until there is room again, and for a message of that many bytes.
    shed: Option<usize>,
    /// How large the largest record was that came last, in bytes.
    largest: usize,
    /// The client had more than was taken of it last.
    is_more: bool,
    /// What came last had much beside payloads, which the client does not count.
    uncounted: bool,
    /// The thread that reads waits for room.
    waits: bool,
    /// What the client reads, by the turn in which it was given to it.
    assigned: BTreeMap<Place, u64>,
    /// The client is to be replaced.
    renew: bool,
    /// Goes up whenever reading of a partition begins somewhere else, so that what was read before is told apart.
    turns: u64,
    waker: Option<Waker>,
    ended: Option<Error>,
}

#[derive(Debug)]
struct Slot {
    followed: Followed,
    turn: u64,
    /// For how many looks nothing came of it.
    quiet: u32,
    /// When something came of it last, or it was begun.
    heard: Instant,
    /// When it was looked last whether it stands still, and up to where nothing was missing then.
    stood: Option<Instant>,
    fine: u64,
    /// When something of it came last and the client had no more, or its topic was looked at for what came.
    sure_at: Instant,
    /// What came after a pause, to be told when the topic was looked at.
    parked: Vec<Arrived>,
    /// How many of those were there when the look began.
    looked_for: usize,
}

impl Slot {
    /// What it holds back, in messages and bytes.
    fn parked_size(&self) -> Size {
        Size {
            messages: self.parked.len(),
            bytes: self.parked.iter().map(|arrived| arrived.content.size()).sum(),
        }
    }
}

/// What the thread that reads does next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Step {
    /// The reader ended.
    End,
    /// Opens another client, which reads nothing yet.
    Renew,
    /// Takes these from the client, then gives it those, each to be read at an offset.
    Change { drop: Vec<Place>, add: Vec<Begin> },
    /// Reads, or waits where there is nothing to read: no more than that.
    Read(Size),
    /// There is no room: waits for it, or for a change.
    Hold,
}

/// Where the client begins to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Begin {
    pub(in crate::kafka) place: Place,
    pub(in crate::kafka) offset: u64,
    /// The life of the topic that it reads.
    pub(in crate::kafka) life: u64,
}

impl State {
    /// Its topic was just looked at.
    pub(in crate::kafka) fn follow(&mut self, followed: Followed, now: Instant) {
        let place = (followed.of.topic.clone(), followed.of.partition);
        self.unfollow(&place);
        self.turns += 1;
        let (turn, quiet, parked, looked_for) = (self.turns, 0, Vec::new(), 0);
        let slot = Slot {
            followed,
            turn,
            quiet,
            heard: now,
            stood: None,
            fine: 0,
            sure_at: now,
            parked,
            looked_for,
        };
        self.followed.insert(place.clone(), slot);
        self.change(&place, |followed, told| told.extend(followed.caught_up()));
    }

    /// All of a topic, which has that many partitions now.
    pub(in crate::kafka) fn follow_whole(&mut self, topic: &Topic, partitions: u32) {
        self.whole.insert(topic.clone(), partitions);
    }

    pub(in crate::kafka) fn unfollow(&mut self, place: &Place) {
        if let Some(slot) = self.followed.remove(place) {
            self.held.take(slot.parked_size());
        }
        let mut held = self.held;
        self.ready.retain(|(of, _, size)| {
            let keep = of != place;
            if !keep {
                held.take(*size);
            }
            keep
        });
        self.held = held;
    }

    /// A partition, or all of the topic.
    pub(in crate::kafka) fn unfollow_all(&mut self, topic: &Topic, partition: Option<u32>) {
        if partition.is_none() {
            self.whole.remove(topic);
        }
        let meant = |place: &&Place| place.0 == *topic && partition.is_none_or(|one| one == place.1);
        let places: Vec<Place> = self.followed.keys().filter(meant).cloned().collect();
        places.iter().for_each(|place| self.unfollow(place));
    }

    /// The next event; else it is waited for.
    pub(in crate::kafka) fn pop(&mut self, waker: &Waker) -> Option<Event> {
        let Some((_, event, size)) = self.ready.pop_front() else {
            self.waker = Some(waker.clone());
            return None;
        };
        self.held.take(size);
        Some(event)
    }

    /// Who waits for an event, where there is one now.
    pub(in crate::kafka) fn waiting(&mut self) -> Option<Waker> {
        if self.ready.is_empty() && self.ended.is_none() { None } else { self.waker.take() }
    }

    pub(in crate::kafka) const fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// Ends it: what was not told is not told any more.
    pub(in crate::kafka) fn end(&mut self, error: Error) {
        self.ended.get_or_insert(error);
        self.ready.clear();
    }

    /// Whether there is room again after there was none.
    fn has_room(&self) -> bool {
        let needs = self.shed.unwrap_or(0).max(self.largest);
        let half = self.held.messages <= MOST_MESSAGES / 2 && self.held.bytes <= MOST_BYTES / 2;
        half && (self.held.bytes == 0 || self.held.bytes.saturating_add(needs) <= MOST_BYTES)
    }

    /// Whether another one like those that came last might have no place.
    fn is_full(&self) -> bool {
        let like = self.held.bytes > 0 && self.held.bytes.saturating_add(self.largest) > MOST_BYTES;
        self.held.messages >= MOST_MESSAGES || self.held.bytes >= MOST_BYTES || like
    }

    /// What to do next. What it says of the client is taken as done; where that fails, [`Self::renew`].
    pub(in crate::kafka) fn step(&mut self) -> Step {
        if self.ended.is_some() {
            return Step::End;
        }
        if std::mem::take(&mut self.renew) {
            self.assigned.clear();
            return Step::Renew;
        }
        if self.shed.is_some() && self.has_room() {
            self.shed = None;
        }
        if self.uncounted && self.is_full() {
            self.shed.get_or_insert(0);
        }
        let (shed, full) = (self.shed.is_some(), self.is_full());
        let (drop, add) = self.changes(shed, full);
        if !drop.is_empty() || !add.is_empty() {
            return Step::Change { drop, add };
        }
        self.waits = full || shed;
        if full && !shed {
            return Step::Hold;
        }
        let bytes = MOST_BYTES.saturating_sub(self.held.bytes);
        let like = (bytes / self.largest.max(1)).max(1);
        let messages = MOST_MESSAGES.saturating_sub(self.held.messages).min(AT_ONCE).min(like);
        Step::Read(Size { messages, bytes })
    }

    /// What is to be taken from the client, and what it is to be given.
    fn changes(&mut self, shed: bool, full: bool) -> (Vec<Place>, Vec<Begin>) {
        let wanted = |place: &Place| {
            let slot = self.followed.get(place).filter(|_| !shed)?;
            Some((slot.turn, slot.followed.wanted()?, slot.followed.life()))
        };
        let goes = |(place, turn): &(&Place, &u64)| wanted(place).is_none_or(|(now, ..)| now != **turn);
        let drop: Vec<Place> = self.assigned.iter().filter(goes).map(|(place, _)| place.clone()).collect();
        let (mut add, mut turns) = (Vec::new(), Vec::new());
        for place in self.followed.keys().filter(|_| !full) {
            if let Some((turn, offset, life)) = wanted(place)
                && self.assigned.get(place) != Some(&turn)
            {
                add.push(Begin { place: place.clone(), offset, life });
                turns.push((place.clone(), turn));
            }
        }
        drop.iter().for_each(|place| _ = self.assigned.remove(place));
        self.assigned.extend(turns);
        (drop, add)
    }

    /// Whether the thread that reads waits for room, and there is some now. Told once.
    pub(in crate::kafka) fn made_room(&mut self) -> bool {
        let made = self.waits && self.has_room();
        self.waits &= !made;
        made
    }

    /// Another client is needed: this one reads nothing any more, or knows what is not true any more.
    pub(in crate::kafka) fn renew(&mut self) {
        self.renew = true;
    }

    /// Takes what the client brought of what it was given. `true`: somebody must look at it.
    pub(in crate::kafka) fn take(&mut self, brought: Brought, now: Instant) -> bool {
        let mut look = !brought.doubts.is_empty();
        self.is_more = brought.is_more;
        let all = !brought.is_more;
        if let Some(largest) = brought.largest() {
            (self.largest, self.uncounted) = (largest, brought.is_uncounted());
        }
        let mut run: Option<(Place, Vec<Told>)> = None;
        let mut parked = Size::default();
        for arrived in brought.arrived {
            if run.as_ref().is_some_and(|(of, _)| *of != arrived.place) {
                self.tell(run.take());
            }
            let Some(slot) = self.reading(&arrived.place) else { continue };
            (slot.quiet, slot.heard) = (0, now);
            if !slot.parked.is_empty() || now.saturating_duration_since(slot.sure_at) >= PAUSE {
                look = true;
                parked.add(Size { messages: 1, bytes: arrived.content.size() });
                slot.parked.push(arrived);
                continue;
            }
            if all {
                slot.sure_at = now;
            }
            let Arrived { place, offset, content } = arrived;
            slot.followed.take(offset, content, &mut run.get_or_insert_with(|| (place, Vec::new())).1);
            look |= slot.followed.in_doubt();
        }
        self.tell(run);
        self.held.add(parked);
        for (place, doubt) in brought.doubts {
            if let Some(slot) = self.reading(&place) {
                slot.followed.doubt(doubt);
            }
        }
        if brought.refused.is_some() {
            self.shed = brought.refused;
        }
        look
    }

    /// Tells as many of those that were held back; the topic is the one that it was.
    fn release(&mut self, place: &Place, count: usize, now: Instant) {
        let Some(slot) = self.followed.get_mut(place) else { return };
        let count = count.min(slot.parked.len());
        if count == 0 {
            return;
        }
        slot.sure_at = now;
        let before = slot.parked_size();
        let released: Vec<Arrived> = slot.parked.drain(..count).collect();
        let after = slot.parked_size();
        self.held.take(before);
        self.held.add(after);
        self.change(place, |followed, told| {
            released.into_iter().for_each(|arrived| followed.take(arrived.offset, arrived.content, told));
        });
    }

    /// What the client reads of it in this turn.
    fn reading(&mut self, place: &Place) -> Option<&mut Slot> {
        let turn = *self.assigned.get(place)?;
        self.followed.get_mut(place).filter(|slot| slot.turn == turn)
    }

    fn tell(&mut self, told: Option<(Place, Vec<Told>)>) {
        let Some((place, told)) = told else { return };
        let Some(of) = self.followed.get(&place).map(|slot| slot.followed.of.clone()) else { return };
        for (event, size) in events(&of, told) {
            self.held.add(size);
            self.ready.push_back((place.clone(), event, size));
        }
    }

    fn change(&mut self, place: &Place, change: impl FnOnce(&mut Followed, &mut Vec<Told>)) {
        let Some(slot) = self.followed.get_mut(place) else { return };
        let mut told = Vec::new();
        change(&mut slot.followed, &mut told);
        self.tell(Some((place.clone(), told)));
    }

    /// The topics that are followed: a look at them begins.
    pub(in crate::kafka) fn topics(&mut self) -> Vec<Topic> {
        self.followed.values_mut().for_each(|slot| slot.looked_for = slot.parked.len());
        let mut topics: Vec<Topic> = self.followed.keys().map(|place| place.0.clone()).collect();
        topics.extend(self.whole.keys().cloned());
        topics.sort();
        topics.dedup();
        topics
    }

    /// A topic was looked at, since the last call of [`Self::topics`]: its life and how many partitions it has, or it is not there. What must be asked of
    /// itself now, each in its turn, and the partitions that are new.
    pub(in crate::kafka) fn looked(
        &mut self,
        topic: &Topic,
        found: Option<(u64, u32)>,
        now: Instant,
    ) -> (Vec<(Place, u64)>, Range<u32>) {
        let count = found.map_or(0, |(_, count)| count);
        // Where its user is slow, nobody knows what would come.
        let drained = !self.is_more && self.shed.is_none() && !self.is_full();
        let (mut ask, mut sure, mut dropped) = (Vec::new(), Vec::new(), Size::default());
        for (place, slot) in self.followed.iter_mut().filter(|(place, _)| place.0 == *topic) {
            slot.quiet = if drained { slot.quiet.saturating_add(1) } else { 0 };
            let same = found.is_some_and(|(life, _)| life == slot.followed.life());
            if place.1 >= count {
                slot.followed.missing();
            }
            if same && place.1 < count {
                sure.push((place.clone(), slot.looked_for));
            } else if !slot.parked.is_empty() {
                dropped.add(slot.parked_size());
                slot.parked.clear();
            }
            if place.1 < count && (slot.followed.wanted().is_none() || !same) {
                ask.push((place.clone(), slot.turn));
            }
        }
        self.held.take(dropped);
        sure.into_iter().for_each(|(place, count)| self.release(&place, count, now));
        let known = self.whole.get(topic).copied().unwrap_or(count);
        (ask, known..count.max(known))
    }

    /// Whether something is held back until its topic is looked at.
    pub(in crate::kafka) fn holds_back(&self) -> bool {
        self.followed.values().any(|slot| !slot.parked.is_empty())
    }

    /// What a partition said of itself, asked in that turn.
    pub(in crate::kafka) fn answer(&mut self, place: &Place, turn: u64, extent: &Extent, now: Instant) {
        let next = self.turns + 1;
        let Some(slot) = self.followed.get_mut(place).filter(|slot| slot.turn == turn) else { return };
        let parked = slot.parked.len();
        if slot.followed.life() == extent.life {
            self.release(place, parked, now);
        }
        let Some(slot) = self.followed.get_mut(place) else { return };
        let left = slot.parked_size();
        slot.parked.clear();
        let mut told = Vec::new();
        // What a client knows of an earlier life keeps it from reading the new one.
        self.renew |= slot.followed.answer(extent, &mut told);
        // Whatever it reads now, it begins anew where that says.
        (slot.turn, slot.sure_at, slot.heard) = (next, now, now);
        self.turns = next;
        self.held.take(left);
        self.tell(Some((place.clone(), told)));
    }

    /// Where the damaged batch begins that a partition does not get over, if it is in that turn.
    pub(in crate::kafka) fn stuck_at(&self, place: &Place, turn: u64) -> Option<u64> {
        self.followed.get(place).filter(|slot| slot.turn == turn)?.followed.stuck_at()
    }

    /// It ends before that offset.
    pub(in crate::kafka) fn past_damage(&mut self, place: &Place, begin: u64, to: u64) {
        let next = self.turns + 1;
        let Some(slot) = self.followed.get_mut(place) else { return };
        if slot.followed.stuck_at() == Some(begin) {
            (slot.turn, self.turns) = (next, next);
            self.change(place, |followed, told| followed.past_damage(begin, to, told));
        }
    }

    /// What was added to a topic that is followed whole is read from its beginning.
    pub(in crate::kafka) fn grown(&mut self, topic: &Topic, known: u32, added: Vec<Followed>, now: Instant) {
        if added.is_empty() || self.whole.get(topic) != Some(&known) {
            return;
        }
        let count = added.iter().map(|followed| followed.of.partition + 1).max().unwrap_or(known);
        self.whole.insert(topic.clone(), count);
        added.into_iter().for_each(|followed| self.follow(followed, now));
    }

    /// Where the user waits to be told that it caught up, though nothing came for a while: the partition, its turn, and where reading stands.
    pub(in crate::kafka) fn behind(&self) -> Vec<(Place, u64, u64)> {
        let reads = |place: &Place, slot: &Slot| self.assigned.get(place) == Some(&slot.turn);
        let quiet = self
            .followed
            .iter()
            .filter(|(place, slot)| slot.quiet > 1 && slot.parked.is_empty() && reads(place, slot));
        quiet.filter_map(|(place, slot)| Some((place.clone(), slot.turn, slot.followed.behind()?))).collect()
    }

    /// Those of which nothing came for a while, though they are read; each with its turn.
    pub(in crate::kafka) fn standing(&mut self, now: Instant) -> Vec<(Standing, u64)> {
        let mut all = Vec::new();
        for (place, slot) in &mut self.followed {
            let reads =
                self.assigned.get(place) == Some(&slot.turn) && slot.parked.is_empty() && slot.quiet > 1;
            let Some(next) = slot.followed.wanted().filter(|_| reads) else { continue };
            if now < slot.heard + STANDS.0 || slot.stood.is_some_and(|at| now < at + STANDS.1) {
                continue;
            }
            slot.stood = Some(now);
            let (place, life, fine) = (place.clone(), slot.followed.life(), slot.fine);
            all.push((Standing { place, life, next, fine }, slot.turn));
        }
        all
    }

    /// Why a partition stood still in that turn. `true`: somebody must look at it.
    pub(in crate::kafka) fn stands(&mut self, standing: &Standing, turn: u64, why: Why) -> bool {
        let Some(slot) = self.followed.get_mut(&standing.place).filter(|slot| slot.turn == turn) else {
            return false;
        };
        if slot.followed.wanted() != Some(standing.next) || !slot.parked.is_empty() {
            return false;
        }
        match why {
            Why::Fine(up_to) => {
                slot.fine = up_to;
                false
            }
            Why::Damaged(why) => {
                slot.stood = None;
                self.change(&standing.place, |followed, told| {
                    followed.take(standing.next, Content::Damaged(why), told);
                });
                true
            }
        }
    }

    /// Nothing lies between where reading stood and that offset.
    pub(in crate::kafka) fn nothing_before(&mut self, place: &Place, turn: u64, from: u64, offset: u64) {
        if self.followed.get(place).is_some_and(|slot| slot.turn == turn) {
            self.change(place, |followed, told| told.extend(followed.nothing_before(from, offset)));
        }
    }
}

#[cfg(test)]
mod tests;
