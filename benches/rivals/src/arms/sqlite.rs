//! SQLite: write-ahead log, `synchronous=FULL`, one table in the order of its numbers, one transaction for each batch,
//! statements prepared once.
//!
//! It is built to use `fdatasync` where it would use `fsync` by default (`.cargo/config.toml`), since all others do.

use super::publish::Store;
use crate::Result;
use bytes::Bytes;
use ropeway_broker::{Headers, Message, MessageId, Timestamp};
use rusqlite::{Connection, params};
use std::path::Path;

const INSERT: &str =
    "INSERT INTO log (number, id, key, headers, at, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

pub(super) struct Bare(Connection);

impl Bare {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join("log.sqlite"))?;
        let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(format!("SQLite works with journal mode {mode}, not wal").into());
        }
        connection.execute_batch(
            "PRAGMA synchronous=FULL;
             CREATE TABLE log (number INTEGER PRIMARY KEY, id BLOB, key BLOB, headers BLOB, at INTEGER, payload BLOB) STRICT;",
        )?;
        Ok(Self(connection))
    }
}

impl Store for Bare {
    fn write(&mut self, batch: &[(u64, Message)]) -> Result<()> {
        self.0.prepare_cached("BEGIN")?.execute([])?;
        let mut insert = self.0.prepare_cached(INSERT)?;
        for (i, message) in batch {
            insert.execute(params![
                *i as i64,
                message.id.as_u128().to_be_bytes(),
                message.key.as_deref(),
                &message.headers.packed()[..],
                message.timestamp.as_millis(),
                message.payload.as_deref(),
            ])?;
        }
        self.0.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn read(&mut self, each: &mut dyn FnMut(&Message)) -> Result<()> {
        let mut select = self.0.prepare("SELECT id, key, headers, at, payload FROM log ORDER BY number")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let headers: Vec<u8> = row.get(2)?;
            each(&Message {
                id: MessageId::from_u128(u128::from_be_bytes(row.get(0)?)),
                key: row.get::<_, Option<Vec<u8>>>(1)?.map(Bytes::from),
                headers: Headers::from_packed(headers.into())?,
                timestamp: Timestamp::from_millis(row.get(3)?),
                payload: row.get::<_, Option<Vec<u8>>>(4)?.map(Bytes::from),
                deliver_at: None,
            });
        }
        Ok(())
    }
}
