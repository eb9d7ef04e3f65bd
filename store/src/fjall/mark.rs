//! The high-water mark: what of a store must be there when it is opened again.
//!
//! It lies beside the database, in the file `mark`: the number of the newest commit that was synced, the keyspaces, and the journals with the
//! first commit in each, with a checksum over it all. It is written aside, synced and renamed.
//! Not here: when it is written (`keeper.rs`), and what is held against it (`inspect.rs`).

use super::{damage::Damage, journal};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

const MAGIC: &[u8] = b"RWMARK\0\x02";
/// Without generations.
const OLD_MAGIC: &[u8] = b"RWMARK\0\x01";
const NAME: &str = "mark";

/// What must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of the newest commit that survives the machine losing power.
    pub(super) commit: u64,
    /// The keyspace in which commits have their number.
    pub(super) commits: u64,
    /// By number of the tree, with their names; what holds none is there under the name that it has in fjall, which begins with a NUL.
    pub(super) keyspaces: BTreeMap<u64, String>,
    /// By number of the tree, which generation of it the keyspace is, where that is not 0.
    pub(super) generations: BTreeMap<u64, u32>,
    /// By number, with the first commit in each; 0 where there is none.
    pub(super) journals: BTreeMap<u64, u64>,
    /// The versions of all keyspaces, hashed, where no journal can have gone as long as they are the same: at a clean end.
    pub(super) versions: Option<u128>,
}

impl Mark {
    /// Reads the mark of a store. `Ok(Err)`: it is missing or damaged.
    ///
    /// # Errors
    /// Those of the file system that are no damage.
    pub(super) fn read(store: &Path) -> crate::Result<Result<Self, Damage>> {
        let path = store.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => {
                Ok(Self::decode(&bytes).ok_or_else(|| Damage::at(&path, "the checksum does not fit")))
            }
            Err(error) => super::damage::unreadable(&path, error).map(Err),
        }
    }

    /// Puts the mark in its place; when this answers it survives the machine losing power.
    ///
    /// # Errors
    /// Those of the file system; then the one before is in its place, or this one.
    pub(super) fn write(&self, store: &Path) -> io::Result<()> {
        let aside = store.join("mark.new");
        let mut file = File::create(&aside)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&aside, store.join(NAME))?;
        sync_directory(store)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.commit.to_le_bytes());
        out.extend(self.commits.to_le_bytes());
        out.push(u8::from(self.versions.is_some()));
        out.extend(self.versions.unwrap_or_default().to_le_bytes());
        out.extend((self.journals.len() as u64).to_le_bytes());
        for (id, first) in &self.journals {
            out.extend(id.to_le_bytes());
            out.extend(first.to_le_bytes());
        }
        out.extend((self.keyspaces.len() as u64).to_le_bytes());
        for (id, name) in &self.keyspaces {
            out.extend(id.to_le_bytes());
            out.extend((name.len() as u64).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend(self.generations.get(id).copied().unwrap_or_default().to_le_bytes());
        }
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
        if u64::from_le_bytes(sum.try_into().ok()?) != xxh3_64(body) {
            return None;
        }
        let has_generations = body.starts_with(MAGIC);
        let mut rest = body.strip_prefix(MAGIC).or_else(|| body.strip_prefix(OLD_MAGIC))?;
        let rest = &mut rest;
        let (commit, commits) = (number(rest)?, number(rest)?);
        let known = take(rest, 1)? == [1];
        let versions = u128::from_le_bytes(take(rest, 16)?.try_into().ok()?);
        let mut mark = Self { commit, commits, versions: known.then_some(versions), ..Self::default() };
        for _ in 0..number(rest)? {
            let id = number(rest)?;
            mark.journals.insert(id, number(rest)?);
        }
        for _ in 0..number(rest)? {
            let id = number(rest)?;
            let len = usize::try_from(number(rest)?).ok()?;
            mark.keyspaces.insert(id, String::from_utf8(take(rest, len)?.to_vec()).ok()?);
            if has_generations {
                let generation = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
                if generation != 0 {
                    mark.generations.insert(id, generation);
                }
            }
        }
        rest.is_empty().then_some(mark)
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

/// The journals with the first commit in each. What is known of before is not read again.
///
/// # Errors
/// Those of the file system.
pub(super) fn journals(
    database: &Path,
    commits: u64,
    before: &BTreeMap<u64, u64>,
) -> io::Result<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    for (id, path) in journal::list(database)? {
        let first = match before.get(&id) {
            Some(first) if *first != 0 => *first,
            _ => match journal::first_commit(&path, commits) {
                Ok(first) => first.unwrap_or_default(),
                // It was not needed any more, and went between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            },
        };
        found.insert(id, first);
    }
    Ok(found)
}

/// What the trees of a database are at, hashed: it differs as soon as one of them was written to, made or dropped.
///
/// # Errors
/// Those of the file system.
pub(super) fn versions(database: &Path) -> io::Result<u128> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(database.join("keyspaces"))? {
        let entry = entry?;
        match fs::read(entry.path().join("current")) {
            Ok(current) => _ = all.insert(entry.file_name(), current),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut bytes = Vec::new();
    for (name, current) in all {
        bytes.extend(name.as_encoded_bytes());
        bytes.extend(current);
    }
    Ok(xxh3_128(&bytes))
}

/// Makes names in a directory survive the machine losing power.
///
/// # Errors
/// Those of the file system.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_no_changed_byte_passes() {
        let mark = Mark {
            commit: 77,
            commits: 1,
            keyspaces: [(1, "commits".to_owned()), (9, "a\nb".to_owned())].into(),
            generations: [(9, 3)].into(),
            journals: [(3, 50), (4, 0)].into(),
            versions: Some(5),
        };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(Mark::decode(&changed), None, "bit {bit} of byte {at}");
            }
            assert_eq!(Mark::decode(&bytes[..at]), None, "cut at byte {at}");
        }
    }
}
