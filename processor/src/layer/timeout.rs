//! Limits an attempt in time: it is dropped, and what it started elsewhere sees its token cancelled.

use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// It took longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed(pub(crate) Duration);

/// The value, if it comes in time.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    cancel: &CancellationToken,
    future: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let Some(limit) = limit else { return Ok(future.await) };
    tokio::time::timeout(limit, future).await.map_err(|_| {
        cancel.cancel();
        Elapsed(limit)
    })
}
