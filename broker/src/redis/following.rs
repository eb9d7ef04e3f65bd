//! What a reader follows, decided without a server: what is read next, what of it there is room for, and what its user is told.
//!
//! Not here: the task that reads, and the end from which its user takes (`reader.rs`).

use super::{
    commands::Home,
    failure::BACKEND,
    feed::{Ask, Brought},
    follow::{Counts, Followed, Told},
    keys::PartitionKeys,
    start::Extent,
    turns::Turns,
};
use crate::{
    Error, Event, Owned, Topic,
    batched::{Piece, Size, batched},
};
use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
    time::Duration,
};
use tokio::time::Instant;

/// What lies ready at the most, in messages.
pub(super) const MOST_MESSAGES: usize = 1024;
/// The same in bytes; the last message may go beyond it.
pub(super) const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How much of one partition is read at once.
const AT_ONCE: usize = 256;
/// How long a read waits; as often it is looked whether a topic that is followed whole has grown.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// A partition of a topic.
pub(super) type Place = (Topic, u32);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) followed: BTreeMap<Place, Slot>,
    /// Topics that are followed whole: the life and the partitions that are known.
    pub(super) whole: BTreeMap<Topic, u32>,
    pub(super) ready: VecDeque<(Place, Event, Size)>,
    pub(super) held: Size,
    pub(super) waker: Option<Waker>,
    pub(super) ended: Option<Error>,
    /// Goes up whenever something is followed anew, so that what was read before is told apart.
    pub(super) moves: u64,
    turns: Turns,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) followed: Followed,
    pub(super) moved: u64,
    /// Something was read since it was last compared with the counts of the stream.
    pub(super) unverified: bool,
    /// The home it was read from, by its number ([`Home`]); 0 before the first read.
    pub(super) home: u64,
}

impl State {
    pub(super) fn follow(&mut self, followed: Followed) {
        let place = (followed.of.topic.clone(), followed.of.partition);
        self.unfollow(&place);
        self.moves += 1;
        self.followed.insert(place, Slot { followed, moved: self.moves, unverified: false, home: 0 });
    }

    pub(super) fn unfollow(&mut self, place: &Place) {
        self.followed.remove(place);
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

    /// What there is room for.
    const fn room(&self) -> Size {
        Size {
            messages: MOST_MESSAGES.saturating_sub(self.held.messages),
            bytes: MOST_BYTES.saturating_sub(self.held.bytes),
        }
    }

    /// What to read next: logs, how much of each, and whether to wait for more. `None`: nothing now.
    pub(super) fn plan(&mut self, now: Instant) -> Option<Plan> {
        let room = self.room();
        if self.followed.is_empty() || room.messages == 0 || room.bytes == 0 {
            return None;
        }
        if self.turns.is_old(now) {
            self.forget_ends();
        }
        let logs: Vec<_> = self.followed.iter().map(|(place, slot)| (place, slot.followed.pace)).collect();
        let turn = self.turns.next(&logs, room, AT_ONCE);
        let waits = !turn.others && self.followed.values().all(|slot| slot.followed.is_caught_up());
        let mut plan = Plan {
            asks: Vec::with_capacity(turn.logs.len()),
            moved: Vec::with_capacity(turn.logs.len()),
            count: turn.count,
            wait: if waits { WAIT } else { Duration::ZERO },
        };
        for at in turn.logs {
            let place = logs[at].0;
            let slot = &self.followed[place];
            plan.asks.push(Ask { keys: slot.followed.keys.clone(), after: slot.followed.after() });
            plan.moved.push((place.clone(), slot.moved));
        }
        Some(plan)
    }

    /// Nobody knows any more which logs have nothing.
    fn forget_ends(&mut self) {
        self.followed.values_mut().for_each(|slot| slot.followed.pace.forget_end());
    }

    /// The answer to a read was too large: whether the next asks for less.
    pub(super) fn can_do_with_less(&mut self, error: &Error) -> bool {
        let less = self.turns.can_do_with_less(error);
        if less {
            self.forget_ends();
        }
        less
    }

    /// Takes what a read brought, as far as there is room: what there is none for is read again.
    pub(super) fn take(&mut self, plan: &Plan, brought: Vec<Brought>, now: Instant) {
        let mut came = Size::default();
        for ((place, moved), mut brought) in plan.moved.iter().zip(brought) {
            let room = self.room();
            let Some(slot) = self.followed.get_mut(place).filter(|slot| slot.moved == *moved) else {
                continue;
            };
            let read = brought.entries.len();
            let (fits, bytes) = slot.followed.pace.fitting(&brought.entries, plan.count, room);
            came.add(Size { messages: read, bytes });
            brought.entries.truncate(fits);
            let asked = if fits < read { fits } else { plan.count };
            slot.unverified |= !brought.entries.is_empty();
            let told = slot.followed.take(brought.entries, brought.marks, asked);
            let of = slot.followed.of.clone();
            self.tell(place, &of, told);
        }
        self.turns.came(came.messages, came.bytes, now);
    }

    pub(super) fn tell(&mut self, place: &Place, of: &Owned, told: Vec<Told>) {
        for (event, size) in events(of, told) {
            self.held.add(size);
            self.ready.push_back((place.clone(), event, size));
        }
    }

    /// A topic is gone, and nobody deleted it.
    pub(super) fn lose(&mut self, topic: &Topic) -> Option<Waker> {
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
    pub(super) fn unverified(&mut self) -> Vec<(Place, u64, PartitionKeys)> {
        let fresh = |(place, slot): (&Place, &mut Slot)| {
            let unverified = std::mem::take(&mut slot.unverified);
            unverified.then(|| (place.clone(), slot.moved, slot.followed.keys.clone()))
        };
        self.followed.iter_mut().filter_map(fresh).collect()
    }

    /// That server was read: what was read from another one before, which is to be compared first.
    pub(super) fn arrived(&mut self, home: &Home) -> Vec<(Place, u64, PartitionKeys)> {
        let mut elsewhere = Vec::new();
        for (place, slot) in &mut self.followed {
            if slot.home == 0 || home.since(slot.followed.keys.log()) <= slot.home {
                slot.home = home.number;
            } else {
                elsewhere.push((place.clone(), slot.moved, slot.followed.keys.clone()));
            }
        }
        elsewhere
    }

    /// It is read from that server from now on, which has these counts.
    pub(super) fn moved(&mut self, place: &Place, moved: u64, home: u64, counts: Counts) {
        let Some(slot) = self.followed.get_mut(place).filter(|slot| slot.moved == moved) else { return };
        slot.home = home;
        let (told, of) = (slot.followed.moved(counts), slot.followed.of.clone());
        self.tell(place, &of, told.into_iter().collect());
    }

    /// Compares what was read with the counts of the stream, which were taken after it.
    pub(super) fn verify(&mut self, place: &Place, moved: u64, extent: &Extent) {
        let Some(slot) = self.followed.get_mut(place).filter(|slot| slot.moved == moved) else { return };
        // Another life, or what we removed ourselves: the next read tells.
        let removed = extent.marks.removed.is_some_and(|removed| removed > slot.followed.after());
        if extent.marks.life != slot.followed.life() || removed {
            return;
        }
        let (told, of) = (slot.followed.verify(extent.counts), slot.followed.of.clone());
        self.tell(place, &of, told.into_iter().collect());
    }
}

/// A read that is under way.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) asks: Vec<Ask>,
    pub(super) moved: Vec<(Place, u64)>,
    pub(super) count: usize,
    pub(super) wait: Duration,
}

/// What a reader is told, in order.
fn events(of: &Owned, told: Vec<Told>) -> Vec<(Event, Size)> {
    let piece = |told| match told {
        Told::Message(delivery) => Some(Piece::Message(delivery)),
        Told::Unreadable { at, raw, why } => {
            let size = Size { messages: 1, bytes: raw.len() };
            let why = why.on(BACKEND);
            Some(Piece::Event(Event::Unreadable { of: of.clone(), position: at, raw: Some(raw), why }, size))
        }
        Told::Gap { from, to, why } => {
            Some(Piece::Event(Event::Gap { of: of.clone(), from, to, why }, Size::default()))
        }
        Told::CaughtUp => Some(Piece::Event(Event::CaughtUp(of.clone()), Size::default())),
        // Nothing comes until it is made again, which is a gap; that nobody deleted it is found out (`lost`).
        Told::Deleted => None,
    };
    batched(of, told.into_iter().filter_map(piece))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{
        follow::{Entry, Marks},
        keys::Keys,
    };
    use crate::{Epoch, Position};

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
        while let Some(plan) = state.plan(Instant::now()) {
            assert!(plan.count <= AT_ONCE);
            state.take(&plan, vec![brought(last + 1..=last + plan.count as u64, 100)], Instant::now());
            last = plan.asks[0].after.1 + plan.count as u64;
            assert_eq!(state.followed.values().next().unwrap().followed.after(), Position(7, last));
        }
        assert_eq!(state.held, Size { messages: MOST_MESSAGES, bytes: 100 * MOST_MESSAGES });
        let mut large = self::state(1);
        let plan = large.plan(Instant::now()).unwrap();
        large.take(&plan, vec![brought(1..=3, MOST_BYTES / 2 + 1)], Instant::now());
        assert_eq!(
            (large.held.messages, large.followed.values().next().unwrap().followed.after()),
            (2, Position(7, 2))
        );
        let mut huge = self::state(1);
        let plan = huge.plan(Instant::now()).unwrap();
        huge.take(&plan, vec![brought(1..=1, 2 * MOST_BYTES)], Instant::now());
        assert_eq!(huge.held.messages, 1);
        assert!(huge.plan(Instant::now()).is_none());
    }

    #[test]
    fn all_have_their_turn_though_there_are_more_than_there_is_room_for() {
        let mut state = state(2000);
        let mut seen = BTreeMap::new();
        for _ in 0..60 {
            let Some(plan) = state.plan(Instant::now()) else { panic!("there is no room") };
            let next = |ask: &Ask| brought(ask.after.1 + 1..=ask.after.1 + plan.count as u64, 10);
            state.take(&plan, plan.asks.iter().map(next).collect(), Instant::now());
            // Its user takes half of what lies ready.
            for _ in 0..state.ready.len().div_ceil(2) {
                let (place, _, size) = state.ready.pop_front().unwrap();
                state.held.take(size);
                *seen.entry(place.1).or_insert(0) += size.messages;
            }
        }
        assert_eq!(seen.len(), 2000);
    }

    #[test]
    fn what_we_removed_is_told_once_whether_the_counts_or_the_next_read_show_it_first() {
        let mut state = state(1);
        let plan = state.plan(Instant::now()).unwrap();
        state.take(&plan, vec![brought(1..=2, 1)], Instant::now());
        let (place, turn) = (plan.moved[0].0.clone(), plan.moved[0].1);
        let counts = Counts { added: 9, length: 2, last: Position(7, 9) };
        let marks = Marks { life: Some(7), removed: Some(Position(7, 7)) };
        state.verify(&place, turn, &Extent { marks, counts, first: None });
        let gaps = |state: &State| {
            state.ready.iter().filter(|(_, event, _)| matches!(event, Event::Gap { .. })).count()
        };
        assert_eq!(gaps(&state), 0, "the next read tells");
        let plan = state.plan(Instant::now()).unwrap();
        state.take(&plan, vec![Brought { marks, ..brought(8..=9, 1) }], Instant::now());
        assert_eq!(gaps(&state), 1);
    }

    #[test]
    fn what_was_read_before_a_move_is_not_told_after_it() {
        let mut state = state(2);
        let plan = state.plan(Instant::now()).unwrap();
        state.take(&plan, vec![brought(1..=2, 1), brought(1..=1, 1)], Instant::now());
        let place = (Topic::new("t").unwrap(), 0);
        let again = state.followed[&place].followed.clone();
        let plan = state.plan(Instant::now()).unwrap();
        state.follow(again);
        assert_eq!((state.held.messages, state.ready.iter().filter(|(of, ..)| *of == place).count()), (1, 0));
        state.take(&plan, vec![brought(3..=4, 1), brought(2..=2, 1)], Instant::now());
        assert_eq!(state.held.messages, 2, "only the other one was taken");
        state.unfollow(&(place.0, 1));
        assert_eq!((state.held, state.ready.len()), (Size::default(), 0));
    }
}
