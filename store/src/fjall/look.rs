//! Looks at a directory from outside, without owning or changing anything: its format, its size, the room of its disk.
//!
//! Not here: whether what lies in it is whole (`inspect.rs`, `salvage.rs`).

use super::{
    directory::{Content, Directory, Format},
    failure::of_io,
    free_bytes,
};
use crate::Result;
use std::{fs, io, path::Path};

/// What a directory looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The format of the store in it; `None`: there is none yet.
    pub format: Option<u32>,
    /// The format that this build writes. Older ones are brought up to date when they are opened.
    pub newest: u32,
    /// Bytes of the files in it. Files that come and go meanwhile may or may not be counted.
    pub bytes: u64,
    /// Bytes that are free on its file system; `None` where the system does not tell.
    pub free: Option<u64>,
}

/// Looks at a directory. Another process may have it open. One that is not there has no store, and the room of the nearest directory above it.
///
/// # Errors
/// `Version` for a format that this build does not know, `Corrupt` where none is named, `Io`.
pub fn look(dir: &Path) -> Result<Look> {
    let format = match Directory::content_of(dir)? {
        Content::Nothing => None,
        Content::Database(format) => Some(format.number()),
    };
    let bytes = size(dir).map_err(|error| of_io(error, "measure the files", dir))?;
    let there = dir.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("."));
    Ok(Look { format, newest: Format::Current.number(), bytes, free: free_bytes(there)? })
}

/// Bytes of all files below. What is gone by now has none.
fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(about) if about.is_dir() => folders.push(entry.path()),
                Ok(about) => bytes += about.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, FjallSettings, FjallStore};

    #[test]
    fn a_directory_is_looked_at_while_it_is_open_and_when_it_is_not_there() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("store");
        let absent = look(&dir).unwrap();
        assert_eq!((absent.format, absent.bytes), (None, 0));
        assert!(!dir.exists() && absent.free.is_none_or(|free| free > 0));
        let store = FjallStore::open(&dir, &FjallSettings::default()).unwrap();
        let open = look(&dir).unwrap();
        assert!(open.format == Some(open.newest) && open.bytes > 0, "{open:?}");
        drop(store);
        fs::write(dir.join("format"), "ropeway-store 99\n").unwrap();
        assert!(matches!(look(&dir), Err(Error::Version { known, .. }) if known == open.newest));
        fs::write(dir.join("format"), "what").unwrap();
        assert!(matches!(look(&dir), Err(Error::Corrupt { .. })));
    }
}
