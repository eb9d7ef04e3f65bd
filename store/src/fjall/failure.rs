//! Errors of fjall and of the file system, as this crate's.
//!
//! Not here: what damage is (`damage.rs`).

use crate::Error;
use ::fjall::{Error as Fjall, LsmError as Tree};
use std::{io, path::Path};

pub(super) fn of_fjall(error: Fjall, doing: &str, path: &Path) -> Error {
    match error {
        Fjall::Io(source) | Fjall::Storage(Tree::Io(source)) => of_io(source, doing, path),
        Fjall::Poisoned => Error::Poisoned { why: "a thread that writes tables has failed".to_owned() },
        Fjall::KeyspaceDeleted => Error::Dropped,
        Fjall::Locked => Error::Locked { path: path.to_owned(), owner: "another process".into() },
        other => Error::Corrupt { what: format!("{}: could not {doing}: {other}", path.display()) },
    }
}

pub(super) fn of_io(source: io::Error, doing: &str, path: &Path) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { source },
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::Corrupt { what: format!("{}: could not {doing}: {source}", path.display()) }
        }
        _ => Error::Io { doing: format!("{doing} in {}", path.display()), source },
    }
}
