//! What fails in Redis, as an error of the contract.
//!
//! Not here: what a connection can meet (`ropeway_store::redis`).

use crate::{Error, ErrorKind};
use ropeway_store::redis::{self, Redis, Reply};
use std::{fmt::Display, sync::Arc};

/// The name of the backend in errors and capabilities.
pub(super) const BACKEND: &str = "redis";

/// The error of the contract; its text names the server and the way out.
pub(super) fn failed(error: redis::Error) -> Error {
    use redis::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::Auth | Kind::Denied => ErrorKind::Unauthorized,
        Kind::Version | Kind::CrossSlot => ErrorKind::Unsupported,
        Kind::OutOfMemory | Kind::Persistence => ErrorKind::Full,
        Kind::WrongType => ErrorKind::Conflict,
        Kind::TooLong => ErrorKind::TooLarge,
        Kind::Settings | Kind::Tls | Kind::NotRedis | Kind::Refused => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, error.to_string()).caused_by(error)
}

/// The server, or the servers, as the URL names them: for errors.
pub(super) fn named(redis: &Redis) -> Arc<str> {
    redis.settings().target.to_string().into()
}

/// Whether an answer is an error of that code.
pub(super) fn is_refused(answer: &Reply, code: &str) -> bool {
    matches!(answer, Reply::Error(text) if text.split(|byte| *byte == b' ').next() == Some(code.as_bytes()))
}

/// Whether the server does not know a script of ours: then nothing was done.
pub(super) fn is_unknown_script(answer: &Reply) -> bool {
    is_refused(answer, "NOSCRIPT")
}

/// An answer of a server that is an error; `about`: what was asked, and of which key.
pub(super) fn refused(server: &str, about: impl Display, text: &[u8]) -> Error {
    let text = String::from_utf8_lossy(text);
    // Where in a script it was is of no use to who reads it.
    let text = text.split(" script: ").next().unwrap_or_default();
    let code = text.split(' ').next().unwrap_or_default();
    let (kind, way_out) = match code {
        "OOM" => (ErrorKind::Full, redis::ErrorKind::OutOfMemory.way_out()),
        "MISCONF" => (ErrorKind::Full, redis::ErrorKind::Persistence.way_out()),
        "NOPERM" | "NOAUTH" => (ErrorKind::Unauthorized, "allow it for this user (ACL SETUSER)"),
        "WRONGTYPE" => (ErrorKind::Conflict, "something else has the name of our key: use another prefix"),
        "READONLY" | "NOREPLICAS" => (ErrorKind::Unavailable, redis::ErrorKind::ReadOnly.way_out()),
        // The last: it became a replica while something waited on it.
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "BUSY" | "UNBLOCKED" => {
            (ErrorKind::Unavailable, "try again")
        }
        _ => (ErrorKind::Invalid, "see what the server says"),
    };
    Error::new(kind, format!("redis {server} answers {text:?} to {about}; {way_out}"))
}

/// An answer that this version of Ropeway does not know: another one wrote the script, or what answers is not Redis.
pub(super) fn strange(server: &str, about: impl Display, reply: &[Reply]) -> Error {
    let mut seen = format!("{reply:?}");
    seen.truncate(seen.char_indices().nth(200).map_or(seen.len(), |(at, _)| at));
    let context = format!(
        "redis {server} answers {about} as it never should: {seen}; see whether another version of Ropeway, or something between, has to do with it"
    );
    Error::new(ErrorKind::Corrupt, context)
}

/// What is stored as the epoch of a group in a partition is none that can grow: nobody can own the partition.
pub(super) fn no_epoch(server: &str, key: &str, stored: &str) -> Error {
    let context = format!(
        "redis {server} has {stored:?} as the epoch in {key}, which is none below 2^53: somebody wrote it; remove it (HDEL {key} epoch), and the next is made from the clock"
    );
    Error::new(ErrorKind::Corrupt, context)
}

/// No answer within the time that a call has.
pub(super) fn late(server: &str) -> Error {
    let context = format!(
        "redis {server} gave no answer in time; see whether it can be reached, and what it is busy with (SLOWLOG GET)"
    );
    Error::new(ErrorKind::Unavailable, context)
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed; open it again")
}
