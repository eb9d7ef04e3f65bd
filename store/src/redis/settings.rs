//! How connections to Redis are set up.
//!
//! Not here: what a URL says (`url.rs`), what variables of the environment say (`variables.rs`).

use super::{
    error::{Error, Result},
    url::{self, Address},
};
use rand::RngExt;
use std::{fmt, path::PathBuf, time::Duration};

/// A password. It is shown as `***`.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The password itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is connected to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// One server.
    Single(Address),
    /// The primary of a service, as its sentinels name it.
    Sentinel {
        /// Where sentinels listen; asked in this order.
        sentinels: Vec<Address>,
        /// The name of the service.
        service: String,
    },
    /// A cluster.
    Cluster(
        /// Nodes to ask for the others, in this order.
        Vec<Address>,
    ),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, addresses: &[Address]| {
            for (index, address) in addresses.iter().enumerate() {
                write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
            }
            Ok(())
        };
        match self {
            Self::Single(address) => address.fmt(f),
            Self::Sentinel { sentinels, service } => {
                list(f, sentinels)?;
                write!(f, "/{service}")
            }
            Self::Cluster(nodes) => list(f, nodes),
        }
    }
}

/// TLS. The server's certificate and name are always checked. Files are in PEM, and are read again for each new connection, so that a
/// certificate is changed by replacing its files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsSettings {
    /// Who may have signed the server's certificate. Default: those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// The client's certificate, with those between it and its CA. Default: none is shown.
    pub cert: Option<PathBuf>,
    /// The key of `cert`.
    pub key: Option<PathBuf>,
}

/// How connections to Redis are set up. Begin with a URL ([`RedisSettings::from_url`]) and change what must be different. Its `Debug` form
/// holds no password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisSettings {
    /// What is connected to.
    pub target: Target,
    /// The user (ACL). Default: the server's default user.
    pub username: Option<String>,
    /// The password. Default: none.
    pub password: Option<Secret>,
    /// The user for the sentinels themselves. Default: none.
    pub sentinel_username: Option<String>,
    /// The password for the sentinels themselves. Default: none.
    pub sentinel_password: Option<Secret>,
    /// The database. Default: 0.
    pub db: u32,
    /// TLS. Default: none, unless the URL asks for it.
    pub tls: Option<TlsSettings>,
    /// The name that `CLIENT LIST` shows. Default: `ropeway`.
    pub client_name: String,
    /// Connections of the pool to one server at most. Lanes, dedicated connections and subscriptions come on top. Default: 10.
    pub pool_size: usize,
    /// Connections that are kept open to one server though nobody uses them; at most `pool_size`. Default: 5.
    pub min_idle: usize,
    /// How long a connection beyond those may lie idle. Default: 5 minutes.
    pub idle_timeout: Duration,
    /// How old a connection of the pool becomes before it is replaced. Default: 30 minutes.
    pub max_lifetime: Duration,
    /// How long a connection may take to be ready (name, socket, TLS, password, first answers together), and how long a call waits for a
    /// free one. Default: 5 seconds.
    pub connect_timeout: Duration,
    /// How long a request may take, from being written to the whole of its answer being read. Default: 3 seconds.
    pub request_timeout: Duration,
    /// How often a request is tried again when it certainly was not done, or is said to be idempotent. Default: 3.
    pub retries: u32,
    /// The wait before retry n is between nothing and this times 2^(n-1), evenly (full jitter). Default: 50 ms.
    pub retry_base: Duration,
    /// The longest such wait. Default: 1 second.
    pub retry_cap: Duration,
    /// How many payloads a subscription buffers. Default: 1024.
    pub subscription_buffer: usize,
    /// How many bytes they may have together. Default: 16 MiB.
    pub subscription_bytes: usize,
    /// How often servers are probed. Default: 30 seconds.
    pub probe_every: Duration,
    /// After how many failures in a row a server is left alone for a while. Default: 5.
    pub breaker_failures: u32,
    /// How long it is left alone before one request tries again. Default: 1 second.
    pub breaker_pause: Duration,
}

impl RedisSettings {
    /// The defaults for `target`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            db: 0,
            tls: None,
            client_name: "ropeway".to_owned(),
            pool_size: 10,
            min_idle: 5,
            idle_timeout: Duration::from_secs(5 * 60),
            max_lifetime: Duration::from_secs(30 * 60),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(3),
            retries: 3,
            retry_base: Duration::from_millis(50),
            retry_cap: Duration::from_secs(1),
            subscription_buffer: 1024,
            subscription_bytes: 16 * 1024 * 1024,
            probe_every: Duration::from_secs(30),
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(1),
        }
    }

    /// From a URL.
    ///
    /// | URL | What |
    /// |---|---|
    /// | `redis://[user[:password]@]host[:port][/db]` | one server; port 6379, database 0 |
    /// | `rediss://...` | the same over TLS |
    /// | `redis+unix:///path/to.sock`, `unix:///path/to.sock` | a socket of this machine; `?db=1` chooses the database |
    /// | `redis+sentinel://[user[:password]@]host[:port][,host[:port]...]/service[/db]` | the primary that sentinels name; port 26379 |
    /// | `redis+cluster://[user[:password]@]host[:port][,host[:port]...]` | a cluster, found through any of these nodes; port 6379 |
    /// | `rediss+sentinel://...`, `rediss+cluster://...` | the same over TLS |
    ///
    /// User, password and service are percent-encoded where they hold one of `:/?#@%`. Parameters: `ca=FILE`, `cert=FILE`, `key=FILE` (TLS, PEM),
    /// `db=N`, `pool_size=N`, `sentinel_user=...`, `sentinel_password=...`.
    ///
    /// # Errors
    /// `Settings`, where it is wrong or has a parameter that is not known. The error does not repeat the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let (settings, rest) = url::parse(url)?;
        match rest.first() {
            None => Ok(settings),
            Some((name, _)) => {
                Err(Error::settings(format!("the URL of Redis has an unknown parameter {name:?}")))
            }
        }
    }

    /// The same, for those who have parameters of their own: what is not known here is handed back, decoded, in order.
    ///
    /// # Errors
    /// `Settings`, where it is wrong.
    pub fn from_url_and_rest(url: &str) -> Result<(Self, Vec<(String, String)>)> {
        url::parse(url)
    }

    /// The wait before try `tried` + 1: full jitter, anything from nothing to the bound, which doubles with each try.
    pub(super) fn pause(&self, tried: u32) -> Duration {
        let bound = self.retry_base.saturating_mul(2_u32.saturating_pow(tried.saturating_sub(1)));
        bound.min(self.retry_cap).mul_f64(rand::rng().random())
    }

    /// Whether these settings can be meant.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::settings(what));
        if self.pool_size == 0 || self.pool_size > 10_000 {
            return wrong("the size of the pool is from 1 to 10000 connections");
        }
        if self.db != 0 && matches!(self.target, Target::Cluster(_)) {
            return wrong("a cluster has only database 0");
        }
        if self.username.is_some() && self.password.is_none() {
            return wrong(
                "there is a user without a password; write user:password@ (or :password@ for the default user)",
            );
        }
        if let Some(tls) = &self.tls {
            if tls.cert.is_some() != tls.key.is_some() {
                return wrong(
                    "a client's certificate needs its key, and the key its certificate (cert= and key=)",
                );
            }
            if matches!(self.target, Target::Single(Address::Unix(_))) {
                return wrong("a socket of this machine has no TLS");
            }
        }
        let durations = [
            ("idle_timeout", self.idle_timeout),
            ("max_lifetime", self.max_lifetime),
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("probe_every", self.probe_every),
        ];
        match durations.iter().find(|(_, duration)| duration.is_zero()) {
            Some((name, _)) => wrong(&format!("{name} must be longer than nothing")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_a_retry_is_anything_up_to_its_bound() {
        let settings = RedisSettings::from_url("redis://h").unwrap();
        for (tried, bound) in [(1, 50), (2, 100), (3, 200), (10, 1000), (u32::MAX, 1000)] {
            let waits: Vec<u128> = (0..200).map(|_| settings.pause(tried).as_millis()).collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "{tried}: {waits:?}");
            assert!(
                waits.iter().any(|wait| *wait < bound / 4) && waits.iter().any(|wait| *wait > bound * 3 / 4)
            );
        }
    }

    #[test]
    fn the_defaults_are_those_that_are_promised() {
        let settings = RedisSettings::from_url("redis://h").unwrap();
        let seconds = [
            settings.idle_timeout,
            settings.max_lifetime,
            settings.connect_timeout,
            settings.request_timeout,
            settings.probe_every,
        ];
        assert_eq!(seconds.map(|duration| duration.as_secs()), [300, 1800, 5, 3, 30]);
        assert_eq!((settings.pool_size, settings.min_idle, settings.retries), (10, 5, 3));
    }
}
