//! The table `[kafka]`: parameters of a `kafka:` URL, by the names they have there, for those that the URL does not give.
//!
//! Not here: which parameters there are and what they take (`KafkaSettings` of the broker), reading the layers (`layers.rs`).

use super::Origin;
use std::collections::BTreeMap;

/// The name of the table.
pub(crate) const TABLE: &str = "kafka";
/// A parameter that no file may hold.
const SECRET: &str = "key_password";
/// What each is about.
pub(crate) const ABOUT: &str = "parameter of a kafka: URL, for one that does not give it (docs/kafka.md)";

/// What is set for Kafka, and whence it came. `Debug` shows names alone.
#[derive(Clone, Default)]
pub(crate) struct Parameters(BTreeMap<String, (String, Origin)>);

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Parameters {
    /// Sets one, over what a lower layer said.
    ///
    /// # Errors
    /// What may be given instead.
    pub(super) fn set(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), String> {
        if name == SECRET && matches!(origin, Origin::File(..)) {
            return Err(
                "a password does not belong into a file of settings: give it by ROPEWAY__KAFKA__KEY_PASSWORD, or in the file that \
                 ROPEWAY__KAFKA__KEY_PASSWORD_FILE names"
                    .to_owned(),
            );
        }
        check(name, value)?;
        self.0.insert(name.to_owned(), (value.to_owned(), origin));
        Ok(())
    }

    /// Names, values and origins, in the order of the names. Secrets are hidden.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&str, &str, &Origin)> {
        self.0.iter().map(|(name, (value, origin))| {
            (name.as_str(), if name == SECRET { "***" } else { value.as_str() }, origin)
        })
    }

    /// The URL with those that it does not give.
    #[cfg(feature = "kafka")]
    pub(crate) fn below(&self, url: ropeway_broker::BrokerUrl) -> ropeway_broker::BrokerUrl {
        self.0.iter().fold(url, |url, (name, (value, _))| url.with_default(name, value))
    }

    /// Where those come from that an error names.
    pub(crate) fn named_in(&self, error: &str) -> Option<String> {
        let is_named = |name: &str| {
            let name = name.strip_prefix("rdkafka.").unwrap_or(name);
            error.contains(&format!("`{name}`")) || error.contains(&format!("`{name}="))
        };
        let named: Vec<_> = self
            .shown()
            .filter(|(name, ..)| is_named(name))
            .map(|(name, _, origin)| format!("`{name}` is set in {origin}"))
            .collect();
        (!named.is_empty()).then(|| named.join(", "))
    }
}

#[cfg(feature = "kafka")]
fn check(name: &str, value: &str) -> Result<(), String> {
    ropeway_broker::KafkaSettings::check_parameter(name, value).map_err(|error| error.to_string())
}

#[cfg(not(feature = "kafka"))]
fn check(_: &str, _: &str) -> Result<(), String> {
    Err("this build has no Kafka; build with `--features kafka`".to_owned())
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn line(line: usize) -> Origin {
        Origin::File(PathBuf::from("r.toml"), line)
    }

    #[test]
    fn what_is_set_goes_below_the_url_and_hides_secrets() {
        let mut set = Parameters::default();
        set.set("session", "40s", line(2)).unwrap();
        set.set("session", "50s", line(3)).unwrap();
        set.set("linger", "5ms", line(4)).unwrap();
        let url = ropeway_broker::BrokerUrl::parse("kafka://h?linger=7ms").unwrap();
        let url = set.below(url);
        assert_eq!((url.get("session"), url.get("linger")), (Some("50s"), Some("7ms")));
        assert!(set.set(SECRET, "hush", line(5)).unwrap_err().contains("KEY_PASSWORD_FILE"));
        set.set(SECRET, "hush", Origin::Env("X".into())).unwrap();
        let shown: Vec<_> = set.shown().map(|(name, value, _)| (name, value)).collect();
        assert_eq!(shown, [(SECRET, "***"), ("linger", "5ms"), ("session", "50s")]);
        assert!(!format!("{set:?}").contains("hush"));
        assert_eq!(set.named_in("`session` is 1s").unwrap(), "`session` is set in r.toml:3");
        assert!(set.named_in("nothing").is_none());
    }
}
