//! Where the callers of this process and the task of a topic meet: who waits for an answer, which partitions are owned here.
//!
//! Not here: the task (`engine.rs`), who asks (`cancel.rs`).

use super::names::SHELVES;
use crate::{Error, ErrorKind, Position, Result};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{MutexGuard as Turn, oneshot};

/// How many cancels may wait for their answer.
const MOST_ASKED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Desk {
    asked: Mutex<HashMap<u128, Asked>>,
    owned: Mutex<BTreeSet<u32>>,
    /// Why this process may not move messages.
    forbidden: Mutex<Option<Error>>,
    /// The servers say of the topic that it is none, or another.
    doubted: AtomicBool,
    /// Held by who looks in the log of a partition for the answers to all.
    looking: [tokio::sync::Mutex<()>; SHELVES as usize],
}

/// A cancel that waits for its answer.
#[derive(Debug)]
struct Asked {
    partition: u32,
    /// Where it lies, once that is known.
    at: Option<Position>,
    tell: oneshot::Sender<bool>,
}

/// One who waits for the answer to a cancel; it is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    desk: Arc<Desk>,
    token: u128,
    pub(super) told: oneshot::Receiver<bool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.asked().remove(&self.token);
    }
}

impl Desk {
    fn asked(&self) -> MutexGuard<'_, HashMap<u128, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits for the answer to a cancel with that token.
    pub(super) fn ask(self: &Arc<Self>, partition: u32, token: u128) -> Result<Waiting> {
        let mut asked = self.asked();
        if asked.len() >= MOST_ASKED {
            let why = format!("{MOST_ASKED} messages are being taken back; wait for some of them");
            return Err(Error::new(ErrorKind::Throttled, why));
        }
        let (tell, told) = oneshot::channel();
        asked.insert(token, Asked { partition, at: None, tell });
        Ok(Waiting { desk: Arc::clone(self), token, told })
    }

    /// It lies there.
    pub(super) fn lies(&self, token: u128, at: Position) {
        if let Some(asked) = self.asked().get_mut(&token) {
            asked.at = Some(at);
        }
    }

    /// The turn to look for answers in the log of a partition: one does it for all, as each takes a connection.
    pub(super) async fn looks(&self, partition: u32) -> Option<Turn<'_, ()>> {
        Some(self.looking.get(partition as usize)?.lock().await)
    }

    /// Where the first lies of those that wait for an answer in that partition.
    pub(super) fn first(&self, partition: u32) -> Option<Position> {
        let asked = self.asked();
        asked.values().filter(|asked| asked.partition == partition).filter_map(|asked| asked.at).min()
    }

    /// Answers a cancel that was asked here. `false`: it was not, or nobody waits any more.
    pub(super) fn answer(&self, token: u128, cancelled: bool) -> bool {
        let asked = self.asked().remove(&token);
        asked.is_some_and(|asked| asked.tell.send(cancelled).is_ok())
    }

    /// This process has no right to write what has to be written; another one may.
    pub(super) fn forbid(&self, why: Error) {
        self.forbidden.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Why it has none, told once.
    pub(super) fn forbidden(&self) -> Option<Error> {
        self.forbidden.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes whether the servers say of the topic that it is none, or another.
    pub(super) fn doubt(&self, doubted: bool) {
        self.doubted.store(doubted, Ordering::Relaxed);
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    pub(super) fn owns(&self, partition: u32) -> bool {
        self.owned().contains(&partition)
    }

    /// A partition is owned here from now on, or no more.
    pub(super) fn set_owned(&self, partition: u32, owned: bool) {
        if owned {
            self.owned().insert(partition);
        } else {
            self.owned().remove(&partition);
        }
    }

    /// Nothing is owned here.
    pub(super) fn set_none_owned(&self) {
        self.owned().clear();
    }
}
