//! What is damaged is found by a check, and what is whole is read nevertheless.
//!
//! Not here: what is refused when a store is opened (`damage.rs`).

use crate::support::{content, copy, files, filled, open, scratch};
use ropeway_store::{Durability, Error, KeyValue, Report, WriteBatch, check, salvage};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A copy, damaged; all files of it but the lock must stay as they are.
fn damaged(
    original: &Path,
    damage: impl FnOnce(&Path),
) -> (tempfile::TempDir, BTreeMap<PathBuf, Option<Vec<u8>>>) {
    let dir = scratch();
    copy(original, dir.path());
    damage(dir.path());
    let before = but_the_lock(dir.path());
    (dir, before)
}

fn but_the_lock(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = files(dir);
    all.remove(Path::new("lock"));
    all
}

fn flip(path: PathBuf, byte: usize) {
    let mut bytes = fs::read(&path).unwrap();
    bytes[byte] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn all_damage(report: &Report) -> String {
    report.damage.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_whole_store_has_no_damage_and_is_salvaged_whole() {
    let original = scratch();
    let expected = filled(original.path());
    let before = but_the_lock(original.path());
    let report = check(original.path()).unwrap();
    assert!(report.damage.is_empty(), "{}", all_damage(&report));
    let names: Vec<&str> = report.keyspaces.iter().map(|keyspace| keyspace.name.as_str()).collect();
    assert_eq!(names, ["log", "state"]);
    assert!(report.keyspaces.iter().all(|keyspace| keyspace.is_readable && keyspace.table_bytes > 0));
    assert!(report.marked_commit.is_some() && report.marked_commit == report.last_commit);
    let to = scratch();
    let (store, report) = salvage(original.path(), to.path()).unwrap();
    assert!(report.damage.is_empty());
    assert!(content(&store).unwrap() == expected);
    assert!(matches!(store.commit(WriteBatch::new(), Durability::None), Err(Error::Poisoned { .. })));
    assert!(matches!(open(original.path()), Err(Error::Locked { .. })), "nobody changes it meanwhile");
    drop(store);
    assert!(but_the_lock(original.path()) == before, "the original stays as it is");
    assert!(content(&open(original.path()).unwrap()).unwrap() == expected);
}

#[test]
fn every_file_is_checked_and_all_that_is_whole_is_salvaged() {
    let original = scratch();
    let expected = filled(original.path());
    for (name, bytes) in but_the_lock(original.path()) {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { continue };
        for remove in [true, false] {
            let what = format!("{} {}", name.display(), if remove { "removed" } else { "damaged" });
            let (dir, before) = damaged(original.path(), |dir| {
                let path = dir.join(&name);
                if remove { fs::remove_file(path).unwrap() } else { flip(path, bytes.len() / 2) }
            });
            let report = match check(dir.path()) {
                Ok(report) => report,
                Err(Error::Version { .. }) => continue,
                Err(error) => panic!("{what}: {error}"),
            };
            let file = name.file_name().unwrap().to_str().unwrap();
            assert!(all_damage(&report).contains(file), "{what}: {}", all_damage(&report));
            let to = scratch();
            let (store, _) = salvage(dir.path(), to.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let names = store.keyspaces().unwrap();
            let left_out = |name: &str| {
                report.keyspaces.iter().any(|keyspace| keyspace.name == name && !keyspace.is_readable)
            };
            for (keyspace, records) in &expected {
                if left_out(keyspace) {
                    continue;
                }
                assert!(names.contains(keyspace), "{what}: {keyspace} is missing in {names:?}");
                let keyspace = store.open_keyspace(keyspace, ropeway_store::Purpose::State).unwrap();
                for (key, value) in records {
                    match store.get(keyspace, key) {
                        Ok(Some(found)) => assert!(found == *value || name.ends_with("0.jnl"), "{what}"),
                        Ok(None) => assert!(name.ends_with("0.jnl"), "{what}: a record is missing"),
                        Err(Error::Corrupt { .. }) => {}
                        Err(error) => panic!("{what}: {error}"),
                    }
                }
            }
            drop(store);
            assert!(but_the_lock(dir.path()) == before, "{what}: the original stays as it is");
        }
    }
}

#[test]
fn commits_behind_a_damaged_one_are_salvaged() {
    let original = scratch();
    let expected = filled(original.path());
    let journal = Path::new("db/0.jnl");
    let len = fs::read(original.path().join(journal)).unwrap().len();
    let (dir, _) = damaged(original.path(), |dir| flip(dir.join(journal), len - 600));
    let report = check(dir.path()).unwrap();
    assert!(all_damage(&report).contains("1 commit is missing"), "{}", all_damage(&report));
    let to = scratch();
    let (store, _) = salvage(dir.path(), to.path()).unwrap();
    let found = content(&store).unwrap();
    let missing = expected["log"].len() - found["log"].len();
    assert!(missing <= 1, "{missing} are missing");
}

#[test]
fn what_is_no_store_is_an_error() {
    let dir = scratch();
    assert!(matches!(check(&dir.path().join("none")), Err(Error::Io { .. })));
    assert!(matches!(check(dir.path()), Err(Error::Absent { .. })));
    assert!(matches!(salvage(dir.path(), &dir.path().join("none")), Err(Error::Absent { .. })));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is made there");
    filled(dir.path());
    assert!(matches!(salvage(dir.path(), dir.path()), Err(Error::Io { .. })), "not into what is not empty");
}
