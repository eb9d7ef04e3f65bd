//! Judges the history that all processes of a drill share, line by line as it grows, and at the end what lies in the streams.
//!
//! Pure; O(1) a line. Bad histories that it must flag are in `bad.rs`. What holds, for messages of one group:
//! * what is acked at the durability that is asked for, or a stronger one, is in its stream, at the place its ack said, behind smaller numbers of its key,
//!   and is handled or dead-lettered; what was refused, or never published, never appears; what is published is answered, and once;
//! * each message is in the partition of its key;
//! * nothing lies in a stream twice, but on Kafka what was on its way when something of its publisher ran out of time (`again.rs`);
//! * first completions of a key come in the order of its numbers;
//! * a member that was told that a partition is gone starts nothing of it any more, and nothing is handed out in an epoch before that of another owner, but
//!   what a thread was about to write down when it was stopped, or had no processor (`slips.rs`);
//! * two handlers of a key run at once only where the earlier owner lost its lease, or its process was killed;
//! * nothing is handled again after its ack was confirmed, or where nothing happened in between (no fault, no kill, no lost lease);
//! * a gap is told only where a server may have lost the end of its streams, or something was removed on purpose; what was removed before anybody handled it
//!   is in a gap that was told;
//! * the dead letters are exactly the rejected ones; where a dead letter and the ack are two steps one may be there again for each time that nobody was told
//!   whether it is written.
//!
//! Not here: the streams themselves, faults (`redis/`, `kafka/`).

use super::{
    again::Again,
    fate::Fate,
    removed::Removed,
    rules::{Counts, Rules},
    slips::Slips,
};
use ropeway_broker::{Durability, partition_for_key};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Stands for a position that an ack does not tell.
pub(crate) const NOWHERE: &str = "-";

/// A position: the id of an entry; the topic's life and the offset.
pub(crate) type At = (u64, u64);

/// Partition and position.
pub(crate) type Place = (u32, At);

const PARTITIONS: u32 = crate::traffic::PARTITIONS;

type Words<'a> = std::str::Split<'a, char>;

/// A message: which key, which number.
type Id = (u32, u64);

#[derive(Clone, Copy, Debug)]
struct Running {
    worker: u32,
    number: u64,
    epoch: u64,
}

#[derive(Debug, Default)]
struct Key {
    name: String,
    partition: u32,
    /// The highest number that completed.
    highest: Option<u64>,
    running: Vec<Running>,
}

/// The judge.
pub(crate) struct Judge {
    rules: Rules,
    names: HashMap<String, u32>,
    keys: Vec<Key>,
    fates: HashMap<Id, Fate>,
    /// The highest epoch of each partition that its owner was told, and who that is.
    owners: Vec<(u64, u32)>,
    /// Who was told that a partition of an epoch is gone, and whether it was lost; who was killed; who wrote a line too late.
    gone: HashMap<(u32, u32, u64), bool>,
    slips: Slips,
    killed: HashSet<u32>,
    /// What happened: faults, kills, lost leases; and whether a fault goes on.
    happened: u64,
    suffers: bool,
    /// A server may have lost the end of its streams.
    undone: bool,
    removed: Removed,
    again: Again,
    /// First completions behind a higher number, and overlaps: judged when all is known.
    behind: Vec<(Id, u64)>,
    overlaps: Vec<(Id, Running, u64)>,
    /// Handed out again, to whom, and why that is wrong unless it lies twice.
    handed_again: Vec<(Id, u32, &'static str)>,
    /// Since when progress is waited for, and in which partitions there was some.
    since: u64,
    progress: u64,
    published_again: bool,
    pub(crate) counts: Counts,
    wrong: Vec<String>,
}

impl Judge {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            names: HashMap::new(),
            keys: Vec::new(),
            fates: HashMap::new(),
            owners: vec![(0, 0); PARTITIONS as usize],
            gone: HashMap::new(),
            slips: Slips::default(),
            killed: HashSet::new(),
            happened: 0,
            suffers: false,
            undone: false,
            removed: Removed::default(),
            again: Again::default(),
            behind: Vec::new(),
            overlaps: Vec::new(),
            handed_again: Vec::new(),
            since: 0,
            progress: 0,
            published_again: false,
            counts: Counts::default(),
            wrong: Vec::new(),
        }
    }

    /// From now on progress is what is published after `since`: its acks, and its completions in each partition.
    pub(crate) fn watch(&mut self, since: u64) {
        (self.since, self.progress, self.published_again) = (since, 0, false);
    }

    /// Whether something that was published since was acked; whether some was handled in each partition.
    pub(crate) const fn progress(&self) -> (bool, bool) {
        (self.published_again, self.progress == (1 << PARTITIONS) - 1)
    }

    /// Partitions without progress.
    pub(crate) fn stuck(&self) -> Vec<u32> {
        (0..PARTITIONS).filter(|partition| self.progress & (1 << partition) == 0).collect()
    }

    /// How many publishes are not answered.
    pub(crate) const fn in_flight(&self) -> u64 {
        let Counts { published, acked, refused, unknown, .. } = self.counts;
        published - acked - refused - unknown
    }

    /// What is wrong so far.
    pub(crate) fn wrong(&self) -> &[String] {
        &self.wrong
    }

    fn key(&mut self, name: &str) -> u32 {
        if let Some(key) = self.names.get(name) {
            return *key;
        }
        let key = self.keys.len() as u32;
        let partition = partition_for_key(name.as_bytes(), PARTITIONS);
        self.keys.push(Key { name: name.to_owned(), partition, ..Key::default() });
        self.names.insert(name.to_owned(), key);
        key
    }

    fn id(&mut self, text: &str) -> Option<Id> {
        let (name, number) = text.split_once(':')?;
        Some((self.key(name), number.parse().ok()?))
    }

    fn say(&self, id: Id) -> String {
        format!("{}:{}", self.keys[id.0 as usize].name, id.1)
    }

    fn flag(&mut self, id: Id, why: &str) {
        let said = self.say(id);
        self.wrong.push(format!("{said} {why}"));
    }

    /// Takes a line of the history.
    pub(crate) fn see(&mut self, line: &str) {
        if self.read(line).is_none() {
            self.wrong.push(format!("not a line of a history: {line:?}"));
        }
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let worker: u32 = words.next()?.parse().ok()?;
        let at: u64 = words.next()?.parse().ok()?;
        let what = words.next()?;
        match what {
            "invoke" | "acked" | "unknown" | "refused" => self.publishes(worker, at, what, &mut words)?,
            "start" => {
                let id = self.id(words.next()?)?;
                self.start((worker, at), id, words.next()?.parse().ok()?);
            }
            "end" => {
                let id = self.id(words.next()?)?;
                self.end(worker, id, words.next()?);
            }
            "confirmed" | "forwarded" => {
                for word in words {
                    let id = self.id(word)?;
                    self.counts.settled += 1;
                    if let Some(fate) = self.fates.get_mut(&id) {
                        fate.settled = Some(at);
                    }
                }
            }
            "ack" => {
                for word in words.skip(1) {
                    let id = self.id(word)?;
                    if self.fates.get(&id).is_none_or(|fate| fate.completed.is_none()) {
                        self.flag(id, "was acked as done before its handler had ended");
                    }
                }
            }
            // A dead letter that may be written is written again.
            "doubted" => {
                let id = self.id(words.next()?)?;
                self.fates.get_mut(&id)?.rejections += 1;
            }
            "owns" | "hand" | "gone" => self.owns(worker, at, what, &mut words)?,
            _ => self.happens(at, what, &mut words)?,
        }
        Some(())
    }

    /// What becomes of a publish.
    fn publishes(&mut self, worker: u32, now: u64, what: &str, words: &mut Words<'_>) -> Option<()> {
        let id = self.id(words.next()?)?;
        if what == "invoke" {
            self.counts.published += 1;
            let fate = Fate { publisher: worker, invoked: now, ..Fate::default() };
            if self.fates.insert(id, fate).is_some() {
                self.flag(id, "was published twice by the test");
            }
            return Some(());
        }
        let fate = self.fates.get_mut(&id)?;
        let is_again = fate.is_answered();
        fate.answered = now;
        if what != "acked"
            && let Some(rule) = self.rules.again
        {
            self.again.failed(rule, fate.publisher, fate.invoked, now);
        }
        match what {
            "acked" => {
                let partition = words.next()?.parse().ok()?;
                let at = match words.next()? {
                    NOWHERE => None,
                    position => Some((partition, place(position)?)),
                };
                fate.acked = Some((at, rank(words.next()?)?));
                let is_unplaced = at.is_none() && self.rules.placed;
                self.published_again |= fate.invoked > self.since;
                self.counts.acked += 1;
                if is_unplaced {
                    self.flag(id, "was acked, and not where");
                }
            }
            "unknown" => {
                fate.unknown = true;
                self.counts.unknown += 1;
            }
            _ => {
                fate.refused = true;
                self.counts.refused += 1;
            }
        }
        if is_again {
            self.flag(id, "was answered twice");
        }
        Some(())
    }

    /// What a member is told of a partition.
    fn owns(&mut self, worker: u32, at: u64, what: &str, words: &mut Words<'_>) -> Option<()> {
        let (partition, epoch): (u32, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (newest, owner) = *self.owners.get(partition as usize)?;
        match what {
            // Who was assigned later may hear of it earlier, but no epoch comes twice.
            "owns" if epoch == newest => {
                self.wrong.push(format!("partition {partition} was assigned in epoch {epoch} after {newest}"));
            }
            "owns" if epoch > newest => self.owners[partition as usize] = (epoch, worker),
            "hand" if epoch < newest && !self.slips.hands(worker, at) => self.wrong.push(format!(
                "member {worker} handed out of partition {partition} in epoch {epoch}, {at} ms after the beginning, when {owner} owned it in {newest}"
            )),
            "gone" => {
                let is_lost = words.nth(1)? == "Lost";
                if is_lost {
                    self.counts.lost_leases += 1;
                    self.happened += 1;
                }
                self.gone.insert((worker, partition, epoch), is_lost);
                self.slips.gone((worker, partition, epoch), at);
            }
            _ => {}
        }
        Some(())
    }

    /// What happens to processes and servers.
    fn happens(&mut self, at: u64, what: &str, words: &mut Words<'_>) -> Option<()> {
        match what {
            "gap" => {
                self.counts.gaps += 1;
                let partition = words.next()?.parse().ok()?;
                let (from, to) = (words.nth(2).and_then(place), words.next().and_then(place));
                self.removed.gap(partition, from, to);
                if !self.undone && !self.removed.some_of(partition) {
                    self.wrong.push(format!(
                        "a gap of partition {partition} was told, and no server had lost its end"
                    ));
                }
                self.happened += 1;
            }
            "purged" => self.removed.purged(words.next()?.parse().ok()?, place(words.next()?)?),
            "remade" => self.removed.remade(words.next()?.parse().ok()?),
            "killed" | "fenced" => {
                self.counts.kills += u64::from(what == "killed");
                self.counts.fenced += u64::from(what == "fenced");
                self.happened += 1;
                let killed: u32 = words.next()?.parse().ok()?;
                self.killed.insert(killed);
                for key in &mut self.keys {
                    key.running.retain(|running| running.worker != killed);
                }
            }
            // A server that has less goes on: what was confirmed just before may be undone.
            "undone" => {
                self.undone = true;
                let from = at.saturating_sub(self.rules.undone);
                for fate in self.fates.values_mut().filter(|fate| fate.settled.is_some_and(|at| at >= from)) {
                    fate.settled = None;
                }
                self.happened += 1;
            }
            "fault" | "healed" | "recovered" => {
                self.happened += 1;
                self.suffers = what != "recovered";
            }
            "joins" => self.counts.joins += 1,
            "leaves" => self.counts.leaves += 1,
            "goes" => self.slips.goes_on(words.next()?.parse().ok()?, at),
            "ready" | "left" => {}
            _ => return None,
        }
        Some(())
    }

    fn start(&mut self, (worker, at): (u32, u64), id: Id, epoch: u64) {
        let happened = self.happened;
        let Some(fate) = self.fates.get(&id).copied() else {
            return self.flag(id, "appeared and was never published");
        };
        let partition = self.keys[id.0 as usize].partition;
        if !self.slips.begins((worker, partition, epoch), at) {
            self.flag(
                id,
                &format!("was begun by member {worker} after it was told that its partition is gone"),
            );
        }
        // The lanes of a member that lost its lease without a word go on until it is told.
        let is_late = epoch < self.owners[partition as usize].0;
        self.counts.late += u64::from(is_late);
        if !is_late && fate.settled.is_some() {
            self.handed_again.push((id, worker, "after its ack was durable"));
        }
        if !is_late && fate.completed.is_some_and(|(then, _)| then == Some(happened)) {
            self.handed_again.push((id, worker, "though nothing had happened"));
        }
        let key = &mut self.keys[id.0 as usize];
        let others = key.running.clone();
        key.running.push(Running { worker, number: id.1, epoch });
        for other in others {
            if other.worker == worker && other.epoch == epoch {
                self.flag(
                    id,
                    &format!("was begun by member {worker} while it handled number {}", other.number),
                );
            } else {
                self.overlaps.push((id, other, epoch));
            }
        }
    }

    fn end(&mut self, worker: u32, id: Id, outcome: &str) {
        let key = &mut self.keys[id.0 as usize];
        let is_it = |running: &Running| running.worker == worker && running.number == id.1;
        match key.running.iter().position(is_it) {
            Some(at) => _ = key.running.swap_remove(at),
            None => return self.flag(id, &format!("was ended by member {worker}, which had not begun it")),
        }
        if outcome == "failed" {
            return;
        }
        let Some(fate) = self.fates.get_mut(&id) else { return };
        let is_rejected = outcome == "rejected";
        fate.rejections += u32::from(is_rejected);
        if fate.invoked > self.since {
            self.progress |= 1 << key.partition;
        }
        if fate.completed.is_some() {
            self.counts.repeats += 1;
            return;
        }
        fate.completed = Some(((!self.suffers).then_some(self.happened), is_rejected));
        self.counts.completed += 1;
        match key.highest {
            Some(highest) if highest > id.1 => self.behind.push((id, highest)),
            _ => key.highest = Some(id.1),
        }
    }

    /// An entry of a stream, in order of the stream.
    pub(crate) fn found(&mut self, name: &str, at: Place, last: &mut BTreeMap<u32, u64>) {
        let Some(id) = self.id(name) else {
            return self.wrong.push(format!("an entry is none of the test's: {name:?}"));
        };
        let Some(fate) = self.fates.get_mut(&id) else {
            return self.flag(id, "is in a stream and was never published");
        };
        fate.places += 1;
        fate.met |= matches!(fate.acked, Some((Some(place), _)) if place == at);
        self.counts.unknown_written += u64::from(fate.unknown);
        let fate = *fate;
        if fate.refused {
            self.flag(id, "is in a stream, though its publisher was told that it is not written");
        }
        if at.0 != self.keys[id.0 as usize].partition {
            self.flag(id, "is in another partition than that of its key");
        }
        let is_first = fate.places == 1;
        if !is_first {
            self.counts.twice += 1;
            if !self.again.excuses(fate.publisher, fate.invoked, fate.answered) {
                self.flag(id, "is in the streams twice");
            }
        }
        // Nobody knows where what was told as unknown comes to lie.
        if is_first && fate.acked.is_some() && last.insert(id.0, id.1).is_some_and(|last| last > id.1) {
            self.flag(id, "is in its stream behind a larger number of its key");
        }
        if fate.completed.is_none() {
            self.flag(id, "is in a stream and nobody completed it, though the group was drained");
        }
    }

    /// A dead letter.
    pub(crate) fn found_dead(&mut self, name: &str) {
        let Some(id) = self.id(name) else {
            return self.wrong.push(format!("a dead letter is none of the test's: {name:?}"));
        };
        self.counts.dead += 1;
        let atomic = self.rules.atomic;
        let Some(fate) = self.fates.get_mut(&id) else {
            return self.flag(id, "is dead-lettered and was never published");
        };
        fate.dead += 1;
        let fate = *fate;
        if fate.rejections == 0 {
            self.flag(id, "is dead-lettered and was not rejected");
        } else if fate.dead > if atomic { 1 } else { fate.rejections } {
            self.flag(id, &format!("is dead-lettered {} times", fate.dead));
        }
    }

    /// When all was read: what there is to tell, and what is wrong.
    pub(crate) fn finish(mut self) -> (Counts, Vec<String>) {
        let stated = self.rules.stated as u8;
        let mut fates: Vec<(Id, Fate)> = std::mem::take(&mut self.fates).into_iter().collect();
        fates.sort_unstable_by_key(|(id, _)| *id);
        for (id, fate) in &fates {
            if let Some((place, durability)) = fate.acked {
                let partition = self.keys[id.0 as usize].partition;
                if fate.places == 0 && self.removed.has(partition, place) {
                    self.counts.given_up += 1;
                    let is_told = place.is_none_or(|place| self.removed.is_told(place));
                    if fate.completed.is_none() && !is_told {
                        self.flag(*id, "was removed before anybody handled it, and no gap was told there");
                    }
                } else if fate.places == 0 && durability >= stated {
                    self.flag(*id, &format!("was acked at {place:?} and is in no stream"));
                } else if fate.places == 0 {
                    self.counts.given_up += 1;
                } else if let Some(place) = place.filter(|_| !fate.met) {
                    self.flag(*id, &format!("was acked at {place:?} and lies elsewhere"));
                } else if fate.completed.is_none() {
                    self.flag(*id, "was acked and nobody completed it");
                }
            }
            if !fate.is_answered() {
                self.flag(*id, "was published, and nobody was told what became of it");
            }
            if fate.refused && fate.completed.is_some() {
                self.flag(*id, "was handled, though its publisher was told that it is not written");
            }
            if fate.completed.is_some_and(|(_, rejected)| rejected) && fate.dead == 0 && fate.places > 0 {
                self.flag(*id, "was rejected and is not among the dead letters");
            }
        }
        let fates: HashMap<Id, Fate> = fates.into_iter().collect();
        for (id, worker, why) in std::mem::take(&mut self.handed_again) {
            // What lies twice is handled twice; whether it may is judged where it lies.
            if fates.get(&id).is_none_or(|fate| fate.places < 2) {
                self.flag(id, &format!("was handed to member {worker} again, {why}"));
            }
        }
        for (id, highest) in std::mem::take(&mut self.behind) {
            // In doubt: it may have come to lie anywhere.
            if fates.get(&id).is_some_and(|fate| fate.acked.is_some()) {
                self.flag(id, &format!("completed first after number {highest} of its key"));
            }
        }
        for (id, other, epoch) in std::mem::take(&mut self.overlaps) {
            let partition = self.keys[id.0 as usize].partition;
            // The lower epoch is that of who should have stopped.
            let (worker, lower) =
                if other.epoch < epoch { (Some(other.worker), other.epoch) } else { (None, epoch) };
            let lost = |worker: &u32| {
                self.killed.contains(worker) || self.gone.get(&(*worker, partition, lower)) == Some(&true)
            };
            let is_excused = match worker {
                Some(worker) => lost(&worker),
                None => self.gone.iter().any(|((_, of, at), lost)| (*of, *at) == (partition, lower) && *lost),
            };
            self.counts.overlaps += 1;
            if !is_excused {
                self.flag(id, &format!("was begun while number {} of its key was being handled by member {}, which had lost nothing", other.number, other.worker));
            }
        }
        (self.counts, self.wrong)
    }
}

/// The place of a durability among all.
fn rank(name: &str) -> Option<u8> {
    let all = [Durability::Volatile, Durability::ProcessCrash, Durability::PowerLoss, Durability::Replicated];
    all.into_iter().find(|durability| durability.as_str() == name).map(|durability| durability as u8)
}

/// The id of an entry.
pub(crate) fn place(text: &str) -> Option<At> {
    let (ms, seq) = text.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}
