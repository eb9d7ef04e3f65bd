//! What stays in memory, counted by the allocator: things that come and go leave nothing behind, and no record keeps more than itself.
//!
//! One trial at a time, as all memory of the process is counted. Not here: what a process takes of the machine in a long run
//! (`faults/soak.rs`).

use libtest_mimic::{Arguments, Failed, Trial};
use peak_alloc::PeakAlloc;
use ropeway_broker::{
    ConsumerExt, Embedded, EmbeddedSettings, Event, Group, Message, MessageBroker, MessageBrokerExt,
    Retention, Start, Subscription, Target, Timestamp, Topic, TopicSpec,
};
use ropeway_store::{Durability, FjallSettings, FjallStore, KeyValue, Purpose, WriteBatch};
use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const CLOSE: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = vec![
        Trial::test("memory::topics_and_groups_leave_nothing_behind", memory_is_left_clean),
        Trial::test("embedded::topics_and_groups_leave_nothing_behind", disk_is_left_clean),
        Trial::test("memory::what_is_delayed_keeps_nothing_else", || {
            delayed_keeps("memory:?max_memory=1GiB")
        }),
        Trial::test("embedded::what_is_delayed_keeps_nothing_else", delayed_keeps_on_disk),
        Trial::test("embedded::small_records_are_counted_for_what_they_take", small_records_are_bounded),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn scratch() -> Result<tempfile::TempDir, Failed> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// What is in memory now beyond what was before.
fn more_than(before: usize) -> usize {
    HEAP.current_usage().saturating_sub(before)
}

fn message(number: usize) -> Message {
    Message::builder().key(format!("key-{}", number % 64)).payload(vec![b'x'; KIB]).build()
}

fn memory_is_left_clean() -> Result<(), Failed> {
    run(come_and_go(Embedded::memory(EmbeddedSettings::default())?, 1000, 64 * KIB))
}

fn disk_is_left_clean() -> Result<(), Failed> {
    let dir = scratch()?;
    // What waits in memory to be written is little.
    let store = FjallStore::open(dir.path(), &small(64 * KIB as u64))?;
    run(come_and_go(Embedded::over(Arc::new(store), EmbeddedSettings::default())?, 150, MIB))
}

fn small(memtable_bytes: u64) -> FjallSettings {
    FjallSettings {
        memtable_bytes,
        memory_bytes: 4 * memtable_bytes,
        cache_bytes: 64 * KIB as u64,
        ..FjallSettings::default()
    }
}

/// So many topics and groups come and go, after as many at the start.
async fn come_and_go(broker: Arc<dyn MessageBroker>, count: usize, bound: usize) -> Result<(), Failed> {
    for number in 0..count {
        visit(&*broker, number).await?;
    }
    let before = HEAP.current_usage();
    for number in count..2 * count {
        visit(&*broker, number).await?;
    }
    let more = more_than(before);
    broker.close(CLOSE).await;
    eprintln!("{count} topics and groups: {more} bytes more than before, of {bound}");
    if more > bound {
        return Err(
            format!("{more} bytes more are in memory after {count} topics and groups came and went").into()
        );
    }
    Ok(())
}

async fn visit(broker: &dyn MessageBroker, number: usize) -> Result<(), Failed> {
    // Every second one has the name of one that was deleted.
    let number = if number.is_multiple_of(2) { 0 } else { number };
    let (topic, group) = (Topic::new(format!("topic-{number}"))?, Group::new(format!("group-{number}"))?);
    broker.admin().create_topic(&topic, TopicSpec::partitions(2)).await?;
    for number in 0..4 {
        broker.publish_one(&topic, message(number)).await?;
    }
    let later = Message { deliver_at: Some(Timestamp::now() + Duration::from_secs(3600)), ..message(4) };
    broker.publish_one(&topic, later).await?;
    let start = Subscription { start: Start::Earliest, ..Subscription::new(group.clone(), [topic.clone()]) };
    let mut consumer = broker.subscribe(start).await?;
    let control = consumer.control();
    let mut left = 4;
    while left > 0 {
        if let Event::Batch(batch) = tokio::time::timeout(CLOSE, consumer.next()).await?? {
            let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
            // One stays as it is, for nobody.
            control.ack(&batch.of, &done[1..])?;
            left -= done.len();
        }
    }
    control.close(Duration::ZERO).await;
    drop((consumer, control));
    broker.admin().delete_group(&group).await?;
    broker.admin().delete_topic(&topic).await?;
    Ok(())
}

fn delayed_keeps_on_disk() -> Result<(), Failed> {
    delayed_keeps(&format!("embedded:{}?durability=process_crash", scratch()?.path().display()))
}

/// Most of what is published goes again; what stays beside it takes what it is worth.
fn delayed_keeps(url: &str) -> Result<(), Failed> {
    const COUNT: usize = 32 * KIB;
    const DELAYED: usize = 32;
    run(async {
        let broker = ropeway_broker::connect(url).await?;
        let topic = Topic::new("steady")?;
        let retention = Retention { bytes: Some(MIB as u64), ..Retention::default() };
        broker.admin().create_topic(&topic, TopicSpec { partitions: 1, retention }).await?;
        let before = HEAP.current_usage();
        for number in (0..COUNT).step_by(DELAYED) {
            let mut batch: Vec<Message> = (number..number + DELAYED).map(message).collect();
            batch[0].deliver_at = Some(Timestamp::now() + Duration::from_secs(3600));
            let answers = broker.publish(&Target::from(&topic), batch).await;
            answers.into_result()?;
        }
        let bound = 16 * MIB;
        let waited = tokio::time::Instant::now();
        while more_than(before) > bound && waited.elapsed() < CLOSE {
            // What follows lets retention remove what came too fast for it to keep up.
            tokio::time::sleep(PACE).await;
            let answers = broker.publish(&Target::from(&topic), (0..256).map(message).collect()).await;
            answers.into_result()?;
        }
        let more = more_than(before);
        broker.close(CLOSE).await;
        eprintln!("{} delayed of {} KiB: {more} bytes more than before, of {bound}", COUNT / DELAYED, COUNT);
        if more > bound { Err(format!("{more} bytes are in memory").into()) } else { Ok(()) }
    })
}

/// A small record takes more than twice what the store counts for it.
fn small_records_are_bounded() -> Result<(), Failed> {
    const COUNT: u64 = 100_000;
    let dir = scratch()?;
    let settings = small(4 * MIB as u64);
    let settings = FjallSettings { memory_bytes: settings.memtable_bytes, ..settings };
    let store = FjallStore::open(dir.path(), &settings)?;
    let state = store.open_keyspace("state", Purpose::State)?;
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    for number in 0..COUNT {
        let mut batch = WriteBatch::new();
        batch.put(state, number.to_be_bytes().to_vec(), vec![0; 16]);
        store.commit(batch, Durability::None)?;
    }
    let peak = HEAP.peak_usage().saturating_sub(before);
    store.close()?;
    // Commits wait at twice the setting.
    let bound = 5 * settings.memory_bytes as usize;
    eprintln!("{COUNT} small records: at the most {peak} bytes more than before, of {bound}");
    if peak > bound { Err(format!("{peak} bytes were in memory").into()) } else { Ok(()) }
}
