//! How a check fails: one line that says what was promised and what was seen.
//!
//! Not here: waiting for what is promised (`stage.rs`, `calls.rs`).

use std::fmt::Debug;

/// Fails the check: this was promised, that was seen.
#[track_caller]
pub(super) fn broken(promise: &str, seen: impl AsRef<str>) -> ! {
    panic!("promised: {promise}; seen: {}", seen.as_ref())
}

/// Fails unless `holds`.
#[track_caller]
pub(super) fn promised(holds: bool, promise: &str, seen: impl FnOnce() -> String) {
    if !holds {
        broken(promise, cut(seen()));
    }
}

/// Fails unless `seen` is what was promised.
#[track_caller]
pub(super) fn same<S: Debug + PartialEq<E>, E: Debug>(promise: &str, seen: S, expected: E) {
    promised(seen == expected, promise, || {
        format!("{} instead of {}", cut(format!("{seen:?}")), cut(format!("{expected:?}")))
    });
}

/// What ought to have worked.
pub(super) trait Ought<T> {
    /// What it brought, or the check fails.
    fn ought(self, promise: &str) -> T;
}

impl<T, E: Debug> Ought<T> for Result<T, E> {
    #[track_caller]
    fn ought(self, promise: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => broken(promise, cut(format!("{error:?}"))),
        }
    }
}

impl<T> Ought<T> for Option<T> {
    #[track_caller]
    fn ought(self, promise: &str) -> T {
        match self {
            Some(value) => value,
            None => broken(promise, "nothing"),
        }
    }
}

/// The beginning of a text that may be long.
pub(super) fn cut(text: String) -> String {
    const MOST: usize = 1500;
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
    }
}
