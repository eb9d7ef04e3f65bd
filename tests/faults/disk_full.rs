//! The disk is full: somebody else's file takes what is left while the broker is used, and later goes again.
//!
//! A broker in this process on a small file system of its own. What holds: every answer is true, which a broker that is opened when there is
//! room again shows; what was stored can be read on the full disk. While some of `min_free` is left, consumers finish, their acks are stored, topics are purged and deleted,
//! and publishing goes on by itself when there is room again.
//! Not here: the file system (`disk.rs`).

use crate::{disk::SmallDisk, native};
use libtest_mimic::{Completion, Failed};
use ropeway_broker::{
    ConsumerExt, ErrorKind, Event, Group, Message, MessageBroker, Published, ReaderExt, Start, Subscription,
    Target, Topic, TopicSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

const MEBIBYTES: u64 = 768;
/// Room is taken in pieces of so many bytes, and the rest by writing.
const PIECE: u64 = 16 * 1024 * 1024;
const PARTITIONS: u32 = 4;
const BATCH: u64 = 8;
/// So many batches without one that is acked: it is full.
const REFUSALS: usize = 5;
const CLOSE: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_millis(50);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What became of each number.
#[derive(Default)]
struct Told {
    acked: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    kinds: BTreeMap<&'static str, usize>,
}

/// The trial.
pub(crate) fn answers_truly_on_a_full_disk() -> Result<Completion, Failed> {
    if let Some(why) = SmallDisk::absent() {
        return Ok(Completion::ignored_with(why));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut disk = SmallDisk::make(MEBIBYTES)?;
    let result = runtime.block_on(fill(&disk)).map_err(|error| error.to_string());
    drop(runtime);
    disk.unmount()?;
    eprintln!("{}", result?);
    Ok(Completion::Completed)
}

async fn fill(disk: &SmallDisk) -> Result<String, Failure> {
    let directory = disk.path().join("broker");
    let topic = Topic::new("work")?;
    let other = Topic::new("other")?;
    let ballast = disk.path().join("ballast");
    let (mut told, mut number) = (Told::default(), 0);
    // Twice: a broker that was full once is as good as new.
    for round in 0..2 {
        let broker = open(&directory).await?;
        for topic in [&topic, &other] {
            match broker.admin().create_topic(topic, TopicSpec::partitions(PARTITIONS)).await {
                Err(error) if error.kind() != ErrorKind::Exists => return Err(error.into()),
                _ => {}
            }
        }
        let before = told.acked.len();
        for _ in 0..20 {
            publish(&broker, &topic, &mut number, &mut told).await?;
        }
        if told.acked.len() != before + 20 * BATCH as usize {
            return Err(format!("round {round}: not everything was acked while there was room").into());
        }
        take_all_room(&ballast)?;
        let mut refusals = 0;
        while refusals < REFUSALS {
            let acked = publish(&broker, &topic, &mut number, &mut told).await?;
            refusals = if acked { 0 } else { refusals + 1 };
        }
        // What was acked can be read although nothing can be written.
        check(&told, &read(&*broker, &topic).await?, "on the full disk")?;
        broker.close(CLOSE).await;
        drop(broker);
        fs::remove_file(&ballast)?;
        let broker = open(&directory).await?;
        check(&told, &read(&*broker, &topic).await?, "opened again")?;
        if !publish(&broker, &topic, &mut number, &mut told).await? {
            return Err(format!("round {round}: nothing is acked though there is room again").into());
        }
        broker.close(CLOSE).await;
    }
    // What lies there can be removed on a full disk, and makes room.
    take_all_room(&ballast)?;
    let broker =
        open(&directory).await.map_err(|error| format!("opening on the full disk was refused: {error}"))?;
    let deleted = broker.admin().delete_topic(&topic).await;
    deleted.map_err(|error| format!("deleting a topic on the full disk was refused: {error}"))?;
    broker.close(CLOSE).await;
    fs::remove_file(&ballast)?;
    let broker = open(&directory).await?;
    let is_left = broker.admin().topics().await?.contains(&topic);
    broker.close(CLOSE).await;
    if is_left {
        return Err("a topic that was deleted on the full disk is there".into());
    }
    Ok(format!(
        "{} acked, {} refused, failures by kind: {:?}",
        told.acked.len(),
        told.refused.len(),
        told.kinds,
    ))
}

/// The trial: what must stay free is taken by somebody else, and later goes again; all the while the same broker runs.
pub(crate) fn lives_on_while_room_is_short() -> Result<Completion, Failed> {
    if let Some(why) = SmallDisk::absent() {
        return Ok(Completion::ignored_with(why));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut disk = SmallDisk::make(MEBIBYTES)?;
    let result = runtime.block_on(squeeze(&disk)).map_err(|error| error.to_string());
    drop(runtime);
    disk.unmount()?;
    eprintln!("{}", result?);
    Ok(Completion::Completed)
}

async fn squeeze(disk: &SmallDisk) -> Result<String, Failure> {
    let url = format!("embedded:{}?min_free=64MiB", disk.path().join("broker").display());
    let ballast = disk.path().join("ballast");
    let (topic, group) = (Topic::new("work")?, Group::new("crew")?);
    let (mut told, mut number) = (Told::default(), 0);
    let broker = ropeway_broker::connect(&url).await?;
    let (purged, deleted) = (Topic::new("purged")?, Topic::new("deleted")?);
    for topic in [&topic, &purged, &deleted] {
        broker.admin().create_topic(topic, TopicSpec::partitions(PARTITIONS)).await?;
    }
    for topic in [&purged, &deleted] {
        broker.publish(&Target::from(topic), vec![message(0)]).await.into_result()?;
    }
    for _ in 0..20 {
        publish(&broker, &topic, &mut number, &mut told).await?;
    }
    // Half of what must stay free: never all, not for a moment.
    let taken = disk.free()?.saturating_sub(32 * 1024 * 1024).to_string();
    native::run(Command::new("fallocate").args(["-l", &taken]).arg(&ballast))?;
    wait_for(&broker, &topic, &mut number, &mut told, false).await?;
    if told.kinds.keys().any(|kind| *kind != "throttled") {
        return Err(format!("refused by {:?}, and not because room is short", told.kinds).into());
    }
    // Who consumes goes on and is done, and that is stored.
    let mut consumer = broker.subscribe(Subscription::new(group.clone(), [topic.clone()])).await?;
    let control = consumer.control();
    let mut consumed = BTreeSet::new();
    while consumed.len() < told.acked.len() {
        if let Event::Batch(batch) = tokio::time::timeout(CLOSE, consumer.next()).await?? {
            for delivery in &batch.deliveries {
                consumed.insert((batch.of.partition, delivery.position));
                control.ack(&batch.of, &[delivery.position])?;
            }
        }
    }
    let unstored = control.flush().await;
    if !unstored.is_empty() {
        return Err(format!("acks were not stored: {unstored:?}").into());
    }
    // What makes room works.
    broker.admin().purge_topic(&purged, None, Start::Latest).await?;
    broker.admin().delete_topic(&deleted).await?;
    if !read(&*broker, &purged).await?.is_empty() || broker.admin().topics().await?.contains(&deleted) {
        return Err("what was purged or deleted is there".into());
    }
    fs::remove_file(&ballast)?;
    wait_for(&broker, &topic, &mut number, &mut told, true).await?;
    broker.close(CLOSE).await;
    drop((consumer, control, broker));
    let broker = ropeway_broker::connect(&url).await?;
    check(&told, &read(&*broker, &topic).await?, "opened again")?;
    let about = broker.admin().describe_group(&group).await?;
    let left: u64 = about.partitions.iter().filter_map(|partition| partition.unfinished).sum();
    broker.close(CLOSE).await;
    if left as usize > told.acked.len() - consumed.len() {
        return Err(format!("{left} are to be handled again, though they were done").into());
    }
    Ok(format!("{} acked, {} refused: {:?}", told.acked.len(), told.refused.len(), told.kinds))
}

/// Publishes until it is acked, or is not.
async fn wait_for(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    number: &mut u64,
    told: &mut Told,
    acked: bool,
) -> Result<(), Failure> {
    for _ in 0..CLOSE.as_millis() / PACE.as_millis() {
        if publish(broker, topic, number, told).await? == acked {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
    Err(format!("publishing was still {} after {CLOSE:?}", if acked { "refused" } else { "acked" }).into())
}

async fn open(directory: &Path) -> Result<Arc<dyn MessageBroker>, Failure> {
    // Nothing is kept free, so that it is the disk that refuses.
    Ok(ropeway_broker::connect(&format!("embedded:{}?min_free=1", directory.display())).await?)
}

/// Writes a file until nothing is left for anybody.
fn take_all_room(path: &Path) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    let mut taken: u64 = 0;
    let take = |from: u64| {
        let range = ["-o".into(), from.to_string(), "-l".into(), PIECE.to_string()];
        native::run(Command::new("fallocate").args(range).arg(path))
    };
    // Where that program is missing, writing takes all of it.
    while take(taken).is_ok() {
        taken += PIECE;
    }
    file.seek(SeekFrom::Start(taken))?;
    for size in [1024 * 1024, 4096, 1] {
        while file.write_all(&vec![0; size]).and_then(|()| file.sync_data()).is_ok() {}
    }
    Ok(())
}

/// Publishes a batch; answers whether something of it was acked.
async fn publish(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    number: &mut u64,
    told: &mut Told,
) -> Result<bool, Failure> {
    let numbers = *number..*number + BATCH;
    *number = numbers.end;
    let batch = numbers.clone().map(message).collect();
    let outcomes = broker.publish(&Target::from(topic), batch).await;
    let mut acked = false;
    for (number, outcome) in numbers.zip(outcomes) {
        if let Some(failed) = outcome.failed() {
            *told.kinds.entry(failed.error.kind().as_str()).or_default() += 1;
            if failed.error.context().is_empty() {
                return Err(format!("{number} failed and nobody says why").into());
            }
        }
        match outcome {
            Published::Acked { .. } => acked = told.acked.insert(number),
            Published::NotWritten(_) => _ = told.refused.insert(number),
            Published::Unknown(_) => {}
        }
    }
    Ok(acked)
}

fn message(number: u64) -> Message {
    let payload = format!("{number} {:x<16000}", "");
    Message::builder().key(format!("key-{}", number % 7)).payload(payload).build()
}

/// The numbers that are there, in the order of each partition.
async fn read(broker: &dyn MessageBroker, topic: &Topic) -> Result<Vec<u64>, Failure> {
    let mut reader = broker.read().await?;
    reader.follow(topic, None, Start::Earliest).await?;
    let mut left: BTreeSet<u32> = (0..PARTITIONS).collect();
    let mut numbers = Vec::new();
    while !left.is_empty() {
        match reader.next().await? {
            Event::Batch(batch) => {
                for delivery in batch.deliveries {
                    let payload = delivery.message.payload.unwrap_or_default();
                    let text = std::str::from_utf8(&payload)?;
                    let number: u64 = text.split(' ').next().unwrap_or_default().parse()?;
                    if Some(text.as_bytes()) != message(number).payload.as_deref() {
                        return Err(format!("the bytes of {number} were changed").into());
                    }
                    numbers.push(number);
                }
            }
            Event::CaughtUp(of) => _ = left.remove(&of.partition),
            other => return Err(format!("unexpected: {other:?}").into()),
        }
    }
    Ok(numbers)
}

/// What is there against what was told.
fn check(told: &Told, there: &[u64], when: &str) -> Result<(), Failure> {
    let set: BTreeSet<u64> = there.iter().copied().collect();
    let mut last = BTreeMap::new();
    let ordered = there.iter().all(|number| last.insert(number % 7, number).is_none_or(|last| last < number));
    let lost: Vec<_> = told.acked.difference(&set).take(5).collect();
    let untrue: Vec<_> = told.refused.intersection(&set).take(5).collect();
    if !lost.is_empty() || !untrue.is_empty() || set.len() != there.len() || !ordered {
        return Err(format!(
            "{when}: acked and lost {lost:?}, refused and there {untrue:?}, {} read twice, in order: {ordered}",
            there.len() - set.len()
        )
        .into());
    }
    Ok(())
}
