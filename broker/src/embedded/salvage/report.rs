//! What a check of a directory found.

use super::{Found, Loss, LossKind, Salvaged, SalvagedTopic, StoreReport};
use crate::{AckWindow, Group, Position, Result, Topic};
use std::{collections::BTreeMap, ops::ControlFlow};

/// How many losses of a partition are told one by one.
const TOLD: usize = 20;
/// How many wrong cursors are told one by one.
const TOLD_CURSORS: usize = 100;

/// What a check of a directory found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What is damaged in the files, by place.
    pub store: StoreReport,
    /// What is damaged among the records of topics, partitions and groups: the first 100, in words.
    pub problems: Vec<String>,
    /// How many of these there are.
    pub problem_count: u64,
    /// The topics, those whose names are known first.
    pub topics: Vec<TopicReport>,
    /// How many groups there are.
    pub groups: u64,
    /// Where groups stand that cannot stand there: the first 100.
    pub cursors: Vec<CursorReport>,
    /// How many of these there are.
    pub cursor_count: u64,
}

/// What a check found of a topic.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicReport {
    /// Its name; `life-<number>` where that is lost.
    pub name: Topic,
    /// Which life of the topic: the first number of its positions.
    pub life: u64,
    /// Whether its name is known.
    pub is_named: bool,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionReport>,
    /// Its delayed messages.
    pub delayed: DelayedReport,
}

/// What a check found of a partition.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PartitionReport {
    /// Messages that can be read.
    pub readable: u64,
    /// Messages that should be there and are not.
    pub missing: u64,
    /// Messages that are there and damaged.
    pub unreadable: u64,
    /// Whether more are lost than that, and it is not known how many.
    pub is_more_lost: bool,
    /// The first 20 places where something is lost.
    pub lost: Vec<Loss>,
    /// How many such places there are.
    pub lost_count: u64,
    /// The position behind the last message that was found or must have been there.
    pub end: Option<Position>,
}

/// What a check found of the delayed messages of a topic.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DelayedReport {
    /// Messages that can be read.
    pub readable: u64,
    /// Messages that should be there and are not.
    pub missing: u64,
    /// Messages that are there and damaged.
    pub unreadable: u64,
    /// Whether more are lost than that, and it is not known how many.
    pub is_more_lost: bool,
}

/// A group stands where it cannot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CursorReport {
    /// The group.
    pub group: Group,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// What is wrong.
    pub why: String,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let files = self.store.damage.is_empty() && self.problem_count == 0 && self.cursor_count == 0;
        files && self.topics.iter().all(TopicReport::is_whole)
    }
}

impl TopicReport {
    /// Whether nothing of it is damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let delayed = self.delayed.missing + self.delayed.unreadable == 0 && !self.delayed.is_more_lost;
        self.is_named && delayed && self.partitions.iter().all(|part| part.lost_count == 0)
    }
}

impl Salvaged {
    /// Reads every message and holds it against what should be there. `files`: what [`check_files`](super::check_files) found of the same
    /// directory before. `progress` is told how many messages were read, now and then, and says whether to go on; `None`: it did not.
    ///
    /// # Errors
    /// None that come of damage.
    pub fn check(
        &self,
        files: StoreReport,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<Report>> {
        let (problems, problem_count) = self.problems();
        let mut report = Report {
            store: files,
            problems: problems.to_vec(),
            problem_count,
            groups: self.records.groups.len() as u64,
            ..Report::default()
        };
        let mut read = 0;
        for topic in self.topics() {
            match self.check_topic(topic, &mut read, progress)? {
                Some(topic) => report.topics.push(topic),
                None => return Ok(None),
            }
        }
        self.check_cursors(&mut report);
        Ok(Some(report))
    }

    fn check_topic(
        &self,
        topic: &SalvagedTopic,
        read: &mut u64,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<TopicReport>> {
        let mut parts = vec![PartitionReport::default(); topic.partitions as usize];
        let mut delayed = DelayedReport::default();
        let mut stopped = false;
        let mut count = |read: &mut u64| {
            *read += 1;
            let go_on = if read.is_multiple_of(256) { progress(*read) } else { ControlFlow::Continue(()) };
            stopped |= go_on.is_break();
            go_on
        };
        self.messages(topic, &mut |found| {
            let partition = match &found {
                Found::Message { partition, .. } => *partition,
                Found::Lost(loss) => loss.partition.unwrap_or(0),
            };
            if let Some(part) = parts.get_mut(partition as usize) {
                part.take(found);
            }
            count(read)
        })?;
        self.delayed(topic, &mut |found| {
            match found {
                Found::Message { .. } => delayed.readable += 1,
                Found::Lost(loss) => match (loss.count, loss.kind) {
                    (Some(count), LossKind::Missing) => delayed.missing += count,
                    (Some(count), LossKind::Unreadable) => delayed.unreadable += count,
                    (None, _) => delayed.is_more_lost = true,
                },
            }
            count(read)
        })?;
        if stopped {
            return Ok(None);
        }
        for (partition, part) in parts.iter_mut().enumerate() {
            let stored = u32::try_from(partition).ok();
            let stored = stored.and_then(|partition| self.records.partitions.get(&(topic.life, partition)));
            match stored {
                Some(stored) => part.end = part.end.max(Some(Position(topic.life, stored.next))),
                // Without its record nobody knows where it began and ended.
                None => part.take(Found::Lost(Loss {
                    partition: None,
                    from: None,
                    count: None,
                    kind: LossKind::Missing,
                    why: "the record of the partition is lost: more messages may be missing".to_owned(),
                })),
            }
        }
        Ok(Some(TopicReport {
            name: topic.name.clone(),
            life: topic.life,
            is_named: topic.is_named,
            partitions: parts,
            delayed,
        }))
    }

    fn check_cursors(&self, report: &mut Report) {
        let topics: BTreeMap<Topic, &TopicReport> = report
            .topics
            .iter()
            .filter(|topic| topic.is_named)
            .map(|topic| (topic.name.clone(), topic))
            .collect();
        let mut wrong = Vec::new();
        let mut count = 0;
        for ((group, topic, partition), record) in &self.records.cursors {
            let why = match record {
                Err(why) => Some(why.to_string()),
                Ok(record) => record.position.and_then(|position| {
                    if let Err(why) = AckWindow::restore(position, &record.map) {
                        return Some(why.to_string());
                    }
                    let about = topics.get(topic)?;
                    let end = about.partitions.get(*partition as usize)?.end?;
                    let beyond = position.0 == about.life && position > end;
                    beyond.then(|| format!("it stands at {position}, and the partition ends at {end}"))
                }),
            };
            if let Some(why) = why {
                count += 1;
                if wrong.len() < TOLD_CURSORS {
                    let (group, topic, partition) = (group.clone(), topic.clone(), *partition);
                    wrong.push(CursorReport { group, topic, partition, why });
                }
            }
        }
        (report.cursors, report.cursor_count) = (wrong, count);
    }
}

impl PartitionReport {
    fn take(&mut self, found: Found) {
        match found {
            Found::Message { position, .. } => {
                self.readable += 1;
                self.end = self.end.max(position.map(Position::next));
            }
            Found::Lost(loss) => {
                match (loss.count, loss.kind) {
                    (Some(count), LossKind::Missing) => self.missing += count,
                    (Some(count), LossKind::Unreadable) => self.unreadable += count,
                    (None, _) => self.is_more_lost = true,
                }
                self.lost_count += 1;
                if self.lost.len() < TOLD {
                    self.lost.push(loss);
                }
            }
        }
    }
}
