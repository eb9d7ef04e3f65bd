//! Patterns of event types and topics: text in which `*` stands for any characters, none and dots included.
//!
//! Not here: who is registered for what (`router/mod.rs`).

use std::fmt;

/// Text in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pattern(Box<str>);

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, where it matches nothing but itself.
    pub(crate) fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// Whether it matches everything, also what has no name at all.
    pub(crate) fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// Whether it matches. Takes time in proportion to both lengths at the worst.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on when what follows the last star does not match: the star takes one byte more.
        let mut back: Option<(usize, usize)> = None;
        while n < name.len() {
            if pattern.get(p) == Some(&b'*') {
                back = Some((p + 1, n));
                p += 1;
            } else if pattern.get(p) == Some(&name[n]) {
                p += 1;
                n += 1;
            } else if let Some((after, at)) = back {
                p = after;
                n = at + 1;
                back = Some((after, at + 1));
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|b| *b == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("order.created", "order.created", true),
            ("order.created", "order.create", false),
            ("order.*", "order.item.added", true),
            ("order.*", "orders", false),
            ("order.*", "order.", true),
            ("*.created", "order.created", true),
            ("*.v*.created", "order.v2.created", true),
            ("*.v*.created", "order.created", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("**a", "ba", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_regular_expression(pattern in "[ab*]{0,8}", name in "[ab]{0,12}") {
            let expression = regex::Regex::new(&format!("^{}$", pattern.replace('*', ".*"))).unwrap();
            prop_assert_eq!(Pattern::new(&pattern).matches(&name), expression.is_match(&name));
        }
    }
}
