//! The ledger: what the handlers did, in an append-only file of lines.
//!
//! It plays the part of the database behind a real handler: an effect is in the ledger before its message is acked. After a crash
//! the totals are rebuilt from it, and the order of completions is judged from it. One line is one write, so that a killed
//! process leaves whole lines and at most one cut one, which is removed. It survives a killed process; it is not synced, so
//! not a power cut. Not here: what the lines add up to (`totals.rs`), judging their order (`order.rs`). Text with tabs between the fields:
//!
//! ```text
//! round    10000
//! done     17  1  member-2  7318  1  4500  NASHVILLE INTL      (number, attempt, member, day, damaging, cost, airport)
//! rejected 18  1  member-1  NASHVILLE INTL                     (number, attempt, member, airport)
//! ```

use super::record::Strike;
use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write as _},
    path::Path,
};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A round of publishing was begun: that many records from the start of the file.
    Round(u64),
    /// A report was handled.
    Done { number: u64, attempt: u32, member: String, strike: Strike },
    /// A report was rejected.
    Rejected { number: u64, attempt: u32, member: String, airport: String },
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// `None`: kept nowhere, for a broker that forgets everything with the process.
    file: Option<File>,
    line: String,
}

impl Ledger {
    /// Opens the ledger, makes it where there is none, and reads it.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData` names the line that is not one of a ledger.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
        }
        let parse = |(line, number): (&str, usize)| {
            Entry::parse(line).ok_or_else(|| {
                let why = format!("line {number} of {} is not one of a ledger: {line:?}", path.display());
                io::Error::new(io::ErrorKind::InvalidData, why)
            })
        };
        let entries = text[..whole].lines().zip(1..).map(parse).collect::<io::Result<_>>()?;
        Ok((Self { file: Some(file), line: String::new() }, entries))
    }

    /// A ledger that keeps nothing.
    pub(crate) const fn nowhere() -> Self {
        Self { file: None, line: String::new() }
    }

    /// Adds a line, in one write.
    ///
    /// # Errors
    /// Those of the file system; then the line may be cut, and the next `open` removes it only if it is the last.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        self.line.clear();
        entry.write(&mut self.line);
        file.write_all(self.line.as_bytes())
    }
}

impl Entry {
    fn write(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Round(size) => writeln!(out, "round\t{size}"),
            Self::Done { number, attempt, member, strike } => {
                let Strike { airport, day, damaging, cost } = strike;
                let damaging = u8::from(*damaging);
                writeln!(out, "done\t{number}\t{attempt}\t{member}\t{day}\t{damaging}\t{cost}\t{airport}")
            }
            Self::Rejected { number, attempt, member, airport } => {
                writeln!(out, "rejected\t{number}\t{attempt}\t{member}\t{airport}")
            }
        };
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["round", size] => Some(Self::Round(size.parse().ok()?)),
            ["done", number, attempt, member, day, damaging @ ("0" | "1"), cost, airport] => {
                Some(Self::Done {
                    number: number.parse().ok()?,
                    attempt: attempt.parse().ok()?,
                    member: member.to_owned(),
                    strike: Strike {
                        airport: airport.to_owned(),
                        day: day.parse().ok()?,
                        damaging: damaging == "1",
                        cost: cost.parse().ok()?,
                    },
                })
            }
            ["rejected", number, attempt, member, airport] => Some(Self::Rejected {
                number: number.parse().ok()?,
                attempt: attempt.parse().ok()?,
                member: member.to_owned(),
                airport: airport.to_owned(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let strike = Strike { airport: "PORTLAND INTL (OR)".into(), day: -3, damaging: true, cost: 4500 };
        vec![
            Entry::Round(10_000),
            Entry::Done { number: 17, attempt: 2, member: "member-1".into(), strike },
            Entry::Rejected { number: 18, attempt: 1, member: "member-2".into(), airport: "A B".into() },
        ]
    }

    #[test]
    fn what_was_written_is_read_again_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut ledger, before) = Ledger::open(&path).unwrap();
        assert_eq!(before, []);
        for entry in &entries() {
            ledger.append(entry).unwrap();
        }
        drop(ledger);
        let (mut ledger, read) = Ledger::open(&path).unwrap();
        assert_eq!(read, entries());
        ledger.append(&Entry::Round(5)).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().1.last(), Some(&Entry::Round(5)));
    }

    #[test]
    fn a_cut_last_line_is_removed_and_any_other_is_an_error_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, "round\t10\ndone\t1").unwrap();
        let (mut ledger, read) = Ledger::open(&path).unwrap();
        assert_eq!(read, [Entry::Round(10)]);
        ledger.append(&Entry::Round(11)).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().1, [Entry::Round(10), Entry::Round(11)]);
        for bad in ["round\t10\nnonsense\n", "round\tx\n", "done\t1\t1\tm\t1\t2\t3\tA\n", "\n"] {
            std::fs::write(&path, bad).unwrap();
            let error = Ledger::open(&path).unwrap_err();
            assert!(error.to_string().contains("line "), "{bad:?}: {error}");
        }
    }
}
