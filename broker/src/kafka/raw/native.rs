//! What librdkafka is called by: prototypes and structs of ours, in which codes are plain numbers.
//!
//! The bindings declare error codes, states and statuses as Rust enums. A number that such an enum does not know (a newer server may answer one)
//! would be undefined behaviour as soon as it is returned or read. So everything that carries one is declared here once more, with `i32` or `u32` in
//! its place; C knows no difference. Their text was made from that of the bindings, and where fields lie is compared with them below, when this is built.
//! Opaque types are those of the bindings. Not here: administration (`native_admin.rs`), what makes calls safe (all
//! other files).

#![expect(unsafe_code, reason = "prototypes of a C library: each call of one says why it is sound")]

use rdkafka_sys as sys;
use rdkafka_sys::{
    rd_kafka_conf_t, rd_kafka_consumer_group_metadata_t, rd_kafka_error_t, rd_kafka_event_t,
    rd_kafka_headers_t, rd_kafka_queue_t, rd_kafka_t, rd_kafka_topic_conf_t, rd_kafka_topic_t,
};
use std::{
    ffi::{c_char, c_int, c_void},
    mem::offset_of,
};

/// `rd_kafka_message_t`: a record that was read, a delivery report, or an error.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Message {
    pub(super) err: i32,
    pub(super) rkt: *mut rd_kafka_topic_t,
    pub(super) partition: i32,
    pub(super) payload: *mut c_void,
    pub(super) len: usize,
    pub(super) key: *mut c_void,
    pub(super) key_len: usize,
    pub(super) offset: i64,
    pub(super) private: *mut c_void,
}

/// What a consumer has of a record: the beginning of `rd_kafka_msg_t`, which the library keeps to itself. Only of version [`READ_MESSAGE`].
#[repr(C)]
pub(super) struct ReadMessage {
    pub(super) message: Message,
    link: [*mut c_void; 2],
    flags: c_int,
    timestamp_type: u32,
    timestamp: i64,
    headers: *mut rd_kafka_headers_t,
    status: u32,
    broker_id: i32,
    /// `rkm_u.consumer.binhdrs`: how long the headers are, and where they lie.
    pub(super) headers_len: i32,
    pub(super) headers_at: *const u8,
}

/// The version (2.12.1) of which `rdkafka_msg.h` was looked at for that. Of others it is not known.
pub(super) const READ_MESSAGE: c_int = 0x020c_01ff;

/// `rd_kafka_topic_partition_t`.
#[repr(C)]
pub(super) struct Partition {
    pub(super) topic: *mut c_char,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) metadata: *mut c_void,
    pub(super) metadata_size: usize,
    pub(super) opaque: *mut c_void,
    pub(super) err: i32,
    pub(super) private: *mut c_void,
}

/// `rd_kafka_topic_partition_list_t`.
#[repr(C)]
pub(super) struct PartitionList {
    pub(super) cnt: c_int,
    pub(super) size: c_int,
    pub(super) elems: *mut Partition,
}

/// `rd_kafka_vu_t`: one argument of `rd_kafka_produceva`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Vu {
    pub(super) vtype: u32,
    pub(super) u: VuValue,
}

/// What an argument holds, by its type.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union VuValue {
    pub(super) rkt: *mut rd_kafka_topic_t,
    pub(super) int: c_int,
    pub(super) i32: i32,
    pub(super) i64: i64,
    pub(super) mem: VuBytes,
    pub(super) headers: *mut rd_kafka_headers_t,
    pub(super) ptr: *mut c_void,
    /// The size that C gives it.
    pub(super) pad: [c_char; 64],
}

/// Bytes of somebody else.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct VuBytes {
    pub(super) ptr: *mut c_void,
    pub(super) size: usize,
}

/// `rd_kafka_metadata_t`.
#[repr(C)]
pub(super) struct Metadata {
    pub(super) broker_cnt: c_int,
    pub(super) brokers: *mut MetadataBroker,
    pub(super) topic_cnt: c_int,
    pub(super) topics: *mut MetadataTopic,
    pub(super) orig_broker_id: i32,
    pub(super) orig_broker_name: *mut c_char,
}

/// `rd_kafka_metadata_broker_t`.
#[repr(C)]
pub(super) struct MetadataBroker {
    pub(super) id: i32,
    pub(super) host: *mut c_char,
    pub(super) port: c_int,
}

/// `rd_kafka_metadata_topic_t`.
#[repr(C)]
pub(super) struct MetadataTopic {
    pub(super) topic: *mut c_char,
    pub(super) partition_cnt: c_int,
    pub(super) partitions: *mut MetadataPartition,
    pub(super) err: i32,
}

/// `rd_kafka_metadata_partition_t`.
#[repr(C)]
pub(super) struct MetadataPartition {
    pub(super) id: i32,
    pub(super) err: i32,
    pub(super) leader: i32,
    pub(super) replica_cnt: c_int,
    pub(super) replicas: *mut i32,
    pub(super) isr_cnt: c_int,
    pub(super) isrs: *mut i32,
}

/// Compares where fields lie, by their names in ours and in the bindings.
macro_rules! same {
    ($ours:ty, $theirs:ty, $($own:ident: $their:ident),*) => {
        const _: () = {
            assert!(size_of::<$ours>() == size_of::<$theirs>() && align_of::<$ours>() == align_of::<$theirs>());
            $(assert!(offset_of!($ours, $own) == offset_of!($theirs, $their));)*
        };
    };
}

same!(Message, sys::rd_kafka_message_s, err: err, rkt: rkt, partition: partition, payload: payload, len: len, key: key, key_len: key_len,
    offset: offset, private: _private);
same!(Partition, sys::rd_kafka_topic_partition_s, topic: topic, partition: partition, offset: offset, metadata: metadata,
    metadata_size: metadata_size, opaque: opaque, err: err, private: _private);
same!(PartitionList, sys::rd_kafka_topic_partition_list_s, cnt: cnt, size: size, elems: elems);
same!(Vu, sys::rd_kafka_vu_s, vtype: vtype, u: u);
same!(VuBytes, sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1, ptr: ptr, size: size);
same!(Metadata, sys::rd_kafka_metadata, broker_cnt: broker_cnt, brokers: brokers, topic_cnt: topic_cnt, topics: topics,
    orig_broker_id: orig_broker_id, orig_broker_name: orig_broker_name);
same!(MetadataBroker, sys::rd_kafka_metadata_broker, id: id, host: host, port: port);
same!(MetadataTopic, sys::rd_kafka_metadata_topic, topic: topic, partition_cnt: partition_cnt, partitions: partitions, err: err);
same!(MetadataPartition, sys::rd_kafka_metadata_partition, id: id, err: err, leader: leader, replica_cnt: replica_cnt,
    replicas: replicas, isr_cnt: isr_cnt, isrs: isrs);

/// Types of clients (`rd_kafka_type_t`).
pub(super) const PRODUCER: u32 = 0;
pub(super) const CONSUMER: u32 = 1;

/// Types of arguments (`rd_kafka_vtype_t`).
pub(super) const VTYPE_RKT: u32 = 2;
pub(super) const VTYPE_PARTITION: u32 = 3;
pub(super) const VTYPE_VALUE: u32 = 4;
pub(super) const VTYPE_KEY: u32 = 5;
pub(super) const VTYPE_OPAQUE: u32 = 6;
pub(super) const VTYPE_MSGFLAGS: u32 = 7;
pub(super) const VTYPE_TIMESTAMP: u32 = 8;
pub(super) const VTYPE_HEADERS: u32 = 10;

/// `rd_kafka_msg_status_t`.
pub(super) const NOT_PERSISTED: u32 = 0;
pub(super) const PERSISTED: u32 = 2;

unsafe extern "C" {
    pub(super) fn rd_kafka_new(
        type_: u32,
        conf: *mut rd_kafka_conf_t,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> *mut rd_kafka_t;
    pub(super) fn rd_kafka_destroy_flags(rk: *mut rd_kafka_t, flags: c_int);
    pub(super) fn rd_kafka_opaque(rk: *const rd_kafka_t) -> *mut c_void;
    pub(super) fn rd_kafka_fatal_error(rk: *mut rd_kafka_t, errstr: *mut c_char, errstr_size: usize) -> i32;
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn rd_kafka_test_fatal_error(rk: *mut rd_kafka_t, err: i32, reason: *const c_char) -> i32;
    pub(super) fn rd_kafka_err2name(err: i32) -> *const c_char;
    pub(super) fn rd_kafka_err2str(err: i32) -> *const c_char;
    pub(super) fn rd_kafka_error_code(error: *const rd_kafka_error_t) -> i32;
    pub(super) fn rd_kafka_error_string(error: *const rd_kafka_error_t) -> *const c_char;
    pub(super) fn rd_kafka_error_destroy(error: *mut rd_kafka_error_t);
    pub(super) fn rd_kafka_conf_new() -> *mut rd_kafka_conf_t;
    pub(super) fn rd_kafka_conf_dup(conf: *const rd_kafka_conf_t) -> *mut rd_kafka_conf_t;
    pub(super) fn rd_kafka_conf_destroy(conf: *mut rd_kafka_conf_t);
    pub(super) fn rd_kafka_conf_set(
        conf: *mut rd_kafka_conf_t,
        name: *const c_char,
        value: *const c_char,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> i32;
    pub(super) fn rd_kafka_conf_get(
        conf: *const rd_kafka_conf_t,
        name: *const c_char,
        dest: *mut c_char,
        dest_size: *mut usize,
    ) -> i32;
    pub(super) fn rd_kafka_conf_set_opaque(conf: *mut rd_kafka_conf_t, opaque: *mut c_void);
    pub(super) fn rd_kafka_conf_set_events(conf: *mut rd_kafka_conf_t, events: c_int);
    pub(super) fn rd_kafka_conf_set_rebalance_cb(
        conf: *mut rd_kafka_conf_t,
        rebalance_cb: Option<
            unsafe extern "C" fn(
                rk: *mut rd_kafka_t,
                err: i32,
                partitions: *mut PartitionList,
                opaque: *mut c_void,
            ),
        >,
    );
    pub(super) fn rd_kafka_conf_set_error_cb(
        conf: *mut rd_kafka_conf_t,
        error_cb: Option<
            unsafe extern "C" fn(rk: *mut rd_kafka_t, err: c_int, reason: *const c_char, opaque: *mut c_void),
        >,
    );
    pub(super) fn rd_kafka_conf_set_log_cb(
        conf: *mut rd_kafka_conf_t,
        log_cb: Option<
            unsafe extern "C" fn(rk: *const rd_kafka_t, level: c_int, fac: *const c_char, buf: *const c_char),
        >,
    );
    pub(super) fn rd_kafka_queue_new(rk: *mut rd_kafka_t) -> *mut rd_kafka_queue_t;
    pub(super) fn rd_kafka_queue_destroy(rkqu: *mut rd_kafka_queue_t);
    pub(super) fn rd_kafka_queue_get_main(rk: *mut rd_kafka_t) -> *mut rd_kafka_queue_t;
    pub(super) fn rd_kafka_queue_get_consumer(rk: *mut rd_kafka_t) -> *mut rd_kafka_queue_t;
    pub(super) fn rd_kafka_queue_poll(
        rkqu: *mut rd_kafka_queue_t,
        timeout_ms: c_int,
    ) -> *mut rd_kafka_event_t;
    pub(super) fn rd_kafka_queue_yield(rkqu: *mut rd_kafka_queue_t);
    pub(super) fn rd_kafka_poll_set_consumer(rk: *mut rd_kafka_t) -> i32;
    pub(super) fn rd_kafka_event_type(rkev: *const rd_kafka_event_t) -> c_int;
    pub(super) fn rd_kafka_event_destroy(rkev: *mut rd_kafka_event_t);
    pub(super) fn rd_kafka_event_error(rkev: *mut rd_kafka_event_t) -> i32;
    pub(super) fn rd_kafka_event_error_string(rkev: *mut rd_kafka_event_t) -> *const c_char;
    pub(super) fn rd_kafka_event_opaque(rkev: *mut rd_kafka_event_t) -> *mut c_void;
    pub(super) fn rd_kafka_event_topic_partition_list(rkev: *mut rd_kafka_event_t) -> *mut PartitionList;
    pub(super) fn rd_kafka_event_message_next(rkev: *mut rd_kafka_event_t) -> *const Message;
    pub(super) fn rd_kafka_topic_partition_list_new(size: c_int) -> *mut PartitionList;
    pub(super) fn rd_kafka_topic_partition_list_destroy(rkparlist: *mut PartitionList);
    pub(super) fn rd_kafka_topic_partition_list_add(
        rktparlist: *mut PartitionList,
        topic: *const c_char,
        partition: i32,
    ) -> *mut Partition;
    pub(super) fn rd_kafka_topic_new(
        rk: *mut rd_kafka_t,
        topic: *const c_char,
        conf: *mut rd_kafka_topic_conf_t,
    ) -> *mut rd_kafka_topic_t;
    pub(super) fn rd_kafka_topic_destroy(rkt: *mut rd_kafka_topic_t);
    pub(super) fn rd_kafka_topic_name(rkt: *const rd_kafka_topic_t) -> *const c_char;
    pub(super) fn rd_kafka_produceva(
        rk: *mut rd_kafka_t,
        vus: *const Vu,
        cnt: usize,
    ) -> *mut rd_kafka_error_t;
    pub(super) fn rd_kafka_headers_new(initial_count: usize) -> *mut rd_kafka_headers_t;
    pub(super) fn rd_kafka_headers_destroy(hdrs: *mut rd_kafka_headers_t);
    pub(super) fn rd_kafka_header_add(
        hdrs: *mut rd_kafka_headers_t,
        name: *const c_char,
        name_size: isize,
        value: *const c_void,
        value_size: isize,
    ) -> i32;
    pub(super) fn rd_kafka_message_status(rkmessage: *const Message) -> u32;
    pub(super) fn rd_kafka_flush(rk: *mut rd_kafka_t, timeout_ms: c_int) -> i32;
    pub(super) fn rd_kafka_purge(rk: *mut rd_kafka_t, purge_flags: c_int) -> i32;
    pub(super) fn rd_kafka_outq_len(rk: *mut rd_kafka_t) -> c_int;
    pub(super) fn rd_kafka_subscribe(rk: *mut rd_kafka_t, topics: *const PartitionList) -> i32;
    pub(super) fn rd_kafka_consume_batch_queue(
        rkqu: *mut rd_kafka_queue_t,
        timeout_ms: c_int,
        rkmessages: *mut *mut Message,
        rkmessages_size: usize,
    ) -> isize;
    pub(super) fn rd_kafka_version() -> c_int;
    pub(super) fn rd_kafka_message_destroy(rkmessage: *mut Message);
    pub(super) fn rd_kafka_message_timestamp(rkmessage: *const Message, tstype: *mut u32) -> i64;
    pub(super) fn rd_kafka_message_headers(
        rkmessage: *const Message,
        hdrsp: *mut *mut rd_kafka_headers_t,
    ) -> i32;
    pub(super) fn rd_kafka_header_get_all(
        hdrs: *const rd_kafka_headers_t,
        idx: usize,
        namep: *mut *const c_char,
        valuep: *mut *const c_void,
        sizep: *mut usize,
    ) -> i32;
    pub(super) fn rd_kafka_assign(rk: *mut rd_kafka_t, partitions: *const PartitionList) -> i32;
    pub(super) fn rd_kafka_incremental_assign(
        rk: *mut rd_kafka_t,
        partitions: *const PartitionList,
    ) -> *mut rd_kafka_error_t;
    pub(super) fn rd_kafka_incremental_unassign(
        rk: *mut rd_kafka_t,
        partitions: *const PartitionList,
    ) -> *mut rd_kafka_error_t;
    pub(super) fn rd_kafka_assignment_lost(rk: *mut rd_kafka_t) -> c_int;
    pub(super) fn rd_kafka_rebalance_protocol(rk: *mut rd_kafka_t) -> *const c_char;
    pub(super) fn rd_kafka_commit_queue(
        rk: *mut rd_kafka_t,
        offsets: *const PartitionList,
        rkqu: *mut rd_kafka_queue_t,
        cb: Option<
            unsafe extern "C" fn(
                rk: *mut rd_kafka_t,
                err: i32,
                offsets: *mut PartitionList,
                commit_opaque: *mut c_void,
            ),
        >,
        commit_opaque: *mut c_void,
    ) -> i32;
    pub(super) fn rd_kafka_pause_partitions(rk: *mut rd_kafka_t, partitions: *mut PartitionList) -> i32;
    pub(super) fn rd_kafka_resume_partitions(rk: *mut rd_kafka_t, partitions: *mut PartitionList) -> i32;
    pub(super) fn rd_kafka_offsets_for_times(
        rk: *mut rd_kafka_t,
        offsets: *mut PartitionList,
        timeout_ms: c_int,
    ) -> i32;
    pub(super) fn rd_kafka_metadata(
        rk: *mut rd_kafka_t,
        all_topics: c_int,
        only_rkt: *mut rd_kafka_topic_t,
        metadatap: *mut *const Metadata,
        timeout_ms: c_int,
    ) -> i32;
    pub(super) fn rd_kafka_metadata_destroy(metadata: *const Metadata);
    pub(super) fn rd_kafka_brokers_add(rk: *mut rd_kafka_t, brokerlist: *const c_char) -> c_int;
    pub(super) fn rd_kafka_consumer_group_metadata(
        rk: *mut rd_kafka_t,
    ) -> *mut rd_kafka_consumer_group_metadata_t;
    pub(super) fn rd_kafka_consumer_group_metadata_destroy(
        group_metadata: *mut rd_kafka_consumer_group_metadata_t,
    );
    pub(super) fn rd_kafka_consumer_group_metadata_generation_id(
        group_metadata: *const rd_kafka_consumer_group_metadata_t,
    ) -> i32;
    pub(super) fn rd_kafka_consumer_group_metadata_member_id(
        group_metadata: *const rd_kafka_consumer_group_metadata_t,
    ) -> *const c_char;
    pub(super) fn rd_kafka_consumer_close(rk: *mut rd_kafka_t) -> i32;
}
