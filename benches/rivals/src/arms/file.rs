//! A file that is written to and synced, with nothing around it: as much as a disk gives to who writes one message at a time.

use super::publish::Store;
use crate::{
    Result,
    record::{self, KEY_BYTES},
};
use ropeway_broker::Message;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

pub(super) struct Bare {
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
    /// The length of each message.
    lengths: Vec<usize>,
}

impl Bare {
    /// As long from the beginning as the journal of fjall is, so that a sync costs the file system no more than it costs ours.
    const LENGTH: u64 = 64 * 1024 * 1024;

    pub(super) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("log");
        let file = File::create_new(&path)?;
        file.set_len(Self::LENGTH)?;
        file.sync_all()?;
        Ok(Self { path, file, bytes: Vec::new(), lengths: Vec::new() })
    }
}

impl Store for Bare {
    fn write(&mut self, batch: &[(u64, Message)]) -> Result<()> {
        self.bytes.clear();
        for (i, message) in batch {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&record::key(0, *i));
            record::encode(message, &mut self.bytes);
            self.lengths.push(self.bytes.len() - start);
        }
        self.file.write_all(&self.bytes)?;
        Ok(self.file.sync_data()?)
    }

    fn read(&mut self, each: &mut dyn FnMut(&Message)) -> Result<()> {
        let mut rest = bytes::Bytes::from(fs::read(&self.path)?);
        for length in &self.lengths {
            each(&record::decode(&rest.split_to(*length).slice(KEY_BYTES..))?);
        }
        Ok(())
    }
}
