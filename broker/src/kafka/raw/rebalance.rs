//! What a group tells its member: partitions that it is given, and partitions that it has to give back. The member answers later, when it is ready.
//!
//! Until it has answered, the library pauses all its partitions. While a member closes nobody is there to answer, so it is done here. Not here: the
//! answers of a member that is not closing (`assign.rs`).

#![expect(unsafe_code, reason = "reads lists of the C library, and answers it while a member closes")]

use super::{
    code::{Code, Trouble, text},
    list::{List, Names, Place, places},
    native::{self, PartitionList},
};
use rdkafka_sys::rd_kafka_t;
use std::{
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// One thing that the group told.
#[derive(Debug)]
pub(super) enum Change {
    Assigned(Vec<Place>),
    Revoked {
        partitions: Vec<Place>,
        lost: bool,
    },
    /// The library could not say which.
    Failed(Trouble),
}

/// What was told and not read yet, and what is not answered yet.
#[derive(Default)]
pub(super) struct Changes {
    told: Mutex<Told>,
    /// Something is in `told`: looked at before each read.
    some: AtomicBool,
    closing: AtomicBool,
}

#[derive(Default)]
struct Told {
    unread: Vec<Change>,
    open: Option<Open>,
    names: Names,
}

/// What waits for an answer.
enum Open {
    Assign,
    Revoke(Vec<Place>),
}

impl Changes {
    /// Keeps what the group tells.
    ///
    /// # Safety
    /// Called by the library: `native` and `list` are alive, and may be answered.
    pub(super) unsafe fn tell(&self, native: *mut rd_kafka_t, code: Code, list: *mut PartitionList) {
        if self.closing.load(Ordering::Acquire) {
            // SAFETY: as the caller promises.
            unsafe { give_up(native, code, list) };
            return;
        }
        // SAFETY: the client is alive.
        let lost =
            code == Code::REVOKE_PARTITIONS && unsafe { native::rd_kafka_assignment_lost(native) } != 0;
        let mut told = self.lock();
        // SAFETY: the list is alive.
        let partitions = unsafe { places(list, &mut told.names) };
        match code {
            Code::ASSIGN_PARTITIONS => {
                told.open = Some(Open::Assign);
                told.unread.push(Change::Assigned(partitions));
            }
            Code::REVOKE_PARTITIONS => {
                told.open = Some(Open::Revoke(partitions.clone()));
                told.unread.push(Change::Revoked { partitions, lost });
            }
            other => {
                // SAFETY: as the caller promises.
                unsafe { give_up(native, other, list) };
                told.unread.push(Change::Failed(Trouble::new(other, other.text())));
            }
        }
        drop(told);
        self.some.store(true, Ordering::Release);
    }

    /// Whether there is something to read.
    pub(super) fn any(&self) -> bool {
        self.some.load(Ordering::Acquire)
    }

    /// What was told since this was asked last, in order.
    pub(super) fn take(&self) -> Vec<Change> {
        if !self.some.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.lock().unread)
    }

    /// The member has answered.
    pub(super) fn answered(&self) {
        self.lock().open = None;
    }

    /// From here on everything is answered here, beginning with what is open.
    ///
    /// # Safety
    /// `native` is alive.
    pub(super) unsafe fn close(&self, native: *mut rd_kafka_t) {
        self.closing.store(true, Ordering::Release);
        let Some(open) = self.lock().open.take() else { return };
        let (code, partitions) = match open {
            Open::Assign => (Code::ASSIGN_PARTITIONS, Vec::new()),
            Open::Revoke(partitions) => (Code::REVOKE_PARTITIONS, partitions),
        };
        if let Ok(list) = List::of(&partitions) {
            // SAFETY: the client is alive, and the list is ours.
            unsafe { give_up(native, code, list.native()) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Each change is kept whole, or not at all.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers that nothing is taken, and that what is asked for is given back.
///
/// # Safety
/// `native` and `list` are alive.
pub(super) unsafe fn give_up(native: *mut rd_kafka_t, code: Code, list: *mut PartitionList) {
    // SAFETY: the client is alive; the text is constant and ends in NUL. The lists are alive and are copied.
    unsafe {
        let cooperative = text(native::rd_kafka_rebalance_protocol(native)) == "COOPERATIVE";
        let trouble = match code {
            Code::REVOKE_PARTITIONS if cooperative => {
                Trouble::take(native::rd_kafka_incremental_unassign(native, list))
            }
            Code::ASSIGN_PARTITIONS if cooperative => {
                let none = native::rd_kafka_topic_partition_list_new(0);
                let answered = Trouble::take(native::rd_kafka_incremental_assign(native, none));
                native::rd_kafka_topic_partition_list_destroy(none);
                answered
            }
            _ => Code(native::rd_kafka_assign(native, ptr::null())).check(),
        };
        if let Err(trouble) = trouble {
            tracing::debug!(%trouble, "a member that closes could not answer its group");
        }
    }
}
