//! Judges what is left after the kills: the histories of all lives, the log and the dead letters.
//!
//! Pure, O(n log n); for one group at a time. Shares nothing with the engine but the names of things. Bad histories that it must flag are in
//! `bad.rs`.
//!
//! What holds:
//! * every acked publish is in the log, once, where its ack said (one that is delayed: somewhere; but for what retention removed), and is
//!   handled or dead-lettered;
//! * once a commit has failed nothing that is published later is acked, until the next life;
//! * what was refused, or never published, never appears anywhere;
//! * first completions of a key come in the order of its numbers (but for delayed ones), and no two handlers of a key run at once;
//! * a message completes twice only if a kill lies between, and not after its ack was confirmed;
//! * the dead letters are exactly the rejected ones, each once; where dead-lettering and acking are two steps, at most as often as it was rejected.

use crate::{
    history::{Event, Id, Outcome, Place},
    traffic,
};
use ropeway_broker::Position;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// The lives of the worker, in order. All but the last ended by a kill.
    pub(crate) lives: Vec<Vec<Event>>,
    /// The topic, read from its beginning: partition by partition, in order.
    pub(crate) log: Vec<(Place, Id)>,
    /// Where each partition of it begins: what lies before was removed by retention.
    pub(crate) low: Vec<Position>,
    /// The dead letters.
    pub(crate) dead: Vec<Id>,
    /// Whether dead-lettering and acking are one step.
    pub(crate) atomic: bool,
}

impl Evidence {
    /// Whether retention may have removed what lay there; where that is not known, whether it removed anything.
    fn may_be_removed(&self, place: Option<&Place>) -> bool {
        let is_before = |place: &Place, low: &Position| {
            place.position.parse::<Position>().is_ok_and(|position| position < *low)
        };
        match place {
            Some(place) => self.low.get(place.partition as usize).is_some_and(|low| is_before(place, low)),
            None => self.low.iter().any(|low| low.1 > 0),
        }
    }
}

/// What was seen, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acked: usize,
    /// Neither acked nor refused: the kill came first.
    pub(crate) in_doubt: usize,
    /// Of those, how many are in the log.
    pub(crate) in_doubt_written: usize,
    pub(crate) completed: usize,
    pub(crate) duplicates: usize,
    pub(crate) dead: usize,
}

/// Judges. What is wrong comes in words, in no order that matters.
pub(crate) fn check(evidence: &Evidence) -> (Counts, Vec<String>) {
    let mut publishing = Publishing::default();
    let mut handling = Handling::default();
    for (life, events) in evidence.lives.iter().enumerate() {
        publishing.is_broken = false;
        handling.begin(life);
        for event in events {
            publishing.see(event);
            handling.see(event);
        }
    }
    let mut wrong = publishing.wrong;
    wrong.append(&mut handling.wrong);
    let drained = evidence.lives.last().is_some_and(|life| life.last() == Some(&Event::Drained));
    if !drained {
        wrong.push("the last life did not end drained".to_owned());
    }
    let written = check_log(&publishing.acked, evidence, &mut wrong);
    let dead = check_dead(&handling, &written, evidence, &mut wrong);

    for id in publishing.acked.keys().filter(|id| !handling.completed.contains_key(id) && !dead.contains(id))
    {
        wrong.push(format!("{id} was acked, and neither handled nor dead-lettered"));
    }
    let seen = handling.started.iter().chain(&written).chain(&dead).collect::<BTreeSet<_>>();
    for id in seen {
        if !publishing.invoked.contains(id) {
            wrong.push(format!("{id} appeared and was never published"));
        } else if publishing.refused.contains(id) {
            wrong.push(format!("{id} appeared, though its publisher was told that it is not written"));
        }
    }
    let answered = |id: &&Id| publishing.acked.contains_key(*id) || publishing.refused.contains(*id);
    let in_doubt: Vec<&Id> = publishing.invoked.iter().filter(|id| !answered(id)).collect();
    let counts = Counts {
        acked: publishing.acked.len(),
        in_doubt: in_doubt.len(),
        in_doubt_written: in_doubt.iter().filter(|id| written.contains(**id)).count(),
        completed: handling.completed.len(),
        duplicates: handling.duplicates,
        dead: dead.len(),
    };
    (counts, wrong)
}

#[derive(Default)]
struct Publishing {
    invoked: BTreeSet<Id>,
    /// Where it lies; `None` where it was to be delivered later.
    acked: BTreeMap<Id, Option<Place>>,
    refused: BTreeSet<Id>,
    /// A commit failed in this life.
    is_broken: bool,
    /// Begun after that.
    late: BTreeSet<Id>,
    wrong: Vec<String>,
}

impl Publishing {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Invoke(id) => {
                let new = self.invoked.insert(id.clone());
                if !new {
                    self.wrong.push(format!("the test published {id} twice"));
                }
                if self.is_broken {
                    self.late.insert(id.clone());
                }
            }
            Event::Acked(id, place) => {
                self.promise(id);
                self.acked.insert(id.clone(), Some(place.clone()));
            }
            Event::Delayed(id) => {
                self.promise(id);
                self.acked.insert(id.clone(), None);
            }
            Event::Refused(id) => {
                self.refused.insert(id.clone());
            }
            Event::Unknown(_) => self.is_broken = true,
            _ => {}
        }
    }

    fn promise(&mut self, id: &Id) {
        if self.late.contains(id) {
            self.wrong.push(format!("{id} was acked, though a commit had failed before it was published"));
        }
    }
}

#[derive(Default)]
struct Handling {
    life: usize,
    started: BTreeSet<Id>,
    /// The last life in which it completed, and how.
    completed: BTreeMap<Id, (usize, Outcome)>,
    /// The highest number of a key that completed.
    highest: BTreeMap<String, u64>,
    /// The handler of a key that runs now.
    running: BTreeMap<String, u64>,
    /// What was acked in this life.
    given: BTreeSet<Id>,
    /// Durably done: must never be seen again.
    settled: BTreeSet<Id>,
    /// How often each was rejected.
    rejections: BTreeMap<Id, usize>,
    duplicates: usize,
    is_cut: bool,
    /// First seen by a handler after the power had begun to go.
    after_the_cut: BTreeSet<Id>,
    wrong: Vec<String>,
}

impl Handling {
    fn begin(&mut self, life: usize) {
        self.life = life;
        self.is_cut = false;
        self.running.clear();
        self.given.clear();
    }

    fn see(&mut self, event: &Event) {
        match event {
            Event::Cut => self.is_cut = true,
            Event::Start(id) => self.start(id),
            Event::End(id, outcome) => self.end(id, *outcome),
            Event::Ack(_, ids) => {
                for id in ids {
                    if !self.completed.contains_key(id) {
                        self.wrong.push(format!("{id} was acked as done before its handler had ended"));
                    }
                }
                self.given.extend(ids.iter().cloned());
            }
            Event::Confirmed(ids) => {
                for id in ids {
                    if !self.given.contains(id) {
                        self.wrong.push(format!("the ack of {id} was confirmed, and nobody gave it"));
                    }
                }
                self.settled.extend(ids.iter().cloned());
            }
            Event::Forwarded(id) => {
                self.settled.insert(id.clone());
            }
            _ => {}
        }
    }

    fn start(&mut self, id: &Id) {
        let is_first = self.started.insert(id.clone());
        if is_first && self.is_cut {
            self.after_the_cut.insert(id.clone());
        }
        if self.settled.contains(id) {
            self.wrong.push(format!("{id} was delivered again after its ack was durable"));
        }
        if let Some(other) = self.running.insert(id.key.clone(), id.number) {
            self.wrong.push(format!("{id} began while number {other} of its key was being handled"));
        }
    }

    fn end(&mut self, id: &Id, outcome: Outcome) {
        if self.running.remove(&id.key) != Some(id.number) {
            self.wrong.push(format!("{id} ended without having begun in this life"));
        }
        if outcome == Outcome::Failed {
            return;
        }
        if outcome == Outcome::Rejected {
            *self.rejections.entry(id.clone()).or_default() += 1;
        }
        if let Some((life, before)) = self.completed.insert(id.clone(), (self.life, outcome)) {
            self.duplicates += 1;
            if life == self.life {
                self.wrong.push(format!("{id} completed twice with no kill between"));
            }
            if before != outcome {
                self.wrong.push(format!("{id} ended {before:?} and then {outcome:?}"));
            }
            return;
        }
        let highest = self.highest.entry(id.key.clone()).or_insert(id.number);
        if id.number < *highest && !traffic::is_delayed(id) {
            self.wrong.push(format!("{id} completed first after number {highest} of its key"));
        }
        *highest = id.number.max(*highest);
    }
}

/// The log against the acks. Answers what is in the log.
fn check_log(
    acked: &BTreeMap<Id, Option<Place>>,
    evidence: &Evidence,
    wrong: &mut Vec<String>,
) -> BTreeSet<Id> {
    let mut places: BTreeMap<&Id, &Place> = BTreeMap::new();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (place, id) in &evidence.log {
        if places.insert(id, place).is_some() {
            wrong.push(format!("{id} is in the log twice"));
        }
        if last.insert(&id.key, id.number).is_some_and(|last| last >= id.number) && !traffic::is_delayed(id) {
            wrong.push(format!("{id} is in the log behind a larger number of its key"));
        }
    }
    for (id, place) in acked {
        match (places.get(id), place) {
            // That it was handled before it was removed is asked of every acked message.
            (None, place) if evidence.may_be_removed(place.as_ref()) => {}
            (None, _) => wrong.push(format!("{id} was acked and is not in the log")),
            (Some(found), Some(place)) if *found != place => {
                wrong.push(format!("{id} was acked at {place:?} and lies at {found:?}"));
            }
            (Some(_), _) => {}
        }
    }
    places.into_keys().cloned().collect()
}

/// The dead letters against the rejected ones. Answers the dead letters.
fn check_dead(
    handling: &Handling,
    written: &BTreeSet<Id>,
    evidence: &Evidence,
    wrong: &mut Vec<String>,
) -> BTreeSet<Id> {
    let mut letters = BTreeMap::<&Id, usize>::new();
    evidence.dead.iter().for_each(|id| *letters.entry(id).or_default() += 1);
    for (id, times) in &letters {
        let most = if evidence.atomic { 1 } else { handling.rejections.get(*id).copied().unwrap_or(1) };
        if *times > most {
            wrong.push(format!("{id} is dead-lettered {times} times"));
        }
        match handling.completed.get(*id) {
            Some((_, Outcome::Rejected)) => {}
            _ => wrong.push(format!("{id} is dead-lettered and was not rejected")),
        }
    }
    let dead: BTreeSet<Id> = letters.into_keys().cloned().collect();
    let rejected = handling.completed.iter().filter(|(_, (_, outcome))| *outcome == Outcome::Rejected);
    // With the power went what was not on the disk: nobody heard that it was.
    let is_nowhere = |id: &Id| handling.after_the_cut.contains(id) && !written.contains(id);
    for (id, _) in rejected.filter(|(id, _)| !dead.contains(id) && !is_nowhere(id)) {
        wrong.push(format!("{id} was rejected and is not among the dead letters"));
    }
    for id in written.iter().filter(|id| !handling.completed.contains_key(id)) {
        wrong.push(format!("{id} is in the log and no handler completed it, though the group was drained"));
    }
    dead
}
