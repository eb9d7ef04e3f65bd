//! Stdout: data and nothing else. A reader that goes away ends the program quietly.

use crate::failure::Failure;
use std::io::{BufWriter, ErrorKind, Stdout, Write};

/// Stdout, buffered: what must be out before something else happens is flushed.
#[derive(Debug)]
pub(crate) struct Out {
    writer: BufWriter<Stdout>,
}

impl Out {
    /// Stdout of this process.
    pub(crate) fn stdout() -> Self {
        Self { writer: BufWriter::with_capacity(64 * 1024, std::io::stdout()) }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// A quiet failure where the reader went away; a loud one where the disk is full and the like.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(failure)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Hands over what is buffered.
    ///
    /// # Errors
    /// Those of [`Self::bytes`].
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(failure)
    }
}

fn failure(error: std::io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        return Failure::output_closed();
    }
    Failure::new("could not write to stdout").caused_by(&error)
}
