//! What is told at the end of a run: figures, files, and what does not hold.
//!
//! Not here: the report itself and its page (`ropeway-bench`).

use super::args::Telling;
use crate::{exit::Exit, failure::Failure, session::Session, settings::Format};
use ropeway_bench::{
    figures, host, html,
    report::{Broker, Latency, LatencySet, Report, SCHEMA_VERSION},
};
use std::{collections::BTreeMap, fs, path::Path};

/// Whether the files can be written is known before a run begins, and not after hours.
///
/// # Errors
/// Which file cannot be written, and why.
pub(super) fn prepare(telling: &Telling) -> Result<(), Failure> {
    for path in [&telling.out, &telling.html].into_iter().flatten() {
        fs::File::options().create(true).append(true).open(path).map_err(|error| unwritten(path, &error))?;
    }
    Ok(())
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("could not write {}", path.display())).caused_by(error)
}

/// A report with nothing measured yet.
pub(super) fn report(
    kind: &str,
    id: &str,
    started_at: String,
    durability: Option<String>,
    session: &Session,
) -> Report {
    let url = &session.settings.broker.url;
    let directory = url.reveal().strip_prefix("embedded:").map(|rest| rest.split('?').next().unwrap_or(rest));
    Report {
        schema_version: SCHEMA_VERSION,
        run_id: id.to_owned(),
        name: None,
        kind: kind.to_owned(),
        started_at,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host::host(directory.map(Path::new)),
        broker: Broker {
            kind: kind.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: url.to_string(),
            durability,
        },
        parameters: BTreeMap::new(),
        phases: Vec::new(),
        interrupted: session.stop.is_asked(),
        rates: None,
        series: Vec::new(),
        latency: LatencySet::default(),
        saturated_latency: None,
        integrity: None,
        failed: 0,
        disk: None,
    }
}

/// Writes the files, prints the figures, and judges them.
///
/// # Errors
/// What cannot be written; acked messages that did not come and assertions that do not hold (3).
pub(super) fn tell(mut report: Report, telling: &Telling, session: &mut Session) -> Result<(), Failure> {
    report.name.clone_from(&telling.name);
    if let Some(path) = &telling.out {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::new("could not make JSON").caused_by(&error))?;
        fs::write(path, json + "\n").map_err(|error| unwritten(path, &error))?;
    }
    if let Some(path) = &telling.html {
        fs::write(path, html::page(&report)).map_err(|error| unwritten(path, &error))?;
    }
    let format = session.format();
    match format {
        Format::Raw => session.out.line(&report.summary())?,
        Format::Json | Format::Ndjson => session.out.object(format, &report, &[])?,
        Format::Table => session.out.object(format, &report, &lines(&report))?,
    }
    if format != Format::Table && format != Format::Raw {
        session.notes.say(&report.summary());
    }
    let lost = report.integrity.as_ref().map_or(0, |verdict| verdict.lost);
    let mut objections: Vec<String> =
        telling.assertions.iter().filter_map(|assertion| assertion.objection(&report)).collect();
    if objections.is_empty() && lost > 0 && !report.interrupted {
        objections.push(format!("{} messages were acked and did not come", figures::count(lost)));
    }
    match objections.len() {
        0 => Ok(()),
        1 => Err(Failure::new(format!("it does not hold: {}", objections[0])).exits(Exit::Assertion)),
        count => {
            objections.iter().for_each(|objection| session.notes.warn(objection));
            Err(Failure::new(format!("{count} of what must hold do not")).exits(Exit::Assertion))
        }
    }
}

fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(rates) = &report.rates {
        let asked = rates.intended.map(|rate| format!(" of {}/s", figures::short(rate))).unwrap_or_default();
        lines.push(("throughput", format!("{}/s{asked}", figures::short(rates.throughput))));
        lines.push(("payload", format!("{}/s", figures::bytes(rates.bytes))));
    }
    let (set, saturated) = match &report.saturated_latency {
        Some(set) => (set, " (saturated: how long they waited to be sent)"),
        None => (&report.latency, ""),
    };
    for (name, latency) in
        [("publish", &set.publish), ("publish delay", &set.delay), ("end to end", &set.e2e)]
    {
        lines.extend(latency.as_ref().map(|latency| (name, percentiles(latency) + saturated)));
    }
    for row in report.disk.iter().flatten() {
        let name = match (row.size, row.at_once) {
            (64, 1) => "64 B x 1",
            (64, 64) => "64 B x 64",
            (64, _) => "64 B x 1,024",
            (_, 1) => "1 KiB x 1",
            (_, 64) => "1 KiB x 64",
            _ => "1 KiB x 1,024",
        };
        let (broker, bare) = (figures::short(row.broker), figures::short(row.bare));
        let ratio = format!("ratio {:.2} ({:.2} to {:.2})", row.ratio, row.low, row.high);
        lines.push((name, format!("{broker}/s, bare {bare}/s, {ratio}")));
    }
    if let Some(verdict) = &report.integrity {
        let (sent, received) = (figures::count(verdict.sent), figures::count(verdict.received));
        lines.push((
            "messages",
            format!("{sent} sent, {received} received, {} lost", figures::count(verdict.lost)),
        ));
        let reordered = verdict.reordered.map_or_else(
            || "reordered not known".to_owned(),
            |count| format!("{} reordered", figures::count(count)),
        );
        let (duplicated, unexpected) =
            (figures::count(verdict.duplicated), figures::count(verdict.unexpected));
        lines.push(("", format!("{duplicated} duplicated, {reordered}, {unexpected} unexpected")));
    }
    lines.push(("summary", report.summary()));
    lines
}

fn percentiles(latency: &Latency) -> String {
    let shown =
        latency.values().into_iter().filter(|(name, _)| ["p50", "p90", "p99", "p99.9", "max"].contains(name));
    shown.map(|(name, value)| format!("{name} {}", figures::time(value))).collect::<Vec<_>>().join("  ")
}
