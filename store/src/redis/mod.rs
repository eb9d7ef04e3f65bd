//! Connections to Redis 7.0 or newer: one server, the primary that sentinels name, a cluster; over TCP, TLS or a socket of this machine.
//!
//! [`Redis`] asks on a pool of connections, each request on one for itself ([`Redis::query`], [`Redis::pipeline`], [`Redis::transaction`],
//! scripts by hash). [`Lane`] is one connection that keeps the order of many callers. [`Dedicated`] is one that waits for what comes. [`Routed`] is
//! one for each node of a cluster that is needed, for commands that keep their order.
//! Every failure says whether what was asked for may have been done ([`Error::outcome`]): that is told from the bytes that the socket took.
//! What a server can and guarantees ([`Server`]) is asked with each connection that is made.
//! redis-rs encodes commands and runs the shared connections; sockets, TLS, routing in a cluster and repetition are here, because its own
//! send a request again whose answer was lost. Not here: the meaning of keys (that is for those who store something).

mod absent;
mod breaker;
mod channels;
mod dedicated;
mod dial;
mod dialer;
mod error;
mod homes;
mod lane;
mod link;
mod metrics;
mod node;
mod nodes;
mod packed;
mod request;
mod routed;
mod script;
mod server;
mod settings;
mod slots;
mod status;
mod stream;
mod tls;
mod topology;
mod turn;
mod url;
mod variables;
mod wire;

pub use ::redis::{Cmd, FromRedisValue, ToRedisArgs, Value, cmd, from_redis_value};
pub use channels::{Received, Subscription};
pub use dedicated::Dedicated;
pub use error::{Error, ErrorKind, Outcome, Result};
pub use homes::Homes;
pub use lane::Lane;
pub use metrics::RedisMetrics;
pub use nodes::{Place, places};
pub use request::{Everywhere, Resend};
pub use routed::Routed;
pub use script::Script;
pub use server::{Durable, Identity, OLDEST, Role, Server, Version};
pub use settings::{RedisSettings, Secret, Target, TlsSettings};
pub use slots::slot_of_key;
pub use status::{Health, Seen, Status};
pub use url::Address;
pub use wire::Reply;

use script::Scripts;
use status::Board;
use std::{fmt, sync::Arc};
use tokio::{sync::watch, task::AbortHandle};
use topology::Topology;

/// Connections to Redis. Cloning is cheap; all clones share them. They are closed when the last clone, lane and subscription is dropped.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

struct Shared {
    settings: Arc<RedisSettings>,
    topology: Arc<Topology>,
    scripts: Arc<Scripts>,
    metrics: RedisMetrics,
    keeper: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}", self.0.settings.target)
    }
}

impl Redis {
    /// Connects, with metrics that are shown nowhere. Needs a runtime of Tokio of any kind.
    ///
    /// Returns when the server (in a cluster: each primary that is there, at least one) has answered and said what it can. A server that goes away later is waited for:
    /// requests fail meanwhile ([`ErrorKind::Unavailable`], then [`ErrorKind::BreakerOpen`]), [`Redis::status`] says so, and they succeed again
    /// when it is back.
    ///
    /// # Errors
    /// `Settings`, or why the server cannot be used now: `Unavailable`, `Auth`, `Tls`, `NotRedis`, `Version`, `Loading`.
    pub async fn connect(settings: RedisSettings) -> Result<Self> {
        let metrics = RedisMetrics::unregistered().map_err(|error| Error::settings(error.to_string()))?;
        Self::connect_with(settings, metrics).await
    }

    /// The same, with metrics that are registered.
    ///
    /// # Errors
    /// As for [`Redis::connect`].
    pub async fn connect_with(settings: RedisSettings, metrics: RedisMetrics) -> Result<Self> {
        settings.check()?;
        let settings = Arc::new(settings);
        let board = Arc::new(Board::new());
        let topology = Arc::new(Topology::new(Arc::clone(&settings), Arc::clone(&board))?);
        topology.owner(None).await?;
        let mut absent = None;
        let nodes = topology.nodes();
        for node in &nodes {
            let began = async {
                node.maintain().await?;
                node.probe().await
            };
            match began.await {
                // It may be one of several that is away: those that are there are used.
                Err(error) if error.kind().is_absence() && nodes.len() > 1 => absent = Some(error),
                began => began?,
            }
        }
        if let Some(error) = absent.filter(|_| board.watch().borrow().health() == Health::Down) {
            return Err(error);
        }
        let keeper =
            tokio::spawn(keep(Arc::clone(&settings), Arc::clone(&topology), metrics.clone())).abort_handle();
        Ok(Self(Arc::new(Shared { settings, topology, scripts: Arc::default(), metrics, keeper })))
    }

    /// How the servers are, and what they can. Changes are seen at once by requests, and by probes every
    /// [`probe_every`](RedisSettings::probe_every); after each reconnection a server is asked again. Only the newest state is kept.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.topology.board.watch()
    }

    /// How connections were set up.
    #[must_use]
    pub fn settings(&self) -> &RedisSettings {
        &self.0.settings
    }
}

/// Probes the servers, keeps the pools at their bounds and the gauges true.
async fn keep(settings: Arc<RedisSettings>, topology: Arc<Topology>, metrics: RedisMetrics) {
    let mut shown = std::collections::BTreeSet::new();
    let mut probed = tokio::time::Instant::now();
    let each = settings.probe_every.min(std::time::Duration::from_secs(1));
    loop {
        tokio::time::sleep(each).await;
        let all = probed.elapsed() >= settings.probe_every;
        if all {
            probed = tokio::time::Instant::now();
        }
        let status = topology.board.watch().borrow().clone();
        let mut used = std::collections::BTreeSet::new();
        let nodes = topology.nodes();
        let look = nodes.iter().map(|node| async {
            node.dialer.look().await;
            let name = node.dialer.name();
            let troubled = status.servers.get(&name).is_some_and(|seen| seen.trouble.is_some());
            // What they find is on the board.
            if all || troubled || node.is_open() {
                drop(node.probe().await);
            }
            if !node.is_open() {
                drop(node.maintain().await);
            }
        });
        futures::future::join_all(look).await;
        let status = topology.board.watch().borrow().clone();
        for node in &nodes {
            let name = node.dialer.name();
            let up = status.servers.get(&name).is_some_and(|seen| seen.trouble.is_none());
            metrics.of_server(&name, node.connections(), up, node.is_open());
            used.insert(name);
        }
        for gone in shown.difference(&used) {
            metrics.forget(gone);
        }
        shown = used;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it compiles is the test.
    #[expect(unused, reason = "only its types matter")]
    fn every_call_can_be_spawned(redis: Redis, lane: Lane, mut own: Dedicated) {
        tokio::spawn(async move {
            let (a, b) = (cmd("PING"), RedisSettings::from_url("redis://h"));
            drop(redis.query(&a, Resend::Idempotent).await);
            drop(redis.pipeline(vec![], Resend::Idempotent).await);
            drop(redis.transaction(vec![], Resend::Idempotent).await);
            drop((redis.lane(None).await, redis.dedicated(None).await));
            drop((lane.pipeline(vec![]).await, lane.transaction(vec![]).await));
            drop(own.query(&a, std::time::Duration::ZERO).await);
            if let Ok(settings) = b {
                drop(Redis::connect(settings).await);
            }
        });
    }
}
