//! Directories that earlier versions wrote: a copy of each is opened, and all of it is there.
//!
//! Not here: what the broker makes of the records.
#![cfg(feature = "fjall")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ropeway_store::{Direction, Durability, FjallSettings, FjallStore, KeyValue, Limit, Purpose, WriteBatch};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What lies in a fixture: the name of each keyspace, and how many records it holds.
type Content = Vec<(String, usize)>;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/embedded").join(name)
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

fn content(store: &FjallStore) -> Content {
    let names = store.keyspaces().unwrap();
    let count = |name: &str| {
        let keyspace = store.open_keyspace(name, Purpose::State).unwrap();
        let page = store.scan(keyspace, b"", None, Direction::Forward, Limit::items(1_000)).unwrap();
        assert!(!page.more);
        page.items.len()
    };
    names.into_iter().map(|name| (name.clone(), count(&name))).collect()
}

fn opens_whole(name: &str, expected: &[(&str, usize)]) {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(name), dir.path());
    let expected: Content = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    for _ in 0..2 {
        let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
        assert_eq!(content(&store), expected);
        store.close().unwrap();
    }
    // It can be written as any other.
    let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
    let keyspace = store.open_keyspace("more", Purpose::State).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(keyspace, "key", "value");
    store.commit(batch, Durability::PowerLoss).unwrap();
}

#[test]
fn format_1_opens_whole() {
    let content = [("log-1795266347024", 40), ("log-1795266347050", 2), ("schedule", 2), ("state", 14)];
    opens_whole("format-1", &content);
}

#[test]
fn format_1_of_a_process_that_was_killed_opens_whole() {
    opens_whole("format-1-killed", &[("log-1795266376218", 98), ("schedule", 0), ("state", 5)]);
}
