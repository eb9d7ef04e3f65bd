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
        record,
        state::{due_prefix, log_key, log_name, log_offset},
    },
};
use bytes::{Buf, Bytes};
use ropeway_store::{Keyspace, prefix_end};
use std::{ops::ControlFlow, ops::Range};

/// Of so many messages that lie in a damaged part each is tried; of more, only those that a read of many still finds.
const MOST_TRIED: u64 = 1_000_000;

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
                let message = record::decode(value);
                Ok(match (partition, message) {
                    (Some(partition), Ok(message)) => {
                        visit(Found::Message { partition, position: None, message })
                    }
                    (partition, Err(unreadable)) => {
                        visit(lost(Some(1), LossKind::Unreadable, unreadable.why.to_string(), partition))
                    }
                    (None, Ok(_)) => {
                        let why = "the record is cut or damaged".to_owned();
                        visit(lost(Some(1), LossKind::Unreadable, why, None))
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
        let Some(offset) = log_offset(&key) else { return Ok(ControlFlow::Continue(())) };
        if self.lost_until(Some(offset), "no message is there")?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.next = Some(offset + 1);
        Ok(self.record(offset, &value))
    }

    fn record(&mut self, offset: u64, value: &Bytes) -> ControlFlow<()> {
        match record::decode(value.clone()) {
            Ok(message) => {
                let position = Some(Position(self.topic.life, offset));
                (self.visit)(Found::Message { partition: self.partition, position, message })
            }
            Err(unreadable) => {
                self.lose(Some(offset), Some(1), LossKind::Unreadable, unreadable.why.to_string())
            }
        }
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
        let mut run: Option<(u64, u64, LossKind, String)> = None;
        let end = offsets.end;
        for offset in offsets {
            let found = pages::get(&self.salvaged.store, log, &log_key(self.partition, offset))?;
            let lost = match &found {
                Ok(Some(_)) => None,
                Ok(None) => Some((LossKind::Missing, "no message is there")),
                Err(why) => Some((LossKind::Unreadable, why.as_str())),
            };
            if let (Some((_, count, kind, _)), Some((of, _))) = (&mut run, lost)
                && *kind == of
            {
                *count += 1;
                continue;
            }
            if self.end_run(run.take()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            run = lost.map(|(kind, why)| (offset, 1, kind, why.to_owned()));
            if let Ok(Some(value)) = found
                && self.record(offset, &value).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.next = Some(end);
        Ok(self.end_run(run))
    }

    fn end_run(&mut self, run: Option<(u64, u64, LossKind, String)>) -> ControlFlow<()> {
        match run {
            Some((from, count, kind, why)) => self.lose(Some(from), Some(count), kind, why),
            None => ControlFlow::Continue(()),
        }
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
