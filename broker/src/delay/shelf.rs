//! One partition of the internal topic as its owner knows it: what waits in it, decided in the order of its log. Pure: it takes `now` and does nothing.
//!
//! The owner reads the log from the group's position on ([`Shelf::read`]), asks what to do ([`Shelf::tick`], in `plan.rs`), does it and tells
//! ([`Shelf::report`]). What is settled comes out as acks ([`Shelf::take_acks`]). Invariants, which the model (`tests/model.rs`) checks:
//! * A record is acked only when nothing that waits depends on it: a message when it was moved, taken back or lies further behind; a close when all it
//!   names are gone; a cancel when it was answered; a take when there is a newer one.
//! * A message is moved only when a close of it stands in the log before the take of any later owner. A message that is closed is never taken back.
//! * A cancel is answered `true` only when a done record of what it took back stands in the log before the take of any later owner.
//!
//! Not here: what is done (`job.rs`), who owns which partition (`engine.rs`), what is put away (`tier.rs`).

use super::{
    plan::Limits,
    record::{Held, Record},
};
use crate::{Epoch, MessageId, Position, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What to do for a partition. Every job but [`Job::Done`] is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Append a take of this epoch.
    Take,
    /// Append a close of these, then make sure that the epoch holds.
    Close(Vec<Position>),
    /// Append that these are done, then make sure that the epoch holds, then answer `true`.
    Settle { cancel: Position, token: u128, of: Vec<Position> },
    /// Answer `false`.
    Refuse { cancel: Position, token: u128 },
    /// Append that these are done.
    Done(Vec<Position>),
    /// Append a message again.
    Copy { from: Position, held: Held },
    /// Publish these to their topic.
    Move(Vec<(Position, Held)>),
    /// Append these to the partitions of what is far from due.
    Away(Vec<(Position, Held)>),
    /// Remove what lies before.
    Purge(Position),
    /// Give the partition up: what is in the log is not certain, and a new epoch makes it so.
    GiveUp,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Of [`Job::Take`]: whether it is in the log.
    Took(bool),
    /// Of [`Job::Close`]: whether it is in the log and the epoch held after that.
    Closed(Vec<Position>, bool),
    /// Of [`Job::Settle`] and [`Job::Refuse`]: whether it was answered.
    Answered(Position, bool),
    /// Of [`Job::Copy`].
    Copied(Position, Written),
    /// Of [`Job::Move`] and, `away`, of [`Job::Away`]: what is in the other log, and what has to be tried again.
    Moved { away: bool, done: Vec<Position>, failed: Vec<Position> },
    /// Of [`Job::Purge`].
    Purged,
}

/// Whether something is in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    No,
    Perhaps,
}

/// What becomes of a message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It can be taken back.
    Open,
    /// A copy of it is on its way to the end of the log.
    Copying,
    /// It was taken back while a copy was on its way: that one is to be seen first.
    Killed(Position),
    /// A close of it is on its way.
    Closing,
    /// It is to be moved when it is due, or now where it is to be put away.
    Closed,
    /// It is being published.
    Moving,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) held: Held,
    /// How many records were read before it.
    pub(super) number: u64,
    pub(super) state: State,
    /// When it is looked at next: when it is due, or is tried again.
    pub(super) when: Timestamp,
    pub(super) tries: u8,
    /// It is closed to be put away.
    pub(super) away: bool,
    /// The closes that name it.
    closed_in: Vec<Position>,
}

impl Entry {
    fn can_be_cancelled(&self) -> bool {
        matches!(self.state, State::Open | State::Copying) && !self.held.sealed && self.closed_in.is_empty()
    }
}

/// A cancel that is not answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    token: u128,
    id: MessageId,
    verdict: Verdict,
    /// The answer is on its way.
    answering: bool,
    /// When to try again to answer.
    when: Timestamp,
}

/// What was decided about a cancel.
#[derive(Clone, Debug)]
enum Verdict {
    /// Nothing yet: not all that happened before is known.
    None,
    Refused,
    /// It took these back; so many copies are to be seen before it is answered.
    Killed(Vec<Position>, usize),
}

/// What waits in one partition.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) epoch: Epoch,
    pub(super) limits: Limits,
    pub(super) entries: BTreeMap<Position, Entry>,
    /// Those that are open, by when they are looked at.
    pub(super) open: BTreeSet<(Timestamp, Position)>,
    /// Those that are closed, by when they are moved.
    pub(super) closed: BTreeSet<(Timestamp, Position)>,
    ids: BTreeSet<(MessageId, Position)>,
    /// What the entries take in memory.
    pub(super) bytes: usize,
    /// The last take: its epoch, where it lies, how many records were read before it.
    pub(super) take: Option<(Epoch, Position, u64)>,
    /// The own take was read: all that happened before is known.
    pub(super) taken: bool,
    cancels: BTreeMap<Position, Asked>,
    /// Closes, and how many of what they name is here.
    closes: BTreeMap<Position, usize>,
    /// How many records were read.
    pub(super) read: u64,
    /// Behind the last record that was read.
    end: Option<Position>,
    /// The first that a newer version wrote.
    left: Option<Position>,
    acks: Vec<Position>,
    /// How many acks there were since the log was purged.
    pub(super) settled: u64,
    /// Jobs that follow from what was read or told.
    pub(super) ready: Vec<Job>,
    pub(super) busy: Busy,
    /// There is a later owner.
    pub(super) deposed: bool,
    /// Nobody knows whether a copy is in the log.
    pub(super) uncertain: bool,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    /// A take, until it is read.
    pub(super) taking: bool,
    pub(super) closing: bool,
    pub(super) moving: bool,
    pub(super) away: bool,
    pub(super) copies: usize,
    pub(super) purging: bool,
    pub(super) gave_up: bool,
    /// Something failed: nothing but moving is begun before then.
    pub(super) rest: Timestamp,
}

impl Shelf {
    /// A partition that was assigned in this epoch.
    pub(super) fn new(epoch: Epoch, limits: Limits) -> Self {
        Self {
            epoch,
            limits,
            entries: BTreeMap::new(),
            open: BTreeSet::new(),
            closed: BTreeSet::new(),
            ids: BTreeSet::new(),
            bytes: 0,
            take: None,
            taken: false,
            cancels: BTreeMap::new(),
            closes: BTreeMap::new(),
            read: 0,
            end: None,
            left: None,
            acks: Vec::new(),
            settled: 0,
            ready: Vec::new(),
            busy: Busy::default(),
            deposed: false,
            uncertain: false,
        }
    }

    /// What can be acked now, in the order in which it must be.
    pub(super) fn take_acks(&mut self) -> Vec<Position> {
        self.settled += self.acks.len() as u64;
        std::mem::take(&mut self.acks)
    }

    /// How many messages wait that are not due.
    pub(super) fn waiting(&self, now: Timestamp) -> usize {
        let waits = |entry: &&Entry| !matches!(entry.state, State::Killed(_)) && entry.held.due() > now;
        self.entries.values().filter(waits).count()
    }

    /// Everything before it is settled.
    pub(super) fn settled_before(&self) -> Option<Position> {
        let firsts = [
            self.entries.keys().next().copied(),
            self.closes.keys().next().copied(),
            self.cancels.keys().next().copied(),
            self.take.map(|(_, at, _)| at),
            self.left,
        ];
        firsts.into_iter().flatten().min().or(self.end)
    }

    /// The next record of the log.
    pub(super) fn read(&mut self, at: Position, record: Record, now: Timestamp) {
        self.read += 1;
        self.end = Some(at.next());
        match record {
            Record::Message(held) => self.read_message(at, held),
            Record::Cancel { token, id } => {
                let asked = Asked { token, id, verdict: Verdict::None, answering: false, when: now };
                self.cancels.insert(at, asked);
                if self.taken {
                    self.decide(at);
                }
            }
            Record::Take { epoch } => self.read_take(at, epoch),
            Record::Close { epoch, of } => self.read_close(at, epoch, &of),
            Record::Done { of } => {
                for gone in of {
                    self.remove(gone);
                }
                self.acks.push(at);
            }
            Record::Answer { token, cancelled } => self.read_answer(at, token, cancelled),
        }
    }

    /// A record that is none, or that nobody can read: it is passed over.
    pub(super) fn pass(&mut self, at: Position) {
        self.read += 1;
        self.end = Some(at.next());
        self.acks.push(at);
    }

    /// A record of a newer version: it stays for who can read it.
    pub(super) fn leave(&mut self, at: Position) {
        self.read += 1;
        self.end = Some(at.next());
        self.left.get_or_insert(at);
    }

    /// Whether what an owner of that epoch wrote here counts for nothing.
    fn is_void(&self, epoch: Epoch) -> bool {
        self.take.is_some_and(|(last, ..)| epoch < last)
    }

    fn read_message(&mut self, at: Position, held: Held) {
        let mut closed_in = Vec::new();
        if let Some((epoch, from)) = held.copy {
            if self.is_void(epoch) {
                return self.acks.push(at);
            }
            if let Some(source) = self.entries.get_mut(&from) {
                if let State::Killed(cancel) = source.state {
                    self.remove(from);
                    self.acks.push(at);
                    return self.copy_seen(cancel, Some(at));
                }
                // Closed meanwhile by an owner before this one: it stays so.
                closed_in = std::mem::take(&mut source.closed_in);
                self.remove(from);
            }
        }
        let state = if closed_in.is_empty() { State::Open } else { State::Closed };
        self.bytes += held.weight();
        self.ids.insert((held.message.id, at));
        let when = held.due();
        let set = if state == State::Open { &mut self.open } else { &mut self.closed };
        set.insert((when, at));
        let number = self.read;
        self.entries.insert(at, Entry { held, number, state, when, tries: 0, away: false, closed_in });
    }

    fn read_take(&mut self, at: Position, epoch: Epoch) {
        if self.is_void(epoch) {
            return self.acks.push(at);
        }
        if let Some((_, before, _)) = self.take.replace((epoch, at, self.read)) {
            self.acks.push(before);
        }
        self.deposed |= epoch > self.epoch;
        if epoch == self.epoch {
            self.busy.taking = false;
            if !self.taken {
                self.taken = true;
                let asked: Vec<Position> = self.cancels.keys().copied().collect();
                asked.into_iter().for_each(|cancel| self.decide(cancel));
            }
        }
    }

    fn read_close(&mut self, at: Position, epoch: Epoch, of: &[Position]) {
        let mut here = 0;
        if !self.is_void(epoch) {
            for name in of {
                let Some(entry) = self.entries.get_mut(name) else { continue };
                if matches!(entry.state, State::Killed(_)) {
                    continue;
                }
                entry.closed_in.push(at);
                here += 1;
                if matches!(entry.state, State::Open | State::Closing) {
                    self.close(*name);
                }
            }
        }
        if here > 0 {
            self.closes.insert(at, here);
        } else {
            self.acks.push(at);
        }
    }

    fn read_answer(&mut self, at: Position, token: u128, cancelled: bool) {
        let undecided =
            |asked: &Asked| asked.token == token && !cancelled && matches!(asked.verdict, Verdict::None);
        // It was refused before: it stays so.
        let before = self.cancels.iter().find(|(_, asked)| undecided(asked)).map(|(at, _)| *at);
        if let Some(cancel) = before {
            self.cancels.remove(&cancel);
            self.acks.push(cancel);
        }
        self.acks.push(at);
    }

    /// Decides about a cancel: all that has happened before it is known.
    fn decide(&mut self, cancel: Position) {
        let Some(asked) = self.cancels.get(&cancel) else { return };
        let all = (asked.id, Position(0, 0))..=(asked.id, Position(u64::MAX, u64::MAX));
        let named: Vec<Position> = self.ids.range(all).map(|(_, at)| *at).collect();
        let mut found = Vec::new();
        let mut certain = !self.is_crowded();
        for at in named {
            let Some(entry) = self.entries.get(&at) else { continue };
            // What was written behind the cancel is not meant, unless as a copy of what was there.
            let meant = at < cancel || entry.held.copy.is_some_and(|(_, from)| from < cancel);
            if meant && !matches!(entry.state, State::Killed(_)) {
                certain &= entry.can_be_cancelled();
                found.push(at);
            }
        }
        let verdict = if found.is_empty() || !certain {
            Verdict::Refused
        } else {
            let copies = found.iter().filter(|at| self.kill(**at, cancel)).count();
            Verdict::Killed(found, copies)
        };
        if let Some(asked) = self.cancels.get_mut(&cancel) {
            asked.verdict = verdict;
        }
    }

    /// Takes an entry back. Whether a copy of it is on its way.
    fn kill(&mut self, at: Position, cancel: Position) -> bool {
        let copying = self.entries.get_mut(&at).filter(|entry| entry.state == State::Copying);
        let Some(entry) = copying else {
            self.remove(at);
            return false;
        };
        entry.state = State::Killed(cancel);
        true
    }

    /// A copy of what a cancel took back was seen there, or will never be.
    fn copy_seen(&mut self, cancel: Position, copy: Option<Position>) {
        if let Some(Asked { verdict: Verdict::Killed(killed, copies), .. }) = self.cancels.get_mut(&cancel) {
            *copies = copies.saturating_sub(1);
            killed.extend(copy);
        }
    }

    /// Answers to what is decided.
    pub(super) fn answers(&mut self, now: Timestamp) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (&cancel, asked) in &mut self.cancels {
            if asked.answering || asked.when > now {
                continue;
            }
            jobs.push(match &asked.verdict {
                Verdict::Refused => Job::Refuse { cancel, token: asked.token },
                Verdict::Killed(of, 0) => Job::Settle { cancel, token: asked.token, of: of.clone() },
                _ => continue,
            });
            asked.answering = true;
        }
        jobs
    }

    /// When an answer is tried again.
    pub(super) fn answer_again(&self) -> Option<Timestamp> {
        let waits = |asked: &&Asked| match asked.verdict {
            Verdict::Refused | Verdict::Killed(_, 0) => !asked.answering,
            _ => false,
        };
        self.cancels.values().filter(waits).map(|asked| asked.when).min()
    }

    /// What is done with an entry when it is closed for certain.
    fn close(&mut self, at: Position) {
        let Some(entry) = self.entries.get_mut(&at) else { return };
        self.open.remove(&(entry.when, at));
        entry.state = State::Closed;
        self.closed.insert((entry.when, at));
    }

    /// Takes an entry out, which is settled.
    fn remove(&mut self, at: Position) {
        let Some(entry) = self.entries.remove(&at) else { return };
        self.open.remove(&(entry.when, at));
        self.closed.remove(&(entry.when, at));
        self.ids.remove(&(entry.held.message.id, at));
        self.bytes = self.bytes.saturating_sub(entry.held.weight());
        self.acks.push(at);
        for close in entry.closed_in {
            if let Some(here) = self.closes.get_mut(&close) {
                *here = here.saturating_sub(1);
                if *here == 0 {
                    self.closes.remove(&close);
                    self.acks.push(close);
                }
            }
        }
    }

    /// What became of a job.
    pub(super) fn report(&mut self, report: Report, now: Timestamp) {
        match report {
            Report::Took(written) => {
                if !written {
                    self.busy.taking = false;
                    self.busy.rest = now + AGAIN;
                }
            }
            Report::Closed(of, sure) => {
                self.busy.closing = false;
                if !sure {
                    self.busy.rest = now + AGAIN;
                }
                for at in of {
                    if self.entries.get(&at).is_none_or(|entry| entry.state != State::Closing) {
                        continue;
                    }
                    if sure {
                        self.close(at);
                    } else {
                        self.look_again(at, State::Open, now);
                    }
                }
            }
            Report::Answered(cancel, answered) => {
                if answered {
                    self.cancels.remove(&cancel);
                    self.acks.push(cancel);
                } else if let Some(asked) = self.cancels.get_mut(&cancel) {
                    asked.answering = false;
                    asked.when = now + AGAIN;
                }
            }
            Report::Copied(from, written) => self.copied(from, written, now),
            Report::Moved { away, done, failed } => {
                let on_its_way = if away { &mut self.busy.away } else { &mut self.busy.moving };
                *on_its_way = false;
                if away && !failed.is_empty() {
                    self.busy.rest = now + AGAIN;
                }
                failed.iter().for_each(|at| self.look_again(*at, State::Closed, now));
                done.iter().for_each(|at| self.remove(*at));
                if !done.is_empty() {
                    self.ready.push(Job::Done(done));
                }
            }
            Report::Purged => self.busy.purging = false,
        }
    }

    fn copied(&mut self, from: Position, written: Written, now: Timestamp) {
        self.busy.copies = self.busy.copies.saturating_sub(1);
        if written == Written::No {
            self.busy.rest = now + AGAIN;
        }
        match (written, self.entries.get_mut(&from).map(|entry| entry.state)) {
            (Written::Perhaps, _) => self.uncertain = true,
            (Written::No, Some(State::Killed(cancel))) => {
                self.remove(from);
                self.copy_seen(cancel, None);
            }
            (Written::No, Some(State::Copying)) => {
                if let Some(entry) = self.entries.get_mut(&from) {
                    entry.state = State::Open;
                    self.open.insert((entry.when, from));
                }
            }
            // The copy is read when its turn in the log comes.
            _ => {}
        }
    }

    /// Tries an entry again in a while, longer each time.
    fn look_again(&mut self, at: Position, state: State, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&at) else { return };
        let wait = AGAIN * (1 << entry.tries.min(6));
        entry.tries = entry.tries.saturating_add(1);
        entry.state = state;
        entry.when = entry.held.due().max(now + wait);
        entry.away = false;
        let set = if state == State::Open { &mut self.open } else { &mut self.closed };
        set.insert((entry.when, at));
    }
}

/// After what time something that failed is tried again at first; twice that the next time, and so on up to 64 times that.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
