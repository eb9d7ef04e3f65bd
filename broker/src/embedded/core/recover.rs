//! From the store to the state, when the broker is opened.

use super::{
    Core, Due, Life, MARK_STEP, Rules, Spaces, Timers,
    appends::Appends,
    member::{GroupState, Share},
    migrate::migrate,
    room::Room,
    segments::{Segment, Segments, open_segment},
    store_error, stored_as,
    timers::Timer,
    topic::{PartitionState, TopicState},
};
use crate::{
    AckWindow, Error, ErrorKind, Group, Result, Statistics, Timestamp, Topic,
    embedded::{
        state::{
            self, CURSORS, CursorRecord, GROUPS, LAST_EPOCH, LAST_LIFE, PARTITIONS, PartitionRecord,
            SEGMENTS, SWEEPS, SegmentRecord, TOPICS, TopicRecord, decode_number, log_key,
        },
        time::{Mark, Steady},
    },
};
use bytes::Bytes;
use ropeway_store::{Direction, KeyValue, Keyspace, Limit, Purpose, WriteBatch, prefix_end};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

const DEDUP: &str = "dedup";

impl Core {
    /// The state that a store holds; an empty store holds an empty one. `now` is told what time it was when that was last stored.
    pub(in crate::embedded) fn recover(
        store: Arc<dyn KeyValue>,
        rules: Rules,
        now: impl FnOnce(Option<Mark>) -> Mark,
    ) -> Result<Self> {
        let spaces = open_spaces(&*store, &rules)?;
        migrate(&*store, spaces.state)?;
        let number = |key: &[u8]| -> Result<u64> {
            let stored = store.get(spaces.state, key).map_err(store_error)?;
            stored.map_or(Ok(0), |bytes| decode_number(&bytes))
        };
        let stored = store.get(spaces.state, state::MARK).map_err(store_error)?;
        let stored = stored.map(|bytes| state::decode_mark(&bytes)).transpose()?;
        let now = now(stored);
        let mut core = Self {
            last_life: number(LAST_LIFE)?,
            last_epoch: number(LAST_EPOCH)?,
            rules,
            spaces,
            names: BTreeMap::new(),
            topics: BTreeMap::new(),
            making: HashMap::new(),
            groups: BTreeMap::new(),
            shares: HashMap::new(),
            members: HashMap::new(),
            readers: HashMap::new(),
            timers: Timers::default(),
            delays: Timers::default(),
            marked: None,
            last_id: 0,
            remembered: 0,
            statistics: Statistics::default(),
            room: Room::new(store.usage().map_err(store_error)?),
            appends: Appends::default(),
            poisoned: None,
            closed: false,
            armed: Due::default(),
            store,
        };
        core.load_topics(&now)?;
        core.load_partitions()?;
        core.check_segments(now.steady, stored)?;
        core.drop_beyond_end()?;
        core.load_groups()?;
        core.load_sweeps(now.steady)?;
        core.drop_orphans()?;
        core.count_remembered(now.steady)?;
        Ok(core)
    }

    fn load_topics(&mut self, now: &Mark) -> Result<()> {
        let mut segments = self.stored_segments()?;
        for (key, value) in entries(&*self.store, self.spaces.state, TOPICS)? {
            let name = key.strip_prefix(TOPICS).and_then(|name| std::str::from_utf8(name).ok());
            let topic = name.and_then(|name| Topic::new(name).ok()).ok_or_else(|| damaged(&key))?;
            let record = TopicRecord::decode(&value).map_err(|error| at(error, &key))?;
            let life = record.life;
            if record.delayed > 0 {
                self.delays.set(life, now.time_of_day);
            }
            self.timers.set(Timer::Retention(life), now.steady);
            let segments =
                segments.remove(&life).and_then(Segments::restore).ok_or_else(|| no_segments(&topic))?;
            let partitions = (0..record.partitions).map(|_| PartitionState::default()).collect();
            self.names.insert(topic.clone(), life);
            self.topics.insert(
                life,
                TopicState {
                    topic,
                    life,
                    retention: record.retention,
                    segments,
                    held_by: None,
                    partitions,
                    delayed: record.delayed,
                    delay_seq: record.delay_seq,
                    delay_floor: Timestamp::from_millis(i64::MIN),
                    spread: 0,
                },
            );
        }
        Ok(())
    }

    fn load_partitions(&mut self) -> Result<()> {
        let mut loaded: HashMap<u64, u32> = HashMap::new();
        for (key, value) in entries(&*self.store, self.spaces.state, PARTITIONS)? {
            let (life, partition) = state::parse_partition_key(&key).ok_or_else(|| damaged(&key))?;
            let record = PartitionRecord::decode(&value).map_err(|error| at(error, &key))?;
            let topic = self.topics.get_mut(&life);
            let part = topic.and_then(|topic| topic.partition_mut(partition)).ok_or_else(|| damaged(&key))?;
            *part = PartitionState::restore(&record);
            *loaded.entry(life).or_default() += 1;
        }
        for (life, topic) in &self.topics {
            let found = loaded.get(life).copied().unwrap_or(0);
            if found != topic.count() {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "topic {:?} has {} partitions and {found} of them are stored",
                        topic.topic,
                        topic.count()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The segments of each life that were stored, in their order.
    fn stored_segments(&self) -> Result<HashMap<Life, VecDeque<Segment>>> {
        let names: HashSet<String> = self.store.keyspaces().map_err(store_error)?.into_iter().collect();
        let mut found: HashMap<Life, VecDeque<Segment>> = HashMap::new();
        for (key, value) in entries(&*self.store, self.spaces.state, SEGMENTS)? {
            let (life, number) = state::parse_segment_key(&key).ok_or_else(|| damaged(&key))?;
            let record = SegmentRecord::decode(&value).map_err(|error| at(error, &key))?;
            let name = state::log_name(life, number);
            let list = found.entry(life).or_default();
            let follows = list.back().is_none_or(|last| last.number + 1 == number);
            // To open it would make an empty one.
            if !follows || !names.contains(&name) {
                let name = if follows { name } else { state::log_name(life, number - 1) };
                let text = format!("messages are missing in the directory: those of keyspace {name:?}");
                return Err(Error::new(ErrorKind::Corrupt, text));
            }
            list.push_back(Segment::new(number, open_segment(&*self.store, life, number)?, record));
        }
        Ok(found)
    }

    /// `stored`: what time it was when the last message was appended, or up to a second before that.
    fn check_segments(&mut self, now: Steady, stored: Option<Mark>) -> Result<()> {
        for topic in self.topics.values_mut() {
            let newest = match stored {
                Some(mark) => mark.steady + MARK_STEP,
                // Steady time began with the time of day, and what was stored without it is older.
                None => topic.partitions.iter().map(|part| begun_with(part.last)).max().unwrap_or(now),
            };
            topic.check_segments(newest.min(now))?;
        }
        Ok(())
    }

    fn load_groups(&mut self) -> Result<()> {
        for (key, value) in entries(&*self.store, self.spaces.state, GROUPS)? {
            let name = key.strip_prefix(GROUPS).and_then(|name| std::str::from_utf8(name).ok());
            let group = name.and_then(|name| Group::new(name).ok()).ok_or_else(|| damaged(&key))?;
            let last_seen = decode_number(&value).map_err(|error| at(error, &key))?;
            let last_seen = Steady::from_millis(last_seen);
            self.groups.insert(group, GroupState { last_seen, ..GroupState::default() });
        }
        for (key, value) in entries(&*self.store, self.spaces.state, CURSORS)? {
            let (group, topic, partition) = state::parse_cursor_key(&key).ok_or_else(|| damaged(&key))?;
            let record = CursorRecord::decode(&value).map_err(|error| at(error, &key))?;
            let id = self.new_id();
            let mut share = Share::new(group.clone(), topic.clone(), partition);
            share.epoch = record.epoch;
            share.window = record.position.map(|position| {
                AckWindow::restore(position, &record.map).unwrap_or_else(|error| {
                    tracing::warn!(%error, %group, %topic, partition, "what was done behind the position is delivered again");
                    AckWindow::new(position)
                })
            });
            share.life = record.position.map_or(0, |position| position.0);
            share.home.clone_from(&record.owner);
            share.last_owner = record.owner;
            self.shares.insert(id, share);
            self.groups.entry(group).or_default().shares.insert((topic, partition), id);
        }
        Ok(())
    }

    fn load_sweeps(&mut self, now: Steady) -> Result<()> {
        for (key, value) in entries(&*self.store, self.spaces.state, SWEEPS)? {
            let life = decode_number(&value).map_err(|error| at(error, &key))?;
            self.timers.set(Timer::Sweep(life), now);
        }
        Ok(())
    }

    /// Removes records that lie in a log beyond the end of their partition.
    ///
    /// A crash can leave some behind: a table of the log was written, and the commit that moved the end was not synced and is lost. A record that
    /// is appended later has another key than one of these, unless it ends at the same offset, and would not replace it but be hidden by it.
    fn drop_beyond_end(&self) -> Result<()> {
        const PIECE: Limit = Limit { items: 1024, bytes: 1024 * 1024 };
        for topic in self.topics.values() {
            let log = topic.segments.active();
            for (partition, part) in (0_u32..).zip(&topic.partitions) {
                let (from, to) = (log_key(partition, part.next), log_key(partition + 1, 0));
                loop {
                    let page = self.store.scan(log, &from, Some(&to), Direction::Forward, PIECE);
                    let page = page.map_err(store_error)?;
                    if page.items.is_empty() {
                        break;
                    }
                    tracing::warn!(topic = %topic.topic, partition, records = page.items.len(), "records beyond the end of a partition are removed, which a crash left behind");
                    let mut batch = WriteBatch::new();
                    for (key, _) in page.items {
                        batch.delete(log, key);
                    }
                    self.store.commit(batch, stored_as(self.rules.possible)).map_err(store_error)?;
                }
            }
        }
        Ok(())
    }

    /// Removes the messages of topics that are deleted or were never made whole, and segments that were removed or never begun.
    fn drop_orphans(&self) -> Result<()> {
        let known: HashSet<String> = self
            .topics
            .values()
            .flat_map(|topic| topic.segments.records().map(|(number, _)| state::log_name(topic.life, number)))
            .collect();
        for name in self.store.keyspaces().map_err(store_error)? {
            if state::is_log(&name) && !known.contains(&name) {
                let log = self.store.open_keyspace(&name, Purpose::Log).map_err(store_error)?;
                self.store.drop_keyspace(log).map_err(store_error)?;
            }
        }
        Ok(())
    }

    fn count_remembered(&mut self, now: Steady) -> Result<()> {
        if let Some(space) = self.spaces.dedup {
            let mut count = 0;
            each(&*self.store, space, b"t", |_, _| {
                count += 1;
                Ok(())
            })?;
            self.remembered = count;
            if count > 0 {
                self.timers.set(Timer::Forget, now);
            }
        }
        Ok(())
    }
}

fn open_spaces(store: &dyn KeyValue, rules: &Rules) -> Result<Spaces> {
    let open = |name: &str| store.open_keyspace(name, Purpose::State).map_err(store_error);
    let dedup = if rules.dedup.is_some() {
        Some(open(DEDUP)?)
    } else {
        // Switched off: what was remembered would be out of date when it is switched on again.
        if store.keyspaces().map_err(store_error)?.iter().any(|name| name == DEDUP) {
            store.drop_keyspace(open(DEDUP)?).map_err(store_error)?;
        }
        None
    };
    Ok(Spaces { state: open("state")?, schedule: open("schedule")?, dedup })
}

pub(super) fn entries(store: &dyn KeyValue, space: Keyspace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
    let mut all = Vec::new();
    each(store, space, prefix, |key, value| {
        all.push((key, value));
        Ok(())
    })?;
    Ok(all)
}

fn each(
    store: &dyn KeyValue,
    space: Keyspace,
    prefix: &[u8],
    mut visit: impl FnMut(Bytes, Bytes) -> Result<()>,
) -> Result<()> {
    let end = prefix_end(prefix);
    let mut from = prefix.to_vec();
    loop {
        let page = store
            .scan(space, &from, end.as_deref(), Direction::Forward, Limit::items(4096))
            .map_err(store_error)?;
        if let Some((last, _)) = page.items.last() {
            from = [last, &[0][..]].concat();
        }
        for (key, value) in page.items {
            visit(key, value)?;
        }
        if !page.more {
            return Ok(());
        }
    }
}

pub(super) fn damaged(key: &[u8]) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the stored key {:?} is damaged", String::from_utf8_lossy(key)))
}

pub(super) fn at(error: Error, key: &[u8]) -> Error {
    let text = format!("{error} (at key {:?})", String::from_utf8_lossy(key));
    Error::new(error.kind(), text)
}

fn no_segments(topic: &Topic) -> Error {
    Error::new(ErrorKind::Corrupt, format!("nothing tells where the messages of topic {topic:?} are stored"))
}

fn begun_with(at: Timestamp) -> Steady {
    Steady::from_millis(u64::try_from(at.as_millis()).unwrap_or(0))
}
