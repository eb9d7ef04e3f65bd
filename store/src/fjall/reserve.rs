//! Room that is kept for the time when the disk is full: without it a store could not even be opened there, and nothing in it be removed.
//!
//! A file of [`BYTES`] lies in the directory. Who opens the store where less is free gives it up first; it is made again when there is room,
//! four times as much. Only on Linux, and where the file system can allocate without writing; elsewhere nothing is kept.
//! Not here: what is kept free while a store is open, which is its user's to decide.

use super::free_bytes;
use std::{fs, path::Path};

const NAME: &str = "reserve";

/// What opening, and removing a keyspace, take at the most on the disk: the end of a journal, some tables of a few keys, the mark.
pub(super) const BYTES: u64 = 4 * 1024 * 1024;

/// Gives it up where the disk is full, or nearly so. Answers whether there was any.
pub(super) fn give_up(store: &Path) -> bool {
    let is_short = matches!(free_bytes(store), Ok(Some(free)) if free < BYTES);
    is_short && fs::remove_file(store.join(NAME)).is_ok()
}

/// Makes it where there is none and room for it. What fails is tried again by who comes next.
pub(super) fn restore(store: &Path) {
    let path = store.join(NAME);
    let is_roomy = || matches!(free_bytes(store), Ok(Some(free)) if free > 4 * BYTES);
    if !path.exists() && is_roomy() && allocate(&path).is_err() {
        _ = fs::remove_file(path);
    }
}

#[cfg(target_os = "linux")]
fn allocate(path: &Path) -> std::io::Result<()> {
    let file = fs::File::create(path)?;
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, BYTES)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
const fn allocate(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_where_there_is_room_and_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        restore(dir.path());
        assert_eq!(fs::metadata(dir.path().join(NAME)).unwrap().len(), BYTES);
        assert!(!give_up(dir.path()), "the disk is not full");
        assert!(dir.path().join(NAME).exists());
    }
}
