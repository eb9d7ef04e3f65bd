//! Which settings of the client library (librdkafka) may be given by name: those of this list and no others.
//!
//! Some of its settings run code, read files or reach out to other servers, and a URL may come from a place that must not do that. Others would
//! break what the contract promises. Both are refused by name, with the way out. Not here: what we set ourselves (`clients.rs`).

use super::invalid;
use crate::{Result, nearest};

/// What may be given.
const ALLOWED: &[&str] = &[
    "batch.num.messages",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.rack",
    "compression.level",
    "connections.max.idle.ms",
    "debug",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.in.flight",
    "max.partition.fetch.bytes",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
];

/// What is refused: the name, or its beginning where it ends in `*`; and the way out.
const REFUSED: &[(&str, &str)] = &[
    ("plugin.library.paths", "it runs code of a file"),
    ("interceptors", "it runs code"),
    ("ssl.engine.*", "it runs code of a file"),
    ("ssl_engine_callback_data", "it runs code"),
    ("ssl.providers", "it runs code of a file"),
    ("sasl.kerberos.*", "it runs a command; this build has no Kerberos: use a user and a password"),
    ("sasl.oauthbearer.*", "it reaches out to other servers; use a user and a password"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "it is not safe; use a user and a password"),
    ("https.ca.*", "it reaches out to other servers; use a user and a password"),
    ("ssl.ca.location", "use `ca`"),
    ("ssl.ca.pem", "use `ca`"),
    ("ssl.ca.certificate.stores", "use `ca`"),
    ("ssl.certificate.*", "use `cert`"),
    ("ssl.key.password", "use `key_password`"),
    ("ssl.key.*", "use `key`"),
    ("ssl.keystore.*", "it reads a file; use `cert` and `key`"),
    ("ssl.crl.location", "it reads a file"),
    (
        "enable.ssl.certificate.verification",
        "whom nobody verifies can be anybody; name the authority by `ca`",
    ),
    (
        "ssl.endpoint.identification.algorithm",
        "whom nobody verifies can be anybody; name the authority by `ca`",
    ),
    ("bootstrap.servers", "the hosts stand in the URL"),
    ("metadata.broker.list", "the hosts stand in the URL"),
    ("security.protocol", "use kafka:// or kafka+ssl://, and a user"),
    ("sasl.mechanism", "use `mechanism`"),
    ("sasl.mechanisms", "use `mechanism`"),
    ("sasl.username", "write it before the host: USER:PASSWORD@HOST"),
    ("sasl.password", "write it before the host: USER:PASSWORD@HOST"),
    ("client.id", "use `client_id`"),
    ("linger.ms", "use `linger`"),
    ("queue.buffering.max.ms", "use `linger`"),
    ("queue.buffering.max.messages", "use `queue_messages`"),
    ("queue.buffering.max.kbytes", "use `queue_bytes`"),
    ("compression.codec", "use `compression`"),
    ("compression.type", "use `compression`"),
    ("message.timeout.ms", "use `publish_deadline`"),
    ("delivery.timeout.ms", "use `publish_deadline`"),
    ("session.timeout.ms", "use `session`"),
    ("max.poll.interval.ms", "use `max_poll_interval`"),
    ("group.protocol", "use `group_protocol`"),
    ("message.max.bytes", "each topic says how large its messages may be (max.message.bytes)"),
    ("batch.size", "it follows from what a topic takes at once (max.message.bytes)"),
    ("acks", "an ack means what the topic is configured for (min.insync.replicas)"),
    ("request.required.acks", "an ack means what the topic is configured for (min.insync.replicas)"),
    ("enable.idempotence", "without it messages come twice and out of order"),
    ("enable.gapless.guarantee", "one message that fails would end the publisher"),
    ("max.in.flight.requests.per.connection", "use `rdkafka.max.in.flight`"),
    ("retries", "it is tried until the deadline; use `publish_deadline`"),
    ("message.send.max.retries", "it is tried until the deadline; use `publish_deadline`"),
    ("transactional.id", "publishing is not transactional here"),
    ("transaction.timeout.ms", "publishing is not transactional here"),
    ("partitioner*", "keys go where those of the Java client go"),
    ("sticky.partitioning.linger.ms", "messages without key are spread here"),
    ("delivery.report.only.error", "each message has its outcome"),
    ("queuing.strategy", "messages of a key keep their order"),
    ("group.id", "a subscription names its group"),
    ("group.instance.id", "a subscription names its member"),
    ("group.protocol.type", "a group has the type that its protocol has"),
    ("partition.assignment.strategy", "partitions are handed over one by one here"),
    ("enable.auto.commit", "what was not handled would count as done"),
    ("auto.commit.*", "what was not handled would count as done"),
    ("enable.auto.offset.store", "what was not handled would count as done"),
    ("offset.store.*", "positions are stored by the group, with what is done beyond them"),
    ("auto.offset.reset", "what is missing is told as a gap; a subscription says where to start"),
    ("check.crcs", "without it damaged records are handed out as if they were whole"),
    ("enable.partition.eof", "with it the client library loses messages"),
    ("allow.auto.create.topics", "a topic is made by `create_topic`"),
    ("topic.metadata.propagation.max.ms", "a topic that does not exist is answered at once"),
    ("topic.blacklist", "a topic is seen or it is not"),
    ("enable.metrics.push", "it sends what this client does to the servers"),
];

/// Whether a setting may be given.
///
/// # Errors
/// `Invalid` that names the setting, why it is refused and the way out; for one that is not known the nearest.
pub(super) fn check(name: &str) -> Result<()> {
    if ALLOWED.contains(&name) {
        return Ok(());
    }
    let is_meant = |(refused, _): &&(&str, &str)| match refused.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => *refused == name,
    };
    if let Some((_, why)) = REFUSED.iter().find(is_meant) {
        return Err(invalid(format!("`rdkafka.{name}` is refused: {why}")));
    }
    let near = nearest(name, ALLOWED).map(|near| format!(" (did you mean `rdkafka.{near}`?)"));
    Err(invalid(format!(
        "`rdkafka.{name}` is not among the settings that may be given{}; those are: {}",
        near.unwrap_or_default(),
        ALLOWED.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_are_apart_and_each_refusal_names_its_setting() {
        assert!(ALLOWED.is_sorted());
        for name in ALLOWED {
            check(name).unwrap();
            let refused = REFUSED.iter().find(|(refused, _)| match refused.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => refused == name,
            });
            assert!(refused.is_none(), "{name} is allowed and refused by {refused:?}");
        }
        for (name, why) in REFUSED {
            let name = name.strip_suffix('*').unwrap_or(name);
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains(&format!("rdkafka.{name}`")) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_runs_code_reads_files_or_reaches_out_is_refused() {
        for (name, why) in [
            ("plugin.library.paths", "code"),
            ("ssl.engine.location", "code"),
            ("ssl.providers", "code"),
            ("sasl.kerberos.kinit.cmd", "command"),
            ("sasl.oauthbearer.token.endpoint.url", "other servers"),
            ("ssl.keystore.location", "file"),
            ("ssl.crl.location", "file"),
            ("ssl.key.location", "`key`"),
            ("ssl.certificate.verify_cb", "`cert`"),
        ] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        let typo = check("socket.timout.ms").unwrap_err().to_string();
        assert!(typo.contains("did you mean `rdkafka.socket.timeout.ms`"), "{typo}");
        for callback in
            ["dr_msg_cb", "open_cb", "opaque", "enabled_events", "statistics.interval.ms", "", "a=b"]
        {
            assert!(check(callback).is_err(), "{callback}");
        }
    }
}
