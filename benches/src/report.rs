//! The report of a run, as JSON: what was measured, with what, on what. Pure.
//!
//! Times are seconds, sizes bytes, rates messages or bytes a second. What is not known is null and never invented; the latency of a run
//! that did not keep its rate stands apart, as it tells how long the queue was and not how long the bus took. Not here: how it looks
//! (`html/mod.rs`), figures by name (`metric.rs`).

use crate::{figures, integrity::Verdict, record::Latencies};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the form; one that is newer is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// A run must reach that much of its intended rate, or it is saturated.
const ENOUGH: f64 = 0.99;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which run it was; also in the name of its topic.
    pub run_id: String,
    /// What the user calls it.
    pub name: Option<String>,
    /// What was measured: `pub`, `sub`, `e2e`, `handler` or `embedded`.
    pub kind: String,
    /// When it began, in UTC.
    pub started_at: String,
    /// The version of the program.
    pub version: String,
    /// On what machine.
    pub host: Host,
    /// Which broker.
    pub broker: Broker,
    /// What was asked for, by flag.
    pub parameters: BTreeMap<String, String>,
    /// Warm-up and run.
    pub phases: Vec<Phase>,
    /// Whether it was stopped early: what is here is what was measured until then.
    pub interrupted: bool,
    /// Rates of the run; `None` where it did not begin.
    pub rates: Option<Rates>,
    /// What happened when.
    pub series: Vec<Row>,
    /// How long it took; all `None` where the run was saturated.
    pub latency: LatencySet,
    /// The same of a saturated run.
    pub saturated_latency: Option<LatencySet>,
    /// What became of the messages, warm-up included; `None` where nobody could tell.
    pub integrity: Option<Verdict>,
    /// Messages that were not acked.
    pub failed: u64,
    /// What the disk gave; `None` but for `embedded`.
    pub disk: Option<Vec<DiskRow>>,
}

/// A machine. What it does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The model of its processor.
    pub cpu: Option<String>,
    /// How many processors there are for this process.
    pub cores: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Name and version of the kernel.
    pub kernel: Option<String>,
    /// The kind of file system that data went to.
    pub file_system: Option<String>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// The kind of backend.
    pub kind: String,
    /// The version of the backend.
    pub version: String,
    /// Its URL without secrets, which has its settings.
    pub url: String,
    /// What an acked message survives.
    pub durability: Option<String>,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// `warm-up` or `run`.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// Messages that were acked to publishers.
    pub acked: u64,
    /// Messages that came.
    pub received: u64,
}

/// Rates of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Messages a second that were acked (`pub`) or came (all others).
    pub throughput: f64,
    /// Bytes of payload a second, of the same.
    pub bytes: f64,
    /// Messages a second that were asked for; `None`: as fast as it goes.
    pub intended: Option<f64>,
    /// Whether less than 99 % of what was asked for was reached.
    pub saturated: bool,
}

impl Rates {
    /// Of `messages` with `bytes` that were done within `took` seconds where `planned` seconds were planned. What was under way at the
    /// end is given `grace` seconds, as a latency is no lack of speed.
    #[must_use]
    pub fn of(
        messages: u64,
        bytes: u64,
        took: f64,
        intended: Option<(f64, f64)>,
        grace: f64,
    ) -> Option<Self> {
        if took <= 0.0 || messages == 0 {
            return None;
        }
        let saturated = intended
            .is_some_and(|(rate, planned)| messages as f64 / planned.max(took - grace) < rate * ENOUGH);
        Some(Self {
            throughput: messages as f64 / took,
            bytes: bytes as f64 / took,
            intended: intended.map(|(rate, _)| rate),
            saturated,
        })
    }
}

/// What happened in a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// When it began, since the start.
    pub start: f64,
    /// How long it was.
    pub seconds: f64,
    /// Messages that were acked to publishers.
    pub acked: u64,
    /// Messages that came.
    pub received: u64,
    /// Bytes of payload that came, or were acked where nothing was to come.
    pub bytes: u64,
    /// Messages that were not acked.
    pub failed: u64,
    /// Half of what ended in this time took no longer; end to end where that was measured, else to publish.
    pub p50: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySet {
    /// From when a message was to be sent until it was acked to its publisher.
    pub publish: Option<Latency>,
    /// From when a message was to be sent until it was handed over.
    pub delay: Option<Latency>,
    /// From when a message was to be sent until it came or was handled.
    pub e2e: Option<Latency>,
}

/// Percentiles, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// 50 of 100 took no longer, and so on.
    pub p50: f64,
    #[expect(missing_docs, reason = "as p50")]
    pub p75: f64,
    #[expect(missing_docs, reason = "as p50")]
    pub p90: f64,
    #[expect(missing_docs, reason = "as p50")]
    pub p95: f64,
    #[expect(missing_docs, reason = "as p50")]
    pub p99: f64,
    #[serde(rename = "p99.9")]
    #[expect(missing_docs, reason = "as p50")]
    pub p99_9: f64,
    #[serde(rename = "p99.99")]
    #[expect(missing_docs, reason = "as p50")]
    pub p99_99: f64,
    /// The longest.
    pub max: f64,
    /// All of them in nanoseconds: an HDR histogram, V2, deflated, base64.
    pub histogram: String,
}

impl Latency {
    /// `None` where there are none.
    #[must_use]
    pub fn of(latencies: &Latencies) -> Option<Self> {
        let at = |percent| latencies.percentile(percent).map(figures::seconds);
        Some(Self {
            count: latencies.count(),
            mean: latencies.mean().map(figures::seconds)?,
            p50: at(50.0)?,
            p75: at(75.0)?,
            p90: at(90.0)?,
            p95: at(95.0)?,
            p99: at(99.0)?,
            p99_9: at(99.9)?,
            p99_99: at(99.99)?,
            max: latencies.max().map(figures::seconds)?,
            histogram: STANDARD.encode(latencies.packed()),
        })
    }

    /// Its values by name, in order.
    #[must_use]
    pub fn values(&self) -> [(&'static str, f64); 9] {
        [
            ("mean", self.mean),
            ("p50", self.p50),
            ("p75", self.p75),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
            ("max", self.max),
        ]
    }
}

/// What the broker and the bare disk gave, in turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskRow {
    /// Bytes of payload.
    pub size: u64,
    /// How many publishes were under way at a time, and how many payloads went into one bare sync.
    pub at_once: u64,
    /// Acked messages a second: the median of all rounds.
    pub broker: f64,
    /// Payloads a second that were written and synced without a broker: the median of all rounds.
    pub bare: f64,
    /// The median of their ratios.
    pub ratio: f64,
    /// Nine of ten times not less than this ...
    pub low: f64,
    /// ... nor more than this.
    pub high: f64,
}

impl Report {
    /// From JSON.
    ///
    /// # Errors
    /// Why it is no report, or not one that this version can read.
    pub fn parse(json: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let version: Version =
            serde_json::from_str(json).map_err(|error| format!("it is no report of a bench run: {error}"))?;
        if version.schema_version != SCHEMA_VERSION {
            let found = version.schema_version;
            return Err(format!("it has schema version {found}, and this program reads {SCHEMA_VERSION}"));
        }
        serde_json::from_str(json).map_err(|error| format!("it is no whole report: {error}"))
    }

    /// Takes the latencies in; apart from others where the run was saturated.
    pub fn put_latency(&mut self, latency: LatencySet) {
        if self.rates.as_ref().is_some_and(|rates| rates.saturated) {
            self.saturated_latency = Some(latency);
        } else {
            self.latency = latency;
        }
    }

    /// The run in a sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        match &self.rates {
            Some(rates) => parts.push(format!("{} msg/s", figures::short(rates.throughput))),
            None if self.disk.is_none() => parts.push("nothing was measured".to_owned()),
            None => {}
        }
        for size in crate::DISK_SIZES {
            let rows = self.disk.iter().flatten().filter(|row| row.size == size);
            let (ratios, at_once): (Vec<String>, Vec<String>) =
                rows.map(|row| (format!("{:.2}", row.ratio), figures::count(row.at_once))).unzip();
            if !ratios.is_empty() {
                let (size, ratios) = (figures::bytes(size as f64), ratios.join(" / "));
                parts.push(format!("{size}: {ratios} of the bare disk with {} at once", at_once.join(" / ")));
            }
        }
        match &self.rates {
            Some(Rates { saturated: true, intended: Some(intended), .. }) => {
                parts.push(format!("saturated: {} msg/s were asked for", figures::short(*intended)));
            }
            _ => {
                let latency = self.latency.e2e.as_ref().or(self.latency.publish.as_ref());
                parts.extend(latency.map(|latency| format!("p99 {}", figures::time(latency.p99))));
            }
        }
        if let Some(verdict) = &self.integrity {
            parts.push(format!("{} lost", figures::count(verdict.lost)));
            for (count, what) in [
                (verdict.duplicated, "duplicated"),
                (verdict.reordered.unwrap_or(0), "reordered"),
                (verdict.unexpected, "unexpected"),
                (verdict.untold, "untold"),
            ] {
                if count > 0 {
                    parts.push(format!("{} {what}", figures::count(count)));
                }
            }
        }
        if self.failed > 0 {
            parts.push(format!("{} not published", figures::count(self.failed)));
        }
        if self.interrupted {
            parts.push("stopped early".to_owned());
        }
        parts.join(", ")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    /// A report with something of everything.
    pub(crate) fn report() -> Report {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let set = LatencySet { e2e: Latency::of(&latencies), publish: Latency::of(&latencies), delay: None };
        let row = |second: u32| Row {
            start: f64::from(second),
            seconds: 1.0,
            acked: 1000,
            received: 990 + u64::from(second),
            bytes: 1_024_000,
            failed: 0,
            p50: (second != 1).then_some(0.0005),
            p99: Some(0.001),
        };
        Report {
            schema_version: SCHEMA_VERSION,
            run_id: "0badcafe".into(),
            name: Some("a <name> & more".into()),
            kind: "e2e".into(),
            started_at: "2026-11-01T00:00:00Z".into(),
            version: "0.1.0".into(),
            host: Host { cpu: Some("A processor".into()), cores: Some(2), ..Host::default() },
            broker: Broker {
                kind: "memory".into(),
                version: "0.1.0".into(),
                url: "memory:".into(),
                durability: Some("volatile".into()),
            },
            parameters: BTreeMap::from([("size".into(), "1024B".into())]),
            phases: vec![Phase { name: "run".into(), seconds: 3.0, acked: 3000, received: 3000 }],
            interrupted: false,
            rates: Rates::of(3000, 3_072_000, 3.0, None, 0.1),
            series: (0..3).map(row).collect(),
            latency: set,
            saturated_latency: None,
            integrity: Some(Verdict { sent: 3000, received: 3000, ..Verdict::default() }),
            failed: 0,
            disk: None,
        }
    }

    #[test]
    fn a_report_survives_being_written_and_read() {
        let report = report();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(Report::parse(&json), Ok(report.clone()));
        let packed = STANDARD.decode(&report.latency.e2e.unwrap().histogram).unwrap();
        assert_eq!(Latencies::unpacked(&packed).unwrap().count(), 1000);
        let newer = json.replace("\"schema_version\":1", "\"schema_version\":2");
        assert!(Report::parse(&newer).unwrap_err().contains("schema version 2"));
        assert!(Report::parse("{}").unwrap_err().contains("no report"));
        assert!(Report::parse("{\"schema_version\":1}").unwrap_err().contains("no whole report"));
    }

    #[test]
    fn a_run_that_misses_its_rate_is_saturated_and_its_latency_stands_apart() {
        let on_time = Rates::of(1000, 0, 1.004, Some((1000.0, 1.0)), 0.01).unwrap();
        assert!(!on_time.saturated);
        let late = Rates::of(1000, 0, 1.1, Some((1000.0, 1.0)), 0.01).unwrap();
        assert!(late.saturated);
        // Less than was planned was sent at all.
        assert!(Rates::of(980, 0, 1.0, Some((1000.0, 1.0)), 0.1).unwrap().saturated);
        assert_eq!(Rates::of(0, 0, 1.0, None, 0.0), None);
        let mut report = report();
        report.rates = Some(late);
        report.put_latency(std::mem::take(&mut report.latency.clone()));
        report.latency = LatencySet::default();
        assert!(report.saturated_latency.is_some());
        let said = report.summary();
        assert!(said.contains("saturated") && !said.contains("p99"), "{said}");
    }

    #[test]
    fn the_summary_is_a_plain_sentence() {
        let mut report = report();
        assert_eq!(report.summary(), "1 k msg/s, p99 990 us, 0 lost");
        report.integrity.as_mut().unwrap().duplicated = 2;
        (report.failed, report.interrupted) = (3, true);
        assert_eq!(
            report.summary(),
            "1 k msg/s, p99 990 us, 0 lost, 2 duplicated, 3 not published, stopped early"
        );
    }
}
