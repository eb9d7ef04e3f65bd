//! A server of Redis: what it says of itself, and what is in the topics of ours. Nothing but questions.
//!
//! Not here: what follows from the answers (`judge.rs`, `bounds.rs`).

mod bounds;
mod judge;
#[cfg(test)]
mod tests;

use super::report::{Finding, Level, Report};
use crate::{
    exit::Exit,
    failure::Failure,
    opening,
    session::{Session, within},
    settings::Address,
};
use judge::Facts;
use ropeway_broker::{BrokerUrl, MessageBroker, RedisStreamsSettings, Timestamp};
use ropeway_store::redis::{
    self, Cmd, ErrorKind, Redis, RedisSettings, Resend, Server, Target, Value, cmd, from_redis_value,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tokio::time::Instant;

/// How many topics are looked at.
const TOPICS: usize = 1000;

/// Commands that are needed, each as it could be given; `KEY` stands for a key of ours.
const NEEDED: [&str; 21] = [
    "XADD KEY * payload x",
    "XREAD STREAMS KEY 0",
    "XRANGE KEY - +",
    "XTRIM KEY MINID 0",
    "XINFO STREAM KEY",
    "XGROUP CREATE KEY g 0",
    "EVAL return 1 KEY",
    "EVALSHA x 1 KEY",
    "SCRIPT LOAD x",
    "HGETALL KEY",
    "HSET KEY f v",
    "SADD KEY m",
    "SMEMBERS KEY",
    "ZADD KEY 1 m",
    "ZRANGE KEY 0 1",
    "UNLINK KEY",
    "TYPE KEY",
    "TIME",
    "WAIT 0 0",
    "CLIENT UNBLOCK 1",
    "PING",
];

/// Looks at the servers of a URL, and at the topics on them. Beside the report: how to end where nobody answers.
///
/// # Errors
/// Those of taking time (5).
pub(super) async fn look(address: &Address, session: &Session) -> Result<(Report, Option<Exit>), Failure> {
    let settings = match opening::by_variables(address) {
        Some(of) => of?.0,
        None => {
            let of = RedisSettings::from_url_and_rest(address.reveal());
            of.map_err(|error| Failure::config(error.to_string()))?.0
        }
    };
    let prefix = RedisStreamsSettings::of_url(&BrokerUrl::parse(address.reveal())?)?.prefix;
    let wait = session.request();
    let connected = tokio::time::timeout(wait, connect(settings.clone())).await;
    let redis = match connected {
        Ok(Ok(redis)) => redis,
        Ok(Err(error)) => {
            let exit = error.kind().is_transient().then_some(Exit::Unreachable);
            return Ok((Report::new(address.to_string(), "redis", vec![unfit(&error)]), exit));
        }
        Err(_) => return Err(crate::session::out_of_time("connect", wait)),
    };
    let servers = redis.status().borrow().servers.clone();
    let (mut findings, mut survive) = (Vec::new(), Vec::new());
    for (name, seen) in servers {
        let facts = match (&seen.server, of_one(&redis, &settings, &name).await) {
            (Some(server), Ok(one)) => {
                Box::pin(within_time(wait, gather(&one, &settings, &name, server, &prefix))).await?
            }
            (_, Err(error)) => {
                findings.push(unfit(&error).at(&*name));
                continue;
            }
            (None, Ok(_)) => continue,
        };
        survive.push(judge::survives(&facts));
        findings.extend(judge::judge(&facts));
    }
    // The least of several servers is what holds.
    survive.sort_unstable();
    let opened = Box::pin(opening::open(address, &session.settings.kafka));
    let opened = within(wait, "open the broker", opened).await;
    let capabilities = match opened {
        Ok(broker) => {
            findings.extend(topics(&broker, session).await?);
            let capabilities = broker.capabilities();
            broker.close(session.settings.time.stop).await;
            Some(capabilities)
        }
        Err(failure) => {
            findings.push(Finding::new("broker", Level::Error, failure.what()));
            None
        }
    };
    let mut report = Report::new(address.to_string(), "redis", findings);
    if let Some(capabilities) = capabilities {
        report = report.capable(capabilities);
        report.guarantees.push("order per key, at least once, acks in any order".to_owned());
    }
    report.guarantees.extend(survive.pop().map(|(_, text)| text.to_owned()));
    Ok((report, None))
}

async fn connect(mut settings: RedisSettings) -> redis::Result<Redis> {
    settings.pool_size = 1;
    settings.min_idle = 0;
    settings.client_name = "ropeway-doctor".to_owned();
    Redis::connect(settings).await
}

/// Connections to that one of the servers.
async fn of_one(all: &Redis, settings: &RedisSettings, name: &str) -> redis::Result<Redis> {
    let Target::Cluster(_) = settings.target else { return Ok(all.clone()) };
    let mut settings = settings.clone();
    let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
    settings.target = Target::Single(redis::Address::Tcp {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().unwrap_or(6379),
    });
    connect(settings).await
}

async fn within_time<T>(wait: std::time::Duration, looking: impl Future<Output = T>) -> Result<T, Failure> {
    let looked = tokio::time::timeout(wait, looking).await;
    looked.map_err(|_| crate::session::out_of_time("look at the server", wait))
}

/// Why a server cannot be used at all.
fn unfit(error: &redis::Error) -> Finding {
    let check = match error.kind() {
        ErrorKind::Version => "version",
        ErrorKind::Auth | ErrorKind::Denied => "password",
        ErrorKind::Tls => "tls",
        _ => "connection",
    };
    Finding::new(check, Level::Error, error.what()).fix(error.kind().way_out()).at(error.server())
}

/// Asks a server all that is judged. What it refuses stays unknown.
async fn gather(
    one: &Redis,
    settings: &RedisSettings,
    name: &str,
    server: &Arc<Server>,
    prefix: &str,
) -> Facts {
    let user = asked::<String>(one, cmd("ACL").arg("WHOAMI").take()).await;
    let names = [
        "appendonly",
        "appendfsync",
        "no-appendfsync-on-rewrite",
        "min-replicas-to-write",
        "stop-writes-on-bgsave-error",
    ];
    let words = |needed: &str| needed.replace("KEY", &format!("{prefix}:{{doctor/0}}:log"));
    let missing = NEEDED.iter().filter_map(|needed| {
        let command = needed.split(' ').next()?;
        (server.knows(command) == Some(false)).then(|| command.to_owned())
    });
    let began = Instant::now();
    let clock = asked::<(i64, i64)>(one, cmd("TIME")).await.map(|(seconds, micros)| {
        let took = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let here = Timestamp::now().as_millis().saturating_sub(took / 2);
        (seconds.saturating_mul(1000).saturating_add(micros / 1000).saturating_sub(here), took)
    });
    Facts {
        address: name.to_owned(),
        local: is_local(name),
        tls: settings.tls.is_some(),
        password: settings.password.is_some(),
        open: if settings.password.is_some() { Some(lets_in_anybody(settings, name).await) } else { None },
        version: server.version.to_string(),
        info: asked::<String>(one, cmd("INFO")).await.map(|text| pairs(&text)),
        config: asked::<BTreeMap<String, String>>(one, cmd("CONFIG").arg("GET").arg(&names).take()).await,
        clock,
        prefix: prefix.to_owned(),
        denied: match &user {
            Some(user) => denied(one, user, &NEEDED.map(words)).await,
            None => None,
        },
        user,
        missing: missing.collect(),
    }
}

/// The answer to a question; `None` where it is refused, or not in form.
async fn asked<T: redis::FromRedisValue>(one: &Redis, command: Cmd) -> Option<T> {
    from_redis_value(one.query(&command, Resend::Idempotent).await.ok()?).ok()
}

/// What the user may not do, in the server's words. It is asked without doing any of it.
async fn denied(one: &Redis, user: &str, commands: &[String]) -> Option<Vec<String>> {
    let ask = |command: &String| {
        cmd("ACL").arg("DRYRUN").arg(user).arg(command.split(' ').collect::<Vec<_>>()).take()
    };
    let answers = one.pipeline(commands.iter().map(ask).collect(), Resend::Idempotent).await;
    let mut denied = Vec::new();
    for (answer, command) in answers.into_iter().zip(commands) {
        match answer.ok()? {
            Value::Okay => {}
            Value::SimpleString(text) if text == "OK" => {}
            // Anything but OK says what is in the way, of the command or of its key.
            Value::BulkString(_) => denied.push(command.split(' ').take(2).collect::<Vec<_>>().join(" ")),
            _ => return None,
        }
    }
    Some(denied)
}

/// Whether a connection without a password is served.
async fn lets_in_anybody(settings: &RedisSettings, name: &str) -> bool {
    let mut settings = settings.clone();
    (settings.username, settings.password) = (None, None);
    if let (Target::Sentinel { .. }, Some((host, port))) = (&settings.target, name.rsplit_once(':')) {
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(6379));
        settings.target = Target::Single(redis::Address::Tcp { host, port });
    }
    connect(settings).await.is_ok()
}

/// Whether only this machine reaches a server by that address.
fn is_local(name: &str) -> bool {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host).trim_matches(['[', ']']);
    name.starts_with('/') || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The lines `name:value` of INFO.
fn pairs(info: &str) -> BTreeMap<String, String> {
    let lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Whether all topics of ours can be read.
async fn topics(broker: &Arc<dyn MessageBroker>, session: &Session) -> Result<Vec<Finding>, Failure> {
    let wait = session.request();
    let all = match within(wait, "list the topics", broker.admin().topics()).await {
        Ok(all) => all,
        Err(failure) => return Ok(vec![Finding::new("topics", Level::Error, failure.what())]),
    };
    let mut findings = Vec::new();
    for topic in all.iter().take(TOPICS) {
        if session.stop.is_asked() {
            break;
        }
        match within(wait, "describe the topic", broker.admin().describe_topic(topic)).await {
            Ok(_) => {}
            // Deleted since it was listed.
            Err(failure) if failure.exit() == Exit::NotFound => {}
            Err(failure) => findings.push(Finding::new("topics", Level::Error, failure.what())),
        }
    }
    if findings.is_empty() {
        let more = if all.len() > TOPICS {
            format!(", of which the first {TOPICS} were looked at")
        } else {
            String::new()
        };
        findings.push(Finding::new("topics", Level::Fine, format!("{} here{more}", all.len())));
    }
    Ok(findings)
}
