//! Turns a panic into a value, so that the worker lives on.

use futures::{FutureExt, TryFutureExt};
use std::{any::Any, future::Future, panic::AssertUnwindSafe};

/// The value, or what the panic said.
pub(crate) fn catch_panic<T>(future: impl Future<Output = T>) -> impl Future<Output = Result<T, String>> {
    // What a panic leaves half done lies behind the handler's own reference; its next attempt finds it as after any error.
    AssertUnwindSafe(future).catch_unwind().map_err(|panic| said(&*panic))
}

/// What `call` returns, or what its panic said.
pub(crate) fn catch_panic_of<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without text").to_owned()
}
