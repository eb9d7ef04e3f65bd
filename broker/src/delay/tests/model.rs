//! A model of one partition: a log, owners that follow each other or believe that they own it still, cancels, crashes at every step, and the promises.
//!
//! Every step is chosen by a seeded generator, so that each seed replays. A flaw is built into the surroundings of the decisions to show that
//! the model notices it. Not here: single decisions (`decisions.rs`), the engine over a broker (`conforms.rs`).

use crate::{
    Epoch, Message, MessageId, Position, Timestamp,
    delay::{
        plan::Limits,
        record::{Held, Record},
        shelf::{Job, Report, Shelf, Written},
    },
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What is wrong with the surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// The clock of who moves is ahead.
    Early,
    /// A cancel that is refused is answered `true`.
    LosesCancel,
    /// Whether the epoch holds is not asked.
    NoConfirm,
    /// A cancel is answered before it stands in the log.
    NoDone,
    /// A cancel is decided before all that happened is known.
    NoTake,
    /// A message is acked when it is read.
    AcksAtOnce,
    /// A message is acked when it was tried to move it.
    AcksUnmoved,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
struct Faults {
    crashes: bool,
    forgets: bool,
    writes: bool,
}

struct Owner {
    shelf: Shelf,
    /// What it has not read, of what was not acked when it began.
    next: usize,
    skips: BTreeSet<usize>,
    jobs: Vec<(Job, u8)>,
    acks: Vec<Position>,
    /// A later owner was chosen.
    old: bool,
}

struct World {
    random: SmallRng,
    flaw: Flaw,
    faults: Faults,
    now: Timestamp,
    log: Vec<Record>,
    low: usize,
    /// Writes that may arrive yet.
    late: Vec<Record>,
    stored: Epoch,
    acked: BTreeSet<usize>,
    owners: Vec<Owner>,
    away: Vec<Held>,
    due: BTreeMap<MessageId, Timestamp>,
    moved: BTreeMap<MessageId, usize>,
    asked: BTreeMap<u128, MessageId>,
    answers: BTreeMap<u128, bool>,
    /// An owner was crowded out of memory before it had read its own take, and acks were forgotten: the limit that is left.
    blind: bool,
}

const LIMITS: Limits = Limits { messages: 12, bytes: 1 << 20, window: 12, purge: 9 };

fn place(index: usize) -> Position {
    Position(7, index as u64)
}

impl World {
    fn new(seed: u64, flaw: Flaw, faults: Faults) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            flaw,
            faults,
            now: Timestamp::from_millis(1_000_000),
            log: Vec::new(),
            low: 0,
            late: Vec::new(),
            stored: Epoch(1),
            acked: BTreeSet::new(),
            owners: Vec::new(),
            away: Vec::new(),
            due: BTreeMap::new(),
            moved: BTreeMap::new(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            blind: false,
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    /// A new owner, which begins where the group is. Some of what was acked beyond the position may be forgotten.
    fn take_over(&mut self) {
        for owner in &mut self.owners {
            owner.old = true;
        }
        self.stored = Epoch(self.stored.0 + 1);
        let next = (self.low..).find(|at| !self.acked.contains(at)).unwrap_or(0);
        if self.faults.forgets && self.chance(2) {
            let until = self.random.random_range(next..=self.log.len());
            self.acked = self.acked.range(..until).copied().collect();
        }
        self.owners.push(Owner {
            shelf: Shelf::new(self.stored, LIMITS),
            next,
            skips: self.acked.clone(),
            jobs: Vec::new(),
            acks: Vec::new(),
            old: false,
        });
    }

    fn publish(&mut self) {
        let id = MessageId::from_u128(self.due.len() as u128 + 1);
        let ahead = if self.chance(3) { 400_000 } else { 3_000 };
        let due = self.now + Duration::from_millis(self.random.random_range(1..ahead));
        let message = Message::builder().id(id).deliver_at(due).payload("x").build();
        self.due.insert(id, due);
        let held = Held { copy: None, sealed: false, partition: None, at_least: None, message };
        self.log.push(Record::Message(held));
    }

    fn cancel(&mut self) {
        if self.due.is_empty() {
            return;
        }
        let id = MessageId::from_u128(self.random.random_range(0..self.due.len()) as u128 + 1);
        let token = self.asked.len() as u128;
        self.asked.insert(token, id);
        self.log.push(Record::Cancel { token, id });
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..12 => self.publish(),
            12..20 => self.cancel(),
            20..26 => self.now = self.now + Duration::from_millis(self.random.random_range(1..2_000)),
            26 => self.now = self.now + Duration::from_secs(self.random.random_range(1..100)),
            27 if self.faults.crashes => self.take_over(),
            28 if self.faults.crashes && self.owners.len() > 1 => {
                let gone = self.random.random_range(0..self.owners.len());
                let last = self.owners.remove(gone);
                if !last.old {
                    self.take_over();
                }
            }
            29..31 if !self.late.is_empty() => {
                let late = self.random.random_range(0..self.late.len());
                let record = self.late.swap_remove(late);
                self.log.push(record);
            }
            31..34 if !self.away.is_empty() => {
                let held = self.away.swap_remove(0);
                self.log.push(Record::Message(Held { sealed: true, copy: None, ..held }));
            }
            _ if self.owners.is_empty() => self.take_over(),
            action => {
                let of = self.random.random_range(0..self.owners.len());
                self.act(of, action % 4);
            }
        }
    }

    fn act(&mut self, of: usize, action: u32) {
        match action {
            0 => self.read(of),
            1 => self.tick(of),
            2 => self.work(of),
            _ => self.commit(of),
        }
    }

    fn read(&mut self, of: usize) {
        let owner = &mut self.owners[of];
        let at = owner.next.max(self.low);
        let Some(record) = self.log.get(at) else { return };
        owner.next = at + 1;
        if owner.skips.contains(&at) {
            return;
        }
        let record = record.clone();
        let mut take = owner.shelf.taken;
        if self.flaw == Flaw::NoTake && !take {
            owner.shelf.read(place(usize::MAX >> 1), Record::Take { epoch: owner.shelf.epoch }, self.now);
            owner.shelf.take_acks();
            take = true;
        }
        let is_message = matches!(record, Record::Message(_));
        owner.shelf.read(place(at), record, self.now);
        if self.flaw == Flaw::AcksAtOnce && is_message && take {
            owner.acks.push(place(at));
        }
    }

    fn tick(&mut self, of: usize) {
        let owner = &mut self.owners[of];
        let ahead = Duration::from_secs(if self.flaw == Flaw::Early { 1 } else { 0 });
        let jobs = owner.shelf.tick(self.now + ahead);
        if jobs.contains(&Job::GiveUp) {
            assert!(self.faults.writes, "nothing is uncertain");
            let old = owner.old;
            self.owners.remove(of);
            if !old {
                self.take_over();
            }
            return;
        }
        let acts = jobs.iter().any(|job| matches!(job, Job::Close(_)));
        self.blind |= acts && !owner.shelf.taken && self.faults.forgets;
        owner.jobs.extend(jobs.into_iter().map(|job| (job, 0)));
    }

    /// Whether a write is in the log, which is not written, or arrives later.
    fn append(&mut self, record: Record) -> Written {
        if self.faults.writes && self.chance(8) {
            if self.chance(2) {
                return Written::No;
            }
            self.late.push(record);
            return Written::Perhaps;
        }
        self.log.push(record);
        Written::Yes
    }

    /// The next part of some job: each ends between two calls, as in a crash.
    fn work(&mut self, owner_at: usize) {
        let owner = &mut self.owners[owner_at];
        if owner.jobs.is_empty() {
            return;
        }
        let which = self.random.random_range(0..owner.jobs.len());
        let (job, part) = owner.jobs.swap_remove(which);
        let (epoch, now) = (owner.shelf.epoch, self.now);
        let holds = epoch == self.stored || self.flaw == Flaw::NoConfirm;
        let report = match (job.clone(), part) {
            (Job::Take, _) => Report::Took(self.append(Record::Take { epoch }) == Written::Yes),
            (Job::Close(of), 0) => match self.append(Record::Close { epoch, of: of.clone() }) {
                Written::Yes => return self.owners[owner_at].jobs.push((job, 1)),
                _ => Report::Closed(of, false),
            },
            (Job::Close(of), _) => Report::Closed(of, holds),
            (Job::Settle { cancel, of, .. }, 0) => {
                let written = self.flaw == Flaw::NoDone || self.append(Record::Done { of }) == Written::Yes;
                if written {
                    return self.owners[owner_at].jobs.push((job, 1));
                }
                Report::Answered(cancel, false)
            }
            (Job::Settle { cancel, token, .. }, _) => {
                if holds {
                    self.answer(token, true);
                }
                Report::Answered(cancel, holds)
            }
            (Job::Refuse { cancel, token }, _) => {
                self.answer(token, self.flaw == Flaw::LosesCancel);
                Report::Answered(cancel, true)
            }
            (Job::Done(of), _) => {
                self.append(Record::Done { of });
                return;
            }
            (Job::Copy { from, held }, _) => Report::Copied(from, self.append(Record::Message(held))),
            (Job::Move(of), _) => self.move_to_target(of),
            (Job::Away(of), _) => {
                let done = of.iter().map(|(at, _)| *at).collect();
                self.away.extend(of.into_iter().map(|(_, held)| held));
                Report::Moved { away: true, done, failed: Vec::new() }
            }
            (Job::Purge(before), _) => {
                self.purge(epoch, before);
                Report::Purged
            }
            (Job::GiveUp, _) => return,
        };
        self.owners[owner_at].shelf.report(report, now);
    }

    fn answer(&mut self, token: u128, cancelled: bool) {
        let id = self.asked[&token];
        if cancelled {
            assert!(!self.moved.contains_key(&id), "{id} was taken back after it was delivered");
        }
        self.answers.entry(token).or_insert(cancelled);
        self.log.push(Record::Answer { token, cancelled });
    }

    fn move_to_target(&mut self, of: Vec<(Position, Held)>) -> Report {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (at, held) in of {
            if self.faults.writes && self.chance(6) {
                if self.flaw == Flaw::AcksUnmoved {
                    done.push(at);
                } else {
                    failed.push(at);
                }
                continue;
            }
            let id = held.message.id;
            assert!(self.now >= self.due[&id], "{id} is early");
            let back = self.answers.iter().any(|(token, answer)| *answer && self.asked[token] == id);
            assert!(!back || self.blind, "{id} was taken back and is delivered");
            *self.moved.entry(id).or_default() += 1;
            done.push(at);
        }
        Report::Moved { away: false, done, failed }
    }

    fn purge(&mut self, epoch: Epoch, before: Position) {
        if epoch == self.stored {
            self.low = self.low.max(before.1 as usize);
        }
    }

    /// Acks take effect, as many as come to it, in their order, where the epoch holds.
    fn commit(&mut self, of: usize) {
        let owner = &mut self.owners[of];
        let acks = owner.shelf.take_acks();
        owner.acks.extend(acks);
        let many = self.random.random_range(0..=owner.acks.len());
        let acks: Vec<Position> = owner.acks.drain(..many).collect();
        if owner.shelf.epoch == self.stored {
            self.acked.extend(acks.into_iter().map(|at| at.1 as usize));
        }
    }

    /// From now on nothing fails: everything that waits is delivered.
    fn calm_down(&mut self) {
        let afresh = self.faults.crashes && self.chance(2);
        self.faults = Faults { crashes: false, forgets: false, writes: false };
        if self.owners.last().is_none_or(|owner| owner.old || afresh) {
            self.owners.clear();
            self.take_over();
        }
        let mut quiet = 0;
        while quiet < 40 {
            let before = (self.log.len(), self.moved.values().sum::<usize>());
            for _ in 0..6 {
                self.owners.drain(..self.owners.len() - 1);
                let last = self.owners.len() - 1;
                while self.owners[last].next.max(self.low) < self.log.len() {
                    self.read(last);
                }
                self.tick(last);
                let last = self.owners.len() - 1;
                while !self.owners[last].jobs.is_empty() {
                    self.work(last);
                }
                (0..3).for_each(|_| self.commit(last));
            }
            self.log.extend(
                self.away.drain(..).map(|held| Record::Message(Held { sealed: true, copy: None, ..held })),
            );
            self.now = self.now + Duration::from_secs(30);
            let after = (self.log.len(), self.moved.values().sum::<usize>());
            quiet = if before == after { quiet + 1 } else { 0 };
        }
    }

    fn check(&self, faultless: bool) {
        for id in self.due.keys() {
            let cancels = self.asked.iter().filter(|(_, of)| *of == id).count();
            let moved = self.moved.get(id).copied().unwrap_or(0);
            assert!(moved > 0 || cancels > 0, "{id} is lost");
            if faultless {
                let taken = self.asked.iter().any(|(token, of)| of == id && self.answers[token]);
                assert_eq!(moved, usize::from(!taken), "{id}: delivered once, or taken back");
            }
        }
        let owner = self.owners.last().expect("there is an owner");
        assert!(owner.shelf.entries.is_empty(), "{:?} waits for ever", owner.shelf.entries);
        let first = (self.low..).find(|at| !self.acked.contains(at)).unwrap_or(0);
        let behind = self.log.len() - first;
        assert!(behind <= 80, "the group is {behind} records behind");
    }
}

fn run(seed: u64, flaw: Flaw, faults: Faults) -> usize {
    let mut world = World::new(seed, flaw, faults);
    world.take_over();
    for _ in 0..600 {
        world.step();
    }
    world.calm_down();
    world.check(!faults.crashes && !faults.forgets && !faults.writes);
    world.answers.values().filter(|answer| **answer).count()
}

fn faults(seed: u64) -> Faults {
    Faults { crashes: seed % 2 == 1, forgets: seed % 4 == 3, writes: seed % 8 >= 4 }
}

#[test]
fn nothing_is_lost_early_or_delivered_after_it_was_taken_back_whatever_crashes() {
    let mut taken_back = 0;
    for seed in 0..1_600 {
        let result = std::panic::catch_unwind(|| run(seed, Flaw::None, faults(seed)));
        taken_back += result.unwrap_or_else(|_| panic!("seed {seed}: {:?}", faults(seed)));
    }
    assert!(taken_back > 1_600, "only {taken_back} messages were taken back");
}

#[test]
fn each_flaw_is_noticed() {
    let all = Faults { crashes: true, forgets: true, writes: true };
    let flaws = [
        Flaw::Early,
        Flaw::LosesCancel,
        Flaw::NoConfirm,
        Flaw::NoDone,
        Flaw::NoTake,
        Flaw::AcksAtOnce,
        Flaw::AcksUnmoved,
    ];
    let missed: Vec<Flaw> = flaws
        .into_iter()
        .filter(|flaw| !(0..4_000).any(|seed| std::panic::catch_unwind(|| run(seed, *flaw, all)).is_err()))
        .collect();
    assert!(missed.is_empty(), "{missed:?} were not noticed");
}
