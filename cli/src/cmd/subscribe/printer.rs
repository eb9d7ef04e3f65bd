//! Messages in the format that was asked for, and no more of them than that.
//!
//! Not here: the shape of one message (`output/message.rs`), where messages come from (`reading.rs`, `joining.rs`).

use super::Args;
use crate::{
    failure::Failure,
    output::{
        Notes, Out,
        message::{Decode, Shown},
    },
    settings::Format,
};
use ropeway_broker::{Delivery, Error, Owned, Position};

/// Prints messages and counts them.
#[derive(Debug)]
pub(super) struct Printer {
    format: Format,
    decode: Decode,
    headers: bool,
    separator: Vec<u8>,
    most: Option<u64>,
    printed: u64,
    unreadable: u64,
}

impl Printer {
    /// As the command line has it.
    pub(super) fn new(args: &Args, format: Format) -> Self {
        Self {
            format,
            decode: args.decode,
            headers: args.headers,
            separator: args.separator.0.clone(),
            most: args.count,
            printed: 0,
            unreadable: 0,
        }
    }

    /// Whether as many as were asked for are printed.
    pub(super) fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.printed >= most)
    }

    /// Records that could not be read.
    pub(super) const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Prints one; nothing where it is full.
    ///
    /// # Errors
    /// Those of stdout.
    pub(super) fn print(&mut self, out: &mut Out, of: &Owned, delivery: &Delivery) -> Result<(), Failure> {
        if self.is_full() {
            return Ok(());
        }
        match self.format {
            Format::Table => out.message(of, delivery, self.headers)?,
            Format::Ndjson => out.ndjson(&Shown::new(of, delivery, self.decode))?,
            Format::Json => {
                out.bytes(if self.printed == 0 { b"[\n" } else { b",\n" })?;
                out.compact(&Shown::new(of, delivery, self.decode))?;
            }
            Format::Raw => {
                out.bytes(delivery.message.payload.as_deref().unwrap_or_default())?;
                out.bytes(&self.separator)?;
            }
        }
        self.printed += 1;
        Ok(())
    }

    /// Tells of a record that is no message.
    pub(super) fn unreadable_record(&mut self, notes: &Notes, of: &Owned, position: Position, why: &Error) {
        self.unreadable += 1;
        notes.warn(&format!("{}/{} {position}: this record is no message: {why}", of.topic, of.partition));
    }

    /// Ends what is open.
    ///
    /// # Errors
    /// Those of stdout.
    pub(super) fn end(&self, out: &mut Out) -> Result<(), Failure> {
        if self.format == Format::Json {
            out.line(if self.printed == 0 { "[]" } else { "\n]" })?;
        }
        out.flush()
    }
}
