//! What is stored of acks and epochs, when, and what the answers come to.
//!
//! Pure. One commit is on its way at a time. A server writes all of one into one batch, so that it is cut in parts, one after the other; and where it takes less than
//! servers do by default, that is found out and kept to. Not here: what is stored of one partition (`share.rs`), what a code of a server means (`verdict.rs`), what else
//! is to be done (`duty.rs`).

use super::{
    super::metadata::{HEAD, MOST},
    core::Core,
    share::{Commit, Share},
};
use crate::{
    Assignment, Error, Topic,
    balance::TopicPartition,
    members::{Core as _, Stirred, find, key_of},
};
use std::time::Duration;
use tokio::time::Instant;

/// The first pause before a commit is made again.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest: rebalances that refuse it are short, and may follow each other.
const PAUSE: Duration = Duration::from_millis(200);

/// What a commit may hold in bytes, as a server writes it: half of what it takes by default.
pub(super) const COMMIT: usize = 512 * 1024;
/// A commit of less is not too large where a server does not say so.
const SMALL: usize = 16 * 1024;
/// What it writes of a partition at the most, beside names and metadata.
const OF_ONE: usize = 128;

/// What a server writes of a partition at the most, in bytes.
pub(super) const fn size(group: &str, topic: &str, metadata: usize) -> usize {
    OF_ONE + group.len() + topic.len() + metadata
}

/// What is left of what is stored at once.
#[derive(Debug)]
pub(super) struct Room {
    left: usize,
    is_whole: bool,
}

impl Room {
    pub(super) const fn of(bytes: usize) -> Self {
        Self { left: bytes, is_whole: true }
    }

    /// Whether it goes in, as the first always does. Nothing does behind one that does not.
    pub(super) const fn take(&mut self, size: usize) -> bool {
        let fits = self.is_whole || size <= self.left;
        (self.left, self.is_whole) = (self.left.saturating_sub(size), false);
        fits
    }
}

/// What the servers take, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// All that they write of a commit (`max.message.bytes` of the topic that has the offsets).
    pub(super) commit: usize,
    /// What stands beside an offset (`offset.metadata.max.bytes`).
    pub(super) metadata: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { commit: COMMIT, metadata: MOST }
    }
}

/// What was too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Large {
    Commit,
    /// The commit, or something else: servers do not say.
    Perhaps,
    Metadata,
}

/// Where the group starts in a partition of another member, or of nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) of: TopicPartition,
    pub(super) offset: u64,
    pub(super) metadata: String,
    /// It may be sent until then: later it could be written over what its owner stored.
    pub(super) until: Instant,
}

/// A commit of several partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) token: u64,
    pub(super) commits: Vec<Commit>,
    /// Where the group starts in what it has no position of.
    pub(super) starts: Vec<Begun>,
    pub(super) sent: Instant,
}

/// What a commit of a partition came to.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Stored,
    /// It may be stored later: a rebalance, a coordinator that moves, a server that is away.
    Again,
    /// This member is none any more.
    Expelled,
    /// The topic is not there.
    Missing,
    /// The servers take less.
    TooLarge(Large, Error),
    /// Refused for a reason that lasts.
    Refused(Error),
}

impl Core {
    pub(super) fn commit(&mut self, now: Instant) -> Option<Batch> {
        if self.committing.is_some() || self.expelled.is_some() {
            return None;
        }
        // Answers that are waited for are not held up by the pause after a failure more than need be.
        if self.next_commit > now {
            return None;
        }
        // Who owns the first partition stores them, and of what it owns itself it stores more.
        let Self { starts, ours, .. } = self;
        let first = |topic: &Topic| ours.contains(&(topic.clone(), 0));
        starts.retain(|start| start.until > now && first(&start.of.0) && !ours.contains(&start.of));
        let proof = self.proof_due().is_some_and(|due| due <= now);
        let mut due: Vec<&Share> = self.owner.to_store(now).collect();
        if due.is_empty() && proof {
            due.extend(self.owner.shares.values().next());
        }
        if due.is_empty() && self.starts.is_empty() {
            return None;
        }
        if let Some(cut) = self.cut.take() {
            // Else the first would be stored again and again, and the last never.
            let behind = due.partition_point(|share| key_of(&share.of) <= cut);
            due.rotate_left(behind);
        }
        let mut room = Room::of(self.limits.commit);
        let mut fits = |topic: &Topic, metadata: &str| {
            room.take(size(&self.rules.group, topic.as_str(), metadata.len()))
        };
        let all = due.len();
        let commits = due.into_iter().map(|share| share.commit(self.limits.metadata));
        let commits: Vec<Commit> =
            commits.take_while(|commit| fits(&commit.of.topic, &commit.metadata)).collect();
        if commits.len() < all {
            self.cut = commits.last().map(|commit| key_of(&commit.of));
        }
        let starts = self.starts.iter().take_while(|start| fits(&start.of.0, &start.metadata)).count();
        let starts = self.starts.drain(..starts).collect();
        self.commits += 1;
        self.committing = Some(self.commits);
        Some(Batch { token: self.commits, commits, starts, sent: now })
    }

    /// When it is to be seen that the group still knows this member, where that matters: nothing is handed out for long without. Who has nothing to hand out
    /// asks for it only where nobody else would tell that the session is over.
    pub(super) fn proof_due(&self) -> Option<Instant> {
        let waits = self.owner.ahead.messages > 0 || !self.owner.ready.is_empty();
        let matters = !self.owner.shares.is_empty() && (waits || self.rules.watched);
        matters.then(|| self.evidence + self.rules.session / 3)
    }

    /// What a commit came to, partition by partition: first those of shares, then starts.
    pub(super) fn committed(&mut self, batch: Batch, verdicts: Vec<Verdict>, now: Instant) -> Stirred {
        if self.committing != Some(batch.token) {
            return Stirred::default();
        }
        self.committing = None;
        let fits = self.fit(&batch, &verdicts);
        let mut verdicts = verdicts.into_iter();
        let (mut again, mut assigned) = (false, Vec::new());
        for commit in batch.commits {
            match verdicts.next().unwrap_or(Verdict::Again) {
                Verdict::Stored => {
                    self.evidence = self.evidence.max(batch.sent);
                    assigned.extend(self.stored(&commit, now));
                }
                // It is made again at once.
                Verdict::TooLarge(..) if fits => {}
                Verdict::Again | Verdict::TooLarge(Large::Perhaps, _) => again = true,
                Verdict::Expelled => {
                    self.expel(now);
                    return Stirred { waker: self.tick(now), keeper: true, feed: false };
                }
                Verdict::Missing => {
                    // The client library may say so of all where one topic is gone: it is looked which.
                    (again, self.next_check) = (true, now);
                }
                Verdict::Refused(error) | Verdict::TooLarge(_, error) => {
                    again = true;
                    self.owner.refused(&commit.of, &error);
                }
            }
        }
        for start in batch.starts {
            match verdicts.next() {
                Some(Verdict::TooLarge(..)) if fits => {}
                Some(Verdict::Again | Verdict::TooLarge(Large::Perhaps, _)) => again = true,
                _ => continue,
            }
            self.starts.push(start);
        }
        if again {
            self.next_commit = now + self.commit_pause;
            self.commit_pause = (self.commit_pause * 2).min(PAUSE);
        } else {
            self.commit_pause = FIRST_PAUSE;
        }
        if !assigned.is_empty() {
            self.owner.tell_new(assigned);
        }
        self.owner.answer_flushes();
        Stirred { waker: self.tick(now), keeper: true, feed: false }
    }

    /// Where a commit was too large, the next ones are smaller. `false`: this one could not be.
    fn fit(&mut self, batch: &Batch, verdicts: &[Verdict]) -> bool {
        let large = |verdict: &Verdict| match verdict {
            Verdict::TooLarge(large, _) => Some(*large),
            _ => None,
        };
        let Some(large) = verdicts.iter().find_map(large) else { return true };
        let several = batch.commits.len() + batch.starts.len() > 1;
        let Limits { commit, metadata } = &mut self.limits;
        match large {
            Large::Commit if several => *commit /= 2,
            Large::Perhaps if several && *commit > SMALL => *commit /= 2,
            Large::Perhaps => return false,
            _ if *metadata > HEAD => *metadata = (*metadata / 2).max(HEAD),
            _ => return false,
        }
        let limits = self.limits;
        tracing::warn!(group = %self.rules.group, ?limits, "the servers take less of a commit than they do by default");
        true
    }

    fn stored(&mut self, commit: &Commit, now: Instant) -> Option<(TopicPartition, Assignment)> {
        let share = find(&mut self.owner.shares, &commit.of).ok()?;
        let new = !share.claimed;
        share.stored(commit.changes, commit.confirms, now);
        let assignment = new.then(|| (key_of(&commit.of), share.assignment()));
        self.owner.numbers.left_out += commit.left_out as u64;
        self.owner.saved(&commit.of, commit.changes);
        assignment
    }
}
