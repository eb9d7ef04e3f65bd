//! What each client of the library (librdkafka) is told, as names and values.
//!
//! Nothing in the library decides for us: positions, starts and handing over are ours. Not here: what a user may add (`allowed.rs`), what a
//! setting of ours means (`mod.rs`).

use super::{KafkaCompression, KafkaGroupProtocol, KafkaMechanism, KafkaSettings};
use crate::{Group, Result, kafka::raw::Conf};
use rdkafka::ClientConfig;
use std::{path::Path, time::Duration};

/// What only a consumer heeds, of what a user may add: a producer would warn of it.
const OF_CONSUMERS: &[&str] = &[
    "fetch.",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "queued.",
];
/// The same of producers.
const OF_PRODUCERS: &[&str] =
    &["batch.num.messages", "compression.level", "max.in.flight", "request.timeout.ms"];

/// The largest request: beyond any message that is let through.
const LARGEST_REQUEST: usize = 256 * 1024 * 1024;
/// What a member fetches ahead, in bytes; what one answer brings may come on top. Little is fetched ahead, so that it is still in the processor's caches
/// when it is copied, and its memory is used again: what a slow user waits for lies ready copied.
const AHEAD: usize = 2 * 1024 * 1024;
/// The same of a reader, which keeps it for as long as its user is slow, and what one answer brings: some come on top before the library looks.
const AHEAD_OF_READERS: (usize, usize) = (4 * 1024 * 1024, 2 * 1024 * 1024);
/// The same in records: the library counts payloads alone, and keys and headers may be large, too.
const RECORDS_OF_READERS: usize = 512;
/// How long a consumer that has fetched so much waits before it looks whether there is room; and a reader, which may be slow for long.
const FULL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));
/// The most bytes of a record batch, as the library has it by default.
pub(in crate::kafka) const BATCH: usize = 1_000_000;

/// Names and values, later ones before earlier ones. `Debug` shows names.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::kafka) struct Values(Vec<(String, String)>);

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Values {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value.to_string()));
    }

    fn millis(&mut self, name: &str, time: Duration) {
        self.set(name, time.as_millis());
    }

    fn path(&mut self, name: &str, path: Option<&Path>) {
        if let Some(path) = path {
            self.set(name, path.display());
        }
    }

    /// The value.
    #[cfg(test)]
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// As our own clients take it.
    ///
    /// # Errors
    /// `Invalid` that names the setting.
    pub(in crate::kafka) fn conf(&self) -> Result<Conf> {
        let mut conf = Conf::new();
        for (name, value) in &self.0 {
            conf.set(name, value).map_err(|trouble| wrong(name, &trouble.text))?;
        }
        Ok(conf)
    }

    /// As the clients of the crate take it.
    pub(in crate::kafka) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        self.0.iter().for_each(|(name, value)| _ = config.set(name, value));
        config
    }
}

/// Who joins a group.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) struct Joins<'a> {
    pub(in crate::kafka) group: &'a Group,
    /// Its static name.
    pub(in crate::kafka) name: Option<&'a str>,
    /// The most that an answer brings, in bytes.
    pub(in crate::kafka) answer: usize,
}

/// A value that the library does not take; `why` is its text, which shows the value: it is left out where it may be a secret.
fn wrong(name: &str, why: &str) -> crate::Error {
    let secret = name.starts_with("sasl.") || name.starts_with("ssl.key");
    super::invalid(format!("`{name}`: {}", if secret { "it is not acceptable" } else { why.trim_end() }))
}

impl KafkaSettings {
    /// What the client that publishes is told; `batch` is the most bytes of a record batch, as its topics take them.
    pub(in crate::kafka) fn producer(&self, batch: usize) -> Values {
        let mut values = self.common();
        // Before our own deadline, so that what was never sent is known to be not written: the library looks once a second, and later at what
        // is under way.
        let timeout = self.publish_deadline - self.publish_deadline.min(Duration::from_secs(20)) / 10;
        values.set("enable.idempotence", true);
        values.set("acks", "all");
        // With more the library concludes of a small request that it was written because one behind it was, and its thread turns without pause while
        // messages wait behind requests of their own partition. A server takes one request of a connection after the other anyway.
        values.set("max.in.flight", 1);
        values.millis("message.timeout.ms", timeout - Duration::from_secs(1));
        values.millis("request.timeout.ms", Duration::from_secs(10).min(timeout));
        values.millis("linger.ms", self.linger);
        values.set("compression.codec", self.compression.as_str());
        values.set("batch.size", batch.min(BATCH));
        values.set("message.max.bytes", LARGEST_REQUEST);
        // What waits is bounded by us, in messages and bytes.
        values.set("queue.buffering.max.messages", 0);
        values.set("queue.buffering.max.kbytes", i32::MAX);
        // A topic that is not there is found out by asking, before anything is sent.
        values.set("topic.metadata.propagation.max.ms", 5000);
        self.add(&mut values, OF_CONSUMERS);
        values
    }

    /// What a client that consumes is told: a member of a group, or a reader.
    ///
    /// # Errors
    /// `Invalid` that names the setting.
    pub(in crate::kafka) fn consumer(&self, joins: Option<Joins<'_>>) -> Result<Conf> {
        self.of_consumer(joins).conf()
    }

    pub(super) fn of_consumer(&self, joins: Option<Joins<'_>>) -> Values {
        let mut values = self.common();
        values.set("group.id", joins.map_or("ropeway-reader", |joins| joins.group.as_str()));
        values.set("enable.auto.commit", false);
        values.set("enable.auto.offset.store", false);
        values.set("auto.offset.reset", "error");
        // With it batch reads lose messages.
        values.set("enable.partition.eof", false);
        values.set("check.crcs", true);
        // What it has fetched ahead is bounded (64 MiB by itself), and when that is full the library looks again soon: after a second by itself, in
        // which a quick consumer has long had all of it and waits.
        let (ahead, answer) = joins.map_or(AHEAD_OF_READERS, |joins| (AHEAD, joins.answer));
        values.set("queued.max.messages.kbytes", ahead / 1024);
        values.set("fetch.max.bytes", answer);
        if joins.is_none() {
            values.set("queued.min.messages", RECORDS_OF_READERS);
        }
        values.millis("fetch.queue.backoff.ms", if joins.is_some() { FULL.0 } else { FULL.1 });
        values.millis("max.poll.interval.ms", self.max_poll_interval);
        if let Some(name) = joins.and_then(|joins| joins.name) {
            values.set("group.instance.id", name);
        }
        match self.group_protocol {
            KafkaGroupProtocol::Consumer if joins.is_some() => values.set("group.protocol", "consumer"),
            _ => {
                values.set("partition.assignment.strategy", "cooperative-sticky");
                values.millis("session.timeout.ms", self.session);
                values.millis("heartbeat.interval.ms", (self.session / 10).clamp(HEARTBEAT.0, HEARTBEAT.1));
            }
        }
        self.add(&mut values, OF_PRODUCERS);
        values
    }

    /// What the client for administration is told.
    pub(in crate::kafka) fn admin(&self) -> Values {
        let mut values = self.common();
        // Why a server closes a connection, such as one that expects TLS, is only told so. Connections that lay idle are left out.
        values.set("log.connection.close", true);
        let others: Vec<_> = OF_CONSUMERS.iter().chain(OF_PRODUCERS).copied().collect();
        self.add(&mut values, &others);
        values
    }

    /// What all clients are told.
    fn common(&self) -> Values {
        let mut values = Values(Vec::new());
        values.set("bootstrap.servers", self.named());
        values.set("client.id", &self.client_id);
        values.set("allow.auto.create.topics", false);
        values.set("enable.metrics.push", false);
        values.set("log.connection.close", false);
        values.set("reconnect.backoff.max.ms", 1000);
        values.set("socket.keepalive.enable", true);
        values.set("socket.timeout.ms", 10_000);
        // When a node goes, the library asks at once who leads now, before the others know it, and then only as often as this says: five minutes by
        // itself.
        values.set("topic.metadata.refresh.interval.ms", 5000);
        let protocol = match (&self.tls, &self.login) {
            (None, None) => "plaintext",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), None) => "ssl",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        values.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            values.path("ssl.ca.location", tls.ca.as_deref());
            values.path("ssl.certificate.location", tls.cert.as_deref());
            values.path("ssl.key.location", tls.key.as_deref());
            if let Some(password) = &tls.key_password {
                values.set("ssl.key.password", &password.0);
            }
        }
        if let Some(login) = &self.login {
            values.set("sasl.mechanisms", login.mechanism.as_str());
            values.set("sasl.username", &login.user);
            values.set("sasl.password", &login.password.0);
        }
        values
    }

    /// What the user adds, but what is for other clients.
    fn add(&self, values: &mut Values, but: &[&str]) {
        for (name, value) in &self.client {
            if !but.iter().any(|other| name.starts_with(other)) {
                values.set(name, value);
            }
        }
    }
}

/// The shortest and the longest time between two signs of life of a member.
const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));

impl KafkaMechanism {
    /// The name that the servers know.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaCompression {
    /// The name that the library knows.
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
