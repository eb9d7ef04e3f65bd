//! What is stored of acks and epochs, when, and what the answers come to.
//!
//! Pure. One commit is on its way at a time. Not here: what is stored of one partition (`share.rs`), what a code of a server means (`verdict.rs`), what else
//! is to be done (`duty.rs`).

use super::{
    core::Core,
    share::{Commit, Share},
};
use crate::{
    Assignment, Error,
    balance::TopicPartition,
    members::{Core as _, Stirred, find, key_of},
};
use std::time::Duration;
use tokio::time::Instant;

/// The first pause before a commit is made again.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest: rebalances that refuse it are short, and may follow each other.
const PAUSE: Duration = Duration::from_millis(200);

/// A commit of several partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) token: u64,
    pub(super) commits: Vec<Commit>,
    /// Partition, offset, metadata: where the group starts in what it has no position of.
    pub(super) starts: Vec<(TopicPartition, u64, String)>,
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
        let proof = self.proof_due().is_some_and(|due| due <= now);
        let mut commits: Vec<_> = self.owner.to_store(now).map(Share::commit).collect();
        if commits.is_empty() && proof {
            commits.extend(self.owner.shares.values().next().map(Share::commit));
        }
        if commits.is_empty() && self.starts.is_empty() {
            return None;
        }
        self.commits += 1;
        self.committing = Some(self.commits);
        Some(Batch { token: self.commits, commits, starts: std::mem::take(&mut self.starts), sent: now })
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
        let mut verdicts = verdicts.into_iter();
        let (mut again, mut assigned) = (false, Vec::new());
        for commit in batch.commits {
            match verdicts.next().unwrap_or(Verdict::Again) {
                Verdict::Stored => {
                    self.evidence = self.evidence.max(batch.sent);
                    assigned.extend(self.stored(&commit, now));
                }
                Verdict::Again => again = true,
                Verdict::Expelled => {
                    self.expel(now);
                    return Stirred { waker: self.tick(now), keeper: true, feed: false };
                }
                Verdict::Missing => {
                    // The client library may say so of all where one topic is gone: it is looked which.
                    (again, self.next_check) = (true, now);
                }
                Verdict::Refused(error) => {
                    again = true;
                    self.owner.refused(&commit.of, &error);
                }
            }
        }
        for start in batch.starts {
            if matches!(verdicts.next(), Some(Verdict::Again)) {
                again = true;
                self.starts.push(start);
            }
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
