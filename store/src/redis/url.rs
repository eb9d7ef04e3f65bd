//! Addresses of Redis: URLs, and what they say.
//!
//! The forms stand at [`RedisSettings::from_url`]. Not here: the defaults (`settings.rs`).

use super::{
    error::{Error, Result},
    settings::{RedisSettings, Secret, Target, TlsSettings},
};
use percent_encoding::percent_decode_str;
use std::{fmt, path::PathBuf};

/// Where a server listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// A host by name or number, and a port.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a URL says, and the parameters that are not known here.
pub(super) fn parse(url: &str) -> Result<(RedisSettings, Vec<(String, String)>)> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme such as redis://"))?;
    if rest.contains('#') {
        return Err(wrong("it has a fragment (#...), and none is known"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (kind, tls) = match scheme {
        "redis" | "redis+unix" | "unix" | "redis+sentinel" | "redis+cluster" => (scheme, false),
        "rediss" => ("redis", true),
        "rediss+sentinel" => ("redis+sentinel", true),
        "rediss+cluster" => ("redis+cluster", true),
        _ => {
            return Err(wrong(
                "its scheme is none of redis, rediss, redis+unix, redis+sentinel, rediss+sentinel, redis+cluster, rediss+cluster",
            ));
        }
    };
    let path = path.trim_end_matches('/');
    let (target, db) = match kind {
        "redis" => (Target::Single(one(addresses(hosts, 6379)?)?), path),
        "redis+cluster" if path.is_empty() => (Target::Cluster(addresses(hosts, 6379)?), ""),
        "redis+cluster" => return Err(wrong("a cluster has only database 0, and this names another")),
        "redis+sentinel" => {
            let (service, db) = path.split_once('/').unwrap_or((path, ""));
            if service.is_empty() {
                return Err(wrong("it names no service: redis+sentinel://host/service"));
            }
            (Target::Sentinel { sentinels: addresses(hosts, 26379)?, service: decoded(service)? }, db)
        }
        _ if !hosts.is_empty() || path.is_empty() => {
            return Err(wrong("a socket is written redis+unix:///path, with three slashes"));
        }
        _ => (Target::Single(Address::Unix(PathBuf::from(format!("/{}", decoded(path)?)))), ""),
    };
    let mut settings = RedisSettings::new(target);
    settings.tls = tls.then(TlsSettings::default);
    let (name, password) =
        user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
    settings.username = Some(decoded(name)?).filter(|name| !name.is_empty());
    settings.password = password.map(decoded).transpose()?.map(Secret::from);
    if !db.is_empty() {
        settings.db = number("database", db)?;
    }
    let rest = parameters(&mut settings, query)?;
    settings.check()?;
    Ok((settings, rest))
}

/// The addresses in `host[:port],...`.
pub(super) fn addresses(hosts: &str, port: u16) -> Result<Vec<Address>> {
    let address = |host: &str| {
        let (name, digits) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, rest)) => (name, rest.strip_prefix(':')),
            None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
        };
        if name.is_empty() || name.contains([' ', '\t', '\n']) {
            return Err(wrong("a host is missing"));
        }
        let port = digits.map_or(Ok(port), |digits| number("port", digits))?;
        Ok(Address::Tcp { host: name.to_owned(), port })
    };
    hosts.split(',').map(address).collect()
}

fn one(addresses: Vec<Address>) -> Result<Address> {
    match <[Address; 1]>::try_from(addresses) {
        Ok([address]) => Ok(address),
        Err(_) => Err(wrong("several hosts need redis+sentinel:// or redis+cluster://")),
    }
}

fn parameters(settings: &mut RedisSettings, query: &str) -> Result<Vec<(String, String)>> {
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value)?;
        let tls = || wrong(format!("{name}= is for rediss://"));
        match name {
            "ca" => settings.tls.as_mut().ok_or_else(tls)?.ca = Some(value.into()),
            "cert" => settings.tls.as_mut().ok_or_else(tls)?.cert = Some(value.into()),
            "key" => settings.tls.as_mut().ok_or_else(tls)?.key = Some(value.into()),
            "db" => settings.db = number("database", &value)?,
            "pool_size" => settings.pool_size = number("pool_size", &value)?,
            "sentinel_user" => settings.sentinel_username = Some(value),
            "sentinel_password" => settings.sentinel_password = Some(value.into()),
            _ => rest.push((name.to_owned(), value)),
        }
    }
    Ok(rest)
}

pub(super) fn number<N: std::str::FromStr>(what: &str, digits: &str) -> Result<N> {
    digits.parse().map_err(|_| wrong(format!("its {what} is no number that is allowed there")))
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| wrong("a percent-encoded part is no UTF-8"))
}

/// Never with the URL itself: it may hold a password.
fn wrong(why: impl fmt::Display) -> Error {
    Error::settings(format!("the URL of Redis is wrong: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> RedisSettings {
        parse(url).unwrap().0
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_of_url_is_understood() {
        let plain = settings("redis://h");
        assert_eq!(plain.target, Target::Single(tcp("h", 6379)));
        assert_eq!((plain.db, plain.tls.is_none(), plain.password.is_none()), (0, true, true));
        let full =
            settings("rediss://us%40er:p%3Aw@[::1]:7000/3?ca=/ca.pem&cert=/c.pem&key=/k.pem&pool_size=7");
        assert_eq!(full.target, Target::Single(tcp("::1", 7000)));
        assert_eq!(full.username.as_deref(), Some("us@er"));
        assert_eq!(full.password.as_ref().map(Secret::reveal), Some("p:w"));
        assert_eq!((full.db, full.pool_size, full.min_idle), (3, 7, 5));
        let tls = full.tls.unwrap();
        assert_eq!(
            [tls.ca, tls.cert, tls.key].map(Option::unwrap),
            ["/ca.pem", "/c.pem", "/k.pem"].map(PathBuf::from)
        );
        let socket = settings("redis+unix:///run/redis.sock?db=2");
        assert_eq!((socket.target, socket.db), (Target::Single(Address::Unix("/run/redis.sock".into())), 2));
        assert_eq!(settings("unix:///s").target, Target::Single(Address::Unix("/s".into())));
        let sentinels = vec![tcp("a", 26379), tcp("b", 1)];
        let sentinel = settings("redis+sentinel://:p@a,b:1/main/4?sentinel_password=q");
        assert_eq!(sentinel.target, Target::Sentinel { sentinels, service: "main".into() });
        assert_eq!((sentinel.db, sentinel.sentinel_password.unwrap().reveal()), (4, "q"));
        let cluster = settings("rediss+cluster://a,b:1");
        assert_eq!(cluster.target, Target::Cluster(vec![tcp("a", 6379), tcp("b", 1)]));
        assert!(cluster.tls.is_some());
        assert_eq!(tcp("::1", 1).to_string(), "[::1]:1");
    }

    #[test]
    fn parameters_that_are_not_ours_are_handed_back() {
        let (_, rest) = parse("redis://h?prefix=a%20b&db=1").unwrap();
        assert_eq!(rest, [("prefix".to_owned(), "a b".to_owned())]);
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong_and_never_repeats_itself() {
        for (url, part) in [
            ("host", "no scheme"),
            ("http://:secret@h", "scheme is none of"),
            ("redis://:secret@", "host is missing"),
            ("redis://:secret@h:port", "port is no number"),
            ("redis://:secret@h:70000", "port is no number"),
            ("redis://:secret@h/x", "database is no number"),
            ("redis://:secret@a,b", "several hosts"),
            ("redis://:secret@h#insecure", "fragment"),
            ("redis://:secret@h?ca=/x", "for rediss"),
            ("rediss://:secret@h?cert=/x", "key"),
            ("redis+unix://:secret@h/x", "three slashes"),
            ("redis+sentinel://:secret@h", "no service"),
            ("redis+cluster://:secret@h/1", "database 0"),
            ("redis+cluster://:secret@h?db=1", "database 0"),
            ("redis://:secret@h?pool_size=0", "pool"),
        ] {
            let error = parse(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(part), "{url}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
