//! What every key-value store must do, run on all of them; and what only the one on disk has.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use ropeway_store::{
    Direction::{Backward, Forward},
    Durability, Error, KeyValue, Keyspace, Limit, MemoryStore, Purpose, WriteBatch,
};
use std::collections::BTreeMap;

const ALL: Limit = Limit { items: usize::MAX, bytes: usize::MAX };

fn memory(check: fn(&dyn KeyValue)) {
    check(&MemoryStore::new());
}

#[cfg(feature = "fjall")]
fn disk(check: fn(&dyn KeyValue)) {
    let dir = tempfile::tempdir().unwrap();
    check(&ropeway_store::FjallStore::open(dir.path(), &Default::default()).unwrap());
}

macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory_store { $(#[test] fn $name() { super::memory(super::$name); })* }
        #[cfg(feature = "fjall")]
        mod fjall_store { $(#[test] fn $name() { super::disk(super::$name); })* }
    };
}

on_every_store!(
    a_batch_is_applied_in_order_over_several_keyspaces,
    a_key_that_is_empty_or_too_long_is_refused,
    a_scan_is_ordered_both_ways_and_keeps_its_limits,
    a_dropped_keyspace_is_refused_and_its_name_starts_anew,
    a_batch_with_a_dropped_keyspace_does_nothing,
    a_closed_store_refuses_everything,
    what_is_flushed_is_still_there,
    a_store_tells_how_much_room_it_takes,
    random_programs_agree_with_a_map,
    rows_of_ascending_keys_agree_with_a_map,
);

fn put(store: &dyn KeyValue, space: Keyspace, key: &str, value: &str) {
    let mut batch = WriteBatch::new();
    batch.put(space, key.as_bytes().to_vec(), value.as_bytes().to_vec());
    store.commit(batch, Durability::ProcessCrash).unwrap();
}

fn keys(page: &ropeway_store::Page) -> Vec<&str> {
    page.items.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect()
}

fn a_batch_is_applied_in_order_over_several_keyspaces(store: &dyn KeyValue) {
    let a = store.open_keyspace("a", Purpose::State).unwrap();
    let b = store.open_keyspace("b", Purpose::State).unwrap();
    assert_eq!(store.open_keyspace("a", Purpose::State).unwrap(), a);
    assert_eq!(store.keyspaces().unwrap(), ["a", "b"]);
    let mut batch = WriteBatch::new();
    batch.put(a, "k", "1");
    batch.put(b, "k", "2");
    batch.put(a, "gone", "x");
    batch.delete(a, "gone");
    batch.put(a, "k", "3");
    store.commit(batch, Durability::PowerLoss).unwrap();
    assert_eq!(store.get(a, b"k").unwrap(), Some(Bytes::from("3")));
    assert_eq!(store.get(b, b"k").unwrap(), Some(Bytes::from("2")));
    assert_eq!(store.get(a, b"gone").unwrap(), None);
    store.commit(WriteBatch::new(), Durability::None).unwrap();
}

fn a_key_that_is_empty_or_too_long_is_refused(store: &dyn KeyValue) {
    let space = store.open_keyspace("s", Purpose::State).unwrap();
    for len in [0, 65_536] {
        let mut batch = WriteBatch::new();
        batch.put(space, "k", "v");
        batch.put(space, vec![7; len], "v");
        assert!(matches!(store.commit(batch, Durability::None), Err(Error::Key { len: l }) if l == len));
        assert_eq!(store.get(space, b"k").unwrap(), None);
    }
    put(store, space, &"k".repeat(65_535), "v");
}

fn a_scan_is_ordered_both_ways_and_keeps_its_limits(store: &dyn KeyValue) {
    let space = store.open_keyspace("s", Purpose::State).unwrap();
    for key in ["b", "a", "d", "c", "e"] {
        put(store, space, key, "0123456789");
    }
    let page = store.scan(space, b"b", Some(b"e"), Forward, ALL).unwrap();
    assert_eq!((keys(&page), page.more), (vec!["b", "c", "d"], false));
    let page = store.scan(space, b"b", None, Backward, Limit { items: 2, bytes: 1000 }).unwrap();
    assert_eq!((keys(&page), page.more), (vec!["e", "d"], true));
    let page = store.scan(space, b"", None, Forward, Limit { items: 9, bytes: 25 }).unwrap();
    assert_eq!((keys(&page), page.more), (vec!["a", "b"], true));
    let page = store.scan(space, b"", None, Forward, Limit { items: 0, bytes: 0 }).unwrap();
    assert_eq!((keys(&page), page.more), (vec!["a"], true), "the first always fits");
    for (from, to) in [(&b"c"[..], &b"c"[..]), (b"d", b"a"), (b"x", b"z")] {
        let page = store.scan(space, from, Some(to), Forward, ALL).unwrap();
        assert!(page.items.is_empty() && !page.more);
    }
}

fn a_dropped_keyspace_is_refused_and_its_name_starts_anew(store: &dyn KeyValue) {
    let old = store.open_keyspace("s", Purpose::State).unwrap();
    put(store, old, "k", "v");
    store.drop_keyspace(old).unwrap();
    assert!(matches!(store.drop_keyspace(old), Err(Error::Dropped)));
    assert!(matches!(store.get(old, b"k"), Err(Error::Dropped)));
    assert!(matches!(store.scan(old, b"", None, Forward, ALL), Err(Error::Dropped)));
    assert!(store.keyspaces().unwrap().is_empty());
    let new = store.open_keyspace("s", Purpose::State).unwrap();
    assert_ne!(new, old);
    assert_eq!(store.get(new, b"k").unwrap(), None);
}

fn a_batch_with_a_dropped_keyspace_does_nothing(store: &dyn KeyValue) {
    let kept = store.open_keyspace("kept", Purpose::State).unwrap();
    let dropped = store.open_keyspace("dropped", Purpose::State).unwrap();
    store.drop_keyspace(dropped).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(kept, "k", "v");
    batch.put(dropped, "k", "v");
    assert!(matches!(store.commit(batch, Durability::PowerLoss), Err(Error::Dropped)));
    assert_eq!(store.get(kept, b"k").unwrap(), None);
    put(store, kept, "k", "later commits work");
}

fn what_is_flushed_is_still_there(store: &dyn KeyValue) {
    for purpose in [Purpose::State, Purpose::Log] {
        let space = store.open_keyspace(&format!("{purpose:?}"), purpose).unwrap();
        put(store, space, "k", "1");
        store.flush(space).unwrap();
        store.flush(space).unwrap();
        put(store, space, "l", "2");
        let page = store.scan(space, b"", None, Forward, ALL).unwrap();
        assert_eq!(keys(&page), ["k", "l"]);
    }
}

fn a_store_tells_how_much_room_it_takes(store: &dyn KeyValue) {
    let space = store.open_keyspace("s", Purpose::Log).unwrap();
    let before = store.usage().unwrap().bytes;
    let mut batch = WriteBatch::new();
    batch.put(space, "k", vec![7; 3_000_000]);
    store.commit(batch, Durability::PowerLoss).unwrap();
    assert!(store.usage().unwrap().bytes >= before + 3_000_000);
    assert_ne!(store.usage().unwrap().free, Some(0));
}

fn a_closed_store_refuses_everything(store: &dyn KeyValue) {
    let space = store.open_keyspace("s", Purpose::State).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(store.get(space, b"k"), Err(Error::Closed)));
    assert!(matches!(store.scan(space, b"", None, Forward, ALL), Err(Error::Closed)));
    assert!(matches!(store.open_keyspace("s", Purpose::State), Err(Error::Closed)));
    assert!(matches!(store.keyspaces(), Err(Error::Closed)));
    assert!(matches!(store.drop_keyspace(space), Err(Error::Closed)));
    let mut batch = WriteBatch::new();
    batch.put(space, "k", "v");
    assert!(matches!(store.commit(batch, Durability::None), Err(Error::Closed)));
}

/// Against a plain map, with a small generator of its own so that each run is the same.
fn random_programs_agree_with_a_map(store: &dyn KeyValue) {
    let space = store.open_keyspace("s", Purpose::State).unwrap();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut seed = 42u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let mut batch = WriteBatch::new();
        for _ in 0..random(8) {
            let key = random(40).to_be_bytes()[6..].to_vec();
            if random(3) == 0 {
                model.remove(&key);
                batch.delete(space, key);
            } else {
                let value = vec![random(256) as u8; random(20) as usize];
                model.insert(key.clone(), value.clone());
                batch.put(space, key, value);
            }
        }
        store.commit(batch, Durability::ProcessCrash).unwrap();
        let (a, b) = (random(45), random(45));
        let (from, to) = (a.to_be_bytes()[6..].to_vec(), (a + b).to_be_bytes()[6..].to_vec());
        let expected: Vec<_> = model.range(from.clone()..to.clone()).collect();
        let page = store.scan(space, &from, Some(&to), Forward, ALL).unwrap();
        let found: Vec<_> = page.items.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        assert!(found.iter().map(|(k, v)| (k, v)).eq(expected.iter().copied()));
        let page = store.scan(space, &from, Some(&to), Backward, ALL).unwrap();
        assert!(page.items.iter().rev().map(|(k, v)| (k.to_vec(), v.to_vec())).eq(found));
    }
}

/// Rows as a log with several partitions is written, in one batch for two keyspaces; some stumble, write a key again, or remove one.
fn rows_of_ascending_keys_agree_with_a_map(store: &dyn KeyValue) {
    let spaces = ["a", "b"].map(|name| store.open_keyspace(name, Purpose::Log).unwrap());
    let mut model: BTreeMap<(usize, Vec<u8>), u64> = BTreeMap::new();
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let key = |partition: u64, n: u64| [&(partition as u32).to_be_bytes()[..], &n.to_be_bytes()].concat();
    let mut next = [[0u64; 3]; 2];
    for round in 0..60 {
        let mut batch = WriteBatch::new();
        for _ in 0..1 + random(6) {
            let (space, partition) = (random(2) as usize, random(3));
            for _ in 0..random(120) {
                let at = &mut next[space][partition as usize];
                *at = if random(40) == 0 { at.saturating_sub(random(300)) } else { *at + 1 };
                let key = key(partition, *at);
                if random(60) == 0 {
                    model.remove(&(space, key.clone()));
                    batch.delete(spaces[space], key);
                } else {
                    model.insert((space, key.clone()), round);
                    batch.put(spaces[space], key, round.to_be_bytes().to_vec());
                }
            }
        }
        store.commit(batch, Durability::ProcessCrash).unwrap();
        for (i, space) in spaces.into_iter().enumerate() {
            let expected = model.iter().filter(|((of, _), _)| *of == i);
            let expected: Vec<_> = expected.map(|((_, key), round)| (key.clone(), *round)).collect();
            let page = store.scan(space, b"", None, Forward, ALL).unwrap();
            let number = |value: &[u8]| u64::from_be_bytes(value.try_into().unwrap());
            let found: Vec<_> = page.items.iter().map(|(key, value)| (key.to_vec(), number(value))).collect();
            assert!(found == expected, "round {round}, keyspace {i}");
        }
    }
}

#[cfg(feature = "fjall")]
mod directory {
    use super::*;
    use ropeway_store::FjallStore;
    use std::{fs, path::Path};

    fn open(path: &Path) -> Result<FjallStore, Error> {
        FjallStore::open(path, &Default::default())
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart_and_what_was_dropped_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let kept = store.open_keyspace("kept", Purpose::State).unwrap();
        let dropped = store.open_keyspace("dropped", Purpose::State).unwrap();
        put(&store, kept, "k", "v");
        put(&store, dropped, "k", "v");
        store.drop_keyspace(dropped).unwrap();
        drop(store);
        let store = open(dir.path()).unwrap();
        assert_eq!(store.keyspaces().unwrap(), ["kept"]);
        let kept = store.open_keyspace("kept", Purpose::State).unwrap();
        assert_eq!(store.get(kept, b"k").unwrap(), Some(Bytes::from("v")));
    }

    #[test]
    fn a_second_opener_is_refused_and_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&std::process::id().to_string()) && text.contains("key_value"), "{text}");
        first.close().unwrap();
        let second = open(dir.path()).unwrap();
        drop(first);
        assert!(open(dir.path()).is_err(), "the first gave the directory up once");
        drop(second);
        open(dir.path()).unwrap();
    }

    /// This very test, run as a second process, is the one that is refused.
    #[test]
    fn a_second_process_is_refused_and_told_who_was_first() {
        const VARIABLE: &str = "ROPEWAY_TEST_DIRECTORY";
        if let Some(dir) = std::env::var_os(VARIABLE) {
            println!("refused: {}", open(Path::new(&dir)).unwrap_err());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path()).unwrap();
        let second = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "directory::a_second_process_is_refused_and_told_who_was_first", "--nocapture"])
            .env(VARIABLE, dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&second.stdout);
        let named = format!("(process {})", std::process::id());
        assert!(text.contains("refused: ") && text.contains(&named) && text.contains("key_value"), "{text}");
    }

    #[test]
    fn a_format_that_is_unknown_or_missing_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        fs::write(dir.path().join("format"), "ropeway-store 77\n").unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::Version { found, .. } if found == "77"), "{error}");
        fs::write(dir.path().join("format"), "something else").unwrap();
        assert!(matches!(open(dir.path()), Err(Error::Corrupt { .. })));
        fs::remove_file(dir.path().join("format")).unwrap();
        assert!(matches!(open(dir.path()), Err(Error::Corrupt { .. })));
    }

    /// What a process leaves behind that was killed while it made the store, before and after the format was written.
    #[test]
    fn a_store_that_was_not_made_to_the_end_is_made_anew() {
        for has_format in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("db.new")).unwrap();
            fs::write(dir.path().join("db.new/0.jnl"), "").unwrap();
            if has_format {
                fs::write(dir.path().join("format"), "ropeway-store 1\n").unwrap();
            }
            for _ in 0..2 {
                drop(open(dir.path()).unwrap());
            }
            assert!(!dir.path().join("db.new").exists());
            fs::remove_dir_all(dir.path().join("db")).unwrap();
            let error = open(dir.path()).unwrap_err();
            assert!(
                matches!(error, Error::Corrupt { .. }),
                "a store that was there is not made anew: {error}"
            );
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = open(&file.join("inside")).unwrap_err();
        assert!(matches!(&error, Error::Io { doing, .. } if doing.contains("inside")), "{error}");
    }
}
