//! Handlers that wait, against the plainest thing that could run them: the same keys on a loop of 1,024 tasks, on `memory:` under a paused clock.
//!
//! Computing costs nothing here, so that what is compared is only what waits for what: partitions, shares of what may be in flight, lanes,
//! and workers. Not here: what the engine costs to run (`cargo xtask instructions`), real time (a benchmark).
#![expect(clippy::unwrap_used, reason = "a test")]

use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::{
    Embedded, EmbeddedSettings, Group, Message, MessageBroker, Subscription, Target, Timestamp, TokioClock,
    Topic, TopicSpec,
};
use ropeway_processor::{BoxError, Processor, ProcessorSettings, Router, Verdict, raw};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

const MESSAGES: usize = 4096;
const KEYS: usize = 2048;
const TASKS: usize = 1024;

/// Every key as likely as every other.
fn uniform(random: &mut StdRng) -> usize {
    random.random_range(0..KEYS)
}

/// The n-th key as likely as 1/n.
fn zipf(random: &mut StdRng) -> usize {
    let whole: f64 = (1..=KEYS).map(|n| 1.0 / n as f64).sum();
    let mut at = random.random_range(0.0..whole);
    let found = (0..KEYS).find(|n| {
        at -= 1.0 / (n + 1) as f64;
        at <= 0.0
    });
    found.unwrap_or(0)
}

/// One message of ten has the same key.
fn hot(random: &mut StdRng) -> usize {
    if random.random_bool(0.1) { 0 } else { random.random_range(1..KEYS) }
}

/// How long 1,024 tasks need, each for its keys one after the other.
async fn bare(keys: &[usize], sleep: Duration) -> Duration {
    let mut queues: HashMap<usize, usize> = HashMap::new();
    keys.iter().for_each(|key| *queues.entry(key % TASKS).or_default() += 1);
    let began = Instant::now();
    let tasks: Vec<_> = queues
        .into_values()
        .map(|count| {
            tokio::spawn(async move {
                for _ in 0..count {
                    tokio::time::sleep(sleep).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    began.elapsed()
}

/// How long a processor needs that may run as many, with bounds as they are by default.
async fn engine(keys: &[usize], sleep: Duration) -> Duration {
    let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
    let bus = Embedded::memory(EmbeddedSettings { clock, ..EmbeddedSettings::default() }).unwrap();
    let topic = Topic::new("orders").unwrap();
    bus.admin().create_topic(&topic, TopicSpec::partitions(8)).await.unwrap();
    for keys in keys.chunks(256) {
        let message = |key: &usize| Message::builder().key(key.to_be_bytes().to_vec()).event_type("order");
        let batch = keys.iter().map(|key| message(key).payload("x").build()).collect();
        assert!(bus.publish(&Target::from(&topic), batch).await.all_acked());
    }
    let (told, mut handled) = tokio::sync::mpsc::unbounded_channel();
    let router = Router::new().on(
        "order",
        raw(move |_, _| {
            let told = told.clone();
            async move {
                tokio::time::sleep(sleep).await;
                told.send(()).unwrap();
                Ok::<_, BoxError>(Verdict::Done)
            }
        }),
    );
    let subscription = Subscription::new(Group::new("billing").unwrap(), [topic]);
    let settings = ProcessorSettings { concurrency: TASKS, ..ProcessorSettings::default() };
    let began = Instant::now();
    let processor =
        Processor::builder(bus, subscription).router(router).settings(settings).start().await.unwrap();
    for _ in 0..keys.len() {
        handled.recv().await.unwrap();
    }
    let took = began.elapsed();
    assert!(processor.shutdown(Duration::from_secs(10)).await.is_clean());
    took
}

async fn assert_keeps_pace(name: &str, key: fn(&mut StdRng) -> usize) {
    for sleep in [1, 50].map(Duration::from_millis) {
        let mut random = StdRng::seed_from_u64(7);
        let keys: Vec<usize> = (0..MESSAGES).map(|_| key(&mut random)).collect();
        let (bare, engine) = (bare(&keys, sleep).await, engine(&keys, sleep).await);
        let ratio = bare.as_secs_f64() / engine.as_secs_f64();
        assert!(ratio >= 0.95, "{name}, {sleep:?}: bare {bare:?}, engine {engine:?}, ratio {ratio:.3}");
    }
}

#[tokio::test(start_paused = true)]
async fn uniform_keys_keep_the_pace_of_a_bare_loop() {
    assert_keeps_pace("uniform", uniform).await;
}

#[tokio::test(start_paused = true)]
async fn zipf_keys_keep_the_pace_of_a_bare_loop() {
    assert_keeps_pace("Zipf", zipf).await;
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_keeps_the_pace_of_a_bare_loop() {
    assert_keeps_pace("hot key", hot).await;
}
