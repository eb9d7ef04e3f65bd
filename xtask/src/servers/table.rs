//! What `cargo xtask servers status` prints.
//!
//! Pure. Not here: finding out (`mod.rs` beside this).

use super::{clock, place::Record};
use std::fmt;

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It answers.
    Up,
    /// It answers, but some of its processes are gone.
    Damaged,
    /// Its processes run and it does not answer.
    Silent,
    /// Its processes run, and it was not ready yet, or whoever started it was killed.
    Starting,
    /// It was up, and was not taken down.
    Died,
    /// It was not brought up, or taken down.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Damaged => "damaged",
            Self::Silent => "silent",
            Self::Starting => "starting",
            Self::Died => "died",
            Self::Down => "down",
        })
    }
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) pids: Vec<u32>,
    /// Bytes in memory, of all its processes.
    pub(crate) resident: u64,
    pub(crate) record: Option<Record>,
}

const HEAD: [&str; 7] = ["NAME", "STATE", "VERSION", "SINCE", "RESIDENT", "PID", "URL"];

/// The table, with a line on top.
pub(crate) fn table(rows: &[Row]) -> String {
    let now = clock::now();
    let lines: Vec<[String; 7]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(|row| cells(row, now))).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
            text += &format!("{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn cells(row: &Row, now: u64) -> [String; 7] {
    let up = row.record.as_ref().filter(|_| row.state != State::Died);
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let pids: Vec<String> = row.pids.iter().map(u32::to_string).collect();
    [
        row.name.to_owned(),
        row.state.to_string(),
        or_none(up.map(|record| record.version.clone()).unwrap_or_default()),
        or_none(up.map(|record| age(now.saturating_sub(record.since))).unwrap_or_default()),
        or_none(if row.resident == 0 { String::new() } else { format!("{} MiB", row.resident >> 20) }),
        or_none(pids.join(",")),
        or_none(up.map(|record| record.url().to_owned()).unwrap_or_default()),
    ]
}

/// Seconds as people say them.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_what_is_known() {
        let record = Record {
            version: "7.0.15".into(),
            since: 0,
            exports: vec![("ROPEWAY_TEST_REDIS_URL".into(), "redis://127.0.0.1:1".into())],
        };
        let up = Row {
            name: "redis",
            state: State::Up,
            pids: vec![7, 8],
            resident: 11 << 20,
            record: Some(record),
        };
        assert_eq!(
            cells(&up, 61),
            ["redis", "up", "7.0.15", "1 min", "11 MiB", "7,8", "redis://127.0.0.1:1"].map(str::to_owned)
        );
        let down = Row { name: "kafka", state: State::Down, pids: vec![], resident: 0, record: None };
        let table = table(&[up, down]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("NAME   STATE  VERSION"), "{table}");
        assert_eq!(
            lines[2].split_whitespace().collect::<Vec<_>>(),
            ["kafka", "down", "-", "-", "-", "-", "-"]
        );
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([age(59), age(3600), age(90_000)], ["59 s", "1 h 0 min", "1 d 1 h"]);
    }
}
