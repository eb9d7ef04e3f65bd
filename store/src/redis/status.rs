//! How the servers are, as the last requests and probes found them, for those who watch.
//!
//! Not here: what makes a server good or bad (`node.rs`), who probes (`mod.rs`).

use super::{
    error::Error,
    server::{Durable, Server},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// How all servers together are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// Each answers.
    Up,
    /// Some do not: requests for what they hold fail, others go on.
    Degraded,
    /// None answers.
    Down,
}

/// One server, as it was last seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it said of itself when a connection to it was last made. `None` where none ever was.
    pub server: Option<Arc<Server>>,
    /// Why it does not answer; `None` where it does.
    pub trouble: Option<Error>,
    /// How often it was found restarted or replaced, or other than before.
    pub changes: u64,
}

/// All servers that are used, by address; a cluster's primaries, else one.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What is known of each.
    pub servers: BTreeMap<Arc<str>, Seen>,
}

impl Status {
    /// All of them together.
    #[must_use]
    pub fn health(&self) -> Health {
        let troubled = self.servers.values().filter(|seen| seen.trouble.is_some()).count();
        match troubled {
            0 if self.servers.is_empty() => Health::Down,
            0 => Health::Up,
            all if all == self.servers.len() => Health::Down,
            _ => Health::Degraded,
        }
    }

    /// What survives a power cut of any of them: the least.
    #[must_use]
    pub fn durable(&self) -> Durable {
        let durable = |seen: &Seen| seen.server.as_ref().map_or(Durable::Nothing, |server| server.durable());
        self.servers.values().map(durable).min().unwrap_or(Durable::Nothing)
    }

    /// The least that all of them said of themselves; `None` where none ever did. One that never could be asked is not counted.
    pub(super) fn lowest(&self) -> Option<Server> {
        let mut told = self.servers.values().filter_map(|seen| seen.server.as_deref());
        let first = told.next()?.clone();
        Some(told.fold(first, |least, server| least.least(server)))
    }

    /// Whether any of them may forget keys by itself. True where nobody knows.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.servers.values().any(|seen| seen.server.as_ref().is_none_or(|server| server.evicts()))
    }
}

/// Where what is seen is written down.
#[derive(Debug)]
pub(super) struct Board(watch::Sender<Status>);

impl Board {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Status::default()))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// A connection was made, and this is what the server said. That it serves again is known when it has answered a request.
    pub(super) fn connected(&self, address: &Arc<str>, server: &Arc<Server>) {
        self.change(|status| {
            let first = Seen { server: None, trouble: None, changes: 0 };
            let seen = status.servers.entry(Arc::clone(address)).or_insert(first);
            let same = seen.server.as_deref() == Some(&**server);
            if !same && seen.server.is_some() {
                seen.changes += 1;
                tracing::warn!(server = %address, changes = seen.changes, "redis was restarted, replaced or set up anew");
            }
            seen.server = Some(Arc::clone(server));
            !same
        });
    }

    /// A request was answered, or failed because the server is not there.
    pub(super) fn answered(&self, address: &Arc<str>, trouble: Option<&Error>) {
        self.change(|status| {
            let before = status.servers.get(address);
            if before.is_some_and(|seen| seen.trouble.is_some() == trouble.is_some()) {
                return false;
            }
            let first = Seen { server: None, trouble: None, changes: 0 };
            status.servers.entry(Arc::clone(address)).or_insert(first).trouble = trouble.cloned();
            true
        });
    }

    /// Only these are used any more.
    pub(super) fn keep(&self, used: impl Fn(&str) -> bool) {
        self.change(|status| {
            let before = status.servers.len();
            status.servers.retain(|address, _| used(address));
            status.servers.len() != before
        });
    }

    fn change(&self, change: impl FnOnce(&mut Status) -> bool) {
        let mut told = None;
        self.0.send_if_modified(|status| {
            let before = status.health();
            let changed = change(status);
            let after = status.health();
            told = (before != after).then_some(after);
            changed
        });
        match told {
            Some(Health::Up) => tracing::info!("redis is up"),
            Some(Health::Degraded) => tracing::warn!("redis is degraded: some of its servers do not answer"),
            Some(Health::Down) => tracing::warn!("redis is down"),
            None => {}
        }
    }
}
