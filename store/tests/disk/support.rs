//! What these tests share: a store with a bit of everything in it, copies of directories, and all that is in a store.

use ropeway_store::{
    Direction, Durability, Error, FjallSettings, FjallStore, KeyValue, Keyspace, Limit, Purpose, WriteBatch,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// All records of all keyspaces.
pub(crate) type Content = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// A directory in memory where there is one, because hundreds of stores are opened, and none of these tests cuts the power.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Small, so that tables and journals come about early.
pub(crate) fn settings() -> FjallSettings {
    FjallSettings { workers: 1, ..FjallSettings::default() }
}

pub(crate) fn open(path: &Path) -> Result<FjallStore, Error> {
    FjallStore::open(path, &settings())
}

pub(crate) fn put(store: &FjallStore, keyspace: Keyspace, key: &str, value: &str) {
    let mut batch = WriteBatch::new();
    batch.put(keyspace, key.to_owned(), value.to_owned());
    store.commit(batch, Durability::PowerLoss).unwrap();
}

/// Reads everything.
///
/// # Errors
/// The first that reading answers.
pub(crate) fn content(store: &dyn KeyValue) -> Result<Content, Error> {
    let mut all = Content::new();
    for name in store.keyspaces()? {
        let keyspace = store.open_keyspace(&name, Purpose::State)?;
        let page = store.scan(
            keyspace,
            b"",
            None,
            Direction::Forward,
            Limit { items: usize::MAX, bytes: usize::MAX },
        )?;
        let items = page.items.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
        all.insert(name, items.collect());
    }
    Ok(all)
}

pub(crate) fn names_and_counts(store: &FjallStore) -> Vec<(String, usize)> {
    content(store).unwrap().into_iter().map(|(name, records)| (name, records.len())).collect()
}

pub(crate) fn copy(from: &Path, to: &Path) {
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

/// Every file in a directory with its bytes; directories without.
pub(crate) fn files(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fn walk(root: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            // It holds nothing, and may come and go.
            if name == Path::new("reserve") {
                continue;
            }
            if path.is_dir() {
                found.insert(name, None);
                walk(root, &path, found);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(name, Some(bytes));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(path, path, &mut found);
    found
}

/// A closed store with tables, a journal and a few keyspaces, whose journal has no zeros behind its last record.
pub(crate) fn filled(path: &Path) -> Content {
    let store = open(path).unwrap();
    let state = store.open_keyspace("state", Purpose::State).unwrap();
    let log = store.open_keyspace("log", Purpose::Log).unwrap();
    let gone = store.open_keyspace("gone", Purpose::Log).unwrap();
    let record = |n: u32| format!("{n:04}-{}", "x".repeat(n as usize % 40));
    for n in 0..40 {
        put(&store, log, &format!("key-{n:04}"), &record(n));
        put(&store, state, &format!("position-{}", n % 7), &record(n));
        put(&store, gone, &format!("key-{n}"), "gone");
    }
    store.flush(log).unwrap();
    store.flush(state).unwrap();
    store.drop_keyspace(gone).unwrap();
    for n in 40..60 {
        put(&store, log, &format!("key-{n:04}"), &record(n));
        put(&store, state, &format!("position-{}", n % 7), &record(n));
    }
    store.close().unwrap();
    let store = open(path).unwrap();
    let all = content(&store).unwrap();
    assert_eq!(all["log"].len(), 60);
    store.close().unwrap();
    remove_what_is_over(path);
    all
}

/// Removes versions of trees that are over: `current` names another, and nothing needs them. A tree removes them itself, some time after the next is written.
fn remove_what_is_over(path: &Path) {
    let number = |name: &str| name.strip_prefix('v')?.parse::<u64>().ok();
    for name in files(path).into_keys() {
        let file = path.join(name);
        let version = file.file_name().and_then(|name| number(name.to_str()?));
        let current = fs::read(file.with_file_name("current")).ok();
        let current = current.and_then(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?)));
        if version.is_some() && current.is_some() && version != current {
            fs::remove_file(file).unwrap();
        }
    }
}
