//! A connection of one's own that many callers share, and that keeps their order.
//!
//! Not here: requests that need no order (`request.rs`), waiting for what comes (`dedicated.rs`).

use super::{
    Redis,
    error::Result,
    link::{Link, Request},
    request::pipe,
    script::Scripts,
    server::Server,
    slots::slot_of_key,
};
use ::redis::{Cmd, Value};
use std::{fmt, sync::Arc, time::Duration};

/// One connection, outside of the pool. Requests are written in the order in which their calls were first polled and are done in that order;
/// many may be open at a time, also of many tasks (cloning is cheap). Nothing is ever sent again and the connection is not mended: once it
/// has ended, all later calls fail as not done, and a new one is asked for with [`Redis::lane`].
#[derive(Clone)]
pub struct Lane {
    link: Arc<Link>,
    scripts: Arc<Scripts>,
    within: Duration,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane to {}", self.link.address)
    }
}

impl Redis {
    /// Opens a [`Lane`]: in a cluster to the server that has `key`, else to the one there is.
    ///
    /// # Errors
    /// As for [`Redis::connect`].
    pub async fn lane(&self, key: Option<&[u8]>) -> Result<Lane> {
        let node = self.0.topology.owner(key.map(slot_of_key)).await?;
        let link = Arc::new(Link::of(node.dialer.open().await?).await?);
        Ok(Lane { link, scripts: Arc::clone(&self.0.scripts), within: self.0.settings.request_timeout })
    }
}

impl Lane {
    /// Asks several things at once; one result for each, in order. A call by hash of a script that was introduced ([`Redis::introduce`]) and
    /// that the server does not know is done again in full, after the others.
    ///
    /// Dropping the call leaves open what was done; later calls are not disturbed.
    pub async fn pipeline(&self, commands: Vec<Cmd>) -> Vec<Result<Value>> {
        if commands.is_empty() {
            return Vec::new();
        }
        let commands = pipe(commands);
        let result = self.link.run(Request::Many(&commands), self.within).await;
        let mut results = result
            .unwrap_or_else(|error| commands.cmd_iter().map(|_| Err(error.clone())).collect::<Vec<_>>());
        for (place, full) in self.scripts.missing(&commands, &results) {
            results[place] = self.ask(&full).await;
        }
        results
    }

    /// Does several things as one step, as [`Redis::transaction`] does.
    ///
    /// # Errors
    /// None of them was done, or nobody knows.
    pub async fn transaction(&self, commands: Vec<Cmd>) -> Result<Vec<Result<Value>>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = pipe(commands);
        commands.atomic();
        self.link.run(Request::Atomic(&commands), self.within).await
    }

    async fn ask(&self, command: &Cmd) -> Result<Value> {
        let answers = self.link.run(Request::One(command), self.within).await?;
        answers.into_iter().next().unwrap_or(Ok(Value::Nil))
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.link.ended()
    }

    /// What the server said of itself when this connection was made.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.link.server
    }

    /// The number that the server gave this connection.
    #[must_use]
    pub fn client_id(&self) -> i64 {
        self.link.client_id
    }
}
