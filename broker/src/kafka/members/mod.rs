//! Members of groups.
//!
//! Not here: readers without a group (`../reader.rs`).

use super::broker::Shared;
use crate::{Consumer, Error, ErrorKind, Result, Subscription};
use std::{sync::Arc, time::Duration};

/// The members that are open.
#[derive(Debug, Default)]
pub(super) struct Members {}

impl Members {
    /// Ends all of them.
    pub(super) fn close(&self, _deadline: Duration) -> impl Future<Output = ()> + Send + 'static {
        std::future::ready(())
    }

    /// Ends all of them as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn kill(&self) {}
}

/// Joins a group.
///
/// # Errors
/// `Unavailable`.
pub(super) async fn subscribe(
    _shared: &Arc<Shared>,
    _subscription: Subscription,
) -> Result<Box<dyn Consumer>> {
    Err(Error::new(ErrorKind::Unavailable, "members of groups on Kafka are being built"))
}
