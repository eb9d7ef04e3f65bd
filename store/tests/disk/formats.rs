//! Directories that earlier versions wrote: a copy of each is opened, and all of it is there.
//!
//! Not here: what the broker makes of the records.
use crate::support::{copy, names_and_counts, scratch};
use ropeway_store::{Durability, FjallSettings, FjallStore, KeyValue, Purpose, WriteBatch};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/embedded").join(name)
}

/// `expected`: the name of each keyspace, and how many records it holds.
fn opens_whole(name: &str, expected: &[(&str, usize)]) {
    let dir = scratch();
    copy(&fixture(name), dir.path());
    let expected: Vec<_> = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    for _ in 0..2 {
        let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
        assert_eq!(names_and_counts(&store), expected);
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

#[test]
fn format_2_opens_whole() {
    let content = [("log-1795269806938", 40), ("log-1795269807182", 2), ("schedule", 2), ("state", 17)];
    opens_whole("format-2", &content);
}

#[test]
fn format_2_of_a_process_that_was_killed_opens_whole() {
    opens_whole("format-2-killed", &[("log-1795269808962", 139), ("schedule", 0), ("state", 7)]);
}
