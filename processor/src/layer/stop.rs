//! Drops an attempt when its processor stops it: the partition is gone and the grace is over, or the time to drain is.

use std::future::Future;
use tokio_util::sync::CancellationToken;

/// It was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// The value, unless `stop` comes first.
pub(crate) async fn unless_stopped<T>(
    stop: &CancellationToken,
    future: impl Future<Output = T>,
) -> Result<T, Stopped> {
    stop.run_until_cancelled(future).await.ok_or(Stopped)
}
