//! What the answers to a write mean, and what becomes of its messages by them.
//!
//! Not here: the connection (`writer.rs`), what a write consists of and what of it may be sent again (`write.rs`).

use super::{
    broker::Tasks,
    facts::{Facts, durability},
    failure::{is_refused, is_unknown_script, named, refused, strange},
    follow::ZERO,
    topics::{Topics, lost},
    write::{Batch, Entry, Write, told},
};
use crate::{Durability, Error, ErrorKind, Message, Position, Published, Target, Timestamp, Topic, clock};
use ropeway_store::redis::{Redis, Reply, Target as Servers};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How far back a message is looked for where its partition was not written to before.
const LOOKED_BACK: Duration = Duration::from_secs(300);
/// Of how many partitions the last position is remembered.
const REMEMBERED: usize = 16_384;

/// Settles writes.
pub(super) struct Settling {
    /// As errors call it.
    server: Arc<str>,
    /// Another server may do what one refuses: sentinels or the cluster know it.
    others: bool,
    /// How many replicas are wanted where one asks for them.
    replicas: u32,
    topics: Arc<Topics>,
    tasks: Arc<Tasks>,
    facts: Arc<Facts>,
    /// The last position that was acked, by log.
    last: HashMap<String, Position>,
}

impl Settling {
    pub(super) fn new(
        redis: &Redis,
        replicas: u32,
        topics: Arc<Topics>,
        tasks: Arc<Tasks>,
        facts: Arc<Facts>,
    ) -> Self {
        let others = !matches!(redis.settings().target, Servers::Single(_));
        Self { server: named(redis), others, replicas, topics, tasks, facts, last: HashMap::new() }
    }

    /// Settles what is answered of a write. What was refused in passing stays, and so does what is not answered, which is unknown from then on. What
    /// stayed of writes before it is given back where it would come behind something of this one. Whether the connection can be used on.
    pub(super) fn settle(&mut self, write: &mut Write, before: &mut Write) -> bool {
        let replicated = write.is_replicated();
        let whole = write.is_answered();
        let mut answers = std::mem::take(&mut write.answers);
        if replicated && !whole {
            // Nobody knows what replicas have: it is asked again.
            answers.clear();
        }
        let wanted = i64::from(self.replicas);
        let copied =
            replicated && whole && answers.pop().and_then(|count| count.int()).unwrap_or(0) >= wanted;
        let gives = if copied { Durability::Replicated } else { durability(&self.facts.server()) };
        let entries = std::mem::take(&mut write.entries);
        let sent = write.expected;
        let mut usable = true;
        let mut answers = answers.into_iter();
        for (at, mut entry) in entries.into_iter().enumerate() {
            match answers.next() {
                Some(answer) if is_unknown_script(&answer) || self.is_passing(&answer) => {
                    usable = false;
                    entry.refused = true;
                    write.entries.push(entry);
                }
                Some(answer) => {
                    usable &= !is_refused(&answer, "READONLY");
                    let Batch { job, outcomes } = &mut write.batches[entry.batch];
                    let settled = self.one(&job.to, &entry, &answer, gives);
                    let may_be_there = settled.may_be_there();
                    outcomes[entry.at] = Some(settled.with(entry.message));
                    if may_be_there {
                        before.not_behind(entry.keys.log(), &self.server);
                        write.not_behind(entry.keys.log(), &self.server);
                    }
                }
                None => {
                    if at < sent {
                        let behind = self.behind(entry.keys.log());
                        entry.unknown.get_or_insert(behind);
                    }
                    write.entries.push(entry);
                }
            }
        }
        usable
    }

    /// Whether the server did nothing, and another one, or the same in a while, does it: it is a replica by now, reads its data, or a slot moves.
    /// Nobody but the user knows another one where the URL names one server.
    fn is_passing(&self, answer: &Reply) -> bool {
        const PASSING: [&str; 6] = ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"];
        self.others && is_refused(answer, "READONLY") || PASSING.iter().any(|code| is_refused(answer, code))
    }

    /// Behind which position a message would lie that is sent now.
    fn behind(&self, log: &str) -> Position {
        let since = (clock::wall() - LOOKED_BACK).max(Timestamp::from_millis(0)).as_millis();
        let since = Position(u64::try_from(since).unwrap_or(0), 0);
        self.last.get(log).copied().unwrap_or(since)
    }

    fn one(&mut self, to: &Target, entry: &Entry, answer: &Reply, durability: Durability) -> Settled {
        let log = entry.keys.log();
        let strange = |seen: &[Reply]| (true, strange(&self.server, format_args!("XADD {log}"), seen));
        let acked = |position: Option<Position>| match position {
            Some(position) => Ok(Some(position)),
            None => Err(strange(&[])),
        };
        let unknown = entry.unknown.is_some();
        let position = match answer {
            // A script that was refused found nothing out.
            Reply::Error(text) => Err((unknown, refused(&self.server, format_args!("XADD {log}"), text))),
            Reply::Nil => Err((false, self.gone(&to.topic))),
            Reply::Bulk(_) => acked(answer.text().and_then(|id| id.parse().ok())),
            Reply::Array(items) => match items.first().and_then(Reply::text) {
                Some("held") => Ok(None),
                Some("life" | "none") => Err((unknown, self.gone(&to.topic))),
                Some("added" | "there") => acked(items.get(1).and_then(|id| id.text()?.parse().ok())),
                Some("far") => Err((true, self.far())),
                _ => Err(strange(items)),
            },
            other => Err(strange(std::slice::from_ref(other))),
        };
        match position {
            Err((unknown, error)) => Settled::Failed { unknown, error: told(to, error) },
            Ok(position) => {
                if let Some(position) = position {
                    self.remember(log, position);
                }
                if let Some(later) = &entry.later {
                    self.tasks.mover.expect(&to.topic, later.due.since(clock::wall()));
                }
                if entry.replicated && durability < Durability::Replicated {
                    let context = format!(
                        "redis {}: it is written, but too few replicas said in time that they have it; wait longer (`wait`), or see the replicas",
                        self.server
                    );
                    let error = told(to, Error::new(ErrorKind::Unavailable, context));
                    return Settled::Failed { unknown: true, error };
                }
                Settled::Acked { partition: entry.partition, position, durability }
            }
        }
    }

    fn far(&self) -> Error {
        let context = format!(
            "redis {}: too much came since it was sent first to find out whether it is there; look for it by its id",
            self.server
        );
        Error::new(ErrorKind::Unavailable, context)
    }

    fn gone(&self, topic: &Topic) -> Error {
        self.topics.suspect(topic);
        lost(topic)
    }

    fn remember(&mut self, log: &str, position: Position) {
        if let Some(last) = self.last.get_mut(log) {
            *last = (*last).max(position);
            return;
        }
        if self.last.len() >= REMEMBERED {
            self.last.clear();
        }
        self.last.insert(log.to_owned(), position.max(ZERO));
    }
}

/// What an answer says, before the message is given back with it.
enum Settled {
    Acked { partition: u32, position: Option<Position>, durability: Durability },
    Failed { unknown: bool, error: Error },
}

impl Settled {
    /// Whether it lies in its log, or may.
    fn may_be_there(&self) -> bool {
        !matches!(self, Self::Acked { position: None, .. } | Self::Failed { unknown: false, .. })
    }

    fn with(self, message: Message) -> Published {
        match self {
            Self::Acked { partition, position, durability } => {
                Published::Acked { partition, position, durability }
            }
            Self::Failed { unknown: true, error } => Published::unknown(error, message),
            Self::Failed { unknown: false, error } => Published::not_written(error, message),
        }
    }
}
