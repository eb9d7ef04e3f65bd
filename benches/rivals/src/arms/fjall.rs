//! fjall with nothing around it: the store below the embedded broker, with its settings, and the same keys and records.

use super::publish::Store;
use crate::{Result, record};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use ropeway_broker::{Message, TopicSpec, partition_for_key};
use ropeway_store::FjallSettings;
use std::path::Path;

pub(super) struct Bare {
    tree: Keyspace,
    database: Database,
    /// The next offset of each partition.
    next: Vec<u64>,
    record: Vec<u8>,
}

impl Bare {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let settings = FjallSettings::default();
        let database = Database::builder(dir.join("db"))
            .cache_size(settings.cache_bytes)
            .max_journaling_size(settings.journal_bytes)
            .worker_threads(settings.workers)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(settings.memtable_bytes);
        let tree = database.keyspace("log", options)?;
        let next = vec![0; TopicSpec::default().partitions as usize];
        Ok(Self { tree, database, next, record: Vec::new() })
    }
}

impl Store for Bare {
    fn write(&mut self, batch: &[(u64, Message)]) -> Result<()> {
        let mut writes = OwnedWriteBatch::with_capacity(self.database.clone(), batch.len())
            .durability(Some(PersistMode::SyncData));
        for (_, message) in batch {
            let key = message.key.as_deref().unwrap_or_default();
            let partition = partition_for_key(key, self.next.len() as u32);
            let offset = &mut self.next[partition as usize];
            self.record.clear();
            record::encode(message, &mut self.record);
            writes.insert(&self.tree, record::key(partition, *offset), &self.record[..]);
            *offset += 1;
        }
        Ok(writes.commit()?)
    }

    fn read(&mut self, each: &mut dyn FnMut(&Message)) -> Result<()> {
        for entry in self.tree.iter() {
            each(&record::decode(&entry.value()?.into())?);
        }
        Ok(())
    }
}
