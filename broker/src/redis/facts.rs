//! What the server said of itself when it was connected to last, and what an ack is worth by that.
//!
//! Not here: how it is asked (`ropeway_store::redis`).

use crate::Durability;
use ropeway_store::redis::{Durable, Server};
use std::sync::{Arc, Mutex, PoisonError};

/// What an acked message survives on that server, each about one machine.
pub(super) fn durability(server: &Server) -> Durability {
    // Our keys have no time to live, so that only these policies forget them.
    let evicts = server.eviction.as_deref().is_none_or(|policy| policy.starts_with("allkeys"));
    if evicts && server.max_memory != Some(0) {
        return Durability::Volatile;
    }
    match server.durable() {
        Durable::Always => Durability::PowerLoss,
        // Not with `appendfsync everysec`: while a sync takes long Redis answers before it writes to the file.
        _ if server.writes_first() => Durability::ProcessCrash,
        _ => Durability::Volatile,
    }
}

/// What the server said of itself when it was connected to last.
#[derive(Debug)]
pub(super) struct Facts(Mutex<Arc<Server>>);

impl Facts {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        Self(Mutex::new(Arc::clone(server)))
    }

    pub(super) fn server(&self) -> Arc<Server> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, server: &Arc<Server>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(server);
    }
}
