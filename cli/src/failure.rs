//! The error of the program: what was wrong, its causes, what to do, and the exit code.
//!
//! Not here: how it is printed (`output/notes.rs`), the list of codes (`exit.rs`).

use crate::exit::Exit;
use ropeway_broker::ErrorKind;
use std::error::Error as StdError;

/// Why the program could not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
    by_broker: Option<ErrorKind>,
}

impl Failure {
    /// A failure that says what was wrong and where, in one line; ends with code 1 unless [`Self::exits`] says otherwise.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::Error, what: what.into(), causes: Vec::new(), hint: None, by_broker: None }
    }

    /// What was asked for is not acceptable.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(what).exits(Exit::Usage)
    }

    /// A setting is wrong.
    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::new(what).exits(Exit::Config)
    }

    /// The reader of stdout went away: the program ends, quietly and well.
    pub(crate) fn output_closed() -> Self {
        Self::new("").exits(Exit::Ok)
    }

    /// Ends with that code.
    pub(crate) const fn exits(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Adds a cause and the causes of it.
    pub(crate) fn caused_by(mut self, cause: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let told = cause.to_string();
            // Some wrap a cause and repeat its text.
            if !self.what.ends_with(&told) && self.causes.last() != Some(&told) {
                self.causes.push(told);
            }
            next = cause.source();
        }
        self
    }

    /// Says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says how a topic is made, where it is one that was not found.
    pub(crate) fn of_topic(self, topic: &str) -> Self {
        match self.exit {
            Exit::NotFound => self.hint(format!("make it with `ropeway topic create {topic}`")),
            _ => self,
        }
    }

    /// It comes from the broker, by an error of that kind.
    pub(crate) const fn by_broker(mut self, kind: ErrorKind) -> Self {
        self.by_broker = Some(kind);
        self
    }

    /// The kind of the broker's error that it comes from; `None`: from a file, stdout or what was found.
    pub(crate) const fn of_broker(&self) -> Option<ErrorKind> {
        self.by_broker
    }

    /// The code to end with.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether there is nothing to tell.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.what.is_empty()
    }

    /// What was wrong.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Why, from the nearest cause to the first.
    pub(crate) fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What to do.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// What to do about a directory that is damaged.
pub(crate) fn damaged(dir: &str) -> String {
    format!(
        "`ropeway data check {dir}` tells all that is damaged, `ropeway data export {dir}` prints the messages that can be read"
    )
}

impl From<ropeway_broker::Error> for Failure {
    fn from(error: ropeway_broker::Error) -> Self {
        let failure = Self::new(error.to_string()).exits(Exit::of(error.kind())).by_broker(error.kind());
        match error.source() {
            Some(cause) => failure.caused_by(cause),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_broker::{Error, ErrorKind};

    #[test]
    fn a_failure_of_the_bus_keeps_its_causes_and_tells_each_once() {
        let inner =
            Error::new(ErrorKind::Unavailable, "the disk is slow").caused_by(std::io::Error::other("really"));
        let same = Error::new(ErrorKind::Unavailable, "the disk is slow").caused_by(inner);
        let failure = Failure::from(Error::new(ErrorKind::Unavailable, "no answer").caused_by(same));
        assert_eq!((failure.what(), failure.exit()), ("no answer", Exit::Unreachable));
        assert_eq!(failure.causes(), ["the disk is slow", "really"]);
        let repeated = Error::new(ErrorKind::NotFound, "there is none")
            .caused_by(std::io::Error::other("there is none"));
        assert!(Failure::from(repeated).causes().is_empty());
        assert!(Failure::output_closed().is_quiet());
    }
}
