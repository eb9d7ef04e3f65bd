//! Publishing to `embedded:`, 1 KiB a message, so many at once; and fjall alone with batches of so many.
//!
//! In memory where the machine has a file system there: what the disk does costs time, not instructions.

use fjall::{Database, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use ropeway_broker::{
    Embedded, EmbeddedSettings, Message, MessageBroker, MessageBrokerExt, PublishFailed, Publisher,
    PublisherSettings, Target, Topic, TopicSpec,
};
use ropeway_processor::BoxError;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

const PAYLOAD: [u8; 1024] = [b'x'; 1024];
/// Bytes of a key of the log, and of a message there beside its payload.
const KEY: usize = 12;
const AROUND: usize = 34 + 9;
const PATIENCE: Duration = Duration::from_secs(60);

/// How it is published.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// Through a publisher.
    Publisher,
    /// A call to the broker for each message.
    Calls,
    /// Not at all: the store alone, on one thread.
    Store,
}

/// How a cell publishes, and how many messages at once.
pub(crate) fn parse(cell: &str) -> Option<(Way, u64)> {
    let ways = [
        ("publish_embedded_", Way::Publisher),
        ("publish_calls_", Way::Calls),
        ("publish_store_", Way::Store),
    ];
    ways.into_iter().find_map(|(name, way)| Some((way, cell.strip_prefix(name)?.parse().ok()?)))
}

pub(crate) async fn publish(way: Way, at_once: u64, messages: u64) -> Result<(), BoxError> {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { TempDir::new_in(memory)? } else { TempDir::new()? };
    if matches!(way, Way::Store) {
        return store(dir.path(), at_once, messages);
    }
    let broker = Embedded::open(dir.path(), EmbeddedSettings::default())?;
    let topic = Topic::new("measured")?;
    broker.admin().create_topic(&topic, TopicSpec::default()).await?;
    let publisher = Publisher::new(broker.clone(), PublisherSettings::default())?;
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<Result<(), PublishFailed>> = JoinSet::new();
    for _ in 0..at_once {
        let (broker, publisher, target, next) =
            (broker.clone(), publisher.clone(), Target::from(&topic), next.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Relaxed);
                if n >= messages {
                    return Ok(());
                }
                let message = Message::builder().key(n.to_be_bytes().to_vec()).payload(&PAYLOAD[..]).build();
                match way {
                    Way::Publisher => _ = publisher.publish(target.clone(), message).await?,
                    _ => _ = broker.publish_one(target.clone(), message).await?,
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let commits = broker.statistics().commits.max(1);
    eprintln!("{} messages a commit", messages / commits);
    broker.close(PATIENCE).await;
    Ok(())
}

fn store(dir: &Path, batch: u64, messages: u64) -> Result<(), BoxError> {
    let database = Database::builder(dir).open()?;
    let tree = database.keyspace("log", KeyspaceCreateOptions::default)?;
    let record = [b'x'; AROUND + PAYLOAD.len()];
    for from in (0..messages).step_by(batch as usize) {
        let end = messages.min(from + batch);
        let writes = OwnedWriteBatch::with_capacity(database.clone(), (end - from) as usize);
        let mut writes = writes.durability(Some(PersistMode::SyncData));
        for n in from..end {
            let mut key = [0; KEY];
            key[KEY - 8..].copy_from_slice(&n.to_be_bytes());
            writes.insert(&tree, key, &record[..]);
        }
        writes.commit()?;
    }
    Ok(())
}
