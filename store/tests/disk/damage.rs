//! Bits flipped and files removed: what opens is complete, or the damage is told.

use crate::support::{Content, content, copy, files, filled, open, put, scratch};
use ropeway_store::{Durability, Error, KeyValue, Purpose, WriteBatch, check};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Opens a damaged copy and reads all of it. Answers what was told, `None` where all is there.
fn told(dir: &Path, expected: &Content, what: &str) -> Option<String> {
    let before = files(dir);
    match open(dir) {
        Err(error @ (Error::Corrupt { .. } | Error::Version { .. })) => {
            let mut after = files(dir);
            let lock = PathBuf::from("lock");
            after.remove(&lock);
            let mut before = before;
            before.remove(&lock);
            let changed: Vec<_> =
                before.iter().filter(|(name, bytes)| after.get(*name) != Some(bytes)).collect();
            assert!(
                changed.is_empty() && after.len() == before.len(),
                "{what}: {error}, and changed {changed:?}"
            );
            Some(error.to_string())
        }
        Err(other) => panic!("{what}: neither opened nor told as damage: {other}"),
        Ok(store) => {
            let found = content(&store);
            store.close().unwrap();
            match found {
                Err(error @ Error::Corrupt { .. }) => Some(error.to_string()),
                Err(other) => panic!("{what}: not told as damage: {other}"),
                Ok(found) => {
                    assert!(found == *expected, "{what}: opened silently without all of it");
                    // Once more is the same as once.
                    let store = open(dir).unwrap();
                    assert!(content(&store).unwrap() == *expected, "{what}: the second time is another");
                    None
                }
            }
        }
    }
}

fn damaged(original: &Path, expected: &Content, what: &str, damage: impl FnOnce(&Path)) -> Option<String> {
    let dir = scratch();
    copy(original, dir.path());
    damage(dir.path());
    told(dir.path(), expected, what)
}

#[test]
fn no_file_can_be_removed_or_emptied_silently() {
    let original = scratch();
    let expected = filled(original.path());
    for (name, bytes) in files(original.path()) {
        let is_file = bytes.is_some();
        let what = format!("{} removed", name.display());
        let text = damaged(original.path(), &expected, &what, |dir| {
            let path = dir.join(&name);
            if is_file { fs::remove_file(path).unwrap() } else { fs::remove_dir_all(path).unwrap() }
        });
        // Who has it open is written anew, and an empty directory is nothing.
        let may_go = name.as_path() == Path::new("lock") || !is_file;
        match text {
            Some(text) => {
                assert!(text.contains(name.file_name().unwrap().to_str().unwrap()), "{what}: {text}")
            }
            None => assert!(may_go, "{what}: not told"),
        }
        if bytes.is_some_and(|bytes| !bytes.is_empty()) {
            let what = format!("{} emptied", name.display());
            let text =
                damaged(original.path(), &expected, &what, |dir| fs::write(dir.join(&name), "").unwrap());
            assert!(text.is_some() || may_go, "{what}: not told");
        }
    }
}

#[test]
fn no_bit_can_be_flipped_silently() {
    // Every bit with ROPEWAY_TEST_EVERY_BIT, else about so many in each file.
    const FLIPS: usize = 60;
    let all = std::env::var_os("ROPEWAY_TEST_EVERY_BIT").is_some();
    let original = scratch();
    let expected = filled(original.path());
    let (mut seed, mut tried, mut untold) = (0x5eed_u64, 0, 0);
    for (name, bytes) in files(original.path()) {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { continue };
        let step = if all { 1 } else { (bytes.len() * 8 / FLIPS).max(1) };
        let mut bit = 0;
        while bit < bytes.len() * 8 {
            let what = format!("bit {} of byte {} of {} flipped", bit % 8, bit / 8, name.display());
            let text = damaged(original.path(), &expected, &what, |dir| {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(dir.join(&name), bytes).unwrap();
            });
            tried += 1;
            untold += usize::from(text.is_none());
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bit += if step == 1 { 1 } else { 1 + (seed >> 33) as usize % (2 * step - 1) };
        }
    }
    println!("{tried} bits flipped, {untold} of them without effect");
    assert!(untold < tried / 4, "most bits matter");
}

#[test]
fn the_place_and_the_count_of_what_is_missing_are_told() {
    let original = scratch();
    let expected = filled(original.path());
    let journal = original.path().join("db/0.jnl");
    let len = fs::read(&journal).unwrap().len();
    // In the middle: one commit is behind no number any more.
    let text = damaged(original.path(), &expected, "flip", |dir| {
        let path = dir.join("db/0.jnl");
        let mut bytes = fs::read(&path).unwrap();
        bytes[len / 2] ^= 1;
        fs::write(path, bytes).unwrap();
    });
    let text = text.unwrap();
    assert!(text.contains("0.jnl from byte") && text.contains("1 commit is missing"), "{text}");
    let text = damaged(original.path(), &expected, "cut", |dir| {
        fs::OpenOptions::new()
            .write(true)
            .open(dir.join("db/0.jnl"))
            .unwrap()
            .set_len(len as u64 / 2)
            .unwrap();
    });
    let text = text.unwrap();
    assert!(text.contains("0.jnl from byte") && text.contains("commits are missing"), "{text}");
}

/// fjall alone gives the number of a keyspace that was dropped last to one that is made after a restart, and loses it at the next.
#[test]
fn a_keyspace_that_is_made_after_one_was_dropped_and_a_restart_stays() {
    let dir = scratch();
    {
        let store = open(dir.path()).unwrap();
        let kept = store.open_keyspace("kept", Purpose::State).unwrap();
        put(&store, kept, "key", "value");
        for n in 0..5 {
            let dropped = store.open_keyspace(&format!("dropped-{n}"), Purpose::Log).unwrap();
            store.drop_keyspace(dropped).unwrap();
        }
    }
    {
        let store = open(dir.path()).unwrap();
        let made = store.open_keyspace("made", Purpose::Log).unwrap();
        put(&store, made, "key", "value");
    }
    for _ in 0..2 {
        let store = open(dir.path()).unwrap();
        assert_eq!(store.keyspaces().unwrap(), ["kept", "made"]);
        let all = content(&store).unwrap();
        assert_eq!(all["made"].len(), 1);
    }
}

/// Tables of several MiB with hundreds of blocks, as logs and state have them.
#[test]
fn damage_inside_of_a_large_table_is_told() {
    const RECORDS: u32 = 1_500;
    const FLIPS: usize = 10;
    let original = scratch();
    let mut seed = 0x1a4e_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    {
        let store = open(original.path()).unwrap();
        for (name, purpose) in [("log", Purpose::Log), ("state", Purpose::State)] {
            let keyspace = store.open_keyspace(name, purpose).unwrap();
            for first in (0..RECORDS).step_by(100) {
                let mut batch = WriteBatch::new();
                for n in first..first + 100 {
                    let value: Vec<u8> = (0..1_000).map(|_| next() as u8).collect();
                    batch.put(keyspace, n.to_be_bytes().to_vec(), value);
                }
                store.commit(batch, Durability::ProcessCrash).unwrap();
            }
            store.flush(keyspace).unwrap();
        }
        store.close().unwrap();
    }
    let expected = content(&open(original.path()).unwrap()).unwrap();
    let all = files(original.path());
    let large =
        |(_, bytes): &(&PathBuf, &Option<Vec<u8>>)| bytes.as_ref().is_some_and(|bytes| bytes.len() > 1 << 20);
    let tables: Vec<_> = all
        .iter()
        .filter(large)
        .filter(|(name, _)| name.components().any(|part| part.as_os_str() == "tables"))
        .collect();
    assert_eq!(tables.len(), 2, "one of each");
    for (name, bytes) in tables {
        let bytes = bytes.as_ref().unwrap();
        for n in 0..FLIPS + 4 {
            let mut damaged_bytes = bytes.clone();
            let place = next() % bytes.len();
            let what = if n < FLIPS {
                damaged_bytes[place] ^= 1 << (next() % 8);
                format!("a bit of byte {place} of {} flipped", name.display())
            } else {
                damaged_bytes.truncate(place);
                format!("{} cut at {place} of {}", name.display(), bytes.len())
            };
            let text = damaged(original.path(), &expected, &what, |dir| {
                fs::write(dir.join(name), &damaged_bytes).unwrap();
                let report = check(dir).unwrap();
                assert!(!report.damage.is_empty(), "{what}: the check finds nothing");
            });
            assert!(text.is_some(), "{what}: not told by reading everything");
        }
    }
}
