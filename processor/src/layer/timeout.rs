//! Limits an attempt in time: it is dropped, and what it started elsewhere sees its token cancelled.

use futures::{FutureExt, TryFutureExt};
use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// It took longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed(pub(crate) Duration);

/// The value, if it comes in time.
pub(crate) fn within<T>(
    limit: Option<Duration>,
    cancel: &CancellationToken,
    future: impl Future<Output = T>,
) -> impl Future<Output = Result<T, Elapsed>> {
    let Some(limit) = limit else { return future.map(Ok).right_future() };
    let elapsed = move |_| {
        cancel.cancel();
        Elapsed(limit)
    };
    tokio::time::timeout(limit, future).map_err(elapsed).left_future()
}
