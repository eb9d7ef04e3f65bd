//! The key-value store in memory: gone with the process.
//!
//! Not here: the contract (`key_value.rs`), the store on disk (`fjall/`).

use crate::{
    Direction, Durability, Error, KeyValue, Keyspace, Limit, Page, Purpose, Result, Usage, WriteBatch,
    chunks::Chunks,
    key_value::{Collector, check_name},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// A [`KeyValue`] store in memory. Every durability is accepted, and none is given.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next: u32,
    names: BTreeMap<String, Keyspace>,
    maps: HashMap<Keyspace, Chunks>,
}

impl State {
    fn map(&self, keyspace: Keyspace) -> Result<&Chunks> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.maps.get(&keyspace).ok_or(Error::Dropped)
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // A thread that panics here leaves a whole state behind: no call panics between two changes that belong together.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> Result<RwLockWriteGuard<'_, State>> {
        let state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(Error::Closed) } else { Ok(state) }
    }
}

impl KeyValue for MemoryStore {
    fn open_keyspace(&self, name: &str, _purpose: Purpose) -> Result<Keyspace> {
        check_name(name)?;
        let mut state = self.state_mut()?;
        if let Some(keyspace) = state.names.get(name) {
            return Ok(*keyspace);
        }
        let keyspace = Keyspace(state.next);
        state.next += 1;
        state.names.insert(name.to_owned(), keyspace);
        state.maps.insert(keyspace, Chunks::default());
        Ok(keyspace)
    }

    fn drop_keyspace(&self, keyspace: Keyspace) -> Result<()> {
        let mut state = self.state_mut()?;
        let map = state.maps.remove(&keyspace).ok_or(Error::Dropped)?;
        state.names.retain(|_, other| *other != keyspace);
        drop(state);
        drop(map);
        Ok(())
    }

    fn keyspaces(&self) -> Result<Vec<String>> {
        let state = self.state();
        if state.closed { Err(Error::Closed) } else { Ok(state.names.keys().cloned().collect()) }
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.state().map(keyspace)?.get(key).cloned())
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: Limit,
    ) -> Result<Page> {
        let state = self.state();
        let map = state.map(keyspace)?;
        let mut found = Collector::new(limit);
        if to.is_some_and(|to| to <= from) {
            return Ok(found.finish());
        }
        let range = map.range(from, to);
        let mut take = |(key, value): &(Bytes, Bytes)| found.take(key.clone(), value.clone());
        match direction {
            Direction::Forward => _ = range.map(&mut take).find(|taken| !taken),
            Direction::Backward => _ = range.rev().map(&mut take).find(|taken| !taken),
        }
        Ok(found.finish())
    }

    fn commit(&self, batch: WriteBatch, _durability: Durability) -> Result<()> {
        let mut state = self.state_mut()?;
        batch.check()?;
        let mut last = None;
        for (keyspace, _, _) in &batch.writes {
            if last != Some(*keyspace) {
                state.map(*keyspace)?;
                last = Some(*keyspace);
            }
        }
        let mut writes = batch.writes.into_iter().peekable();
        while let Some((keyspace, _, _)) = writes.peek() {
            let keyspace = *keyspace;
            let mut of_one = std::iter::from_fn(|| {
                let (_, key, value) = writes.next_if(|(next, _, _)| *next == keyspace)?;
                Some((key, value))
            });
            match state.maps.get_mut(&keyspace) {
                Some(map) => map.apply(of_one),
                // It was looked for above.
                None => while of_one.next().is_some() {},
            }
        }
        Ok(())
    }

    fn flush(&self, keyspace: Keyspace) -> Result<()> {
        self.state().map(keyspace).map(drop)
    }

    fn usage(&self) -> Result<Usage> {
        let state = self.state();
        if state.closed {
            return Err(Error::Closed);
        }
        Ok(Usage { bytes: state.maps.values().map(|map| map.bytes()).sum(), free: None })
    }

    fn close(&self) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = State { closed: true, ..State::default() };
        Ok(())
    }
}
