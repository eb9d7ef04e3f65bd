//! The error of a key-value store, by what its user can do about it.

use std::path::PathBuf;

/// The result of a call to a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("could not {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is no room.
    #[error("the disk is full; make room, then open the store again")]
    Full {
        /// Why.
        source: std::io::Error,
    },
    /// What is stored is damaged.
    #[error("stored data is damaged: {what}")]
    Corrupt {
        /// What, and where.
        what: String,
    },
    /// There is no store in the directory.
    #[error("{}: there is no store in it", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds a format that this build does not know.
    #[error("{} holds format {found}, and this build reads format {known}", path.display())]
    Version {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What this build knows.
        known: u32,
    },
    /// Somebody else has the directory open.
    #[error("{} is open already, in {owner}; close that, or choose another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who: program and process id.
        owner: String,
    },
    /// An earlier commit failed, so that nothing can be promised any more.
    #[error("an earlier write failed, so the store takes no more; open it again to recover ({why})")]
    Poisoned {
        /// What failed first.
        why: String,
    },
    /// The directory was removed or replaced while the store was open.
    #[error("{} was removed, or another was put in its place, while it was open; nothing written since is kept", path.display())]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// Closed by its user.
    #[error("the store is closed")]
    Closed,
    /// A key is empty, or longer than 65,535 bytes.
    #[error("a key has 1 to 65535 bytes, not {len}")]
    Key {
        /// How long it is.
        len: usize,
    },
    /// The name of a keyspace is empty, longer than 255 bytes, or begins with a NUL, as those of the store do.
    #[error(
        "a keyspace's name has 1 to 255 bytes and does not begin with a NUL, which {name:?} does not heed"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The keyspace was dropped.
    #[error("the keyspace was dropped")]
    Dropped,
}
