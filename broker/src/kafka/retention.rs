//! What a topic that we make keeps, as Kafka is told it.
//!
//! Kafka removes whole segments, and never the one that is written to, so how often a new one begins decides how much is kept beyond what was asked
//! for. Not here: reading it back (`facts.rs`), making topics (`admin.rs`).

use crate::{Error, ErrorKind, Result, Retention, TopicSpec};
use std::time::Duration;

/// The most partitions of a topic.
const MAX_PARTITIONS: u32 = 4096;
/// The smallest segment that every server takes, in bytes, and the largest that we ask for: Kafka's own default.
const SEGMENT: (u64, u64) = (1024 * 1024, 1024 * 1024 * 1024);
/// The longest time until a new segment begins: Kafka's own default, 7 days.
const ROLL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Whether a topic may have so many.
///
/// # Errors
/// `Invalid`.
pub(super) fn check_partitions(partitions: u32) -> Result<()> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    let context = format!("a topic has 1 to {MAX_PARTITIONS} partitions, not {partitions}");
    Err(Error::new(ErrorKind::Invalid, context))
}

/// The settings of a topic that is to keep that, by name.
pub(super) fn configs(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let Retention { age, bytes, compact } = spec.retention;
    // A server refuses to purge a topic that only compacts.
    let policy = if compact { "compact,delete" } else { "delete" };
    let millis = |time: Duration| time.as_millis().min(i64::MAX as u128);
    let all = |number: Option<u128>| number.map_or_else(|| "-1".to_owned(), |number| number.to_string());
    let mut configs = vec![
        ("cleanup.policy", policy.to_owned()),
        // Kafka's default, 7 days, loses what a group has not finished.
        ("retention.ms", all(age.map(millis))),
        ("retention.bytes", all(bytes.map(|bytes| u128::from(bytes).min(i64::MAX as u128)))),
        ("message.timestamp.type", "CreateTime".to_owned()),
        // Kafka's default refuses what is made an hour ahead, and with it all of its batch.
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
    ];
    if let Some(age) = age {
        let roll = (age / 8).clamp(Duration::from_secs(1), ROLL);
        configs.push(("segment.ms", roll.as_millis().to_string()));
    }
    if let Some(bytes) = bytes {
        configs.push(("segment.bytes", (bytes / 8).clamp(SEGMENT.0, SEGMENT.1).to_string()));
    }
    configs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(retention: Retention, name: &str) -> Option<String> {
        let spec = TopicSpec { partitions: 1, retention };
        configs(&spec).into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    #[test]
    fn the_default_keeps_everything() {
        for name in ["retention.ms", "retention.bytes"] {
            assert_eq!(config(Retention::default(), name).as_deref(), Some("-1"), "{name}");
        }
        assert_eq!(config(Retention::default(), "cleanup.policy").as_deref(), Some("delete"));
        assert_eq!(config(Retention::default(), "segment.ms"), None);
        let compact = Retention { compact: true, ..Retention::default() };
        assert_eq!(config(compact.clone(), "cleanup.policy").as_deref(), Some("compact,delete"));
        assert_eq!(config(compact, "retention.ms").as_deref(), Some("-1"));
    }

    #[test]
    fn what_is_kept_too_long_is_an_eighth_at_the_most_where_kafka_lets_it_be() {
        let aged = |seconds| Retention { age: Some(Duration::from_secs(seconds)), ..Retention::default() };
        assert_eq!(config(aged(80), "retention.ms").as_deref(), Some("80000"));
        assert_eq!(config(aged(80), "segment.ms").as_deref(), Some("10000"));
        assert_eq!(config(aged(2), "segment.ms").as_deref(), Some("1000"));
        assert_eq!(config(aged(u64::MAX), "retention.ms"), Some(i64::MAX.to_string()));
        assert_eq!(config(aged(u64::MAX), "segment.ms"), Some(ROLL.as_millis().to_string()));
        let bounded = |bytes| Retention { bytes: Some(bytes), ..Retention::default() };
        assert_eq!(config(bounded(80 << 20), "segment.bytes"), Some((10 << 20).to_string()));
        assert_eq!(config(bounded(1), "segment.bytes"), Some((1 << 20).to_string()));
        assert_eq!(config(bounded(u64::MAX), "segment.bytes"), Some((1 << 30).to_string()));
        assert_eq!(config(bounded(u64::MAX), "retention.bytes"), Some(i64::MAX.to_string()));
    }

    #[test]
    fn a_number_of_partitions_that_cannot_be_is_refused() {
        for (partitions, good) in [(0, false), (1, true), (4096, true), (4097, false)] {
            assert_eq!(check_partitions(partitions).is_ok(), good, "{partitions}");
        }
    }
}
