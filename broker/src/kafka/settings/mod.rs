//! How a broker on Kafka is set up, in code and in a URL.
//!
//! Not here: hosts, user and password (`authority.rs`), which settings of the client library may be given (`allowed.rs`), what the
//! clients are told (`clients.rs`), taking a URL apart (`../../connect.rs`).

mod allowed;
mod authority;
mod clients;

pub(super) use clients::{BATCH, Joins};

use crate::{BrokerUrl, Result};
use std::{fmt, path::PathBuf, time::Duration};

/// What settings of the client library begin with in a URL.
const CLIENT_PREFIX: &str = "rdkafka.";

/// The parameters of a URL; those with [`CLIENT_PREFIX`] come on top.
const PARAMETERS: [&str; 17] = [
    "ca",
    "cert",
    "client_id",
    "compression",
    "group_protocol",
    "key",
    "key_password",
    "linger",
    "max_poll_interval",
    "mechanism",
    "min_insync_replicas",
    "publish_deadline",
    "queue_bytes",
    "queue_messages",
    "release",
    "replication",
    "session",
];

/// The shortest `publish_deadline`: the client library looks once a second at what is out of time.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(3);

/// How a broker on Kafka is set up. In a URL each field is a parameter of the same name, except where it says otherwise.
///
/// `Debug` shows no password and no value of a setting of the client library.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Servers to ask for the others, as `host:port`. In a URL: the hosts, joined by commas; without a port it is 9092.
    pub servers: Vec<String>,
    /// TLS; `None` is plain TCP. In a URL: `kafka+ssl://`, `ca`, `cert`, `key`, `key_password`.
    pub tls: Option<KafkaTls>,
    /// User and password. In a URL: `USER:PASSWORD@` before the hosts, and `mechanism`.
    pub login: Option<KafkaLogin>,
    /// How the clients name themselves to the servers. Default: `ropeway`.
    pub client_id: String,
    /// How many replicas a topic is made with. Default: what the servers are configured for (`default.replication.factor`).
    pub replication: Option<u16>,
    /// How many of them must have a message before it is acked, for topics that are made here. Default: what the servers are configured for.
    pub min_insync_replicas: Option<u16>,
    /// When a publish is answered at the latest. Default: 30 s; at least 3 s.
    pub publish_deadline: Duration,
    /// How many messages may wait to be acked by the servers. Default: 65,536.
    pub queue_messages: usize,
    /// How many bytes of messages may wait to be acked by the servers. Default: 64 MiB.
    pub queue_bytes: usize,
    /// How long a message waits for others to go with it. Default: 0, it goes with those that are there when a request can be sent.
    pub linger: Duration,
    /// How record batches are compressed. Default: not at all.
    pub compression: KafkaCompression,
    /// For how long a member of a group that is not heard of keeps what it owns. With `group_protocol=consumer` the servers decide it.
    /// Default: 30 s.
    pub session: Duration,
    /// How long a member may be too busy to ask for more before it loses what it owns. Default: 5 min.
    pub max_poll_interval: Duration,
    /// The longest time that a partition may be kept after it was revoked: the other partitions of the member wait meanwhile. Default: 2 s.
    pub release: Duration,
    /// Who decides which member owns what. Default: `Classic`.
    pub group_protocol: KafkaGroupProtocol,
    /// Settings of the client library (librdkafka) by name; what may be given is checked by [`Self::check`]. In a URL: `rdkafka.NAME=VALUE`.
    pub client: Vec<(String, String)>,
}

/// TLS to Kafka. Files are in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaTls {
    /// Certificates of the authorities that are trusted. Default: those of the machine.
    pub ca: Option<PathBuf>,
    /// The certificate that this client shows.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// What the key is encrypted with.
    pub key_password: Option<KafkaPassword>,
}

/// User and password, and how they are shown to the servers (SASL).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaLogin {
    /// The user.
    pub user: String,
    /// The password.
    pub password: KafkaPassword,
    /// Default in a URL: `plain`.
    pub mechanism: KafkaMechanism,
}

/// A password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaPassword(pub String);

impl fmt::Debug for KafkaPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a password is shown to the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaMechanism {
    /// As it is: for `kafka+ssl:`.
    #[default]
    Plain,
    /// SCRAM with SHA-256: the password itself is not sent.
    ScramSha256,
    /// SCRAM with SHA-512: the password itself is not sent.
    ScramSha512,
}

/// How record batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaCompression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Who decides which member of a group owns what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaGroupProtocol {
    /// The members, by the cooperative sticky rule.
    #[default]
    Classic,
    /// The servers (KIP-848); they must be of 4.0 or newer.
    Consumer,
}

/// The values that a parameter takes.
fn one_of<T: Copy>(url: &BrokerUrl, name: &str, known: &[(&str, T)], into: &mut T) -> Result<()> {
    let Some(text) = url.get(name) else { return Ok(()) };
    match known.iter().find(|(known, _)| *known == text) {
        Some((_, value)) => *into = *value,
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(url.wrong_value(name, &names.join(", ")));
        }
    }
    Ok(())
}

impl KafkaSettings {
    /// The defaults named at the fields, for these servers (`host:port`).
    #[must_use]
    pub fn new(servers: impl IntoIterator<Item = String>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            tls: None,
            login: None,
            client_id: "ropeway".to_owned(),
            replication: None,
            min_insync_replicas: None,
            publish_deadline: Duration::from_secs(30),
            queue_messages: 65_536,
            queue_bytes: 64 * 1024 * 1024,
            linger: Duration::ZERO,
            compression: KafkaCompression::None,
            session: Duration::from_secs(30),
            max_poll_interval: Duration::from_secs(300),
            release: Duration::from_secs(2),
            group_protocol: KafkaGroupProtocol::Classic,
            client: Vec::new(),
        }
    }

    /// The settings that a URL gives.
    ///
    /// # Errors
    /// `Invalid` that names the parameter and what it takes, and never shows a password.
    pub fn of_url(url: &BrokerUrl) -> Result<Self> {
        let settings = Self::taken(url)?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether a URL may have that parameter with that value, as far as it can be said of one alone: for those that stand elsewhere, such as in a file of
    /// settings, and get into the URL by [`BrokerUrl::with_default`].
    ///
    /// # Errors
    /// `Invalid` that names the parameter and what may be given in its place.
    pub fn check_parameter(name: &str, value: &str) -> Result<()> {
        if name.contains('.') && !name.starts_with(CLIENT_PREFIX) {
            allowed::check(name)?;
            return Err(invalid(format!(
                "settings of the client library are written `{CLIENT_PREFIX}NAME`: `{CLIENT_PREFIX}{name}`"
            )));
        }
        // What it may have to stand beside: TLS, a user.
        let url = BrokerUrl::parse("kafka+ssl://user:password@localhost")?.with_default(name, value);
        Self::taken(&url)?.check_each()
    }

    fn taken(url: &BrokerUrl) -> Result<Self> {
        url.allow_beside(&PARAMETERS, CLIENT_PREFIX)?;
        let authority = authority::of_url(url)?;
        let mut settings = Self::new(authority.servers);
        settings.take_security(url, authority.login)?;
        settings.take_publishing(url)?;
        settings.take_groups(url)?;
        for name in url.names() {
            let Some(bare) = name.strip_prefix(CLIENT_PREFIX) else { continue };
            settings.client.push((bare.to_owned(), url.get(name).unwrap_or_default().to_owned()));
        }
        Ok(settings)
    }

    fn take_security(&mut self, url: &BrokerUrl, login: Option<(String, String)>) -> Result<()> {
        let path = |name| url.get(name).map(PathBuf::from);
        let tls = KafkaTls {
            ca: path("ca"),
            cert: path("cert"),
            key: path("key"),
            key_password: url.get("key_password").map(|password| KafkaPassword(password.to_owned())),
        };
        if url.scheme == "kafka+ssl" {
            self.tls = Some(tls);
        } else if tls != KafkaTls::default() {
            return Err(invalid("`ca`, `cert`, `key` and `key_password` are for TLS: write kafka+ssl://"));
        }
        let mechanisms = [
            ("plain", KafkaMechanism::Plain),
            ("scram-sha-256", KafkaMechanism::ScramSha256),
            ("scram-sha-512", KafkaMechanism::ScramSha512),
        ];
        let mut mechanism = KafkaMechanism::default();
        one_of(url, "mechanism", &mechanisms, &mut mechanism)?;
        if let Some((user, password)) = login {
            self.login = Some(KafkaLogin { user, password: KafkaPassword(password), mechanism });
        } else if url.get("mechanism").is_some() {
            return Err(invalid(
                "`mechanism` is for a user and a password: write kafka://USER:PASSWORD@HOST",
            ));
        }
        Ok(())
    }

    fn take_publishing(&mut self, url: &BrokerUrl) -> Result<()> {
        if let Some(id) = url.get("client_id") {
            id.clone_into(&mut self.client_id);
        }
        for (name, into) in
            [("replication", &mut self.replication), ("min_insync_replicas", &mut self.min_insync_replicas)]
        {
            let Some(text) = url.get(name) else { continue };
            let number = text.parse::<u16>().ok().filter(|number| (1..=1000).contains(number));
            *into = Some(number.ok_or_else(|| url.wrong_value(name, "a number from 1 to 1000"))?);
        }
        url.number("queue_messages", &mut self.queue_messages)?;
        url.bytes("queue_bytes", &mut self.queue_bytes)?;
        url.duration("publish_deadline", &mut self.publish_deadline)?;
        match url.get("linger") {
            Some("0" | "0ms" | "0s") => self.linger = Duration::ZERO,
            _ => url.duration("linger", &mut self.linger)?,
        }
        let compressions = [
            ("none", KafkaCompression::None),
            ("gzip", KafkaCompression::Gzip),
            ("snappy", KafkaCompression::Snappy),
            ("lz4", KafkaCompression::Lz4),
            ("zstd", KafkaCompression::Zstd),
        ];
        one_of(url, "compression", &compressions, &mut self.compression)
    }

    fn take_groups(&mut self, url: &BrokerUrl) -> Result<()> {
        url.duration("session", &mut self.session)?;
        url.duration("max_poll_interval", &mut self.max_poll_interval)?;
        url.duration("release", &mut self.release)?;
        let protocols =
            [("classic", KafkaGroupProtocol::Classic), ("consumer", KafkaGroupProtocol::Consumer)];
        one_of(url, "group_protocol", &protocols, &mut self.group_protocol)
    }

    /// Whether it can be meant. Opens nothing.
    ///
    /// # Errors
    /// `Invalid` that names the setting and the way out, and never shows a password.
    pub fn check(&self) -> Result<()> {
        if self.servers.is_empty() {
            return Err(invalid("name a server, such as kafka://localhost:9092"));
        }
        self.check_each()?;
        if self.max_poll_interval < self.session {
            return Err(invalid(format!(
                "`max_poll_interval` is {:?}; it takes a time from `session` on, which is {:?}",
                self.max_poll_interval, self.session
            )));
        }
        if let (Some(replication), Some(least)) = (self.replication, self.min_insync_replicas)
            && least > replication
        {
            return Err(invalid(format!(
                "`min_insync_replicas={least}` is more than `replication={replication}`: nothing could be published"
            )));
        }
        if let Some(KafkaTls { cert, key, .. }) = &self.tls
            && cert.is_some() != key.is_some()
        {
            return Err(invalid("`cert` and `key` go together: give both or none"));
        }
        Ok(())
    }

    /// Whether each for itself can be meant.
    fn check_each(&self) -> Result<()> {
        let within = |name: &str, time: Duration, least: Duration, most: Duration| {
            if (least..=most).contains(&time) {
                return Ok(());
            }
            Err(invalid(format!("`{name}` is {time:?}; it takes a time from {least:?} to {most:?}")))
        };
        let hour = Duration::from_secs(3600);
        within("publish_deadline", self.publish_deadline, SHORTEST_DEADLINE, hour)?;
        within("linger", self.linger, Duration::ZERO, Duration::from_secs(1))?;
        within("session", self.session, Duration::from_secs(1), hour)?;
        within("max_poll_interval", self.max_poll_interval, Duration::from_secs(1), 24 * hour)?;
        within("release", self.release, Duration::from_millis(1), hour)?;
        if self.queue_messages == 0 || self.queue_bytes == 0 {
            return Err(invalid("`queue_messages` and `queue_bytes` are at least 1"));
        }
        self.client.iter().try_for_each(|(name, _)| allowed::check(name))?;
        // The library looks at it only when a client is opened.
        let sends = self.client.iter().rfind(|(name, _)| name == "max.in.flight");
        if let Some((_, value)) = sends.filter(|(_, value)| !matches!(value.parse(), Ok(1..=5))) {
            return Err(invalid(format!("`rdkafka.max.in.flight` is 1 to 5, and not {value:?}")));
        }
        // Values that the client library does not take.
        self.producer(BATCH).conf()?;
        self.consumer(None)?;
        self.admin().conf().map(drop)
    }

    /// Whether the files of TLS are there.
    ///
    /// # Errors
    /// `Invalid` that names the file.
    pub(super) async fn check_files(&self) -> Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        for (name, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
            let Some(path) = path else { continue };
            let shown = path.display();
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read(file)).await;
            let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let bytes =
                read.map_err(|error| invalid(format!("`{name}`: {shown} cannot be read: {error}")))?;
            if !bytes.windows(10).any(|window| window == b"-----BEGIN") {
                return Err(invalid(format!("`{name}`: {shown} is not in PEM form (-----BEGIN ...)")));
            }
        }
        Ok(())
    }

    /// The servers as the URL names them: for errors.
    #[must_use]
    pub fn named(&self) -> String {
        self.servers.join(",")
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client: Vec<_> = self.client.iter().map(|(name, _)| name).collect();
        f.debug_struct("KafkaSettings")
            .field("servers", &self.servers)
            .field("tls", &self.tls)
            .field("login", &self.login)
            .field("client_id", &self.client_id)
            .field("replication", &self.replication)
            .field("min_insync_replicas", &self.min_insync_replicas)
            .field("publish_deadline", &self.publish_deadline)
            .field("queue_messages", &self.queue_messages)
            .field("queue_bytes", &self.queue_bytes)
            .field("linger", &self.linger)
            .field("compression", &self.compression)
            .field("session", &self.session)
            .field("max_poll_interval", &self.max_poll_interval)
            .field("release", &self.release)
            .field("group_protocol", &self.group_protocol)
            .field("client", &client)
            .finish()
    }
}

fn invalid(why: impl Into<std::borrow::Cow<'static, str>>) -> crate::Error {
    crate::Error::new(crate::ErrorKind::Invalid, why)
}

#[cfg(test)]
mod tests;
