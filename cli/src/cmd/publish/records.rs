//! Records out of an input: what becomes of each line or row, and what is wrong with those that become nothing.
//!
//! Not here: messages that were printed whole (`exported.rs`), the bound of a line (`lines.rs`), expressions (`pick.rs`), publishing (`mod.rs`).

use super::{
    exported::Exported,
    lines::{self, Line},
    pick::Pick,
};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

/// How an input is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// The whole input is one message, byte for byte
    Raw,
    /// Each line is a message, byte for byte
    Lines,
    /// Each line is a JSON value; a line that is none is refused
    Jsonl,
    /// Each row becomes a JSON object of strings; the first row names the fields
    Csv,
    /// Each line is a message as `sub -o ndjson` and `data export` print it, for the partition that it names
    Export,
}

/// What is picked out of each record.
#[derive(Clone, Debug, Default)]
pub(super) struct Picks {
    /// The key.
    pub(super) key: Option<Pick>,
    /// Headers, by name.
    pub(super) headers: Vec<(String, Pick)>,
}

/// A record that can be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its line in the input, from 1.
    pub(super) line: u64,
    /// The content.
    pub(super) payload: Bytes,
    /// The key that was picked.
    pub(super) key: Option<String>,
    /// The headers that were picked.
    pub(super) headers: Vec<(String, String)>,
    /// The whole message, where the input has such.
    pub(super) exported: Option<Box<Exported>>,
}

/// Why there is no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// This one is refused; the next may be well.
    Record {
        /// Its line in the input, from 1.
        line: u64,
        /// Why.
        why: String,
    },
    /// The input cannot be read any further.
    Input {
        /// Why.
        why: String,
    },
}

type Found = Result<Record, Bad>;

impl Record {
    /// A record that has content and nothing else.
    pub(super) fn of(line: u64, payload: Bytes) -> Self {
        Self { line, payload, key: None, headers: Vec::new(), exported: None }
    }

    /// Bytes of content that it holds.
    pub(super) fn size(&self) -> usize {
        self.payload.len() + self.exported.as_ref().map_or(0, |whole| whole.message.size())
    }
}

/// Calls `each` with every record of the input, until it says that it wants no more. No more than `most` bytes of payload are held at a
/// time (and 64 KiB).
pub(super) fn read(
    from: impl Read,
    shape: Shape,
    picks: &Picks,
    most: usize,
    mut each: impl FnMut(Found) -> bool,
) {
    match shape {
        Shape::Raw => _ = each(whole(from, most)),
        Shape::Lines | Shape::Jsonl | Shape::Export => by_line(from, shape, picks, most, each),
        Shape::Csv => by_row(from, picks, most, each),
    }
}

fn whole(from: impl Read, most: usize) -> Found {
    let mut payload = Vec::new();
    let read = from.take(most as u64 + 1).read_to_end(&mut payload);
    read.map_err(|error| Bad::Input { why: error.to_string() })?;
    if payload.len() > most {
        return Err(too_large(1, most));
    }
    Ok(Record::of(1, payload.into()))
}

fn too_large(line: u64, most: usize) -> Bad {
    Bad::Record {
        line,
        why: format!("it has more than {most} bytes, which is the most that the topic takes"),
    }
}

fn by_line(from: impl Read, shape: Shape, picks: &Picks, most: usize, mut each: impl FnMut(Found) -> bool) {
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let mut buffer = Vec::new();
    for line in 1.. {
        let found = match lines::next(&mut from, &mut buffer, most) {
            Ok(Line::Whole) => {
                let mut text = &buffer[..];
                if shape == Shape::Lines {
                    Ok(Record::of(line, Bytes::copy_from_slice(text)))
                } else {
                    if line == 1 {
                        text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
                    }
                    text = text.trim_ascii();
                    if text.is_empty() {
                        continue;
                    }
                    if shape == Shape::Export { exported(line, text) } else { picked(line, text, picks) }
                }
            }
            Ok(Line::TooLong(_)) => Err(too_large(line, most)),
            Ok(Line::End) => return,
            Err(error) => Err(Bad::Input { why: error.to_string() }),
        };
        let over = matches!(found, Err(Bad::Input { .. }));
        if !each(found) || over {
            return;
        }
    }
}

fn exported(line: u64, text: &[u8]) -> Found {
    let mut record = Record::of(line, Bytes::new());
    match Exported::parse(text) {
        Ok(exported) => record.exported = Some(Box::new(exported)),
        Err(why) => return Err(Bad::Record { line, why }),
    }
    Ok(record)
}

fn picked(line: u64, text: &[u8], picks: &Picks) -> Found {
    let bad = |why: String| Bad::Record { line, why };
    let json: &RawValue =
        serde_json::from_slice(text).map_err(|error| bad(format!("not JSON: {}", place(&error))))?;
    let mut record = Record::of(line, Bytes::copy_from_slice(text));
    if let Some(pick) = &picks.key {
        record.key = pick.of(json).map_err(|why| bad(format!("no key: {why}")))?;
    }
    for (name, pick) in &picks.headers {
        if let Some(value) = pick.of(json).map_err(|why| bad(format!("no header {name}: {why}")))? {
            record.headers.push((name.clone(), value));
        }
    }
    Ok(record)
}

/// An error of a one-line text: its line is told by whoever counts lines.
pub(super) fn place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what} at column {}", error.column())
}

fn by_row(from: impl Read, picks: &Picks, most: usize, mut each: impl FnMut(Found) -> bool) {
    let left = Rc::new(Cell::new(0));
    let room = most.saturating_add(64 * 1024);
    left.set(room);
    let from = BoundedRow { from: BufReader::new(from), left: left.clone(), most };
    let mut rows = csv::ReaderBuilder::new().flexible(false).from_reader(from);
    let names = match rows.headers() {
        Ok(names) => names.clone(),
        Err(error) => {
            each(Err(Bad::Input { why: format!("the first row does not name the fields: {error}") }));
            return;
        }
    };
    let mut row = csv::StringRecord::new();
    loop {
        left.set(room);
        let found = match rows.read_record(&mut row) {
            Ok(false) => return,
            Ok(true) => {
                let line = row.position().map_or(0, csv::Position::line);
                let fields = names.iter().zip(&row);
                let json = serde_json::to_vec(&Fields(fields.collect()));
                match json {
                    Ok(json) if json.len() > most => Err(too_large(line, most)),
                    Ok(json) => picked(line, &json, picks),
                    Err(error) => Err(Bad::Record { line, why: error.to_string() }),
                }
            }
            Err(error) => Err(bad_row(&error)),
        };
        let over = matches!(found, Err(Bad::Input { .. }));
        if !each(found) || over {
            return;
        }
    }
}

fn bad_row(error: &csv::Error) -> Bad {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Bad::Record { line, why: format!("it has {len} fields and the first row names {expected_len}") }
        }
        csv::ErrorKind::Utf8 { err, .. } => {
            Bad::Record { line, why: format!("field {} is not UTF-8", err.field() + 1) }
        }
        csv::ErrorKind::Io(error) => Bad::Input { why: error.to_string() },
        _ => Bad::Input { why: error.to_string() },
    }
}

/// A row as a JSON object, its fields in the order of the file.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl serde::Serialize for Fields<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// Ends a row that never ends: a quote that is not closed must not read the rest of a large file into memory.
struct BoundedRow<R> {
    from: BufReader<R>,
    left: Rc<Cell<usize>>,
    most: usize,
}

impl<R: Read> Read for BoundedRow<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let chunk = self.from.fill_buf()?;
        let count = chunk.len().min(into.len());
        if count > self.left.get() {
            let most = self.most;
            return Err(io::Error::other(format!(
                "a row has more than {most} bytes; is a quote not closed?"
            )));
        }
        into[..count].copy_from_slice(&chunk[..count]);
        self.from.consume(count);
        self.left.set(self.left.get() - count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], shape: Shape, picks: &Picks, most: usize) -> Vec<Found> {
        let mut found = Vec::new();
        read(input, shape, picks, most, |each| {
            found.push(each);
            true
        });
        found
    }

    fn payloads(found: &[Found]) -> Vec<String> {
        let text = |record: &Record| String::from_utf8_lossy(&record.payload).into_owned();
        found.iter().filter_map(|found| found.as_ref().ok().map(text)).collect()
    }

    fn refused(found: &[Found]) -> Vec<(u64, &str)> {
        found
            .iter()
            .filter_map(|found| match found {
                Err(Bad::Record { line, why }) => Some((*line, why.as_str())),
                Err(Bad::Input { why }) => Some((u64::MAX, why.as_str())),
                Ok(_) => None,
            })
            .collect()
    }

    #[test]
    fn bytes_arrive_as_they_are() {
        let none = Picks::default();
        assert_eq!(
            all(b"a\nb\n\xff", Shape::Raw, &none, 5)[0].as_ref().unwrap().payload[..],
            b"a\nb\n\xff"[..]
        );
        assert_eq!(refused(&all(b"123456", Shape::Raw, &none, 5)).len(), 1);
        assert_eq!(payloads(&all(b"a\r\n\n b", Shape::Lines, &none, 5)), ["a\r", "", " b"]);
    }

    #[test]
    fn malformed_json_lines_are_told_by_number_and_the_rest_goes_on() {
        let picks = Picks {
            key: Some(".id".parse().unwrap()),
            headers: vec![("ce_type".into(), ".type?".parse().unwrap())],
        };
        let input =
            "\u{feff}{\"id\":1,\"type\":\"a\"}\n{\"id\":\n\n[1]\n{\"id\":2} x\n{\"id\":\"c\"}\r\n\"\u{0}\"\n";
        let found = all(input.as_bytes(), Shape::Jsonl, &picks, 100);
        assert_eq!(payloads(&found), ["{\"id\":1,\"type\":\"a\"}", "{\"id\":\"c\"}"]);
        let first = found[0].as_ref().unwrap();
        assert_eq!(
            (first.key.as_deref(), &first.headers[..]),
            (Some("1"), &[("ce_type".into(), "a".into())][..])
        );
        let refused = refused(&found);
        let lines: Vec<u64> = refused.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4, 5, 7]);
        assert!(refused[0].1.starts_with("not JSON: EOF"), "{refused:?}");
        assert!(refused[1].1.contains("no key: there is nothing at .id"), "{refused:?}");
    }

    #[test]
    fn invalid_utf_8_and_deep_nesting_do_not_end_the_input() {
        let deep = format!("{}{}\n", "[".repeat(100_000), "]".repeat(100_000));
        let input = [deep.as_bytes(), b"\"\xff\"\n", b"1\n"].concat();
        let found = all(&input, Shape::Jsonl, &Picks::default(), 1 << 20);
        assert_eq!(payloads(&found).last().unwrap(), "1");
        assert_eq!(found.len(), 3);
        assert!(refused(&found).iter().any(|(line, _)| *line == 2));
    }

    #[test]
    fn rows_become_objects_in_the_order_of_their_fields() {
        let picks = Picks { key: Some(".b".parse().unwrap()), headers: Vec::new() };
        let input = b"b,a\n1,\"x\ny\"\n2\n3,\xff\n4,\"q\"\"q\"\n";
        let found = all(input, Shape::Csv, &picks, 100);
        assert_eq!(payloads(&found), [r#"{"b":"1","a":"x\ny"}"#, r#"{"b":"4","a":"q\"q"}"#]);
        assert_eq!(found[0].as_ref().unwrap().key.as_deref(), Some("1"));
        let lines: Vec<u64> = refused(&found).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5]);
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_read_everything() {
        let mut input = b"a,b\n1,\"".to_vec();
        input.extend(std::iter::repeat_n(b'x', 10 << 20));
        let found = all(&input, Shape::Csv, &Picks::default(), 1000);
        assert!(refused(&found)[0].1.contains("is a quote not closed?"), "{:?}", refused(&found));
    }
}
