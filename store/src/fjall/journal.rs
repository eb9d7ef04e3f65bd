//! Reads the journals of fjall 3 without changing them, and says what of them is not as it was written.
//!
//! fjall stops reading at the first byte that it does not understand, cuts the file there and goes on: what lay behind is lost without a
//! word. So its journals are read here first. A journal is a sequence of batches, followed by zeros up to the size the file was made with. A
//! batch is `1, count: u32, sequence number: u64`, then `count` items (`2, kind: u8, compression: u8, keyspace: u64, key length: u16, value
//! length: u32, stored length: u32, key, value`, or `4, keyspace: u64`), then `3, xxh3 of the items: u64, "FJL", 3`, all little endian. Each
//! batch of ours has the number of its commit in it, one more than the batch before, so that a hole shows and can be counted.
//! Not here: what of this is damage in the light of the high-water mark (`inspect.rs`).

use super::damage::{Damage, unreadable};
use crate::Result;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    iter,
    ops::Range,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_64;

/// The key under which each commit puts its number, in the keyspace of commits.
pub(super) const COMMIT_KEY: &[u8] = b"\0commit";

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const START_BYTES: usize = 13;
const ITEM_BYTES: usize = 21;
const CLEAR_BYTES: usize = 9;
const END_BYTES: usize = 13;
const TRAILER: &[u8] = b"FJL\x03";

/// fjall counts in 63 bits, and panics beyond.
const MAX_SEQUENCE: u64 = 1 << 62;

const CHUNK: usize = 1024 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    /// The first and the last number of a commit in it.
    pub(super) commits: Option<(u64, u64)>,
    /// Batches without a number.
    pub(super) plain: u64,
    /// Where whole batches lie, in bytes.
    pub(super) valid: Vec<Range<u64>>,
    /// From where to where bytes lie behind the last whole batch that are none.
    pub(super) torn: Option<Range<u64>>,
}

/// All journals of a database, oldest first, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) journals: Vec<Journal>,
    pub(super) damage: Vec<Damage>,
}

impl Scan {
    /// The highest number of a commit.
    pub(super) fn last_commit(&self) -> Option<u64> {
        self.journals.iter().rev().find_map(|journal| journal.commits).map(|(_, last)| last)
    }
}

/// The journals of a database by their names, oldest first.
///
/// # Errors
/// Those of the file system.
pub(super) fn list(database: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(id) = name.strip_suffix(".jnl").and_then(|id| id.parse().ok()) {
            found.push((id, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads all journals. `commits` is the keyspace in which commits have their number; `None`: they have none.
///
/// # Errors
/// Those of the file system that are not damage.
pub(super) fn scan(database: &Path, commits: Option<u64>) -> Result<Scan> {
    let listed =
        list(database).map_err(|error| super::failure::of_io(error, "list the journals", database))?;
    let mut reading = Reading { commits, ..Reading::default() };
    let mut before: Option<u64> = None;
    for (id, path) in listed {
        if before.is_some_and(|before| before.checked_add(1) != Some(id)) {
            // A name such as `00.jnl` is a number that is there already, and nothing of ours.
            let missing = id.saturating_sub(1);
            let what = format!("missing: the journals before and after {missing} are there");
            reading.damage.push(Damage::at(database.join(format!("{missing}.jnl")), what));
        }
        before = Some(id);
        let journal = Journal { id, path: path.clone(), ..Journal::default() };
        match reading.journal(journal) {
            Ok(journal) => reading.journals.push(journal),
            Err(error) => {
                reading.damage.push(unreadable(&path, error)?);
                reading.journals.push(Journal { id, path, ..Journal::default() });
            }
        }
    }
    if reading.journals.is_empty() {
        reading.damage.push(Damage::at(database.join("*.jnl"), "there is no journal"));
    }
    Ok(Scan { journals: reading.journals, damage: reading.damage })
}

/// The number of the first commit in a journal that may be written to meanwhile; `None` where there is none yet.
pub(super) fn first_commit(path: &Path, commits: u64) -> io::Result<Option<u64>> {
    let mut window = Window::open(path)?;
    loop {
        match parse(window.bytes(), window.left(), Some(commits)) {
            Parsed::Batch(batch) if batch.number.is_some() => return Ok(batch.number),
            Parsed::Batch(batch) => window.advance(batch.bytes),
            Parsed::Short if window.more()? => {}
            Parsed::Short | Parsed::Invalid => return Ok(None),
        }
    }
}

/// The keyspaces in a journal, with the sequence number of the newest record of each.
///
/// # Errors
/// Those of the file system.
pub(super) fn newest(path: &Path) -> io::Result<BTreeMap<u64, u64>> {
    let mut window = Window::open(path)?;
    let mut newest = BTreeMap::new();
    loop {
        match parse(window.bytes(), window.left(), None) {
            Parsed::Batch(batch) => {
                for keyspace in keyspaces(&window.bytes()[..batch.bytes]) {
                    newest.insert(keyspace, batch.sequence);
                }
                window.advance(batch.bytes);
            }
            Parsed::Short if window.more()? => {}
            Parsed::Short | Parsed::Invalid => return Ok(newest),
        }
    }
}

/// The keyspaces of the records in a whole batch, each as often as it has some.
fn keyspaces(batch: &[u8]) -> impl Iterator<Item = u64> {
    let mut at = START_BYTES;
    iter::from_fn(move || {
        let item = &batch[at..];
        match item[0] {
            ITEM => {
                at += ITEM_BYTES + usize::from(u16_at(item, 11)) + u32_at(item, 13) as usize;
                Some(u64_at(item, 3))
            }
            CLEAR => {
                at += CLEAR_BYTES;
                Some(u64_at(item, 1))
            }
            _ => None,
        }
    })
}

/// The way through all journals.
#[derive(Debug, Default)]
struct Reading {
    commits: Option<u64>,
    journals: Vec<Journal>,
    damage: Vec<Damage>,
    /// The last number of a commit.
    last: Option<u64>,
    /// The last sequence number.
    sequence: Option<u64>,
    /// The end of a journal that was torn: where, if anything followed, something is lost.
    torn: Option<(PathBuf, u64)>,
    /// The end of a journal that was not, since when there was no batch.
    ended: Option<(PathBuf, u64)>,
}

impl Reading {
    fn journal(&mut self, mut journal: Journal) -> io::Result<Journal> {
        let mut window = Window::open(&journal.path)?;
        loop {
            let start = window.offset;
            self.batches(&mut journal, &mut window)?;
            if window.offset > start {
                journal.valid.push(start..window.offset);
            }
            let end = window.offset;
            match next_batch(&mut window, self.commits)? {
                Behind::Nothing => {
                    self.ended = Some((journal.path.clone(), end));
                    return Ok(journal);
                }
                Behind::Bytes(last) => {
                    journal.torn = Some(end..last);
                    self.torn = Some((journal.path.clone(), end));
                    return Ok(journal);
                }
                Behind::Batch => {
                    let what = format!("{} bytes are not what was written", window.offset - end);
                    self.damage.push(Damage::at(&journal.path, what).behind(end));
                }
            }
        }
    }

    /// Takes whole batches as long as there are any.
    fn batches(&mut self, journal: &mut Journal, window: &mut Window) -> io::Result<()> {
        loop {
            match parse(window.bytes(), window.left(), self.commits) {
                Parsed::Batch(batch) => {
                    self.take(journal, &batch, window.offset);
                    window.advance(batch.bytes);
                }
                Parsed::Short if window.more()? => {}
                Parsed::Short | Parsed::Invalid => return Ok(()),
            }
        }
    }

    fn take(&mut self, journal: &mut Journal, batch: &Batch, offset: u64) {
        let at = |what: String| Damage::at(&journal.path, what).behind(offset);
        if let Some(before) = self.sequence.filter(|before| *before >= batch.sequence) {
            self.damage.push(at(format!("sequence number {} follows {before}", batch.sequence)));
        }
        self.sequence = Some(batch.sequence);
        let (torn, ended) = (self.torn.take(), self.ended.take());
        match (batch.number, self.last) {
            (Some(number), Some(last)) if number != last.saturating_add(1) => {
                let lost = number.saturating_sub(last.saturating_add(1));
                let ended = ended.filter(|_| offset == 0);
                let place = torn.or(ended);
                let (path, byte) = place.unwrap_or_else(|| (journal.path.clone(), offset));
                let what = format!("commit {number} follows commit {last}");
                self.damage.push(Damage::at(path, what).behind(byte).lost(lost));
            }
            (None, Some(last)) => {
                self.damage.push(at(format!("a batch without a number follows commit {last}")))
            }
            // Without numbers nobody knows whether it was a whole batch that was torn.
            (None, None) => {
                if let Some((path, byte)) = torn {
                    let what = "the end is not what was written, and a later journal goes on";
                    self.damage.push(Damage::at(path, what).behind(byte));
                }
            }
            (Some(_), _) => {}
        }
        match batch.number {
            Some(number) => {
                self.last = Some(number);
                journal.commits = Some((journal.commits.map_or(number, |(first, _)| first), number));
            }
            None => journal.plain += 1,
        }
    }
}

/// What lies behind a place at which no batch begins.
enum Behind {
    /// Nothing but zeros.
    Nothing,
    /// Other bytes, the last of them before this one.
    Bytes(u64),
    /// A whole batch, to which the window was moved.
    Batch,
}

/// Looks for the next place at which a whole batch begins.
fn next_batch(window: &mut Window, commits: Option<u64>) -> io::Result<Behind> {
    let mut last = None;
    let mut first = true;
    loop {
        if window.bytes().is_empty() && !window.more()? {
            return Ok(last.map_or(Behind::Nothing, Behind::Bytes));
        }
        let part = window.bytes().len().min(ZEROS.len());
        let bytes = &window.bytes()[..part];
        if bytes == &ZEROS[..part] {
            window.advance(part);
            first = false;
            continue;
        }
        if let Some(place) = bytes.iter().rposition(|byte| *byte != 0) {
            last = Some(window.offset + place as u64 + 1);
        }
        // At the first place it was tried already.
        let from = usize::from(first);
        first = false;
        match bytes[from..].iter().position(|byte| *byte == START) {
            None => window.advance(part),
            Some(place) => {
                window.advance(from + place);
                loop {
                    match parse(window.bytes(), window.left(), commits) {
                        Parsed::Batch(_) => return Ok(Behind::Batch),
                        Parsed::Short if window.more()? => {}
                        Parsed::Short | Parsed::Invalid => break,
                    }
                }
                first = true;
            }
        }
    }
}

struct Batch {
    bytes: usize,
    sequence: u64,
    number: Option<u64>,
}

enum Parsed {
    Batch(Batch),
    /// The bytes end before the batch does, and there are more.
    Short,
    Invalid,
}

/// Reads one batch from the start of `bytes`, behind which the file has `left` bytes, these included.
fn parse(bytes: &[u8], left: u64, commits: Option<u64>) -> Parsed {
    let mut at = 0;
    macro_rules! need {
        ($count:expr) => {{
            let end = at + $count;
            if end as u64 > left {
                return Parsed::Invalid;
            }
            match bytes.get(at..end) {
                Some(part) => part,
                None => return Parsed::Short,
            }
        }};
    }
    if need!(1)[0] != START {
        return Parsed::Invalid;
    }
    let start = need!(START_BYTES);
    let (count, sequence) = (u32_at(start, 1), u64_at(start, 5));
    if count == 0 || sequence >= MAX_SEQUENCE {
        return Parsed::Invalid;
    }
    at += START_BYTES;
    let mut number = None;
    for _ in 0..count {
        match need!(1)[0] {
            ITEM => {
                let item = need!(ITEM_BYTES);
                let (kind, compression, keyspace) = (item[1], item[2], u64_at(item, 3));
                let (key, value) = (usize::from(u16_at(item, 11)), u32_at(item, 13));
                if kind > 2 || compression != 0 || value != u32_at(item, 17) {
                    return Parsed::Invalid;
                }
                let value = value as usize;
                let whole = need!(ITEM_BYTES + key + value);
                let (key, value) = whole[ITEM_BYTES..].split_at(key);
                if commits == Some(keyspace) && key == COMMIT_KEY {
                    number = decode_number(value);
                }
                at += whole.len();
            }
            CLEAR => {
                need!(CLEAR_BYTES);
                at += CLEAR_BYTES;
            }
            _ => return Parsed::Invalid,
        }
    }
    let end = need!(END_BYTES);
    let whole = end[0] == END && &end[9..] == TRAILER && u64_at(end, 1) == xxh3_64(&bytes[START_BYTES..at]);
    if whole { Parsed::Batch(Batch { bytes: at + END_BYTES, sequence, number }) } else { Parsed::Invalid }
}

/// What a commit puts under its key.
pub(super) const fn encode_number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// The number that a commit put under its key.
pub(super) fn decode_number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

/// A file, read from its start to its end, with as much in memory as the largest batch needs.
struct Window {
    file: File,
    buffer: Vec<u8>,
    start: usize,
    /// Where in the file the window begins.
    offset: u64,
    len: u64,
}

impl Window {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, buffer: Vec::new(), start: 0, offset: 0, len })
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn left(&self) -> u64 {
        self.len.saturating_sub(self.offset)
    }

    fn advance(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// Reads on; `false` at the end.
    fn more(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let have = self.buffer.len();
        let wanted = self.left().saturating_sub(have as u64).min(CHUNK.max(have) as u64);
        let read = (&mut self.file).take(wanted).read_to_end(&mut self.buffer)?;
        if read == 0 {
            // It may have been cut meanwhile.
            self.len = self.offset + have as u64;
        }
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::fjall::{Database, PersistMode};

    #[test]
    fn files_whose_names_are_no_numbers_of_journals_are_told_and_nothing_overflows() {
        for names in [["0.jnl", "00.jnl"], ["18446744073709551615.jnl", "018446744073709551615.jnl"]] {
            let dir = tempfile::tempdir().unwrap();
            names.iter().for_each(|name| drop(File::create(dir.path().join(name)).unwrap()));
            assert!(!scan(dir.path(), None).unwrap().damage.is_empty(), "{names:?}");
        }
    }

    /// Should another fjall write its journals in another way, this fails before anybody's data does.
    #[test]
    fn what_fjall_writes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path()).open().unwrap();
        let commits = database.keyspace("commits", Default::default).unwrap();
        let other = database.keyspace("other", Default::default).unwrap();
        for number in 1..=20_u64 {
            let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&other, "key", vec![1; 10_000 * number as usize]);
            batch.remove(&other, "gone");
            batch.insert(&commits, COMMIT_KEY, encode_number(number).as_slice());
            batch.commit().unwrap();
        }
        other.clear().unwrap();
        let found = scan(dir.path(), Some(commits.id())).unwrap();
        assert_eq!(found.journals.len(), 1);
        let journal = &found.journals[0];
        assert_eq!((journal.commits, journal.plain, &journal.torn), (Some((1, 20)), 1, &None));
        let what: Vec<String> = found.damage.iter().map(Damage::to_string).collect();
        assert!(what.len() == 1 && what[0].contains("without a number follows commit 20"), "{what:?}");
        assert_eq!(first_commit(&journal.path, commits.id()).unwrap(), Some(1));
        assert_eq!(scan(dir.path(), None).unwrap().journals[0].plain, 21);
        let newest = newest(&journal.path).unwrap();
        assert_eq!(newest.keys().copied().collect::<Vec<_>>(), [commits.id(), other.id()]);
        assert!(newest[&commits.id()] < newest[&other.id()], "it was cleared last: {newest:?}");
    }
}
