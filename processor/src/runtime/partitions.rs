//! The partitions a processor holds, and the acks it owes them.
//!
//! Not here: the events that change them (`events.rs`), when handlers are cancelled (`ending.rs`).

use crate::layer::Reins;
use ropeway_broker::{Assignment, Bound, Control, ErrorKind, InFlight, Owned, Position, Topic};
use std::{collections::HashMap, sync::Arc};
use tracing::{debug, error};

/// One ownership of one partition.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) owned: Owned,
    /// The number of the partition in this processor: the same in every turn, so that keys keep their lanes.
    pub(crate) place: usize,
    pub(crate) reins: Arc<Reins>,
}

/// The partitions a processor holds. Bounded by the partitions of the topics it subscribed to.
#[derive(Debug)]
pub(crate) struct Partitions {
    bound: Bound,
    share: Bound,
    places: HashMap<(Topic, u32), usize>,
    live: Vec<Option<Live>>,
    assigned: usize,
    caught_up: usize,
    full: usize,
    /// Places with acks to give, or to be given up.
    dirty: Vec<usize>,
}

#[derive(Debug)]
struct Live {
    turn: Arc<Turn>,
    /// What was delivered in this turn and is not over.
    open: Bound,
    acks: Vec<Position>,
    caught_up: bool,
    leaving: bool,
    revoked: bool,
    full: bool,
    dirty: bool,
}

impl Partitions {
    pub(crate) fn new(in_flight: Bound) -> Self {
        Self {
            bound: in_flight,
            share: in_flight,
            places: HashMap::new(),
            live: Vec::new(),
            assigned: 0,
            caught_up: 0,
            full: 0,
            dirty: Vec::new(),
        }
    }

    /// A partition was assigned; its handlers are held by `reins`.
    pub(crate) fn assigned(&mut self, assignment: Assignment, reins: Arc<Reins>) {
        let owned = assignment.of;
        let next = self.live.len();
        let place = *self.places.entry((owned.topic.clone(), owned.partition)).or_insert(next);
        if place == next {
            self.live.push(None);
        }
        let live = Live {
            turn: Arc::new(Turn { owned, place, reins }),
            open: Bound { messages: 0, bytes: 0 },
            acks: Vec::new(),
            caught_up: false,
            leaving: false,
            revoked: false,
            full: false,
            dirty: false,
        };
        if let Some(slot) = self.live.get_mut(place)
            && let Some(before) = slot.replace(live)
        {
            error!(of = ?before.turn.owned, "a partition was assigned twice without being gone: a defect of the backend");
        }
        self.count();
    }

    /// The turn of a partition, if that is the one that is held.
    pub(crate) fn turn(&self, owned: &Owned) -> Option<&Arc<Turn>> {
        let place = *self.places.get(&(owned.topic.clone(), owned.partition))?;
        let live = self.live.get(place)?.as_ref()?;
        (live.turn.owned.epoch == owned.epoch).then_some(&live.turn)
    }

    /// All turns that are held.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Arc<Turn>> {
        self.live.iter().flatten().map(|live| &live.turn)
    }

    /// A partition is gone.
    pub(crate) fn gone(&mut self, owned: &Owned) -> Option<Arc<Turn>> {
        let turn = self.turn(owned)?.clone();
        if let Some(slot) = self.live.get_mut(turn.place) {
            *slot = None;
        }
        self.count();
        Some(turn)
    }

    pub(crate) fn caught_up(&mut self, owned: &Owned) {
        let Some(turn) = self.turn(owned).cloned() else { return };
        if let Some(live) = self.of(&turn) {
            live.caught_up = true;
        }
        self.count();
    }

    /// A message of that size was taken in.
    pub(crate) fn took(&mut self, turn: &Arc<Turn>, size: usize) {
        let share = self.share;
        let Some(live) = self.of(turn) else { return };
        live.open.messages += 1;
        live.open.bytes += size;
        let full = live.open.messages >= share.messages || live.open.bytes >= share.bytes;
        if full && !live.full {
            live.full = true;
            self.full += 1;
        }
    }

    /// A message of that size is over; with `ack`, the group is done with that position.
    pub(crate) fn over(&mut self, turn: &Arc<Turn>, size: usize, ack: Option<Position>) {
        let share = self.share;
        let Some(live) = self.of(turn) else { return };
        live.open.messages = live.open.messages.saturating_sub(1);
        live.open.bytes = live.open.bytes.saturating_sub(size);
        live.acks.extend(ack);
        let (was, full) = (live.full, live.open.messages >= share.messages || live.open.bytes >= share.bytes);
        live.full = full;
        self.full = self.full + usize::from(full) - usize::from(was);
        self.touch(turn);
    }

    /// Messages that were never counted as open are over, in that order: the group is done with them.
    pub(crate) fn done(&mut self, turn: &Arc<Turn>, positions: &mut Vec<Position>) {
        if positions.is_empty() {
            return;
        }
        if let Some(live) = self.of(turn) {
            live.acks.append(positions);
        }
        positions.clear();
        self.touch(turn);
    }

    /// It is to be given up as soon as nothing of it is open.
    pub(crate) fn leave(&mut self, turn: &Arc<Turn>) {
        if let Some(live) = self.of(turn) {
            live.leaving = true;
        }
        self.touch(turn);
    }

    /// The group wants it back: nothing new of it is started.
    pub(crate) fn revoke(&mut self, turn: &Arc<Turn>) {
        if let Some(live) = self.of(turn) {
            live.revoked = true;
        }
        self.leave(turn);
    }

    /// Whether the group wants it back.
    pub(crate) fn is_revoked(&self, turn: &Arc<Turn>) -> bool {
        let live = self.live.get(turn.place).and_then(Option::as_ref);
        live.is_some_and(|live| live.revoked && Arc::ptr_eq(&live.turn, turn))
    }

    /// Gives the acks that are owed, in the order the work was over, which is the source's for each key; then gives up what is to go.
    /// Returns the partitions whose acks were refused though they are held.
    #[must_use]
    pub(crate) fn settle(&mut self, control: &dyn Control) -> Vec<Arc<Turn>> {
        let mut refusing = Vec::new();
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            let Some(live) = self.live.get_mut(place).and_then(Option::as_mut) else { continue };
            live.dirty = false;
            let owned = &live.turn.owned;
            if !live.acks.is_empty() {
                if let Err(refused) = control.ack(owned, &live.acks) {
                    match refused.kind() {
                        // `Gone` follows, and the next owner has them.
                        ErrorKind::Fenced | ErrorKind::Closed => {
                            debug!(of = ?owned, "acks refused: {refused}")
                        }
                        _ => {
                            error!(of = ?owned, acks = live.acks.len(), "acks refused, so the partition is given up: {refused}");
                            refusing.push(live.turn.clone());
                        }
                    }
                }
                live.acks.clear();
            }
            if live.leaving && live.open.messages == 0 {
                control.give_up(owned);
            }
        }
        self.dirty = dirty;
        refusing
    }

    /// How many are held.
    pub(crate) const fn len(&self) -> usize {
        self.assigned
    }

    /// How many of them wait because their share is full.
    pub(crate) const fn full(&self) -> usize {
        self.full
    }

    /// Whether at least one is held, and of each all was delivered that was there when its reading began.
    pub(crate) const fn all_caught_up(&self) -> bool {
        self.assigned > 0 && self.caught_up == self.assigned
    }

    fn of(&mut self, turn: &Arc<Turn>) -> Option<&mut Live> {
        let live = self.live.get_mut(turn.place)?.as_mut()?;
        Arc::ptr_eq(&live.turn, turn).then_some(live)
    }

    fn touch(&mut self, turn: &Arc<Turn>) {
        let Some(live) = self.of(turn) else { return };
        if !std::mem::replace(&mut live.dirty, true) {
            self.dirty.push(turn.place);
        }
    }

    /// After a change of what is held: the shares change with it.
    fn count(&mut self) {
        self.assigned = self.live.iter().flatten().count();
        self.caught_up = self.live.iter().flatten().filter(|live| live.caught_up).count();
        self.share = InFlight::new(self.bound, self.assigned).share();
        let share = self.share;
        for live in self.live.iter_mut().flatten() {
            live.full = live.open.messages >= share.messages || live.open.bytes >= share.bytes;
        }
        self.full = self.live.iter().flatten().filter(|live| live.full).count();
    }
}
