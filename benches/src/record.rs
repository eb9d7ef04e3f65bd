//! Latencies as HDR histograms: three digits from a microsecond's fraction to an hour. Pure.

use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};
use std::{fmt, time::Duration};

/// The longest latency that is told from longer ones: an hour.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// Latencies, in nanoseconds. About 300 KiB, however many there are.
#[derive(Clone)]
pub struct Latencies {
    nanos: Histogram<u64>,
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies").field("count", &self.count()).finish()
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// None yet.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants that the library takes, as a test shows"
    )]
    pub fn new() -> Self {
        let most = LONGEST.as_nanos() as u64;
        Self { nanos: Histogram::new_with_bounds(1, most, 3).expect("bounds of the histogram") }
    }

    /// Counts one. Zero counts as a nanosecond, more than [`LONGEST`] as that.
    pub fn record(&mut self, latency: Duration) {
        self.nanos.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// Adds the others.
    pub fn add(&mut self, others: &Self) {
        // Both have the same bounds, so that nothing can lie outside.
        let _ = self.nanos.add(&others.nanos);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.nanos.reset();
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// The latency that so many of a hundred do not pass; `None` where there are none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        (!self.nanos.is_empty()).then(|| Duration::from_nanos(self.nanos.value_at_percentile(percent)))
    }

    /// The longest; `None` where there are none.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (!self.nanos.is_empty()).then(|| Duration::from_nanos(self.nanos.max()))
    }

    /// The mean; `None` where there are none.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (!self.nanos.is_empty()).then(|| Duration::from_nanos(self.nanos.mean() as u64))
    }

    /// As the V2 form of HdrHistogram, deflated: what its other tools read, once it is base64.
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = V2DeflateSerializer::new().serialize(&self.nanos, &mut bytes);
        bytes
    }

    /// From what [`Self::packed`] made; `None` where it is something else.
    #[must_use]
    pub fn unpacked(bytes: &[u8]) -> Option<Self> {
        let nanos: Histogram<u64> = Deserializer::new().deserialize(&mut std::io::Cursor::new(bytes)).ok()?;
        let mut all = Self::new();
        all.nanos.add(nanos).ok()?;
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_three_digits_and_the_longest_is_kept() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.percentile(50.0), latencies.max(), latencies.mean()), (None, None, None));
        for micros in 1..=100_000 {
            latencies.record(Duration::from_micros(micros));
        }
        assert_eq!(latencies.count(), 100_000);
        for (percent, micros) in [(50.0, 50_000.0), (99.0, 99_000.0), (99.99, 99_990.0)] {
            let found = latencies.percentile(percent).unwrap().as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.001, "{percent}: {found}");
        }
        let longest = latencies.max().unwrap().as_secs_f64();
        assert!((longest / 0.1 - 1.0).abs() < 0.001, "{longest}");
    }

    #[test]
    fn what_is_too_short_or_too_long_counts_at_the_end_of_the_scale() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        assert_eq!(latencies.count(), 2);
        assert_eq!(latencies.percentile(0.0), Some(Duration::from_nanos(1)));
        assert!(latencies.max().unwrap() >= LONGEST);
    }

    #[test]
    fn histograms_add_up_and_survive_being_packed() {
        let (mut one, mut other) = (Latencies::new(), Latencies::new());
        for micros in 0..1000 {
            one.record(Duration::from_micros(micros));
            other.record(Duration::from_micros(micros * 100));
        }
        one.add(&other);
        let packed = one.packed();
        let again = Latencies::unpacked(&packed).unwrap();
        assert_eq!(again.nanos, one.nanos);
        assert!(Latencies::unpacked(&packed[1..]).is_none() && Latencies::unpacked(b"").is_none());
        one.clear();
        assert_eq!(one.count(), 0);
    }
}
