//! The process that is killed: publishes, consumes and dead-letters on one directory, and writes down what it does.
//!
//! Not here: what is settled, which is seen below the processor (`seam.rs`); who kills it (`kill.rs`).

use crate::{
    history::{Event, Id, Outcome, Place, Writer},
    seam::Watched,
    traffic,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::{
    Bound, ErrorKind, Group, MessageBroker, PublishFailed, Publisher, PublisherSettings, Receipt,
    Subscription, Topic, TopicSpec,
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

/// Set for the process that is the worker: `publish` or `drain`.
pub(crate) const ROLE: &str = "ROPEWAY_FAULTS_ROLE";
/// The directory of the broker.
pub(crate) const DIRECTORY: &str = "ROPEWAY_FAULTS_DIRECTORY";
/// The file of this life's history.
pub(crate) const HISTORY: &str = "ROPEWAY_FAULTS_HISTORY";
/// Which life this is, from 0.
pub(crate) const LIFE: &str = "ROPEWAY_FAULTS_LIFE";

const MEMBERS: usize = 3;
const PUBLISHERS: u32 = 4;
const KEYS_EACH: u32 = 6;
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
        .and_then(|runtime| runtime.block_on(run(&role)));
    if let Err(error) = done {
        traffic::stop(&format!("{error}"));
    }
    Some(ExitCode::SUCCESS)
}

async fn run(role: &str) -> Result<(), Failure> {
    let directory = PathBuf::from(std::env::var(DIRECTORY)?);
    let history = Writer::create(&PathBuf::from(std::env::var(HISTORY)?))?;
    let life: u64 = std::env::var(LIFE)?.parse()?;
    let broker = ropeway_broker::connect(&format!("embedded:{}", directory.display())).await?;
    let broker: Arc<dyn MessageBroker> = Watched::around(broker, history.clone());
    let (topic, group, dead) = traffic::names()?;
    for topic in [&topic, &dead] {
        match broker.admin().create_topic(topic, TopicSpec::partitions(traffic::PARTITIONS)).await {
            Err(error) if error.kind() != ErrorKind::Exists => return Err(error.into()),
            _ => {}
        }
    }
    let open = Arc::new(AtomicI64::new(unfinished(&*broker, &group).await?));
    let mut members = Vec::new();
    for member in 0..MEMBERS {
        let subscription = Subscription::new(group.clone(), [topic.clone()]);
        let router = Router::new().on(traffic::EVENT_TYPE, handler(history.clone(), Arc::clone(&open), life));
        let retry = RetryPolicy {
            first_delay: Duration::from_millis(5),
            max_delay: Duration::from_millis(20),
            ..RetryPolicy::default()
        };
        let member = Processor::builder(
            Arc::clone(&broker),
            Subscription { member: Some(Arc::from(format!("member-{member}"))), ..subscription },
        );
        members.push(member.router(router).retry(retry).start().await?);
    }
    history.write(&Event::Ready);
    if role == "publish" {
        publish(broker, &topic, &history, &open, life).await?;
        return Err("the publishers ended before the kill".into());
    }
    drain(&*broker, &group).await?;
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
    open: &Arc<AtomicI64>,
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
        let (history, open) = (history.clone(), Arc::clone(open));
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(u64::from(task) ^ (life << 32));
            // Numbers of one key only grow, over all lives: each life has a range of its own.
            for number in life * 1_000_000.. {
                while open.load(Ordering::Relaxed) > MOST_OPEN {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // The first key of each task is hot: half of the messages have it.
                let key = if random.random_bool(0.5) { 0 } else { random.random_range(0..KEYS_EACH) };
                let id = Id { key: format!("k{task}-{key}"), number };
                history.write(&Event::Invoke(id.clone()));
                open.fetch_add(1, Ordering::Relaxed);
                let (told, message) = (history.clone(), traffic::message(&id));
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
        Ok(receipt) => traffic::stop(&format!("{id} was acked without a position: {receipt:?}")),
        Err(failed) if failed.may_be_written => Event::Unknown(id),
        Err(_) => Event::Refused(id),
    }
}

/// What earlier lives left to do.
async fn unfinished(broker: &dyn MessageBroker, group: &Group) -> Result<i64, Failure> {
    match broker.admin().describe_group(group).await {
        Ok(info) => {
            let left = info.partitions.iter().filter_map(|partition| partition.unfinished).sum::<u64>();
            Ok(i64::try_from(left)?)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the group has nothing left to do.
async fn drain(broker: &dyn MessageBroker, group: &Group) -> Result<(), Failure> {
    let started = tokio::time::Instant::now();
    loop {
        let info = broker.admin().describe_group(group).await?;
        let left: u64 = info.partitions.iter().map(|partition| partition.lag.unwrap_or(1)).sum();
        if left == 0 && info.partitions.len() == traffic::PARTITIONS as usize {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{left} messages are left after {PATIENCE:?}: {info:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
