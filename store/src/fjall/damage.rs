//! What is damaged, where, and how much of it.
//!
//! Not here: how it is found (`inspect.rs`, `journal.rs`, `tree.rs`).

use super::failure::of_io;
use crate::{Error, Result};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Something in a store that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file, or the directory.
    pub place: PathBuf,
    /// From which byte of the file, where that is known.
    pub byte: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// How many commits are missing, where that is known.
    pub lost_commits: Option<u64>,
}

impl Damage {
    pub(super) fn at(place: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { place: place.into(), byte: None, what: what.into(), lost_commits: None }
    }

    pub(super) const fn behind(mut self, byte: u64) -> Self {
        self.byte = Some(byte);
        self
    }

    pub(super) const fn lost(mut self, commits: u64) -> Self {
        self.lost_commits = Some(commits);
        self
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place.display())?;
        if let Some(byte) = self.byte {
            write!(f, " from byte {byte}")?;
        }
        write!(f, ": {}", self.what)?;
        match self.lost_commits {
            Some(1) => write!(f, "; 1 commit is missing"),
            Some(count) => write!(f, "; {count} commits are missing"),
            None => Ok(()),
        }
    }
}

/// How much of the damage the text of an error names.
const NAMED: usize = 5;

/// The error that a store answers which is damaged.
pub(super) fn refuse(damage: &[Damage]) -> Result<()> {
    if damage.is_empty() {
        return Ok(());
    }
    let mut what: Vec<String> = damage.iter().take(NAMED).map(Damage::to_string).collect();
    if damage.len() > NAMED {
        what.push(format!("and {} places more", damage.len() - NAMED));
    }
    Err(Error::Corrupt { what: what.join("; ") })
}

/// A file that should be there and readable, and is not.
///
/// # Errors
/// What is no damage: there are too many open files, it may not be read, and the like.
pub(super) fn unreadable(path: &Path, error: io::Error) -> Result<Damage> {
    // A bad sector; std has no name for it.
    const EIO: i32 = 5;
    match error.kind() {
        io::ErrorKind::NotFound => Ok(Damage::at(path, "missing")),
        io::ErrorKind::UnexpectedEof => Ok(Damage::at(path, "ends too early")),
        io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            Ok(Damage::at(path, error.to_string()))
        }
        _ if error.raw_os_error() == Some(EIO) => Ok(Damage::at(path, format!("cannot be read: {error}"))),
        _ => Err(of_io(error, "read", path)),
    }
}
