//! The report at the end: what is in it, as a document and as lines for people.
//!
//! Pure. Not here: what it is made of (`audit.rs`, `handling.rs`).

use super::{
    audit::{Audit, DeadLetters, Reason},
    books::Books,
    handling::Run,
    members::Replaced,
    source,
};
use serde::Serialize;

/// Everything the demo tells.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Nothing was lost, order was kept, and the result is the right one (so far, where it was interrupted).
    pub(crate) ok: bool,
    /// It was stopped before everything was handled; another run goes on.
    pub(crate) interrupted: bool,
    pub(crate) data: &'static str,
    pub(crate) broker: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) dead_letter_topic: String,
    pub(crate) this_run: ThisRun,
    pub(crate) since_reset: SinceReset,
    pub(crate) dead_letter_reasons: Vec<Reason>,
    /// The airports with the most strikes.
    pub(crate) airports: Vec<AirportRow>,
    /// What is wrong; empty: nothing.
    pub(crate) wrong: Vec<String>,
    pub(crate) next: Vec<String>,
}

/// What happened in this run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ThisRun {
    pub(crate) members: usize,
    pub(crate) published: u64,
    pub(crate) processed: u64,
    /// First attempts that failed because the demo wanted it.
    pub(crate) failed_on_purpose: u64,
    /// Reports that took more than one attempt.
    pub(crate) retried: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) duplicates: u64,
    pub(crate) replaced: Option<Replaced>,
    /// Published as fast as the bus took it: the latencies hold the wait for those before.
    pub(crate) flat_out: bool,
    pub(crate) seconds: f64,
    /// Handled or dead-lettered.
    pub(crate) per_second: f64,
    /// From the publisher to the end of the handler, where one run did both.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// All runs since the demo was reset.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SinceReset {
    pub(crate) rounds: usize,
    pub(crate) published: u64,
    pub(crate) processed: u64,
    pub(crate) retried: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) duplicates: u64,
    /// Dead letters of a report that has one already.
    pub(crate) repeated_dead_letters: u64,
    pub(crate) order_violations: u64,
    /// Published, and neither handled nor dead-lettered.
    pub(crate) lost: u64,
    /// The same, where the run was interrupted and another will go on; and what was not published yet.
    pub(crate) left: u64,
    /// How many airports the result has.
    pub(crate) airports: usize,
    /// Whether totals and dead letters are those of a plain loop over the file; absent where it was interrupted.
    pub(crate) equals_plain_loop: Option<bool>,
}

/// Totals of an airport.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AirportRow {
    pub(crate) airport: String,
    pub(crate) strikes: u64,
    pub(crate) damaging: u64,
    pub(crate) cost_dollars: u64,
    pub(crate) longest_run_without_damage: u64,
    pub(crate) longest_quiet_days: i32,
}

impl ThisRun {
    /// From what was counted; the time runs from the first publish to the last completion.
    pub(crate) fn new(
        members: usize,
        published: u64,
        failed_on_purpose: u64,
        run: &Run,
        seconds: f64,
    ) -> Self {
        let milliseconds = |quantile| {
            (!run.latency.is_empty()).then(|| run.latency.value_at_quantile(quantile) as f64 / 1000.0)
        };
        let handled = (run.processed + run.rejected) as f64;
        Self {
            members,
            published,
            processed: run.processed,
            failed_on_purpose,
            retried: run.retried,
            dead_lettered: run.rejected,
            duplicates: run.duplicates,
            replaced: None,
            flat_out: false,
            seconds,
            per_second: if seconds > 0.0 { (handled / seconds).round() } else { 0.0 },
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
        }
    }
}

impl SinceReset {
    /// From the books and what the audit found.
    pub(crate) fn new(
        books: &Books,
        published: u64,
        dead: &DeadLetters,
        audit: &Audit,
        interrupted: bool,
    ) -> Self {
        let left = audit.unfinished + audit.unpublished;
        Self {
            rounds: books.rounds.len(),
            published,
            processed: books.totals.strikes(),
            retried: books.retried,
            dead_lettered: dead.numbers.len() as u64,
            duplicates: audit.order.duplicates,
            repeated_dead_letters: dead.repeats,
            order_violations: audit.order.violations,
            lost: if interrupted { 0 } else { audit.unfinished },
            left: if interrupted { left } else { 0 },
            airports: books.totals.airports.len(),
            equals_plain_loop: audit.equal,
        }
    }
}

/// The airports with the most strikes, that many.
pub(crate) fn busiest(books: &Books, count: usize) -> Vec<AirportRow> {
    let mut rows: Vec<AirportRow> = books
        .totals
        .airports
        .iter()
        .map(|(name, airport)| AirportRow {
            airport: name.clone(),
            strikes: airport.strikes,
            damaging: airport.damaging,
            cost_dollars: airport.cost,
            longest_run_without_damage: airport.longest_unharmed,
            longest_quiet_days: airport.longest_quiet_days,
        })
        .collect();
    rows.sort_by(|a, b| b.strikes.cmp(&a.strikes).then_with(|| a.airport.cmp(&b.airport)));
    rows.truncate(count);
    rows
}

impl Report {
    /// As lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}, on {}", source::TITLE, self.broker), String::new()];
        lines.extend(self.table());
        lines.push(String::new());
        lines.extend(self.findings());
        if !self.dead_letter_reasons.is_empty() {
            lines.push(String::new());
            lines.push(format!("Dead letters in {}, for example:", self.dead_letter_topic));
            let reason = |reason: &Reason| format!("{:>7}  {}", grouped(reason.count), reason.example);
            lines.extend(self.dead_letter_reasons.iter().map(reason));
        }
        if !self.airports.is_empty() {
            lines.push(String::new());
            lines.push(format!("The busiest of {} airports:", self.since_reset.airports));
            lines.extend(self.airports());
        }
        lines.push(String::new());
        lines.push("Try next:".to_owned());
        lines.extend(self.next.iter().map(|command| format!("  {command}")));
        lines
    }

    fn table(&self) -> Vec<String> {
        let (run, all) = (&self.this_run, &self.since_reset);
        let row = |name: &str, run: String, all: String| format!("{name:<18}{run:>12}{all:>14}");
        let count = |name: &str, run: u64, all: u64| row(name, grouped(run), grouped(all));
        let milliseconds =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
        vec![
            row("", "this run".into(), "since reset".into()),
            count("published", run.published, all.published),
            count("processed", run.processed, all.processed),
            count("retried", run.retried, all.retried),
            count("dead-lettered", run.dead_lettered, all.dead_lettered),
            count("duplicates", run.duplicates, all.duplicates),
            row("order violations", String::new(), grouped(all.order_violations)),
            row("lost", String::new(), grouped(all.lost)),
            row("throughput", format!("{}/s", grouped(run.per_second as u64)), String::new()),
            row("p50 to handled", milliseconds(run.p50_ms), String::new()),
            row("p99 to handled", milliseconds(run.p99_ms), String::new()),
        ]
    }

    fn findings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let all = &self.since_reset;
        lines.push(format!("{} first attempts failed on purpose", grouped(self.this_run.failed_on_purpose)));
        if let Some(Replaced { member, in_flight, by }) = &self.this_run.replaced {
            lines.push(format!(
                "{member} was aborted with {} messages in flight; {by} took over",
                grouped(*in_flight)
            ));
        } else if !self.interrupted {
            lines.push("no member was aborted: the work was over before one could be".to_owned());
        }
        if self.this_run.flat_out && self.this_run.p50_ms.is_some() {
            lines.push("published as fast as the bus took it, so p50 and p99 are mostly waiting: --rate 1000 shows them without".to_owned());
        }
        if self.this_run.duplicates > 0 {
            lines.push(format!(
                "{} reports were handled twice, as their acks were under way when a member or run ended; each counts once",
                grouped(self.this_run.duplicates)
            ));
        }
        if all.repeated_dead_letters > 0 {
            lines.push(format!(
                "{} dead letters are there twice: on this broker a dead letter and the ack of its report are two steps",
                grouped(all.repeated_dead_letters)
            ));
        }
        if self.interrupted {
            lines.push(format!("interrupted: {} reports are left; run it again to go on", grouped(all.left)));
        }
        if all.equals_plain_loop == Some(true) {
            lines.push(format!(
                "the result of {} strikes at {} airports equals the one computed without the bus",
                grouped(all.processed),
                all.airports
            ));
        }
        lines.extend(self.wrong.iter().map(|wrong| format!("WRONG: {wrong}")));
        lines
    }

    fn airports(&self) -> Vec<String> {
        let head = format!(
            "{:<32}{:>9}{:>10}{:>14}{:>20}{:>12}",
            "airport", "strikes", "damaging", "cost in $", "longest run unhurt", "quiet days"
        );
        let row = |row: &AirportRow| {
            format!(
                "{:<32}{:>9}{:>10}{:>14}{:>20}{:>12}",
                row.airport,
                grouped(row.strikes),
                grouped(row.damaging),
                grouped(row.cost_dollars),
                grouped(row.longest_run_without_damage),
                row.longest_quiet_days
            )
        };
        std::iter::once(head).chain(self.airports.iter().map(row)).collect()
    }
}

/// A number with a comma between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let shown = [0, 7, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
    }
}
