//! What a member has to do with the client, and what it came to: subscribing, looking, committing, reading from a place, answering a revocation, leaving.
//!
//! Pure. Not here: who does it (`poller.rs`), what is stored (`storing.rs`), what a partition begins with (`taking.rs`), what is read (`reading.rs`).

use super::{
    core::Core,
    gate::Gate,
    going::LAST,
    reading::Run,
    share::{Read, Share},
    storing::{Batch, Begun},
    taking::{self, Looked, Seen},
};
use crate::{
    Error, ErrorKind, GapReason, Timestamp, Topic,
    balance::TopicPartition,
    kafka::{
        damage::Damaged,
        standing::{STANDS, Standing, Why},
    },
    members::{Stirred, queue},
};
use std::{collections::BTreeSet, task::Waker, time::Duration};
use tokio::time::Instant;

/// How often the thread that polls the client looks around at least.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// How often it is looked whether topics are the same as before.
pub(super) const CHECK: Duration = Duration::from_secs(5);
/// The longest pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause before it is looked again at a partition that could not be asked about, such as one without a leader.
const AGAIN: Duration = Duration::from_millis(200);
/// The first.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// For how long who owns the first partition of a topic is left to store where the group starts in all of them.
const FRESH: Duration = Duration::from_secs(2);
/// For how long that one takes for true that the others have stored nothing.
const SURELY: Duration = Duration::from_secs(1);
/// How long a member waits to be told that it owns nothing.
const NOTHING: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Ask the client for what comes, and so many records, until then.
    Wait(Instant, usize),
    /// Do not ask it: too much lies ready.
    Moment(Instant),
    Subscribe(Vec<Topic>),
    /// Answer the revocation; these were read.
    Answer(Vec<TopicPartition>),
    /// Do not read these any more.
    Unassign(Vec<TopicPartition>),
    /// Read these from there.
    Assign(Vec<Placed>),
    Hold(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    Commit(Batch),
    /// Look what these begin with, or why they do not go on; and whether these topics are the same.
    Look {
        keys: Vec<TopicPartition>,
        check: BTreeSet<Topic>,
    },
    /// Start again with another client: this one is no use any more.
    Reopen,
    Leave,
    /// All is done.
    End,
}

/// Where a partition is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) key: TopicPartition,
    pub(super) life: u64,
    pub(super) offset: u64,
}

impl Core {
    /// What is to be done next.
    pub(super) fn next_job(&mut self, now: Instant) -> Job {
        if self.owner.over {
            return Job::End;
        }
        if let Some(job) = self.answer() {
            return job;
        }
        let open = self.owner.closing.is_none();
        if open && (self.useless || self.expelled.is_some_and(|since| now >= since + self.rules.session)) {
            return Job::Reopen;
        }
        if self.subscribe && open {
            self.subscribe = false;
            return Job::Subscribe(self.topics.keys().cloned().collect());
        }
        if let Some(batch) = self.commit(now) {
            return Job::Commit(batch);
        }
        if !open && (self.is_done() || self.leave_by().is_some_and(|by| by <= now)) {
            return Job::Leave;
        }
        if let Some(job) = self.place(now).or_else(|| self.look(now)) {
            return job;
        }
        self.tell_nothing(now);
        self.flow(now)
    }

    /// When a member that closes leaves at the latest.
    fn leave_by(&self) -> Option<Instant> {
        self.owner.closing.map(|until| until + LAST)
    }

    fn is_done(&self) -> bool {
        self.owner.shares.is_empty() && self.committing.is_none()
    }

    /// Answers a revocation once all of it has gone.
    fn answer(&mut self) -> Option<Job> {
        let gone =
            |keys: &BTreeSet<TopicPartition>| keys.iter().all(|key| !self.owner.shares.contains_key(key));
        if !self.revoked.as_ref().is_some_and(gone) {
            return None;
        }
        let keys = self.revoked.take()?;
        let read: Vec<_> = keys.into_iter().filter(|key| self.placed.remove(key)).collect();
        Some(Job::Answer(read))
    }

    /// What the client is to read, and no more.
    fn place(&mut self, now: Instant) -> Option<Job> {
        // While a revocation is open, the client takes this for its answer.
        if self.revoked.is_none() && self.expelled.is_none() {
            let stale =
                |key: &&TopicPartition| self.owner.shares.get(*key).is_none_or(|share| !share.log.placed);
            let stale: Vec<_> = self.placed.iter().filter(stale).cloned().collect();
            if !stale.is_empty() {
                stale.iter().for_each(|key| _ = self.placed.remove(key));
                return Some(Job::Unassign(stale));
            }
        }
        if self.revoked.is_some() || self.owner.closing.is_some() {
            return None;
        }
        let mut assign = Vec::new();
        for (key, share) in &mut self.owner.shares {
            let open = share.claimed && share.ending.is_none() && share.revoking.is_none();
            if open && share.log.stuck.is_none() && !self.placed.contains(key) {
                (share.log.placed, share.log.read_at) = (true, now);
                assign.push(Placed { key: key.clone(), life: share.log.life, offset: share.log.next });
            }
        }
        self.placed.extend(assign.iter().map(|place| place.key.clone()));
        (!assign.is_empty()).then_some(Job::Assign(assign))
    }

    /// What the client could not be told to read: it is tried again.
    pub(super) fn not_placed(&mut self, places: &[Placed], now: Instant) {
        self.next_look = now + PAUSE;
        for Placed { key, .. } in places {
            self.placed.remove(key);
            self.lose(key);
        }
    }

    pub(super) fn look(&mut self, now: Instant) -> Option<Job> {
        if self.looking.is_some() || self.owner.closing.is_some() || self.expelled.is_some() {
            return None;
        }
        let mut check = BTreeSet::new();
        if self.next_check <= now {
            self.next_check = now + CHECK;
            check.extend(self.owner.shares.keys().map(|key| key.0.clone()));
        }
        let mut keys = Vec::new();
        if self.next_look <= now {
            keys = self.unknown();
            check.extend(self.parked().cloned());
        }
        if keys.is_empty() && check.is_empty() {
            return None;
        }
        self.looking = Some(keys.iter().cloned().collect());
        self.looks += 1;
        Some(Job::Look { keys, check })
    }

    /// Topics of which it is not known whether what was read is of the same.
    fn parked(&self) -> impl Iterator<Item = &Topic> {
        self.owner.shares.iter().filter(|(_, share)| share.log.parked.is_some()).map(|(key, _)| &key.0)
    }

    /// What is ours and not taken yet, and what does not go on.
    fn unknown(&self) -> Vec<TopicPartition> {
        let stuck = |key: &&TopicPartition| {
            self.owner
                .shares
                .get(*key)
                .is_none_or(|share| share.log.stuck.is_some() && share.ending.is_none())
        };
        self.ours.iter().filter(stuck).cloned().collect()
    }

    /// What to look for where a partition does not go on from an offset.
    pub(super) fn stuck(&mut self, key: &TopicPartition, wanted: u64) {
        if let Some(share) = self.owner.shares.get_mut(key).filter(|share| share.log.placed) {
            share.log.stuck = Some(wanted);
        }
    }

    /// Those of which nothing came for a while, though they are read.
    pub(super) fn standing(&mut self, now: Instant) -> Vec<Standing> {
        let mut all = Vec::new();
        for (key, share) in &mut self.owner.shares {
            let reads = share.takes() && !share.log.held;
            let log = &mut share.log;
            if !reads || now < log.read_at + STANDS.0 || log.stood.is_some_and(|at| now < at + STANDS.1) {
                continue;
            }
            log.stood = Some(now);
            all.push(Standing { place: key.clone(), life: log.life, next: log.next, fine: log.fine });
        }
        all
    }

    /// Why a partition stands still.
    pub(super) fn stands(&mut self, standing: &Standing, why: Why, now: Instant) -> Stirred {
        let key = &standing.place;
        let same = |share: &&mut Share| {
            share.takes() && (share.log.life, share.log.next) == (standing.life, standing.next)
        };
        let Some(share) = self.owner.shares.get_mut(key).filter(same) else { return Stirred::default() };
        match why {
            Why::Fine(up_to) => share.log.fine = up_to,
            Why::Damaged(why) => {
                share.log.stood = None;
                let at = Timestamp::now().as_millis();
                let read = Read { offset: standing.next, at, what: Err((None, why)) };
                return self.told_damaged(key, read, now);
            }
        }
        Stirred::default()
    }

    /// What the client did not tell.
    fn told_damaged(&mut self, key: &TopicPartition, read: Read, now: Instant) -> Stirred {
        let waker = self.take(&mut [Run { key: key.clone(), reads: vec![read] }], now);
        Stirred { waker, keeper: true, feed: false }
    }

    /// Where damaged batches begin whose ends are to be found.
    pub(super) fn damaged(&self, keys: &[TopicPartition]) -> Vec<Damaged> {
        let damaged = |key: &TopicPartition| {
            let log = &self.owner.shares.get(key)?.log;
            Some(Damaged { place: key.clone(), life: log.life, begin: log.damaged? })
        };
        keys.iter().filter_map(damaged).collect()
    }

    /// What was found.
    pub(super) fn looked(
        &mut self,
        keys: &[TopicPartition],
        check: &BTreeSet<Topic>,
        found: Result<Looked, Error>,
        now: Instant,
    ) -> Stirred {
        let asked = self.looking.take().unwrap_or_default();
        let looked = match found {
            Ok(looked) => looked,
            Err(error) => {
                tracing::debug!(%error, group = %self.rules.group, "a member of a group looks again");
                self.next_look = now + self.pause;
                self.pause = (self.pause * 2).min(PAUSE);
                return Stirred::default();
            }
        };
        self.pause = FIRST_PAUSE;
        self.compare(keys, check, &looked);
        self.unpark(check, &looked.unknown);
        if !looked.unknown.is_empty() {
            self.next_look = now + PAUSE;
        }
        for key in keys.iter().filter(|key| !looked.unknown.contains(&key.0)) {
            let Some(seen) = looked.topics.get(&key.0) else {
                self.next_look = now + PAUSE;
                continue;
            };
            // What another had meanwhile stands elsewhere by now: it is looked again.
            if !self.ours.contains(key) || !asked.contains(key) {
                continue;
            }
            match self.owner.shares.get(key).map(|share| share.log.stuck) {
                Some(Some(_)) => self.unstick(key, seen, now),
                Some(None) => {}
                None => self.begin(key, seen, &looked, now),
            }
        }
        Stirred { waker: self.owner.wake_if_told(), keeper: true, feed: false }
    }

    /// Loses what is of a topic that is another by now, or is gone.
    fn compare(&mut self, keys: &[TopicPartition], check: &BTreeSet<Topic>, looked: &Looked) {
        let mut asked: BTreeSet<&Topic> = check.iter().chain(keys.iter().map(|key| &key.0)).collect();
        asked.retain(|topic| !looked.unknown.contains(*topic));
        let other = |(key, share): &(&TopicPartition, &Share)| {
            let life = looked.topics.get(&key.0).map(|seen| seen.life);
            asked.contains(&key.0) && life != Some(share.log.life)
        };
        let lost: Vec<_> = self
            .owner
            .shares
            .iter()
            .filter(other)
            .map(|(key, share)| (key.clone(), share.log.life))
            .collect();
        for (key, life) in lost {
            self.before.entry(key.clone()).or_default().life.get_or_insert(life);
            self.lose(&key);
        }
    }

    /// These topics are the same as before: what came before that look is of them.
    fn unpark(&mut self, check: &BTreeSet<Topic>, unknown: &BTreeSet<Topic>) {
        for (key, share) in &mut self.owner.shares {
            let is_known = check.contains(&key.0) && !unknown.contains(&key.0);
            if is_known && share.log.parked.is_some_and(|since| since < self.looks) {
                share.log.parked = None;
                if share.live {
                    queue(&mut self.owner.ready, key, share);
                }
            }
        }
    }

    /// A partition could not be read on from an offset.
    fn unstick(&mut self, key: &TopicPartition, seen: &Seen, now: Instant) {
        let Some((low, high)) = seen.ends.get(&key.1).copied() else {
            self.next_look = now + AGAIN;
            return;
        };
        let Some(share) = self.owner.shares.get_mut(key) else { return };
        // Where the client wanted to read says nothing: behind a damaged batch that is any number, and the problem of the batch itself may be lost with it.
        if share.log.next > high {
            self.before.entry(key.clone()).or_default().truncated = Some((share.log.next, high));
            self.lose(key);
            return;
        }
        let missing = match (share.log.damaged, seen.behind.get(&key.1)) {
            _ if share.log.next < low => Some((low, GapReason::Trimmed)),
            (Some(_), Some(to)) => Some((*to, GapReason::Damaged)),
            (Some(_), None) => {
                self.next_look = now + AGAIN;
                return;
            }
            (None, _) => None,
        };
        share.log.stuck = None;
        share.log.placed = false;
        if let Some((to, why)) = missing {
            share.lacks(to, why);
            if share.live {
                queue(&mut self.owner.ready, key, share);
            }
        }
    }

    /// Takes a partition, as soon as the epoch is stored.
    fn begin(&mut self, key: &TopicPartition, seen: &Seen, looked: &Looked, now: Instant) {
        let mut before = self.before.get(key).copied().unwrap_or_default();
        before.life = before.life.or_else(|| looked.known.get(&key.0).copied());
        if *self.lives.entry(key.0.clone()).or_insert(seen.life) != seen.life {
            // This client knows the topic before: it would go on with leaders and epochs of that.
            self.useless = true;
            return;
        }
        let is_fresh = seen.stored.is_empty() && before.life.is_none_or(|life| life == seen.life);
        if is_fresh && !self.may_start(key, seen, looked.asked, now) {
            self.next_look = now + FIRST_PAUSE;
            return;
        }
        let Some((taken, foreign)) = taking::take(key, seen, before, looked.clock) else {
            self.next_look = now + AGAIN;
            return;
        };
        if foreign {
            tracing::warn!(
                topic = %key.0, partition = key.1, group = %self.rules.group,
                "the group's offset has metadata of somebody else: what was done beyond it comes again"
            );
        }
        if taken.gap.is_some_and(|gap| gap.to.is_some_and(|to| gap.from.is_none_or(|from| from >= to))) {
            tracing::debug!(topic = %key.0, partition = key.1, gap = ?taken.gap, "the log is not what it was");
        }
        self.before.remove(key);
        self.owner.shares.insert(key.clone(), Share::begin(taken, now));
    }

    /// Whether this member may store where the group starts: who owns the first partition does it for all; where nobody does, each for its own. `asked`: when
    /// the group had nothing.
    fn may_start(&mut self, key: &TopicPartition, seen: &Seen, asked: Option<Instant>, now: Instant) -> bool {
        if self.ours.contains(&(key.0.clone(), 0)) {
            let pending = |of: &TopicPartition| self.starts.iter().any(|start| start.of == *of);
            let others = seen.starts.iter().map(|(partition, offset)| ((key.0.clone(), *partition), *offset));
            let others: Vec<_> = others.filter(|(of, _)| !self.ours.contains(of) && !pending(of)).collect();
            let until = asked.map(|asked| asked + SURELY).filter(|until| *until > now);
            if others.is_empty() {
                return true;
            }
            if let Some(until) = until {
                let metadata = taking::start(seen.life);
                let begun = |(of, offset)| Begun { of, offset, metadata: metadata.clone(), until };
                self.starts.extend(others.into_iter().map(begun));
                return true;
            }
        }
        let since = *self.fresh.entry(key.0.clone()).or_insert(now);
        now >= since + FRESH
    }

    /// The group gave these to this member.
    pub(super) fn assigned(
        &mut self,
        keys: impl IntoIterator<Item = TopicPartition>,
        now: Instant,
    ) -> Stirred {
        self.expelled = None;
        self.joined.get_or_insert(now);
        // What was refused because of the rebalance may be stored now.
        (self.next_commit, self.next_look) = (now, now);
        (self.pause, self.commit_pause) = (FIRST_PAUSE, super::storing::FIRST_PAUSE);
        self.ours.extend(keys);
        if self.ours.is_empty() && self.owner.closing.is_none() {
            self.owner.tell_nothing();
        }
        Stirred { waker: self.owner.wake_if_told(), keeper: true, feed: false }
    }

    /// Who owns nothing is told so, where the group says nothing.
    fn tell_nothing(&mut self, now: Instant) {
        if self.ours.is_empty()
            && self.expelled.is_none()
            && self.joined.is_some_and(|since| now >= since + NOTHING)
        {
            self.owner.tell_nothing();
        }
    }

    /// The group takes these back. `lost`: it has done so already.
    pub(super) fn revoke(&mut self, keys: BTreeSet<TopicPartition>, lost: bool, now: Instant) -> Stirred {
        // The client library calls it lost, too, where this member asked for other topics; then it may still be drained and stored.
        let lost = lost && keys.iter().any(|key| self.topics.contains_key(&key.0));
        for key in &keys {
            self.not_ours(key);
            if self.owner.shares.get(key).is_some_and(|share| lost || !share.claimed) {
                self.lose(key);
            }
        }
        self.owner.revoke(&keys, now);
        self.revoked.get_or_insert_default().extend(keys);
        Stirred { waker: self.owner.wake_if_told(), keeper: true, feed: false }
    }

    /// It may be another's from now on: what a look finds that was begun before is not true any more.
    fn not_ours(&mut self, key: &TopicPartition) {
        self.ours.remove(key);
        self.fresh.remove(&key.0);
        self.looking.iter_mut().for_each(|asked| _ = asked.remove(key));
    }

    /// The same of all.
    pub(super) fn none_ours(&mut self) {
        self.ours.clear();
        self.fresh.clear();
        self.looking.iter_mut().for_each(BTreeSet::clear);
    }

    /// The client is of no use any more. `fenced`: another member took the name.
    pub(super) fn failed(&mut self, fenced: bool, now: Instant) -> Stirred {
        if fenced {
            let context = format!("another member of group {:?} has taken the name over", self.rules.group);
            self.end(Error::new(ErrorKind::Fenced, context).on(crate::kafka::failure::BACKEND));
        } else {
            self.expel(now);
            self.useless = true;
        }
        Stirred { waker: self.owner.waker.take(), keeper: true, feed: false }
    }

    /// Another client was opened.
    pub(super) fn reopened(&mut self, now: Instant) {
        self.lose_all();
        self.none_ours();
        self.placed.clear();
        self.held.clear();
        self.gate = Gate::default();
        self.revoked = None;
        self.lives.clear();
        (self.committing, self.expelled, self.useless) = (None, None, false);
        (self.subscribe, self.evidence) = (true, now);
    }

    /// It left the group.
    pub(super) fn left(&mut self) -> Option<Waker> {
        self.end(super::core::closed());
        self.owner.waker.take()
    }

    pub(super) fn until(&self, now: Instant) -> Instant {
        let acks = self
            .owner
            .acks_due(|_| true)
            .filter(|_| self.committing.is_none())
            .map(|due| due.max(self.next_commit));
        let wanted = self.owner.shares.values().any(|share| !share.claimed || !share.confirms.is_empty());
        let commits = wanted || !self.starts.is_empty() || self.owner.is_flushing();
        let commits = (commits && self.committing.is_none()).then_some(self.next_commit);
        let proof = self
            .proof_due()
            .filter(|_| self.committing.is_none() && self.expelled.is_none())
            .map(|due| due.max(self.next_commit));
        let look = !self.unknown().is_empty() || self.parked().next().is_some();
        let look = (look && self.looking.is_none() && self.owner.closing.is_none()).then_some(self.next_look);
        let later = [acks, commits, proof, look, self.owner.due(), self.leave_by().filter(|by| *by > now)];
        later.into_iter().flatten().fold(now + TICK, Instant::min)
    }
}
