//! From a URL to a broker: the one place that knows every backend's scheme.
//!
//! Not here: what the parameters of a backend mean (the backend's own `settings.rs`).

use crate::{Error, ErrorKind, MessageBroker, Result};
use percent_encoding::percent_decode_str;
use std::{sync::Arc, time::Duration};

/// The backends of this build, by scheme.
pub const BACKENDS: &[&str] = &[
    "memory",
    #[cfg(feature = "embedded")]
    "embedded",
    #[cfg(feature = "kafka")]
    "kafka",
    #[cfg(feature = "kafka")]
    "kafka+ssl",
    #[cfg(feature = "redis")]
    "redis",
    #[cfg(feature = "redis")]
    "rediss",
    #[cfg(feature = "redis")]
    "unix",
    #[cfg(feature = "redis")]
    "redis+unix",
    #[cfg(feature = "redis")]
    "redis+sentinel",
    #[cfg(feature = "redis")]
    "rediss+sentinel",
    #[cfg(feature = "redis")]
    "redis+cluster",
    #[cfg(feature = "redis")]
    "rediss+cluster",
];

/// The schemes of Redis, whether or not they are in this build.
const REDIS: [&str; 8] = [
    "redis",
    "rediss",
    "unix",
    "redis+unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
];

/// The schemes of Kafka, whether or not they are in this build.
const KAFKA: [&str; 2] = ["kafka", "kafka+ssl"];

/// Opens the broker that a URL names.
///
/// | URL | Backend | Needs |
/// |---|---|---|
/// | `memory:` | in this process, gone with it | nothing |
/// | `embedded:DIR` | in this process, durable in DIR, which one process owns | feature `embedded` (default) |
/// | `kafka://HOST:PORT,HOST:PORT`, `kafka+ssl://..` | Apache Kafka, plain or over TLS | feature `kafka` |
/// | `redis://HOST:PORT`, `rediss://HOST:PORT` | Redis Streams, plain or over TLS | feature `redis`, Redis 7.0 or newer |
/// | `unix:///PATH`, `redis+unix:///PATH` | the same, over a socket of this machine | the same |
/// | `redis+sentinel://HOST:PORT,HOST:PORT/NAME` | the same, on the primary that sentinels name; `rediss+sentinel` over TLS | the same |
/// | `redis+cluster://HOST:PORT,HOST:PORT` | the same, on the nodes of a cluster; `rediss+cluster` over TLS | the same |
///
/// Parameters follow a `?`: `embedded:./data?durability=process_crash`. Each backend's module lists its own.
///
/// # Errors
/// `Invalid` for a URL or parameter that does not exist, with the nearest that does; `Unsupported` for a backend that is not in this
/// build, with the way to get it; those of the backend.
///
/// # Examples
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let broker = ropeway_broker::connect("memory:").await?;
/// let error = ropeway_broker::connect("memory:?durabilty=volatile").await.unwrap_err();
/// assert!(error.to_string().contains("max_message") || error.to_string().contains("durabilty"));
/// # Ok::<_, ropeway_broker::Error>(()) }).unwrap();
/// ```
pub async fn connect(url: &str) -> Result<Arc<dyn MessageBroker>> {
    let parsed = BrokerUrl::parse(url)?;
    match parsed.scheme.as_str() {
        "memory" => crate::embedded::open_memory(&parsed),
        #[cfg(feature = "embedded")]
        "embedded" => crate::embedded::open_directory(&parsed).await,
        #[cfg(not(feature = "embedded"))]
        "embedded" => Err(Error::new(
            ErrorKind::Unsupported,
            "this build has no embedded broker; build with `--features embedded`",
        )),
        #[cfg(feature = "redis")]
        scheme if REDIS.contains(&scheme) => Box::pin(crate::redis::open(&parsed)).await,
        #[cfg(feature = "kafka")]
        scheme if KAFKA.contains(&scheme) => Box::pin(crate::kafka::open(&parsed)).await,
        other => Err(unknown_scheme(other)),
    }
}

/// Checks a URL as far as [`connect`] does before it opens anything: the backend, its path, its parameters.
///
/// # Errors
/// As [`connect`].
pub fn check_url(url: &str) -> Result<()> {
    let parsed = BrokerUrl::parse(url)?;
    match parsed.scheme.as_str() {
        "memory" => crate::embedded::check_memory(&parsed).map(drop),
        #[cfg(feature = "embedded")]
        "embedded" => crate::embedded::check_directory(&parsed).map(drop),
        #[cfg(feature = "redis")]
        scheme if REDIS.contains(&scheme) => crate::redis::check(&parsed).map(drop),
        #[cfg(feature = "kafka")]
        scheme if KAFKA.contains(&scheme) => crate::kafka::check(&parsed).map(drop),
        other => Err(unknown_scheme(other)),
    }
}

fn unknown_scheme(scheme: &str) -> Error {
    let backends = BACKENDS.join(", ");
    for (feature, schemes) in [("redis", &REDIS[..]), ("kafka", &KAFKA[..])] {
        if schemes.contains(&scheme) {
            return Error::new(
                ErrorKind::Unsupported,
                format!(
                    "this build has no {scheme} backend; build with `--features {feature}`; it has: {backends}"
                ),
            );
        }
    }
    let planned = ["pulsar", "pulsar+ssl"];
    if planned.contains(&scheme) {
        return Error::new(
            ErrorKind::Unsupported,
            format!("this version of Ropeway has no {scheme} backend yet; this build has: {backends}"),
        );
    }
    let near =
        nearest(scheme, BACKENDS).map(|near| format!(" (did you mean `{near}:`?)")).unwrap_or_default();
    Error::new(
        ErrorKind::Invalid,
        format!("there is no backend `{scheme}:`{near}; this build has: {backends}"),
    )
}

/// A broker's URL, taken apart. `Debug` shows no values: they may be secrets.
#[derive(Clone)]
pub struct BrokerUrl {
    /// What stands before the first `:`, in lower case.
    pub scheme: String,
    /// What stands between the scheme and the parameters, decoded: a directory, or `//host:port,...`.
    pub path: String,
    /// All of it, as it stood. It may hold a password.
    #[cfg(any(feature = "kafka", feature = "redis"))]
    pub(crate) raw: String,
    parameters: Vec<(String, String)>,
}

impl std::fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("BrokerUrl")
            .field("scheme", &self.scheme)
            .field("parameters", &names)
            .finish_non_exhaustive()
    }
}

impl BrokerUrl {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// `Invalid` with what is wrong; the URL itself is not repeated beyond its scheme, as it may hold a password.
    pub fn parse(url: &str) -> Result<Self> {
        let invalid = |why: String| Error::new(ErrorKind::Invalid, why);
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(invalid(
                "a broker's URL starts with its backend, such as `memory:` or `embedded:./data`".into(),
            ));
        };
        if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') {
            return Err(invalid(format!("{scheme:?} cannot be the backend of a URL; try `embedded:./data`")));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        #[cfg(any(feature = "kafka", feature = "redis"))]
        let raw = format!("{}:{rest}", scheme.to_ascii_lowercase());
        let decode = |text: &str| {
            // Taken as it stands, it would be a path that nobody meant.
            if has_lone_percent(text) {
                return Err(invalid(format!(
                    "in the {scheme} URL two hexadecimal digits must follow each `%`; a percent sign is written `%25`"
                )));
            }
            let text = percent_decode_str(text).decode_utf8();
            text.map(std::borrow::Cow::into_owned)
                .map_err(|_| invalid(format!("the {scheme} URL is not UTF-8 after decoding")))
        };
        let path = decode(path)?;
        if path.contains('\0') {
            return Err(invalid(format!("the {scheme} URL contains a NUL byte")));
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(invalid(format!("the {scheme} URL has the parameter `{name}` twice")));
            }
            parameters.push((name, value));
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            path,
            #[cfg(any(feature = "kafka", feature = "redis"))]
            raw,
            parameters,
        })
    }

    /// Checks that all parameters are among `known`.
    ///
    /// # Errors
    /// `Invalid` that names the parameter, the nearest known one, and all of them.
    pub fn allow(&self, known: &[&str]) -> Result<()> {
        self.refuse_unknown(self.names().find(|name| !known.contains(name)), known)
    }

    /// The same, of the parameters that do not begin with `prefix`.
    ///
    /// # Errors
    /// As of [`Self::allow`].
    #[cfg(feature = "kafka")]
    pub(crate) fn allow_beside(&self, known: &[&str], prefix: &str) -> Result<()> {
        let unknown = |name: &&str| !known.contains(name) && !name.starts_with(prefix);
        self.refuse_unknown(self.names().find(unknown), known)
    }

    /// The same with one more parameter, unless it has one of that name.
    #[must_use]
    pub fn with_default(mut self, name: &str, value: &str) -> Self {
        if self.get(name).is_none() {
            self.parameters.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The names of the parameters, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }

    fn refuse_unknown(&self, name: Option<&str>, known: &[&str]) -> Result<()> {
        let Some(name) = name else { return Ok(()) };
        let near = nearest(name, known).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{} has no parameter `{name}`{near}; its parameters are: {}",
                self.scheme,
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ),
        ))
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Takes a parameter that is a number from 1 on, where it is there.
    ///
    /// # Errors
    /// `Invalid` that says what it takes.
    pub(crate) fn number(&self, name: &str, into: &mut usize) -> Result<()> {
        let Some(text) = self.get(name) else { return Ok(()) };
        let number = text.parse::<usize>().ok().filter(|number| *number > 0);
        *into = number.ok_or_else(|| self.wrong_value(name, "a number from 1 on"))?;
        Ok(())
    }

    /// Takes a parameter that is a number of bytes, where it is there.
    ///
    /// # Errors
    /// `Invalid` that says what it takes.
    pub(crate) fn bytes(&self, name: &str, into: &mut usize) -> Result<()> {
        let Some(text) = self.get(name) else { return Ok(()) };
        let bytes = parse_size(text).filter(|bytes| *bytes > 0);
        *into = bytes.ok_or_else(|| self.wrong_value(name, "bytes such as `5MiB`, `64KiB` or `1000`"))?;
        Ok(())
    }

    /// Takes a parameter that is a time longer than nothing, where it is there.
    ///
    /// # Errors
    /// `Invalid` that says what it takes.
    pub(crate) fn duration(&self, name: &str, into: &mut Duration) -> Result<()> {
        let Some(text) = self.get(name) else { return Ok(()) };
        let duration = parse_duration(text).filter(|duration| !duration.is_zero());
        *into = duration.ok_or_else(|| self.wrong_value(name, "a time such as `10m`, `30s` or `500ms`"))?;
        Ok(())
    }

    /// The error for a parameter whose value is not acceptable.
    #[must_use]
    pub fn wrong_value(&self, name: &str, expected: &str) -> Error {
        let value = self.get(name).unwrap_or_default();
        Error::new(
            ErrorKind::Invalid,
            format!("{}: `{name}={value}` is not acceptable; it takes {expected}", self.scheme),
        )
    }
}

/// The known name that is nearest to `name`, where one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), *k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

/// Bytes: a number, or one with `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB` or `B` behind it.
fn parse_size(text: &str) -> Option<usize> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// A time: a number with `ms`, `s`, `m`, `h` or `d` behind it.
fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?))
}

/// Whether a `%` stands without the two digits that belong to it.
fn has_lone_percent(text: &str) -> bool {
    let is_escape = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    text.split('%').skip(1).any(|after| !is_escape(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_parameters_are_refused_with_the_nearest() {
        let url = BrokerUrl::parse("embedded:./a%20b?durabilty=x").unwrap();
        assert_eq!(url.path, "./a b");
        let text = url.allow(&["durability", "max_message"]).unwrap_err().to_string();
        assert!(text.contains("`durabilty`") && text.contains("did you mean `durability`"), "{text}");
    }

    #[test]
    fn a_url_is_checked_without_opening_it() {
        check_url("memory:?max_message=1MiB").unwrap();
        for bad in ["memory:./x", "memory:?max_disk=1GiB", "nothing:x", "pulsar://h:1"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        #[cfg(feature = "embedded")]
        {
            check_url("embedded:./never/made").unwrap();
            assert!(!std::path::Path::new("./never").exists());
            for bad in ["embedded:", "embedded://host/x", "embedded:./x?durability=sometimes"] {
                assert_eq!(check_url(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused_without_panic() {
        for bad in [
            "",
            "nonsense",
            ":x",
            "a b:c",
            "x:?a=1&a=2",
            "embedded:%00",
            "embedded:%ff",
            "embedded:%zz",
            "embedded:a%",
            "embedded:a%2",
            "embedded:a%é",
            "memory:?a=%4",
        ] {
            assert_eq!(BrokerUrl::parse(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_backend_that_is_not_here_says_what_is() {
        let error = connect("pulsar://h:6650").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("memory"), "{error}");
        let host = connect("embedded://host/data").await.unwrap_err();
        assert_eq!(host.kind(), ErrorKind::Invalid, "{host}");
        assert!(connect("memry:").await.unwrap_err().to_string().contains("did you mean `memory:`"));
    }
}
