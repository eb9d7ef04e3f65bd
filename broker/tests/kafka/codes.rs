//! Codes of ours are those of the bindings, and any number is one. Not here: layouts of structs, which are compared when the module is built
//! (`broker/src/kafka/raw/native.rs`).

use super::{raw::Code, tests};
use rdkafka_sys as sys;

tests![codes_are_those_of_the_bindings, any_number_is_a_code];

fn codes_are_those_of_the_bindings() {
    use sys::rd_kafka_resp_err_t as theirs;
    let pairs = [
        (Code::DESTROY, theirs::RD_KAFKA_RESP_ERR__DESTROY),
        (Code::FAIL, theirs::RD_KAFKA_RESP_ERR__FAIL),
        (Code::TRANSPORT, theirs::RD_KAFKA_RESP_ERR__TRANSPORT),
        (Code::RESOLVE, theirs::RD_KAFKA_RESP_ERR__RESOLVE),
        (Code::MSG_TIMED_OUT, theirs::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT),
        (Code::PARTITION_EOF, theirs::RD_KAFKA_RESP_ERR__PARTITION_EOF),
        (Code::UNKNOWN_PARTITION, theirs::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION),
        (Code::UNKNOWN_TOPIC, theirs::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC),
        (Code::ALL_BROKERS_DOWN, theirs::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN),
        (Code::INVALID_ARG, theirs::RD_KAFKA_RESP_ERR__INVALID_ARG),
        (Code::TIMED_OUT, theirs::RD_KAFKA_RESP_ERR__TIMED_OUT),
        (Code::QUEUE_FULL, theirs::RD_KAFKA_RESP_ERR__QUEUE_FULL),
        (Code::SSL, theirs::RD_KAFKA_RESP_ERR__SSL),
        (Code::WAIT_COORD, theirs::RD_KAFKA_RESP_ERR__WAIT_COORD),
        (Code::ASSIGN_PARTITIONS, theirs::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS),
        (Code::REVOKE_PARTITIONS, theirs::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS),
        (Code::STATE, theirs::RD_KAFKA_RESP_ERR__STATE),
        (Code::AUTHENTICATION, theirs::RD_KAFKA_RESP_ERR__AUTHENTICATION),
        (Code::NO_OFFSET, theirs::RD_KAFKA_RESP_ERR__NO_OFFSET),
        (Code::NO_ENTRY, theirs::RD_KAFKA_RESP_ERR__NOENT),
        (Code::PURGE_QUEUE, theirs::RD_KAFKA_RESP_ERR__PURGE_QUEUE),
        (Code::PURGE_INFLIGHT, theirs::RD_KAFKA_RESP_ERR__PURGE_INFLIGHT),
        (Code::FATAL, theirs::RD_KAFKA_RESP_ERR__FATAL),
        (Code::MAX_POLL_EXCEEDED, theirs::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED),
        (Code::UNKNOWN_BROKER, theirs::RD_KAFKA_RESP_ERR__UNKNOWN_BROKER),
        (Code::NOT_CONFIGURED, theirs::RD_KAFKA_RESP_ERR__NOT_CONFIGURED),
        (Code::AUTO_OFFSET_RESET, theirs::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET),
        (Code::UNKNOWN, theirs::RD_KAFKA_RESP_ERR_UNKNOWN),
        (Code::NONE, theirs::RD_KAFKA_RESP_ERR_NO_ERROR),
        (Code::OFFSET_OUT_OF_RANGE, theirs::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE),
        (Code::UNKNOWN_TOPIC_OR_PART, theirs::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART),
        (Code::MSG_SIZE_TOO_LARGE, theirs::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE),
        (Code::OFFSET_METADATA_TOO_LARGE, theirs::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE),
        (Code::NOT_ENOUGH_REPLICAS, theirs::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS),
        (Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND, theirs::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        (Code::ILLEGAL_GENERATION, theirs::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION),
        (Code::UNKNOWN_MEMBER_ID, theirs::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID),
        (Code::REBALANCE_IN_PROGRESS, theirs::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS),
        (Code::TOPIC_AUTHORIZATION_FAILED, theirs::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED),
        (Code::GROUP_AUTHORIZATION_FAILED, theirs::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED),
        (Code::CLUSTER_AUTHORIZATION_FAILED, theirs::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED),
        (Code::TOPIC_ALREADY_EXISTS, theirs::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS),
        (Code::OUT_OF_ORDER_SEQUENCE_NUMBER, theirs::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER),
        (Code::NON_EMPTY_GROUP, theirs::RD_KAFKA_RESP_ERR_NON_EMPTY_GROUP),
        (Code::GROUP_ID_NOT_FOUND, theirs::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND),
        (Code::FENCED_INSTANCE_ID, theirs::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID),
        (Code::GROUP_SUBSCRIBED_TO_TOPIC, theirs::RD_KAFKA_RESP_ERR_GROUP_SUBSCRIBED_TO_TOPIC),
        (Code::FENCED_MEMBER_EPOCH, theirs::RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH),
        (Code::STALE_MEMBER_EPOCH, theirs::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(ours.0, theirs as i32, "{theirs:?}");
        assert_eq!(format!("RD_KAFKA_RESP_ERR_{}", ours.name()), format!("{theirs:?}"));
    }
}

fn any_number_is_a_code() {
    for number in [1_000, 32_767, i32::MAX, -9_999, i32::MIN] {
        let code = Code(number);
        assert!(code.name().contains(&number.to_string()), "{code:?}");
        assert!(!code.text().is_empty());
        assert_eq!(code.check().unwrap_err().code, code);
    }
    assert_eq!(Code::NONE.check(), Ok(()));
}
