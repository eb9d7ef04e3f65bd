//! Messages that lie in one record: read from anywhere among them, in pieces, in order; written all or none; told one by one where they are damaged.
//!
//! Not here: what such a record looks like (`batch.rs`), which messages become one (`core/appends.rs`), directories of earlier formats
//! (`formats.rs`).

use super::support::*;
use crate::{Embedded, Event, Message, MessageBroker, Position, Reader, Start, Target, Topic};
use std::time::Duration;

/// More than one record takes.
const MANY: usize = crate::embedded::batch::MOST + 44;

/// Publishes so many messages with one call, so that few records hold them; answers where they lie.
async fn fill(broker: &Embedded, topic: &Topic, messages: usize) -> Vec<Position> {
    let texts: Vec<String> = (0..messages).map(|n| format!("m{n}")).collect();
    publish(broker, topic, 0, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// What a reader gets from there on, up to the end; what cannot be read is `None`.
async fn read_from(broker: &Embedded, topic: &Topic, from: Start) -> Vec<(Position, Option<String>)> {
    let mut reader = broker.read().await.unwrap();
    reader.follow(topic, Some(0), from).await.unwrap();
    read_all(&mut *reader).await
}

async fn read_all(reader: &mut dyn Reader) -> Vec<(Position, Option<String>)> {
    let mut all = Vec::new();
    loop {
        match next_read(reader).await {
            Event::Batch(batch) => {
                all.extend(contents(&batch).into_iter().map(|(at, text)| (at, Some(text))));
            }
            Event::Unreadable { position, .. } => all.push((position, None)),
            Event::CaughtUp(_) => return all,
            other => panic!("{other:?}"),
        }
    }
}

fn expected(positions: &[Position], from: usize) -> Vec<(Position, Option<String>)> {
    (from..positions.len()).map(|n| (positions[n], Some(format!("m{n}")))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_reader_begins_anywhere_among_them() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let positions = fill(&broker, &orders, MANY).await;
    for n in (0..MANY).step_by(7).chain([1, 255, 256, 257, MANY - 1]) {
        assert_eq!(read_from(&broker, &orders, Start::At(positions[n])).await, expected(&positions, n));
        let after = read_from(&broker, &orders, Start::After(positions[n])).await;
        assert_eq!(after, expected(&positions, n + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_leads_to_the_first_message_of_its_record() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let mut all = Vec::new();
    let mut times = Vec::new();
    for count in [1, 5, MANY, 1, 3] {
        tokio::time::advance(Duration::from_secs(1)).await;
        times.push((
            crate::Timestamp::from_millis(1_700_000_000_000 + 1000 * (times.len() as i64 + 1)),
            all.len(),
        ));
        all.extend(fill(&broker, &orders, count).await);
    }
    for (time, first) in times {
        let found = read_from(&broker, &orders, Start::Time(time)).await;
        assert_eq!(found.first().map(|(at, _)| *at), Some(all[first]));
        assert_eq!(found.len(), all.len() - first);
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_with_little_room_gets_them_in_pieces_and_in_order() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let positions = fill(&broker, &orders, MANY).await;
    for (room, group) in [(1, "one"), (7, "seven"), (300, "many")] {
        let mut consumer = subscribe(&broker, |s| s.in_flight.messages = room, group, &[&orders]).await;
        assigned(&mut *consumer).await;
        let mut got = Vec::new();
        while got.len() < MANY {
            let (of, piece) = batch(&mut *consumer).await;
            assert!(piece.len() <= room, "{} at once", piece.len());
            let acked: Vec<Position> = piece.iter().map(|(at, _)| *at).collect();
            consumer.control().ack(&of, &acked).unwrap();
            got.extend(piece.into_iter().map(|(at, text)| (at, Some(text))));
        }
        assert_eq!(got, expected(&positions, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_up_to_the_middle_leaves_the_rest_and_a_group_goes_on_in_the_middle() {
    let broker = memory();
    let orders = make(&broker, "orders", 1).await;
    let positions = fill(&broker, &orders, MANY).await;
    broker.admin().purge_topic(&orders, Some(0), Start::At(positions[100])).await.unwrap();
    assert_eq!(read_from(&broker, &orders, Start::Earliest).await, expected(&positions, 100));
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assigned(&mut *consumer).await;
    let (of, got) = batch(&mut *consumer).await;
    assert_eq!(got[0].0, positions[100]);
    consumer.control().ack(&of, &positions[100..150]).unwrap();
    drop(consumer);
    let mut consumer = subscribe(&broker, |_| (), "g", &[&orders]).await;
    assert_eq!(assigned(&mut *consumer).await[0].resumed, Some(positions[150]));
    assert_eq!(batch(&mut *consumer).await.1[0].0, positions[150]);
}

#[tokio::test(start_paused = true)]
async fn messages_of_many_sizes_and_targets_come_as_they_were_published() {
    let broker = memory();
    let orders = make(&broker, "orders", 3).await;
    // A record has 32 KiB at the most, and a message may have more.
    let size = |n: usize| [0, 10, 1000, 40_000, 16_000][n % 5];
    let message = |n: usize| {
        let payload = format!("{n}:{}", "x".repeat(size(n)));
        Message::builder().key((n % 17).to_string()).payload(payload).build()
    };
    let sent: Vec<Message> = (0..400).map(message).collect();
    for piece in sent.chunks(90) {
        broker.publish(&Target::from(&orders), piece.to_vec()).await.into_result().unwrap();
    }
    let mut reader = broker.read().await.unwrap();
    reader.follow(&orders, None, Start::Earliest).await.unwrap();
    let (mut got, mut ends) = (Vec::new(), 0);
    while ends < 3 {
        match next_read(&mut *reader).await {
            Event::Batch(batch) => got.extend(batch.deliveries.into_iter().map(|one| one.message)),
            Event::CaughtUp(_) => ends += 1,
            other => panic!("{other:?}"),
        }
    }
    for key in 0..17 {
        let of = |all: &[Message]| -> Vec<Message> {
            let key = key.to_string();
            all.iter().filter(|one| one.key.as_deref() == Some(key.as_bytes())).cloned().collect()
        };
        assert_eq!(of(&got), of(&sent));
    }
    assert_eq!(got.len(), sent.len());
}

#[cfg(feature = "embedded")]
mod on_disk {
    use super::*;
    use crate::{
        EmbeddedSettings,
        embedded::state::{PARTITIONS, log_key, log_offset},
        salvage::{Salvaged, check_files},
    };
    use bytes::Bytes;
    use ropeway_store::{
        Direction, Durability, FjallSettings, FjallStore, KeyValue, Limit, Purpose, WriteBatch, prefix_end,
    };
    use std::{fs, ops::ControlFlow, path::Path, sync::Arc};

    fn scratch() -> tempfile::TempDir {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
    }

    fn open(dir: &Path) -> crate::Result<Arc<Embedded>> {
        Embedded::open(dir, EmbeddedSettings::default())
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else if entry.file_name() != "reserve" {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    /// Changes the record of partition 0 whose last message has that offset.
    fn change(dir: &Path, last: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let store = FjallStore::open(dir, &FjallSettings::default()).unwrap();
        let name = store.keyspaces().unwrap().into_iter().find(|name| name.starts_with("log-")).unwrap();
        let log = store.open_keyspace(&name, Purpose::Log).unwrap();
        let key = log_key(0, last);
        let mut record = store.get(log, &key).unwrap().unwrap().to_vec();
        change(&mut record);
        let mut batch = WriteBatch::new();
        batch.put(log, key.to_vec(), record);
        store.commit(batch, Durability::PowerLoss).unwrap();
        store.close().unwrap();
    }

    /// What partitions are said to have; `set`: that is put back first.
    fn partitions(dir: &Path, set: Option<&[(Bytes, Bytes)]>) -> Vec<(Bytes, Bytes)> {
        let store = FjallStore::open(dir, &FjallSettings::default()).unwrap();
        let state = store.open_keyspace("state", Purpose::State).unwrap();
        let mut batch = WriteBatch::new();
        for (key, value) in set.unwrap_or_default() {
            batch.put(state, key.clone(), value.clone());
        }
        store.commit(batch, Durability::PowerLoss).unwrap();
        let to = prefix_end(PARTITIONS);
        let page = store.scan(state, PARTITIONS, to.as_deref(), Direction::Forward, Limit::items(99));
        store.close().unwrap();
        page.unwrap().items
    }

    #[tokio::test]
    async fn what_a_crash_left_beyond_the_end_of_a_partition_never_hides_what_is_written_there_later() {
        let dir = scratch();
        let broker = open(dir.path()).unwrap();
        let orders = make(&broker, "orders", 2).await;
        let first = fill(&broker, &orders, 5).await;
        broker.close(PATIENCE).await;
        drop(broker);
        let before = partitions(dir.path(), None);
        let broker = open(dir.path()).unwrap();
        let others = publish(&broker, &orders, 1, &["a", "b", "c"]).await;
        // More than a page of one partition, as records of one and of many.
        for _ in 0..20 {
            publish(&broker, &orders, 0, &["lost"]).await;
            publish(&broker, &orders, 0, &["lost"; 30]).await;
        }
        broker.close(PATIENCE).await;
        drop(broker);
        // Tables were written, and the newest part of the journal is lost, which was never synced.
        partitions(dir.path(), Some(&before));

        let broker = open(dir.path()).unwrap();
        let mut all = first.clone();
        for count in [3, 4, 100, 1] {
            let next = fill(&broker, &orders, count).await;
            assert_eq!(next[0], all.last().unwrap().next());
            all.extend(next);
        }
        let again = publish(&broker, &orders, 1, &["d", "e"]).await;
        assert_eq!(again, others[..2]);
        let got = read_from(&broker, &orders, Start::Earliest).await;
        let texts = [5, 3, 4, 100, 1].iter().flat_map(|count| (0..*count).map(|n| Some(format!("m{n}"))));
        assert_eq!(got, all.iter().copied().zip(texts).collect::<Vec<_>>());
        let mut reader = broker.read().await.unwrap();
        reader.follow(&orders, Some(1), Start::Earliest).await.unwrap();
        let got: Vec<_> = read_all(&mut *reader).await.into_iter().filter_map(|(_, text)| text).collect();
        assert_eq!(got, ["d", "e"]);
    }

    #[tokio::test]
    async fn what_one_call_publishes_is_one_record_and_a_message_alone_is_one_as_it_was() {
        let dir = scratch();
        let broker = open(dir.path()).unwrap();
        let orders = make(&broker, "orders", 1).await;
        for count in [10, 1, 3] {
            fill(&broker, &orders, count).await;
        }
        broker.close(PATIENCE).await;
        drop(broker);
        let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
        let name = store.keyspaces().unwrap().into_iter().find(|name| name.starts_with("log-")).unwrap();
        let log = store.open_keyspace(&name, Purpose::Log).unwrap();
        let page = store.scan(log, b"", None, Direction::Forward, Limit::items(99)).unwrap();
        let lasts: Vec<u64> = page.items.iter().map(|(key, _)| log_offset(key).unwrap()).collect();
        assert_eq!(lasts, [9, 10, 13]);
        assert_eq!(page.items.iter().map(|(_, record)| record[0]).collect::<Vec<_>>(), [2, 1, 2]);
    }

    #[tokio::test]
    async fn those_that_cannot_be_read_are_told_one_by_one_and_the_others_come() {
        type Change = fn(&mut Vec<u8>);
        let cases: [(&str, Change, std::ops::Range<usize>); 4] = [
            ("cut", |record| _ = record.pop(), 5..15),
            ("of no known number", |record| record[2] = 200, 5..15),
            ("with a message of another format", |record| record[3 + 4 * 10 + 3 * 36] = 9, 8..9),
            ("with an end that lies nowhere", |record| record[3 + 4 * 6] = 0xff, 11..13),
        ];
        for (what, damage, lost) in cases {
            let dir = scratch();
            let broker = open(dir.path()).unwrap();
            let orders = make(&broker, "orders", 1).await;
            let mut positions = Vec::new();
            for count in [5, 10, 5] {
                positions.extend(fill(&broker, &orders, count).await);
            }
            broker.close(PATIENCE).await;
            drop(broker);
            change(dir.path(), 14, damage);

            let broker = open(dir.path()).unwrap();
            let got = read_from(&broker, &orders, Start::Earliest).await;
            assert_eq!(got.iter().map(|(at, _)| *at).collect::<Vec<_>>(), positions, "{what}");
            let unread: Vec<usize> = (0..20).filter(|n| got[*n].1.is_none()).collect();
            assert_eq!(unread, lost.clone().collect::<Vec<_>>(), "{what}");
            broker.close(PATIENCE).await;
            drop(broker);

            let to = scratch();
            let salvaged = Salvaged::open(dir.path(), &to.path().join("s")).unwrap();
            let files = check_files(dir.path());
            assert!(files.is_err(), "it is owned");
            let report = salvaged.check(salvaged.damage().clone(), &mut |_| ControlFlow::Continue(()));
            let report = report.unwrap().unwrap();
            let part = &report.topics[0].partitions[0];
            let count = lost.len() as u64;
            assert_eq!((part.readable, part.missing, part.unreadable), (20 - count, 0, count), "{what}");
        }
    }

    #[tokio::test]
    async fn a_record_at_the_last_offset_there_can_be_is_no_end_of_the_program() {
        let dir = scratch();
        let broker = open(dir.path()).unwrap();
        let orders = make(&broker, "orders", 1).await;
        let positions = fill(&broker, &orders, 5).await;
        broker.close(PATIENCE).await;
        drop(broker);
        for damage in [0, 3] {
            let store = FjallStore::open(dir.path(), &FjallSettings::default()).unwrap();
            let name = store.keyspaces().unwrap().into_iter().find(|name| name.starts_with("log-")).unwrap();
            let log = store.open_keyspace(&name, Purpose::Log).unwrap();
            let record = store.get(log, &log_key(0, 4)).unwrap().unwrap();
            let mut batch = WriteBatch::new();
            batch.put(log, log_key(0, u64::MAX).to_vec(), record.slice(damage..));
            store.commit(batch, Durability::PowerLoss).unwrap();
            store.close().unwrap();
            let to = scratch();
            let salvaged = Salvaged::open(dir.path(), &to.path().join("s")).unwrap();
            let report = salvaged.check(salvaged.damage().clone(), &mut |_| ControlFlow::Continue(()));
            let report = report.unwrap().unwrap();
            assert!(report.topics[0].partitions[0].readable >= 5, "{report:?}");
        }
        let broker = open(dir.path()).unwrap();
        assert_eq!(read_from(&broker, &orders, Start::Earliest).await, expected(&positions, 0));
        let next = fill(&broker, &orders, 2).await;
        assert_eq!(next[0], positions[4].next());
    }

    #[tokio::test]
    async fn cut_at_any_byte_a_batch_is_there_as_a_whole_or_not_at_all() {
        let (running, before) = (scratch(), scratch());
        let broker = open(running.path()).unwrap();
        make(&broker, "orders", 1).await;
        broker.close(PATIENCE).await;
        drop(broker);
        // Opened again, its journal ends where its last record does.
        let broker = open(running.path()).unwrap();
        let orders = topic("orders");
        let first = fill(&broker, &orders, 2).await;
        let journal = running.path().join("db/0.jnl");
        let start = fs::metadata(&journal).unwrap().len();
        // Its mark says no more than that this much must be there.
        copy(running.path(), before.path());
        let second = fill(&broker, &orders, 6).await;
        let end = fs::metadata(&journal).unwrap().len();
        assert!(end > start + 6 * 34);
        let bytes = fs::read(&journal).unwrap();
        let all: Vec<(Position, Option<String>)> =
            expected(&first, 0).into_iter().chain(expected(&second, 0)).collect();
        for len in start..=end {
            let dir = scratch();
            copy(before.path(), dir.path());
            fs::write(dir.path().join("db/0.jnl"), &bytes[..len as usize]).unwrap();
            let whole = if len == end { 8 } else { 2 };
            let broker = open(dir.path()).unwrap_or_else(|error| panic!("cut at {len} of {end}: {error}"));
            let got = read_from(&broker, &orders, Start::Earliest).await;
            assert_eq!(got, all[..whole], "cut at {len} of {end}");
            // What comes next lies behind what is there.
            let next = publish(&broker, &orders, 0, &["next"]).await;
            assert_eq!(next[0], all[whole - 1].0.next());
        }
    }
}
