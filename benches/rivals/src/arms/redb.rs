//! redb: one table by number, one transaction for each batch, immediate durability (its default), default cache.

use super::publish::Store;
use crate::{Result, record};
use ::redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use bytes::Bytes;
use ropeway_broker::Message;
use std::path::Path;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

pub(super) struct Bare {
    database: Database,
    record: Vec<u8>,
}

impl Bare {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Ok(Self { database: Database::create(dir.join("log.redb"))?, record: Vec::new() })
    }
}

impl Store for Bare {
    fn write(&mut self, batch: &[(u64, Message)]) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut table = transaction.open_table(LOG)?;
        for (i, message) in batch {
            self.record.clear();
            record::encode(message, &mut self.record);
            table.insert(i, &self.record[..])?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }

    fn read(&mut self, each: &mut dyn FnMut(&Message)) -> Result<()> {
        let transaction = self.database.begin_read()?;
        for entry in transaction.open_table(LOG)?.iter()? {
            each(&record::decode(&Bytes::copy_from_slice(entry?.1.value()))?);
        }
        Ok(())
    }
}
