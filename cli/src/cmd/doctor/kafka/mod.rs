//! A cluster of Kafka: what it says of itself and of its topics. Nothing but questions.
//!
//! Not here: what follows from the answers (`judge.rs`, `topics.rs`).

mod judge;
#[cfg(test)]
mod tests;
mod topics;

use super::report::{Finding, Level, Report};
use crate::{
    exit::Exit,
    failure::Failure,
    opening,
    session::{Session, out_of_time, within},
    settings::Address,
};
use judge::Facts;
use ropeway_broker::{Error, ErrorKind, Kafka, MessageBroker as _};
use std::net::IpAddr;

/// Looks at the brokers of a URL, and at the topics on them. Beside the report: how to end where nobody answers.
///
/// # Errors
/// `Invalid` settings (78), those of taking time (5).
pub(super) async fn look(address: &Address, session: &Session) -> Result<(Report, Option<Exit>), Failure> {
    let Some(settings) = opening::on_kafka(address, &session.settings.kafka) else {
        return Err(Failure::config("doctor looks at a cluster of Kafka by a URL of Kafka"));
    };
    let settings = settings?;
    let wait = session.request();
    let connected = tokio::time::timeout(wait, Kafka::connect(settings.clone())).await;
    let kafka = match connected.map_err(|_| out_of_time("connect", wait))? {
        Ok(kafka) => kafka,
        Err(error) => {
            let exit = (error.kind() == ErrorKind::Unavailable).then_some(Exit::Unreachable);
            return Ok((Report::new(address.to_string(), "kafka", vec![unfit(&error)]), exit));
        }
    };
    let survey = within(wait, "look at the cluster", kafka.survey()).await?;
    let facts = Facts {
        survey,
        bootstrap: settings.servers.first().cloned().unwrap_or_default(),
        local: settings.servers.iter().all(|server| is_local(server)),
        tls: settings.tls.is_some(),
        known: settings.login.is_some() || settings.tls.as_ref().is_some_and(|tls| tls.cert.is_some()),
        session: settings.session,
        copies: settings.replication.map(i64::from),
        in_sync: settings.min_insync_replicas.map(i64::from),
    };
    let findings = [judge::judge(&facts), topics::judge(&facts)].concat();
    let mut report = Report::new(address.to_string(), "kafka", findings).capable(kafka.capabilities());
    report.guarantees.push("order per key, at least once, acks in any order".to_owned());
    report.guarantees.push(judge::survives(&facts).to_owned());
    kafka.close(session.settings.time.stop).await;
    Ok((report, None))
}

/// Why a cluster cannot be used at all. The error names the way out behind what the server said and its code, as in `(_SSL); name ...`.
fn unfit(error: &Error) -> Finding {
    let (check, fix) = match error.kind() {
        ErrorKind::Unauthorized => ("user", "check user, password and `mechanism`"),
        ErrorKind::Invalid => ("tls", "correct what the URL says of certificates"),
        _ => ("connection", "see that the brokers run, and what they say"),
    };
    let text = error.to_string();
    let (says, fix) = match text.split_once("); ") {
        Some((says, fix)) => (format!("{says})"), fix),
        None => (text.clone(), fix),
    };
    Finding::new(check, Level::Error, says).fix(fix)
}

/// Whether only this machine reaches a server by that address.
fn is_local(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
