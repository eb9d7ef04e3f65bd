//! Counts and times what goes through a broker, for Prometheus.
//!
//! Names are those of OpenTelemetry's messaging metrics. Labels are closed: at most 1,000 topics and 1,000 groups, what comes beyond them is
//! counted under `_other`. Handles are resolved once per topic and added to once per batch.
//! Not here: lag (asked of [`Admin::describe_group`](crate::Admin::describe_group) by whoever shows it), handlers (`ropeway-processor`).

use crate::{
    Admin, Answer, Capabilities, Consumer, Control, Error, ErrorKind, Event, Group, Health, Message,
    MessageBroker, Outcomes, Owned, Part, Position, Published, Reader, Result, Start, Statistics,
    Subscription, Target, Topic,
};
use futures::FutureExt;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

/// The most topics, and the most groups, that get labels of their own.
const MOST_LABELS: usize = 1000;
const OTHER: &str = "_other";
/// Seconds: from 100 µs to 10 s.
const BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A broker that counts and times what goes through it. A registry takes one meter. A publish whose answer is dropped is not counted.
///
/// | Metric | Type | Labels |
/// |---|---|---|
/// | `messaging_client_sent_messages_total` | counter | `system`, `destination`, `error_type` (empty: acked) |
/// | `messaging_client_consumed_messages_total` | counter | `system`, `destination`, `consumer_group` (empty: a reader) |
/// | `messaging_client_operation_duration_seconds` | histogram | `system`, `destination`, `operation` (`publish`, `forward`) |
/// | `ropeway_consumer_rebalances_total` | counter | `system`, `consumer_group` |
/// | `ropeway_consumer_assigned_partitions` | gauge | `system`, `consumer_group` |
/// | `ropeway_consumer_gaps_total` | counter | `system`, `destination`, `consumer_group` |
/// | `ropeway_consumer_unreadable_total` | counter | `system`, `destination`, `consumer_group` |
#[derive(Debug)]
pub struct Meter {
    inner: Arc<dyn MessageBroker>,
    metrics: Arc<Metrics>,
}

impl Meter {
    /// Wraps `inner` and registers the metrics.
    ///
    /// # Errors
    /// `Conflict` where metrics of these names are registered already: one registry takes one meter.
    pub fn around(inner: Arc<dyn MessageBroker>, registry: &Registry) -> Result<Arc<Self>> {
        let metrics = Metrics::register(inner.capabilities().backend, registry).map_err(|cause| {
            Error::new(
                ErrorKind::Conflict,
                "the registry has metrics of these names already; give each meter its own",
            )
            .during("register the metrics of a broker")
            .caused_by(cause)
        })?;
        Ok(Arc::new(Self { inner, metrics: Arc::new(metrics) }))
    }
}

#[derive(Debug)]
struct Metrics {
    system: &'static str,
    sent: IntCounterVec,
    consumed: IntCounterVec,
    duration: HistogramVec,
    rebalances: IntCounterVec,
    assigned: IntGaugeVec,
    gaps: IntCounterVec,
    unreadable: IntCounterVec,
    topics: RwLock<HashMap<Topic, OfTopic>>,
    groups: RwLock<HashSet<Group>>,
}

/// The handles of one topic's publishing.
#[derive(Clone, Debug)]
struct OfTopic {
    label: Arc<str>,
    acked: IntCounter,
    publish: Histogram,
    forward: Histogram,
}

impl Metrics {
    fn register(system: &'static str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let sent = counter(
            "messaging_client_sent_messages_total",
            "Messages published, by outcome",
            &["system", "destination", "error_type"],
        )?;
        let of_group = ["system", "destination", "consumer_group"];
        let consumed = counter("messaging_client_consumed_messages_total", "Messages handed out", &of_group)?;
        let gaps = counter("ropeway_consumer_gaps_total", "Gaps told to consumers", &of_group)?;
        let unreadable =
            counter("ropeway_consumer_unreadable_total", "Records that were no messages", &of_group)?;
        let rebalances = counter(
            "ropeway_consumer_rebalances_total",
            "Changes of the assignment of members in this process",
            &["system", "consumer_group"],
        )?;
        let assigned = IntGaugeVec::new(
            Opts::new("ropeway_consumer_assigned_partitions", "Partitions owned by members in this process"),
            &["system", "consumer_group"],
        )?;
        registry.register(Box::new(assigned.clone()))?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "messaging_client_operation_duration_seconds",
                "From a call to the outcome of its batch",
            )
            .buckets(BUCKETS.to_vec()),
            &["system", "destination", "operation"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        let (topics, groups) = (RwLock::default(), RwLock::default());
        Ok(Self { system, sent, consumed, duration, rebalances, assigned, gaps, unreadable, topics, groups })
    }

    fn topic(&self, topic: &Topic) -> OfTopic {
        let known = self.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        known.unwrap_or_else(|| {
            let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
            if topics.len() >= MOST_LABELS {
                return self.handles(OTHER);
            }
            topics.entry(topic.clone()).or_insert_with(|| self.handles(topic.as_str())).clone()
        })
    }

    /// The handles of a topic that has some; else those of all others.
    fn unless_new(&self, topic: &Topic) -> OfTopic {
        let known = self.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        known.unwrap_or_else(|| self.handles(OTHER))
    }

    fn handles(&self, label: &str) -> OfTopic {
        OfTopic {
            label: Arc::from(label),
            acked: self.sent.with_label_values(&[self.system, label, ""]),
            publish: self.duration.with_label_values(&[self.system, label, "publish"]),
            forward: self.duration.with_label_values(&[self.system, label, "forward"]),
        }
    }

    /// The label of a group.
    fn group(&self, group: &Group) -> String {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if groups.contains(group) || groups.len() < MOST_LABELS {
            groups.insert(group.clone());
            return group.to_string();
        }
        OTHER.to_owned()
    }

    fn sent<'a>(&self, outcomes: impl Iterator<Item = (&'a OfTopic, &'a Published)>) {
        for (of_topic, published) in outcomes {
            match published.failed() {
                None => of_topic.acked.inc(),
                Some(failed) => {
                    let error = failed.error.kind().as_str();
                    self.sent.with_label_values(&[self.system, &*of_topic.label, error]).inc();
                }
            }
        }
    }
}

impl Meter {
    /// Counts what was published, when it is answered.
    fn sent(&self, to: &Target, start: Instant, answer: Answer<Outcomes>) -> Answer<Outcomes> {
        let (metrics, topic) = (Arc::clone(&self.metrics), to.topic.clone());
        answer
            .map(move |outcomes| {
                // A topic gets labels when something of it was acked, so that wrong names from outside make none.
                let known = outcomes.0.iter().any(Published::is_acked);
                let of_topic = if known { metrics.topic(&topic) } else { metrics.unless_new(&topic) };
                of_topic.publish.observe(start.elapsed().as_secs_f64());
                metrics.sent(outcomes.0.iter().map(|published| (&of_topic, published)));
                outcomes
            })
            .boxed()
    }
}

impl MessageBroker for Meter {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        let start = Instant::now();
        self.sent(to, start, self.inner.publish(to, batch))
    }

    fn publish_in_parts(&self, to: &Target, batch: &Arc<Vec<Message>>) -> Vec<Part> {
        let start = Instant::now();
        let parts = self.inner.publish_in_parts(to, batch).into_iter();
        parts.map(|Part { places, answer }| Part { places, answer: self.sent(to, start, answer) }).collect()
    }

    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let metrics = Arc::clone(&self.metrics);
        let group = subscription.group.clone();
        self.inner
            .subscribe(subscription)
            .map(move |consumer| {
                consumer.map(|inner| -> Box<dyn Consumer> { Box::new(Metered::new(inner, metrics, &group)) })
            })
            .boxed()
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        let metrics = Arc::clone(&self.metrics);
        self.inner
            .read()
            .map(|reader| {
                reader.map(|inner| -> Box<dyn Reader> {
                    Box::new(MeteredReader { inner, seen: Seen::new(metrics, String::new()) })
                })
            })
            .boxed()
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    fn health(&self) -> Answer<Health> {
        self.inner.health()
    }

    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }

    fn close(&self, deadline: Duration) -> Answer<()> {
        self.inner.close(deadline)
    }
}

/// Counts what one consumer or reader is told.
#[derive(Debug)]
struct Seen {
    metrics: Arc<Metrics>,
    group: String,
    topics: HashMap<Topic, (IntCounter, Arc<str>)>,
}

impl Seen {
    fn new(metrics: Arc<Metrics>, group: String) -> Self {
        Self { metrics, group, topics: HashMap::new() }
    }

    fn topic(&mut self, topic: &Topic) -> &(IntCounter, Arc<str>) {
        let (metrics, group) = (&self.metrics, &self.group);
        self.topics.entry(topic.clone()).or_insert_with(|| {
            let label = metrics.topic(topic).label;
            (metrics.consumed.with_label_values(&[metrics.system, &*label, group]), label)
        })
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Batch(batch) => self.topic(&batch.of.topic).0.inc_by(batch.deliveries.len() as u64),
            Event::Gap { of, .. } => {
                let label = Arc::clone(&self.topic(&of.topic).1);
                self.metrics.gaps.with_label_values(&[self.metrics.system, &*label, &self.group]).inc();
            }
            Event::Unreadable { of, .. } => {
                let label = Arc::clone(&self.topic(&of.topic).1);
                self.metrics.unreadable.with_label_values(&[self.metrics.system, &*label, &self.group]).inc();
            }
            Event::Assigned(_) | Event::Revoking { .. } | Event::Gone(..) | Event::CaughtUp(_) => {}
        }
    }
}

#[derive(Debug)]
struct Metered {
    inner: Box<dyn Consumer>,
    seen: Seen,
    rebalances: IntCounter,
    assigned: IntGauge,
    owned: i64,
}

impl Metered {
    fn new(inner: Box<dyn Consumer>, metrics: Arc<Metrics>, group: &Group) -> Self {
        let group = metrics.group(group);
        let labels = [metrics.system, group.as_str()];
        let rebalances = metrics.rebalances.with_label_values(&labels);
        let assigned = metrics.assigned.with_label_values(&labels);
        Self { inner, seen: Seen::new(metrics, group), rebalances, assigned, owned: 0 }
    }

    fn own(&mut self, more: i64) {
        self.owned += more;
        self.assigned.add(more);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.own(-self.owned);
    }
}

impl Consumer for Metered {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let event = ready!(self.inner.poll_next(cx))?;
        self.seen.event(&event);
        match &event {
            Event::Assigned(assigned) if !assigned.is_empty() => {
                self.rebalances.inc();
                self.own(i64::try_from(assigned.len()).unwrap_or(i64::MAX));
            }
            Event::Gone(..) => self.own(-1),
            _ => {}
        }
        Poll::Ready(Ok(event))
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(MeteredControl { inner: self.inner.control(), metrics: Arc::clone(&self.seen.metrics) })
    }
}

#[derive(Debug)]
struct MeteredControl {
    inner: Arc<dyn Control>,
    metrics: Arc<Metrics>,
}

impl Control for MeteredControl {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        self.inner.ack(of, done)
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let start = Instant::now();
        let topics: Vec<Topic> = out.iter().map(|(to, _)| to.topic.clone()).collect();
        let metrics = Arc::clone(&self.metrics);
        self.inner
            .forward(of, done, out)
            .map(move |outcomes| {
                let mut timed: Vec<&Topic> = Vec::new();
                for (topic, published) in topics.iter().zip(&outcomes.0) {
                    let of_topic =
                        if published.is_acked() { metrics.topic(topic) } else { metrics.unless_new(topic) };
                    metrics.sent([(&of_topic, published)].into_iter());
                    if !timed.contains(&topic) {
                        of_topic.forward.observe(start.elapsed().as_secs_f64());
                        timed.push(topic);
                    }
                }
                outcomes
            })
            .boxed()
    }

    fn pause(&self, of: &Owned, paused: bool) {
        self.inner.pause(of, paused);
    }

    fn give_up(&self, of: &Owned) {
        self.inner.give_up(of);
    }

    fn confirm(&self, of: &Owned) -> Answer<Result<()>> {
        self.inner.confirm(of)
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        self.inner.flush()
    }

    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>> {
        self.inner.set_topics(topics)
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        self.inner.close(deadline)
    }
}

#[derive(Debug)]
struct MeteredReader {
    inner: Box<dyn Reader>,
    seen: Seen,
}

impl Reader for MeteredReader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let event = ready!(self.inner.poll_next(cx))?;
        self.seen.event(&event);
        Poll::Ready(Ok(event))
    }

    fn follow(&mut self, topic: &Topic, partition: Option<u32>, from: Start) -> Answer<Result<()>> {
        self.inner.follow(topic, partition, from)
    }

    fn unfollow(&mut self, topic: &Topic, partition: Option<u32>) {
        self.inner.unfollow(topic, partition);
    }
}
