//! The messages of a topic, partition by partition in their order; and where some are missing.
//!
//! Not here: which partitions and segments there are (`records.rs`).

use super::{
    Salvaged, SalvagedTopic,
    pages::{self, Entry},
    records::SegmentPlace,
};
use crate::{
    Message, Position, Result,
    embedded::{
        batch::Stored,
        record,
        state::{due_prefix, log_key, log_name, log_offset},
    },
};
use bytes::{Buf, Bytes};
use ropeway_store::{Keyspace, prefix_end};
use std::{ops::ControlFlow, ops::Range};

/// Of so many messages that lie in a damaged part each is tried; of more, only those that a read of many still finds.
const MOST_TRIED: u64 = 1_000_000;

/// Why a message is lost that lies in a batch.
const DAMAGED: &str = "the batch that holds it is cut or damaged";

/// What is found where a message should be.
#[derive(Debug)]
pub enum Found {
    /// A message.
    Message {
        /// Its partition.
        partition: u32,
        /// Where it lies; `None`: it is delayed.
        position: Option<Position>,
        /// The message.
        message: Message,
    },
    /// Something that should be there, and cannot be read.
    Lost(Loss),
}

/// Messages that should be there, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Their partition; `None` where that is lost with a delayed message.
    pub partition: Option<u32>,
    /// Where the first of them lies; `None` where that is not known, or they are delayed.
    pub from: Option<Position>,
    /// How many; `None`: not known.
    pub count: Option<u64>,
    /// Whether they are gone.
    pub kind: LossKind,
    /// Why.
    pub why: String,
}

/// How messages were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Nothing is there.
    Missing,
    /// What is there is damaged.
    Unreadable,
}

/// Says whether it wants more.
type Visit<'a> = &'a mut dyn FnMut(Found) -> ControlFlow<()>;

impl Salvaged {
    /// Visits all messages of a topic that were published and not removed, but for delayed ones: each partition in its order, and what is
    /// missing where it should be. Holds no more than a page of 1 MiB, or one message, in memory.
    ///
    /// # Errors
    /// None that come of damage.
    pub fn messages(&self, topic: &SalvagedTopic, visit: Visit<'_>) -> Result<()> {
        for partition in 0..topic.partitions {
            if Walk::over(self, topic, partition, visit).run()?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits all delayed messages of a topic, in the order of their times.
    ///
    /// # Errors
    /// None that come of damage.
    pub fn delayed(&self, topic: &SalvagedTopic, visit: Visit<'_>) -> Result<()> {
        let mut found = 0;
        let mut doubts = false;
        let prefix = due_prefix(topic.life);
        let end = prefix_end(&prefix).unwrap_or_default();
        let lost = |count, kind, why: String, partition| {
            Found::Lost(Loss { partition, from: None, count, kind, why })
        };
        if let Some(schedule) = self.schedule {
            let each = pages::each(&self.store, schedule, &prefix, &end, &mut |entry| {
                let (_, mut value) = match entry {
                    Ok(entry) => entry,
                    Err(why) => {
                        doubts = true;
                        return Ok(visit(lost(None, LossKind::Unreadable, why, None)));
                    }
                };
                found += 1;
                let partition = (value.len() >= 4).then(|| value.get_u32());
                Ok(match (partition, record::decode(value.clone())) {
                    (Some(partition), Some(message)) => {
                        visit(Found::Message { partition, position: None, message })
                    }
                    (partition, _) => {
                        let why = record::unreadable(value).why.to_string();
                        visit(lost(Some(1), LossKind::Unreadable, why, partition))
                    }
                })
            })?;
            if each.is_break() {
                return Ok(());
            }
        }
        let missing = topic.delayed.unwrap_or(0).saturating_sub(found);
        if missing > 0 && !doubts {
            let why = match self.schedule {
                Some(_) => "delayed messages are missing".to_owned(),
                None => "keyspace `schedule` is lost".to_owned(),
            };
            let _ = visit(lost(Some(missing), LossKind::Missing, why, None));
        }
        Ok(())
    }
}

/// A walk over a partition.
struct Walk<'a, 'v> {
    salvaged: &'a Salvaged,
    topic: &'a SalvagedTopic,
    partition: u32,
    /// The offset that comes next; `None`: the first that is found.
    next: Option<u64>,
    /// Something before what is found next cannot be read.
    doubt: Option<(Keyspace, String)>,
    visit: Visit<'v>,
}

impl<'a, 'v> Walk<'a, 'v> {
    fn over(salvaged: &'a Salvaged, topic: &'a SalvagedTopic, partition: u32, visit: Visit<'v>) -> Self {
        let stored = salvaged.records.partitions.get(&(topic.life, partition));
        let next = stored.map(|record| record.low);
        Self { salvaged, topic, partition, next, doubt: None, visit }
    }

    fn run(mut self) -> Result<ControlFlow<()>> {
        let mut segments = self.topic.segments.values().peekable();
        while let Some(segment) = segments.next() {
            let until = segments.peek().and_then(|next| next.base(self.partition));
            if self.segment(segment, until)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let end = self.salvaged.records.partitions.get(&(self.topic.life, self.partition));
        let end = end.map(|record| record.next);
        if self.lost_until(end, "no message is there")?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        match self.doubt.take() {
            Some((_, why)) => Ok(self.lose(self.next, None, LossKind::Unreadable, why)),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// All of a segment; `until`: the first offset of the next one.
    fn segment(&mut self, segment: &SegmentPlace, until: Option<u64>) -> Result<ControlFlow<()>> {
        let Some(log) = segment.log else {
            let name = log_name(self.topic.life, segment.number);
            let end = self.salvaged.records.partitions.get(&(self.topic.life, self.partition));
            let is_last = self.topic.segments.keys().next_back() == Some(&segment.number);
            let until = until.or_else(|| end.filter(|_| is_last).map(|record| record.next));
            return self.lost_until(until, &format!("segment `{name}` is lost"));
        };
        if self.next.is_none() {
            self.next = segment.base(self.partition);
        }
        let from = log_key(self.partition, self.next.unwrap_or(0));
        let to = log_key(self.partition + 1, 0);
        let store = &self.salvaged.store;
        if pages::each(store, log, &from, &to, &mut |entry| self.entry(log, entry))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.lost_until(until, "no message is there")
    }

    fn entry(&mut self, log: Keyspace, entry: Entry) -> Result<ControlFlow<()>> {
        let (key, value) = match entry {
            Ok(entry) => entry,
            Err(why) => {
                self.doubt = Some((log, why));
                return Ok(ControlFlow::Continue(()));
            }
        };
        // No message has the last offset there can be: there is no end behind it.
        let Some(offset) = log_offset(&key).filter(|offset| *offset < u64::MAX) else {
            return Ok(ControlFlow::Continue(()));
        };
        let Some((stored, first)) = read(offset, value) else {
            return self.damaged_batch(offset);
        };
        if self.lost_until(Some(first), "no message is there")?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let from = self.next.replace(offset + 1);
        Ok(self.messages(&stored, first, from.map_or(first, |from| from.max(first))))
    }

    /// A batch of which nothing but the offset of its last message can be read.
    fn damaged_batch(&mut self, last: u64) -> Result<ControlFlow<()>> {
        if self.doubt.is_some() && self.lost_until(Some(last), DAMAGED)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let from = self.next.replace(last + 1).unwrap_or(last);
        Ok(self.lose(Some(from), Some(last + 1 - from), LossKind::Unreadable, DAMAGED.to_owned()))
    }

    /// The messages of a record that begins with `first`, from `from` on.
    fn messages(&mut self, stored: &Stored, first: u64, from: u64) -> ControlFlow<()> {
        for (offset, at) in (from..).zip(stored.messages((from - first) as usize)) {
            let position = Some(Position(self.topic.life, offset));
            let record = at.map(|at| stored.bytes().slice(at));
            if let Some(message) = record.clone().and_then(record::decode) {
                (self.visit)(Found::Message { partition: self.partition, position, message })?;
                continue;
            }
            let why =
                record.map_or_else(|| DAMAGED.to_owned(), |raw| record::unreadable(raw).why.to_string());
            self.lose(Some(offset), Some(1), LossKind::Unreadable, why)?;
        }
        ControlFlow::Continue(())
    }

    /// Tells all from the next offset up to but without `until` as lost, unless there is nothing between.
    fn lost_until(&mut self, until: Option<u64>, why: &str) -> Result<ControlFlow<()>> {
        let Some(until) = until else { return Ok(ControlFlow::Continue(())) };
        let doubt = self.doubt.take();
        let Some(from) = self.next.replace(until) else {
            // Where it began is lost, and so is how much was before.
            return Ok(match doubt {
                Some((_, why)) => self.lose(None, None, LossKind::Unreadable, why),
                None => ControlFlow::Continue(()),
            });
        };
        if from >= until {
            self.next = Some(from);
            return Ok(ControlFlow::Continue(()));
        }
        match doubt {
            Some((log, _)) if until - from <= MOST_TRIED => self.try_each(log, from..until),
            Some((_, why)) => Ok(self.lose(Some(from), Some(until - from), LossKind::Unreadable, why)),
            None => Ok(self.lose(Some(from), Some(until - from), LossKind::Missing, why.to_owned())),
        }
    }

    /// Reads one by one what a read of many failed at.
    fn try_each(&mut self, log: Keyspace, offsets: Range<u64>) -> Result<ControlFlow<()>> {
        let mut tried = Tried { next: offsets.start, unreadable: None };
        for offset in offsets.clone() {
            let stored = match pages::get(&self.salvaged.store, log, &log_key(self.partition, offset))? {
                // It may lie in a batch, which has the offset of its last message.
                Ok(None) => continue,
                Ok(Some(value)) => read(offset, value).ok_or_else(|| DAMAGED.to_owned()),
                Err(why) => Err(why),
            };
            let (stored, first) = match stored {
                Ok(found) => found,
                Err(why) => {
                    tried.damaged(offset, why);
                    continue;
                }
            };
            let from = tried.next.max(first);
            if self.end_tried(&mut tried, from).is_break() || self.messages(&stored, first, from).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            tried.next = offset + 1;
        }
        self.next = Some(offsets.end);
        Ok(self.end_tried(&mut tried, offsets.end))
    }

    /// Tells all as lost that was tried before `until`.
    fn end_tried(&mut self, tried: &mut Tried, until: u64) -> ControlFlow<()> {
        if let Some((from, why)) = tried.unreadable.take() {
            self.lose(Some(from), Some(tried.next - from), LossKind::Unreadable, why)?;
        }
        if tried.next < until {
            let why = "no message is there".to_owned();
            self.lose(Some(tried.next), Some(until - tried.next), LossKind::Missing, why)?;
        }
        ControlFlow::Continue(())
    }

    fn lose(
        &mut self,
        from: Option<u64>,
        count: Option<u64>,
        kind: LossKind,
        why: String,
    ) -> ControlFlow<()> {
        let from = from.map(|offset| Position(self.topic.life, offset));
        (self.visit)(Found::Lost(Loss { partition: Some(self.partition), from, count, kind, why }))
    }
}

/// Offsets that were tried one by one.
struct Tried {
    /// Behind what is known of them: those from here on have no record that ends with them.
    next: u64,
    /// From where on it is unreadable up to there, and why.
    unreadable: Option<(u64, String)>,
}

impl Tried {
    /// What ends with this offset is damaged, and those before it of which nothing was found may lie in it.
    fn damaged(&mut self, offset: u64, why: String) {
        self.unreadable.get_or_insert((self.next, why));
        self.next = offset + 1;
    }
}

/// A record whose last message has that offset, and the offset of its first one; `None` where it is damaged.
fn read(last: u64, value: Bytes) -> Option<(Stored, u64)> {
    let stored = Stored::of(value)?;
    let first = stored.first(last)?;
    Some((stored, first))
}
