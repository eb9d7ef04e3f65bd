//! The URL of a broker: what may be secret in it is never shown.

use super::Setting;
use std::fmt;

/// A broker's URL. Shown, printed and logged without the user and password it may hold.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

/// Parameters whose values are hidden.
const SECRET: [&str; 5] = ["password", "secret", "token", "key", "credential"];

impl Address {
    /// Takes a URL as it is.
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole URL, to connect with.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, query) = match self.0.split_once('?') {
            Some((head, query)) => (head, Some(query)),
            None => (self.0.as_str(), None),
        };
        // Each of several hosts may carry its own user; what stands before the last `@` is hidden whole.
        match (head.split_once("//"), head.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, hosts))) => write!(f, "{scheme}//***@{hosts}")?,
            _ => f.write_str(head)?,
        }
        for (i, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
            f.write_str(if i == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((name, _)) if SECRET.iter().any(|secret| name.to_ascii_lowercase().contains(secret)) => {
                    write!(f, "{name}=***")?;
                }
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Setting for Address {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(
                "it takes a URL such as embedded:./data, memory:, redis://host or kafka://host".to_owned()
            );
        }
        Ok(Self::new(text))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_never_shown() {
        for (url, shown) in [
            ("embedded:./data", "embedded:./data"),
            ("embedded:./a@b", "embedded:./a@b"),
            ("redis://u:p@h:6379/0", "redis://***@h:6379/0"),
            ("redis://u:p/w@h:6379", "redis://***@h:6379"),
            ("kafka://u:p@a:1,u:p@b:2?x=1", "kafka://***@b:2?x=1"),
            ("pulsar://h:6650?auth_token=abc&a=b", "pulsar://h:6650?auth_token=***&a=b"),
        ] {
            let address = Address::new(url);
            assert_eq!(address.to_string(), shown);
            assert!(format!("{address:?}") == shown && address.reveal() == url);
        }
    }
}
