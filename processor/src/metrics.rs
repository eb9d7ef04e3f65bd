//! Metrics of processors and pools, in Prometheus' form.
//!
//! Labels are closed sets: handlers and their patterns as registered, topics and groups as subscribed, classes of failures. An event type from
//! the wire never becomes a label. What is counted per message is resolved when a processor starts.
//! Not here: metrics of the bus itself, unreadable records among them (`ropeway_broker::wrap`), the snapshot of one processor
//! (`runtime/snapshot.rs`).

use crate::{
    FailureClass,
    durations::{Buckets, Durations, DurationsVec},
};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};
use ropeway_broker::{Error, ErrorKind, Group, Result, Topic};
use std::{sync::Arc, time::Duration};

/// The metrics of all processors and pools of a process. Cloning is cheap: register once, give a clone to each.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

struct Families {
    handler_events: IntCounterVec,
    handler_in_flight: IntGaugeVec,
    retries: IntCounterVec,
    process_duration: DurationsVec,
    message_age: DurationsVec,
    dead_letters: IntCounterVec,
    held: IntGaugeVec,
    late: IntCounterVec,
    gaps: IntCounterVec,
    full: IntGaugeVec,
    pool_queue: IntGaugeVec,
    pool_busy: IntGaugeVec,
    pool_workers: IntGaugeVec,
    pool_wait: DurationsVec,
    pool_jobs: IntCounterVec,
}

/// From 100 µs to 100 s.
const DURATIONS: Buckets = Buckets(&[
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(100),
]);

/// From 1 ms to a day.
const AGES: Buckets = Buckets(&[
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3600),
    Duration::from_secs(86_400),
]);

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// `Exists` where the registry has metrics of these names: clone the first ones instead.
    pub fn register(registry: &Registry) -> Result<Self> {
        let metrics = Self::unregistered()?;
        for collector in metrics.0.collectors() {
            registry.register(collector).map_err(wrong)?;
        }
        Ok(metrics)
    }

    /// Counted, and shown nowhere.
    pub(crate) fn unregistered() -> Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).map_err(wrong)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).map_err(wrong)
        };
        let histogram = |name: &str, help: &str, buckets: Buckets, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            buckets.histograms(Opts::new(name, help).variable_labels(labels)).map_err(wrong)
        };
        Ok(Self(Arc::new(Families {
            handler_events: counter(
                "ropeway_handler_events_total",
                "Events by the handler that ended them and how: ok, retry, dead, skipped. The type is the pattern as registered",
                &["handler", "event_type", "outcome"],
            )?,
            handler_in_flight: gauge("ropeway_handler_inflight", "Attempts that run", &["handler"])?,
            retries: counter(
                "ropeway_retries_total",
                "Failed attempts that are repeated, by the number of the attempt that failed",
                &["handler", "attempt", "error_class"],
            )?,
            process_duration: histogram(
                "messaging_process_duration_seconds",
                "How long attempts take",
                DURATIONS,
                &["system", "destination", "consumer_group", "handler", "error_type"],
            )?,
            message_age: histogram(
                "ropeway_message_age_seconds",
                "From the making of a message to the start of its first attempt",
                AGES,
                &["topic", "group"],
            )?,
            dead_letters: counter("ropeway_dlq_published_total", "Dead letters written", &["dlq", "reason"])?,
            held: gauge(
                "ropeway_dlq_held",
                "Messages held because their dead letter cannot be written",
                &["group"],
            )?,
            late: counter(
                "ropeway_late_completions_total",
                "Events whose handler finished after their partition had gone: they are handled again elsewhere",
                &["group"],
            )?,
            gaps: counter(
                "ropeway_gaps_total",
                "Times that messages were gone before they were seen",
                &["group", "topic", "reason"],
            )?,
            full: gauge(
                "ropeway_partitions_full",
                "Partitions that wait because unfinished messages fill their share of what may be in flight",
                &["group"],
            )?,
            pool_queue: gauge(
                "ropeway_worker_pool_queue_depth",
                "What was taken in and does not run",
                &["pool"],
            )?,
            pool_busy: gauge("ropeway_worker_pool_busy_workers", "What runs", &["pool"])?,
            pool_workers: gauge("ropeway_worker_pool_workers", "What may run at a time", &["pool"])?,
            pool_wait: histogram(
                "ropeway_worker_pool_wait_seconds",
                "From being taken in to the first start",
                DURATIONS,
                &["pool"],
            )?,
            pool_jobs: counter(
                "ropeway_worker_pool_jobs_total",
                "Jobs of a stand-alone pool: ok, retry, failed",
                &["pool", "outcome"],
            )?,
        })))
    }

    pub(crate) fn of_handler(
        &self,
        name: &str,
        event_type: &str,
        system: &'static str,
        group: &Group,
        topics: &[Topic],
    ) -> HandlerMetrics {
        let families = &self.0;
        let events = |outcome: &str| families.handler_events.with_label_values(&[name, event_type, outcome]);
        let ok = |topic: &Topic| {
            let labels = [system, topic.as_str(), group.as_str(), name, ""];
            (topic.clone(), families.process_duration.with_label_values(&labels))
        };
        HandlerMetrics {
            ok: events("ok"),
            retried: events("retry"),
            dead: events("dead"),
            in_flight: families.handler_in_flight.with_label_values(&[name]),
            durations: topics.iter().map(ok).collect(),
            families: self.clone(),
            labels: Arc::new((name.to_owned(), system, group.clone())),
        }
    }

    pub(crate) fn of_group(&self, group: &Group, topics: &[Topic]) -> GroupMetrics {
        let families = &self.0;
        let group_name = &[group.as_str()];
        let age = |topic: &Topic| {
            (topic.clone(), families.message_age.with_label_values(&[topic.as_str(), group.as_str()]))
        };
        GroupMetrics {
            unknown_dead: families.handler_events.with_label_values(&["", "unknown", "dead"]),
            unknown_skipped: families.handler_events.with_label_values(&["", "unknown", "skipped"]),
            held: families.held.with_label_values(group_name),
            late: families.late.with_label_values(group_name),
            full: families.full.with_label_values(group_name),
            ages: topics.iter().map(age).collect(),
            families: self.clone(),
            group: group.clone(),
        }
    }

    pub(crate) fn of_pool(&self, name: &str) -> PoolMetrics {
        let families = &self.0;
        let jobs = |outcome: &str| families.pool_jobs.with_label_values(&[name, outcome]);
        PoolMetrics {
            queue: families.pool_queue.with_label_values(&[name]),
            busy: families.pool_busy.with_label_values(&[name]),
            workers: families.pool_workers.with_label_values(&[name]),
            wait: families.pool_wait.with_label_values(&[name]),
            ok: jobs("ok"),
            retried: jobs("retry"),
            failed: jobs("failed"),
        }
    }
}

impl Families {
    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.handler_events.clone()),
            Box::new(self.handler_in_flight.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.process_duration.clone()),
            Box::new(self.message_age.clone()),
            Box::new(self.dead_letters.clone()),
            Box::new(self.held.clone()),
            Box::new(self.late.clone()),
            Box::new(self.gaps.clone()),
            Box::new(self.full.clone()),
            Box::new(self.pool_queue.clone()),
            Box::new(self.pool_busy.clone()),
            Box::new(self.pool_workers.clone()),
            Box::new(self.pool_wait.clone()),
            Box::new(self.pool_jobs.clone()),
        ]
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is used as a function of map_err")]
fn wrong(error: prometheus::Error) -> Error {
    let kind =
        if matches!(error, prometheus::Error::AlreadyReg) { ErrorKind::Exists } else { ErrorKind::Invalid };
    Error::new(kind, format!("the metrics cannot be registered: {error}; register them once and clone them"))
}

/// What one processor or pool adds to a gauge that it shares with others; taken back when it is dropped.
#[derive(Debug)]
pub(crate) struct Level {
    gauge: IntGauge,
    value: i64,
}

impl Level {
    pub(crate) const fn new(gauge: IntGauge) -> Self {
        Self { gauge, value: 0 }
    }

    pub(crate) fn set(&mut self, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        if value != self.value {
            self.gauge.add(value - self.value);
            self.value = value;
        }
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.gauge.sub(self.value);
    }
}

/// What is counted of one handler.
#[derive(Clone, Debug)]
pub(crate) struct HandlerMetrics {
    pub(crate) ok: IntCounter,
    pub(crate) retried: IntCounter,
    pub(crate) dead: IntCounter,
    pub(crate) in_flight: IntGauge,
    durations: Vec<(Topic, Durations)>,
    families: Metrics,
    labels: Arc<(String, &'static str, Group)>,
}

impl HandlerMetrics {
    /// An attempt took that long and failed with `class`, or did not fail.
    pub(crate) fn took(&self, topic: Option<&Topic>, class: Option<FailureClass>, time: Duration) {
        let Some(topic) = topic else { return };
        if let Some(class) = class {
            let (handler, system, group) = &*self.labels;
            let labels = [*system, topic.as_str(), group.as_str(), handler, class.as_str()];
            self.families.0.process_duration.with_label_values(&labels).observe(time);
        } else if let Some(histogram) = self.durations_of(topic) {
            histogram.observe(time);
        }
    }

    /// How long attempts took that did not fail.
    pub(crate) fn durations_of(&self, topic: &Topic) -> Option<&Durations> {
        self.durations.iter().find(|(other, _)| other == topic).map(|(_, histogram)| histogram)
    }

    /// Attempt number `attempt` failed and will be repeated.
    pub(crate) fn retry(&self, attempt: u32, class: FailureClass) {
        self.retried.inc();
        let bucket = match attempt {
            0 | 1 => "1",
            2 => "2",
            3 => "3",
            _ => "4+",
        };
        self.families.0.retries.with_label_values(&[&*self.labels.0, bucket, class.as_str()]).inc();
    }
}

/// What is counted of one group.
#[derive(Clone, Debug)]
pub(crate) struct GroupMetrics {
    pub(crate) unknown_dead: IntCounter,
    pub(crate) unknown_skipped: IntCounter,
    pub(crate) held: IntGauge,
    pub(crate) late: IntCounter,
    pub(crate) full: IntGauge,
    ages: Vec<(Topic, Durations)>,
    families: Metrics,
    group: Group,
}

impl GroupMetrics {
    /// The first attempt of a message of that age starts.
    pub(crate) fn age(&self, topic: &Topic, age: Duration) {
        if let Some(histogram) = self.ages_of(topic) {
            histogram.observe(age);
        }
    }

    /// How old messages of a topic were.
    pub(crate) fn ages_of(&self, topic: &Topic) -> Option<&Durations> {
        self.ages.iter().find(|(other, _)| other == topic).map(|(_, histogram)| histogram)
    }

    pub(crate) fn dead_letter(&self, to: &Topic, class: FailureClass) {
        self.families.0.dead_letters.with_label_values(&[to.as_str(), class.as_str()]).inc();
    }

    pub(crate) fn gap(&self, topic: &Topic, reason: &str) {
        self.families.0.gaps.with_label_values(&[self.group.as_str(), topic.as_str(), reason]).inc();
    }
}

/// What is counted of one pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolMetrics {
    pub(crate) queue: IntGauge,
    pub(crate) busy: IntGauge,
    pub(crate) workers: IntGauge,
    pub(crate) wait: Durations,
    pub(crate) ok: IntCounter,
    pub(crate) retried: IntCounter,
    pub(crate) failed: IntCounter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_registered_once_and_a_second_time_says_what_to_do() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let error = Metrics::register(&registry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        assert!(error.to_string().contains("clone"));
        let topics = [Topic::new("t").unwrap()];
        let group = Group::new("g").unwrap();
        let handler = metrics.of_handler("h", "a.*", "memory", &group, &topics);
        handler.ok.inc();
        handler.retry(9, FailureClass::Panic);
        handler.took(Some(&topics[0]), None, Duration::from_millis(3));
        handler.took(Some(&topics[0]), Some(FailureClass::Error), Duration::from_millis(3));
        metrics.of_group(&group, &topics).age(&topics[0], Duration::from_secs(1));
        let names: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        for name in [
            "ropeway_handler_events_total",
            "ropeway_retries_total",
            "messaging_process_duration_seconds",
            "ropeway_message_age_seconds",
        ] {
            assert!(names.iter().any(|other| other == name), "{name} in {names:?}");
        }
    }
}
