//! Draws lines and bars as SVG.
//!
//! Colours and fonts are in `page.css`. Not here: what is drawn (`mod.rs`).

use super::escape;
use crate::{figures, report::DiskRow};
use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 880.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 256.0;

/// Where percentiles lie between left (0) and right (1), and their names: each next nine takes as much room.
pub(super) const PERCENTILES: [(f64, &str); 8] = [
    (0.0, "p50"),
    (0.1, "p75"),
    (0.233, "p90"),
    (0.333, "p95"),
    (0.5, "p99"),
    (0.7, "p99.9"),
    (0.9, "p99.99"),
    (1.0, "max"),
];

/// What lies from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Seconds,
    Percentiles,
}

/// A line; a point without a value is a gap.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// Lines over an axis.
pub(super) struct Plot {
    /// At most three; each has a value.
    pub(super) lines: Vec<Line>,
    pub(super) x: Axis,
    /// How values are shown.
    pub(super) y: fn(f64) -> String,
    /// Whether each next power of ten takes as much room.
    pub(super) log: bool,
}

/// Values between two marks.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
    marks: Vec<f64>,
}

impl Scale {
    /// From 0, or from the power of ten below the least, to the mark above the most.
    fn of(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        for value in values {
            least = least.min(value);
            most = most.max(value);
        }
        if log && most > 0.0 {
            let low = least.max(1e-9).log10().floor();
            let high = most.log10().ceil().max(low + 1.0);
            // Of many powers some are left out.
            let step = ((high - low) / 6.0).ceil().max(1.0);
            let count = ((high - low) / step).ceil() as i32;
            let marks: Vec<f64> = (0..=count).map(|i| 10_f64.powf(low + f64::from(i) * step)).collect();
            return Self { low, high: low + f64::from(count) * step, log, marks };
        }
        let step = round_step(most.max(1e-9) / 4.0);
        let count = (most / step).ceil().max(1.0) as i32;
        Self {
            low: 0.0,
            high: f64::from(count) * step,
            log: false,
            marks: (0..=count).map(|i| f64::from(i) * step).collect(),
        }
    }

    fn y(&self, value: f64) -> f64 {
        let value = if self.log { value.max(1e-9).log10() } else { value };
        BOTTOM - (value - self.low) / (self.high - self.low) * (BOTTOM - TOP)
    }
}

/// 1, 2 or 5 times a power of ten, not less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

impl Plot {
    /// The picture and what its colours mean.
    pub(super) fn draw(&self, label: &str) -> String {
        let values = self.lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
        let scale = Scale::of(values, self.log);
        let end = self.lines.iter().flat_map(|line| line.points.iter()).map(|(x, _)| *x).fold(0.0, f64::max);
        let end = if self.x == Axis::Percentiles { 1.0 } else { end.max(1e-3) };
        let x = |at: f64| LEFT + at / end * (RIGHT - LEFT);
        let mut svg = open(label, HEIGHT);
        for mark in &scale.marks {
            let y = scale.y(*mark);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 10.0,
                y + 4.0,
                escape(&(self.y)(*mark))
            );
        }
        for (at, name) in self.marks(end) {
            let x = x(at);
            let anchor = if x > RIGHT - 20.0 { "end" } else { "middle" };
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{BOTTOM}\" y2=\"{}\"/>",
                BOTTOM + 6.0
            );
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{name}</text>",
                BOTTOM + 28.0
            );
        }
        let mut legend = "<p class=\"legend\">".to_owned();
        for (index, line) in self.lines.iter().enumerate() {
            draw_line(&mut svg, index, line, &x, &scale);
            let _ = write!(legend, "<span><i class=\"f{index}\"></i>{}</span>", escape(line.name));
        }
        svg.push_str("</svg>\n");
        legend + "</p>\n" + &svg
    }

    /// Where something is written below the axis. Few enough for a phone.
    fn marks(&self, end: f64) -> Vec<(f64, String)> {
        match self.x {
            Axis::Percentiles => PERCENTILES
                .iter()
                .filter(|(_, name)| !["p75", "p95", "p99.99"].contains(name))
                .map(|(at, name)| (*at, (*name).to_owned()))
                .collect(),
            Axis::Seconds => {
                let step = round_step(end / 6.0);
                let count = (end / step).floor() as i32;
                (0..=count)
                    .map(|i| f64::from(i) * step)
                    .map(|at| (at, figures::time(at).replace("0 ns", "0")))
                    .collect()
            }
        }
    }
}

/// Each stretch without a gap is a line of its own; one that is a single point is a dot.
fn draw_line(svg: &mut String, index: usize, line: &Line, x: &impl Fn(f64) -> f64, scale: &Scale) {
    for stretch in line.points.split(|(_, value)| value.is_none()).filter(|stretch| !stretch.is_empty()) {
        let points: Vec<(f64, f64)> =
            stretch.iter().filter_map(|(at, value)| Some((x(*at), scale.y((*value)?)))).collect();
        if let [(x, y)] = points[..] {
            let _ = writeln!(svg, "<circle class=\"f{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
            continue;
        }
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<polyline class=\"line s{index}\" points=\"{}\"/>", points.join(" "));
    }
}

fn open(label: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n", escape(label))
}

/// The ratio of each cell as a bar, with how sure it is; the line is the bare disk.
pub(super) fn bars(rows: &[DiskRow]) -> String {
    const ROW: f64 = 44.0;
    const FROM: f64 = 190.0;
    let height = ROW * rows.len() as f64 + 36.0;
    let most = rows.iter().map(|row| row.high).fold(1.0, f64::max) * 1.05;
    let x = |ratio: f64| FROM + ratio / most * (RIGHT - 70.0 - FROM);
    let mut svg = open("Ratio of the broker to the bare disk", height);
    for (index, row) in rows.iter().enumerate() {
        let y = ROW * index as f64 + 8.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} x {}</text>\n\
             <rect class=\"f0\" x=\"{FROM}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" rx=\"3\"/>\n\
             <line class=\"line s1\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
            FROM - 10.0,
            y + 19.0,
            figures::bytes(row.size as f64),
            figures::count(row.at_once),
            (x(row.ratio) - FROM).max(1.0),
            ROW - 16.0,
            x(row.low),
            x(row.high),
            y + 14.0,
            y + 14.0,
            x(row.high.max(row.ratio)) + 10.0,
            y + 19.0,
            row.ratio
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"{1:.1}\"/>\n<text x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\">bare disk</text>",
        x(1.0),
        height - 28.0,
        height - 8.0
    );
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_hold_every_value() {
        assert_eq!([0.9, 3.0, 11.0, 60.0].map(round_step), [1.0, 5.0, 20.0, 100.0]);
        let scale = Scale::of([3.0, 950.0].into_iter(), false);
        assert_eq!(scale.marks, [0.0, 500.0, 1000.0]);
        let scale = Scale::of([0.000_3, 0.02].into_iter(), true);
        assert_eq!((scale.low, scale.high, scale.marks.len()), (-4.0, -1.0, 4));
        for value in [0.0, 1e-12, 0.000_3, 0.02] {
            assert!(scale.y(value).is_finite());
        }
        assert!((scale.y(0.1) - TOP).abs() < 1e-9 && (scale.y(1e-4) - BOTTOM).abs() < 1e-9);
        assert!(Scale::of(std::iter::empty(), false).y(0.0).is_finite());
    }

    #[test]
    fn a_gap_parts_a_line() {
        let points = vec![(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(3.0))];
        let plot =
            Plot { lines: vec![Line { name: "a", points }], x: Axis::Seconds, y: figures::short, log: false };
        let svg = plot.draw("it");
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (1, 1));
    }
}
