//! Directories that are damaged: every message is either found as it was or told to be lost, and what is told adds up.

use super::support::*;
use crate::{
    Embedded, EmbeddedSettings, Message, MessageBroker, Position, Start, Target, Timestamp, Topic,
    salvage::{Found, LossKind, Report, Salvaged, check_files},
};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

const EACH: usize = 800;

type Places = BTreeMap<(u32, Position), String>;

/// Messages of a call, which are a record.
const BATCH: usize = 90;
/// Messages that are purged; where that is lost they may be found.
const PURGED: usize = 45;
/// Messages that are kept.
const KEPT: usize = 2 * EACH - PURGED;

/// A directory with tables: a topic of 2 partitions in small segments, with batches and messages alone, and two delayed messages.
async fn filled(dir: &Path) -> (Topic, Places) {
    let settings = EmbeddedSettings { segment: 64 * 1024, ..EmbeddedSettings::default() };
    let broker = Embedded::open(dir, settings).unwrap();
    let orders = make(&broker, "orders", 2).await;
    let mut all = Places::new();
    for round in 0..EACH / 100 {
        for partition in 0..2 {
            let texts: Vec<String> =
                (0..100).map(|number| format!("{partition} {round} {number} {}", "x".repeat(100))).collect();
            let list: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (batch, alone) = list.split_at(BATCH);
            let mut places = publish(&broker, &orders, partition, batch).await;
            for one in alone {
                places.extend(publish(&broker, &orders, partition, &[one]).await);
            }
            all.extend(places.into_iter().map(|place| (partition, place)).zip(texts));
        }
    }
    // What is left begins in the middle of a record.
    let low = Position(all.keys().next().unwrap().1.0, PURGED as u64);
    broker.admin().purge_topic(&orders, Some(0), Start::At(low)).await.unwrap();
    let delayed = |text: &str| {
        let message = Message::builder().payload(text.to_owned());
        message.deliver_at(Timestamp::from_millis(4_100_000_000_000)).build()
    };
    let to = Target { topic: orders.clone(), partition: Some(1), at_least: None };
    broker.publish(&to, vec![delayed("later"), delayed("too")]).await.into_result().unwrap();
    let flushed = async {
        while tables(dir).len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, flushed).await.expect("tables in time");
    broker.close(PATIENCE).await;
    (orders, all)
}

/// In memory where that can be: hundreds of stores are opened, and none of these tests cuts the power.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let is_table = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("tables"));
    let mut all: Vec<PathBuf> = files(dir).into_iter().filter(is_table).collect();
    // Those of keyspace 0 are the list of keyspaces.
    all.retain(|path| !path.starts_with(dir.join("db/keyspaces/0")));
    all
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
    // Directories without files count as well.
    for folder in fs::read_dir(from.join("db/keyspaces")).unwrap() {
        let tables = to.join("db/keyspaces").join(folder.unwrap().file_name()).join("tables");
        fs::create_dir_all(tables).unwrap();
    }
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// What is found and told of a directory; every message found must be one that was published, in its place and in order.
fn salvaged(dir: &Path, all: &Places) -> (Report, Vec<(u32, Position)>, u64) {
    let files = check_files(dir).unwrap();
    let to = scratch();
    let salvaged = Salvaged::open(dir, &to.path().join("s")).unwrap();
    let (mut found, mut delayed) = (Vec::new(), 0);
    for topic in salvaged.topics() {
        let mut visit = |entry: Found| {
            if let Found::Message { partition, position, message } = entry {
                let text = String::from_utf8(message.payload.unwrap().to_vec()).unwrap();
                match position {
                    Some(position) => {
                        assert_eq!(all.get(&(partition, position)), Some(&text));
                        found.push((partition, position));
                    }
                    None => {
                        assert_eq!((partition, text == "later" || text == "too"), (1, true));
                        delayed += 1;
                    }
                }
            }
            ControlFlow::Continue(())
        };
        salvaged.messages(topic, &mut visit).unwrap();
        salvaged.delayed(topic, &mut visit).unwrap();
    }
    assert!(found.is_sorted(), "in order, and none twice");
    let report = salvaged.check(files, &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
    let readable: u64 = report.topics.iter().flat_map(|topic| &topic.partitions).map(|p| p.readable).sum();
    assert_eq!(readable, found.len() as u64);
    (report, found, delayed)
}

fn lost(report: &Report) -> (u64, u64, bool) {
    let parts = || report.topics.iter().flat_map(|topic| &topic.partitions);
    let count = |of: fn(&crate::salvage::PartitionReport) -> u64| parts().map(of).sum();
    (count(|part| part.missing), count(|part| part.unreadable), parts().any(|part| part.is_more_lost))
}

#[tokio::test]
async fn every_message_is_found_as_it_was_or_told_to_be_lost() {
    let original = scratch();
    let (orders, all) = filled(original.path()).await;
    let (report, found, delayed) = salvaged(original.path(), &all);
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((found.len(), delayed, report.topics[0].name.clone()), (KEPT, 2, orders));

    let lock = original.path().join("lock");
    for file in files(original.path()).into_iter().filter(|file| *file != lock) {
        let len = fs::metadata(&file).unwrap().len() as usize;
        for change in [None, Some(len / 2)] {
            if len == 0 && change.is_some() {
                continue;
            }
            let dir = scratch();
            copy(original.path(), dir.path());
            let name = file.strip_prefix(original.path()).unwrap();
            match change {
                None => fs::remove_file(dir.path().join(name)).unwrap(),
                Some(byte) => flip(&dir.path().join(name), byte),
            }
            // A format that is not known is refused, and so is a directory of which nothing is left.
            if check_files(dir.path()).is_err() {
                assert!(!name.starts_with("db"), "{}", name.display());
                continue;
            }
            let (report, found, delayed) = salvaged(dir.path(), &all);
            let what = format!("{} {change:?}: {:?}", name.display(), report.store.damage);
            // What the next version replaced is no damage.
            assert!(!report.is_whole() || (found.len(), delayed) == (KEPT, 2), "{what}");
            let (missing, unreadable, more) = lost(&report);
            let told = found.len() as u64 + missing + unreadable;
            let is_known = report.problem_count == 0
                && !more
                && report.store.damage.iter().all(|damage| damage.lost_commits.is_none());
            if is_known && !name.to_string_lossy().ends_with("jnl") {
                assert_eq!(told, KEPT as u64, "{what} {report:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_block_costs_its_messages_alone() {
    let original = scratch();
    let (_, all) = filled(original.path()).await;
    let large = |path: &PathBuf| fs::metadata(path).unwrap().len() > 40_000;
    let table = tables(original.path()).into_iter().find(large).unwrap();
    let len = fs::metadata(&table).unwrap().len() as usize;
    for bytes in [vec![1000], vec![len / 2], vec![1000, len / 2]] {
        let dir = scratch();
        copy(original.path(), dir.path());
        for byte in &bytes {
            flip(&dir.path().join(table.strip_prefix(original.path()).unwrap()), *byte);
        }
        let (report, found, _) = salvaged(dir.path(), &all);
        let (missing, unreadable, more) = lost(&report);
        assert!(missing == 0 && !more, "{report:?}");
        // A block has 16 KiB and the record that goes beyond, a message more than 140 B.
        let most = 16 * 1024 / 140 + BATCH;
        assert!((1..=(most * bytes.len()) as u64).contains(&unreadable), "{unreadable}");
        assert_eq!(found.len() as u64 + unreadable, KEPT as u64);
        let losses: Vec<_> = report.topics[0].partitions.iter().flat_map(|part| &part.lost).collect();
        assert!(losses.len() <= 2 * bytes.len(), "{losses:?}");
        for loss in losses {
            assert_eq!(loss.kind, LossKind::Unreadable);
            let at = (loss.partition.unwrap(), loss.from.unwrap());
            assert!(!found.contains(&at) && all.contains_key(&at));
        }
    }
}
