//! Where a message goes, and whether it may: decided before anything is sent.
//!
//! Not here: who sends it (`writer.rs`), what a topic is (`description.rs`), limits of topics (`keeper.rs`).

use super::{
    broker::Tasks,
    description::Description,
    facts::durability,
    keys::PartitionKeys,
    publish::Job,
    settings::RedisStreamsSettings,
    topics::{Topics, no_partition},
    write::{Batch, Entry, Later, Write, told},
};
use crate::{
    Durability, Error, ErrorKind, Group, Message, Published, Result, Target, Topic, clock, partition_for_key,
};
use ropeway_store::redis::Server;
use std::{collections::HashMap, sync::Arc};

/// Of how many partitions the keys are remembered.
const REMEMBERED: usize = 16_384;

/// Finds the place of each message.
#[derive(Debug)]
pub(super) struct Placing {
    topics: Arc<Topics>,
    max_message: usize,
    replicas: u32,
    tasks: Arc<Tasks>,
    /// The keys of the partitions of topics of ours.
    keys: HashMap<Topic, Vec<Arc<PartitionKeys>>>,
    spread: u32,
}

impl Placing {
    pub(super) fn new(topics: Arc<Topics>, settings: &RedisStreamsSettings, tasks: Arc<Tasks>) -> Self {
        let (max_message, replicas) = (settings.max_message, settings.copies());
        Self { topics, max_message, replicas, tasks, keys: HashMap::new(), spread: 0 }
    }

    /// Adds a batch to a write; what may not go where it is to go has its outcome at once.
    pub(super) fn put(
        &mut self,
        mut job: Job,
        description: &Result<Arc<Description>>,
        server: Option<&Server>,
        write: &mut Write,
    ) {
        let messages = std::mem::take(&mut job.batch);
        let mut outcomes = Vec::with_capacity(messages.len());
        let batch = write.batches.len();
        let replicated = job.to.at_least == Some(Durability::Replicated);
        let described = description.as_ref().map_err(Clone::clone);
        let described = described.and_then(|description| {
            can_give(job.to.at_least, server, self.replicas)?;
            Ok(&**description)
        });
        for (at, message) in messages.into_iter().enumerate() {
            let placed = described
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|topic| self.place(&job.to, job.from.as_ref(), topic, &message));
            outcomes.push(match placed {
                Ok((partition, keys, later)) => {
                    write.bytes += message.size();
                    let unknown = None;
                    write.entries.push(Entry {
                        batch,
                        at,
                        message,
                        partition,
                        keys,
                        later,
                        replicated,
                        unknown,
                        refused: false,
                    });
                    None
                }
                Err(error) => Some(Published::not_written(told(&job.to, error), message)),
            });
        }
        write.batches.push(Batch { job, outcomes });
    }

    /// The place of a message; `from` is the group that forwards it.
    pub(super) fn place(
        &mut self,
        to: &Target,
        from: Option<&Group>,
        description: &Description,
        message: &Message,
    ) -> Result<(u32, Arc<PartitionKeys>, Option<Later>)> {
        message.check(self.max_message)?;
        let count = description.spec.partitions;
        let partition = match (to.partition, &message.key) {
            (Some(chosen), _) if chosen >= count => return Err(no_partition(&to.topic, chosen, count)),
            (Some(chosen), _) => chosen,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => {
                self.spread = self.spread.wrapping_add(1);
                self.spread % count
            }
        };
        self.tasks.keeper.publishes(from, &to.topic, description, partition, message.size())?;
        let due = message.deliver_at.filter(|at| *at > clock::wall());
        let life = || description.life.map(|life| life.to_string()).unwrap_or_default();
        let later = due.map(|due| Later { due, life: life() });
        Ok((partition, self.keys(&to.topic, description, partition), later))
    }

    fn keys(&mut self, topic: &Topic, description: &Description, partition: u32) -> Arc<PartitionKeys> {
        let make = |partition| Arc::new(self.topics.partition(topic, description, partition));
        if description.life.is_none() {
            return make(partition);
        }
        if let Some(keys) = self.keys.get(topic).and_then(|all| all.get(partition as usize)) {
            return Arc::clone(keys);
        }
        let all: Vec<_> = (0..description.spec.partitions).map(make).collect();
        let keys = all.get(partition as usize).map_or_else(|| make(partition), Arc::clone);
        if self.keys.values().map(Vec::len).sum::<usize>() + all.len() > REMEMBERED {
            self.keys.clear();
        }
        self.keys.insert(topic.clone(), all);
        keys
    }
}

/// Whether the server gives what is asked for.
pub(super) fn can_give(at_least: Option<Durability>, server: Option<&Server>, wanted: u32) -> Result<()> {
    let (Some(at_least), Some(server)) = (at_least, server) else { return Ok(()) };
    let gives = durability(server);
    let replicas = server.replicas.unwrap_or(0);
    if at_least <= gives || (at_least == Durability::Replicated && replicas >= wanted) {
        return Ok(());
    }
    let context = format!(
        "the server gives {} with {replicas} replicas (`replicas={wanted}` are wanted), and {} is asked for; set appendonly and appendfsync, turn eviction off, or add a replica",
        gives.as_str(),
        at_least.as_str()
    );
    Err(Error::new(ErrorKind::Unsupported, context))
}
