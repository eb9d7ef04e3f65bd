//! Exit codes: the whole list, and which failure of the bus ends with which.

use ropeway_broker::ErrorKind;
use std::process::ExitCode;

/// How the program ends. The numbers are part of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// It failed, and none of the others says how.
    Error = 1,
    /// What was asked for is not acceptable as it stands.
    Usage = 2,
    /// It ran, and what it checked does not hold.
    Assertion = 3,
    /// The topic, group, message or file does not exist.
    NotFound = 4,
    /// It ran out of time, or did a part of what was asked.
    Partial = 5,
    /// `doctor` found nothing worse than a warning.
    Warned = 6,
    /// The broker cannot be reached.
    Unreachable = 69,
    /// A setting is wrong.
    Config = 78,
    /// Ctrl-C.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

/// What `--help` says about exit codes.
pub(crate) const HELP: &str = "\
Exit codes: 0 done, 1 error, 2 usage, 3 a check does not hold, 4 not found, 5 out of time
  or done in part, 6 warnings (doctor), 69 broker unreachable, 78 a setting is wrong,
  130 interrupted, 143 terminated
Data goes to stdout, everything else to stderr. The format never depends on where stdout goes.";

impl Exit {
    /// The code for a failure of the bus.
    pub(crate) const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Unavailable => Self::Unreachable,
            ErrorKind::Invalid => Self::Usage,
            _ => Self::Error,
        }
    }

    /// The code for a failure to open the broker: what is wrong there is a setting, or nobody answers.
    pub(crate) const fn of_connecting(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Unauthorized => Self::Config,
            ErrorKind::Unavailable | ErrorKind::Conflict => Self::Unreachable,
            other => Self::of(other),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_documented_number() {
        let all = [
            (Exit::Ok, 0),
            (Exit::Error, 1),
            (Exit::Usage, 2),
            (Exit::Assertion, 3),
            (Exit::NotFound, 4),
            (Exit::Partial, 5),
            (Exit::Warned, 6),
            (Exit::Unreachable, 69),
            (Exit::Config, 78),
            (Exit::Interrupted, 130),
            (Exit::Terminated, 143),
        ];
        for (exit, code) in all {
            assert_eq!(exit as u8, code, "{exit:?}");
            assert!(HELP.contains(&code.to_string()), "the help does not name {code}");
        }
        for (kind, exit) in [
            (ErrorKind::NotFound, Exit::NotFound),
            (ErrorKind::Unavailable, Exit::Unreachable),
            (ErrorKind::Invalid, Exit::Usage),
            (ErrorKind::TooLarge, Exit::Error),
            (ErrorKind::Exists, Exit::Error),
            (ErrorKind::Conflict, Exit::Error),
            (ErrorKind::Corrupt, Exit::Error),
        ] {
            assert_eq!(Exit::of(kind), exit, "{kind}");
        }
        assert_eq!(Exit::of_connecting(ErrorKind::Invalid), Exit::Config);
        assert_eq!(Exit::of_connecting(ErrorKind::Unsupported), Exit::Config);
        assert_eq!(Exit::of_connecting(ErrorKind::Unauthorized), Exit::Config);
        assert_eq!(Exit::of_connecting(ErrorKind::Conflict), Exit::Unreachable);
        assert_eq!(Exit::of_connecting(ErrorKind::Corrupt), Exit::Error);
    }
}
