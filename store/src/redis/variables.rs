//! The variables by which users of Redis set up connections elsewhere, accepted as they are.
//!
//! Not here: reading the environment (that is for programs; this is told what it holds), the defaults (`settings.rs`).

use super::{
    error::{Error, Result},
    settings::{RedisSettings, Secret, Target, TlsSettings},
    url::{self, Address},
};
use std::{fmt, time::Duration};

impl RedisSettings {
    /// From variables, of which `value` gives the value of one by its name. An empty value counts as none. `None` where no variable says what to
    /// connect to.
    ///
    /// | Variable | What | Also called |
    /// |---|---|---|
    /// | `REDIS_URL` | the URL; it decides before all others | `REDIS_URI` |
    /// | `REDIS_HOST`, `REDIS_PORT` | one server; port 6379 | |
    /// | `REDIS_SOCKET` | the path of a socket instead | `REDIS_UNIX_SOCKET` |
    /// | `REDIS_SENTINELS`, `REDIS_SENTINEL_SERVICE` | `host:port,...` of sentinels and the service they watch | `REDIS_SENTINEL_MASTER`, `REDIS_MASTER_NAME` |
    /// | `REDIS_CLUSTER_NODES` | `host:port,...` of nodes of a cluster | `REDIS_CLUSTER` |
    /// | `REDIS_USERNAME` | the user | `REDIS_USER` |
    /// | `REDIS_PASSWORD` | the password | `REDIS_PASS`, `REDIS_AUTH` |
    /// | `REDIS_SENTINEL_USERNAME`, `REDIS_SENTINEL_PASSWORD` | those for the sentinels themselves | |
    /// | `REDIS_DB` | the database | `REDIS_DATABASE` |
    /// | `REDIS_TLS` | `true` or `false` | `REDIS_SSL`, `REDIS_USE_TLS` |
    /// | `REDIS_TLS_CA` | who signed the server's certificate: a file in PEM | `REDIS_CA_CERT`, `REDIS_SSL_CA_CERTS` |
    /// | `REDIS_TLS_CERT` | the client's certificate | `REDIS_CLIENT_CERT`, `REDIS_SSL_CERTFILE` |
    /// | `REDIS_TLS_KEY` | its key | `REDIS_CLIENT_KEY`, `REDIS_SSL_KEYFILE` |
    /// | `REDIS_POOL_SIZE` | connections at most | `REDIS_MAX_CONNECTIONS`, `REDIS_POOL_MAX` |
    /// | `REDIS_MIN_IDLE` | connections that are kept open | `REDIS_POOL_MIN`, `REDIS_MIN_IDLE_CONNECTIONS` |
    /// | `REDIS_CONNECT_TIMEOUT` | seconds, or with a unit as in `500ms` | `REDIS_CONNECTION_TIMEOUT`, `REDIS_DIAL_TIMEOUT` |
    /// | `REDIS_TIMEOUT` | for a request, writing and reading together | `REDIS_READ_TIMEOUT`, `REDIS_SOCKET_TIMEOUT` |
    /// | `REDIS_IDLE_TIMEOUT`, `REDIS_MAX_LIFETIME` | of connections of the pool | `REDIS_MAX_CONN_AGE` |
    /// | `REDIS_MAX_RETRIES` | how often a request is tried again | `REDIS_RETRIES` |
    /// | `REDIS_CLIENT_NAME` | what `CLIENT LIST` shows | |
    ///
    /// Beside a URL the others say what it does not.
    ///
    /// # Errors
    /// `Settings`, naming the variable: a value that is wrong, or two names of one thing with different values. Values are not repeated.
    pub fn from_variables(value: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let variables = Variables(&value);
        let Some(mut settings) = variables.target()? else { return Ok(None) };
        variables.credentials(&mut settings)?;
        variables.tls(&mut settings)?;
        variables.bounds(&mut settings)?;
        settings.check()?;
        Ok(Some(settings))
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// The value that any of the names has, and the name.
    fn of<'n>(&self, names: &[&'n str]) -> Result<Option<(&'n str, String)>> {
        let mut found: Option<(&str, String)> = None;
        for name in names {
            let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { continue };
            match &found {
                Some((first, other)) if *other != value => {
                    return Err(Error::settings(format!(
                        "{first} and {name} say different things; set one of them"
                    )));
                }
                Some(_) => {}
                None => found = Some((name, value)),
            }
        }
        Ok(found)
    }

    /// The same, parsed.
    fn parsed<T>(&self, names: &[&str], parse: impl Fn(&str) -> Option<T>, what: &str) -> Result<Option<T>> {
        let Some((name, value)) = self.of(names)? else { return Ok(None) };
        parse(&value).map(Some).ok_or_else(|| wrong(name, what))
    }

    fn target(&self) -> Result<Option<RedisSettings>> {
        if let Some((name, url)) = self.of(&["REDIS_URL", "REDIS_URI"])? {
            return RedisSettings::from_url(&url).map(Some).map_err(|error| wrong(name, error.what()));
        }
        let list = |name: &str, hosts: &str, port| {
            url::addresses(hosts, port).map_err(|_| wrong(name, "host:port,... is needed"))
        };
        let target = if let Some((name, hosts)) = self.of(&["REDIS_SENTINELS"])? {
            let names = ["REDIS_SENTINEL_SERVICE", "REDIS_SENTINEL_MASTER", "REDIS_MASTER_NAME"];
            let Some((_, service)) = self.of(&names)? else {
                return Err(wrong(
                    name,
                    "the service that they watch is needed too (REDIS_SENTINEL_SERVICE)",
                ));
            };
            Target::Sentinel { sentinels: list(name, &hosts, 26379)?, service }
        } else if let Some((name, hosts)) = self.of(&["REDIS_CLUSTER_NODES", "REDIS_CLUSTER"])? {
            Target::Cluster(list(name, &hosts, 6379)?)
        } else if let Some((_, path)) = self.of(&["REDIS_SOCKET", "REDIS_UNIX_SOCKET"])? {
            Target::Single(Address::Unix(path.into()))
        } else if let Some((_, host)) = self.of(&["REDIS_HOST"])? {
            let port = self.parsed(&["REDIS_PORT"], |port| port.parse().ok(), "a port is from 1 to 65535")?;
            Target::Single(Address::Tcp { host, port: port.unwrap_or(6379) })
        } else {
            return Ok(None);
        };
        Ok(Some(RedisSettings::new(target)))
    }

    fn credentials(&self, settings: &mut RedisSettings) -> Result<()> {
        let user = self.of(&["REDIS_USERNAME", "REDIS_USER"])?.map(|(_, user)| user);
        let password =
            self.of(&["REDIS_PASSWORD", "REDIS_PASS", "REDIS_AUTH"])?.map(|(_, secret)| Secret::from(secret));
        if settings.password.is_none() {
            settings.password = password;
            settings.username = settings.username.take().or(user);
        }
        if let Some((_, user)) = self.of(&["REDIS_SENTINEL_USERNAME"])? {
            settings.sentinel_username.get_or_insert(user);
        }
        if let Some((_, secret)) = self.of(&["REDIS_SENTINEL_PASSWORD"])? {
            settings.sentinel_password.get_or_insert_with(|| secret.into());
        }
        let db = self.parsed(&["REDIS_DB", "REDIS_DATABASE"], |db| db.parse().ok(), "a number is needed")?;
        if settings.db == 0 {
            settings.db = db.unwrap_or(0);
        }
        Ok(())
    }

    fn tls(&self, settings: &mut RedisSettings) -> Result<()> {
        let on =
            self.parsed(&["REDIS_TLS", "REDIS_SSL", "REDIS_USE_TLS"], switch, "true or false is needed")?;
        let file = |names: &[&str]| Ok::<_, Error>(self.of(names)?.map(|(_, file)| file.into()));
        let ca = file(&["REDIS_TLS_CA", "REDIS_CA_CERT", "REDIS_SSL_CA_CERTS"])?;
        let cert = file(&["REDIS_TLS_CERT", "REDIS_CLIENT_CERT", "REDIS_SSL_CERTFILE"])?;
        let key = file(&["REDIS_TLS_KEY", "REDIS_CLIENT_KEY", "REDIS_SSL_KEYFILE"])?;
        if on == Some(true) {
            settings.tls.get_or_insert_default();
        }
        if let Some(tls) = &mut settings.tls {
            let TlsSettings { ca: own_ca, cert: own_cert, key: own_key } = std::mem::take(tls);
            *tls = TlsSettings { ca: own_ca.or(ca), cert: own_cert.or(cert), key: own_key.or(key) };
        }
        Ok(())
    }

    fn bounds(&self, settings: &mut RedisSettings) -> Result<()> {
        fn set<T>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        let number = |names: &[&str]| self.parsed(names, |text| text.parse().ok(), "a number is needed");
        let time = |names: &[&str]| self.parsed(names, duration, "seconds are needed, or a unit as in 500ms");
        set(
            &mut settings.pool_size,
            number(&["REDIS_POOL_SIZE", "REDIS_MAX_CONNECTIONS", "REDIS_POOL_MAX"])?,
        );
        set(
            &mut settings.min_idle,
            number(&["REDIS_MIN_IDLE", "REDIS_POOL_MIN", "REDIS_MIN_IDLE_CONNECTIONS"])?,
        );
        let connect = ["REDIS_CONNECT_TIMEOUT", "REDIS_CONNECTION_TIMEOUT", "REDIS_DIAL_TIMEOUT"];
        set(&mut settings.connect_timeout, time(&connect)?);
        set(
            &mut settings.request_timeout,
            time(&["REDIS_TIMEOUT", "REDIS_READ_TIMEOUT", "REDIS_SOCKET_TIMEOUT"])?,
        );
        set(&mut settings.idle_timeout, time(&["REDIS_IDLE_TIMEOUT"])?);
        set(&mut settings.max_lifetime, time(&["REDIS_MAX_LIFETIME", "REDIS_MAX_CONN_AGE"])?);
        let retries = self.parsed(
            &["REDIS_MAX_RETRIES", "REDIS_RETRIES"],
            |text| text.parse().ok(),
            "a number is needed",
        )?;
        set(&mut settings.retries, retries);
        set(&mut settings.client_name, self.of(&["REDIS_CLIENT_NAME"])?.map(|(_, name)| name));
        Ok(())
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Seconds, or a number with `ms`, `s`, `m`, `min` or `h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let scale = match text[digits.len()..].trim_start() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * scale).ok()
}

fn wrong(name: &str, what: impl fmt::Display) -> Error {
    Error::settings(format!("{name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn from(pairs: &[(&str, &str)]) -> Result<Option<RedisSettings>> {
        let pairs: HashMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        RedisSettings::from_variables(|name| pairs.get(name).cloned())
    }

    #[test]
    fn parts_are_put_together() {
        let settings = from(&[
            ("REDIS_HOST", "h"),
            ("REDIS_PORT", "7000"),
            ("REDIS_USER", "u"),
            ("REDIS_PASSWORD", "p"),
            ("REDIS_DB", "2"),
            ("REDIS_SSL", "true"),
            ("REDIS_TLS_CA", "/ca"),
            ("REDIS_POOL_SIZE", "7"),
            ("REDIS_POOL_MIN", "2"),
            ("REDIS_TIMEOUT", "1.5"),
            ("REDIS_CONNECT_TIMEOUT", "500ms"),
            ("REDIS_IDLE_TIMEOUT", "2m"),
            ("REDIS_RETRIES", "0"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.target, Target::Single(Address::Tcp { host: "h".into(), port: 7000 }));
        assert_eq!(
            (settings.username.as_deref(), settings.password.unwrap().reveal(), settings.db),
            (Some("u"), "p", 2)
        );
        assert_eq!(settings.tls.unwrap().ca.unwrap(), std::path::PathBuf::from("/ca"));
        assert_eq!((settings.pool_size, settings.min_idle, settings.retries), (7, 2, 0));
        assert_eq!(settings.request_timeout, Duration::from_millis(1500));
        assert_eq!((settings.connect_timeout.as_millis(), settings.idle_timeout.as_secs()), (500, 120));
    }

    #[test]
    fn a_url_decides_and_others_say_what_it_does_not() {
        let settings = from(&[
            ("REDIS_URL", "redis://:own@h/1"),
            ("REDIS_PASSWORD", "other"),
            ("REDIS_DB", "2"),
            ("REDIS_HOST", "x"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!((settings.password.unwrap().reveal(), settings.db), ("own", 1));
        assert_eq!(settings.target.to_string(), "h:6379");
        let settings = from(&[("REDIS_URL", "redis://h"), ("REDIS_PASSWORD", "other")]).unwrap().unwrap();
        assert_eq!(settings.password.unwrap().reveal(), "other");
    }

    #[test]
    fn sentinels_clusters_and_sockets_are_found() {
        let target = |pairs: &[(&str, &str)]| from(pairs).unwrap().map(|settings| settings.target);
        let one = |port| vec![Address::Tcp { host: "a".into(), port }];
        let sentinels = target(&[("REDIS_SENTINELS", "a"), ("REDIS_MASTER_NAME", "s")]);
        assert_eq!(sentinels, Some(Target::Sentinel { sentinels: one(26379), service: "s".into() }));
        assert_eq!(target(&[("REDIS_CLUSTER_NODES", "a:1")]), Some(Target::Cluster(one(1))));
        assert_eq!(target(&[("REDIS_SOCKET", "/s")]), Some(Target::Single(Address::Unix("/s".into()))));
        assert_eq!(target(&[("REDIS_HOST", ""), ("REDIS_PASSWORD", "p")]), None);
    }

    #[test]
    fn a_wrong_value_names_the_variable_and_is_not_repeated() {
        for (pairs, name) in [
            (&[("REDIS_HOST", "h"), ("REDIS_PORT", "secret")][..], "REDIS_PORT"),
            (&[("REDIS_HOST", "h"), ("REDIS_DB", "secret")], "REDIS_DB"),
            (&[("REDIS_HOST", "h"), ("REDIS_TLS", "secret")], "REDIS_TLS"),
            (&[("REDIS_HOST", "h"), ("REDIS_TIMEOUT", "secret")], "REDIS_TIMEOUT"),
            (&[("REDIS_HOST", "h"), ("REDIS_TIMEOUT", "-1")], "REDIS_TIMEOUT"),
            (&[("REDIS_URL", "http://secret")], "REDIS_URL"),
            (&[("REDIS_SENTINELS", "a")], "REDIS_SENTINEL_SERVICE"),
            (&[("REDIS_HOST", "h"), ("REDIS_PASSWORD", "secret"), ("REDIS_AUTH", "other")], "REDIS_AUTH"),
        ] {
            let text = from(pairs).unwrap_err().to_string();
            assert!(text.contains(name) && !text.contains("secret"), "{text}");
        }
    }
}
