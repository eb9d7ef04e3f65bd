//! Settings of a stand-alone pool, with their bounds and defaults.
//!
//! Not here: a processor's (`settings.rs` of the crate).

use crate::RetryPolicy;
use ropeway_broker::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a [`WorkerPool`](crate::WorkerPool) works. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// How many jobs run at a time: 1 to 65,536. Default 64.
    pub concurrency: usize,
    /// How many jobs may be taken in and not be over, running ones included: 1 to 1,048,576. Default 1,024.
    pub buffer: usize,
    /// How often and how soon a failed attempt is repeated.
    pub retry: RetryPolicy,
    /// How long one attempt may take: more than 0. `None`, the default: for ever.
    pub attempt_timeout: Option<Duration>,
    /// How long jobs have from being told that they are cancelled to being dropped, when the pool drains; never more than half of the
    /// time there is. Default 2 s.
    pub cancel_grace: Duration,
    /// Makes the waits before retries repeatable, for tests. `None`: by lot.
    pub seed: Option<u64>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            concurrency: 64,
            buffer: 1024,
            retry: RetryPolicy::default(),
            attempt_timeout: None,
            cancel_grace: Duration::from_secs(2),
            seed: None,
        }
    }
}

impl PoolSettings {
    /// Whether it can be used.
    ///
    /// # Errors
    /// `Invalid` that names the field, its value and its bounds.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if !(1..=65_536).contains(&self.concurrency) {
            return wrong(format!("pool: concurrency is {} and takes 1 to 65536", self.concurrency));
        }
        if !(1..=1_048_576).contains(&self.buffer) {
            return wrong(format!("pool: buffer is {} and takes 1 to 1048576", self.buffer));
        }
        if self.attempt_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return wrong("pool: attempt_timeout is 0 and takes more; leave it out for none".into());
        }
        self.retry.check()
    }
}
