//! The error of the contract.
//!
//! One type for every backend: a [`ErrorKind`] named after the caller's next move, what was being done, on which
//! backend, and one line that says what was wrong, where, and what to do. The cause is told only by `source()`.
//! Not here: the private errors of a backend, which become this one in the backend's own folder.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

/// The result of everything on the bus.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The backend cannot be reached or does not answer in time: try again.
    Unavailable,
    /// Asked for more than the bound allows right now: slow down, then try again.
    Throttled,
    /// The disk or the server's memory is full: try again when somebody made room.
    Full,
    /// The topic, partition or group does not exist: create it.
    NotFound,
    /// It exists already: use it, or choose another name.
    Exists,
    /// Somebody else uses it, and the text says who: wait for them.
    Conflict,
    /// The backend does not let this user do that: get the right.
    Unauthorized,
    /// Larger than the topic takes: make it smaller.
    TooLarge,
    /// The partition belongs to another owner now: stop working on it.
    Fenced,
    /// Not acceptable as it stands, and never will be: correct it.
    Invalid,
    /// This backend or build cannot do it: the text says what can.
    Unsupported,
    /// Stored data is damaged: stop, and look at the text.
    Corrupt,
    /// Closed by its user: open it again.
    Closed,
}

impl ErrorKind {
    /// Whether the same call can succeed later without anybody changing it.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Throttled | Self::Full)
    }

    /// The name in metrics and machine-readable output, such as `not_found`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Full => "full",
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Conflict => "conflict",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge => "too_large",
            Self::Fenced => "fenced",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure on the bus. One word wide and cheap to clone: one cause can be the outcome of a whole batch.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    backend: &'static str,
    context: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind`. `context` is one line without a final stop: what was wrong, where, what to do.
    pub fn new(kind: ErrorKind, context: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            operation: Cow::Borrowed(""),
            backend: "",
            context: context.into(),
            source: None,
        }))
    }

    /// Says what was being done, in words that follow "could not": `publish to topic "orders"`.
    #[must_use]
    pub fn during(mut self, operation: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).operation = operation.into();
        self
    }

    /// Says on which backend: `embedded`, `kafka`, ...
    #[must_use]
    pub fn on(mut self, backend: &'static str) -> Self {
        Arc::make_mut(&mut self.0).backend = backend;
        self
    }

    /// Keeps the cause. It is not repeated in the text.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// What was being done; empty where it was not said.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The backend's name; empty where it was not said.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// What was wrong, where, and what to do.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.0.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.operation.is_empty() {
            write!(f, "could not {}", self.0.operation)?;
            if !self.0.backend.is_empty() {
                write!(f, " on {}", self.0.backend)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.0.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("text", &self.to_string());
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_what_where_and_leaves_the_cause_to_source() {
        let error = Error::new(ErrorKind::NotFound, "there is no such topic; create it first")
            .during("publish to topic \"orders\"")
            .on("embedded")
            .caused_by(std::io::Error::other("secret cause"));
        assert_eq!(
            error.to_string(),
            "could not publish to topic \"orders\" on embedded: there is no such topic; create it first"
        );
        assert!(error.source().is_some());
        assert!(!error.is_retryable());
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
