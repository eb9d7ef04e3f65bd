//! Topics, partitions, segments and groups, as far as their records can be read.
//!
//! Not here: messages (`messages.rs`).

use super::{
    Salvaged, SalvagedTopic,
    pages::{self, Entry},
};
use crate::{
    Error, ErrorKind, Group, Result, Topic,
    embedded::{
        core::store_error,
        state::{
            self, CURSORS, CursorRecord, FORMAT, FORMAT_KEY, GROUPS, PARTITIONS, PartitionRecord, SEGMENTS,
            SWEEPS, SegmentRecord, TOPICS, TopicRecord, decode_number,
        },
    },
};
use bytes::Bytes;
use ropeway_store::{KeyValue, Keyspace, Purpose, SalvagedStore, prefix_end};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

/// How many problems are told in words.
const TOLD: usize = 100;

/// What is stored besides messages.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// By life.
    topics: BTreeMap<u64, (Topic, TopicRecord)>,
    pub(super) partitions: BTreeMap<(u64, u32), PartitionRecord>,
    segments: BTreeMap<u64, BTreeMap<u64, SegmentRecord>>,
    /// Lives of deleted topics.
    swept: BTreeSet<u64>,
    pub(super) groups: BTreeSet<Group>,
    pub(super) cursors: BTreeMap<(Group, Topic, u32), Result<CursorRecord>>,
    problems: Vec<String>,
    problem_count: u64,
}

/// A segment of a topic.
#[derive(Debug)]
pub(super) struct SegmentPlace {
    pub(super) number: u64,
    /// Where its messages are; `None` where they are lost.
    pub(super) log: Option<Keyspace>,
    /// What was so when it began; `None` where that is lost.
    pub(super) began: Option<SegmentRecord>,
}

impl SegmentPlace {
    /// The first offset of a partition that is in it or in a later one.
    pub(super) fn base(&self, partition: u32) -> Option<u64> {
        self.began.as_ref().map(|began| began.bases.get(partition as usize).copied().unwrap_or(0))
    }
}

impl Records {
    /// All that can be read.
    ///
    /// # Errors
    /// `Unsupported` where a later version wrote them.
    pub(super) fn load(store: &SalvagedStore) -> Result<Self> {
        let mut records = Self::default();
        let Some(space) = open(store, "state")? else {
            records
                .problem("keyspace `state` is lost: names of topics, what was retained, and groups".into());
            return Ok(records);
        };
        let first = records.is_format_1(store, space)?;
        for prefix in [TOPICS, PARTITIONS, SEGMENTS, SWEEPS, GROUPS, CURSORS] {
            let end = prefix_end(prefix).unwrap_or_default();
            let _ = pages::each(store, space, prefix, &end, &mut |entry| {
                records.take(prefix, entry, first);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        if first {
            for life in records.topics.keys() {
                records.segments.insert(*life, BTreeMap::from([(0, SegmentRecord::default())]));
            }
        }
        Ok(records)
    }

    fn is_format_1(&mut self, store: &SalvagedStore, space: Keyspace) -> Result<bool> {
        match pages::get(store, space, FORMAT_KEY)?.map(|found| found.map(|bytes| decode_number(&bytes))) {
            Ok(Some(Ok(2 | FORMAT))) => Ok(false),
            Ok(Some(Ok(1))) => Ok(true),
            Ok(Some(Ok(other))) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the directory holds format {other} of the embedded broker, and this build knows up to format {FORMAT}; use the version that wrote it"
                ),
            )),
            Ok(None) => {
                self.problem("the record of the format is lost".into());
                Ok(false)
            }
            Ok(Some(Err(why))) => {
                self.problem(format!("the record of the format: {why}"));
                Ok(false)
            }
            Err(why) => {
                self.problem(format!("the record of the format: {why}"));
                Ok(false)
            }
        }
    }

    fn take(&mut self, prefix: &[u8], entry: Entry, format_1: bool) {
        let (key, value) = match entry {
            Ok(entry) => entry,
            Err(why) => return self.problem(format!("records of {}: {why}", named(prefix))),
        };
        let taken = match prefix {
            TOPICS => self.take_topic(&key, &value),
            PARTITIONS => state::parse_partition_key(&key).ok_or_else(bad_key).and_then(|place| {
                let decode =
                    if format_1 { PartitionRecord::decode_format_1 } else { PartitionRecord::decode };
                self.partitions.insert(place, decode(&value)?);
                Ok(())
            }),
            SEGMENTS => state::parse_segment_key(&key).ok_or_else(bad_key).and_then(|(life, number)| {
                let record = SegmentRecord::decode(&value)?;
                self.segments.entry(life).or_default().insert(number, record);
                Ok(())
            }),
            SWEEPS => decode_number(&value).map(|life| _ = self.swept.insert(life)),
            GROUPS => {
                let name = key.get(GROUPS.len()..).and_then(|name| std::str::from_utf8(name).ok());
                name.ok_or_else(bad_key).and_then(Group::new).and_then(|group| {
                    self.groups.insert(group);
                    decode_number(&value).map(drop)
                })
            }
            _ => state::parse_cursor_key(&key)
                .ok_or_else(bad_key)
                .map(|place| _ = self.cursors.insert(place, CursorRecord::decode(&value))),
        };
        if let Err(why) = taken {
            let key = key.escape_ascii();
            self.problem(format!("a record of {} (key \"{key}\"): {why}", named(prefix)));
        }
    }

    fn take_topic(&mut self, key: &Bytes, value: &Bytes) -> Result<()> {
        let name = key.get(TOPICS.len()..).and_then(|name| std::str::from_utf8(name).ok());
        let topic = name.ok_or_else(bad_key).and_then(Topic::new)?;
        let record = TopicRecord::decode(value)?;
        self.topics.insert(record.life, (topic, record));
        Ok(())
    }

    fn problem(&mut self, what: String) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(what);
        }
    }

    pub(super) fn problems(&self) -> (&[String], u64) {
        (&self.problems, self.problem_count)
    }
}

fn named(prefix: &[u8]) -> &'static str {
    match prefix {
        TOPICS => "topics",
        PARTITIONS => "partitions",
        SEGMENTS => "segments",
        SWEEPS => "deleted topics",
        GROUPS => "groups",
        _ => "cursors of groups",
    }
}

fn bad_key() -> Error {
    Error::new(ErrorKind::Corrupt, "the key is damaged")
}

/// A keyspace that is there.
fn open(store: &SalvagedStore, name: &str) -> Result<Option<Keyspace>> {
    match store.open_keyspace(name, Purpose::State) {
        Ok(space) => Ok(Some(space)),
        Err(ropeway_store::Error::Dropped) => Ok(None),
        Err(error) => Err(store_error(error)),
    }
}

/// Life and number of a segment by the name of its keyspace.
pub(super) fn parse_log_name(name: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix("log-")?;
    let (life, number) = rest.split_once('-').unwrap_or((rest, "0"));
    Some((life.parse().ok()?, number.parse().ok()?))
}

impl Salvaged {
    /// Puts together what belongs to each topic.
    pub(super) fn find_topics(&mut self) -> Result<()> {
        self.schedule = open(&self.store, "schedule")?;
        let mut logs: BTreeMap<u64, BTreeMap<u64, Keyspace>> = BTreeMap::new();
        for name in self.store.keyspaces().map_err(store_error)? {
            if let Some((life, number)) = parse_log_name(&name)
                && let Some(log) = open(&self.store, &name)?
            {
                logs.entry(life).or_default().insert(number, log);
            }
        }
        let mut lives: BTreeSet<u64> = self.records.topics.keys().copied().collect();
        let named = std::mem::take(&mut self.records.topics);
        if !self.damage.damage.is_empty() || self.records.problem_count > 0 {
            lives.extend(logs.keys().copied().chain(self.records.segments.keys().copied()));
            lives.extend(self.lives_with_delayed()?);
            lives.retain(|life| named.contains_key(life) || !self.records.swept.contains(life));
        }
        let mut topics = Vec::new();
        for life in lives {
            let logs = logs.remove(&life).unwrap_or_default();
            topics.push(self.topic(life, named.get(&life), &logs)?);
        }
        topics.sort_by(|one, other| (!one.is_named, &one.name).cmp(&(!other.is_named, &other.name)));
        self.topics = topics;
        Ok(())
    }

    fn topic(
        &self,
        life: u64,
        named: Option<&(Topic, TopicRecord)>,
        logs: &BTreeMap<u64, Keyspace>,
    ) -> Result<SalvagedTopic> {
        let record = named.map(|(_, record)| record);
        let mut began = self.records.segments.get(&life).cloned().unwrap_or_default();
        let numbers: BTreeSet<u64> = began.keys().chain(logs.keys()).copied().collect();
        let place = |number| {
            let place =
                SegmentPlace { number, log: logs.get(&number).copied(), began: began.remove(&number) };
            (number, place)
        };
        let segments: BTreeMap<u64, SegmentPlace> = numbers.into_iter().map(place).collect();
        let partitions = match record {
            Some(record) => record.partitions,
            None => {
                let stored = self.records.partitions.range((life, 0)..=(life, u32::MAX)).next_back();
                let mut count = stored.map_or(0, |((_, partition), _)| partition + 1);
                for log in logs.values() {
                    count = count.max(self.partitions_in(*log)?);
                }
                count.min(state::MAX_PARTITIONS)
            }
        };
        let name = match named {
            Some((name, _)) => name.clone(),
            None => Topic::new(format!("life-{life}"))?,
        };
        let delayed = record.map(|record| record.delayed);
        Ok(SalvagedTopic { name, life, is_named: named.is_some(), partitions, delayed, segments })
    }

    /// How many partitions a keyspace of messages has something of, or may have.
    fn partitions_in(&self, log: Keyspace) -> Result<u32> {
        let mut count = 0;
        let mut next = 0;
        while next < state::MAX_PARTITIONS {
            let mut found = None;
            let (from, to) = (state::log_key(next, 0), state::log_key(state::MAX_PARTITIONS, 0));
            let _ = pages::each(&self.store, log, &from, &to, &mut |entry| {
                if let Ok((key, _)) = entry {
                    found = key.get(..4).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let Some(partition) = found else { break };
            count = partition + 1;
            next = partition + 1;
        }
        Ok(count)
    }

    fn lives_with_delayed(&self) -> Result<Vec<u64>> {
        let Some(schedule) = self.schedule else { return Ok(Vec::new()) };
        let mut lives = Vec::new();
        let mut from = b"d".to_vec();
        loop {
            let mut found = None;
            let _ = pages::each(&self.store, schedule, &from, b"e", &mut |entry| {
                found =
                    entry.ok().and_then(|(key, _)| Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?)));
                Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            let Some(life) = found else { return Ok(lives) };
            lives.push(life);
            match prefix_end(&state::due_prefix(life)) {
                Some(next) => from = next,
                None => return Ok(lives),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keyspaces_tell_life_and_number() {
        for (life, number) in [(1, 0), (7, 1), (u64::MAX, 300)] {
            assert_eq!(parse_log_name(&state::log_name(life, number)), Some((life, number)));
        }
        for other in ["state", "log-", "log-x", "log-1-", "log-1-2-3"] {
            assert_eq!(parse_log_name(other), None, "{other}");
        }
    }
}
