//! Doing what was decided: appends to the internal topic, moves to the topic itself, answers.
//!
//! Not here: what is decided (`plan.rs`), when it is done (`engine.rs`).

use super::{
    desk::Desk,
    ground::Ground,
    names::{Names, SHELVES},
    record::{Held, MOST_PLACES, Record},
    shelf::{Job, Report, Written},
    tier::tier_of,
};
use crate::{Control, Durability, ErrorKind, Message, Owned, Position, Published, Target, Timestamp};
use futures::future::join_all;
use std::{collections::BTreeMap, sync::Arc};

/// What jobs need.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) ground: Arc<dyn Ground>,
    pub(super) names: Arc<Names>,
    pub(super) desk: Arc<Desk>,
}

/// Whether the topic that messages wait for is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It is, or nobody knows.
    Here,
    /// There is none of that name.
    Missing,
    /// It was deleted and made again.
    Other,
}

/// What became of what waits at a front of what was put away.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) done: Vec<Position>,
    pub(super) failed: bool,
}

/// What goes to one place, and where each lay.
type Group = (Vec<Position>, Vec<Message>);

impl Site {
    /// Asks whether the topic is there.
    pub(super) async fn life(&self) -> Life {
        match self.ground.look(&self.names.topic).await {
            Ok(seen) if seen.life == self.names.life => Life::Here,
            Ok(_) => Life::Other,
            Err(error) if error.kind() == ErrorKind::NotFound => Life::Missing,
            Err(_) => Life::Here,
        }
    }

    fn place(&self, partition: u32) -> Target {
        Target { partition: Some(partition), ..(&self.names.internal).into() }
    }

    async fn append(&self, partition: u32, record: &Record) -> Written {
        let carrier = record.pack(self.ground.now());
        self.put(&self.place(partition), vec![carrier]).await.pop().unwrap_or(Written::Perhaps)
    }

    /// Publishes at once; what became of each.
    async fn put(&self, to: &Target, batch: Vec<Message>) -> Vec<Written> {
        let told = self.ground.put(to, batch).await;
        let written = |published| match published {
            Published::Acked { .. } => Written::Yes,
            Published::NotWritten(failed) => {
                tracing::debug!(topic = %to.topic, error = %failed.error, "a delayed message is tried again");
                if failed.error.kind() == ErrorKind::Unauthorized {
                    self.desk.forbid(failed.error);
                }
                Written::No
            }
            Published::Unknown(_) => Written::Perhaps,
        };
        told.into_iter().map(written).collect()
    }

    /// Does a job. `None`: there is nothing to tell of it.
    pub(super) async fn perform(self, of: Owned, control: Arc<dyn Control>, job: Job) -> Option<Report> {
        let partition = of.partition;
        Some(match job {
            Job::Take => {
                let take = Record::Take { epoch: of.epoch };
                Report::Took(self.append(partition, &take).await == Written::Yes)
            }
            Job::Close(closed) => {
                let close = Record::Close { epoch: of.epoch, of: closed.clone() };
                let sure = self.append(partition, &close).await == Written::Yes
                    && control.confirm(&of).await.is_ok();
                Report::Closed(closed, sure)
            }
            Job::Settle { cancel, token, of: gone } => {
                let sure = self.done(partition, &gone).await && control.confirm(&of).await.is_ok();
                Report::Answered(cancel, sure && self.answer(partition, token, true).await)
            }
            Job::Refuse { cancel, token } => {
                Report::Answered(cancel, self.answer(partition, token, false).await)
            }
            Job::Done(gone) => {
                // Where it fails, what was moved may be moved again after a crash.
                self.done(partition, &gone).await;
                return None;
            }
            Job::Copy { from, held } => {
                Report::Copied(from, self.append(partition, &Record::Message(held)).await)
            }
            Job::Move(all) => self.deliver(all).await,
            Job::Away(all) => {
                let now = self.ground.now();
                let tier = |held: &Held| SHELVES + tier_of(held.due().since(now)) as u32;
                let (done, failed) = self.append_all(all, tier).await;
                Report::Moved { away: true, done, failed }
            }
            Job::Purge(before) => {
                if let Err(error) = self.ground.purge(&self.names.internal, partition, before).await {
                    tracing::debug!(topic = %self.names.internal, %error, "delayed messages that are done take room");
                }
                Report::Purged
            }
            Job::GiveUp => return None,
        })
    }

    async fn done(&self, partition: u32, gone: &[Position]) -> bool {
        for of in gone.chunks(MOST_PLACES) {
            if self.append(partition, &Record::Done { of: of.to_vec() }).await != Written::Yes {
                return false;
            }
        }
        true
    }

    /// Answers a cancel: at once where it was asked in this process, else in the log.
    async fn answer(&self, partition: u32, token: u128, cancelled: bool) -> bool {
        self.desk.answer(token, cancelled)
            || self.append(partition, &Record::Answer { token, cancelled }).await == Written::Yes
    }

    /// Publishes to the topic what is due.
    async fn deliver(&self, all: Vec<(Position, Held)>) -> Report {
        let mut groups: BTreeMap<(Option<u32>, Option<Durability>), Group> = BTreeMap::new();
        for (at, held) in all {
            let group = groups.entry((held.partition, held.at_least)).or_default();
            group.0.push(at);
            group.1.push(held.message);
        }
        let puts = groups.into_iter().map(async |((partition, at_least), (places, messages))| {
            let to = Target { topic: self.names.topic.clone(), partition, at_least };
            (places, self.put(&to, messages).await)
        });
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (places, told) in join_all(puts).await {
            sort(places, &told, &mut done, &mut failed);
        }
        Report::Moved { away: false, done, failed }
    }

    /// Appends messages to partitions of the internal topic, as those that cannot be taken back.
    async fn append_all(
        &self,
        all: Vec<(Position, Held)>,
        partition_of: impl Fn(&Held) -> u32,
    ) -> (Vec<Position>, Vec<Position>) {
        let now = self.ground.now();
        let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
        for (at, held) in all {
            let group = groups.entry(partition_of(&held)).or_default();
            group.0.push(at);
            group.1.push(Record::Message(Held { copy: None, sealed: true, ..held }).pack(now));
        }
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (partition, (places, carriers)) in groups {
            let told = self.put(&self.place(partition), carriers).await;
            sort(places, &told, &mut done, &mut failed);
        }
        (done, failed)
    }

    /// Brings back what was put away.
    pub(super) async fn bring_back(self, all: Vec<(Position, Held)>) -> Back {
        let (done, failed) = self.append_all(all, |held| self.names.shelf_of(held.message.id)).await;
        Back { done, failed: !failed.is_empty() }
    }
}

/// Which of these are written, and which are not for certain.
fn sort(places: Vec<Position>, told: &[Written], done: &mut Vec<Position>, failed: &mut Vec<Position>) {
    for (index, at) in places.into_iter().enumerate() {
        let into = if told.get(index) == Some(&Written::Yes) { &mut *done } else { &mut *failed };
        into.push(at);
    }
}

/// When a record was put where it lies, by the clock of who did.
pub(super) fn put_at(carrier: &Message) -> Timestamp {
    carrier.timestamp
}
