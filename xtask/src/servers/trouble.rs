//! Why there is no server.

use std::fmt;

/// Why there is no server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It needs something that this machine lacks; says what to run.
    Missing(String),
    /// What it needs is there, and it did not come up.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

/// Something about a server that did not work.
pub(crate) fn broken(what: impl fmt::Display) -> Trouble {
    Trouble::Broken(what.to_string())
}
