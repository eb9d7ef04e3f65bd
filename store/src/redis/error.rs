//! What can go wrong between this process and Redis: by what its caller can do about it, and whether the work was done all the same.
//!
//! Not here: failures of the embedded key-value store (`../error.rs`).

use super::wire::Reply;
use std::{fmt, sync::Arc};

/// The result of a call to Redis.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether what was asked for was done although the call failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Certainly not: it was never written to the connection, or the server refused it before it did anything.
    NotDone,
    /// Nobody knows: it was written, wholly or in part, and no answer came; or a script failed while it ran.
    Unknown,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or URL is wrong; nothing was connected.
    Settings,
    /// The server cannot be reached, or does not serve now.
    Unavailable,
    /// No answer within the time allowed.
    Timeout,
    /// The connection ended before the answer came.
    Cut,
    /// All connections of the pool are in use, and none came free in time.
    Exhausted,
    /// The server failed several times in a row and is left alone for a moment.
    BreakerOpen,
    /// User or password are refused, or missing.
    Auth,
    /// The user may not do this (ACL).
    Denied,
    /// TLS could not be agreed on: no TLS at one end, a certificate that is not trusted, or one that is missing.
    Tls,
    /// What answers there does not speak the protocol of Redis.
    NotRedis,
    /// It answers more than 1 GiB to one command. The connection has ended with that.
    TooLong,
    /// The server is older than what is needed.
    Version,
    /// The server reads its data from disk and serves afterwards.
    Loading,
    /// The server is a replica, or its replicas are too few for it to take writes.
    ReadOnly,
    /// The server has reached its memory limit.
    OutOfMemory,
    /// The server cannot write to its own disk and takes no writes.
    Persistence,
    /// A script blocks the server.
    Busy,
    /// The key holds another type.
    WrongType,
    /// The server does not know the script, and neither does this process.
    NoScript,
    /// The keys of one request live in different slots of the cluster.
    CrossSlot,
    /// The cluster does not serve the slot now.
    Cluster,
    /// A transaction was refused as a whole.
    Aborted,
    /// Any other answer that is an error.
    Refused,
}

impl ErrorKind {
    /// The way out, as it ends the text of an error.
    #[must_use]
    pub fn way_out(self) -> &'static str {
        match self {
            Self::Settings => "correct the setting",
            Self::Unavailable => "see that the server runs and that host, port and firewall are right",
            Self::Timeout => "see what the server is busy with (SLOWLOG GET), or allow more time",
            Self::Cut => "see the server's log; it may have restarted or closed the connection",
            Self::Exhausted => "raise the size of the pool, or ask for less at a time",
            Self::BreakerOpen => "wait; it is tried again by itself",
            Self::Auth => "give the user and password that the server knows (ACL LIST shows the users)",
            Self::Denied => "allow it for this user (ACL SETUSER), or use another user",
            Self::Tls => {
                "use rediss:// with the right CA and certificate, or redis:// where the port has no TLS"
            }
            Self::NotRedis => "check host and port",
            Self::TooLong => "ask for less at a time",
            Self::Version => "use Redis 7.0 or newer",
            Self::Loading => "wait until the server has read its data",
            Self::ReadOnly => "connect to the primary (redis+sentinel:// finds it), or restore its replicas",
            Self::OutOfMemory => "raise maxmemory, or delete what is not needed; do not let keys be evicted",
            Self::Persistence => "make room on the server's disk and see its log",
            Self::Busy => "wait for the script, or end it with SCRIPT KILL",
            Self::WrongType => "use another prefix, or remove the key if it is not needed",
            Self::NoScript => "load the script again",
            Self::CrossSlot => "give keys that belong together one hash tag, as in {tag}:key",
            Self::Cluster => "see CLUSTER INFO; the cluster may be failing over",
            Self::Aborted | Self::Refused => "see what the server says",
        }
    }

    /// Whether the same call may well succeed a little later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Timeout
                | Self::Cut
                | Self::Exhausted
                | Self::BreakerOpen
                | Self::Loading
                | Self::Busy
                | Self::Cluster
        )
    }

    /// Whether it says that the server itself is not there, as the circuit breaker counts it.
    pub(super) fn is_absence(self) -> bool {
        matches!(
            self,
            Self::Unavailable | Self::Timeout | Self::Cut | Self::Loading | Self::NotRedis | Self::Tls
        )
    }
}

/// A failure, with the server it is about. Neither its text nor its `Debug` form ever holds a password.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    outcome: Outcome,
    server: Arc<str>,
    what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown =
            if self.outcome == Outcome::Unknown { " (it is not known whether it was done)" } else { "" };
        write!(f, "redis {}: {}{unknown}; {}", self.server, self.what, self.kind.way_out())
    }
}

impl Error {
    /// Certainly not done.
    pub(super) fn new(kind: ErrorKind, server: &Arc<str>, what: impl Into<String>) -> Self {
        Self { kind, outcome: Outcome::NotDone, server: Arc::clone(server), what: what.into() }
    }

    pub(super) fn settings(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Settings, &Arc::from("settings"), what)
    }

    /// Whether a server says that it is a replica.
    pub(super) fn is_demotion(&self) -> bool {
        self.kind == ErrorKind::ReadOnly && self.what.starts_with("READONLY")
    }

    /// The same, for a request of which something was written.
    pub(super) fn after_writing(mut self, written: bool) -> Self {
        if written {
            self.outcome = Outcome::Unknown;
        }
        self
    }

    /// Without `secret`, which a server may repeat in its answer.
    pub(super) fn without(mut self, secret: Option<&str>) -> Self {
        if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
            self.what = self.what.replace(secret, "***");
        }
        self
    }

    /// What a server's error answer says. An error that a script raised while it ran leaves open what it did before, unless the server takes no
    /// writes at all.
    pub(super) fn of_answer(server: &Arc<str>, code: &str, text: &str) -> Self {
        let kind = kind_of(code, text);
        let in_script = text.contains(" script: ") || text.contains("user_script:");
        let wrote = in_script && !matches!(kind, ErrorKind::ReadOnly | ErrorKind::Persistence);
        Self::new(kind, server, format!("{code} {text}").trim().to_owned()).after_writing(wrote)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether it was done all the same.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The server: `host:port`, or the path of a socket.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What happened, without server and way out. Where the server refused, it begins with the server's code, as in `WRONGTYPE ...`.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

fn kind_of(code: &str, text: &str) -> ErrorKind {
    match code {
        "WRONGPASS" | "NOAUTH" => ErrorKind::Auth,
        "ERR" if text.contains("invalid password") || text.contains("AUTH <password>") => ErrorKind::Auth,
        "ERR" if text.contains("max number of clients") => ErrorKind::Unavailable,
        "NOPERM" => ErrorKind::Denied,
        "WRONGTYPE" => ErrorKind::WrongType,
        "READONLY" | "NOREPLICAS" => ErrorKind::ReadOnly,
        "OOM" => ErrorKind::OutOfMemory,
        "LOADING" => ErrorKind::Loading,
        "MASTERDOWN" => ErrorKind::Unavailable,
        "MISCONF" => ErrorKind::Persistence,
        "BUSY" => ErrorKind::Busy,
        "NOSCRIPT" => ErrorKind::NoScript,
        "CROSSSLOT" => ErrorKind::CrossSlot,
        "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" => ErrorKind::Cluster,
        "EXECABORT" => ErrorKind::Aborted,
        _ => ErrorKind::Refused,
    }
}

/// The error in a reply, if it is one.
pub(super) fn error_of(server: &Arc<str>, reply: &Reply) -> Option<Error> {
    let Reply::Error(text) = reply else { return None };
    let text = String::from_utf8_lossy(text);
    let (code, rest) = text.split_once(' ').unwrap_or((&text, ""));
    Some(Error::of_answer(server, code, rest))
}
