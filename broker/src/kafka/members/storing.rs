//! What is stored of acks and epochs, when, and what the answers come to.
//!
//! Pure. One commit is on its way at a time. Not here: what is stored of one partition (`share.rs`), what a code of a server means (`verdict.rs`), what else
//! is to be done (`duty.rs`).

use super::{
    core::{Core, Flush, Stirred, Told, find, key_of},
    share::{Commit, Share},
};
use crate::{Assignment, Error, balance::TopicPartition};
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
        let proof = self.wants_proof(now);
        let wants = |share: &&Share| {
            let flushed = |flush: &Flush| flush.left.iter().any(|(of, _)| *of == share.of);
            !share.claimed
                || !share.confirms.is_empty()
                || share.is_due(self.rules.ack_interval, now)
                || share.ending.is_some_and(|ending| !ending.committed)
                || self.flushes.iter().any(flushed)
        };
        let mut commits: Vec<_> = self.shares.values().filter(wants).map(Share::commit).collect();
        if commits.is_empty() && proof {
            commits.extend(self.shares.values().next().map(Share::commit));
        }
        if commits.is_empty() && self.starts.is_empty() {
            return None;
        }
        self.commits += 1;
        self.committing = Some(self.commits);
        Some(Batch { token: self.commits, commits, starts: std::mem::take(&mut self.starts), sent: now })
    }

    /// Whether it is to be seen that the group still knows this member.
    fn wants_proof(&self, now: Instant) -> bool {
        self.rules.watched && now >= self.evidence + self.rules.session / 3
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
                    return Stirred { waker: self.tick(now), poller: true };
                }
                Verdict::Missing => {
                    // The client library may say so of all where one topic is gone: it is looked which.
                    (again, self.next_check) = (true, now);
                }
                Verdict::Refused(error) => {
                    again = true;
                    self.refused(&commit, &error);
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
            self.first_told = true;
            self.numbers.assigned += assigned.len() as u64;
            self.tell(Told::Assigned(assigned));
        }
        self.answer_flushes();
        Stirred { waker: self.tick(now), poller: true }
    }

    fn stored(&mut self, commit: &Commit, now: Instant) -> Option<(TopicPartition, Assignment)> {
        let share = find(&mut self.shares, &commit.of).ok()?;
        let new = !share.claimed;
        share.committed(commit, now);
        self.numbers.left_out += commit.left_out as u64;
        for flush in &mut self.flushes {
            flush.left.retain(|(of, changes)| *of != commit.of || *changes > commit.changes);
        }
        let share = find(&mut self.shares, &commit.of).ok()?;
        new.then(|| (key_of(&commit.of), share.assignment()))
    }

    /// Tells who waits for it that it is refused; it is tried again.
    fn refused(&mut self, commit: &Commit, error: &Error) {
        for flush in &mut self.flushes {
            if flush.left.iter().any(|(of, _)| *of == commit.of) {
                flush.left.retain(|(of, _)| *of != commit.of);
                flush.failed.push((commit.of.clone(), error.clone()));
            }
        }
        if let Ok(share) = find(&mut self.shares, &commit.of) {
            share.confirms.drain(..).for_each(|answer| _ = answer.send(Err(error.clone())));
        }
    }
}
