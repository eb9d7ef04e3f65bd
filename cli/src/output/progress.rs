//! Progress on stderr: a bar or counter where that is a terminal, else a line every 5 s.

use super::Notes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How often a line is written where nothing can be drawn.
const EVERY: Duration = Duration::from_secs(5);

/// How far something is. Shared by reference; dropping it clears what was drawn.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    notes: Notes,
    bar: Option<ProgressBar>,
    lines: Option<Lines>,
}

#[derive(Debug)]
struct Lines {
    last: Mutex<Instant>,
    start: Instant,
    total: Option<u64>,
}

impl Progress {
    /// Shows how many of `total` (where it is known) are done; `what` follows the number.
    pub(crate) fn new(notes: &Notes, what: &'static str, total: Option<u64>) -> Self {
        let (wanted, drawn) = notes.progress();
        if !wanted {
            return Self { what, notes: notes.clone(), bar: None, lines: None };
        }
        let now = Instant::now();
        if !drawn {
            let lines = Lines { last: Mutex::new(now), start: now, total };
            return Self { what, notes: notes.clone(), bar: None, lines: Some(lines) };
        }
        let template = if total.is_some() {
            "{bar:30} {pos}/{len} {msg} ({per_sec}, {elapsed})"
        } else {
            "{spinner} {pos} {msg} ({per_sec}, {elapsed})"
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(style);
        bar.set_message(what);
        notes.draw(Some(bar.clone()));
        Self { what, notes: notes.clone(), bar: Some(bar), lines: None }
    }

    /// So many are done. Cheap enough for every batch.
    pub(crate) fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        let Some(lines) = &self.lines else { return };
        let now = Instant::now();
        let mut last = lines.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*last) < EVERY {
            return;
        }
        *last = now;
        let of = lines.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let rate = done as f64 / now.duration_since(lines.start).as_secs_f64();
        self.notes.say(&format!("{done}{of} {} ({rate:.0}/s)", self.what));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.notes.draw(None);
        }
    }
}
