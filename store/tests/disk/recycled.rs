//! Keyspaces that are made and dropped again and again: nothing grows, and nothing of one is seen in another.
//!
//! Not here: processes that are killed meanwhile (`crashes.rs`).

use crate::support::{open, put, scratch};
use ropeway_store::{
    Direction, Durability, Error, FjallStore, KeyValue, Keyspace, Limit, Purpose, WriteBatch,
};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

const ALL: Limit = Limit { items: usize::MAX, bytes: usize::MAX };

fn fill(store: &FjallStore, keyspace: Keyspace, round: u64) {
    for n in 0..10_u64 {
        let mut batch = WriteBatch::new();
        batch.put(
            keyspace,
            n.to_be_bytes().to_vec(),
            [round.to_be_bytes().to_vec(), vec![7; 20_000]].concat(),
        );
        store.commit(batch, Durability::ProcessCrash).unwrap();
    }
}

/// The rounds in which the records were written that a scan finds.
fn rounds(store: &FjallStore, keyspace: Keyspace) -> Result<Vec<u64>, Error> {
    let page = store.scan(keyspace, b"", None, Direction::Forward, ALL)?;
    let round = |value: &[u8]| u64::from_be_bytes(value[..8].try_into().unwrap());
    Ok(page.items.iter().map(|(_, value)| round(value)).collect())
}

/// Counts files and their bytes, but for journals. They come and go meanwhile.
fn walk(dir: &Path, count: &mut (usize, u64)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        count.0 += 1;
        if path.is_dir() {
            walk(&path, count);
        } else if path.extension().is_none_or(|end| end != "jnl") {
            count.1 += entry.metadata().map_or(0, |about| about.len());
        }
    }
}

/// Files, open handles and bytes of a store.
fn size(dir: &Path) -> (usize, usize, u64) {
    let mut count = (0, 0);
    walk(&dir.join("db"), &mut count);
    // One's own alone: other tests run in the same process.
    let handles = fs::read_dir("/proc/self/fd").map_or(0, |open| {
        let targets = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.filter(|target| target.starts_with(dir)).count()
    });
    (count.0, handles, count.1)
}

#[test]
fn nothing_grows_when_keyspaces_are_made_and_dropped() {
    let count: u64 =
        std::env::var("ROPEWAY_TEST_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    let dir = scratch();
    let store = open(dir.path()).unwrap();
    let mut held = Vec::new();
    let (mut early, mut most) = ((0, 0, 0), (0, 0, 0));
    for round in 0..count {
        let keyspace = store.open_keyspace(&format!("log-{round}"), Purpose::Log).unwrap();
        assert_eq!(rounds(&store, keyspace).unwrap(), []);
        fill(&store, keyspace, round);
        if round % 3 != 0 {
            store.flush(keyspace).unwrap();
        }
        assert_eq!(rounds(&store, keyspace).unwrap(), [round; 10]);
        held.push(keyspace);
        if held.len() > 3 {
            let oldest = held.remove(0);
            store.drop_keyspace(oldest).unwrap();
            assert!(matches!(store.scan(oldest, b"", None, Direction::Forward, ALL), Err(Error::Dropped)));
            assert!(matches!(store.drop_keyspace(oldest), Err(Error::Dropped)));
        }
        let now = size(dir.path());
        let part = if round < count / 3 { &mut early } else { &mut most };
        *part = (part.0.max(now.0), part.1.max(now.1), part.2.max(now.2));
    }
    println!("files, handles, bytes: {early:?} in the first third, later {most:?}");
    assert!(most.0 <= early.0 + 30, "files: {} grew to {}", early.0, most.0);
    assert!(most.1 <= early.1 + 15, "handles: {} grew to {}", early.1, most.1);
    assert!(most.2 <= early.2 + 2_000_000, "bytes: {} grew to {}", early.2, most.2);
}

#[test]
fn the_room_of_a_dropped_keyspace_comes_back() {
    let dir = scratch();
    let store = open(dir.path()).unwrap();
    let kept = store.open_keyspace("kept", Purpose::State).unwrap();
    put(&store, kept, "key", "value");
    let keyspace = store.open_keyspace("log", Purpose::Log).unwrap();
    let mut seed = 1_u64;
    for n in 0..100_u64 {
        let mut batch = WriteBatch::new();
        let value = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        });
        batch.put(keyspace, n.to_be_bytes().to_vec(), value.take(20_000).collect::<Vec<u8>>());
        store.commit(batch, Durability::ProcessCrash).unwrap();
    }
    let before = store.usage().unwrap().bytes;
    store.flush(keyspace).unwrap();
    let full = store.usage().unwrap().bytes;
    assert!(full > before + 1_900_000, "{before} bytes became {full}");
    store.drop_keyspace(keyspace).unwrap();
    let after = store.usage().unwrap().bytes;
    assert!(after < before + 100_000, "{after} bytes are left of {full}");
    store.close().unwrap();
    let (_, _, bytes) = size(dir.path());
    assert!(bytes < 200_000, "{bytes} bytes of files are left");
}

#[test]
fn who_reads_while_a_keyspace_is_dropped_sees_it_whole_or_not_at_all() {
    let dir = scratch();
    let store = open(dir.path()).unwrap();
    let over = AtomicBool::new(false);
    let current = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while !over.load(Ordering::Relaxed) {
                    let Some((keyspace, round)) = *current.lock().unwrap() else { continue };
                    match rounds(&store, keyspace) {
                        Ok(found) => assert_eq!(found, [round; 10]),
                        Err(error) => assert!(matches!(error, Error::Dropped), "{error}"),
                    }
                    seen += 1;
                }
                assert!(seen > 0);
            });
        }
        for round in 0..100 {
            let keyspace = store.open_keyspace(&format!("log-{}", round % 3), Purpose::Log).unwrap();
            fill(&store, keyspace, round);
            *current.lock().unwrap() = Some((keyspace, round));
            std::thread::sleep(Duration::from_millis(2));
            store.drop_keyspace(keyspace).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
}
