//! What a member has to do on the server, and what it came to: renewing, claiming, taking over, committing, giving back.
//!
//! Pure. Not here: who does it (`run.rs`), the commit of one partition (`share.rs`), who should own what (`table.rs`).

use super::{
    core::{Core, closed},
    share::{Commit, Share, Taken},
    table::{Counts, Table},
};
use crate::{
    Assignment, Error, ErrorKind, GapReason, Result,
    balance::TopicPartition,
    members::{Core as _, Stirred, find, key_of},
    redis::{failure::BACKEND, follow::Told as Seen},
};
use std::{mem::discriminant, task::Waker, time::Duration};
use tokio::time::Instant;

/// How often the table is looked at, unless the lease asks for more.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The first.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How many partitions are asked for at once: a server does nothing else meanwhile, and the lease is not renewed.
pub(super) const AT_ONCE: usize = 256;

/// What is to be done on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Nothing until then.
    Wait(Instant),
    /// Renew the lease and look at the table. `ask`: with these topics, because they changed.
    Renew {
        ask: Option<String>,
    },
    /// Join again: the lease was over.
    Join {
        topics: String,
    },
    Commit(Vec<Commit>),
    /// Send what is to be forwarded.
    Forward,
    /// Give back; `verb` and `whom` as in `release.lua`.
    Release {
        verb: &'static str,
        whom: String,
        partitions: Vec<TopicPartition>,
    },
    Claim(Vec<TopicPartition>),
    TakeOver(Vec<TopicPartition>),
    Leave,
    /// All is done.
    End,
}

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Yes,
    /// Another epoch, or another life.
    Over,
}

impl Core {
    /// What is to be done next.
    pub(super) fn next_job(&mut self, now: Instant) -> Job {
        if self.owner.over {
            return Job::End;
        }
        if let Some(retry) = self.retry.filter(|retry| *retry > now) {
            return Job::Wait(self.due().map_or(retry, |due| due.min(retry)));
        }
        self.retry = None;
        if self.lost {
            return if self.owner.closing.is_some() {
                Job::Leave
            } else {
                Job::Join { topics: self.topics() }
            };
        }
        // Before commits, which would not know of what it acks; but the lease goes on.
        if !self.rounds.is_empty() {
            return if self.next_renew <= now {
                Job::Renew { ask: self.ask.then(|| self.topics()) }
            } else {
                Job::Forward
            };
        }
        let commits = self.commits(now);
        if !commits.is_empty() {
            return Job::Commit(commits);
        }
        if let Some(release) = self.releases() {
            return release;
        }
        if self.owner.closing.is_some() && self.owner.shares.is_empty() {
            return Job::Leave;
        }
        if self.look || self.next_renew <= now {
            return Job::Renew { ask: self.ask.then(|| self.topics()) };
        }
        if self.owner.closing.is_none()
            && let Some(job) = self.takes(now)
        {
            return job;
        }
        self.settled = true;
        self.owner.tell_nothing();
        Job::Wait(self.until(now))
    }

    pub(super) fn until(&self, now: Instant) -> Instant {
        let acks_due = self.owner.acks_due(|key| self.away.is_due(key, now));
        [acks_due, self.due(), self.away.next(now)].into_iter().flatten().fold(self.next_renew, Instant::min)
    }

    pub(super) fn commits(&self, now: Instant) -> Vec<Commit> {
        // Who waits is answered, though it is in vain.
        let due = |share: &&Share| self.owner.is_awaited(share) || self.away.is_due(&key_of(&share.of), now);
        self.owner.to_store(now).filter(due).map(Share::commit).collect()
    }

    /// What has gone and is not given back yet; of those that go to the same, all at once.
    pub(super) fn releases(&self) -> Option<Job> {
        let gone = |share: &Share| share.ending.is_some_and(|ending| ending.committed && ending.told);
        let all: Vec<_> = self.owner.shares.iter().filter(|(_, share)| gone(share)).collect();
        let to = all.first()?.1.log.to.clone();
        let verb = if self.owner.closing.is_some() {
            "leaving"
        } else if to.is_some() {
            "to"
        } else {
            "stay"
        };
        let partitions =
            all.into_iter().filter(|(_, share)| share.log.to == to).map(|(key, _)| key.clone()).collect();
        Some(Job::Release { verb, whom: to.unwrap_or_default(), partitions })
    }

    /// What the table says is ours and we do not have yet, then what is free and should be ours.
    pub(super) fn takes(&self, now: Instant) -> Option<Job> {
        let me = self.rules.name.as_str();
        let there = |key: &TopicPartition| self.counts.get(&key.0).is_some_and(|count| key.1 < *count);
        let new = self.table.owned_by(me).filter(|key| !self.owner.shares.contains_key(*key)).cloned();
        let (mut take, give): (Vec<_>, Vec<_>) =
            new.partition(|key| self.topics.contains(&key.0) && there(key));
        if !give.is_empty() {
            return Some(Job::Release { verb: "stay", whom: String::new(), partitions: give });
        }
        take.retain(|key| self.away.is_due(key, now));
        take.truncate(AT_ONCE);
        if !take.is_empty() {
            return Some(Job::TakeOver(take));
        }
        let free = |(key, who): &(&TopicPartition, &String)| *who == me && self.table.owner(key).is_none();
        let claim: Vec<_> = self.wanted.iter().filter(free).map(|(key, _)| key.clone()).collect();
        (!claim.is_empty()).then_some(Job::Claim(claim))
    }

    /// A job failed: it is tried again after a pause.
    pub(super) fn failed(&mut self, job: &Job, error: &Error, now: Instant) -> Option<Waker> {
        if self.refused.entry(discriminant(job)).or_default().last(error, now) {
            return self.fail(error.clone(), now);
        }
        self.retry = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE);
        match job {
            Job::Commit(commits) => {
                for commit in commits {
                    self.owner.refused(&commit.of, error);
                }
                self.owner.answer_flushes();
            }
            // The lease ends what is left.
            Job::Leave => self.end(closed()),
            _ => {}
        }
        self.tick(now)
    }

    /// A job was done, whatever it came to.
    pub(super) fn did(&mut self, job: &Job) {
        self.refused.remove(&discriminant(job));
    }

    /// Nobody but the user can change what keeps it from going on: all is lost, and it leaves as far as that is possible.
    pub(super) fn fail(&mut self, error: Error, now: Instant) -> Option<Waker> {
        self.lose_all();
        self.rounds.end(&error);
        self.owner.ended.get_or_insert_with(|| error.on(BACKEND));
        self.owner.closing = Some(now);
        self.owner.wake_if_told()
    }

    pub(super) fn worked(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// What each commit came to; one that failed is made again after a pause of its own.
    pub(super) fn stored(
        &mut self,
        commits: &[Commit],
        stored: Vec<Result<Stored>>,
        now: Instant,
    ) -> Option<Waker> {
        self.worked();
        for (commit, stored) in commits.iter().zip(stored) {
            let key = key_of(&commit.of);
            if let Err(error) = stored {
                self.owner.refused(&commit.of, &error);
                if self.away.failed(&key, &error, now) {
                    return self.fail(error, now);
                }
                continue;
            }
            self.away.over(&key);
            let Ok(share) = find(&mut self.owner.shares, &commit.of) else { continue };
            match stored {
                Ok(Stored::Yes) => {
                    share.committed(commit, now);
                    self.owner.saved(&commit.of, commit.changes);
                }
                _ => self.lose(&key),
            }
        }
        self.owner.answer_flushes();
        self.tick(now)
    }

    pub(super) fn released(&mut self, partitions: &[TopicPartition]) {
        self.worked();
        for key in partitions {
            self.table.set_owner(key, None);
            let gone = self.owner.shares.get(key).is_some_and(|share| share.ending.is_some());
            if gone {
                self.owner.shares.remove(key);
            }
        }
        self.look = true;
    }

    pub(super) fn claimed(&mut self, asked: usize, won: Vec<TopicPartition>) {
        self.worked();
        if won.len() < asked {
            self.look = true;
        }
        for key in won {
            self.table.set_owner(&key, Some(&self.rules.name));
            self.ours.insert(key);
        }
    }

    /// The news tell that the table changed.
    pub(super) fn news(&mut self) {
        self.look = true;
    }

    /// What a partition lost that was followed on another server before, as far as that shows.
    fn lost_on_the_way(&mut self, key: &TopicPartition, taken: &Taken) {
        let Some(mut followed) = self.before.remove(key) else { return };
        if taken.life == followed.life()
            && let Some(Seen::Gap { from, to, why: GapReason::Truncated }) = followed.verify(taken.counts)
        {
            self.truncated.insert(key.clone(), (from, to));
        }
    }

    /// What was taken over; what is not there is looked for again with the next look, and what failed after a pause of its own.
    pub(super) fn taken(
        &mut self,
        asked: &[TopicPartition],
        taken: Vec<Result<Option<Taken>>>,
        now: Instant,
    ) -> Stirred {
        self.worked();
        let mut list = Vec::with_capacity(taken.len());
        for (key, taken) in asked.iter().cloned().zip(taken) {
            let taken = match taken {
                Ok(Some(taken)) => taken,
                Ok(None) => {
                    self.look = true;
                    self.retry = Some(now + self.pause);
                    continue;
                }
                Err(error) if self.away.failed(&key, &error, now) => {
                    return Stirred { waker: self.fail(error, now), ..Stirred::default() };
                }
                Err(_) => continue,
            };
            self.away.over(&key);
            if !self.ours.remove(&key) && self.settled {
                self.calm.clone_from(&self.membership);
            }
            self.lost_on_the_way(&key, &taken);
            let resumed = (taken.resumed).then(|| taken.before.unwrap_or(taken.position));
            let anew = self.is_anew(&taken);
            let mut share = Share::begin(taken);
            if anew {
                share.begins_anew();
            }
            if let Some((from, to)) = self.truncated.remove(&key) {
                share.lost_its_end(from, to);
            }
            let assignment = Assignment { of: share.of.clone(), resumed, from: share.from() };
            self.owner.shares.insert(key.clone(), share);
            list.push((key, assignment));
        }
        if list.is_empty() {
            return Stirred::default();
        }
        self.owner.tell_new(list);
        if let Some(until) = self.owner.closing {
            // It was closed meanwhile.
            return self.close(until.saturating_duration_since(now), None, now);
        }
        Stirred { waker: self.owner.waker.take(), keeper: false, feed: true }
    }

    /// Whether the topic is another than the one this member knew, and what the group had of that is lost as well: nobody else could tell.
    fn is_anew(&mut self, taken: &Taken) -> bool {
        let Some(life) = taken.life else { return false };
        let count = self.counts.get(&taken.of.topic).copied().unwrap_or(0);
        let (was, had) = *self.lives.entry(taken.of.topic.clone()).or_insert((life, count));
        !taken.resumed && was != life && taken.of.partition < had
    }

    /// The lease holds, and this is the table. `sent`: when it was asked for; `asked`: with our topics.
    pub(super) fn held(
        &mut self,
        table: Table,
        counts: Counts,
        asked: Option<&str>,
        sent: Instant,
    ) -> Option<Waker> {
        self.worked();
        let late = sent >= self.renewed + self.rules.hands_out();
        self.renewed = sent;
        self.next_renew = sent + (self.rules.lease / 3).min(LOOK);
        self.look = false;
        if asked.is_some_and(|asked| asked == self.topics()) {
            self.ask = false;
        }
        let membership = table.membership(&counts);
        self.wanted = table.wanted(&counts);
        self.before.retain(|key, _| self.wanted.get(key) == Some(&self.rules.name));
        self.away.retain(|key| table.owner(key) == Some(self.rules.name.as_str()));
        self.calm = self.calm.take().filter(|calm| *calm == membership);
        (self.table, self.counts, self.membership) = (table, counts, Some(membership));
        if self.owner.closing.is_none() {
            self.revoke(sent);
        }
        if late { self.owner.waker.take() } else { self.owner.wake_if_told() }
    }

    pub(super) fn revoke(&mut self, now: Instant) {
        let me = self.rules.name.as_str();
        let goes = |key: &&TopicPartition| {
            let ours = self.wanted.get(*key).is_some_and(|who| who == me);
            let fell_away = !self.topics.contains(&key.0);
            (!ours && self.calm.is_none() && !self.ask) || fell_away
        };
        let keys: Vec<_> = self.owner.shares.keys().filter(goes).cloned().collect();
        self.owner.revoke(&keys, now);
    }

    /// Another has our name: this membership is over.
    pub(super) fn fenced(&mut self, group: &str) -> Option<Waker> {
        self.lose_all();
        let context =
            format!("another member of group {group:?} has taken the name {:?} over", self.rules.name);
        self.end(Error::new(ErrorKind::Fenced, context));
        self.owner.waker.take()
    }

    /// The lease was over: all is another's, and this member joins again.
    pub(super) fn lost(&mut self) -> Option<Waker> {
        self.lose_all();
        self.table = Table::default();
        self.wanted.clear();
        (self.lost, self.settled, self.ask) = (true, false, false);
        self.owner.wake_if_told()
    }

    pub(super) fn joined(&mut self) {
        self.lost = false;
    }

    pub(super) fn left(&mut self) -> Option<Waker> {
        self.end(closed());
        self.owner.waker.take()
    }

    pub(super) fn end(&mut self, error: Error) {
        self.owner.shares.clear();
        self.owner.end(error);
        self.rounds.end(&closed());
    }
}
