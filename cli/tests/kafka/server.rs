//! Where the servers of Kafka are, or why a test is ignored; and names that no other run uses.
//!
//! A variable of the environment says it, set by `cargo xtask test`; without it, what `cargo xtask servers up` wrote down. Not here: starting them
//! (`xtask/src/servers/kafka/`).

use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    path::PathBuf,
};

/// A server, as `cargo xtask servers` knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    /// One broker.
    Kafka,
    /// Three; each topic is on all of them, and acked when it is on two.
    Kafka3,
    /// One behind TLS that asks for a user.
    KafkaTls,
    /// The same, asking for a certificate instead.
    KafkaMtls,
}

impl Server {
    /// Its URL.
    ///
    /// # Errors
    /// Why there is none, in words that say what to run.
    pub(crate) fn url(self) -> Result<String, String> {
        let (variable, name) = match self {
            Self::Kafka => ("ROPEWAY_TEST_KAFKA_URL", "kafka"),
            Self::Kafka3 => ("ROPEWAY_TEST_KAFKA_3_URL", "kafka-3"),
            Self::KafkaTls => ("ROPEWAY_TEST_KAFKA_TLS_URL", "kafka-tls"),
            Self::KafkaMtls => ("ROPEWAY_TEST_KAFKA_MTLS_URL", "kafka-tls"),
        };
        told(variable)
            .ok_or_else(|| format!("no server: set {variable}, or run cargo xtask servers up {name}"))
    }
}

/// The folder with `ca.crt`, `client.crt` and `client.key` of those behind TLS, and `other-ca.crt` of an authority that signed none of them.
pub(crate) fn certificates() -> Result<PathBuf, String> {
    told("ROPEWAY_TEST_KAFKA_TLS_DIR").map(PathBuf::from).ok_or_else(|| "no certificates of Kafka".to_owned())
}

/// The user and the password that [`Server::KafkaTls`] takes.
pub(crate) fn user() -> Result<(String, String), String> {
    let of = |what: &str| {
        told(&format!("ROPEWAY_TEST_KAFKA_TLS_{what}")).ok_or_else(|| "no user of Kafka".to_owned())
    };
    Ok((of("USER")?, of("PASSWORD")?))
}

/// A name that no other test, and no other run, uses.
pub(crate) fn unique(name: &str) -> String {
    format!("t-{:016x}-{name}", RandomState::new().hash_one(name))
}

fn told(variable: &str) -> Option<String> {
    if let Some(value) = env::var(variable).ok().filter(|value| !value.is_empty()) {
        return Some(value);
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |to| root.join(to));
    let text = fs::read_to_string(target.join("servers/env")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    lines.find(|(name, _)| *name == variable).map(|(_, value)| value.to_owned())
}
