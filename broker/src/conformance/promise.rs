//! How a check fails: one line that says what was promised and what was seen.
//!
//! Not here: waiting for what is promised (`stage.rs`, `watch.rs`).

use crate::{Error, ErrorKind, Message, Published};
use std::fmt::Debug;

/// Fails the check: this was promised, that was seen.
#[track_caller]
pub fn broken(promise: &str, seen: impl AsRef<str>) -> ! {
    panic!("promised: {promise}; seen: {}", seen.as_ref())
}

/// Fails unless `holds`.
#[track_caller]
pub fn promised(holds: bool, promise: &str, seen: impl FnOnce() -> String) {
    if !holds {
        broken(promise, cut(seen()));
    }
}

/// Fails unless `seen` is what was promised.
#[track_caller]
pub fn same<S: Debug + PartialEq<E>, E: Debug>(promise: &str, seen: S, expected: E) {
    promised(seen == expected, promise, || {
        let (seen, expected) = (cut(format!("{seen:?}")), cut(format!("{expected:?}")));
        format!("{seen} instead of {expected}")
    });
}

/// What ought to have worked.
pub trait Ought<T> {
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

/// Fails unless it was refused with `kind`; the error, to look at its text.
#[track_caller]
pub(super) fn refused<T>(promise: &str, result: Result<T, Error>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => broken(promise, "it was taken"),
        Err(error) if error.kind() == kind => error,
        Err(error) => broken(promise, format!("{} instead of {kind}: {error}", error.kind())),
    }
}

/// Fails unless the text of the error names `name`.
#[track_caller]
pub(super) fn names(promise: &str, error: &Error, name: impl AsRef<str>) {
    promised(error.to_string().contains(name.as_ref()), promise, || {
        format!("an error that does not name {:?}: {error}", name.as_ref())
    });
}

/// Fails unless the message came back as certainly not written, for that reason.
#[track_caller]
pub(super) fn not_written(promise: &str, outcome: &Published, kind: ErrorKind, message: &Message) {
    match outcome {
        Published::NotWritten(failed) => {
            same(promise, failed.error.kind(), kind);
            promised(failed.message == *message, "what was not written is given back as it was", || {
                cut(format!("{:?} instead of {message:?}", failed.message))
            });
        }
        other => broken(promise, cut(format!("{other:?}"))),
    }
}

/// The beginning of a text that may be long.
pub fn cut(text: String) -> String {
    const MOST: usize = 1500;
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
    }
}
