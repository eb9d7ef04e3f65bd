//! Real servers for tests: where they are, or why a test is ignored; and names that no other run uses.
//!
//! A test asks for the URL of a server. That is the variable of the environment, set by `cargo xtask test` or by who has a server already;
//! without it, what `cargo xtask servers up` wrote down. Where there is neither, the test is shown as ignored, with what to run. Not here:
//! starting servers (`xtask/src/servers/mod.rs`).

use libtest_mimic::{Completion, Failed, Trial};
use std::{
    env, fs,
    net::{TcpStream, ToSocketAddrs as _},
    path::PathBuf,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A server, as `cargo xtask servers` knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `redis://127.0.0.1:PORT`: append-only, synced at each write.
    Redis,
    /// `unix://PATH`: the same one by its socket.
    RedisUnix,
    /// `rediss://:PASSWORD@127.0.0.1:PORT`; its certificates are in the folder that [`Server::certificates`] returns.
    RedisTls,
    /// The same, where clients need a certificate as well.
    RedisMtls,
    /// `redis+sentinel://127.0.0.1:PORT/NAME`: a sentinel that watches a primary with one replica.
    RedisReplica,
    /// `redis://127.0.0.1:PORT` of that replica, unless it was promoted since.
    RedisReadOnly,
    /// `redis+cluster://127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT`: three nodes without replicas.
    RedisCluster,
    /// `kafka://127.0.0.1:PORT`.
    Kafka,
    /// `kafka://127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT`: each topic is on all three, and acked when it is on two.
    Kafka3,
    /// `kafka+ssl://127.0.0.1:PORT`: it takes the user that [`Server::user`] returns, by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    KafkaTls,
    /// `kafka+ssl://127.0.0.1:PORT`: clients need a certificate.
    KafkaMtls,
    /// `pulsar://127.0.0.1:PORT`.
    Pulsar,
    /// `http://127.0.0.1:PORT`: its administration.
    PulsarAdmin,
}

impl Server {
    /// Variable of the environment, and what `cargo xtask servers up` calls it.
    fn known_as(self) -> (&'static str, &'static str) {
        match self {
            Self::Redis => ("ROPEWAY_TEST_REDIS_URL", "redis"),
            Self::RedisUnix => ("ROPEWAY_TEST_REDIS_UNIX_URL", "redis"),
            Self::RedisTls => ("ROPEWAY_TEST_REDIS_TLS_URL", "redis-tls"),
            Self::RedisMtls => ("ROPEWAY_TEST_REDIS_MTLS_URL", "redis-tls"),
            Self::RedisReplica => ("ROPEWAY_TEST_REDIS_REPLICA_URL", "redis-replica"),
            Self::RedisReadOnly => ("ROPEWAY_TEST_REDIS_READ_ONLY_URL", "redis-replica"),
            Self::RedisCluster => ("ROPEWAY_TEST_REDIS_CLUSTER_URL", "redis-cluster"),
            Self::Kafka => ("ROPEWAY_TEST_KAFKA_URL", "kafka"),
            Self::Kafka3 => ("ROPEWAY_TEST_KAFKA_3_URL", "kafka-3"),
            Self::KafkaTls => ("ROPEWAY_TEST_KAFKA_TLS_URL", "kafka-tls"),
            Self::KafkaMtls => ("ROPEWAY_TEST_KAFKA_MTLS_URL", "kafka-tls"),
            Self::Pulsar => ("ROPEWAY_TEST_PULSAR_URL", "pulsar"),
            Self::PulsarAdmin => ("ROPEWAY_TEST_PULSAR_ADMIN_URL", "pulsar"),
        }
    }

    /// Its URL.
    ///
    /// # Errors
    /// Why there is none, in words that say what to run; then the test is ignored, with them.
    pub fn url(self) -> Result<String, String> {
        let (variable, name) = self.known_as();
        if let Some(url) = set(variable) {
            return Ok(url);
        }
        let advice = format!("set {variable}, or run cargo xtask servers up {name}");
        match written(&fs::read_to_string(folder().join("env")).unwrap_or_default(), variable) {
            None => Err(format!("no server: {advice}")),
            Some(url) if answers(&url) => Ok(url),
            Some(url) => Err(format!("nothing answers at {url} any more: {advice}")),
        }
    }

    /// The folder with `ca.crt`, `client.crt` and `client.key` of one behind TLS, and `other-ca.crt` of an authority that signed none of them.
    ///
    /// # Errors
    /// As [`Server::url`].
    pub fn certificates(self) -> Result<PathBuf, String> {
        self.told("DIR").map(PathBuf::from)
    }

    /// User and password for the one that asks for them.
    ///
    /// # Errors
    /// As [`Server::url`].
    pub fn user(self) -> Result<(String, String), String> {
        Ok((self.told("USER")?, self.told("PASSWORD")?))
    }

    /// What Java was given when `cargo xtask servers up` started one that is a Java program: jars and flags, as they stand in a file of arguments. It is
    /// there also when the server is down.
    #[must_use]
    pub fn arguments(self) -> Option<String> {
        fs::read_to_string(folder().join(self.known_as().1).join("java.args")).ok()
    }

    /// What else is known of a server, beside its URL.
    fn told(self, what: &str) -> Result<String, String> {
        self.url()?;
        let variable = format!("ROPEWAY_TEST_{}_{what}", self.known_as().1.to_uppercase().replace('-', "_"));
        let file = || fs::read_to_string(folder().join("env")).unwrap_or_default();
        let told = set(&variable).or_else(|| written(&file(), &variable));
        told.ok_or_else(|| format!("not known: set {variable}"))
    }
}

/// A trial that gets the URL of `server`, and is ignored with the reason where there is none.
pub fn trial(
    name: &str,
    server: Server,
    run: impl FnOnce(&str) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    // No ignored flag: with that the reason would not be printed.
    let run = move || match server.url() {
        Ok(url) => run(&url).map(|()| Completion::Completed),
        Err(why) => Ok(Completion::ignored_with(why)),
    };
    Trial::ignorable_test(name, run).with_kind(server.known_as().1)
}

/// A name that no other test, and no other run, uses on any server: `t-RUN-NUMBER-NAME`, of letters, digits and `-`.
#[must_use]
pub fn unique(name: &str) -> String {
    static RUN: LazyLock<u64> = LazyLock::new(rand::random);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("t-{:016x}-{}-{name}", *RUN, NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

fn folder() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |to| root.join(to));
    target.join("servers")
}

/// What the text of `target/servers/env` says of a variable.
fn written(text: &str, variable: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    lines.find(|(name, _)| *name == variable).map(|(_, value)| value.to_owned())
}

/// Whether the first server of a URL takes connections; for what is no address, whether it is there.
fn answers(url: &str) -> bool {
    if let Some(path) = url.strip_prefix("unix://") {
        return PathBuf::from(path).exists();
    }
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', ',']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let mut addresses = host.to_socket_addrs().into_iter().flatten();
    addresses.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, net::TcpListener};

    #[test]
    fn names_are_never_used_twice() {
        let names: HashSet<String> = (0..1000).map(|_| unique("orders")).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')));
    }

    #[test]
    fn what_was_written_down_is_read() {
        let text = "A=1\nROPEWAY_TEST_REDIS_URL=redis://127.0.0.1:1/?a=b\n";
        assert_eq!(written(text, "ROPEWAY_TEST_REDIS_URL").as_deref(), Some("redis://127.0.0.1:1/?a=b"));
        assert_eq!(written(text, "ROPEWAY_TEST_REDIS"), None);
    }

    #[test]
    fn a_server_that_is_gone_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let urls =
            ["redis://127.0.0.1:PORT", "rediss://:p@127.0.0.1:PORT/0", "redis+cluster://127.0.0.1:PORT,x"];
        let urls = urls.map(|url| url.replace("PORT", &port.to_string()));
        assert!(urls.iter().all(|url| answers(url)), "{urls:?}");
        drop(listener);
        assert!(urls.iter().all(|url| !answers(url)));
        assert!(!answers("unix:///no/such/socket"));
    }
}
