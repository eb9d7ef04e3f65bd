//! What fails in Kafka, as an error of the contract: one place for all codes, of the client library (below 0) and of the servers.
//!
//! Not here: what became of a message (`publish/outcome.rs`): that is never read from a code.

use super::raw::{Code, Notes, Trouble};
use crate::{Error, ErrorKind, Topic};
use rdkafka::error::KafkaError;

/// The name of the backend in errors and capabilities.
pub(super) const BACKEND: &str = "kafka";

/// What a code means, and the way out. The numbers are those of the protocol and of librdkafka.
const fn meaning(code: i32) -> (ErrorKind, &'static str) {
    match code {
        // _AUTHENTICATION, SASL_AUTHENTICATION_FAILED, UNSUPPORTED_SASL_MECHANISM, ILLEGAL_SASL_STATE
        -169 | 58 | 33 | 34 => (ErrorKind::Unauthorized, "check user, password and `mechanism`"),
        // TOPIC_, GROUP_, CLUSTER_, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, DELEGATION_TOKEN_*
        29 | 30 | 31 | 53 => (ErrorKind::Unauthorized, "let this user do it (kafka-acls)"),
        // _SSL
        -181 => (
            ErrorKind::Invalid,
            "name the authority that signed the server's certificate by `ca`; see whether the host is one of its names",
        ),
        // _INVALID_ARG, _CONFLICT, _UNKNOWN_PROPERTY ...
        -186 | -173 => (ErrorKind::Invalid, "correct it"),
        // UNKNOWN_TOPIC_OR_PART, _UNKNOWN_TOPIC, _UNKNOWN_PARTITION, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID
        3 | -188 | -190 | 100 | 103 => (ErrorKind::NotFound, "create it first"),
        // GROUP_ID_NOT_FOUND, _UNKNOWN_GROUP
        69 | -179 => (ErrorKind::NotFound, "no member and no position makes it"),
        // MSG_SIZE_TOO_LARGE, RECORD_LIST_TOO_LARGE
        10 | 18 => (ErrorKind::TooLarge, "make it smaller, or raise the topic's max.message.bytes"),
        // OFFSET_METADATA_TOO_LARGE
        12 => (ErrorKind::Invalid, "leave the servers' offset.metadata.max.bytes at 4096 or more"),
        // TOPIC_ALREADY_EXISTS
        36 => (ErrorKind::Exists, "use it, or choose another name"),
        // NON_EMPTY_GROUP, GROUP_SUBSCRIBED_TO_TOPIC, REASSIGNMENT_IN_PROGRESS
        68 | 86 | 60 => (ErrorKind::Conflict, "wait for who uses it, or end it"),
        // OFFSET_OUT_OF_RANGE and its like of the library
        1 | -140 => (ErrorKind::NotFound, "it was removed, or is not there yet"),
        // INVALID_TOPIC_EXCEPTION, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_REPLICA_ASSIGNMENT, INVALID_CONFIG,
        // INVALID_REQUEST, POLICY_VIOLATION, INVALID_GROUP_ID, INVALID_SESSION_TIMEOUT, INVALID_TIMESTAMP, INVALID_RECORD
        17 | 37 | 38 | 39 | 40 | 42 | 44 | 24 | 26 | 32 | 87 => {
            (ErrorKind::Invalid, "see what the server says")
        }
        // UNSUPPORTED_VERSION, UNSUPPORTED_FOR_MESSAGE_FORMAT, UNSUPPORTED_COMPRESSION_TYPE, _UNSUPPORTED_FEATURE, _NOT_IMPLEMENTED
        35 | 43 | 76 | -165 | -170 => (ErrorKind::Unsupported, "use servers of Kafka 3.7 or newer"),
        // _QUEUE_FULL, THROTTLING_QUOTA_EXCEEDED
        -184 | 89 => (ErrorKind::Throttled, "slow down"),
        // OFFSET_... CORRUPT: CORRUPT_MESSAGE, _BAD_MSG, _BAD_COMPRESSION, _UNDERFLOW
        2 | -199 | -198 | -155 => (ErrorKind::Corrupt, "see the disk of the server, and what lies between"),
        // UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, FENCED_MEMBER_EPOCH, PRODUCER_FENCED, _FENCED
        25 | 82 | 110 | 90 | -144 => (ErrorKind::Fenced, "it belongs to another owner now"),
        // KAFKA_STORAGE_ERROR, LOG_DIR_NOT_FOUND
        56 | 57 => (ErrorKind::Full, "make room on the server's disk, or mend it"),
        // _TRANSPORT, _ALL_BROKERS_DOWN, _RESOLVE
        -195 | -187 | -193 => (
            ErrorKind::Unavailable,
            "see whether the servers run and the hosts are right; servers that expect TLS are kafka+ssl://, others kafka://",
        ),
        // NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND
        19 | 20 => (
            ErrorKind::Unavailable,
            "start the other replicas; they are fewer than the topic's min.insync.replicas",
        ),
        _ => (ErrorKind::Unavailable, "try again, and see what the servers say"),
    }
}

/// What the reason of a connection that came to nothing says beyond its code: who speaks TLS and who does not, who speaks something else, and certificates
/// of clients.
fn mixed_up(code: i32, text: &str) -> Option<(ErrorKind, &'static str)> {
    // _TRANSPORT, _SSL, _BAD_MSG
    if !matches!(code, -195 | -181 | -199) {
        return None;
    }
    let told = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // The first words of what greets or answers in another protocol, such as "HTTP", read as the size of an answer.
    if told(&["Invalid response size"]) && told(&["in state APIVERSION_QUERY"]) {
        let way_out = "what answers at this port is no Kafka: name the host and port of one";
        return Some((ErrorKind::Unavailable, way_out));
    }
    if told(&["ApiVersionRequest failed: Local: Timed out"]) {
        let way_out = "this port takes connections and answers nothing: see whether it is one of Kafka, and whether the servers are well";
        return Some((ErrorKind::Unavailable, way_out));
    }
    // A server that closes the connection in the middle of what it does not understand; how that looks depends on which of its signs comes first.
    let in_greeting = told(&["Disconnected"]) && told(&["in state SSL_HANDSHAKE"]);
    if in_greeting || told(&["PLAINTEXT broker listener"]) {
        let way_out = "this port seems not to expect TLS: write kafka://, or name the port that does; else see whether the servers run";
        return Some((ErrorKind::Unavailable, way_out));
    }
    if told(&["Disconnected"]) && told(&["in state APIVERSION_QUERY"]) && !told(&["ssl://"]) {
        let way_out = "this port seems to expect TLS: write kafka+ssl://, or name the port that does not; else see whether the servers run";
        return Some((ErrorKind::Unavailable, way_out));
    }
    if told(&["Disconnected"]) && told(&["in state UP"]) && !told(&["sasl_"]) {
        let way_out = "this port seems to expect a user: write USER:PASSWORD@ before the host; else see whether the servers run";
        return Some((ErrorKind::Unavailable, way_out));
    }
    if told(&["alert bad certificate", "certificate required", "client SSL authentication"]) {
        let way_out =
            "this port expects a certificate of the client: give it, and its key, by `cert` and `key`";
        return Some((ErrorKind::Invalid, way_out));
    }
    if told(&[
        "alert unknown ca",
        "alert certificate unknown",
        "alert certificate expired",
        "alert certificate revoked",
    ]) {
        let way_out =
            "the servers do not accept the certificate of `cert`: give one that is signed by whom they trust";
        return Some((ErrorKind::Invalid, way_out));
    }
    None
}

/// The kind of an error with that code.
pub(super) const fn kind(code: Code) -> ErrorKind {
    meaning(code.0).0
}

/// Whether waiting cannot help: somebody has to correct the settings.
pub(super) const fn is_permanent(code: Code) -> bool {
    matches!(kind(code), ErrorKind::Unauthorized | ErrorKind::Invalid | ErrorKind::Unsupported)
}

/// The error of the contract; its text names the servers, as the URL does, and the way out.
pub(super) fn failed(servers: &str, trouble: &Trouble) -> Error {
    let code = trouble.code.0;
    let (kind, way_out) = mixed_up(code, &trouble.text).unwrap_or_else(|| meaning(code));
    let text = trouble.text.trim_end_matches(['.', ' ']);
    let name = trouble.code.name();
    Error::new(kind, format!("kafka {servers}: {text} ({name}); {way_out}"))
}

/// The same, by the better reason: a call that is just out of time says nothing of what the clients were told meanwhile.
pub(super) fn told(servers: &str, trouble: &Trouble, notes: &Notes) -> Error {
    let vague =
        matches!(trouble.code, Code::TIMED_OUT | Code::TRANSPORT | Code::ALL_BROKERS_DOWN | Code::DESTROY);
    let told = || notes.refused().or_else(|| notes.brokers_down().then(|| notes.latest()).flatten());
    let better = if vague { told() } else { None };
    failed(servers, better.as_ref().unwrap_or(trouble))
}

/// The same for an error of the crate's own clients.
pub(super) fn failed_by_crate(servers: &str, error: &KafkaError) -> Error {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    let code = code.map_or(-200, |code| code as i32);
    let (kind, way_out) = meaning(code);
    Error::new(kind, format!("kafka {servers}: {error}; {way_out}"))
}

/// The error for a code that a server gave for one thing, such as a topic.
pub(super) fn refused(servers: &str, what: &str, code: Code) -> Error {
    let (kind, way_out) = meaning(code.0);
    Error::new(
        kind,
        format!("kafka {servers} answers for {what}: {} ({}); {way_out}", code.text(), code.name()),
    )
}

/// There is no such topic.
pub(super) fn not_found(topic: &Topic) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no topic {topic:?}; create it first"))
}

/// No answer within the time that a call has.
pub(super) fn late(servers: &str) -> Error {
    let context = format!(
        "kafka {servers} had no answer in time; see whether the servers run, and what they are busy with"
    );
    Error::new(ErrorKind::Unavailable, context)
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed; open it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_servers_the_code_and_the_way_out() {
        for (code, expected, way_out) in [
            (-169, ErrorKind::Unauthorized, "password"),
            (-181, ErrorKind::Invalid, "`ca`"),
            (-195, ErrorKind::Unavailable, "kafka+ssl://"),
            (3, ErrorKind::NotFound, "create it"),
            (10, ErrorKind::TooLarge, "max.message.bytes"),
            (29, ErrorKind::Unauthorized, "kafka-acls"),
            (19, ErrorKind::Unavailable, "min.insync.replicas"),
            (36, ErrorKind::Exists, "another name"),
            (12_345, ErrorKind::Unavailable, "try again"),
        ] {
            let error = failed("a:1,b:2", &Trouble { code: Code(code), text: "It went wrong.".into() });
            assert_eq!(error.kind(), expected, "{code}");
            let text = error.to_string();
            assert!(text.contains("a:1,b:2: It went wrong (") && text.contains(way_out), "{text}");
        }
    }

    #[test]
    fn a_connection_that_comes_to_nothing_says_what_was_mixed_up() {
        for (code, text, kind, way_out) in [
            (
                -195,
                "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                ErrorKind::Unavailable,
                "write kafka://",
            ),
            (
                -195,
                "ssl://h:1/bootstrap: Disconnected: SSL connection closed by peer (after 1ms in state SSL_HANDSHAKE)",
                ErrorKind::Unavailable,
                "write kafka://",
            ),
            (
                -195,
                "h:1/bootstrap: Disconnected (after 3ms in state APIVERSION_QUERY)",
                ErrorKind::Unavailable,
                "write kafka+ssl://",
            ),
            (
                -195,
                "ssl://h:1/bootstrap: Disconnected (after 3ms in state UP)",
                ErrorKind::Unavailable,
                "USER:PASSWORD@",
            ),
            (
                -199,
                "h:1/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes (after 1ms in state APIVERSION_QUERY)",
                ErrorKind::Unavailable,
                "is no Kafka",
            ),
            (
                -199,
                "h:1/1: Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes (after 1ms in state UP)",
                ErrorKind::Corrupt,
                "see the disk",
            ),
            (
                -195,
                "h:1/bootstrap: ApiVersionRequest failed: Local: Timed out: probably due to broker version < 0.10 (after 10009ms in state APIVERSION_QUERY)",
                ErrorKind::Unavailable,
                "answers nothing",
            ),
            (
                -181,
                "Receive failed: ssl/tls alert bad certificate: SSL alert number 42",
                ErrorKind::Invalid,
                "`cert` and `key`",
            ),
            (-181, "tlsv13 alert certificate required", ErrorKind::Invalid, "`cert` and `key`"),
            (-181, "tlsv1 alert unknown ca", ErrorKind::Invalid, "whom they trust"),
            (-181, "certificate verify failed", ErrorKind::Invalid, "by `ca`"),
            (
                -195,
                "Connect to ipv4#h failed: Connection refused",
                ErrorKind::Unavailable,
                "whether the servers run",
            ),
        ] {
            let error = failed("h:1", &Trouble { code: Code(code), text: text.into() });
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(way_out), "{error}");
        }
    }

    #[test]
    fn errors_of_the_crate_are_told_by_their_code() {
        use rdkafka::types::RDKafkaErrorCode::{
            BrokerTransportFailure, TopicAuthorizationFailed, UnsupportedFeature,
        };
        for (error, kind) in [
            (KafkaError::AdminOp(TopicAuthorizationFailed), ErrorKind::Unauthorized),
            (KafkaError::AdminOp(UnsupportedFeature), ErrorKind::Unsupported),
            (KafkaError::MetadataFetch(BrokerTransportFailure), ErrorKind::Unavailable),
            (KafkaError::Canceled, ErrorKind::Unavailable),
        ] {
            let told = failed_by_crate("h:1", &error);
            assert_eq!(told.kind(), kind, "{told}");
            assert!(told.to_string().contains("h:1"), "{told}");
        }
    }

    #[test]
    fn only_what_somebody_has_to_correct_is_permanent() {
        for (code, permanent) in
            [(-169, true), (-181, true), (35, true), (-195, false), (-185, false), (7, false)]
        {
            assert_eq!(is_permanent(Code(code)), permanent, "{code}");
        }
    }
}
