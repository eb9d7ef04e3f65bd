//! Settings of a processor, with their bounds and defaults.
//!
//! Not here: how much may be in flight (`ropeway_broker::Subscription`), how often and how soon again (`retry.rs`), the stand-alone pool's
//! (`pool/worker_pool.rs`).

use crate::RetryPolicy;
use ropeway_broker::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The latest deadline of a shutdown or a drain: a time that no clock can show would be none at all.
pub(crate) const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest that handlers may have to end.
const LONGEST_GRACE: Duration = Duration::from_secs(24 * 3600);

/// How a [`Processor`](crate::Processor) works. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessorSettings {
    /// How many events are handled at a time, all keys and partitions together: 1 to 65,536. Each is run by a task of tokio, which goes on with
    /// the next, or by the processor's own where its handlers are quick; as many again are queued for those tasks, not begun, and given up at
    /// once where their partition goes. What may be fetched and waits is bounded by the subscription's `in_flight`, which should be larger. Default 64.
    pub concurrency: usize,
    /// How long one attempt of one handler may take: more than 0. `None`: for ever, which lets one that hangs block its key for ever. Default 60 s.
    pub attempt_timeout: Option<Duration>,
    /// How long handlers have from being told that they are cancelled to being dropped; never more than half of the time there is to
    /// drain, and at most 1 day. Default 2 s.
    pub cancel_grace: Duration,
    /// How often and how soon a failed attempt is repeated, where a handler has no policy of its own.
    pub retry: RetryPolicy,
    /// How soon a dead letter that could not be written is tried again; its attempts have no end (`max_attempts` is not used). Default: 1 s,
    /// growing to 30 s.
    pub dead_letter_retry: RetryPolicy,
    /// Which process this is, in dead letters: at most 256 bytes. Default `process-` and the number of the process.
    pub node: String,
    /// Makes the waits before retries repeatable, for tests. `None`: by lot.
    pub seed: Option<u64>,
}

impl Default for ProcessorSettings {
    fn default() -> Self {
        Self {
            concurrency: 64,
            attempt_timeout: Some(Duration::from_secs(60)),
            cancel_grace: Duration::from_secs(2),
            retry: RetryPolicy::default(),
            dead_letter_retry: RetryPolicy { first_delay: Duration::from_secs(1), ..RetryPolicy::default() },
            node: format!("process-{}", std::process::id()),
            seed: None,
        }
    }
}

impl ProcessorSettings {
    /// Whether it can be used.
    ///
    /// # Errors
    /// `Invalid` that names the field, its value and its bounds.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if !(1..=65_536).contains(&self.concurrency) {
            return wrong(format!("processor: concurrency is {} and takes 1 to 65536", self.concurrency));
        }
        if self.attempt_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return wrong("processor: attempt_timeout is 0 and takes more; leave it out for none".into());
        }
        if self.cancel_grace > LONGEST_GRACE {
            return wrong(format!(
                "processor: cancel_grace is {:?} and takes at most 1 day",
                self.cancel_grace
            ));
        }
        if self.node.len() > 256 {
            return wrong(format!("processor: node has {} bytes and takes at most 256", self.node.len()));
        }
        self.retry.check()?;
        self.dead_letter_retry.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_refused_by_name() {
        ProcessorSettings::default().check().unwrap();
        for (settings, field) in [
            (ProcessorSettings { concurrency: 0, ..Default::default() }, "concurrency"),
            (
                ProcessorSettings { attempt_timeout: Some(Duration::ZERO), ..Default::default() },
                "attempt_timeout",
            ),
            (ProcessorSettings { cancel_grace: Duration::MAX, ..Default::default() }, "cancel_grace"),
            (ProcessorSettings { retry: RetryPolicy::attempts(0), ..Default::default() }, "max_attempts"),
            (ProcessorSettings { node: "x".repeat(257), ..Default::default() }, "node"),
        ] {
            assert!(settings.check().unwrap_err().to_string().contains(field));
        }
        let error = serde_json::from_str::<ProcessorSettings>(r#"{"concurency": 3}"#).unwrap_err();
        assert!(error.to_string().contains("concurency"), "{error}");
        let settings: ProcessorSettings = serde_json::from_str(r#"{"concurrency": 3}"#).unwrap();
        assert_eq!(settings.concurrency, 3);
    }
}
