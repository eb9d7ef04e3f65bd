//! A file that is written to and synced, with nothing around it: as much as a disk gives to who writes so many messages at a time.

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
    dir: PathBuf,
    file: File,
    bytes: Vec<u8>,
    /// The length of each message, in each file.
    lengths: Vec<Vec<usize>>,
    /// Bytes in the last file.
    written: u64,
    /// Bytes after which another one is begun.
    most: u64,
}

impl Bare {
    /// As long from the beginning as the journal of fjall is, so that a sync costs the file system no more than it costs ours.
    const LENGTH: u64 = 64 * 1024 * 1024;

    pub(super) fn open(dir: &Path) -> Result<Self> {
        let file = Self::make(dir, 0)?;
        let lengths = vec![Vec::new()];
        Ok(Self { dir: dir.to_owned(), file, bytes: Vec::new(), lengths, written: 0, most: Self::LENGTH })
    }

    fn make(dir: &Path, number: usize) -> Result<File> {
        let file = File::create_new(path(dir, number))?;
        file.set_len(Self::LENGTH)?;
        file.sync_all()?;
        Ok(file)
    }
}

fn path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("log-{number}"))
}

impl Store for Bare {
    fn write(&mut self, batch: &[(u64, Message)]) -> Result<()> {
        if self.written >= self.most {
            self.file = Self::make(&self.dir, self.lengths.len())?;
            self.lengths.push(Vec::new());
            self.written = 0;
        }
        self.bytes.clear();
        let lengths = self.lengths.last_mut().ok_or("there is no file")?;
        for (i, message) in batch {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&record::key(0, *i));
            record::encode(message, &mut self.bytes);
            lengths.push(self.bytes.len() - start);
        }
        self.written += self.bytes.len() as u64;
        self.file.write_all(&self.bytes)?;
        Ok(self.file.sync_data()?)
    }

    fn read(&mut self, each: &mut dyn FnMut(&Message)) -> Result<()> {
        for (number, lengths) in self.lengths.iter().enumerate() {
            let mut rest = bytes::Bytes::from(fs::read(path(&self.dir, number))?);
            for length in lengths {
                each(&record::decode(&rest.split_to(*length).slice(KEY_BYTES..))?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Seen, Work};

    #[test]
    fn what_lies_in_several_files_is_read_back() {
        let (dir, work) = (tempfile::tempdir().unwrap(), Work::new(1024));
        let mut bare = Bare::open(dir.path()).unwrap();
        bare.most = 4_000;
        for i in 0..12 {
            bare.write(&[(i, work.message(i))]).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        let mut seen = Seen::default();
        bare.read(&mut |message| seen.add(message)).unwrap();
        seen.check(work.expected(12), "the file").unwrap();
    }
}
