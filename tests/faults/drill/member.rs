//! A process of a drill: a member of the group, or a publisher. It writes what it does into the history that all share, and ends of its own will
//! when its input ends.
//!
//! Not here: what is settled, which is seen below the processor (`../seam.rs`); who starts and disturbs it (`stage.rs`).

use super::judge::NOWHERE;
use crate::{
    history::{Event, Id, Outcome, Writer},
    seam::Watched,
    traffic, worker,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::{
    Bound, Durability, MessageBroker, PublishFailed, Publisher, PublisherSettings, Receipt, Subscription,
    Target, Timestamp, partition_for_key,
};
use ropeway_processor::{Context, Processor, RetryPolicy, Router, Verdict, raw};
use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// The roles, in [`worker::ROLE`].
pub(crate) const CONSUME: &str = "drill-consume";
pub(crate) const PUBLISH: &str = "drill-publish";
/// When the history began: milliseconds since 1970.
pub(crate) const BEGAN: &str = "ROPEWAY_FAULTS_BEGAN";
/// A static name of the member, if it has one.
pub(crate) const MEMBER: &str = "ROPEWAY_FAULTS_MEMBER";
/// Messages a second of one publisher.
pub(crate) const RATE: &str = "ROPEWAY_FAULTS_RATE";
/// How many messages of one publisher are not answered at the most.
pub(crate) const IN_FLIGHT: &str = "ROPEWAY_FAULTS_IN_FLIGHT";
/// What publishes must survive, such as `replicated`; not set: what the server gives.
pub(crate) const AT_LEAST: &str = "ROPEWAY_FAULTS_AT_LEAST";

/// How many keys a publisher has in each partition.
const KEYS: usize = 3;
/// How much may be unfinished before publishers wait for the members.
const MOST_LAG: u64 = 20_000;
/// How often a publisher looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long a process tries to start: longer than any fault lasts that it may be started in.
const START: Duration = Duration::from_secs(180);
/// How long a process may take to end of its own will.
const PATIENCE: Duration = Duration::from_secs(25);

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) async fn play(role: &str, url: &str) -> Result<(), Failure> {
    let number: u32 = std::env::var(worker::LIFE)?.parse()?;
    let began = Timestamp::from_millis(std::env::var(BEGAN)?.parse()?);
    let history = Writer::share(std::env::var(worker::HISTORY)?.as_ref(), number, began)?;
    let (ended, asked) = watch::channel(false);
    std::thread::spawn(move || {
        _ = std::io::stdin().read_to_end(&mut Vec::new());
        _ = ended.send(true);
    });
    let broker = connect(url).await?;
    match role {
        CONSUME => consume(&broker, &history, asked, number).await?,
        _ => publish(&broker, &history, asked, number).await?,
    }
    broker.close(PATIENCE).await;
    history.note(format_args!("left"));
    Ok(())
}

/// A process may start while the server is away.
async fn connect(url: &str) -> Result<Arc<dyn MessageBroker>, Failure> {
    let since = Instant::now();
    loop {
        match ropeway_broker::connect(url).await {
            Err(error) if error.is_retryable() && since.elapsed() < START => {
                sleep(Duration::from_millis(50)).await;
            }
            connected => return Ok(connected?),
        }
    }
}

async fn consume(
    broker: &Arc<dyn MessageBroker>,
    history: &Writer,
    mut asked: watch::Receiver<bool>,
    number: u32,
) -> Result<(), Failure> {
    let names = traffic::names()?;
    let [(group, _), _] = names.groups;
    let watched: Arc<dyn MessageBroker> = Watched::around(Arc::clone(broker), history.clone());
    let retry = RetryPolicy {
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
        ..RetryPolicy::default()
    };
    let since = Instant::now();
    let processor = loop {
        let subscription = Subscription {
            member: std::env::var(MEMBER).ok().map(Arc::from),
            ..Subscription::new(group.clone(), [names.topic.clone()])
        };
        let router = Router::new().on(traffic::EVENT_TYPE, handler(history.clone(), number));
        let processor = Processor::builder(Arc::clone(&watched), subscription);
        match processor.router(router).retry(retry.clone()).start().await {
            Err(error) if error.is_retryable() && since.elapsed() < START => {
                sleep(Duration::from_millis(50)).await;
            }
            started => break started?,
        }
    };
    history.write(&Event::Ready);
    tokio::select! {
        ended = processor.finished() => {
            return Err(format!("the processor ended by itself: {ended:?}").into());
        }
        _ = asked.wait_for(|asked| *asked) => {}
    }
    processor.shutdown(PATIENCE).await;
    Ok(())
}

/// Most events take no time; some take a few milliseconds, so that a fault finds them at work.
fn handler(history: Writer, number: u32) -> impl ropeway_processor::Handler {
    raw(move |event: ropeway_processor::Event, cx: Context| {
        let history = history.clone();
        async move {
            let id = traffic::id(event.message()).unwrap_or_else(|why| traffic::stop(&why));
            history.note(format_args!("start {id} {}", cx.epoch().map_or(0, |epoch| epoch.0)));
            if id.number % 16 == 7 {
                let mut random = StdRng::seed_from_u64(id.number ^ (u64::from(number) << 48));
                sleep(Duration::from_micros(random.random_range(0..6000))).await;
            }
            let (outcome, verdict) = if traffic::fails_first(&id) && cx.attempt() == 1 {
                (Outcome::Failed, Err("the first attempt fails"))
            } else if traffic::is_rejected(&id) {
                (Outcome::Rejected, Ok(Verdict::reject("the number says so")))
            } else {
                (Outcome::Done, Ok(Verdict::Done))
            };
            history.write(&Event::End(id, outcome));
            verdict
        }
    })
}

async fn publish(
    broker: &Arc<dyn MessageBroker>,
    history: &Writer,
    asked: watch::Receiver<bool>,
    number: u32,
) -> Result<(), Failure> {
    let names = traffic::names()?;
    let settings = PublisherSettings {
        in_flight: Bound { messages: std::env::var(IN_FLIGHT)?.parse()?, bytes: 4 << 20 },
        batch: Bound { messages: 128, bytes: 256 * 1024 },
        ..PublisherSettings::default()
    };
    let publisher = Publisher::new(Arc::clone(broker), settings)?;
    let target = match std::env::var(AT_LEAST).ok().as_deref() {
        Some("replicated") => Target { at_least: Some(Durability::Replicated), ..names.topic.clone().into() },
        _ => Target::from(names.topic.clone()),
    };
    let rate: f64 = std::env::var(RATE)?.parse()?;
    let keys = keys(number);
    let is_behind = Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn(look(Arc::clone(broker), Arc::clone(&is_behind)));
    history.write(&Event::Ready);
    let mut random = StdRng::seed_from_u64(u64::from(number));
    let (mut began, mut sent) = (Instant::now(), 0.0);
    for number in 0.. {
        while is_behind.load(Ordering::Relaxed) && !*asked.borrow() {
            sleep(Duration::from_millis(20)).await;
            (began, sent) = (Instant::now(), 0.0);
        }
        if *asked.borrow() {
            break;
        }
        let ahead = sent / rate - began.elapsed().as_secs_f64();
        if ahead > 0.005 {
            sleep(Duration::from_secs_f64(ahead)).await;
        } else if ahead < -1.0 {
            // What was not published in time is not made up for at once.
            (began, sent) = (Instant::now(), 0.0);
        }
        sent += 1.0;
        // The first key is hot: a quarter of the messages have it.
        let key = if random.random_ratio(1, 4) { 0 } else { random.random_range(0..keys.len()) };
        let id = Id { key: keys[key].clone(), number };
        history.write(&Event::Invoke(id.clone()));
        let (told, message) = (history.clone(), traffic::message(&id, None));
        let tell = move |outcome: Result<Receipt, PublishFailed>| answered(&told, &id, outcome);
        if publisher.publish_with(target.clone(), message, tell).await.is_err() {
            traffic::stop("the publisher is closed");
        }
    }
    looking.abort();
    publisher.flush(PATIENCE * 2).await?;
    Ok(())
}

fn answered(history: &Writer, id: &Id, outcome: Result<Receipt, PublishFailed>) {
    match outcome {
        Ok(Receipt { partition, position, durability }) => {
            let position = position.map_or_else(|| NOWHERE.to_owned(), |position| position.to_string());
            history.note(format_args!("acked {id} {partition} {position} {}", durability.as_str()));
        }
        Err(failed) => {
            let what = if failed.may_be_written { "unknown" } else { "refused" };
            history.note(format_args!("{what} {id} {:?}", failed.failed.error.kind()));
        }
    }
}

/// Keys that no other process has, as many in each partition.
fn keys(number: u32) -> Vec<String> {
    let mut keys = Vec::new();
    for partition in 0..traffic::PARTITIONS {
        let names = (0..).map(|key| format!("r{number}-{key}"));
        let here = |key: &String| partition_for_key(key.as_bytes(), traffic::PARTITIONS) == partition;
        keys.extend(names.filter(here).take(KEYS));
    }
    keys
}

/// Has publishers wait while members are far behind.
async fn look(broker: Arc<dyn MessageBroker>, is_behind: Arc<AtomicBool>) {
    let Ok(traffic::Names { groups: [(group, _), _], .. }) = traffic::names() else { return };
    loop {
        sleep(LOOK).await;
        if let Ok(about) = broker.admin().describe_group(&group).await {
            let lag: u64 = about.partitions.iter().filter_map(|partition| partition.lag).sum();
            is_behind.store(lag > MOST_LAG, Ordering::Relaxed);
        }
    }
}
