//! Where the callers of this process and the task of a topic meet: who waits for an answer, which partitions are owned here.
//!
//! Not here: the task (`engine.rs`), who asks (`cancel.rs`).

use crate::{Error, ErrorKind, Result};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// How many cancels may wait for their answer.
const MOST_ASKED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Desk {
    asked: Mutex<HashMap<u128, oneshot::Sender<bool>>>,
    owned: Mutex<BTreeSet<u32>>,
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
    fn asked(&self) -> MutexGuard<'_, HashMap<u128, oneshot::Sender<bool>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits for the answer to a cancel with that token.
    pub(super) fn ask(self: &Arc<Self>, token: u128) -> Result<Waiting> {
        let mut asked = self.asked();
        if asked.len() >= MOST_ASKED {
            let why = format!("{MOST_ASKED} messages are being taken back; wait for some of them");
            return Err(Error::new(ErrorKind::Throttled, why));
        }
        let (tell, told) = oneshot::channel();
        asked.insert(token, tell);
        Ok(Waiting { desk: Arc::clone(self), token, told })
    }

    /// Answers a cancel that was asked here. `false`: it was not, or nobody waits any more.
    pub(super) fn answer(&self, token: u128, cancelled: bool) -> bool {
        let asked = self.asked().remove(&token);
        asked.is_some_and(|tell| tell.send(cancelled).is_ok())
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
