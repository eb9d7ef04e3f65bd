//! Redis Streams as the conformance suites want it: on the server that `server.rs` finds, under a prefix of its own for each trial.
//!
//! Not here: what is checked (`broker/src/conformance`), opening and ending a broker there (`place.rs`).

use crate::{
    place::Place,
    server::{Server, unique},
};
use ropeway_broker::{
    Error, ErrorKind, RedisStreams, Result,
    conformance::{Backend, Provides, Setup, Store},
};
use ropeway_store::redis::{Redis as Connection, RedisSettings};
use tokio::runtime::Builder;

/// Redis Streams on real servers.
#[derive(Clone, Copy, Debug)]
pub enum Redis {
    /// `redis:` on one server.
    Alone,
    /// `redis+sentinel:` on a primary with a replica.
    Sentinel,
    /// `redis+cluster:` on three nodes.
    Cluster,
}

impl Redis {
    const fn server(self) -> Server {
        match self {
            Self::Alone => Server::Redis,
            Self::Sentinel => Server::RedisReplica,
            Self::Cluster => Server::RedisCluster,
        }
    }

    const fn shape(self) -> &'static str {
        match self {
            Self::Alone => "",
            Self::Sentinel => ", a primary and a replica that a sentinel watches",
            Self::Cluster => ", a cluster of three nodes",
        }
    }
}

impl Backend for Redis {
    fn name(&self) -> &str {
        match self {
            Self::Alone => "redis",
            Self::Sentinel => "redis-sentinel",
            Self::Cluster => "redis-cluster",
        }
    }

    fn absent(&self) -> Option<String> {
        self.server().url().err()
    }

    fn runs_on(&self) -> String {
        let version = || {
            let settings =
                RedisSettings::from_url(&self.server().url()?).map_err(|error| error.to_string())?;
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(async {
                let redis = Connection::connect(settings).await.map_err(|error| error.to_string())?;
                let connection = redis.dedicated(None).await.map_err(|error| error.to_string())?;
                Ok(format!("Redis {}{}", connection.server().version, self.shape()))
            })
        };
        version().unwrap_or_else(|why: String| format!("Redis of an unknown version ({why})"))
    }

    fn provides(&self) -> Provides {
        Provides { reopen: true, crash: true, unreadable: true, retention: true, ..Provides::default() }
    }

    fn store(&self, setup: Setup) -> Result<Box<dyn Store>> {
        let url = self.server().url().map_err(|why| Error::new(ErrorKind::Unavailable, why))?;
        let mut url =
            format!("{}?prefix={}&lease=3s", url.split('?').next().unwrap_or_default(), unique("c"));
        if let Some(piece) = setup.piece {
            url.push_str(&format!("&segment={piece}"));
        }
        Ok(Box::new(Place::<RedisStreams>::at(url, |_| {})))
    }
}
