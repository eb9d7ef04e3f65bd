//! The load of the soak, in a process of its own: everything a broker is used for, at a steady rate, on one directory.
//!
//! It judges what it gets: each key without a hole and in order, every delayed message, nothing refused. Not here: what it takes of the
//! machine (`soak.rs`).

use futures::future::FutureExt;
use ropeway_broker::{
    Bound, ConsumerExt, Event as BusEvent, Group, Message, MessageBroker, MessageBrokerExt, Publisher,
    PublisherSettings, Retention, Start, Subscription, Timestamp, Topic, TopicSpec,
};
use ropeway_processor::{Context, Event, Processor, RetryPolicy, Router, Verdict, raw};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// For how many seconds there is load.
pub(crate) const SECONDS: &str = "ROPEWAY_FAULTS_SECONDS";
/// Messages a second.
pub(crate) const RATE: &str = "ROPEWAY_FAULTS_RATE";
/// Milliseconds between two topics, or groups, or members that come and go.
pub(crate) const PACE: &str = "ROPEWAY_FAULTS_PACE";
/// What the topic's retention keeps, in bytes, over all partitions.
pub(crate) const RETAINED: u64 = 32 * 1024 * 1024;

const PARTITIONS: u32 = 8;
const KEYS: u64 = 64;
/// One message in so many is to be delivered a second later.
const DELAYED: u64 = 20;
const TICK: Duration = Duration::from_millis(20);
/// Published and not handled: the publisher waits there, so that a slow machine is loaded less instead of failing.
const MOST_OPEN: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);
const EVENT_TYPE: &str = "soak.test";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What was seen, shared by all.
#[derive(Default)]
struct Seen {
    /// The last number of each key.
    last: BTreeMap<String, u64>,
    /// Delayed and not delivered yet.
    delayed: BTreeSet<u64>,
    handled: u64,
    repeated: u64,
    wrong: Vec<String>,
}

#[derive(Default)]
struct Books {
    seen: Mutex<Seen>,
    published: AtomicU64,
    over: AtomicBool,
}

impl Books {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, what: String) {
        let mut seen = self.seen();
        if seen.wrong.len() < 20 {
            seen.wrong.push(what);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// A handler has a message.
    fn handle(&self, message: &Message) {
        let text = message.payload.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        let number = text.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let key = message.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned());
        let (Some(number), Some(key)) = (number, key) else {
            return self.wrong(format!("a message is none of the test's: {message:?}"));
        };
        let mut seen = self.seen();
        if message.deliver_at.is_some() {
            let is_new = seen.delayed.remove(&number);
            seen.handled += u64::from(is_new);
            seen.repeated += u64::from(!is_new);
            return;
        }
        let last = seen.last.get(&key).copied().unwrap_or(0);
        if number <= last {
            seen.repeated += 1;
            return;
        }
        seen.last.insert(key.clone(), number);
        seen.handled += 1;
        drop(seen);
        if number != last + 1 {
            self.wrong(format!("{key}: {number} came after {last}"));
        }
    }
}

/// Runs it, and prints one line.
pub(crate) async fn run(url: &str) -> Result<(), Failure> {
    let length = Duration::from_secs(std::env::var(SECONDS)?.parse()?);
    let rate: u64 = std::env::var(RATE)?.parse()?;
    let pace = Duration::from_millis(std::env::var(PACE)?.parse()?);
    let broker = ropeway_broker::connect(url).await?;
    let topic = Topic::new("steady")?;
    let bytes = Some(RETAINED / u64::from(PARTITIONS));
    let retention = Retention { bytes, age: Some(Duration::from_secs(60)), ..Retention::default() };
    broker.admin().create_topic(&topic, TopicSpec { partitions: PARTITIONS, retention }).await?;
    let books = Arc::new(Books::default());
    let members = [member(&broker, &topic, &books, "a").await?, member(&broker, &topic, &books, "b").await?];
    let others = tokio::spawn({
        let (broker, topic, books) = (Arc::clone(&broker), topic.clone(), Arc::clone(&books));
        async move {
            let changes = changes(&broker, &topic, &books, pace).boxed();
            let visits = visits(&broker, &topic, &books, pace).boxed();
            let passing = passing(&broker, &books, pace).boxed();
            futures::future::join3(changes, visits, passing).await
        }
    });
    publish(&broker, &topic, &books, rate, length).await?;
    books.over.store(true, Relaxed);
    let (changes, visits, passed) = others.await?;
    let waited = Instant::now();
    while books.seen().handled < books.published.load(Relaxed) && waited.elapsed() < PATIENCE {
        sleep(TICK).await;
    }
    for member in &members {
        member.shutdown(PATIENCE).await;
    }
    broker.close(PATIENCE).await;
    let published = books.published.load(Relaxed);
    let seen = books.seen();
    tell(&format!(
        "{published} published, {} handled and {} of them again, {} delayed left; {changes} members came and went, {visits} groups, {passed} topics",
        seen.handled,
        seen.repeated,
        seen.delayed.len(),
    ));
    if seen.handled != published || !seen.wrong.is_empty() {
        return Err(format!("{} of {published} were handled; {}", seen.handled, seen.wrong.join("; ")).into());
    }
    Ok(())
}

fn tell(line: &str) {
    use std::io::Write;
    // Who started this reads it; without a reader there is nobody to tell.
    _ = writeln!(std::io::stdout(), "{line}");
}

async fn member(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    books: &Arc<Books>,
    name: &str,
) -> Result<Processor, Failure> {
    let subscription = Subscription {
        member: Some(Arc::from(name)),
        ..Subscription::new(Group::new("crew")?, [topic.clone()])
    };
    let books = Arc::clone(books);
    let handler = raw(move |event: Event, _: Context| {
        let books = Arc::clone(&books);
        async move {
            books.handle(event.message());
            Ok::<_, std::convert::Infallible>(Verdict::Done)
        }
    });
    let router = Router::new().on(EVENT_TYPE, handler);
    Ok(Processor::builder(Arc::clone(broker), subscription)
        .router(router)
        .retry(RetryPolicy::default())
        .start()
        .await?)
}

fn message(key: String, number: u64, deliver_at: Option<Timestamp>) -> Message {
    let payload = format!("{number} {:x<1000}", "");
    let message = Message::builder().key(key).event_type(EVENT_TYPE).payload(payload);
    match deliver_at {
        Some(at) => message.deliver_at(at).build(),
        None => message.build(),
    }
}

/// The steady stream.
async fn publish(
    broker: &Arc<dyn MessageBroker>,
    topic: &Topic,
    books: &Arc<Books>,
    rate: u64,
    length: Duration,
) -> Result<(), Failure> {
    let publisher = Publisher::new(Arc::clone(broker), PublisherSettings::default())?;
    let started = Instant::now();
    let mut numbers = vec![0_u64; KEYS as usize];
    let mut count = 0_u64;
    while started.elapsed() < length {
        let due = started.elapsed().as_millis() as u64 * rate / 1000;
        while count < due {
            while count.saturating_sub(books.seen().handled) > MOST_OPEN && started.elapsed() < length {
                sleep(TICK).await;
            }
            let message = if count.is_multiple_of(DELAYED) {
                books.seen().delayed.insert(count);
                message(
                    format!("later-{}", count % KEYS),
                    count,
                    Some(Timestamp::now() + Duration::from_secs(1)),
                )
            } else {
                let key = count % KEYS;
                let number = &mut numbers[key as usize];
                *number += 1;
                message(format!("key-{key}"), *number, None)
            };
            let told = Arc::clone(books);
            let tell = move |outcome: Result<_, ropeway_broker::PublishFailed>| match outcome {
                Ok(_) => _ = told.published.fetch_add(1, Relaxed),
                Err(failed) => told.wrong(format!("not acked: {failed}")),
            };
            if publisher.publish_with(topic, message, tell).await.is_err() {
                return Err("the publisher is closed".into());
            }
            count += 1;
        }
        if !books.seen().wrong.is_empty() {
            break;
        }
        sleep(TICK).await;
    }
    publisher.flush(PATIENCE).await?;
    Ok(())
}

/// A third member joins the group and leaves it, again and again.
async fn changes(broker: &Arc<dyn MessageBroker>, topic: &Topic, books: &Arc<Books>, pace: Duration) -> u64 {
    let mut count = 0;
    while !books.is_over() {
        match member(broker, topic, books, "c").await {
            Ok(member) => {
                sleep(pace).await;
                member.shutdown(PATIENCE).await;
                count += 1;
            }
            Err(error) => books.wrong(format!("a member could not join: {error}")),
        }
        sleep(pace / 2).await;
    }
    count
}

/// Groups come, look at some messages and are deleted.
async fn visits(broker: &Arc<dyn MessageBroker>, topic: &Topic, books: &Arc<Books>, pace: Duration) -> u64 {
    let mut count = 0;
    while !books.is_over() {
        if let Err(error) = visit(&**broker, topic, count).await {
            books.wrong(format!("a group could not come and go: {error}"));
        }
        count += 1;
        sleep(pace).await;
    }
    count
}

async fn visit(broker: &dyn MessageBroker, topic: &Topic, number: u64) -> Result<(), Failure> {
    let group = Group::new(format!("visitors-{number}"))?;
    let subscription = Subscription {
        start: Start::Latest,
        in_flight: Bound { messages: 64, bytes: 1024 * 1024 },
        ..Subscription::new(group.clone(), [topic.clone()])
    };
    let mut consumer = broker.subscribe(subscription).await?;
    let control = consumer.control();
    let mut left = 50_usize;
    while left > 0 {
        match timeout(Duration::from_secs(1), consumer.next()).await {
            Ok(Ok(BusEvent::Batch(batch))) => {
                let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
                control.ack(&batch.of, &done)?;
                left = left.saturating_sub(done.len());
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
            // Nothing is published any more.
            Err(_) => break,
        }
    }
    control.close(Duration::from_secs(1)).await;
    drop(consumer);
    Ok(broker.admin().delete_group(&group).await?)
}

/// Topics are made, written to and deleted.
async fn passing(broker: &Arc<dyn MessageBroker>, books: &Arc<Books>, pace: Duration) -> u64 {
    let mut count = 0;
    while !books.is_over() {
        if let Err(error) = pass(&**broker, count).await {
            books.wrong(format!("a topic could not come and go: {error}"));
        }
        count += 1;
        sleep(pace).await;
    }
    count
}

async fn pass(broker: &dyn MessageBroker, number: u64) -> Result<(), Failure> {
    // Every second one has the name of one that was deleted.
    let topic = Topic::new(format!("passing-{}", if number.is_multiple_of(2) { 0 } else { number }))?;
    broker.admin().create_topic(&topic, TopicSpec::partitions(2)).await?;
    for count in 0..10 {
        broker.publish_one(&topic, message(format!("key-{count}"), count, None)).await?;
    }
    Ok(broker.admin().delete_topic(&topic).await?)
}
