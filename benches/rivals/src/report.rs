//! What is printed and written: one row for each cell, what the machine was like, and all figures as JSON.
//!
//! Not here: medians and intervals (`statistics.rs`).

use crate::{
    Result,
    cell::{Cell, Figure},
    machine::{self, Canary},
    rounds::{Plan, Rounds, Turn},
    statistics::{median, spread},
};
use ropeway_bench::ratio::Ratio;
use serde::Serialize;
use std::path::Path;

/// A machine with more load than that has others at work.
const QUIET: f64 = 0.5;

/// Everything a run came to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Nothing is judged.
    quick: bool,
    processor: String,
    processors: usize,
    load_at_start: f64,
    load_at_end: f64,
    /// What makes the figures worth less.
    warnings: Vec<String>,
    /// Median and spread of a fixed piece of computing, in milliseconds and parts of one.
    canary_spin: Spread,
    /// The same of 100 writes of 4 KiB, each synced.
    canary_syncs: Spread,
    rows: Vec<Row>,
    bounds: Vec<Bounds>,
    /// Cells that could not run, and why.
    ignored: Vec<String>,
    #[serde(skip)]
    spins: Vec<f64>,
    #[serde(skip)]
    syncs: Vec<f64>,
}

#[derive(Debug, Default, Serialize)]
struct Spread {
    median_ms: f64,
    spread: f64,
}

/// One cell.
#[derive(Debug, Serialize)]
struct Row {
    cell: &'static str,
    what: &'static str,
    ours: Arm,
    rival: Arm,
    ratio: f64,
    ratio_low: f64,
    ratio_high: f64,
    /// `None`: the ratio is only told.
    target: Option<f64>,
    met: bool,
}

/// One cell without a rival.
#[derive(Debug, Serialize)]
struct Bounds {
    cell: &'static str,
    what: &'static str,
    figures: Vec<Figure>,
}

/// One of two.
#[derive(Debug, Serialize)]
struct Arm {
    /// Messages a second, the median.
    rate: f64,
    /// Of each round.
    rates: Vec<f64>,
    /// Microseconds of processor time a message, the median.
    cpu_us: f64,
    /// Medians of what else there is.
    facts: Vec<(&'static str, f64)>,
}

impl Arm {
    fn of(turns: &[Turn]) -> Self {
        let rates: Vec<f64> = turns.iter().map(Turn::rate).collect();
        let cpu: Vec<f64> = turns.iter().map(Turn::cpu_micros).collect();
        let names = turns.first().map_or(&[][..], |turn| &turn.facts);
        let fact = |at: usize| -> Vec<f64> { turns.iter().map(|turn| turn.facts[at].1).collect() };
        let facts = names.iter().enumerate().map(|(at, (name, _))| (*name, median(&fact(at)))).collect();
        Self { rate: median(&rates), rates, cpu_us: median(&cpu), facts }
    }
}

impl Report {
    pub(crate) fn begin(place: &Path, plan: &Plan) -> Result<Self> {
        let mut report = Self {
            quick: plan.quick,
            processor: machine::processor(),
            processors: std::thread::available_parallelism()?.get(),
            load_at_start: machine::load(),
            load_at_end: 0.0,
            warnings: Vec::new(),
            canary_spin: Spread::default(),
            canary_syncs: Spread::default(),
            rows: Vec::new(),
            bounds: Vec::new(),
            ignored: Vec::new(),
            spins: Vec::new(),
            syncs: Vec::new(),
        };
        if report.load_at_start > QUIET {
            report.warnings.push(format!(
                "the load is {:.2} at the start: others are at work, and the figures are worth little",
                report.load_at_start
            ));
        }
        if machine::is_in_memory(place) {
            report.warnings.push("the directory is in memory: syncs cost nothing; see --dir".to_owned());
        }
        if cfg!(debug_assertions) {
            report.warnings.push("this is not a release build".to_owned());
        }
        report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        Ok(report)
    }

    /// A cell did not run.
    pub(crate) fn ignore(&mut self, cell: &'static Cell, reason: &str) {
        let ignored = format!("{} is ignored: {reason}", cell.name);
        eprintln!("{ignored}");
        self.ignored.push(ignored);
    }

    pub(crate) fn add_bounds(&mut self, cell: &'static Cell, figures: Vec<Figure>, canary: Canary) {
        self.heard(&[canary]);
        self.bounds.push(Bounds { cell: cell.name, what: cell.what, figures });
    }

    pub(crate) fn add_ratio(&mut self, cell: &'static Cell, target: Option<f64>, rounds: &Rounds) {
        let (ours, rival) = (Arm::of(&rounds.ours), Arm::of(&rounds.rival));
        let pairs: Vec<(f64, f64)> = ours.rates.iter().copied().zip(rival.rates.iter().copied()).collect();
        let nothing = Ratio { ours: 0.0, theirs: 0.0, ratio: 0.0, low: 0.0, high: 0.0 };
        let found = Ratio::of(&pairs).unwrap_or(nothing);
        self.heard(&rounds.canaries);
        self.rows.push(Row {
            cell: cell.name,
            what: cell.what,
            ours,
            rival,
            ratio: found.ratio,
            ratio_low: found.low,
            ratio_high: found.high,
            target,
            met: target.is_none_or(|target| found.ratio >= target),
        });
    }

    fn heard(&mut self, canaries: &[Canary]) {
        self.spins.extend(canaries.iter().map(|canary| canary.spin.as_secs_f64() * 1e3));
        self.syncs.extend(canaries.iter().map(|canary| canary.syncs.as_secs_f64() * 1e3));
    }

    pub(crate) fn end(&mut self) {
        self.load_at_end = machine::load();
        let of = |figures: &[f64]| Spread { median_ms: median(figures), spread: spread(figures) };
        (self.canary_spin, self.canary_syncs) = (of(&self.spins), of(&self.syncs));
    }

    /// Whether all targets were met; a smoke test has none.
    pub(crate) fn met(&self) -> bool {
        let mut figures = self.bounds.iter().flat_map(|bounds| &bounds.figures);
        self.quick || (self.rows.iter().all(|row| row.met) && figures.all(Figure::met))
    }

    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The table, and below it what the machine was like.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![["cell", "ours", "rival", "ratio", "90 %", "target", "met"].map(str::to_owned)];
        let mut more =
            vec![["cell", "CPU us/message", "rival", "ours also", "rival also"].map(str::to_owned)];
        for row in &self.rows {
            let judged = if self.quick || row.target.is_none() {
                "not judged"
            } else if row.met {
                "yes"
            } else {
                "NO"
            };
            rows.push([
                row.cell.to_owned(),
                format!("{}/s", thousands(row.ours.rate)),
                format!("{}/s", thousands(row.rival.rate)),
                format!("{:.2}", row.ratio),
                format!("[{:.2}, {:.2}]", row.ratio_low, row.ratio_high),
                row.target.map_or_else(|| "none".to_owned(), |target| format!(">= {target}")),
                judged.to_owned(),
            ]);
            more.push([
                row.cell.to_owned(),
                format!("{:.2}", row.ours.cpu_us),
                format!("{:.2}", row.rival.cpu_us),
                facts(&row.ours),
                facts(&row.rival),
            ]);
        }
        let mut text = String::new();
        if !self.rows.is_empty() {
            text += &format!("{}\n{}\n", markdown(&rows), markdown(&more));
        }
        if !self.bounds.is_empty() {
            text += &format!("{}\n", self.bounds_table());
        }
        text += &format!(
            "{} x {}; load {:.2} at the start, {:.2} at the end; canary: computing {:.1} ms, spread {:.0} %, 100 syncs {:.1} ms, spread {:.0} %\n",
            self.processors,
            self.processor,
            self.load_at_start,
            self.load_at_end,
            self.canary_spin.median_ms,
            self.canary_spin.spread * 100.0,
            self.canary_syncs.median_ms,
            self.canary_syncs.spread * 100.0,
        );
        self.ignored.iter().for_each(|ignored| text += &format!("{ignored}\n"));
        for warning in &self.warnings {
            text += &format!("warning: {warning}\n");
        }
        text
    }
}

impl Report {
    fn bounds_table(&self) -> String {
        let mut rows = vec![["cell", "figure", "value", "at most", "met"].map(str::to_owned)];
        for bounds in &self.bounds {
            for figure in &bounds.figures {
                let with_unit = |value: f64| format!("{} {}", short(value), figure.unit).trim().to_owned();
                let judged = match figure.most {
                    Some(_) if self.quick => "not judged",
                    Some(_) if figure.met() => "yes",
                    Some(_) => "NO",
                    None => "",
                };
                let most = figure.most.map_or_else(String::new, with_unit);
                let cells = [bounds.cell, figure.what, &with_unit(figure.value), &most, judged];
                rows.push(cells.map(str::to_owned));
            }
        }
        markdown(&rows)
    }
}

fn facts(arm: &Arm) -> String {
    let facts: Vec<String> =
        arm.facts.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
    facts.join("; ")
}

fn short(value: f64) -> String {
    if value >= 1000.0 {
        thousands(value)
    } else if value.fract() == 0.0 {
        format!("{value}")
    } else {
        format!("{value:.2}")
    }
}

/// A whole number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table for people and documents, columns aligned; the first row is the head.
fn markdown<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> =
        (0..N).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
        text += &format!("|{}|\n", cells.join("|"));
        if at == 0 {
            let lines: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            text += &format!("|{}|\n", lines.join("|"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_tables_are_readable() {
        assert_eq!(thousands(1234567.4), "1,234,567");
        assert_eq!(thousands(999.6), "1,000");
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(markdown(&rows), "| a   | bb |\n|-----|----|\n| ccc | d  |\n");
    }
}
