//! What a handler says about an event, and how what went wrong is classed.
//!
//! Not here: what follows from it (`retry.rs`, `dead_letter/`), how handlers are run (`layer/`).

use serde::{Deserialize, Serialize};
use std::{error::Error as StdError, fmt, time::Duration};

/// Any error of a handler.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What a handler says about an event. An error instead means: try again by policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Handled.
    Done,
    /// Not now: try again. Counts as an attempt; after the last one the event is dead-lettered.
    Retry {
        /// After that long, at most 1 day; `None`: by policy.
        after: Option<Duration>,
    },
    /// It cannot be handled, however often it is tried: it goes to the dead-letter topic.
    Reject {
        /// Why, in words for the person who finds it there.
        why: String,
    },
}

impl Verdict {
    /// Try again by policy.
    pub const fn retry() -> Self {
        Self::Retry { after: None }
    }

    /// Try again after that long.
    pub const fn retry_after(after: Duration) -> Self {
        Self::Retry { after: Some(after) }
    }

    /// Cannot be handled, and why.
    pub fn reject(why: impl Into<String>) -> Self {
        Self::Reject { why: why.into() }
    }
}

/// What kind of failure it was: a closed set, used in dead letters and as a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The handler returned an error.
    Error,
    /// The handler asked for a retry.
    Retry,
    /// The handler panicked.
    Panic,
    /// An attempt took longer than it may.
    Timeout,
    /// The handler rejected it.
    Rejected,
    /// The payload is not what the handler takes.
    Undecodable,
    /// No handler takes events of its type.
    UnknownType,
    /// The record is no message: damaged, or foreign.
    Unreadable,
}

impl FailureClass {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Retry,
        Self::Panic,
        Self::Timeout,
        Self::Rejected,
        Self::Undecodable,
        Self::UnknownType,
        Self::Unreadable,
    ];

    /// The name in headers and metrics, such as `unknown_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Retry => "retry",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::UnknownType => "unknown_type",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether another attempt may end differently.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Error | Self::Retry | Self::Panic | Self::Timeout)
    }

    /// The class of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failed attempt to handle an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub class: FailureClass,
    /// What went wrong, with the causes, in one line.
    pub why: String,
    /// The handler that failed; `None` where none takes it.
    pub handler: Option<String>,
    /// The wait that the handler asked for.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(class: FailureClass, why: impl Into<String>) -> Self {
        Self { class, why: why.into(), handler: None, retry_after: None }
    }

    /// No handler takes an event of that type.
    pub(crate) fn unknown_type(event_type: Option<&str>) -> Self {
        let why = match event_type {
            // A type comes from outside and may be long.
            Some(name) => {
                let mut name = name.to_owned();
                cut(&mut name, 256);
                format!(
                    "no handler takes events of type {name:?}; register one, or let the router ignore unknown types"
                )
            }
            None => {
                "no handler takes an event without type (header ce_type); register one for `*`".to_owned()
            }
        };
        Self::new(FailureClass::UnknownType, why)
    }

    /// From the error that a handler returned.
    pub(crate) fn from_error(error: &BoxError) -> Self {
        let class = if error.is::<Undecodable>() { FailureClass::Undecodable } else { FailureClass::Error };
        Self::new(class, with_causes(error.as_ref()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.handler {
            Some(handler) => write!(f, "handler {handler:?}: {}: {}", self.class, self.why),
            None => write!(f, "{}: {}", self.class, self.why),
        }
    }
}

impl StdError for Failure {}

/// The payload is not what a handler takes. A handler that returns it as its error rejects the event: no retry would decode it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    why: String,
}

impl Undecodable {
    /// Says where and why, such as `items[2].price: invalid type: string "x", expected f64`.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl StdError for Undecodable {}

/// The longest text that is made of an error and its causes, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// The text of an error and of what caused it, bounded.
fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if text.len() > MAX_TEXT {
            break;
        }
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    cut(&mut text, MAX_TEXT);
    text
}

/// Cuts a text to at most `max` bytes, at a character's end.
pub(crate) fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_classes_round_trip() {
        for class in FailureClass::ALL {
            assert_eq!(FailureClass::from_name(class.as_str()), Some(class));
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let cause = std::io::Error::other("disk on fire");
        let error: BoxError =
            Box::new(ropeway_broker::Error::new(ropeway_broker::ErrorKind::Full, "no room").caused_by(cause));
        let failure = Failure::from_error(&error);
        assert_eq!((failure.class, failure.why.as_str()), (FailureClass::Error, "no room: disk on fire"));
        let error: BoxError = Box::new(Undecodable::new("x"));
        assert_eq!(Failure::from_error(&error).class, FailureClass::Undecodable);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut text = "äöü".to_owned();
        cut(&mut text, 3);
        assert_eq!(text, "ä");
    }
}
