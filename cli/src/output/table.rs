//! Lists and single objects in every format.
//!
//! Not here: messages (`message.rs`), which have bytes of their own.

use super::{Out, visible};
use crate::{failure::Failure, settings::Format};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

/// How a row looks to people: the cells of its columns. As JSON it is what serde makes of it.
pub(crate) trait Row: Serialize {
    /// The names of the columns. The first is what the row is called.
    const COLUMNS: &'static [&'static str];

    /// One cell for each column.
    fn cells(&self) -> Vec<String>;
}

impl Out {
    /// Prints a list: columns, one JSON array, one JSON object on each line, or the first column alone.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn list<R: Row>(&mut self, format: Format, rows: &[R]) -> Result<(), Failure> {
        match format {
            Format::Table => self.columns(R::COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>()),
            Format::Json => self.json(&rows),
            Format::Ndjson => rows.iter().try_for_each(|row| self.ndjson(row)),
            Format::Raw => rows
                .iter()
                .try_for_each(|row| self.line(row.cells().first().map(String::as_str).unwrap_or_default())),
        }
    }

    /// Prints one object: a line for each of `lines` (name and value), one JSON document, or the first value alone.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn object(
        &mut self,
        format: Format,
        object: &impl Serialize,
        lines: &[(&str, String)],
    ) -> Result<(), Failure> {
        let width = lines.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
        match format {
            Format::Table => lines
                .iter()
                .try_for_each(|(name, value)| self.line(&format!("{name:width$}  {}", visible(value)))),
            Format::Json => self.json(object),
            Format::Ndjson => self.ndjson(object),
            Format::Raw => lines.iter().take(1).try_for_each(|(_, value)| self.line(value)),
        }
    }

    /// Prints one JSON document over several lines.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value);
        self.line(&text.map_err(|error| Failure::new("could not make JSON").caused_by(&error))?)
    }

    /// Prints one JSON document on one line.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn ndjson(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.compact(value)?;
        self.bytes(b"\n")
    }

    /// Prints one JSON document without an end of line.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn compact(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_vec(value);
        self.bytes(&text.map_err(|error| Failure::new("could not make JSON").caused_by(&error))?)
    }

    /// Prints aligned columns under their names.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn columns(&mut self, names: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
        let mut widths: Vec<usize> = names.iter().map(|name| name.width()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        self.line(&aligned(names.iter().copied(), &widths))?;
        rows.iter().try_for_each(|row| self.line(&aligned(row.iter().map(String::as_str), &widths)))
    }
}

fn aligned<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
    }
    line.truncate(line.trim_end().len());
    line
}

/// A number that may be unknown.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_without_blanks() {
        assert_eq!(aligned(["a", "bé", ""].into_iter(), &[3, 2, 5]), "a    bé");
        assert_eq!(or_dash(None::<u64>), "-");
    }
}
