//! Memory, journals and waits have bounds.
//!
//! Not here: what happens to damaged stores (`damage.rs`).

use crate::support::{files, names_and_counts, open, put, scratch, settings};
use ropeway_store::{
    Durability, Error, FjallSettings, FjallStore, KeyValue, Keyspace, MemoryStore, Purpose, WriteBatch,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const MIB: u64 = 1024 * 1024;

fn fill(store: &FjallStore, keyspace: Keyspace, bytes: u64) {
    const RECORD: u64 = 128 * 1024;
    for n in 0..bytes / RECORD {
        let mut batch = WriteBatch::new();
        batch.put(keyspace, n.to_be_bytes().to_vec(), vec![n as u8; RECORD as usize]);
        store.commit(batch, Durability::ProcessCrash).unwrap();
    }
}

fn bytes_of(path: &Path, of: impl Fn(&Path) -> bool) -> u64 {
    files(path)
        .iter()
        .filter(|(name, _)| of(name))
        .map(|(_, bytes)| bytes.as_ref().map_or(0, Vec::len) as u64)
        .sum()
}

#[test]
fn what_many_keyspaces_have_in_memory_together_is_bounded() {
    let dir = scratch();
    let settings = FjallSettings { memory_bytes: 4 * MIB, ..settings() };
    let store = FjallStore::open(dir.path(), &settings).unwrap();
    for n in 0..24 {
        let keyspace = store.open_keyspace(&format!("log-{n}"), Purpose::Log).unwrap();
        fill(&store, keyspace, MIB);
    }
    store.close().unwrap();
    // What is not in tables was in memory.
    let tables = bytes_of(dir.path(), |name| name.components().any(|part| part.as_os_str() == "tables"));
    assert!(tables + 2 * settings.memory_bytes + MIB >= 24 * MIB, "{tables} bytes are in tables");
}

fn journal_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap());
    let journals = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "jnl"));
    journals.map(|journal| journal.metadata().map_or(0, |about| about.len())).sum()
}

#[test]
fn journals_are_bounded_although_keyspaces_rest() {
    let dir = scratch();
    let settings = FjallSettings { journal_bytes: 64 * MIB, workers: 2, ..FjallSettings::default() };
    let store = FjallStore::open(dir.path(), &settings).unwrap();
    let resting = store.open_keyspace("resting", Purpose::State).unwrap();
    let small = store.open_keyspace("small", Purpose::State).unwrap();
    let busy = store.open_keyspace("busy", Purpose::State).unwrap();
    put(&store, small, "key", "value");
    for _ in 0..6 {
        put(&store, resting, "key", "value");
        store.flush(resting).unwrap();
        let mut batch = WriteBatch::new();
        batch.delete(resting, "key");
        store.commit(batch, Durability::PowerLoss).unwrap();
        store.flush(resting).unwrap();
    }
    let mut most = 0;
    for _ in 0..12 {
        fill(&store, busy, 32 * MIB);
        most = most.max(journal_bytes(dir.path()));
    }
    assert!(most <= settings.journal_bytes + 224 * MIB, "journals took {} MiB", most / MIB);
    store.close().unwrap();
    let store = open(dir.path()).unwrap();
    assert!(store.get(store.open_keyspace("resting", Purpose::State).unwrap(), b"key").unwrap().is_none());
    let small = store.open_keyspace("small", Purpose::State).unwrap();
    assert_eq!(store.get(small, b"key").unwrap().unwrap(), "value");
}

#[test]
fn a_directory_that_was_replaced_is_told_by_name() {
    let parent = scratch();
    let dir = parent.path().join("store");
    let store = open(&dir).unwrap();
    store.usage().unwrap();
    fs::rename(&dir, parent.path().join("moved")).unwrap();
    let error = store.usage().unwrap_err();
    assert!(matches!(&error, Error::Replaced { path } if *path == dir), "{error}");
    let other = open(&dir).unwrap();
    assert!(matches!(store.usage(), Err(Error::Replaced { .. })));
    other.usage().unwrap();
    store.close().unwrap();
    other.close().unwrap();
    open(&dir).unwrap();
}

#[test]
fn a_name_that_no_keyspace_may_have_is_refused() {
    let dir = scratch();
    let stores: [Box<dyn KeyValue>; 2] = [Box::new(open(dir.path()).unwrap()), Box::new(MemoryStore::new())];
    for store in stores {
        for name in ["", "\0commits", &"x".repeat(256)] {
            assert!(matches!(store.open_keyspace(name, Purpose::State), Err(Error::Name { .. })));
        }
        store.open_keyspace(&"x".repeat(255), Purpose::State).unwrap();
        assert_eq!(store.keyspaces().unwrap().len(), 1);
    }
}

/// Whether the store in a directory has a journal of this number.
fn has_journal(dir: &Path, number: u32) -> bool {
    dir.join(format!("db/{number}.jnl")).exists()
}

/// Waits until nothing of the tables in a directory changes any more.
fn settled(dir: &Path) {
    let tables = || {
        let files = files(&dir.join("db/keyspaces"));
        files.into_iter().map(|(name, bytes)| (name, bytes.map(|bytes| bytes.len()))).collect::<Vec<_>>()
    };
    let mut before = tables();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = tables();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Delayed messages are put and deleted, and then there are none for days: what was deleted last is merged away, and so is the trace by which
/// fjall knows that a journal is not needed any more.
#[test]
fn a_keyspace_that_lost_its_newest_records_to_merging_keeps_no_journal() {
    let dir = scratch();
    let settings = FjallSettings { journal_bytes: 128 * MIB, workers: 2, ..FjallSettings::default() };
    let store = FjallStore::open(dir.path(), &settings).unwrap();
    let merged = store.open_keyspace("merged", Purpose::State).unwrap();
    let small = store.open_keyspace("small", Purpose::State).unwrap();
    let busy = store.open_keyspace("busy", Purpose::State).unwrap();
    let delete = || {
        let mut batch = WriteBatch::new();
        batch.delete(merged, "key");
        store.commit(batch, Durability::PowerLoss).unwrap();
    };
    put(&store, merged, "key", "value");
    store.flush(merged).unwrap();
    delete();
    store.flush(merged).unwrap();
    put(&store, merged, "key", "value");
    store.flush(merged).unwrap();
    put(&store, merged, "key", "value");
    store.flush(merged).unwrap();
    delete();
    put(&store, small, "key", "value");
    while !has_journal(dir.path(), 1) {
        fill(&store, busy, 8 * MIB);
    }
    // The journal is sealed, with both in it. Now the one is merged while the other still needs it.
    store.flush(merged).unwrap();
    settled(dir.path());
    store.flush(small).unwrap();
    assert!(has_journal(dir.path(), 0), "nothing is tested");
    let mut most = 0;
    for _ in 0..9 {
        fill(&store, busy, 32 * MIB);
        most = most.max(journal_bytes(dir.path()));
    }
    assert!(!has_journal(dir.path(), 0), "the first journal stays, and all after it: {} MiB", most / MIB);
    assert!(most <= settings.journal_bytes + 224 * MIB, "journals took {} MiB", most / MIB);
    assert_eq!(names_and_counts(&store)[1], ("merged".to_owned(), 0));
    store.close().unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(names_and_counts(&store)[1], ("merged".to_owned(), 0));
}

/// The directory of the keyspace that was made last.
fn tables_of_newest(dir: &Path) -> PathBuf {
    let keyspaces = dir.join("db/keyspaces");
    let numbers = fs::read_dir(&keyspaces).unwrap().map(|entry| entry.unwrap().file_name());
    let newest: u32 = numbers.map(|name| name.to_str().unwrap().parse().unwrap()).max().unwrap();
    keyspaces.join(newest.to_string()).join("tables")
}

#[test]
fn a_table_that_cannot_be_written_is_told_and_loses_nothing() {
    for flushes in [true, false] {
        let dir = scratch();
        let settings = FjallSettings { memtable_bytes: MIB, ..settings() };
        let store = FjallStore::open(dir.path(), &settings).unwrap();
        let keyspace = store.open_keyspace("key", Purpose::Log).unwrap();
        put(&store, keyspace, "first", "in a table");
        store.flush(keyspace).unwrap();
        let tables = tables_of_newest(dir.path());
        let aside = dir.path().join("aside");
        fs::rename(&tables, &aside).unwrap();
        let mut acked = 0_u64;
        let told = if flushes {
            put(&store, keyspace, "acked", "not in a table");
            store.flush(keyspace).unwrap_err()
        } else {
            loop {
                let mut batch = WriteBatch::new();
                batch.put(keyspace, acked.to_be_bytes().to_vec(), vec![7; 64 * 1024]);
                match store.commit(batch, Durability::ProcessCrash) {
                    Ok(()) => acked += 1,
                    Err(error) => break error,
                }
            }
        };
        assert!(matches!(told, Error::Poisoned { .. } | Error::Io { .. }), "{told}");
        // From now on all that would promise anything is refused, at once and with the reason.
        let mut batch = WriteBatch::new();
        batch.put(keyspace, "after", "no");
        let refused = store.commit(batch, Durability::PowerLoss).unwrap_err();
        assert!(matches!(&refused, Error::Poisoned { why } if why.contains("table")), "{refused}");
        let refused = store.flush(keyspace).unwrap_err();
        assert!(matches!(refused, Error::Poisoned { .. }), "{refused}");
        _ = store.close();
        drop(store);
        fs::rename(&aside, &tables).unwrap();
        let store = open(dir.path()).unwrap();
        let keyspace = store.open_keyspace("key", Purpose::Log).unwrap();
        assert_eq!(store.get(keyspace, b"first").unwrap().unwrap(), "in a table");
        assert_eq!(store.get(keyspace, b"acked").unwrap().is_some(), flushes);
        for n in 0..acked {
            assert_eq!(store.get(keyspace, &n.to_be_bytes()).unwrap().unwrap().len(), 64 * 1024);
        }
    }
}
