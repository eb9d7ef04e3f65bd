//! How a broker on Redis is set up, in code and in a URL.
//!
//! Not here: host, user, password, TLS, database (`ropeway_store::redis`), taking a URL apart (`../connect.rs`).

use super::keys::{DEFAULT_PREFIX, Keys};
use crate::{BrokerUrl, Error, ErrorKind, Result};
use std::{ops::RangeInclusive, time::Duration};

/// The parameters of a URL; the others are about connections, and taken by `ropeway_store::redis`.
const PARAMETERS: [&str; 16] = [
    "ca",
    "cert",
    "db",
    "group_expiry",
    "key",
    "lease",
    "max_message",
    "prefix",
    "publish_deadline",
    "queue_bytes",
    "queue_messages",
    "replicas",
    "segment",
    "sentinel_password",
    "sentinel_user",
    "wait",
];

/// The largest `max_message`: what a server takes as one string by default is 512 MiB, and it does nothing else meanwhile.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// How long a lease may be.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// The longest that anything is waited for: more is taken for that.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How a broker on Redis is set up. In a URL each field is a parameter of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStreamsSettings {
    /// What all keys begin with, so that several installations share a server. Default: `ropeway`.
    pub prefix: String,
    /// The largest message, in bytes of [`Message::size`](crate::Message::size). Default: 1 MiB; at most 64 MiB in a URL.
    pub max_message: usize,
    /// When a publish is answered at the latest; a day at the most. Default: 30 s.
    pub publish_deadline: Duration,
    /// How many messages may wait to be acked by the server. Default: 65,536.
    pub queue_messages: usize,
    /// How many bytes of messages may wait to be acked by the server. Default: 64 MiB.
    pub queue_bytes: usize,
    /// For how long a member that is not heard of keeps what it owns, by the server's clock; 1 s to 5 min. Default: 9 s.
    pub lease: Duration,
    /// How long a group without members holds retention back; a consumer group of Redis that is none of ours does as long as that without moving. Default: 7 days.
    pub group_expiry: Duration,
    /// The most bytes of a piece that retention by bytes removes, unless what a partition may hold would make more than 256 of them. Default: 64 MiB.
    pub segment: u64,
    /// How many replicas must have a message whose publisher asks for `Replicated`, before it is acked. Default: 1. Where it is said, `health` tells
    /// where fewer are connected.
    pub replicas: Option<u32>,
    /// How long such an ack waits for them; a day at the most. Default: 1 s.
    pub wait: Duration,
}

impl Default for RedisStreamsSettings {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.to_owned(),
            max_message: 1024 * 1024,
            publish_deadline: Duration::from_secs(30),
            queue_messages: 65_536,
            queue_bytes: 64 * 1024 * 1024,
            lease: Duration::from_secs(9),
            group_expiry: Duration::from_secs(7 * 24 * 3600),
            segment: 64 * 1024 * 1024,
            replicas: None,
            wait: Duration::from_secs(1),
        }
    }
}

impl RedisStreamsSettings {
    /// The settings that a URL gives.
    ///
    /// # Errors
    /// `Invalid` that names the parameter and what it takes.
    pub fn of_url(url: &BrokerUrl) -> Result<Self> {
        url.allow(&PARAMETERS)?;
        let mut settings = Self::default();
        if let Some(prefix) = url.get("prefix") {
            Keys::new(prefix).map_err(|error| url.wrong_value("prefix", error.context()))?;
            prefix.clone_into(&mut settings.prefix);
        }
        url.bytes("max_message", &mut settings.max_message)?;
        if settings.max_message > MAX_MESSAGE {
            return Err(
                url.wrong_value("max_message", "at most `64MiB`: a server does nothing else meanwhile")
            );
        }
        url.bytes("queue_bytes", &mut settings.queue_bytes)?;
        let mut segment = usize::try_from(settings.segment).unwrap_or(usize::MAX);
        url.bytes("segment", &mut segment)?;
        settings.segment = segment as u64;
        url.number("queue_messages", &mut settings.queue_messages)?;
        url.duration("publish_deadline", &mut settings.publish_deadline)?;
        url.duration("group_expiry", &mut settings.group_expiry)?;
        let mut replicas = 0;
        url.number("replicas", &mut replicas)?;
        let replicas =
            u32::try_from(replicas).map_err(|_| url.wrong_value("replicas", "a number of servers"))?;
        settings.replicas = (replicas > 0).then_some(replicas);
        url.duration("wait", &mut settings.wait)?;
        url.duration("lease", &mut settings.lease)?;
        if !LEASE.contains(&settings.lease) {
            return Err(url.wrong_value("lease", "a time from `1s` to `5m`"));
        }
        Ok(settings)
    }

    /// The same with nothing that no clock can add.
    ///
    /// # Errors
    /// `Invalid` for a lease that is out of bounds.
    pub(super) fn checked(mut self) -> Result<Self> {
        if !LEASE.contains(&self.lease) {
            let context = format!("`lease` is {:?}; give it a time from 1 s to 5 min", self.lease);
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        self.publish_deadline = self.publish_deadline.min(LONGEST);
        self.wait = self.wait.min(LONGEST);
        Ok(self)
    }

    /// How many replicas are wanted where a publisher asks for them.
    pub(super) fn copies(&self) -> u32 {
        self.replicas.unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_url_are_taken_or_refused_by_name() {
        let of = |query: &str| {
            RedisStreamsSettings::of_url(&BrokerUrl::parse(&format!("redis://h:1?{query}")).unwrap())
        };
        let settings =
            of("prefix=a:b&max_message=2MiB&lease=3s&wait=5s&queue_messages=7&segment=1kB").unwrap();
        assert_eq!((settings.prefix.as_str(), settings.max_message), ("a:b", 2 << 20));
        assert_eq!((settings.lease, settings.queue_messages), (Duration::from_secs(3), 7));
        assert_eq!((settings.segment, settings.replicas, settings.copies()), (1000, None, 1));
        assert_eq!(of("replicas=2").unwrap().copies(), 2);
        for bad in [
            "prefix=a{b",
            "max_message=65MiB",
            "segment=0",
            "lease=0s",
            "lease=6m",
            "wait=x",
            "queue_messages=0",
            "replicas=0",
            "prefx=a",
        ] {
            let error = of(bad).unwrap_err();
            assert!(error.to_string().contains(bad.split('=').next().unwrap()), "{error}");
        }
    }
}
