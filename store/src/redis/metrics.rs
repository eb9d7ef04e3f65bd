//! Metrics of connections to Redis, in Prometheus' form.

use super::error::{Error, ErrorKind, Outcome};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGaugeVec, Opts, Registry, core::Collector};
use std::{fmt, sync::Arc};
use tokio::time::Instant;

/// The metrics of all connections to Redis of a process. Cloning is cheap: register once, give a clone to each.
#[derive(Clone)]
pub struct RedisMetrics(Arc<Families>);

impl fmt::Debug for RedisMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisMetrics")
    }
}

struct Families {
    active: IntGaugeVec,
    idle: IntGaugeVec,
    up: IntGaugeVec,
    breaker_open: IntGaugeVec,
    operations: HistogramVec,
    dropped: IntCounter,
}

impl RedisMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// The registry has metrics of these names: clone the first ones instead.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self::unregistered()?;
        let families = &metrics.0;
        let collectors: [Box<dyn Collector>; 6] = [
            Box::new(families.active.clone()),
            Box::new(families.idle.clone()),
            Box::new(families.up.clone()),
            Box::new(families.breaker_open.clone()),
            Box::new(families.operations.clone()),
            Box::new(families.dropped.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Counted, and shown nowhere.
    pub(super) fn unregistered() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["server"]);
        let durations = vec![
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0,
        ];
        let operations = HistogramOpts::new(
            "redis_operations_duration_seconds",
            "How long requests on the pool take, with all their tries, by how they ended: ok, refused, unavailable, unknown",
        );
        Ok(Self(Arc::new(Families {
            active: gauge("redis_connections_active", "Connections of the pool that are in use")?,
            idle: gauge("redis_connections_idle", "Connections of the pool that are open and not in use")?,
            up: gauge("redis_up", "Whether the server answers")?,
            breaker_open: gauge(
                "redis_breaker_open",
                "Whether requests are refused because the server failed",
            )?,
            operations: HistogramVec::new(operations.buckets(durations), &["operation", "outcome"])?,
            dropped: IntCounter::new(
                "redis_subscription_dropped_total",
                "Received on channels and thrown away because the subscriber was too slow",
            )?,
        })))
    }

    pub(super) fn start(&self) -> Timer<'_> {
        Timer { families: &self.0, began: Instant::now() }
    }

    pub(super) fn of_server(
        &self,
        server: &str,
        (active, idle): (usize, usize),
        up: bool,
        breaker_open: bool,
    ) {
        let set = |gauge: &IntGaugeVec, value: usize| {
            gauge.with_label_values(&[server]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.0.active, active);
        set(&self.0.idle, idle);
        set(&self.0.up, usize::from(up));
        set(&self.0.breaker_open, usize::from(breaker_open));
    }

    /// A server that is not used any more.
    pub(super) fn forget(&self, server: &str) {
        for gauge in [&self.0.active, &self.0.idle, &self.0.up, &self.0.breaker_open] {
            // It may never have been counted.
            drop(gauge.remove_label_values(&[server]));
        }
    }

    pub(super) fn dropped(&self, count: u64) {
        self.0.dropped.inc_by(count);
    }
}

/// A request that runs.
pub(super) struct Timer<'a> {
    families: &'a Families,
    began: Instant,
}

impl Timer<'_> {
    pub(super) fn end(self, operation: &str, error: Option<&Error>) {
        let outcome = match error {
            None => "ok",
            Some(error) if error.outcome() == Outcome::Unknown => "unknown",
            Some(error) if error.kind().is_transient() || error.kind() == ErrorKind::Auth => "unavailable",
            Some(_) => "refused",
        };
        let histogram = self.families.operations.with_label_values(&[operation, outcome]);
        histogram.observe(self.began.elapsed().as_secs_f64());
    }
}
