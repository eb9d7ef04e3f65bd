//! How long things take, by buckets: histograms for Prometheus that take many observations at once.
//!
//! Those of the `prometheus` crate take one at a time, which costs as much as a small handler. Here who sees many of them counts in plain
//! numbers ([`Tallied`]) and adds these now and then. Text and labels are as everywhere.
//! Not here: which there are (`metrics.rs`).

use prometheus::{
    Opts, Result,
    core::{Describer, Metric, MetricVec, MetricVecBuilder},
    proto::{self, LabelPair, MetricType},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Histograms of one name, by their labels.
pub(crate) type DurationsVec = MetricVec<Buckets>;

/// Where buckets end, in order; each with its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets(pub(crate) &'static [Duration]);

impl Buckets {
    /// Histograms with these buckets.
    ///
    /// # Errors
    /// Where the name, its help or a label is none.
    pub(crate) fn histograms(self, opts: Opts) -> Result<DurationsVec> {
        DurationsVec::create(MetricType::HISTOGRAM, self, opts)
    }

    /// The bucket of a time: the last one is beyond all that end.
    fn of(self, time: Duration) -> usize {
        self.0.iter().position(|end| time <= *end).unwrap_or(self.0.len())
    }
}

impl MetricVecBuilder for Buckets {
    type M = Durations;
    type P = Opts;

    fn build<V: AsRef<str>>(&self, opts: &Opts, values: &[V]) -> Result<Durations> {
        let pair = |(name, value): (&String, &V)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.as_ref().to_owned());
            pair
        };
        let mut labels: Vec<LabelPair> =
            opts.describe()?.variable_labels.iter().zip(values).map(pair).collect();
        labels.sort();
        let counts = (0..=self.0.len()).map(|_| AtomicU64::new(0)).collect();
        Ok(Durations(Arc::new(Inner { labels, buckets: *self, counts, sum: AtomicU64::new(0) })))
    }
}

/// A histogram. Clones share what is counted.
#[derive(Clone, Debug)]
pub(crate) struct Durations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    labels: Vec<LabelPair>,
    buckets: Buckets,
    counts: Box<[AtomicU64]>,
    /// All times together, in seconds: the bits of a float.
    sum: AtomicU64,
}

impl Durations {
    pub(crate) fn observe(&self, time: Duration) {
        if let Some(count) = self.0.counts.get(self.0.buckets.of(time)) {
            count.fetch_add(1, Relaxed);
        }
        self.add(time.as_secs_f64());
    }

    /// Counts beside it, until that is added.
    pub(crate) fn tally(&self) -> Tallied {
        let counts = vec![0; self.0.counts.len()];
        Tallied { of: self.clone(), counts, last: 0, above: 0, end: 0, in_last: 0, sum: 0 }
    }

    fn add(&self, seconds: f64) {
        let add = |sum| Some((f64::from_bits(sum) + seconds).to_bits());
        // It always answers with something, and so is always written.
        let _ = self.0.sum.fetch_update(Relaxed, Relaxed, add);
    }
}

impl Metric for Durations {
    fn metric(&self) -> proto::Metric {
        let (mut histogram, mut count) = (proto::Histogram::default(), 0);
        let mut counts = self.0.counts.iter().map(|count| count.load(Relaxed));
        let bucket = |(end, of_it): (&Duration, u64)| {
            let mut bucket = proto::Bucket::default();
            count += of_it;
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(end.as_secs_f64());
            bucket
        };
        let buckets = self.0.buckets.0.iter().zip(&mut counts).map(bucket).collect();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count + counts.sum::<u64>());
        histogram.set_sample_sum(f64::from_bits(self.0.sum.load(Relaxed)));
        let mut metric = proto::Metric::from_label(self.0.labels.clone());
        metric.set_histogram(histogram);
        metric
    }
}

/// Observations that are not in their histogram yet. What is dropped is not counted.
#[derive(Debug)]
pub(crate) struct Tallied {
    of: Durations,
    /// Those that were not in the bucket of the last one.
    counts: Vec<u64>,
    /// The bucket of the last one, where it begins and ends, in nanoseconds, and how many are in it: mostly the next one is, too.
    last: usize,
    above: u64,
    end: u64,
    in_last: u64,
    /// All of them together, in nanoseconds.
    sum: u128,
}

impl Tallied {
    /// A time in nanoseconds.
    #[inline]
    pub(crate) fn observe(&mut self, nanos: u64) {
        if nanos <= self.above || nanos > self.end {
            self.turn_to(nanos);
        }
        self.in_last += 1;
        self.sum += u128::from(nanos);
    }

    /// What comes next is in the bucket of that time.
    fn turn_to(&mut self, time: u64) {
        self.put_down();
        let buckets = self.of.0.buckets;
        self.last = buckets.of(Duration::from_nanos(time));
        let end = |at: usize| buckets.0.get(at).copied().map(nanos);
        self.above = self.last.checked_sub(1).and_then(end).unwrap_or(0);
        self.end = end(self.last).unwrap_or(u64::MAX);
    }

    fn put_down(&mut self) {
        if let Some(count) = self.counts.get_mut(self.last) {
            *count += std::mem::take(&mut self.in_last);
        }
    }

    /// Adds them.
    pub(crate) fn flush(&mut self) {
        if self.in_last == 0 {
            // There is always one in the last bucket.
            return;
        }
        self.put_down();
        for (count, mine) in self.of.0.counts.iter().zip(&mut self.counts).filter(|(_, mine)| **mine > 0) {
            count.fetch_add(std::mem::take(mine), Relaxed);
        }
        self.of.add(std::mem::take(&mut self.sum) as f64 / 1e9);
    }
}

/// A time in nanoseconds; the longest there are where it is longer, which is 584 years.
#[inline]
pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry, TextEncoder};
    use proptest::prelude::*;

    const ENDS: &[Duration] = &[
        Duration::from_micros(100),
        Duration::from_micros(2500),
        Duration::from_millis(10),
        Duration::from_secs(2),
    ];

    /// What is shown of two with those times, the one counted one by one and the other at once.
    fn ours(times: &[Duration]) -> String {
        let all = Buckets(ENDS)
            .histograms(Opts::new("a", "b").variable_labels(vec!["y".into(), "x".into()]))
            .unwrap();
        let (one, other) = (all.with_label_values(&["1", "2"]), all.with_label_values(&["2", "2"]));
        let mut tallied = other.tally();
        for (at, time) in times.iter().enumerate() {
            one.observe(*time);
            tallied.observe(nanos(*time));
            if at % 7 == 3 {
                tallied.flush();
            }
        }
        tallied.flush();
        tallied.flush();
        shown(Box::new(all))
    }

    /// The same by the histograms of the library.
    fn theirs(times: &[Duration]) -> String {
        let ends = ENDS.iter().map(Duration::as_secs_f64).collect();
        let all = HistogramVec::new(HistogramOpts::new("a", "b").buckets(ends), &["y", "x"]).unwrap();
        let both: [Histogram; 2] = [all.with_label_values(&["1", "2"]), all.with_label_values(&["2", "2"])];
        times.iter().for_each(|time| both.iter().for_each(|one| one.observe(time.as_secs_f64())));
        shown(Box::new(all))
    }

    fn shown(all: Box<dyn prometheus::core::Collector>) -> String {
        let registry = Registry::new();
        registry.register(all).unwrap();
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    proptest! {
        #[test]
        fn they_show_what_those_of_the_library_show(times in proptest::collection::vec(0..2000_u32, 0..40)) {
            // Binary fractions of a second, whose sums are exact, around most ends; and the ends themselves.
            let times: Vec<Duration> = times.into_iter().map(|n| Duration::from_nanos(1_953_125) * n).collect();
            prop_assert_eq!(ours(&times), theirs(&times));
            for end in ENDS {
                prop_assert_eq!(ours(&[*end]), theirs(&[*end]));
            }
        }
    }
}
