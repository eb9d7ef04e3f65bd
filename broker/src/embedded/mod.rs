//! The embedded broker: `memory:` and `embedded:DIR`.
//!
//! | Parameter | Default | Means |
//! |---|---|---|
//! | `durability` (not for `memory:`) | `power_loss` | what an acked message survives: `power_loss` or `process_crash` |
//! | `max_message` | `5MiB` | the largest message |
//! | `publish_deadline` | `30s` | when a publish is answered at the latest |
//! | `dedup_window` | off | for how long a message id that comes again is acked and not written again |
//! | `dedup_count` | `1000000` | how many ids are remembered at the most |
//! | `segment` | `64MiB` | how large a segment of a topic gets: retention removes whole ones |
//! | `group_expiry` | `7d` | for how long a group without members holds retention back |
//! | `max_disk`, `min_free` (not for `memory:`) | `10GiB`, `256MiB` | what the directory may take, and what must stay free; beyond, publishing is answered *not written* (`Throttled`) |
//! | `max_memory` (only for `memory:`) | `1GiB` | the same for messages in memory |
//! | `queue_messages`, `queue_bytes` | `65536`, `64MiB` | what may wait to be written; more is answered *not written* (`Throttled`) |
//!
//! What publishing takes of memory: what waits in the queue and with who published it, once (`queue_bytes`); two copies of what one step
//! writes, each at most 4 MiB or one message; what the store has not written to tables yet.
//!
//! What a step appends to a partition is stored as few records, each of at most 256 messages and 32 KiB of them, or one message. Reading one
//! message loads its record, and who keeps a message keeps its record.
//!
//! What a clock that is set back or forward does and does not change is told in `time.rs`.
//!
//! `core/` decides, and is pure; `engine.rs` runs it; `broker.rs`, `admin.rs`, `consumer.rs`, `control.rs` and `reader.rs` are the contract on
//! top; `batch.rs`, `record.rs` and `state.rs` are what is stored; `salvage/` reads what is
//! damaged. Not here: the store itself (`ropeway-store`), what all backends share.

mod admin;
mod batch;
mod broker;
mod consumer;
mod control;
mod core;
mod engine;
mod housekeeping;
mod publish;
mod queue;
mod reader;
mod record;
#[cfg(feature = "embedded")]
pub mod salvage;
mod settings;
mod state;
mod time;

#[cfg(test)]
mod tests;

pub use broker::Embedded;
pub use settings::EmbeddedSettings;

use crate::{BrokerUrl, Error, ErrorKind, MessageBroker, Result};
use std::sync::Arc;

/// Opens `memory:`.
pub(crate) fn open_memory(url: &BrokerUrl) -> Result<Arc<dyn MessageBroker>> {
    Ok(Embedded::memory(check_memory(url)?)?)
}

/// The settings of a `memory:`.
pub(crate) fn check_memory(url: &BrokerUrl) -> Result<EmbeddedSettings> {
    let settings = EmbeddedSettings::of_url(url)?;
    if !url.path.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "`memory:` takes no path, and {:?} stands there; for a directory use `embedded:DIR`",
                url.path
            ),
        ));
    }
    Ok(settings)
}

/// Opens `embedded:DIR`.
#[cfg(feature = "embedded")]
pub(crate) async fn open_directory(url: &BrokerUrl) -> Result<Arc<dyn MessageBroker>> {
    let settings = check_directory(url)?;
    let path = url.path.clone();
    let opened = tokio::task::spawn_blocking(move || Embedded::open(path, settings)).await;
    Ok(opened.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "opening the embedded broker was interrupted").caused_by(error)
    })??)
}

/// The settings of an `embedded:DIR`.
#[cfg(feature = "embedded")]
pub(crate) fn check_directory(url: &BrokerUrl) -> Result<EmbeddedSettings> {
    let settings = EmbeddedSettings::of_url(url)?;
    if url.path.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "`embedded:` needs a directory, such as `embedded:./data`",
        ));
    }
    if url.path.starts_with("//") {
        return Err(Error::new(
            ErrorKind::Invalid,
            "`embedded:` takes a directory and no host, such as `embedded:./data` or `embedded:/var/lib/data`",
        ));
    }
    Ok(settings)
}
