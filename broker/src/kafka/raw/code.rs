//! Codes of librdkafka and of servers as plain numbers, and the error of a call.
//!
//! Not here: what a code means to a caller of the contract (`../failure.rs`).

#![expect(unsafe_code, reason = "asks the C library for names and texts of codes, and takes its errors over")]

use super::native;
use rdkafka_sys::rd_kafka_error_t;
use std::{
    ffi::{CStr, c_char},
    fmt,
};

/// A code of librdkafka (below zero), of a server (above), or none (zero). Any number is one: a newer server has some that this library does not know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::kafka) struct Code(pub(in crate::kafka) i32);

impl Code {
    pub(in crate::kafka) const DESTROY: Self = Self(-197);
    pub(in crate::kafka) const FAIL: Self = Self(-196);
    pub(in crate::kafka) const TRANSPORT: Self = Self(-195);
    pub(in crate::kafka) const RESOLVE: Self = Self(-193);
    pub(in crate::kafka) const MSG_TIMED_OUT: Self = Self(-192);
    pub(in crate::kafka) const PARTITION_EOF: Self = Self(-191);
    pub(in crate::kafka) const UNKNOWN_PARTITION: Self = Self(-190);
    pub(in crate::kafka) const UNKNOWN_TOPIC: Self = Self(-188);
    pub(in crate::kafka) const ALL_BROKERS_DOWN: Self = Self(-187);
    pub(in crate::kafka) const INVALID_ARG: Self = Self(-186);
    pub(in crate::kafka) const TIMED_OUT: Self = Self(-185);
    pub(in crate::kafka) const QUEUE_FULL: Self = Self(-184);
    pub(in crate::kafka) const SSL: Self = Self(-181);
    pub(in crate::kafka) const WAIT_COORD: Self = Self(-180);
    pub(in crate::kafka) const ASSIGN_PARTITIONS: Self = Self(-175);
    pub(in crate::kafka) const REVOKE_PARTITIONS: Self = Self(-174);
    pub(in crate::kafka) const IN_PROGRESS: Self = Self(-178);
    pub(in crate::kafka) const STATE: Self = Self(-172);
    pub(in crate::kafka) const AUTHENTICATION: Self = Self(-169);
    pub(in crate::kafka) const NO_OFFSET: Self = Self(-168);
    pub(in crate::kafka) const PARTIAL: Self = Self(-158);
    pub(in crate::kafka) const NO_ENTRY: Self = Self(-156);
    pub(in crate::kafka) const PURGE_QUEUE: Self = Self(-152);
    pub(in crate::kafka) const PURGE_INFLIGHT: Self = Self(-151);
    pub(in crate::kafka) const FATAL: Self = Self(-150);
    pub(in crate::kafka) const MAX_POLL_EXCEEDED: Self = Self(-147);
    pub(in crate::kafka) const UNKNOWN_BROKER: Self = Self(-146);
    pub(in crate::kafka) const NOT_CONFIGURED: Self = Self(-145);
    pub(in crate::kafka) const AUTO_OFFSET_RESET: Self = Self(-140);
    pub(in crate::kafka) const UNKNOWN: Self = Self(-1);
    pub(in crate::kafka) const NONE: Self = Self(0);
    pub(in crate::kafka) const OFFSET_OUT_OF_RANGE: Self = Self(1);
    pub(in crate::kafka) const UNKNOWN_TOPIC_OR_PART: Self = Self(3);
    pub(in crate::kafka) const LEADER_NOT_AVAILABLE: Self = Self(5);
    pub(in crate::kafka) const MSG_SIZE_TOO_LARGE: Self = Self(10);
    pub(in crate::kafka) const OFFSET_METADATA_TOO_LARGE: Self = Self(12);
    pub(in crate::kafka) const COORDINATOR_LOAD_IN_PROGRESS: Self = Self(14);
    pub(in crate::kafka) const COORDINATOR_NOT_AVAILABLE: Self = Self(15);
    pub(in crate::kafka) const NOT_COORDINATOR: Self = Self(16);
    pub(in crate::kafka) const NOT_ENOUGH_REPLICAS: Self = Self(19);
    pub(in crate::kafka) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: Self = Self(20);
    pub(in crate::kafka) const ILLEGAL_GENERATION: Self = Self(22);
    pub(in crate::kafka) const UNKNOWN_MEMBER_ID: Self = Self(25);
    pub(in crate::kafka) const REBALANCE_IN_PROGRESS: Self = Self(27);
    pub(in crate::kafka) const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    pub(in crate::kafka) const GROUP_AUTHORIZATION_FAILED: Self = Self(30);
    pub(in crate::kafka) const CLUSTER_AUTHORIZATION_FAILED: Self = Self(31);
    pub(in crate::kafka) const TOPIC_ALREADY_EXISTS: Self = Self(36);
    pub(in crate::kafka) const POLICY_VIOLATION: Self = Self(44);
    pub(in crate::kafka) const OUT_OF_ORDER_SEQUENCE_NUMBER: Self = Self(45);
    pub(in crate::kafka) const NON_EMPTY_GROUP: Self = Self(68);
    pub(in crate::kafka) const GROUP_ID_NOT_FOUND: Self = Self(69);
    pub(in crate::kafka) const FENCED_INSTANCE_ID: Self = Self(82);
    pub(in crate::kafka) const GROUP_SUBSCRIBED_TO_TOPIC: Self = Self(86);
    pub(in crate::kafka) const FENCED_MEMBER_EPOCH: Self = Self(110);
    pub(in crate::kafka) const STALE_MEMBER_EPOCH: Self = Self(113);

    /// As its authors write it, without their prefix: `MSG_SIZE_TOO_LARGE`, `_TIMED_OUT`; `ERR_n?` of one that is not known.
    pub(in crate::kafka) fn name(self) -> String {
        // SAFETY: takes any number, and answers a text that ends in NUL: a constant one, or that of this thread until the next call.
        unsafe { text(native::rd_kafka_err2name(self.0)) }
    }

    /// A sentence about it.
    pub(in crate::kafka) fn text(self) -> String {
        // SAFETY: as of `name`.
        unsafe { text(native::rd_kafka_err2str(self.0)) }
    }

    /// `Err` of every code but zero.
    pub(in crate::kafka) fn check(self) -> Result<(), Trouble> {
        if self == Self::NONE { Ok(()) } else { Err(Trouble { code: self, text: self.text() }) }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// Why a call failed. The text is the library's; where it has none, that of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Trouble {
    pub(in crate::kafka) code: Code,
    pub(in crate::kafka) text: String,
}

impl Trouble {
    pub(in crate::kafka) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// What a call answered as an error object: none is success. It is destroyed here.
    ///
    /// # Safety
    /// `error` is null, or an error that the caller owns and does not use again.
    pub(super) unsafe fn take(error: *mut rd_kafka_error_t) -> Result<(), Self> {
        // SAFETY: it is null or alive, as the caller promises.
        let trouble = unsafe { Self::of(error) };
        if !error.is_null() {
            // SAFETY: it is owned, and not used again.
            unsafe { native::rd_kafka_error_destroy(error) };
        }
        trouble.map_or(Ok(()), Err)
    }

    /// What an error object says that belongs to somebody else. Null, and one without a code, is none.
    ///
    /// # Safety
    /// `error` is null, or alive during the call.
    pub(super) unsafe fn of(error: *const rd_kafka_error_t) -> Option<Self> {
        if error.is_null() {
            return None;
        }
        // SAFETY: it is alive.
        let code = Code(unsafe { native::rd_kafka_error_code(error) });
        // SAFETY: it is alive, and so is its text, which ends in NUL.
        let said = unsafe { text(native::rd_kafka_error_string(error)) };
        (code != Code::NONE).then(|| Self::new(code, said))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code.name())
    }
}

impl std::error::Error for Trouble {}

/// A copy of a text of C; what is no UTF-8 is replaced. Null is empty.
///
/// # Safety
/// `text` is null, or ends in NUL and does not change during the call.
pub(super) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
