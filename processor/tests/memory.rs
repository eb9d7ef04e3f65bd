//! The processor on `memory:`, under a paused clock: deterministic, and a real broker.
//!
//! Not here: what no real broker does on demand (`src/runtime/tests/`), conformance on every backend.
#![expect(clippy::unwrap_used, reason = "a test")]

use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::wrap::{Fault, Injection, Operation, Revoke, Times};
use ropeway_broker::{
    Bound, ConsumerExt, Embedded, EmbeddedSettings, ErrorKind, Event as BusEvent, Group, Message,
    MessageBroker, MessageBrokerExt, ReaderExt, Start, Subscription, Timestamp, TokioClock, Topic, TopicSpec,
};
use ropeway_processor::{
    BoxError, Context, Event, FailureClass, FailureRecord, Metrics, Processor, ProcessorSettings,
    RetryPolicy, Router, Verdict, raw,
};
use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);

fn bus() -> Arc<dyn MessageBroker> {
    let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
    Embedded::memory(EmbeddedSettings { clock, ..EmbeddedSettings::default() }).unwrap()
}

async fn topic(bus: &Arc<dyn MessageBroker>, partitions: u32) -> Topic {
    let topic = Topic::new("orders").unwrap();
    bus.admin().create_topic(&topic, TopicSpec::partitions(partitions)).await.unwrap();
    topic
}

async fn publish(bus: &Arc<dyn MessageBroker>, topic: &Topic, key: &str, payload: impl Into<String>) {
    let message = Message::builder().key(key.to_owned()).event_type("order").payload(payload.into()).build();
    bus.publish_one(topic, message).await.unwrap();
}

fn subscription(topic: &Topic) -> Subscription {
    Subscription::new(Group::new("billing").unwrap(), [topic.clone()])
}

fn settings(seed: u64) -> ProcessorSettings {
    ProcessorSettings { seed: Some(seed), ..ProcessorSettings::default() }
}

fn text(event: &Event) -> String {
    String::from_utf8(event.payload().unwrap().to_vec()).unwrap()
}

/// Waits until `done` holds; 100 s of paused time at the most.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 100 s: {what}");
}

fn router<U>(handle: impl Fn(Event, Context) -> U + Send + Sync + 'static) -> Router
where
    U: Future<Output = Result<Verdict, BoxError>> + Send + 'static,
{
    Router::new().on("order", raw(handle))
}

/// First completions by key, as the handlers saw them.
#[derive(Clone, Default)]
struct History(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    seen: HashSet<u64>,
    first: HashMap<String, Vec<u64>>,
    handled: usize,
}

impl History {
    fn done(&self, key: &str, n: u64) {
        let mut recorded = self.0.lock().unwrap();
        recorded.handled += 1;
        if recorded.seen.insert(n) {
            recorded.first.entry(key.to_owned()).or_default().push(n);
        }
    }

    fn seen(&self) -> usize {
        self.0.lock().unwrap().seen.len()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_and_keys_keep_their_order_while_members_crash_leave_and_come() {
    for seed in 0..4 {
        let bus = bus();
        let topic = topic(&bus, 6).await;
        let mut random = StdRng::seed_from_u64(seed);
        for n in 0..3000u64 {
            let key = format!("k{}", random.random_range(0..40u32));
            publish(&bus, &topic, &key, n.to_string()).await;
        }
        let history = History::default();
        let faults = Arc::new(Mutex::new(StdRng::seed_from_u64(seed + 100)));
        let member = |seed| {
            let (history, faults) = (history.clone(), faults.clone());
            let router = router(move |event: Event, _| {
                let (wait, fails) = {
                    let mut faults = faults.lock().unwrap();
                    (faults.random_range(0..30), faults.random_bool(0.05))
                };
                let history = history.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    if fails {
                        return Err("a seeded fault".into());
                    }
                    history.done(event.key_str().unwrap(), text(&event).parse().unwrap());
                    Ok(Verdict::Done)
                }
            });
            let subscription = Subscription { drain: SECOND, ..subscription(&topic) };
            Processor::builder(bus.clone(), subscription)
                .router(router)
                .settings(ProcessorSettings { retry: RetryPolicy::attempts(20), ..settings(seed) })
                .start()
        };
        let mut members = vec![member(1).await.unwrap(), member(2).await.unwrap()];
        for change in 0..6 {
            tokio::time::sleep(Duration::from_millis(random.random_range(10..200))).await;
            let one = members.swap_remove(random.random_range(0..members.len()));
            if change % 2 == 0 {
                one.abort();
            } else {
                one.shutdown(SECOND * 5).await;
            }
            members.push(member(10 + change).await.unwrap());
        }
        until("all are handled", || history.seen() == 3000).await;
        let recorded = history.0.lock().unwrap();
        for (key, order) in &recorded.first {
            assert!(order.is_sorted(), "seed {seed}, key {key}: {order:?}");
        }
        let late: u64 = members.iter().map(|member| member.snapshot().dead_lettered).sum();
        assert_eq!(late, 0);
        // Duplicates come from crashes and revocations alone: three of each, with at most what was in flight.
        assert!(recorded.handled - 3000 < 6 * 128, "{} too many", recorded.handled - 3000);
    }
}

#[tokio::test(start_paused = true)]
async fn an_orderly_restart_repeats_nothing() {
    let bus = bus();
    let topic = topic(&bus, 4).await;
    for n in 0..500 {
        publish(&bus, &topic, &format!("k{}", n % 17), n.to_string()).await;
    }
    let history = History::default();
    for round in 0..5 {
        let history_of_member = history.clone();
        let router = router(move |event: Event, _| {
            let history = history_of_member.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(7)).await;
                history.done(event.key_str().unwrap(), text(&event).parse().unwrap());
                Ok(Verdict::Done)
            }
        });
        let small = Bound { messages: 100, bytes: 1 << 20 };
        let subscription = Subscription { in_flight: small, ..subscription(&topic) };
        let processor = Processor::builder(bus.clone(), subscription)
            .router(router)
            .settings(settings(round))
            .start()
            .await
            .unwrap();
        if round < 4 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        } else {
            until("all are handled", || history.seen() == 500).await;
        }
        let report = processor.shutdown(SECOND * 30).await;
        assert!(report.is_clean(), "{report:?}");
        processor.finished().await.unwrap();
    }
    assert_eq!(history.0.lock().unwrap().handled, 500);
    let info = bus.admin().describe_group(&Group::new("billing").unwrap()).await.unwrap();
    assert_eq!(info.partitions.iter().map(|partition| partition.unfinished.unwrap()).sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_good_lies_in_the_dead_letter_topic_once_with_its_reason() {
    let bus = bus();
    let topic = topic(&bus, 3).await;
    for n in 0..60 {
        publish(&bus, &topic, &format!("k{}", n % 7), n.to_string()).await;
    }
    let router = router(|event: Event, _| async move {
        let n: u32 = text(&event).parse()?;
        match n % 10 {
            3 => Ok(Verdict::reject(format!("{n} ends in 3"))),
            7 => Err(format!("{n} ends in 7").into()),
            _ => Ok(Verdict::Done),
        }
    });
    let processor = Processor::builder(bus.clone(), subscription(&topic))
        .router(router)
        .settings(settings(1))
        .start()
        .await
        .unwrap();
    until("all are over", || processor.snapshot().handled + processor.snapshot().dead_lettered == 60).await;
    assert!(processor.shutdown(SECOND).await.is_clean());
    let letters = topic.dead_letters_of(&Group::new("billing").unwrap());
    let mut reader = bus.read().await.unwrap();
    reader.follow(&letters, None, Start::Earliest).await.unwrap();
    let mut records = Vec::new();
    let mut caught_up = 0;
    while caught_up < 3 {
        match reader.next().await.unwrap() {
            BusEvent::Batch(batch) => records.extend(batch.deliveries.into_iter().map(|delivery| {
                let record = FailureRecord::parse(&delivery.message).unwrap().unwrap();
                (Event::from(delivery.message), record)
            })),
            BusEvent::CaughtUp(_) => caught_up += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(records.len(), 12);
    for (event, record) in records {
        let n = text(&event);
        assert_eq!(event.event_type(), Some("order"));
        assert!(record.error.starts_with(&format!("{n} ends in ")), "{record:?}");
        let expected = if n.ends_with('3') { (FailureClass::Rejected, 1) } else { (FailureClass::Error, 5) };
        assert_eq!((record.class, record.attempts), expected);
        assert_eq!(record.topic, topic);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_hangs_fills_its_own_partition_and_no_other() {
    let bus = bus();
    let topic = topic(&bus, 4).await;
    let key_of = |partition| {
        let there = |key: &String| ropeway_broker::partition_for_key(key.as_bytes(), 4) == partition;
        (0..).map(|n| format!("k{n}")).find(there).unwrap()
    };
    for n in 0..1000 {
        publish(&bus, &topic, &key_of(0), format!("slow {n}")).await;
        for partition in 1..4 {
            publish(&bus, &topic, &key_of(partition), format!("other {n}")).await;
        }
    }
    let router = router(|event: Event, cx: Context| async move {
        if text(&event).starts_with("slow") {
            cx.cancelled().await;
        }
        Ok(Verdict::Done)
    });
    // Half of it is a partition's share.
    let subscription =
        Subscription { in_flight: Bound { messages: 256, bytes: 1 << 20 }, ..subscription(&topic) };
    let settings = ProcessorSettings { attempt_timeout: None, ..settings(1) };
    let processor = Processor::builder(bus.clone(), subscription)
        .router(router)
        .settings(settings)
        .start()
        .await
        .unwrap();
    until("the other partitions are handled", || processor.snapshot().handled == 3000).await;
    let snapshot = processor.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.partitions_full, snapshot.keys), (128, 1, 1), "{snapshot:?}");
    let report = processor.shutdown(SECOND * 4).await;
    assert!(report.took <= SECOND * 5, "{report:?}");
    assert_eq!(
        (report.finished, report.given_up),
        (1, 127),
        "the one that runs ends well when it is cancelled"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_carries_correlation_and_cause() {
    let bus = bus();
    let topic = topic(&bus, 1).await;
    let out = Topic::new("invoices").unwrap();
    bus.admin().create_topic(&out, TopicSpec::partitions(1)).await.unwrap();
    let to = out.clone();
    let router = router(move |_, cx: Context| {
        let to = to.clone();
        async move {
            cx.publish(&to, Message::builder().key("i").payload("1").build()).await?;
            Ok(Verdict::Done)
        }
    });
    publish(&bus, &topic, "k", "1").await;
    let processor =
        Processor::builder(bus.clone(), subscription(&topic)).router(router).start().await.unwrap();
    until("it is handled", || processor.snapshot().handled == 1).await;
    let mut consumer = bus.subscribe(Subscription::new(Group::new("reader").unwrap(), [out])).await.unwrap();
    let message = loop {
        if let BusEvent::Batch(batch) = consumer.next().await.unwrap() {
            break batch.deliveries[0].message.clone();
        }
    };
    let cause = message.headers.get_str(ropeway_broker::wire::CAUSATION_ID).unwrap();
    assert_eq!(message.headers.get_str(ropeway_broker::wire::CORRELATION_ID), Some(cause));
}

#[tokio::test(start_paused = true)]
async fn hostile_event_types_do_not_become_labels() {
    let bus = bus();
    let topic = topic(&bus, 1).await;
    for n in 0..200 {
        let message = Message::builder().key("k").event_type(&format!("hostile-{n}")).payload("x").build();
        bus.publish_one(&topic, message).await.unwrap();
        publish(&bus, &topic, "k", "x").await;
    }
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let processor = Processor::builder(bus.clone(), subscription(&topic))
        .router(router(|_, _| async { Ok(Verdict::Done) }))
        .metrics(&metrics)
        .start()
        .await
        .unwrap();
    until("all are over", || processor.snapshot().handled + processor.snapshot().dead_lettered == 400).await;
    let families = registry.gather();
    assert!(families.iter().all(|family| family.get_metric().len() < 20));
    let events = families.iter().find(|family| family.name() == "ropeway_handler_events_total").unwrap();
    let count = |outcome: &str| -> f64 {
        let with = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().any(|label| label.value() == outcome)
        };
        events.get_metric().iter().filter(with).map(|metric| metric.get_counter().get_value()).sum()
    };
    assert_eq!((count("ok"), count("dead")), (200.0, 200.0));
    drop(processor);
    until("its gauges are taken back", || {
        let families = registry.gather();
        let workers = families.iter().find(|family| family.name() == "ropeway_worker_pool_workers").unwrap();
        workers.get_metric().iter().all(|metric| metric.get_gauge().get_value() == 0.0)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_bus_lose_nothing_and_bury_nothing_alive() {
    let fault = Fault::around(bus());
    let bus: Arc<dyn MessageBroker> = fault.clone();
    let topic = topic(&bus, 4).await;
    for n in 0..400u64 {
        publish(&bus, &topic, &format!("k{}", n % 13), n.to_string()).await;
    }
    let history = History::default();
    let seen = history.clone();
    let router = router(move |event: Event, _| {
        let history = seen.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let n: u64 = text(&event).parse().unwrap();
            history.done(event.key_str().unwrap(), n);
            Ok(if n % 50 == 49 { Verdict::reject("the last of fifty") } else { Verdict::Done })
        }
    });
    let often = |probability| Times::Share { probability, seed: 5 };
    fault.inject(Operation::Forward, Injection::LoseAnswer(ErrorKind::Unavailable), often(0.3)).unwrap();
    fault.inject(Operation::Forward, Injection::Refuse(ErrorKind::Throttled), often(0.3)).unwrap();
    fault.inject(Operation::Ack, Injection::Refuse(ErrorKind::Unavailable), Times::Next(2)).unwrap();
    let processor = Processor::builder(bus.clone(), subscription(&topic))
        .router(router)
        .settings(settings(1))
        .start()
        .await
        .unwrap();
    for partition in 0..4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let how = if partition % 2 == 0 { Revoke::Lost } else { Revoke::Drain(SECOND) };
        fault.revoke(&topic, partition, how);
    }
    let group = Group::new("billing").unwrap();
    let mut unfinished = u64::MAX;
    for _ in 0..1000 {
        let info = bus.admin().describe_group(&group).await.unwrap();
        unfinished = info.partitions.iter().map(|partition| partition.unfinished.unwrap()).sum();
        if unfinished == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((unfinished, history.seen()), (0, 400), "{:?}", processor.snapshot());
    assert!(history.0.lock().unwrap().first.values().all(|order| order.is_sorted()));
    let letters = bus.admin().describe_topic(&topic.dead_letters_of(&group)).await.unwrap();
    let letters: u64 = letters.partitions.iter().map(|partition| partition.messages.unwrap()).sum();
    assert!((8..20).contains(&letters), "{letters}: each at least once, repeats with the same id");
    assert_eq!(processor.snapshot().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_acks_are_refused_is_given_up_and_its_work_done_again() {
    let fault = Fault::around(bus());
    let bus: Arc<dyn MessageBroker> = fault.clone();
    let topic = topic(&bus, 1).await;
    for n in 0..10u64 {
        publish(&bus, &topic, "k", n.to_string()).await;
    }
    fault.inject(Operation::Ack, Injection::Refuse(ErrorKind::Unavailable), Times::Next(1)).unwrap();
    let router = router(|_, _| async { Ok(Verdict::Done) });
    let processor =
        Processor::builder(bus.clone(), subscription(&topic)).router(router).start().await.unwrap();
    tokio::time::sleep(SECOND * 20).await;
    let info = bus.admin().describe_group(&Group::new("billing").unwrap()).await.unwrap();
    assert_eq!(info.partitions[0].unfinished, Some(0), "{:?}", processor.snapshot());
    assert!(processor.snapshot().handled >= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn on_several_threads_keys_keep_their_order() {
    let bus = Embedded::memory(EmbeddedSettings::default()).unwrap() as Arc<dyn MessageBroker>;
    let topic = topic(&bus, 4).await;
    for n in 0..3000u64 {
        publish(&bus, &topic, &format!("k{}", n % 29), n.to_string()).await;
    }
    let history = History::default();
    let seen = history.clone();
    let router = router(move |event: Event, _| {
        let history = seen.clone();
        async move {
            let n: u64 = text(&event).parse().unwrap();
            for _ in 0..n % 5 {
                tokio::task::yield_now().await;
            }
            history.done(event.key_str().unwrap(), n);
            Ok(Verdict::Done)
        }
    });
    let processor = Processor::builder(bus, subscription(&topic)).router(router).start().await.unwrap();
    until("all are handled", || processor.snapshot().handled == 3000).await;
    assert!(processor.shutdown(SECOND * 30).await.is_clean());
    let recorded = history.0.lock().unwrap();
    assert_eq!(recorded.handled, 3000);
    assert!(recorded.first.values().all(|order| order.is_sorted()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_refused_at_the_start_by_name() {
    let bus = bus();
    let topic = topic(&bus, 1).await;
    let handled = || router(|_, _| async { Ok(Verdict::Done) });
    let missing = Topic::new("missing").unwrap();
    let error =
        Processor::builder(bus.clone(), subscription(&missing)).router(handled()).start().await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let error = Processor::builder(bus.clone(), subscription(&topic)).start().await.unwrap_err();
    assert!(error.to_string().contains("no handlers"), "{error}");
    let builder = Processor::builder(bus.clone(), subscription(&topic)).router(handled());
    let error = builder.dead_letter_topic(topic.clone()).start().await.unwrap_err();
    assert!(error.to_string().contains("its own dead letters"), "{error}");
    let error = Processor::builder(bus, subscription(&topic))
        .router(handled())
        .concurrency(0)
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("concurrency"), "{error}");
}
