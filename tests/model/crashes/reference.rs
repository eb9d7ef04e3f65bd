//! The reference for a broker that is stopped at any moment: what may be there, what must be, and what must not.
//!
//! Of what had no answer either may be true; what a new process shows then settles which. It shares no code with any broker. Not here: doing
//! and seeing (`run.rs`), what a new process shows (`view.rs`).

use super::program::Keep;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Id = usize;
/// A place in a partition, as the broker tells it.
pub(crate) type Place = (u64, u64);
pub(crate) type Seen<T = ()> = Result<T, String>;

/// How exactly times are told, in milliseconds.
const SLACK: u64 = 20;
/// What a record takes at most beyond its payload, in bytes.
const OVERHEAD: u64 = 160;

/// Whether something is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Is {
    #[default]
    No,
    /// There was no answer, or it is not ours to know.
    Perhaps,
    Yes,
}

/// What time it is, in milliseconds: by the clock that somebody sets, the latest it showed, and by the steady one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    pub of_day: i64,
    pub latest: i64,
    pub steady: u64,
}

/// A message that was published.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The topic's life.
    pub life: u64,
    pub partition: u32,
    pub written: Is,
    /// Where it lies, once that was seen.
    pub place: Option<Place>,
    /// When it is due, for one that was delayed.
    pub due: Option<i64>,
    pub cancelled: Is,
    /// The group has finished it.
    pub done: Is,
    /// Purged, or removed by retention.
    pub removed: Is,
    /// When it was published, in steady time.
    pub at: u64,
    /// The message whose id it has.
    pub root: Id,
}

/// Who owns a partition.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub slot: usize,
    pub epoch: u64,
    /// Handed over; its owner is to be told that it went.
    pub given_up: bool,
    /// What was delivered in this turn, in order.
    pub delivered: Vec<Id>,
    last: Option<Place>,
}

/// Messages that were forwarded together.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub out: Vec<Id>,
    pub done: Vec<Id>,
    pub taken: Is,
}

/// What is true of the topic and its group.
#[derive(Debug)]
pub(crate) struct Reference {
    pub keep: Keep,
    /// For how long an id is remembered, in milliseconds.
    pub window: Option<u64>,
    pub records: Vec<Record>,
    pub turns: BTreeMap<u32, Turn>,
    pub members: usize,
    /// The topic's life; 0: there is none.
    pub life: u64,
    /// Whether the topic was made or deleted, and nobody knows.
    pub life_is_open: bool,
    pub lives: u64,
    pub partitions: u32,
    /// How many there may be.
    pub grown: Option<u32>,
    /// Whether the group has a position in the topic, of this life or an earlier one: then what it has not finished stays, in all partitions.
    pub group: Is,
    /// Partitions in which it surely has one.
    positions: BTreeSet<u32>,
    /// The most partitions that the topic had in any life: a position beyond those it has is not shown.
    widest: u32,
    pub forwards: Vec<Forward>,
    pub outs: usize,
    /// The topic was purged in this life.
    pub purged: bool,
    /// Acks whose storing nobody has confirmed, in order.
    given: BTreeMap<u32, Vec<Id>>,
    /// Those of a process that is over.
    pub doubt: BTreeMap<u32, Vec<Id>>,
    epochs: BTreeMap<u32, u64>,
    /// Who is to be told that a partition went in an epoch, which another owns by now.
    owed: Vec<(usize, u32, u64)>,
    pub places: BTreeMap<(u32, Place), Id>,
}

impl Reference {
    pub(crate) fn new(keep: Keep, window: Option<u64>) -> Self {
        Self {
            keep,
            window,
            records: Vec::new(),
            turns: BTreeMap::new(),
            members: 0,
            life: 0,
            life_is_open: true,
            lives: 0,
            partitions: 0,
            grown: None,
            group: Is::No,
            positions: BTreeSet::new(),
            widest: 0,
            forwards: Vec::new(),
            outs: 0,
            purged: false,
            given: BTreeMap::new(),
            doubt: BTreeMap::new(),
            epochs: BTreeMap::new(),
            owed: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    /// A message is about to be published; whether it is written is told later.
    pub(crate) fn publishing(&mut self, partition: u32, due: Option<i64>, at: u64, root: Option<Id>) -> Id {
        let id = self.records.len();
        self.records.push(Record {
            life: self.life,
            partition,
            written: Is::Perhaps,
            place: None,
            due,
            cancelled: Is::No,
            done: Is::No,
            removed: Is::No,
            at,
            root: root.unwrap_or(id),
        });
        id
    }

    /// A message lies there.
    pub(crate) fn lies(&mut self, id: Id, partition: u32, place: Place, now: Time) -> Seen {
        let wrong = |what: String| Err(format!("{id} lies in p{partition} at {place:?}: {what}"));
        if let Some(other) = self.places.get(&(partition, place)).filter(|other| **other != id) {
            return wrong(format!("{other} lay there"));
        }
        let Some(record) = self.records.get_mut(id) else { return wrong("nobody published it".into()) };
        let described = format!("{record:?}");
        if record.partition != partition || record.life != place.0 || place.0 != self.life {
            return wrong(format!("it belongs elsewhere: {described}"));
        }
        if record.place.is_some_and(|known| known != place) {
            return wrong(format!("it is there twice: {described}"));
        }
        if record.written == Is::No || record.cancelled == Is::Yes || record.removed == Is::Yes {
            return wrong(format!("it must not be there: {described}"));
        }
        if record.due.is_some_and(|due| due > now.latest) {
            return wrong(format!("it is early: {described}"));
        }
        (record.written, record.place) = (Is::Yes, Some(place));
        (record.cancelled, record.removed) = (Is::No, Is::No);
        self.places.insert((partition, place), id);
        Ok(())
    }

    /// Whether the id of a message is surely remembered, or surely not.
    pub(crate) fn remembered(&self, root: Id, now: Time) -> Is {
        let Some(window) = self.window else { return Is::No };
        let same = self.records.iter().filter(|record| record.root == root && record.life == self.life);
        let each = same.map(|record| match record.written {
            Is::No => Is::No,
            _ if record.at + window + SLACK < now.steady => Is::No,
            Is::Yes if now.steady + SLACK < record.at + window => Is::Yes,
            _ => Is::Perhaps,
        });
        each.fold(Is::No, |all, one| match (all, one) {
            (Is::Yes, _) | (_, Is::Yes) => Is::Yes,
            (Is::No, Is::No) => Is::No,
            _ => Is::Perhaps,
        })
    }

    /// A partition is assigned. `taken`: a consumer may have lost what it owned, which it is told when it is polled.
    pub(crate) fn assigned(&mut self, slot: usize, partition: u32, epoch: u64, taken: bool) -> Seen {
        if let Some(turn) = self.turns.remove(&partition).filter(|turn| !turn.given_up) {
            if !taken || turn.slot == slot {
                return Err(format!("p{partition} is assigned to {slot} while {} owns it", turn.slot));
            }
            self.owed.push((turn.slot, partition, turn.epoch));
        }
        if let Some(before) = self.epochs.insert(partition, epoch).filter(|before| *before >= epoch) {
            return Err(format!("p{partition} is assigned in epoch {epoch} after {before}"));
        }
        let turn = Turn { slot, epoch, given_up: false, delivered: Vec::new(), last: None };
        self.turns.insert(partition, turn);
        Ok(())
    }

    pub(crate) fn gone(&mut self, slot: usize, partition: u32, epoch: u64) {
        self.turns.retain(|of, turn| (*of, turn.slot, turn.epoch) != (partition, slot, epoch));
        self.owed.retain(|owed| *owed != (slot, partition, epoch));
    }

    pub(crate) fn delivered(
        &mut self,
        slot: usize,
        (partition, epoch): (u32, u64),
        id: Id,
        place: Place,
        now: Time,
    ) -> Seen {
        self.lies(id, partition, place, now)?;
        let wrong =
            |what: &str| Err(format!("{id} of p{partition} at {place:?} is delivered to {slot}: {what}"));
        let Some(turn) =
            self.turns.get_mut(&partition).filter(|turn| (turn.slot, turn.epoch) == (slot, epoch))
        else {
            return wrong("it does not own the partition");
        };
        let record = &mut self.records[id];
        if record.done == Is::Yes {
            return wrong(&format!("it is done: {record:?}"));
        }
        if turn.last.is_some_and(|last| last >= place) {
            return wrong("something behind it was delivered before, or it was itself");
        }
        record.done = Is::No;
        turn.last = Some(place);
        turn.delivered.push(id);
        Ok(())
    }

    /// What a member was delivered and did not ack.
    pub(crate) fn in_flight(&self, slot: usize) -> Vec<(u32, Id)> {
        let turns = self.turns.iter().filter(|(_, turn)| turn.slot == slot && !turn.given_up);
        let delivered = turns.flat_map(|(partition, turn)| turn.delivered.iter().map(|id| (*partition, *id)));
        delivered.filter(|(_, id)| self.records[*id].done == Is::No).collect()
    }

    /// Acks were given; that they are stored nobody has said.
    pub(crate) fn acked(&mut self, partition: u32, ids: &[Id]) {
        ids.iter().for_each(|id| self.records[*id].done = Is::Yes);
        self.given.entry(partition).or_default().extend(ids);
    }

    /// What was acked is stored.
    pub(crate) fn stored(&mut self, slot: usize) {
        let turns = &self.turns;
        self.given.retain(|partition, _| turns.get(partition).is_none_or(|turn| turn.slot != slot));
    }

    /// Members go with what they own, each after what it acked was stored.
    pub(crate) fn left(&mut self, slot: usize) {
        self.turns.retain(|_, turn| turn.slot != slot);
        self.owed.retain(|owed| owed.0 != slot);
    }

    /// A consumer ended by itself, when it had been told all that went.
    pub(crate) fn ended(&mut self, slot: usize) -> Seen {
        if let Some((_, partition, _)) = self.owed.iter().find(|owed| owed.0 == slot) {
            return Err(format!("{slot} ends and was not told that p{partition} went"));
        }
        self.left(slot);
        Ok(())
    }

    /// The process is over; `orderly`: what was acked was stored.
    pub(crate) fn over(&mut self, orderly: bool) {
        self.turns.clear();
        self.owed.clear();
        self.members = 0;
        let given = std::mem::take(&mut self.given);
        for (partition, ids) in given.into_iter().filter(|_| !orderly) {
            ids.iter().for_each(|id| self.records[*id].done = Is::Perhaps);
            self.doubt.entry(partition).or_default().extend(ids);
        }
    }

    /// The group begins at that place of a partition, or where there is none at the end; without an answer `perhaps`.
    pub(crate) fn sought(&mut self, partition: u32, to: Option<Place>, answered: bool) {
        // Where it did not move, what was acked may be stored or not.
        for id in self.given.remove(&partition).into_iter().flatten() {
            self.records[id].done = Is::Perhaps;
        }
        for record in self.records.iter_mut().filter(|record| record.partition == partition) {
            let before = record
                .place
                .map_or(Is::No, |place| if to.is_none_or(|to| place < to) { Is::Yes } else { Is::No });
            // Where it lies nobody has seen: that may be before.
            let before = if record.place.is_none() && record.due.is_some() { Is::Perhaps } else { before };
            record.done = if answered || record.done == before { before } else { Is::Perhaps };
        }
        self.doubt.remove(&partition);
        self.group = if answered || self.group == Is::Yes { Is::Yes } else { Is::Perhaps };
        self.positions.extend(answered.then_some(partition));
    }

    /// The group has a member, and with that a position in each partition.
    pub(crate) fn joined(&mut self) {
        self.group = Is::Yes;
        self.positions.extend(0..self.partitions);
    }

    /// Whether the group has a position, as a new process shows it.
    pub(crate) fn look_at_group(&mut self, there: bool) -> Seen {
        self.widest = self.widest.max(self.partitions);
        match (self.group, there) {
            (Is::Yes, false) if self.positions.first().is_some_and(|first| *first < self.partitions) => {
                Err("the group has lost its positions".into())
            }
            (Is::No, true) => Err("the group is deleted and has positions".into()),
            (Is::Perhaps, true) => {
                self.group = Is::Yes;
                Ok(())
            }
            (Is::Perhaps, false) if self.widest <= self.partitions => {
                self.forgotten(true);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The group is forgotten, or may be.
    pub(crate) fn forgotten(&mut self, answered: bool) {
        for record in &mut self.records {
            record.done = if answered || record.done == Is::No { Is::No } else { Is::Perhaps };
        }
        self.doubt.clear();
        self.given.clear();
        self.positions.clear();
        self.group = if answered || self.group == Is::No { Is::No } else { Is::Perhaps };
    }

    /// What lay before a place was removed, or may be.
    pub(crate) fn purged(&mut self, partition: u32, before: Place, answered: bool, now: Time) {
        self.purged = true;
        for record in self.records.iter_mut().filter(|r| r.partition == partition && r.life == before.0) {
            let removed = match record.place {
                Some(place) if place >= before => continue,
                Some(_) if answered => Is::Yes,
                None if record.due.is_none_or(|due| due > now.latest) => continue,
                _ => Is::Perhaps,
            };
            if record.removed != Is::Yes {
                record.removed = removed;
            }
        }
    }

    /// A new life begins: nothing of the one before is there.
    pub(crate) fn lives(&mut self, life: u64, partitions: u32) -> Seen {
        if life <= self.lives {
            return Err(format!("the topic is made again in life {life} after {}", self.lives));
        }
        self.died();
        (self.life, self.lives, self.life_is_open) = (life, life, false);
        self.partitions = partitions;
        Ok(())
    }

    /// It has so many partitions now.
    pub(crate) fn grew(&mut self, partitions: u32) {
        self.partitions = partitions;
        self.widest = self.widest.max(partitions);
    }

    /// The topic is gone.
    pub(crate) fn died(&mut self) {
        self.records.iter_mut().for_each(|record| record.removed = Is::Yes);
        self.doubt.clear();
        self.given.clear();
        (self.life, self.life_is_open, self.partitions, self.grown) = (0, false, 0, None);
        self.purged = false;
    }

    /// Whether retention may have removed a message by now.
    fn may_go(&self, id: Id, now: Time) -> bool {
        let record = &self.records[id];
        let of_partition = |other: &&Record| other.partition == record.partition && other.life == record.life;
        let held = |other: &Record| {
            other.done == Is::No
                && other.written == Is::Yes
                && other.removed == Is::No
                && other.place.is_some()
                && other.place <= record.place
        };
        if self.group == Is::Yes && self.records.iter().filter(of_partition).any(held) {
            return false;
        }
        match self.keep {
            Keep::All => false,
            Keep::Age(age) => record.at + age <= now.steady + SLACK,
            Keep::Bytes(most) => {
                let newer =
                    self.records.iter().filter(|other| other.life == record.life && other.written != Is::No);
                let bytes =
                    newer.filter(|other| other.place.is_none() || other.place >= record.place).count() as u64;
                bytes * OVERHEAD > most
            }
        }
    }

    /// Time passes: what retention may remove may be gone.
    pub(crate) fn age(&mut self, now: Time) {
        let there = |record: &Record| record.life == self.life && record.removed == Is::No;
        let ids = (0..self.records.len()).filter(|id| there(&self.records[*id]));
        let may_go: Vec<Id> = ids.filter(|id| self.may_go(*id, now)).collect();
        may_go.into_iter().for_each(|id| self.records[id].removed = Is::Perhaps);
    }

    /// Whether the topic may hold more than its bound because the group has not finished what would go, so that nothing more is taken.
    pub(crate) fn may_throttle(&self, now: Time) -> bool {
        let Keep::Bytes(most) = self.keep else { return false };
        let of_life = || self.records.iter().filter(|r| r.life == self.life && r.written != Is::No);
        // What was purged takes room as long as something of its segment is there.
        let there = of_life().filter(|record| self.purged || record.removed != Is::Yes);
        let there =
            there.filter(|record| record.place.is_some() || record.due.is_none_or(|due| due <= now.latest));
        let full = there.count() as u64 * OVERHEAD >= most * u64::from(self.partitions);
        full && self.group != Is::No && of_life().any(|record| record.done != Is::Yes)
    }

    /// What must come yet, in words; `None` when all that must have come did.
    pub(crate) fn awaited(&self, now: Time) -> Option<String> {
        if self.members == 0 {
            return None;
        }
        if let Some((slot, partition, _)) = self.owed.first() {
            return Some(format!("{slot} is to be told that p{partition} went"));
        }
        for partition in 0..self.partitions {
            let Some(turn) = self.turns.get(&partition) else {
                return Some(format!("p{partition} is to be assigned"));
            };
            if turn.given_up {
                return Some(format!("p{partition} is to go from {}", turn.slot));
            }
            let missing = self.records.iter().enumerate().find(|(id, record)| {
                (record.partition, record.life, record.written) == (partition, self.life, Is::Yes)
                    && (record.cancelled, record.done, record.removed) == (Is::No, Is::No, Is::No)
                    && (record.place.is_some() || record.due.is_none_or(|due| due <= now.of_day))
                    && !turn.delivered.contains(id)
            });
            if let Some((id, record)) = missing {
                return Some(format!("{id} is to be delivered to {}: {record:?}", turn.slot));
            }
        }
        None
    }

    /// All came that must: what an owner did not get is done, and of the acks of a process that is over a beginning took effect.
    pub(crate) fn caught_up(&mut self) -> Seen {
        for (partition, turn) in &self.turns {
            let mut lost = None;
            for id in self.doubt.remove(partition).into_iter().flatten() {
                let record = &self.records[id];
                if turn.delivered.contains(&id) {
                    lost = Some(id);
                } else if let Some(before) = lost.filter(|_| record.removed == Is::No) {
                    return Err(format!("the ack of {before} is lost, and that of {id} after it is not"));
                }
            }
            for (id, record) in self.records.iter_mut().enumerate() {
                let here =
                    record.partition == *partition && record.life == self.life && record.place.is_some();
                if here
                    && record.done == Is::Perhaps
                    && record.removed != Is::Yes
                    && !turn.delivered.contains(&id)
                {
                    record.done = Is::Yes;
                }
            }
        }
        if !self.turns.is_empty() {
            self.joined();
        }
        Ok(())
    }
}
