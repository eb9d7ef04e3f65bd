//! What one stuck key costs others: exactly, on `memory:` under a paused clock.
//!
//! Of the others of its partition nothing, until what waits behind it has filled the partition's share of what may be in flight; then that
//! partition waits, alone, and says so. Not here: what a stuck key costs in real time (a benchmark), retries as such (`memory.rs`).
#![expect(clippy::unwrap_used, reason = "a test")]

use prometheus::Registry;
use ropeway_broker::{
    Bound, Embedded, EmbeddedSettings, Group, InFlight, Message, MessageBroker, MessageBrokerExt,
    Subscription, Target, Timestamp, TokioClock, Topic, TopicSpec,
};
use ropeway_processor::{
    BoxError, Context, Event, Metrics, Processor, ProcessorSettings, RetryPolicy, Router, Verdict, raw,
};
use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

const PARTITIONS: u32 = 4;
const IN_FLIGHT: Bound = Bound { messages: 256, bytes: 1 << 20 };
/// How long handlers of the other keys take.
const WORK: Duration = Duration::from_millis(7);
const SECOND: Duration = Duration::from_secs(1);

/// A processor of 4 partitions, and what its handlers did.
struct Stage {
    bus: Arc<dyn MessageBroker>,
    topic: Topic,
    processor: Processor,
    registry: Registry,
    /// The other keys' messages that were handled, and when.
    others: mpsc::UnboundedReceiver<(String, Instant)>,
    /// The stuck key's messages that were handled.
    stuck: Arc<Mutex<Vec<String>>>,
    /// How many of them were published.
    behind: usize,
}

impl Stage {
    /// `stuck` is what the handler does for the stuck key; it may wait.
    async fn new<U>(stuck: impl Fn(Context) -> U + Send + Sync + 'static, retry: RetryPolicy) -> Self
    where
        U: Future<Output = Result<Verdict, BoxError>> + Send + 'static,
    {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
        let bus = Embedded::memory(EmbeddedSettings { clock, ..EmbeddedSettings::default() }).unwrap();
        let topic = Topic::new("orders").unwrap();
        bus.admin().create_topic(&topic, TopicSpec::partitions(PARTITIONS)).await.unwrap();
        let (told, others) = mpsc::unbounded_channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let done = log.clone();
        let handler = raw(move |event: Event, cx| {
            let text = String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
            let (told, done) = (told.clone(), done.clone());
            let stuck = (event.key_str() == Some("stuck")).then(|| stuck(cx));
            async move {
                if let Some(stuck) = stuck {
                    let verdict = stuck.await?;
                    done.lock().unwrap().push(text);
                    return Ok(verdict);
                }
                tokio::time::sleep(WORK).await;
                told.send((text, Instant::now())).unwrap();
                Ok::<_, BoxError>(Verdict::Done)
            }
        });
        let registry = Registry::new();
        let group = Group::new("billing").unwrap();
        let subscription = Subscription { in_flight: IN_FLIGHT, ..Subscription::new(group, [topic.clone()]) };
        let settings =
            ProcessorSettings { attempt_timeout: None, seed: Some(1), ..ProcessorSettings::default() };
        let processor = Processor::builder(bus.clone(), subscription)
            .router(Router::new().on("order", handler))
            .settings(settings)
            .retry(retry)
            .metrics(&Metrics::register(&registry).unwrap())
            .start()
            .await
            .unwrap();
        // Assigned, and caught up with nothing.
        tokio::time::sleep(SECOND).await;
        Self { bus, topic, processor, registry, others, stuck: log, behind: 0 }
    }

    async fn publish(&self, partition: u32, key: &str, text: &str) {
        let to = Target { partition: Some(partition), ..Target::from(&self.topic) };
        let message = Message::builder().key(key.to_owned()).event_type("order").payload(text.to_owned());
        self.bus.publish_one(to, message.build()).await.unwrap();
    }

    /// Publishes one more of the stuck key, to partition 0.
    async fn publish_stuck(&mut self) {
        self.publish(0, "stuck", &self.behind.to_string()).await;
        self.behind += 1;
    }

    /// How long a message of another key takes, from being published to being handled; `None` where it is not handled in an hour.
    async fn other(&mut self, partition: u32, key: &str) -> Option<Duration> {
        let published = Instant::now();
        self.publish(partition, key, key).await;
        let handled = tokio::time::timeout(3600 * SECOND, self.others.recv()).await.ok()?;
        let (text, at) = handled.unwrap();
        assert_eq!(text, key, "nothing else is handled meanwhile");
        Some(at - published)
    }

    /// The gauge of partitions that wait because their share is full.
    fn full(&self) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "ropeway_partitions_full").unwrap();
        family.get_metric()[0].get_gauge().get_value()
    }

    /// Fills the share of partition 0 behind its stuck key, and looks at what the others are in for with each step.
    async fn fill(&mut self) {
        let share = InFlight::new(IN_FLIGHT, PARTITIONS as usize).share().messages;
        assert_eq!(share, 128, "half of what may be in flight, with 4 partitions");
        // One place is left for the others of the partition.
        while self.behind < share - 1 {
            self.publish_stuck().await;
            // Other keys of its partition and of the others: not a millisecond more.
            for (partition, key) in [(0, "beside"), (0, "another"), (1, "elsewhere"), (3, "far")] {
                let took = self.other(partition, key).await;
                assert_eq!(took, Some(WORK), "{key} behind {} stuck ones", self.behind);
            }
            assert_eq!(self.full(), 0.0);
        }
        assert_eq!(self.processor.snapshot().in_flight, 127);
        // Also where many others come at once: they run beside each other.
        let published = Instant::now();
        for n in 0..8 {
            self.publish(1 + n % 3, &format!("key {n}"), "at once").await;
        }
        for _ in 0..8 {
            assert_eq!(self.others.recv().await.unwrap().1 - published, WORK);
        }
        // The last place, and its partition waits, alone.
        self.publish_stuck().await;
        let waiting = Instant::now();
        for partition in 1..PARTITIONS {
            assert_eq!(self.other(partition, "elsewhere").await, Some(WORK));
        }
        assert_eq!(waiting.elapsed(), WORK * 3);
        let snapshot = self.processor.snapshot();
        assert_eq!(
            (snapshot.partitions_full, snapshot.in_flight, snapshot.keys),
            (1, 128, 1),
            "{snapshot:?}"
        );
        assert_eq!(self.full(), 1.0);
        assert_eq!(self.stuck.lock().unwrap().len(), 0);
    }

    /// After the stuck key was released: all of it was handled in order, nothing is left, and nobody waits any more.
    async fn assert_all_goes_on(&mut self) {
        let expected: Vec<String> = (0..self.behind).map(|n| n.to_string()).collect();
        assert_eq!(*self.stuck.lock().unwrap(), expected);
        assert_eq!(self.other(0, "beside").await, Some(WORK));
        // Its ack follows when its handler is over.
        tokio::time::sleep(SECOND).await;
        let snapshot = self.processor.snapshot();
        assert_eq!((snapshot.partitions_full, snapshot.in_flight), (0, 0), "{snapshot:?}");
        assert_eq!(self.full(), 0.0);
        assert!(self.processor.shutdown(10 * SECOND).await.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_costs_others_nothing_until_its_partition_is_full() {
    let (release, released) = watch::channel(false);
    let stuck = move |_| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            Ok(Verdict::Done)
        }
    };
    let mut stage = Stage::new(stuck, RetryPolicy::never()).await;
    stage.fill().await;
    // Those of its own partition wait as long as it does, and not a moment longer.
    let published = Instant::now();
    stage.publish(0, "beside", "beside").await;
    tokio::time::sleep(600 * SECOND).await;
    assert!(stage.others.try_recv().is_err());
    release.send(true).unwrap();
    let (_, handled) = stage.others.recv().await.unwrap();
    assert_eq!(handled - published, 600 * SECOND + WORK);
    stage.assert_all_goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_and_is_tried_again_costs_others_nothing_until_its_partition_is_full() {
    let wait = 3600 * SECOND;
    let retry =
        RetryPolicy { max_attempts: 3, first_delay: wait, factor: 2.0, max_delay: 24 * wait, jitter: false };
    let first = Arc::new(Mutex::new(true));
    let stuck = move |cx: Context| {
        // The first message fails twice.
        let fails = *first.lock().unwrap() && cx.attempt() < 3;
        *first.lock().unwrap() = fails;
        async move { if fails { Err("not yet".into()) } else { Ok(Verdict::Done) } }
    };
    let began = Instant::now();
    let mut stage = Stage::new(stuck, retry).await;
    let first = Instant::now();
    stage.fill().await;
    assert!(first - began == SECOND && first.elapsed() < wait, "it fails for the second time after this");
    assert_eq!(stage.processor.snapshot().waiting, 1);
    // One hour after its first attempt, and two hours after its second one.
    stage.publish(0, "beside", "beside").await;
    let (_, handled) = stage.others.recv().await.unwrap();
    assert_eq!(handled - first, 3 * wait + WORK);
    assert_eq!(stage.processor.snapshot().retried, 2);
    stage.assert_all_goes_on().await;
}
