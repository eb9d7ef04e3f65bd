//! Tests: damage to stores with several journals.
//!
//! fjall begins another journal behind 64 MB. Here the one of a small store is cut in pieces between its commits, as fjall would have cut it.
//! Not here: stores with one journal, and what fjall does with several by itself (`tests/disk/`).

use super::{
    FjallSettings, FjallStore, check,
    mark::{self, Mark},
};
use crate::{Direction, Durability, Error, KeyValue, Limit, Purpose, WriteBatch};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

type Content = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

const JOURNALS: usize = 4;
const EACH: usize = 12;

fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn open(path: &Path) -> crate::Result<FjallStore> {
    FjallStore::open(path, &FjallSettings { workers: 1, ..FjallSettings::default() })
}

fn content(store: &FjallStore) -> crate::Result<Content> {
    let limit = Limit { items: usize::MAX, bytes: usize::MAX };
    let mut all = Content::new();
    for name in store.keyspaces()? {
        let keyspace = store.open_keyspace(&name, Purpose::State)?;
        let page = store.scan(keyspace, b"", None, Direction::Forward, limit)?;
        all.insert(name, page.items.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect());
    }
    Ok(all)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file of a directory but the one that says who has it open.
fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

fn journal(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("db/{number}.jnl"))
}

/// A store with several journals.
struct Several {
    dir: tempfile::TempDir,
    all: Content,
    /// How long each journal is behind each of its commits.
    ends: Vec<Vec<u64>>,
}

/// `closed`: it was closed, else its process was killed, a second after it committed last.
fn several(closed: bool) -> Several {
    let (running, dir) = (scratch(), scratch());
    drop(open(running.path()).unwrap());
    // Opened again, its journal ends where its last record does.
    let store = open(running.path()).unwrap();
    let state = store.open_keyspace("state", Purpose::State).unwrap();
    let log = store.open_keyspace("log", Purpose::Log).unwrap();
    let first = journal(running.path(), 0);
    let mut ends = Vec::new();
    for n in 0..JOURNALS * EACH {
        let mut batch = WriteBatch::new();
        batch.put(log, format!("key-{n:04}"), vec![n as u8; 10 + n * 37 % 90]);
        batch.put(state, format!("position-{}", n % 5), format!("{n}"));
        if n % 3 == 0 {
            batch.delete(state, format!("position-{}", (n + 1) % 5));
        }
        store.commit(batch, Durability::PowerLoss).unwrap();
        ends.push(fs::metadata(&first).unwrap().len());
        if n == EACH / 2 {
            // A part of the first journal is in tables.
            store.flush(state).unwrap();
        }
    }
    let all = content(&store).unwrap();
    copy(running.path(), dir.path());
    let bytes = fs::read(journal(dir.path(), 0)).unwrap();
    let mut start = 0;
    let mut cut = Vec::new();
    for (number, ends) in ends.chunks(EACH).enumerate() {
        let end = *ends.last().unwrap();
        fs::write(journal(dir.path(), number), &bytes[start as usize..end as usize]).unwrap();
        cut.push(ends.iter().map(|end| end - start).collect());
        start = end;
    }
    let mut mark = Mark::read(dir.path()).unwrap().unwrap();
    let database = dir.path().join("db");
    mark.journals = mark::journals(&database, mark.commits, &BTreeMap::new()).unwrap();
    mark.commit = store.inner.synced.load(std::sync::atomic::Ordering::Acquire);
    mark.versions = closed.then(|| mark::versions(&database).unwrap());
    mark.write(dir.path()).unwrap();
    let found = mark.journals.values().copied().collect::<Vec<_>>();
    assert_eq!(found.len(), JOURNALS);
    assert!(found.windows(2).all(|two| two[0] < two[1]), "{found:?}");
    Several { dir, all, ends: cut }
}

impl Several {
    /// Damages a copy. Answers what was told; `None` where all is there nevertheless.
    fn told(&self, what: &str, damage: impl FnOnce(&Path)) -> Option<String> {
        let dir = scratch();
        copy(self.dir.path(), dir.path());
        damage(dir.path());
        let before = files(dir.path());
        match open(dir.path()) {
            Err(Error::Corrupt { what: told }) => {
                assert!(files(dir.path()) == before, "{what}: changed, although it was refused");
                let report = check(dir.path()).unwrap();
                assert!(!report.damage.is_empty(), "{what}: the check says nothing");
                Some(told)
            }
            Err(other) => panic!("{what}: not told as damage: {other}"),
            Ok(store) => {
                assert!(content(&store).unwrap() == self.all, "{what}: opened silently without all of it");
                None
            }
        }
    }

    fn must_be_told(&self, what: &str, names: &str, damage: impl FnOnce(&Path)) {
        let told = self.told(what, damage).unwrap_or_else(|| panic!("{what}: not told"));
        assert!(told.contains(names), "{what}: {told}");
    }
}

fn cut(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn whole_it_opens_and_has_everything() {
    for closed in [false, true] {
        let several = several(closed);
        assert_eq!(several.told("nothing", |_| {}), None);
        // Also opened several times, and with a newest journal that has not been written to yet.
        assert_eq!(several.told("an empty one", |dir| fs::write(journal(dir, JOURNALS), "").unwrap()), None);
        let dir = scratch();
        copy(several.dir.path(), dir.path());
        for _ in 0..3 {
            assert!(content(&open(dir.path()).unwrap()).unwrap() == several.all);
        }
    }
}

#[test]
fn a_journal_that_is_missing_is_told_with_its_commits() {
    for closed in [false, true] {
        let several = several(closed);
        for number in 1..JOURNALS {
            several.must_be_told(
                &format!("{number} missing, closed: {closed}"),
                &format!("{number}.jnl: missing"),
                |dir| fs::remove_file(journal(dir, number)).unwrap(),
            );
        }
        several.must_be_told("1 and 2 missing", "1.jnl: missing", |dir| {
            fs::remove_file(journal(dir, 1)).unwrap();
            fs::remove_file(journal(dir, 2)).unwrap();
        });
        several.must_be_told("all missing", "0.jnl", |dir| {
            for number in 0..JOURNALS {
                fs::remove_file(journal(dir, number)).unwrap();
            }
        });
    }
    let several = several(true);
    several.must_be_told("the oldest missing", &format!("0.jnl: missing; {} commits", EACH + 2), |dir| {
        fs::remove_file(journal(dir, 0)).unwrap();
    });
}

#[test]
fn a_journal_that_is_cut_emptied_or_zeroed_is_told() {
    let several = several(false);
    for number in 0..JOURNALS {
        let len = *several.ends[number].last().unwrap();
        let ends = several.ends[number].iter().copied();
        let lens = (0..len).step_by(53).chain(ends).chain([0, 1, len - 1]).filter(|to| *to < len);
        for to in lens {
            for zeros in [0, 3_000] {
                let what = format!("{number} cut at {to} of {len}, {zeros} zeros behind");
                several.must_be_told(&what, &format!("{number}.jnl"), |dir| {
                    cut(&journal(dir, number), to);
                    cut(&journal(dir, number), to + zeros);
                });
            }
        }
        // In the middle, zeros as long as a sector.
        several.must_be_told(&format!("{number} zeroed"), &format!("{number}.jnl"), |dir| {
            let mut bytes = fs::read(journal(dir, number)).unwrap();
            bytes[512..1024].fill(0);
            fs::write(journal(dir, number), bytes).unwrap();
        });
    }
}

#[test]
fn a_flipped_bit_in_any_journal_is_told() {
    let several = several(false);
    let mut seed = 0x5eed_u64;
    for number in 0..JOURNALS {
        let len = *several.ends[number].last().unwrap() as usize;
        for _ in 0..40 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (byte, bit) = ((seed >> 33) as usize % len, seed >> 61);
            let what = format!("bit {bit} of byte {byte} of {number}.jnl flipped");
            let flip = |dir: &Path| {
                let mut bytes = fs::read(journal(dir, number)).unwrap();
                bytes[byte] ^= 1 << bit;
                fs::write(journal(dir, number), bytes).unwrap();
            };
            // Sequence numbers have no checksum, their order is what tells; that of the newest commit may be higher.
            let newest = several.ends[number][EACH - 2] as usize;
            if number == JOURNALS - 1 && (newest + 5..newest + 13).contains(&byte) {
                several.told(&what, flip);
            } else {
                several.must_be_told(&what, &format!("{number}.jnl"), flip);
            }
        }
    }
}

#[test]
fn journals_that_changed_places_are_told() {
    let several = several(false);
    several.must_be_told("1 and 2 swapped", "1.jnl", |dir| {
        let (one, two) = (fs::read(journal(dir, 1)).unwrap(), fs::read(journal(dir, 2)).unwrap());
        fs::write(journal(dir, 1), two).unwrap();
        fs::write(journal(dir, 2), one).unwrap();
    });
    several.must_be_told("2 twice", "2.jnl", |dir| {
        fs::copy(journal(dir, 1), journal(dir, 2)).unwrap();
    });
}
