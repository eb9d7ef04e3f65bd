//! Reads the trees of fjall 3 (one for each keyspace) without changing them, and says what of them is not as it was written.
//!
//! fjall makes a tree anew whose file `current` is missing, and removes what belonged to the old one; so its trees are read here first. In the
//! directory of a tree, `current` names the version and has its checksum (number: u64, xxh3: u128, 0), the version `v<number>` lists the
//! tables with theirs, and a table is blocks (33 bytes of header, with a checksum of itself and one of the block) with an index of its parts
//! at the end.
//! Not here: journals (`journal.rs`), and which trees there must be (`inspect.rs`).

use super::damage::{Damage, unreadable};
use crate::Result;
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// How much of a tree is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// What opening it takes: all but the records in its tables.
    Frame,
    /// Every byte.
    All,
}

/// What a tree holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// Files that belong to it, and how many bytes they have.
    pub(super) files: Vec<(PathBuf, u64)>,
    /// The highest sequence number in its tables.
    pub(super) sequence: u64,
}

/// Reads the tree in a directory; what is wrong with it is added to `damage`.
///
/// # Errors
/// Those of the file system that are not damage.
pub(super) fn read(directory: &Path, depth: Depth, damage: &mut Vec<Damage>) -> Result<Tree> {
    let mut tree = Tree::default();
    let current = directory.join("current");
    let Some(bytes) = bytes_of(&current, damage)? else { return Ok(tree) };
    let Some((version, sum)) = parse_current(&bytes) else {
        damage.push(Damage::at(current, "does not name a version"));
        return Ok(tree);
    };
    let path = directory.join(format!("v{version}"));
    let Some(bytes) = bytes_of(&path, damage)? else { return Ok(tree) };
    if xxh3_128(&bytes) != sum {
        damage.push(Damage::at(path, "the checksum does not fit the one in `current`"));
        return Ok(tree);
    }
    let Some(tables) = parse_tables(&bytes) else {
        damage.push(Damage::at(path, "does not list tables"));
        return Ok(tree);
    };
    for table in tables {
        let path = directory.join("tables").join(table.id.to_string());
        let read = frame(&path).and_then(|frame| match frame {
            Ok(_) if depth == Depth::All && whole(&path)? != table.sum => {
                Ok(Err("the checksum does not fit".to_owned()))
            }
            frame => Ok(frame),
        });
        match read {
            Ok(Ok((bytes, sequence))) => {
                tree.sequence = tree.sequence.max(table.sequence.saturating_add(sequence));
                tree.files.push((path, bytes));
            }
            Ok(Err(what)) => damage.push(Damage::at(path, what)),
            Err(error) => damage.push(unreadable(&path, error)?),
        }
    }
    Ok(tree)
}

fn bytes_of(path: &Path, damage: &mut Vec<Damage>) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => {
            damage.push(unreadable(path, error)?);
            Ok(None)
        }
    }
}

fn parse_current(bytes: &[u8]) -> Option<(u64, u128)> {
    let mut rest = bytes;
    let found = (number(&mut rest)?, u128::from_le_bytes(array(&mut rest)?));
    (rest == [0]).then_some(found)
}

struct Table {
    id: u64,
    sum: u128,
    sequence: u64,
}

/// The tables that a version lists.
fn parse_tables(version: &[u8]) -> Option<Vec<Table>> {
    let len = u64::try_from(version.len()).ok()?;
    let (place, _) = contents_place(version.get(version.len().checked_sub(INDEX_END)?..)?, len)?;
    let contents = version.get(place..version.len() - INDEX_END)?;
    let section = sections(contents)?.into_iter().find(|section| section.name == b"tables")?;
    let mut rest = version.get(section.start..section.start.checked_add(section.len)?)?;
    let rest = &mut rest;
    let mut tables = Vec::new();
    let [levels] = array(rest)?;
    for _ in 0..levels {
        let [runs] = array(rest)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(array(rest)?) {
                let id = number(rest)?;
                let [kind] = array(rest)?;
                let sum = u128::from_le_bytes(array(rest)?);
                tables.push(Table { id, sum, sequence: number(rest)? });
                if kind != 0 {
                    return None;
                }
            }
        }
    }
    Some(tables)
}

/// The checksum of a file.
fn whole(path: &Path) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.digest128()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// `SFA!`, version, kind of checksum, checksum of the contents, where they begin, how long they are.
const INDEX_END: usize = 4 + 1 + 1 + 16 + 8 + 8;

/// No table of contents is longer.
const MAX_CONTENTS: u64 = 64 * 1024;

/// Where the table of contents of a file begins that has `len` bytes, and its checksum, from the last bytes of the file.
fn contents_place(end: &[u8], len: u64) -> Option<(usize, u128)> {
    let mut rest = end.strip_prefix(b"SFA!\x01\x00")?;
    let sum = u128::from_le_bytes(array(&mut rest)?);
    let (place, bytes) = (number(&mut rest)?, number(&mut rest)?);
    let ends = place.checked_add(bytes)?.checked_add(INDEX_END as u64)?;
    (ends == len && bytes <= MAX_CONTENTS).then_some((usize::try_from(place).ok()?, sum))
}

struct Section {
    name: Vec<u8>,
    start: usize,
    len: usize,
}

fn sections(contents: &[u8]) -> Option<Vec<Section>> {
    let mut rest = contents.strip_prefix(b"TOC!")?;
    let rest = &mut rest;
    let count = u32::from_le_bytes(array(rest)?);
    let mut found = Vec::new();
    for _ in 0..count {
        let (start, len) = (usize::try_from(number(rest)?).ok()?, usize::try_from(number(rest)?).ok()?);
        let name = usize::from(u16::from_le_bytes(array(rest)?));
        found.push(Section { name: split(rest, name)?.to_vec(), start, len });
    }
    rest.is_empty().then_some(found)
}

/// Whether all of a table but its records is as it was written: how long it is, and its highest sequence number; or what is wrong.
fn frame(path: &Path) -> io::Result<Result<(u64, u64), String>> {
    let wrong = |what: &str| Ok(Err(what.to_owned()));
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    if len < INDEX_END as u64 {
        return wrong("ends too early");
    }
    let mut end = [0; INDEX_END];
    file.seek(SeekFrom::End(-(INDEX_END as i64)))?;
    file.read_exact(&mut end)?;
    let Some((place, sum)) = contents_place(&end, len) else {
        return wrong("does not end as a table does");
    };
    let contents = read_part(&mut file, place, (len as usize) - INDEX_END - place)?;
    if xxh3_128(&contents) != sum {
        return wrong("the checksum of its contents does not fit");
    }
    let Some(sections) = sections(&contents) else { return wrong("its contents are none") };
    let mut sequence = None;
    for section in sections {
        if section.start.checked_add(section.len).is_none_or(|end| end > place) {
            return wrong("its contents lie outside of it");
        }
        if matches!(section.name.as_slice(), b"tli" | b"index" | b"filter" | b"filter_tli" | b"meta") {
            let bytes = read_part(&mut file, section.start, section.len)?;
            if !are_blocks(&bytes) {
                let name = String::from_utf8_lossy(&section.name);
                return Ok(Err(format!(
                    "the checksum of its part `{name}` from byte {} does not fit",
                    section.start
                )));
            }
            if section.name == b"meta" {
                sequence = highest_sequence(&bytes);
            }
        }
    }
    Ok(sequence.map(|sequence| (len, sequence)).ok_or_else(|| "does not say its sequence numbers".to_owned()))
}

/// What the block about a table says of the records in it.
fn highest_sequence(block: &[u8]) -> Option<u64> {
    // A value, sequence number 0, a key of 9 bytes, a value of 8.
    const ENTRY: &[u8] = b"\x00\x00\x09seqno#max\x08";
    let place = block.windows(ENTRY.len()).position(|part| part == ENTRY)?;
    number(&mut &block[place + ENTRY.len()..])
}

fn read_part(file: &mut File, start: usize, len: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start as u64))?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Whether these are whole blocks, one behind the other.
fn are_blocks(bytes: &[u8]) -> bool {
    const HEADER: usize = 29;
    let mut rest = bytes;
    while !rest.is_empty() {
        let checked = || {
            let (header, mut behind) = rest.split_at_checked(HEADER)?;
            let mut fields = header.strip_prefix(b"LSM\x03")?.get(1..)?;
            let sum = u128::from_le_bytes(array(&mut fields)?);
            let len = u32::from_le_bytes(array(&mut fields)?) as usize;
            // Of the checksum of the header the lower 4 bytes are kept.
            let short = xxh3_128(header).to_le_bytes();
            let block = (array::<4>(&mut behind)? == short[..4]).then(|| split(&mut behind, len))??;
            (xxh3_128(block) == sum).then_some(behind)
        };
        match checked() {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

fn split<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    split(rest, N)?.try_into().ok()
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(array(rest)?))
}
