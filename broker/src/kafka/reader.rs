//! Readers without a group.
//!
//! Not here: members of groups (`members/`).

use super::broker::Shared;
use crate::{Error, ErrorKind, Reader, Result};
use std::sync::Arc;

/// The readers that are open.
#[derive(Debug, Default)]
pub(super) struct Readers {}

impl Readers {
    /// Ends all of them.
    pub(super) fn end(&self) {}
}

/// A reader that follows nothing yet.
///
/// # Errors
/// `Unavailable`.
pub(super) fn open(_shared: &Arc<Shared>) -> Result<Box<dyn Reader>> {
    Err(Error::new(ErrorKind::Unavailable, "readers on Kafka are being built"))
}
