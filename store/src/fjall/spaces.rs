//! Which tree of fjall holds which keyspace: trees for logs are used again and again.
//!
//! In fjall every tree that is made or dropped leaves a table, a version and an open file behind in its list of trees until the process ends.
//! So a keyspace for a log lies in a tree with a neutral name, a space: when it is dropped, its space is emptied and taken for the next. A note
//! in the keyspace of commits says which keyspace a space holds, and its generation, which goes up with each; every key in a space begins with
//! the generation it was written in, so that what is left of an earlier keyspace (by a crash, or for somebody who still reads or writes it) is
//! never seen in a later one.
//! An empty space holds one record of its own, in a table: fjall keeps a journal until each tree that had a record in it has a newer one in a
//! table, and takes from journals only what is newer than that.
//! Keyspaces for state are few and stay; they, and all that were made before there were spaces, are trees under their own names.
//! Not here: the calls (`mod.rs`), and what the high-water mark says of it (`mark.rs`).

use super::{COMMITS, Inner, Open, failure::of_fjall, lock, mark::Mark, room::write_out};
use crate::{Keyspace, Purpose, Result};
use ::fjall::{AbstractTree, Database, Keyspace as Tree, PersistMode};
use std::{collections::BTreeMap, path::Path, sync::atomic::Ordering};

/// How a space is called in fjall and, as long as it holds no keyspace, in the mark.
pub(super) const SPACE: &str = "\0space-";

/// What the keys begin with under which the notes about spaces lie, before the number of the tree.
const NOTE: &[u8] = b"\0space";

/// How many empty spaces are kept when a store is opened.
const MAX_SPARE: usize = 16;

/// How many spaces wait to be emptied before whoever makes a keyspace empties one first.
const MAX_LEFT: usize = 4;

/// How often it is tried to empty a space before another has its turn.
const TRIES: usize = 3;

/// The bytes of a generation before a key.
const PREFIX: usize = 4;

/// A tree, or the part of it that one keyspace has.
#[derive(Clone)]
pub(super) struct Space {
    pub(super) tree: Tree,
    /// 0: all of the tree.
    pub(super) generation: u32,
}

impl Space {
    /// How a key of the keyspace is written.
    pub(super) fn key(&self, key: &[u8]) -> ::fjall::Slice {
        if self.generation == 0 {
            return key.into();
        }
        let mut whole = Vec::with_capacity(PREFIX + key.len());
        whole.extend(self.generation.to_be_bytes());
        whole.extend(key);
        whole.into()
    }

    /// Where the keyspace ends; `None`: where the tree does.
    pub(super) fn end(&self) -> Option<::fjall::Slice> {
        let next = (self.generation != 0).then(|| self.generation.saturating_add(1));
        next.map(|next| next.to_be_bytes().as_slice().into())
    }

    /// How many bytes stand before a key.
    pub(super) const fn prefix(&self) -> usize {
        if self.generation == 0 { 0 } else { PREFIX }
    }

    pub(super) fn is_own(&self) -> bool {
        self.tree.name().starts_with(SPACE)
    }

    /// Whether nothing is in it but its own record, and nothing older can come back out of a journal.
    fn is_empty(&self) -> ::fjall::Result<bool> {
        if self.tree.tree.get_highest_memtable_seqno().is_some()
            || self.tree.tree.get_highest_persisted_seqno().is_none()
        {
            return Ok(false);
        }
        let mut entries = self.tree.iter();
        let first = entries.next().map(::fjall::Guard::key).transpose()?;
        Ok(first.is_some_and(|key| key[..] == [0; PREFIX]) && entries.next().is_none())
    }
}

/// The spaces of a store.
#[derive(Default)]
pub(super) struct Spaces {
    /// By the names of keyspaces.
    pub(super) held: BTreeMap<String, Space>,
    /// Empty.
    pub(super) spare: Vec<Space>,
    /// To be emptied.
    pub(super) left: Vec<Space>,
    /// The number of the next that is made.
    pub(super) next: u64,
    /// Trees about which there are notes and that are none.
    stale: Vec<u64>,
}

/// The key of the note about a tree.
pub(super) fn note_key(tree: u64) -> Vec<u8> {
    [NOTE, &tree.to_be_bytes()].concat()
}

/// What a note says: the generation, and the name of the keyspace, empty where there is none.
pub(super) fn note(generation: u32, name: &str) -> Vec<u8> {
    [&generation.to_le_bytes(), name.as_bytes()].concat()
}

fn parse_note(key: &[u8], value: &[u8]) -> Option<(u64, (u32, String))> {
    let tree = u64::from_be_bytes(key.strip_prefix(NOTE)?.try_into().ok()?);
    let (generation, name) = value.split_first_chunk()?;
    Some((tree, (u32::from_le_bytes(*generation), String::from_utf8(name.to_vec()).ok()?)))
}

impl Spaces {
    /// Reads which spaces there are. `known`: what a mark says where the notes may be damaged; then nothing is emptied.
    pub(super) fn read(
        database: &Database,
        commits: &Tree,
        known: Option<Option<&Mark>>,
        path: &Path,
    ) -> Result<Self> {
        let failed = |error| of_fjall(error, "read which keyspaces there are", path);
        let mut notes: BTreeMap<u64, (u32, String)> = BTreeMap::new();
        for entry in commits.prefix(NOTE) {
            let (key, value) = entry.into_inner().map_err(failed)?;
            notes.extend(parse_note(&key, &value));
        }
        for (id, name) in known.flatten().into_iter().flat_map(|mark| &mark.keyspaces) {
            let generation =
                known.flatten().and_then(|mark| mark.generations.get(id)).copied().unwrap_or_default();
            if generation > notes.get(id).map_or(0, |(generation, _)| *generation) && !name.starts_with('\0')
            {
                notes.insert(*id, (generation, name.clone()));
            }
        }
        let mut spaces = Self::default();
        for name in database.list_keyspace_names().iter().filter(|name| name[..] != *COMMITS) {
            let tree = database.keyspace(name, Default::default).map_err(failed)?;
            let Some(number) = name.strip_prefix(SPACE) else {
                spaces.held.insert(name.to_string(), Space { tree, generation: 0 });
                continue;
            };
            spaces.next = spaces.next.max(number.parse::<u64>().map_or(0, |number| number + 1));
            let id = tree.id();
            match notes.remove(&id) {
                Some((generation, name)) if !name.is_empty() => {
                    spaces.held.insert(name, Space { tree, generation });
                }
                None if known.is_some() => {
                    // Nobody knows its name, but what it holds is there.
                    let last = tree.last_key_value().map(::fjall::Guard::key).transpose().map_err(failed)?;
                    let generation = last.and_then(|key| Some(u32::from_be_bytes(*key.first_chunk()?)));
                    if let Some(generation) = generation.filter(|generation| *generation > 0) {
                        spaces.held.insert(format!("keyspaces/{id}"), Space { tree, generation });
                    }
                }
                _ if known.is_some() => {}
                found => {
                    let space = Space { tree, generation: found.map_or(0, |(generation, _)| generation) };
                    // One whose own record is damaged has lost nothing.
                    let is_empty = space.is_empty().unwrap_or_default();
                    if is_empty { spaces.spare.push(space) } else { spaces.left.push(space) }
                }
            }
        }
        spaces.stale = notes.into_keys().collect();
        Ok(spaces)
    }

    /// What must be there when it is opened again.
    pub(super) fn mark(&self, mark: &mut Mark) {
        for (name, space) in &self.held {
            mark.keyspaces.insert(space.tree.id(), name.clone());
            if space.generation != 0 {
                mark.generations.insert(space.tree.id(), space.generation);
            }
        }
        for space in self.spare.iter().chain(&self.left) {
            mark.keyspaces.insert(space.tree.id(), space.tree.name().to_string());
        }
    }

    /// All trees that are no keyspace at the moment.
    pub(super) fn unused(&self) -> impl Iterator<Item = &Tree> {
        self.spare.iter().chain(&self.left).map(|space| &space.tree)
    }
}

impl Inner {
    /// Makes a keyspace that is not there, and says so in the mark.
    pub(super) fn make_keyspace(
        &self,
        open: &Open,
        mark: &mut Mark,
        name: &str,
        purpose: Purpose,
    ) -> Result<Space> {
        let make = |name: &str| {
            let tree = open.database.keyspace(name, || self.settings.options(purpose));
            tree.map_err(self.failed("open a keyspace"))
        };
        let space = match purpose {
            Purpose::State => Space { tree: make(name)?, generation: 0 },
            Purpose::Log => {
                if lock(&open.spaces).left.len() >= MAX_LEFT {
                    // Who makes keyspaces faster than the keeper empties them helps. What fails here leaves the space as it is.
                    _ = self.empty_one(open);
                }
                let spare = lock(&open.spaces).spare.pop();
                let before = match spare {
                    Some(space) => space,
                    None => {
                        let next = lock(&open.spaces).next;
                        let tree = make(&format!("{SPACE}{next}"))?;
                        lock(&open.spaces).next += 1;
                        Space { tree, generation: 0 }
                    }
                };
                let space = Space { generation: before.generation + 1, ..before };
                self.record(open, Some(PersistMode::SyncData), |writes| {
                    let note = note(space.generation, name);
                    writes.insert(&open.commits, note_key(space.tree.id()), note);
                })?;
                space
            }
        };
        // Whoever is killed between the two leaves one behind that nobody was told of.
        self.write_mark(mark, Some((space.tree.id(), Some((name, space.generation)))))?;
        lock(&open.spaces).held.insert(name.to_owned(), space.clone());
        Ok(space)
    }

    /// Drops a keyspace; its space is emptied later. Whoever is killed meanwhile leaves it whole, though it need not be there, or not at all.
    pub(super) fn drop_space(
        &self,
        open: &Open,
        mark: &mut Mark,
        keyspace: Keyspace,
        space: Space,
    ) -> Result<()> {
        let tree = space.tree.clone();
        let is_own = space.is_own();
        let unused = is_own.then(|| (&tree.name()[..], 0));
        self.write_mark(mark, Some((tree.id(), unused)))?;
        if is_own {
            self.record(open, Some(PersistMode::SyncData), |writes| {
                writes.insert(&open.commits, note_key(tree.id()), note(space.generation, ""));
            })?;
        }
        open.change(|trees| {
            trees.slots.remove(&keyspace.0);
            trees.names.retain(|_, other| *other != keyspace);
        });
        lock(&open.spaces).held.retain(|_, other| other.tree != tree);
        if !is_own {
            open.forgotten.fetch_add(tree.tree.active_memtable().size(), Ordering::Relaxed);
            return open.database.delete_keyspace(tree).map_err(self.failed("drop a keyspace"));
        }
        // Its room comes back now. What fails is tried again when it is emptied.
        _ = discard(open, &tree);
        lock(&open.spaces).left.push(space);
        Ok(())
    }

    /// Empties one space that was left, if there is one. Answers whether there are more.
    ///
    /// Who is killed meanwhile finds it as it was left, at least as much in it as now, and begins again.
    pub(super) fn empty_one(&self, open: &Open) -> Result<bool> {
        let space = {
            let mut spaces = lock(&open.spaces);
            if spaces.left.is_empty() {
                return Ok(false);
            }
            spaces.left.remove(0)
        };
        let mut done = Ok(false);
        for _ in 0..TRIES {
            done = self.empty(open, &space);
            if !matches!(done, Ok(false)) {
                break;
            }
        }
        let mut spaces = lock(&open.spaces);
        match done {
            Ok(true) => spaces.spare.push(space),
            _ => spaces.left.push(space),
        }
        done.map(|done| done && !spaces.left.is_empty())
    }

    fn empty(&self, open: &Open, space: &Space) -> Result<bool> {
        self.failure.check()?;
        let failed = || self.failed("empty a keyspace that was dropped");
        discard(open, &space.tree).map_err(|error| failed()(error.into()))?;
        self.record(open, Some(PersistMode::Buffer), |writes| {
            writes.insert(&space.tree, [0; PREFIX], []);
        })?;
        write_out(&space.tree, &open.database, &self.path)?;
        space.is_empty().map_err(failed())
    }

    /// Drops what a store has more of empty spaces than it needs, and notes about trees that are none.
    pub(super) fn tidy_spaces(&self, open: &Open) -> Result<()> {
        let mut mark = lock(&self.mark);
        let mut spaces = lock(&open.spaces);
        let keep = spaces.spare.len().min(MAX_SPARE);
        let more = spaces.spare.split_off(keep);
        let mut stale = std::mem::take(&mut spaces.stale);
        stale.extend(more.iter().map(|space| space.tree.id()));
        if stale.is_empty() {
            return Ok(());
        }
        for space in &more {
            self.write_mark(&mut mark, Some((space.tree.id(), None)))?;
        }
        // The note first: the number of a tree may be given again.
        self.record(open, Some(PersistMode::SyncData), |writes| {
            for id in stale {
                writes.remove(&open.commits, note_key(id));
            }
        })?;
        for space in more {
            open.database.delete_keyspace(space.tree).map_err(self.failed("drop a keyspace"))?;
        }
        Ok(())
    }
}

/// Removes all that a tree holds from memory and disk, but not from journals.
fn discard(open: &Open, tree: &Tree) -> Result<(), ::fjall::LsmError> {
    // Nobody writes a table of it meanwhile.
    let _lock = tree.tree.get_flush_lock();
    // Clearing alone would leave the files of tables where they are.
    tree.tree.drop_range::<&[u8], _>(..)?;
    open.forgotten.fetch_add(tree.tree.active_memtable().size(), Ordering::Relaxed);
    tree.tree.clear()
}
