//! Dead letters: what could not be handled, kept with the reason.
//!
//! A dead letter is the message as it was (key, payload, headers, timestamp) with a [`FailureRecord`] in headers that start with
//! `ropeway-failure-`, published to `<topic>.<group>.dlq` unless another topic is named. Its id is derived from the group and the place
//! of the message, so that a repeat (a crash between publishing and the ack) is recognised.
//! Not here: when a message is given up (`retry.rs`), publishing the letter and holding its source (`runtime/`).

mod letter;
mod record;

pub(crate) use letter::Letter;
pub use record::{FailureRecord, PREFIX};
