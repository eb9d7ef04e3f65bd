//! Names of topics and groups.
//!
//! `[A-Za-z0-9._-]{1,249}`, not `.` or `..`: what Kafka takes, and safe as a file name and in a URL. A derived name that
//! would be longer is cut and ends in a hash of the whole.
//! Not here: names of headers (`wire.rs`).

use crate::{Error, ErrorKind, Result};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};
use uuid::Uuid;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 249;

/// What internal topics begin with.
pub const INTERNAL_PREFIX: &str = "__ropeway.";

/// Checks a name of `what` (`topic`, `group`).
fn check(what: &str, name: &str) -> Result<()> {
    let wrong = |why: String| Err(Error::new(ErrorKind::Invalid, why));
    if name.is_empty() {
        return wrong(format!("a {what} needs a name"));
    }
    if name.len() > MAX_NAME {
        let start: String = name.chars().take(40).collect();
        return wrong(format!(
            "the {what} name {start:?}... has {} bytes and may have {MAX_NAME}",
            name.len()
        ));
    }
    if name == "." || name == ".." {
        return wrong(format!("{name:?} cannot be the name of a {what}"));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
        None => Ok(()),
        Some(c) => wrong(format!(
            "the {what} name {name:?} contains {c:?}; letters, digits, '.', '_' and '-' are allowed"
        )),
    }
}

/// The name itself; one that is too long is cut and ends in a hash of the whole.
fn cut(whole: String) -> String {
    if whole.len() <= MAX_NAME {
        return whole;
    }
    let hash = hash(whole.as_bytes());
    let mut cut = whole;
    cut.truncate(MAX_NAME - hash.len() - 1);
    cut + "-" + &hash
}

fn hash(bytes: &[u8]) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, bytes).simple().to_string()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Takes a name.
            ///
            /// # Errors
            /// [`ErrorKind::Invalid`] with the reason where it is not `[A-Za-z0-9._-]{1,249}`, or is `.` or `..`.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                let name = name.as_ref();
                check($what, name)?;
                Ok(Self(Arc::from(name)))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A named log of messages, cut into partitions.
    Topic, "topic"
);
name!(
    /// A consumer group: members that share the work of a topic.
    Group, "group"
);

impl Topic {
    /// The dead-letter topic of `group` for this topic: `<topic>.<group>.dlq`.
    ///
    /// Names with dots can meet in one (`a` of `b.c`, `a.b` of `c`): a dead letter says whose it is.
    #[must_use]
    pub fn dead_letters_of(&self, group: &Group) -> Self {
        Self(Arc::from(cut(format!("{self}.{group}.dlq"))))
    }

    /// The internal topic `__ropeway.<what>.<parts>`, joined by dots. Where the parts themselves have dots it ends in a hash of them, so
    /// that different parts never share a topic.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where `what` or a part is not allowed in a name.
    pub fn internal(what: &str, parts: &[&str]) -> Result<Self> {
        check("topic", what)?;
        parts.iter().try_for_each(|part| check("topic", part))?;
        let joined = parts.join(".");
        let whole = if parts.len() > 1 && parts.iter().any(|part| part.contains('.')) {
            format!("{INTERNAL_PREFIX}{what}.{joined}-{}", hash(parts.join("\0").as_bytes()))
        } else {
            format!("{INTERNAL_PREFIX}{what}.{joined}")
        };
        Ok(Self(Arc::from(cut(whole))))
    }

    /// Whether it is one of Ropeway's own.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL_PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_or_surprise_are_refused_with_the_reason() {
        for bad in ["", ".", "..", "../x", "a\0b", "a b", "ä", "a/b", &"x".repeat(10_000)] {
            let error = Topic::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
            assert!(error.to_string().len() < 500);
        }
        assert_eq!(Topic::new("orders.v1_A-9").unwrap().as_str(), "orders.v1_A-9");
        Topic::new("x".repeat(MAX_NAME)).unwrap();
        Group::new("g").unwrap();
    }

    #[test]
    fn a_long_derived_name_is_cut_and_stays_distinct() {
        let group = Group::new("g".repeat(240)).unwrap();
        let a = Topic::new("a".repeat(240)).unwrap().dead_letters_of(&group);
        let b = Topic::new("a".repeat(239)).unwrap().dead_letters_of(&group);
        assert_ne!(a, b);
        for name in [&a, &b] {
            Topic::new(name.as_str()).unwrap();
        }
        let short = Topic::new("orders").unwrap().dead_letters_of(&Group::new("billing").unwrap());
        assert_eq!(short.as_str(), "orders.billing.dlq");
        let internal = |parts: &[&str]| Topic::internal("journal", parts).unwrap();
        assert_eq!(internal(&["orders", "billing"]).as_str(), "__ropeway.journal.orders.billing");
        assert_ne!(internal(&["orders", "eu.billing"]), internal(&["orders.eu", "billing"]));
    }
}
