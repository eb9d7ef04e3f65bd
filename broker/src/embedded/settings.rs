//! How an embedded broker is set up, in code and in a URL.
//!
//! Not here: taking a URL apart (`connect.rs`).

use crate::{BrokerUrl, Clock, Durability, Result, SystemClock};
use std::{sync::Arc, time::Duration};

/// The parameters of both schemes.
const COMMON: [&str; 8] = [
    "dedup_count",
    "dedup_window",
    "group_expiry",
    "max_message",
    "publish_deadline",
    "queue_bytes",
    "queue_messages",
    "segment",
];

/// The largest `max_message`.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// How an embedded broker is set up. In a URL each field is a parameter of the same name.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// What an acked message survives unless a publisher asks for more: `power_loss` (default) or `process_crash`. `memory:` is
    /// `Volatile`, whatever stands here.
    pub durability: Durability,
    /// The largest message, in bytes of [`Message::size`](crate::Message::size). Default: 5 MiB. At most 64 MiB in a URL.
    pub max_message: usize,
    /// When a publish is answered at the latest. Default: 30 s.
    pub publish_deadline: Duration,
    /// For how long a message id that is published again is recognised: the repeat is acked and not written. Default: `None`, off.
    pub dedup_window: Option<Duration>,
    /// How many ids are remembered at the most; the oldest are forgotten first. Default: 1,000,000.
    pub dedup_count: u64,
    /// How many messages may wait to be written. Default: 65,536.
    pub queue_messages: usize,
    /// How many bytes of messages may wait to be written. Default: 64 MiB.
    pub queue_bytes: usize,
    /// How long a group without members holds retention back. Default: 7 days.
    pub group_expiry: Duration,
    /// The most bytes of a segment, unless what a topic holds or may hold would make too many of them. A topic's messages lie in segments, and
    /// retention removes whole ones. Default: 64 MiB.
    pub segment: u64,
    /// Bytes that `embedded:` may take on the disk. At that, publishing is answered *not written* (`Throttled`), until there is room again; what
    /// consumers forward, at a sixteenth more. Default: 10 GiB.
    pub max_disk: u64,
    /// Bytes that must stay free on the file system of `embedded:`, for acks, and for removing. At that, publishing is answered *not written*
    /// (`Throttled`), until there is room again; at half of it, so is what consumers forward, and delayed messages that are due wait. Default:
    /// 256 MiB.
    pub min_free: u64,
    /// Bytes of keys and values that `memory:` may take. At that, publishing is answered *not written* (`Throttled`), until there is room again; what
    /// consumers forward, at a sixteenth more. Default: 1 GiB.
    pub max_memory: u64,
    /// What tells the time. Default: the machine's clock. No parameter.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            durability: Durability::PowerLoss,
            max_message: 5 * 1024 * 1024,
            publish_deadline: Duration::from_secs(30),
            dedup_window: None,
            dedup_count: 1_000_000,
            queue_messages: 65_536,
            queue_bytes: 64 * 1024 * 1024,
            group_expiry: Duration::from_secs(7 * 24 * 3600),
            segment: 64 * 1024 * 1024,
            max_disk: 10 * 1024 * 1024 * 1024,
            min_free: 256 * 1024 * 1024,
            max_memory: 1024 * 1024 * 1024,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl EmbeddedSettings {
    /// The settings that a URL gives, of `embedded:` or of `memory:`.
    ///
    /// # Errors
    /// `Invalid` that names the parameter and what it takes.
    pub fn of_url(url: &BrokerUrl) -> Result<Self> {
        let durable = url.scheme == "embedded";
        let mut known = COMMON.to_vec();
        if durable {
            known.extend(["durability", "max_disk", "min_free"]);
        } else {
            known.push("max_memory");
        }
        known.sort_unstable();
        url.allow(&known)?;
        let mut settings = Self::default();
        if let Some(text) = url.get("durability") {
            settings.durability = match text {
                "power_loss" => Durability::PowerLoss,
                "process_crash" => Durability::ProcessCrash,
                _ => return Err(url.wrong_value("durability", "`power_loss` or `process_crash`")),
            };
        }
        url.bytes("max_message", &mut settings.max_message)?;
        if settings.max_message > MAX_MESSAGE {
            return Err(
                url.wrong_value("max_message", "at most `64MiB`: a message is held in memory several times")
            );
        }
        url.bytes("queue_bytes", &mut settings.queue_bytes)?;
        url.number("queue_messages", &mut settings.queue_messages)?;
        let mut count = usize::try_from(settings.dedup_count).unwrap_or(usize::MAX);
        url.number("dedup_count", &mut count)?;
        settings.dedup_count = count as u64;
        url.duration("publish_deadline", &mut settings.publish_deadline)?;
        let mut window = Duration::ZERO;
        url.duration("dedup_window", &mut window)?;
        settings.dedup_window = Some(window).filter(|window| !window.is_zero());
        url.duration("group_expiry", &mut settings.group_expiry)?;
        for (name, setting) in [
            ("segment", &mut settings.segment),
            ("max_disk", &mut settings.max_disk),
            ("min_free", &mut settings.min_free),
            ("max_memory", &mut settings.max_memory),
        ] {
            let mut bytes = usize::try_from(*setting).unwrap_or(usize::MAX);
            url.bytes(name, &mut bytes)?;
            *setting = bytes as u64;
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_url_are_taken_or_refused_by_name() {
        let url = |text: &str| BrokerUrl::parse(text).unwrap();
        let settings = EmbeddedSettings::of_url(&url(
            "embedded:./x?durability=process_crash&max_message=1MiB&publish_deadline=500ms&dedup_window=10m",
        ))
        .unwrap();
        assert_eq!(settings.durability, Durability::ProcessCrash);
        assert_eq!(settings.max_message, 1 << 20);
        assert_eq!(settings.publish_deadline, Duration::from_millis(500));
        assert_eq!(settings.dedup_window, Some(Duration::from_secs(600)));
        for bad in [
            "embedded:./x?durability=replicated",
            "embedded:./x?max_message=lots",
            "embedded:./x?max_message=0",
            "embedded:./x?publish_deadline=5",
            "embedded:./x?max_message=65MiB",
            "embedded:./x?queue_messages=-1",
            "embedded:./x?queue_messages=5KiB",
            "embedded:./x?dedup_count=1kB",
            "embedded:./x?durabilty=power_loss",
        ] {
            let error = EmbeddedSettings::of_url(&url(bad)).unwrap_err();
            let name = bad.split(['?', '=']).nth(1).unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
        for wrong in ["durability=power_loss", "max_disk=1GiB", "min_free=1GiB"] {
            assert!(EmbeddedSettings::of_url(&url(&format!("memory:?{wrong}"))).is_err());
        }
        assert!(EmbeddedSettings::of_url(&url("embedded:./x?max_memory=1GiB")).is_err());
        let text = "embedded:./x?segment=1MiB&max_disk=2GiB&min_free=1kB&group_expiry=1h";
        let settings = EmbeddedSettings::of_url(&url(text)).unwrap();
        assert_eq!((settings.segment, settings.max_disk, settings.min_free), (1 << 20, 2 << 30, 1000));
        assert_eq!(settings.group_expiry, Duration::from_secs(3600));
        let settings = EmbeddedSettings::of_url(&url("memory:?max_memory=5MiB")).unwrap();
        assert_eq!(settings.max_memory, 5 << 20);
    }
}
