//! A report as one page that needs nothing else: no network, no script, pictures drawn here. Pure.
//!
//! Light and dark as the reader has it, readable on a phone, and what is missing is shown as missing. Not here: drawing (`plot.rs`).

mod plot;

use crate::{
    figures,
    report::{Latency, LatencySet, Report, Row},
};
use plot::{Line, Plot};
use std::fmt::Write as _;

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let title = report.name.as_deref().map_or_else(|| format!("bench {}", report.kind), escape);
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n",
        include_str!("page.css")
    );
    let _ = writeln!(
        page,
        "<header>\n<h1>{title}</h1>\n<p class=\"summary\">{}</p>\n<p class=\"quiet\">ropeway bench {} on {}, {}, run {}</p>\n</header>",
        escape(&report.summary()),
        escape(&report.kind),
        escape(&report.broker.url),
        escape(&report.started_at),
        escape(&report.run_id),
    );
    page.push_str(&tiles(report));
    if report.disk.is_some() {
        page.push_str(&disk(report));
    } else {
        page.push_str(&throughput(&report.series));
        page.push_str(&percentiles(report));
        page.push_str(&over_time(report));
        page.push_str(&integrity(report));
    }
    page.push_str(&section(
        "Parameters",
        None,
        &list(report.parameters.iter().map(|(name, value)| (name.as_str(), Some(value.clone())))),
    ));
    page.push_str(&about(report));
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Text in which nothing is markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn section(title: &str, note: Option<&str>, body: &str) -> String {
    let note = note.map(|note| format!("<p class=\"quiet\">{}</p>\n", escape(note))).unwrap_or_default();
    format!("<section>\n<h2>{}</h2>\n{note}{body}\n</section>\n", escape(title))
}

fn missing(why: &str) -> String {
    format!("<p class=\"missing\">not measured: {}</p>", escape(why))
}

/// What is known, as names and values.
fn list<'a>(rows: impl Iterator<Item = (&'a str, Option<String>)>) -> String {
    let mut text = "<dl>\n".to_owned();
    for (name, value) in rows {
        let value = value
            .map_or_else(|| "<span class=\"missing\">not known</span>".to_owned(), |value| escape(&value));
        let _ = writeln!(text, "<div><dt>{}</dt><dd>{value}</dd></div>", escape(name));
    }
    text + "</dl>"
}

fn tiles(report: &Report) -> String {
    let latency = report.latency.e2e.as_ref().or(report.latency.publish.as_ref());
    let what = if report.latency.e2e.is_some() { "p99 end to end" } else { "p99 to publish" };
    let mut tiles: Vec<(String, Option<String>, bool)> = Vec::new();
    if let Some(rows) = &report.disk {
        for row in rows {
            let name =
                format!("{} x {} of bare", figures::bytes(row.size as f64), figures::count(row.at_once));
            tiles.push((name, Some(format!("{:.2}", row.ratio)), false));
        }
    } else {
        let rate = report.rates.as_ref();
        tiles.push(("messages a second".into(), rate.map(|rates| figures::short(rates.throughput)), false));
        tiles.push(("payload a second".into(), rate.map(|rates| figures::bytes(rates.bytes)), false));
        tiles.push((what.into(), latency.map(|latency| figures::time(latency.p99)), false));
        let lost = report.integrity.as_ref().map(|verdict| verdict.lost);
        tiles.push(("lost".into(), lost.map(figures::count), lost.is_some_and(|lost| lost > 0)));
    }
    let mut text = "<div class=\"tiles\">\n".to_owned();
    for (name, value, bad) in tiles {
        let class = match (&value, bad) {
            (None, _) => " missing",
            (_, true) => " bad",
            _ => "",
        };
        let value = value.map_or_else(|| "not measured".to_owned(), |value| escape(&value));
        let _ =
            writeln!(text, "<div class=\"tile{class}\"><b>{value}</b><span>{}</span></div>", escape(&name));
    }
    text + "</div>\n"
}

/// A value of each row, in the middle of its time. What a row does not have is a gap.
fn over(series: &[Row], value: impl Fn(&Row) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
    series.iter().map(|row| (row.start + row.seconds / 2.0, value(row))).collect()
}

fn throughput(series: &[Row]) -> String {
    // A rate over a part of a moment says more about the moment than about the rate.
    let part = |rows: &[Row]| matches!(rows, [.., before, last] if last.seconds < before.seconds / 2.0);
    let series = if part(series) { &series[..series.len() - 1] } else { series };
    let rate = |count: fn(&Row) -> u64| over(series, move |row| Some(count(row) as f64 / row.seconds));
    let some = |count: fn(&Row) -> u64| series.iter().any(|row| count(row) > 0);
    let mut lines = Vec::new();
    if some(|row| row.acked) {
        lines.push(Line { name: "acked", points: rate(|row| row.acked) });
    }
    if some(|row| row.received) {
        lines.push(Line { name: "received", points: rate(|row| row.received) });
    }
    let body = match lines.is_empty() {
        true => missing("nothing was acked or received"),
        false => Plot { lines, x: plot::Axis::Seconds, y: figures::short, log: false }
            .draw("Messages a second over time"),
    };
    section("Throughput", Some("messages a second; the warm-up is in the picture"), &body)
}

fn latencies(report: &Report) -> (&LatencySet, Option<&'static str>) {
    match &report.saturated_latency {
        Some(set) => (
            set,
            Some(
                "The run did not keep its rate: this is how long messages waited to be sent, and not how long the bus takes.",
            ),
        ),
        None => (&report.latency, None),
    }
}

const fn named(set: &LatencySet) -> [(&'static str, &Option<Latency>); 3] {
    [("end to end", &set.e2e), ("publish", &set.publish), ("publish delay", &set.delay)]
}

fn percentiles(report: &Report) -> String {
    let (set, note) = latencies(report);
    let lines: Vec<Line> = named(set)
        .into_iter()
        .filter_map(|(name, latency)| {
            let values = latency.as_ref()?.values();
            let points = plot::PERCENTILES.iter().filter_map(|(at, wanted)| {
                let (_, value) = values.iter().find(|(name, _)| name == wanted)?;
                Some((*at, Some(*value)))
            });
            Some(Line { name, points: points.collect() })
        })
        .collect();
    let mut body = match lines.is_empty() {
        true => missing("nothing was timed"),
        false => Plot { lines, x: plot::Axis::Percentiles, y: figures::time, log: true }
            .draw("Latency by percentile"),
    };
    body.push_str("<div class=\"wide\"><table>\n<tr><th></th>");
    let names = ["count", "mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max"];
    names.iter().for_each(|name| _ = write!(body, "<th>{name}</th>"));
    body.push_str("</tr>\n");
    for (name, latency) in named(set) {
        let _ = write!(body, "<tr><th>{name}</th>");
        match latency {
            None => _ = write!(body, "<td class=\"missing\" colspan=\"{}\">not measured</td>", names.len()),
            Some(latency) => {
                let _ = write!(body, "<td>{}</td>", figures::count(latency.count));
                latency
                    .values()
                    .iter()
                    .for_each(|(_, value)| _ = write!(body, "<td>{}</td>", figures::time(*value)));
            }
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table></div>");
    section(
        "Latency",
        Some(note.unwrap_or("counted from when each message was to be sent; the warm-up is left out")),
        &body,
    )
}

fn over_time(report: &Report) -> String {
    let lines = [
        Line { name: "p50", points: over(&report.series, |row| row.p50) },
        Line { name: "p99", points: over(&report.series, |row| row.p99) },
    ];
    let body = match report.series.iter().all(|row| row.p50.is_none()) {
        true => missing("nothing was timed"),
        false => Plot { lines: lines.into(), x: plot::Axis::Seconds, y: figures::time, log: true }
            .draw("Latency over time"),
    };
    section(
        "Latency over time",
        Some("of what ended in each moment; a gap is a moment in which nothing ended"),
        &body,
    )
}

fn integrity(report: &Report) -> String {
    let Some(verdict) = &report.integrity else {
        return section("Integrity", None, &missing("nobody knows what was sent"));
    };
    let count = |count: u64| Some(figures::count(count));
    let rows = [
        ("sent", count(verdict.sent)),
        ("received", count(verdict.received)),
        ("lost", count(verdict.lost)),
        ("duplicated", count(verdict.duplicated)),
        ("reordered", verdict.reordered.map(figures::count)),
        ("unexpected", count(verdict.unexpected)),
        ("untold", count(verdict.untold)),
        ("not published", count(report.failed)),
    ];
    let note = "every message has a number; reordered is told where messages have keys";
    section("Integrity", Some(note), &list(rows.into_iter()))
}

fn disk(report: &Report) -> String {
    let rows = report.disk.as_deref().unwrap_or_default();
    if rows.is_empty() {
        return section("The disk", None, &missing("no round was finished"));
    }
    let mut body = plot::bars(rows);
    body.push_str(
        "<div class=\"wide\"><table>\n<tr><th>payload</th><th>at once</th><th>broker</th><th>bare</th><th>ratio</th><th>9 of 10 times</th></tr>\n",
    );
    for row in rows {
        let _ = writeln!(
            body,
            "<tr><th>{}</th><td>{}</td><td>{}/s</td><td>{}/s</td><td>{:.2}</td><td>{:.2} to {:.2}</td></tr>",
            figures::bytes(row.size as f64),
            figures::count(row.at_once),
            figures::short(row.broker),
            figures::short(row.bare),
            row.ratio,
            row.low,
            row.high
        );
    }
    body.push_str("</table></div>");
    let note =
        "durable publishes, beside the same bytes written and synced without a broker; the two took turns";
    section("The disk", Some(note), &body)
}

fn about(report: &Report) -> String {
    let host = &report.host;
    let rows = [
        ("processor", host.cpu.clone()),
        ("cores", host.cores.map(|cores| cores.to_string())),
        ("memory", host.memory.map(|bytes| figures::bytes(bytes as f64))),
        ("kernel", host.kernel.clone()),
        ("file system", host.file_system.clone()),
        ("broker", Some(format!("{} {}", report.broker.kind, report.broker.version))),
        ("an ack survives", report.broker.durability.as_ref().map(|durability| durability.replace('_', " "))),
        ("ropeway", Some(report.version.clone())),
    ];
    section("Host", None, &list(rows.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{DiskRow, tests::report};

    /// Every element that is opened is closed, in order.
    fn well_formed(page: &str) {
        let mut open = Vec::new();
        for tag in page.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').unwrap();
            let name = tag.trim_end_matches('/').split_whitespace().next().unwrap();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
                None if tag.ends_with('/') || ["!DOCTYPE", "meta"].contains(&name) => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn the_page_is_well_formed_and_needs_nothing_else() {
        let mut disk = report();
        disk.disk = Some(vec![DiskRow {
            size: 64,
            at_once: 1,
            broker: 9e3,
            bare: 1e4,
            ratio: 0.9,
            low: 0.88,
            high: 0.93,
        }]);
        for page in [page(&report()), page(&disk)] {
            well_formed(&page);
            for part in ["://", "<script", "<link", "@import", "url(", "NaN", "inf"] {
                assert!(!page.contains(part), "{part}");
            }
        }
    }

    #[test]
    fn what_a_user_wrote_is_no_markup() {
        assert!(page(&report()).contains("<h1>a &lt;name&gt; &amp; more</h1>"));
        assert!(!page(&report()).contains("<name>"));
    }

    #[test]
    fn what_is_missing_is_shown_as_missing() {
        let mut bare = report();
        bare.latency = LatencySet::default();
        (bare.rates, bare.integrity) = (None, None);
        bare.series.clear();
        let page = page(&bare);
        well_formed(&page);
        assert!(page.matches("not measured").count() >= 8, "{page}");
        assert!(page.contains("not known"));
        assert!(!page.contains("<svg"));
    }

    #[test]
    fn a_saturated_run_says_so() {
        let mut saturated = report();
        saturated.rates.as_mut().unwrap().saturated = true;
        saturated.rates.as_mut().unwrap().intended = Some(5000.0);
        saturated.saturated_latency = Some(std::mem::take(&mut saturated.latency));
        let page = page(&saturated);
        assert!(
            page.contains("saturated: 5 k msg/s were asked for") && page.contains("did not keep its rate")
        );
    }
}
