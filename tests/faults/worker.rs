//! The process that is killed: publishes, consumes and dead-letters on one directory, and writes down what it does.
//!
//! Not here: what is settled, which is seen below the processor (`seam.rs`); who kills it (`kill.rs`).

use crate::{
    drill,
    history::{self, Event, Id, Outcome, Place, Writer},
    load,
    seam::Watched,
    traffic,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::{
    Bound, ErrorKind, Group, MessageBroker, PublishFailed, Publisher, PublisherSettings, Receipt,
    Subscription, Timestamp, Topic, TopicSpec,
};
use ropeway_processor::{Context, Processor, RetryPolicy, Router, Verdict, raw};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// Set for the process that is the worker: `publish`, `drain`, `soak` or `open`.
pub(crate) const ROLE: &str = "ROPEWAY_FAULTS_ROLE";
/// The URL of the broker.
pub(crate) const URL: &str = "ROPEWAY_FAULTS_URL";
/// How many bytes retention keeps of a partition of the topic; not set: all.
pub(crate) const RETENTION: &str = "ROPEWAY_FAULTS_RETENTION";
/// The file of this life's history.
pub(crate) const HISTORY: &str = "ROPEWAY_FAULTS_HISTORY";
/// Which life this is, from 0.
pub(crate) const LIFE: &str = "ROPEWAY_FAULTS_LIFE";

/// How many members each group has.
const MEMBERS: [usize; traffic::GROUPS] = [3, 2];
const PUBLISHERS: u32 = 4;
const KEYS_EACH: u32 = 6;
const LONGEST_DELAY_MILLIS: u64 = 400;
/// How far the clock of the broker and that of the worker may be apart: both count whole milliseconds.
const CLOCKS_APART: Duration = Duration::from_millis(1);
/// Published and not completed: who publishes waits there, so that a kill leaves little to drain.
const MOST_OPEN: i64 = 600;
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs as the worker, where this process is one.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(play(&role)));
    if let Err(error) = done {
        traffic::stop(&format!("{error}"));
    }
    Some(ExitCode::SUCCESS)
}

async fn play(role: &str) -> Result<(), Failure> {
    let url = std::env::var(URL)?;
    match role {
        "soak" => load::run(&url).await,
        drill::member::CONSUME | drill::member::PUBLISH => drill::member::play(role, &url).await,
        "open" => Ok(ropeway_broker::connect(&url).await.map(drop)?),
        _ => run(role, &url).await,
    }
}

async fn run(role: &str, url: &str) -> Result<(), Failure> {
    let path = PathBuf::from(std::env::var(HISTORY)?);
    let history = Writer::create(&path)?;
    let life: u64 = std::env::var(LIFE)?.parse()?;
    let broker = ropeway_broker::connect(url).await?;
    let names = traffic::names()?;
    let all = TopicSpec::partitions(traffic::PARTITIONS);
    let mut kept = all.clone();
    kept.retention.bytes = std::env::var(RETENTION).ok().map(|bytes| bytes.parse()).transpose()?;
    let dead = names.groups.iter().map(|(_, dead)| (dead, &all));
    for (topic, spec) in dead.chain([(&names.topic, &kept)]) {
        match broker.admin().create_topic(topic, spec.clone()).await {
            Err(error) if error.kind() != ErrorKind::Exists => return Err(error.into()),
            _ => {}
        }
    }
    let mut members = Vec::new();
    let mut open = Vec::new();
    for (index, (group, _)) in names.groups.iter().enumerate() {
        let history = Writer::create(&history::of_group(&path, index))?;
        let watched: Arc<dyn MessageBroker> = Watched::around(Arc::clone(&broker), history.clone());
        let left = Arc::new(AtomicI64::new(unfinished(&*broker, &names.topic, group).await?));
        for member in 0..MEMBERS[index] {
            let subscription = Subscription::new(group.clone(), [names.topic.clone()]);
            let handler = handler(history.clone(), Arc::clone(&left), life);
            let retry = RetryPolicy {
                first_delay: Duration::from_millis(5),
                max_delay: Duration::from_millis(20),
                ..RetryPolicy::default()
            };
            let member = Processor::builder(
                Arc::clone(&watched),
                Subscription { member: Some(Arc::from(format!("member-{member}"))), ..subscription },
            );
            let router = Router::new().on(traffic::EVENT_TYPE, handler);
            members.push(member.router(router).retry(retry).start().await?);
        }
        open.push(left);
    }
    history.write(&Event::Ready);
    if role == "publish" {
        publish(broker, &names.topic, &history, &open, life).await?;
        return Err("the publishers ended before the kill".into());
    }
    drain(&*broker, &names).await?;
    for member in &members {
        member.shutdown(PATIENCE).await;
    }
    broker.close(PATIENCE).await;
    history.write(&Event::Drained);
    Ok(())
}

/// The handler: takes up to a few milliseconds, so that a kill finds some at work.
fn handler(history: Writer, open: Arc<AtomicI64>, life: u64) -> impl ropeway_processor::Handler {
    raw(move |event: ropeway_processor::Event, cx: Context| {
        let (history, open) = (history.clone(), Arc::clone(&open));
        async move {
            let id = traffic::id(event.message()).unwrap_or_else(|why| traffic::stop(&why));
            let early = event.message().deliver_at.map_or(Duration::ZERO, |due| due.since(Timestamp::now()));
            if early > CLOCKS_APART {
                traffic::stop(&format!("{id} was delivered {early:?} before its time"));
            }
            history.write(&Event::Start(id.clone()));
            let mut random = StdRng::seed_from_u64(id.number ^ (life << 48));
            tokio::time::sleep(Duration::from_micros(random.random_range(0..4000))).await;
            if traffic::fails_first(&id) && cx.attempt() == 1 {
                history.write(&Event::End(id, Outcome::Failed));
                return Err("the first attempt fails");
            }
            let rejected = traffic::is_rejected(&id);
            let outcome = if rejected { Outcome::Rejected } else { Outcome::Done };
            history.write(&Event::End(id, outcome));
            open.fetch_sub(1, Ordering::Relaxed);
            Ok(if rejected { Verdict::reject("the number says so") } else { Verdict::Done })
        }
    })
}

async fn publish(
    broker: Arc<dyn MessageBroker>,
    topic: &Topic,
    history: &Writer,
    open: &[Arc<AtomicI64>],
    life: u64,
) -> Result<(), Failure> {
    let settings = PublisherSettings {
        in_flight: Bound { messages: 128, bytes: 1024 * 1024 },
        batch: Bound { messages: 16, bytes: 64 * 1024 },
        ..PublisherSettings::default()
    };
    let publisher = Publisher::new(broker, settings)?;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..PUBLISHERS {
        let (publisher, topic) = (publisher.clone(), topic.clone());
        let (history, open) = (history.clone(), open.to_vec());
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(u64::from(task) ^ (life << 32));
            // Numbers of one key only grow, over all lives: each life has a range of its own.
            for number in life * 1_000_000.. {
                while open.iter().any(|open| open.load(Ordering::Relaxed) > MOST_OPEN) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // The first key of each task is hot: half of the messages have it. One in ten is to be delivered later.
                let due = random.random_ratio(1, 10).then(|| {
                    Timestamp::now() + Duration::from_millis(random.random_range(0..LONGEST_DELAY_MILLIS))
                });
                let key = if random.random_bool(0.5) { 0 } else { random.random_range(0..KEYS_EACH) };
                let kind = if due.is_some() { "d" } else { "k" };
                let id = Id { key: format!("{kind}{task}-{key}"), number };
                history.write(&Event::Invoke(id.clone()));
                for open in &open {
                    open.fetch_add(1, Ordering::Relaxed);
                }
                let (told, message) = (history.clone(), traffic::message(&id, due));
                let tell = move |outcome: Result<Receipt, PublishFailed>| told.write(&line(id, outcome));
                if publisher.publish_with(&topic, message, tell).await.is_err() {
                    traffic::stop("the publisher is closed");
                }
            }
        });
    }
    tasks.join_next().await;
    Ok(())
}

fn line(id: Id, outcome: Result<Receipt, PublishFailed>) -> Event {
    match outcome {
        Ok(Receipt { partition, position: Some(position), .. }) => {
            Event::Acked(id, Place { partition, position: position.to_string() })
        }
        Ok(Receipt { position: None, .. }) if traffic::is_delayed(&id) => Event::Delayed(id),
        Ok(receipt) => traffic::stop(&format!("{id} was acked without a position: {receipt:?}")),
        Err(failed) if failed.may_be_written => Event::Unknown(id),
        Err(_) => Event::Refused(id),
    }
}

/// What earlier lives left to do for a group, with what is not due yet.
async fn unfinished(broker: &dyn MessageBroker, topic: &Topic, group: &Group) -> Result<i64, Failure> {
    let delayed = broker.admin().describe_topic(topic).await?.delayed.unwrap_or(0);
    let left = match broker.admin().describe_group(group).await {
        Ok(info) => info.partitions.iter().filter_map(|partition| partition.unfinished).sum(),
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(i64::try_from(delayed.saturating_add(left))?)
}

/// Waits until nothing is delayed and no group has anything left to do.
async fn drain(broker: &dyn MessageBroker, names: &traffic::Names) -> Result<(), Failure> {
    let started = tokio::time::Instant::now();
    loop {
        // Asked for first: what comes due is in the log before it is asked for what is left there.
        let mut left = broker.admin().describe_topic(&names.topic).await?.delayed.unwrap_or(0);
        for (group, _) in &names.groups {
            let partitions = broker.admin().describe_group(group).await?.partitions;
            let missing = (traffic::PARTITIONS as usize).saturating_sub(partitions.len()) as u64;
            left += missing + partitions.iter().map(|partition| partition.lag.unwrap_or(1)).sum::<u64>();
        }
        if left == 0 {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{left} messages are left after {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
