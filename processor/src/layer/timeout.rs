//! Limits an attempt in time: it is dropped, and what it started elsewhere sees its token cancelled.

use futures::{FutureExt, TryFutureExt};
use std::{future::Future, time::Duration};
use tokio::time::Instant;

/// It took longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed(pub(crate) Duration);

/// The value, if it comes in time, counted from `since`; otherwise `cancel` is called.
pub(crate) fn within<T>(
    limit: Option<Duration>,
    since: Instant,
    cancel: impl FnOnce(),
    future: impl Future<Output = T>,
) -> impl Future<Output = Result<T, Elapsed>> {
    // A time that no clock can show does not come.
    let Some((limit, end)) = limit.and_then(|limit| Some((limit, since.checked_add(limit)?))) else {
        return future.map(Ok).right_future();
    };
    let elapsed = move |_| {
        cancel();
        Elapsed(limit)
    };
    tokio::time::timeout_at(end, future).map_err(elapsed).left_future()
}
