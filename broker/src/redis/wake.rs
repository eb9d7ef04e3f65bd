//! Waking a read that waits on the server for what comes.
//!
//! Not here: the read itself (`feed.rs`).

use super::{commands::Commands, request::Request};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// How often it is tried: a read may be decided on, or on its way to the server, and not wait there yet.
const TRIES: usize = 20;
/// The time between tries.
const BETWEEN: Duration = Duration::from_millis(5);

/// Lets others end the wait of one who reads in turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Wake {
    blocked: Arc<Blocked>,
    turns: Arc<AtomicU64>,
}

/// A read that may wait.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// The number of the connection over which it waits on the server; 0: it does not.
    pub(super) connection: AtomicI64,
    /// The home that this is a connection to, by its number: on another one that number is somebody else's.
    pub(super) home: AtomicU64,
    /// Ends a wait in this process.
    pub(super) here: Notify,
}

impl Wake {
    /// For [`super::feed::Feed::read`].
    pub(super) fn blocked(&self) -> &Blocked {
        &self.blocked
    }

    /// Says that what was changed until now is heeded: called before it is decided what to read next.
    pub(super) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends the wait of the read that is under way, if one is. Where the server does not let this user, the read ends by itself.
    pub(super) fn wake(&self, commands: &Commands) {
        let before = self.turns.load(Ordering::SeqCst);
        self.blocked.here.notify_one();
        let (wake, commands) = (self.clone(), commands.clone());
        tokio::spawn(async move {
            for _ in 0..TRIES {
                if wake.turns.load(Ordering::SeqCst) != before {
                    return;
                }
                let id = wake.blocked.connection.load(Ordering::SeqCst);
                if id != 0 {
                    let mut request = Request::default();
                    request.command(&["CLIENT", "UNBLOCK", &id.to_string()]);
                    let home = wake.blocked.home.load(Ordering::SeqCst);
                    if commands.ask_only(request, Some(home)).await.is_err() {
                        return;
                    }
                }
                sleep(BETWEEN).await;
            }
        });
    }
}
