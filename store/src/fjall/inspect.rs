//! Looks at a store before fjall does, and changes nothing: fjall repairs by cutting and removing, and says nothing of it.
//!
//! What must be there is what the high-water mark says. A process that is killed leaves behind: a journal whose end is torn, commits beyond the
//! mark, a keyspace that is not in the mark yet or not any more, and journals that went because all in them is in tables. Everything else that
//! differs is damage.
//! Not here: how journals, trees and the mark are read (`journal.rs`, `tree.rs`, `mark.rs`).

use super::{
    damage::{Damage, unreadable},
    directory::Format,
    journal::{self, Scan},
    mark::{self, Mark},
    spaces::SPACE,
    tree::{self, Depth, Tree},
};
use crate::Result;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What was found in a store.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) mark: Option<Mark>,
    pub(super) scan: Scan,
    /// By number: the trees, with what is wrong with each.
    pub(super) trees: BTreeMap<u64, (Tree, Vec<Damage>)>,
    /// What is wrong besides trees and journals.
    pub(super) other: Vec<Damage>,
}

impl Inspection {
    /// All that is wrong.
    pub(super) fn damage(&self) -> Vec<Damage> {
        let trees = self.trees.values().flat_map(|(_, damage)| damage);
        self.other.iter().chain(&self.scan.damage).chain(trees).cloned().collect()
    }

    /// The highest sequence number in the list of keyspaces.
    pub(super) fn sequence(&self) -> u64 {
        self.trees.values().map(|(tree, _)| tree.sequence).max().unwrap_or_default()
    }
}

/// Looks at the store in `store`, whose database is there.
///
/// # Errors
/// Those of the file system that are not damage.
pub(super) fn inspect(store: &Path, database: &Path, format: Format, depth: Depth) -> Result<Inspection> {
    let mut other = Vec::new();
    let mark = match format {
        Format::WithoutMark => None,
        Format::WithoutSpaces | Format::Current => match Mark::read(store)? {
            Ok(mark) => Some(mark),
            Err(damage) => {
                other.push(damage);
                None
            }
        },
    };
    frame(database, &mut other)?;
    let trees = trees(database, mark.as_ref(), depth, &mut other)?;
    let scan = journal::scan(database, mark.as_ref().map(|mark| mark.commits))?;
    if let Some(mark) = &mark {
        journals(database, mark, &scan, &mut other);
    }
    Ok(Inspection { mark, scan, trees, other })
}

/// What fjall has beside journals and trees.
fn frame(database: &Path, damage: &mut Vec<Damage>) -> Result<()> {
    const VERSION: &[u8] = b"FJL\x03";
    let version = database.join("version");
    match fs::read(&version) {
        Ok(bytes) if bytes == VERSION => {}
        Ok(_) => damage.push(Damage::at(version, "does not say that fjall 3 wrote it")),
        Err(error) => damage.push(unreadable(&version, error)?),
    }
    let lock = database.join("lock");
    if let Err(error) = fs::metadata(&lock) {
        damage.push(unreadable(&lock, error)?);
    }
    Ok(())
}

fn trees(
    database: &Path,
    mark: Option<&Mark>,
    depth: Depth,
    damage: &mut Vec<Damage>,
) -> Result<BTreeMap<u64, (Tree, Vec<Damage>)>> {
    let folder = database.join("keyspaces");
    let mut found: BTreeMap<u64, PathBuf> = BTreeMap::new();
    match fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(|error| super::failure::of_io(error, "list", &folder))?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                match name.parse() {
                    Ok(id) if path.is_dir() => _ = found.insert(id, path),
                    _ => damage.push(Damage::at(path, "does not belong here")),
                }
            }
        }
        Err(error) => damage.push(unreadable(&folder, error)?),
    }
    let must: BTreeMap<u64, &str> = mark
        .into_iter()
        .flat_map(|mark| &mark.keyspaces)
        .map(|(id, name)| (*id, name.as_str()))
        .chain([(0, "the list of keyspaces")])
        .collect();
    for (id, name) in &must {
        let path = folder.join(id.to_string());
        if !found.contains_key(id) {
            damage.push(Damage::at(path, format!("missing: it held {}", keyspace(name))));
        }
    }
    let mut trees = BTreeMap::new();
    for (id, path) in found {
        // What is neither in the mark nor has this file was being made or dropped when the process was killed.
        if !must.contains_key(&id) && !path.join("current").exists() {
            continue;
        }
        let mut wrong = Vec::new();
        // The list of keyspaces is small, and what it has lost, fjall removes; and so is what says which keyspace lies where.
        let is_list = id == 0 || mark.is_some_and(|mark| mark.commits == id);
        let depth = if is_list { Depth::All } else { depth };
        let mut tree = tree::read(&path, depth, &mut wrong)?;
        strangers(&path.join("tables"), &mut wrong);
        if id != 0 {
            tree.sequence = 0;
        }
        if let Some(name) = must.get(&id) {
            for damage in &mut wrong {
                let whose = keyspace(name);
                damage.what = format!("{} ({whose})", damage.what);
            }
        }
        trees.insert(id, (tree, wrong));
    }
    Ok(trees)
}

/// How a keyspace is named.
fn keyspace(name: &str) -> String {
    if name.starts_with(SPACE) { "no keyspace".to_owned() } else { format!("keyspace `{name}`") }
}

/// fjall panics at the sight of what it did not make.
fn strangers(tables: &Path, damage: &mut Vec<Damage>) {
    for entry in fs::read_dir(tables).into_iter().flatten().flatten() {
        let is_table = entry.file_name().to_str().is_some_and(|name| name.parse::<u64>().is_ok());
        if !is_table || entry.path().is_dir() {
            damage.push(Damage::at(entry.path(), "does not belong here"));
        }
    }
}

/// Holds the journals against the mark.
fn journals(database: &Path, mark: &Mark, scan: &Scan, damage: &mut Vec<Damage>) {
    let path = |id: u64| database.join(format!("{id}.jnl"));
    let there = |id: &u64| scan.journals.iter().any(|journal| journal.id == *id);
    let oldest = scan.journals.first().map(|journal| journal.id);
    for (id, first) in mark.journals.iter().filter(|(id, _)| !there(id)) {
        // A journal goes when all that is in it is in tables, the oldest first, and never the newest.
        let may_go = oldest.is_some_and(|oldest| *id < oldest);
        let has_moved = || mark::versions(database).is_ok_and(|now| Some(now) != mark.versions);
        if !may_go || (mark.versions.is_some() && !has_moved()) {
            let next = mark.journals.range(id + 1..).map(|(_, next)| *next).find(|next| *next != 0);
            let until = next.unwrap_or_else(|| mark.commit.saturating_add(1));
            let mut missing = Damage::at(path(*id), "missing");
            if *first != 0 {
                missing = missing.lost(until.saturating_sub(*first));
            }
            damage.push(missing);
        }
    }
    for journal in &scan.journals {
        // What was not synced when the mark was written, a power cut may have taken.
        let expected =
            mark.journals.get(&journal.id).copied().filter(|first| (1..=mark.commit).contains(first));
        let found = journal.commits.map(|(first, _)| first);
        if let Some(expected) = expected.filter(|expected| Some(*expected) != found) {
            let what = format!("commit {expected} is not the first in it any more");
            let until = found.unwrap_or_else(|| mark.commit.saturating_add(1));
            damage.push(Damage::at(&journal.path, what).lost(until.saturating_sub(expected)));
        }
    }
    // The newest synced commit lies in the last journal that does not begin behind it.
    let holder = mark.journals.iter().rev().find(|(_, first)| (1..=mark.commit).contains(*first));
    if let Some((id, _)) = holder.filter(|(id, _)| there(id)) {
        let last = scan.last_commit().unwrap_or_default();
        if last < mark.commit {
            let torn = scan.journals.iter().rev().find_map(|journal| {
                let end = journal.valid.last().map_or(0, |range| range.end);
                (journal.id >= *id).then_some((&journal.path, end))
            });
            let (place, byte) = torn.map_or_else(|| (path(*id), 0), |(path, byte)| (path.clone(), byte));
            let what = format!("ends at commit {last}; commit {} was synced", mark.commit);
            damage.push(Damage::at(place, what).behind(byte).lost(mark.commit - last));
        }
    }
}
