//! The reference: what a broker must have told by now, from plain lists and sets.
//!
//! It takes what was done and what was seen, and says what is wrong with it. It shares no code with any broker.
//! Not here: doing and seeing (`run.rs`).

use std::collections::{BTreeMap, BTreeSet};

/// How many messages a member may have in flight.
pub(crate) const BOUND: usize = 8;

pub(crate) type Id = usize;
/// A place in a partition, as the broker tells it.
pub(crate) type Place = (u64, u64);

/// A message that was published.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub partition: u32,
    /// Where it lies, once that is known.
    pub place: Option<Place>,
    /// When it is due, for one that was delayed.
    pub due: Option<i64>,
    pub acked: bool,
    pub cancelled: bool,
    pub purged: bool,
    /// It may have been purged: it was placed, but nobody saw where.
    pub doubtful: bool,
}

/// Who owns a partition.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub slot: usize,
    pub epoch: u64,
    pub paused: bool,
    /// Its owner has handed it over, and is to be told that it went.
    pub given_up: bool,
    /// What was delivered in this turn, in order.
    pub delivered: Vec<Id>,
    last: Option<Place>,
}

/// What is true of the group and its topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    pub records: Vec<Record>,
    pub turns: BTreeMap<u32, Turn>,
    epochs: BTreeMap<u32, u64>,
    /// What was given up and is another's, before who had it was told.
    leaving: Vec<(usize, u32, u64)>,
    pub members: BTreeSet<usize>,
    pub purges: usize,
    /// What was forwarded, in order.
    pub out: Vec<Id>,
}

type Seen = Result<(), String>;

impl Reference {
    pub(crate) fn published(&mut self, partition: u32, place: Option<Place>, due: Option<i64>) -> Id {
        let (acked, cancelled, purged, doubtful) = (false, false, false, false);
        self.records.push(Record { partition, place, due, acked, cancelled, purged, doubtful });
        self.records.len() - 1
    }

    pub(crate) fn assigned(&mut self, slot: usize, partition: u32, epoch: u64) -> Seen {
        if let Some(turn) = self.turns.remove(&partition) {
            if !turn.given_up {
                return Err(format!("p{partition} is assigned to {slot} while {} owns it", turn.slot));
            }
            self.leaving.push((turn.slot, partition, turn.epoch));
        }
        if let Some(before) = self.epochs.insert(partition, epoch).filter(|before| *before >= epoch) {
            return Err(format!("p{partition} is assigned in epoch {epoch} after {before}"));
        }
        let turn = Turn { slot, epoch, paused: false, given_up: false, delivered: Vec::new(), last: None };
        self.turns.insert(partition, turn);
        Ok(())
    }

    pub(crate) fn gone(&mut self, slot: usize, partition: u32, epoch: u64) -> Seen {
        let left = self.leaving.len();
        self.leaving.retain(|leaving| *leaving != (slot, partition, epoch));
        match self.turns.get(&partition) {
            _ if self.leaving.len() < left => {}
            Some(turn) if turn.slot == slot && turn.epoch == epoch => _ = self.turns.remove(&partition),
            other => return Err(format!("p{partition} of {slot} in {epoch} goes, but it is {other:?}")),
        }
        Ok(())
    }

    pub(crate) fn delivered(
        &mut self,
        slot: usize,
        partition: u32,
        epoch: u64,
        id: Id,
        place: Place,
        now: i64,
    ) -> Seen {
        let wrong =
            |what: &str| Err(format!("{id} of p{partition} at {place:?} is delivered to {slot}: {what}"));
        let Some(record) = self.records.get_mut(id) else { return wrong("nobody published it") };
        let Some(turn) = self.turns.get_mut(&partition) else { return wrong("nobody owns the partition") };
        if (turn.slot, turn.epoch) != (slot, epoch) {
            return wrong("another owns the partition");
        }
        if record.partition != partition || record.place.is_some_and(|known| known != place) {
            return wrong("it lies elsewhere");
        }
        if record.acked || record.cancelled || record.purged {
            return wrong(&format!("it is done: {record:?}"));
        }
        if turn.paused {
            return wrong("the partition is paused");
        }
        if record.due.is_some_and(|due| now < due) {
            return wrong("it is early");
        }
        if turn.last.is_some_and(|last| last >= place) {
            return wrong("something behind it was delivered before, or it was itself");
        }
        (record.place, record.doubtful) = (Some(place), false);
        turn.last = Some(place);
        turn.delivered.push(id);
        if self.in_flight(slot).len() > BOUND {
            return wrong("more is in flight than the bound");
        }
        Ok(())
    }

    /// What a member was delivered, did not ack, and did not hand over.
    pub(crate) fn in_flight(&self, slot: usize) -> Vec<(u32, Id)> {
        let turns = self.turns.iter().filter(|(_, turn)| turn.slot == slot && !turn.given_up);
        let delivered = turns.flat_map(|(partition, turn)| turn.delivered.iter().map(|id| (*partition, *id)));
        delivered.filter(|(_, id)| !self.records[*id].acked).collect()
    }

    /// Whether one more of a partition must come. Where several are owned, one of each is kept for those that have none in flight.
    fn has_room(&self, slot: usize, partition: u32) -> bool {
        let owned = self.turns.values().filter(|turn| turn.slot == slot && !turn.given_up).count();
        let in_flight = self.in_flight(slot);
        let kept = if owned > 1 { owned } else { 0 };
        let has_some = in_flight.iter().any(|(of, _)| *of == partition);
        in_flight.len() + kept < BOUND || (!has_some && in_flight.len() < BOUND)
    }

    pub(crate) fn acked(&mut self, ids: impl IntoIterator<Item = Id>) {
        ids.into_iter().for_each(|id| self.records[id].acked = true);
    }

    /// Everything before that place was removed; `now` tells what may have been placed by then.
    pub(crate) fn purged(&mut self, partition: u32, before: Place, now: i64) {
        self.purges += 1;
        for record in self.records.iter_mut().filter(|record| record.partition == partition) {
            match record.place {
                Some(place) => record.purged |= place < before,
                None => record.doubtful |= record.due.is_some_and(|due| due <= now),
            }
        }
    }

    /// An owner hands a partition over.
    pub(crate) fn given_up(&mut self, slot: usize, partition: u32, epoch: u64) {
        let turn = self.turns.get_mut(&partition).filter(|turn| (turn.slot, turn.epoch) == (slot, epoch));
        turn.into_iter().for_each(|turn| turn.given_up = true);
    }

    /// A member hands everything over.
    pub(crate) fn closing(&mut self, slot: usize) {
        let turns = self.turns.values_mut().filter(|turn| turn.slot == slot);
        turns.for_each(|turn| turn.given_up = true);
    }

    /// A member went without a word.
    pub(crate) fn dropped(&mut self, slot: usize) {
        self.turns.retain(|_, turn| turn.slot != slot);
        self.leaving.retain(|(leaving, _, _)| *leaving != slot);
    }

    /// All members are gone with their process.
    pub(crate) fn crashed(&mut self) {
        self.turns.clear();
        self.leaving.clear();
        self.members.clear();
    }

    /// What must come yet, in words; `None` when all that must have come did.
    pub(crate) fn awaited(&self, now: i64, partitions: u32) -> Option<String> {
        if self.members.is_empty() {
            return None;
        }
        for partition in 0..partitions {
            let Some(turn) = self.turns.get(&partition) else {
                return Some(format!("p{partition} is to be assigned"));
            };
            if turn.given_up {
                return Some(format!("p{partition} is to go from {}", turn.slot));
            }
            if turn.paused || !self.has_room(turn.slot, partition) {
                continue;
            }
            let missing = self.records.iter().enumerate().find(|(id, record)| {
                record.partition == partition
                    && !(record.acked || record.cancelled || record.purged || record.doubtful)
                    && record.due.is_none_or(|due| due <= now)
                    && !turn.delivered.contains(id)
            });
            if let Some((id, record)) = missing {
                return Some(format!("{id} is to be delivered to {}: {record:?}", turn.slot));
            }
        }
        None
    }

    /// What a reader of a partition finds: ids in order. `None` where that cannot be known.
    pub(crate) fn content(&self, partition: u32) -> Option<Vec<Id>> {
        let mut found = Vec::new();
        for (id, record) in self.records.iter().enumerate().filter(|(_, r)| r.partition == partition) {
            match record.place {
                _ if record.doubtful => return None,
                Some(place) if !record.purged => found.push((place, id)),
                _ => {}
            }
        }
        found.sort_unstable();
        Some(found.into_iter().map(|(_, id)| id).collect())
    }
}
