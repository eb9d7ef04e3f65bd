//! Does one kind of work a number of times and ends: `ropeway-instructions CELL N`. `cargo xtask instructions` runs it under callgrind with
//! two numbers, so that what a message costs is the slope and the start costs nothing.
//!
//! One thread, `memory:`, 64 bytes of payload, 4 partitions, but for what is published so that it is safe (`durable.rs`). Not here: counting,
//! bounds, and what each cell means (`xtask/src/instructions.rs`).

mod durable;

use ropeway_broker::{
    ConsumerExt, Event, Group, Message, MessageBroker, Subscription, Target, Topic, TopicSpec, connect,
};
use ropeway_processor::{BoxError, Processor, Router, Verdict, raw};
use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;

const PARTITIONS: u32 = 4;
/// Messages of one call to publish.
const BATCH: u64 = 256;
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// Many enough that few wait behind their own key.
const KEYS: u64 = 4096;

fn main() -> Result<(), BoxError> {
    let words: Vec<String> = env::args().skip(1).collect();
    let (cell, messages) = match words.as_slice() {
        [cell, messages] => (cell.as_str(), messages.parse()?),
        _ => return Err("usage: ropeway-instructions CELL N".into()),
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(cell, messages))
}

async fn run(cell: &str, messages: u64) -> Result<(), BoxError> {
    if let Some((way, at_once)) = durable::parse(cell) {
        return durable::publish(way, at_once, messages).await;
    }
    let (bus, topic) = (connect("memory:").await?, Topic::new("measured")?);
    bus.admin().create_topic(&topic, TopicSpec::partitions(PARTITIONS)).await?;
    let keys = if cell == "pool_one_key" { 1 } else { KEYS };
    publish(&bus, &topic, messages, keys).await?;
    let subscription = Subscription::new(Group::new("counters")?, [topic]);
    match cell {
        "publish" => Ok(()),
        "consume_to_ack" => consume(&bus, subscription, messages).await,
        "pool" | "pool_one_key" => process(bus, subscription, messages, Duration::ZERO).await,
        "pool_sleeping" => process(bus, subscription, messages, Duration::from_millis(1)).await,
        other => Err(format!("there is no cell {other:?}").into()),
    }
}

async fn publish(
    bus: &Arc<dyn MessageBroker>,
    topic: &Topic,
    messages: u64,
    keys: u64,
) -> Result<(), BoxError> {
    let target = Target::from(topic);
    let mut next = 0;
    while next < messages {
        let end = messages.min(next + BATCH);
        let batch = (next..end)
            .map(|n| {
                // Spread without order, as keys of real traffic are.
                let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
                let key = key.to_be_bytes().to_vec();
                Message::builder().key(key).event_type("measured").payload(&PAYLOAD[..]).build()
            })
            .collect();
        let outcomes = bus.publish(&target, batch).await;
        if !outcomes.0.iter().all(ropeway_broker::Published::is_acked) {
            return Err("a message was not written".into());
        }
        next = end;
    }
    Ok(())
}

async fn consume(
    bus: &Arc<dyn MessageBroker>,
    subscription: Subscription,
    messages: u64,
) -> Result<(), BoxError> {
    let mut consumer = bus.subscribe(subscription).await?;
    let control = consumer.control();
    let (mut seen, mut positions) = (0, Vec::new());
    while seen < messages {
        if let Event::Batch(batch) = consumer.next().await? {
            positions.clear();
            positions.extend(batch.deliveries.iter().map(|delivery| delivery.position));
            control.ack(&batch.of, &positions)?;
            seen += positions.len() as u64;
        }
    }
    Ok(())
}

async fn process(
    bus: Arc<dyn MessageBroker>,
    subscription: Subscription,
    messages: u64,
    pause: Duration,
) -> Result<(), BoxError> {
    let handled = Arc::new((AtomicU64::new(0), Notify::new()));
    let counted = handled.clone();
    let router = Router::new().on(
        "measured",
        raw(move |_, _| {
            let counted = counted.clone();
            async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                if counted.0.fetch_add(1, Relaxed) + 1 == messages {
                    counted.1.notify_one();
                }
                Ok::<_, BoxError>(Verdict::Done)
            }
        }),
    );
    let processor = Processor::builder(bus, subscription).router(router).start().await?;
    handled.1.notified().await;
    let report = processor.shutdown(Duration::from_secs(60)).await;
    if !report.is_clean() || processor.snapshot().handled != messages {
        return Err(format!("not all was handled once and acked: {report:?}").into());
    }
    Ok(())
}
