//! From the address of a broker to the broker, or to what is wrong with the address. `redis:` without a host takes its server from the variables that
//! users of Redis have set already; what a URL of Kafka does not give is taken from the settings.
//!
//! Not here: what a failure to open looks like (`session.rs`), where the address comes from (`settings/`), the list of variables
//! (`ropeway_store::redis`, and docs/redis.md).

use crate::settings::{Address, kafka::Parameters};
use ropeway_broker::{MessageBroker, Result};
use std::sync::Arc;

/// Opens the broker.
///
/// # Errors
/// Those of [`ropeway_broker::connect`]; `Invalid` for variables that are wrong or missing.
pub(crate) async fn open(address: &Address, kafka: &Parameters) -> Result<Arc<dyn MessageBroker>> {
    #[cfg(not(feature = "kafka"))]
    let _ = kafka;
    #[cfg(feature = "kafka")]
    if let Some(settings) = on_kafka(address, kafka) {
        return Ok(ropeway_broker::Kafka::connect(settings?).await?);
    }
    #[cfg(feature = "redis")]
    if let Some(of) = by_variables(address) {
        let (server, settings) = of?;
        return Ok(ropeway_broker::RedisStreams::connect(server, settings).await?);
    }
    ropeway_broker::connect(address.reveal()).await
}

/// Checks as far as can be done without opening.
///
/// # Errors
/// As [`open`].
pub(crate) fn check(address: &Address, kafka: &Parameters) -> Result<()> {
    #[cfg(not(feature = "kafka"))]
    let _ = kafka;
    #[cfg(feature = "kafka")]
    if let Some(settings) = on_kafka(address, kafka) {
        return settings.map(drop);
    }
    #[cfg(feature = "redis")]
    if let Some(of) = by_variables(address) {
        return of.map(drop);
    }
    ropeway_broker::check_url(address.reveal())
}

/// What a URL of Kafka and the settings below it mean; `None` for every other address.
#[cfg(feature = "kafka")]
pub(crate) fn on_kafka(
    address: &Address,
    kafka: &Parameters,
) -> Option<Result<ropeway_broker::KafkaSettings>> {
    use ropeway_broker::{BrokerUrl, KafkaSettings};
    let (scheme, _) = address.reveal().split_once(':')?;
    let is_kafka = ["kafka", "kafka+ssl"].iter().any(|of| scheme.eq_ignore_ascii_case(of));
    is_kafka.then(|| KafkaSettings::of_url(&kafka.below(BrokerUrl::parse(address.reveal())?)))
}

/// A server of Redis, and what is set of the broker on it.
#[cfg(feature = "redis")]
type OnRedis = (ropeway_store::redis::RedisSettings, ropeway_broker::RedisStreamsSettings);

/// What `redis:` means; `None` for every other address.
#[cfg(feature = "redis")]
pub(crate) fn by_variables(address: &Address) -> Option<Result<OnRedis>> {
    let rest = address.reveal().strip_prefix("redis:")?;
    (rest.is_empty() || rest.starts_with('?')).then(|| of_variables(address, |name| std::env::var(name).ok()))
}

#[cfg(feature = "redis")]
fn of_variables(address: &Address, value: impl Fn(&str) -> Option<String>) -> Result<OnRedis> {
    use ropeway_broker::{BrokerUrl, Error, ErrorKind, RedisStreamsSettings};
    use ropeway_store::redis::RedisSettings;
    let settings = RedisStreamsSettings::of_url(&BrokerUrl::parse(address.reveal())?)?;
    let server = RedisSettings::from_variables(value)
        .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()).on("redis"))?;
    let none = || {
        let what = "`redis:` takes its server from the environment, and none of REDIS_URL, REDIS_HOST, REDIS_SOCKET, REDIS_SENTINELS and \
            REDIS_CLUSTER_NODES is set; or write redis://HOST:PORT";
        Error::new(ErrorKind::Invalid, what)
    };
    Ok((server.ok_or_else(none)?, settings))
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_host_is_that_of_the_variables() {
        let of = |url: &str, pairs: &[(&str, &str)]| {
            let value =
                |name: &str| pairs.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
            of_variables(&Address::new(url), value).map_err(|error| error.to_string())
        };
        let (server, settings) =
            of("redis:?prefix=mine", &[("REDIS_HOST", "h"), ("REDIS_PORT", "1")]).unwrap();
        assert_eq!((server.target.to_string().as_str(), settings.prefix.as_str()), ("h:1", "mine"));
        let (server, _) = of("redis:", &[("REDIS_URL", "rediss://:p@h/2")]).unwrap();
        assert!(server.tls.is_some() && server.db == 2);
        assert!(of("redis:", &[]).unwrap_err().contains("REDIS_HOST"));
        let wrong = of("redis:", &[("REDIS_HOST", "h"), ("REDIS_PORT", "secret")]).unwrap_err();
        assert!(wrong.contains("REDIS_PORT") && !wrong.contains("secret"), "{wrong}");
        assert!(of("redis:?prefx=x", &[("REDIS_HOST", "h")]).unwrap_err().contains("did you mean `prefix`?"));
        assert!(by_variables(&Address::new("redis://h")).is_none());
    }
}
