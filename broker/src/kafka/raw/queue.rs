//! Queues of the library, the events that come from them, and the bell that wakes who waits at one.
//!
//! A queue that is not destroyed keeps its client from ever being destroyed. Not here: records, which come in batches (`message.rs`).

#![expect(unsafe_code, reason = "owns queues and events of the C library")]

use super::{
    code::{Code, text},
    list::{Answered, Names, answers},
    native::{self, Message},
};
use rdkafka_sys::{rd_kafka_event_t, rd_kafka_queue_t};
use std::{
    ffi::{c_int, c_void},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A queue of ours. Its owner drops it before the client that it belongs to.
pub(super) struct Queue {
    native: *mut rd_kafka_queue_t,
}

// SAFETY: the library's queues have a lock, and may be used by any number of threads at once.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// Takes one over.
    ///
    /// # Safety
    /// `native` is a reference to a queue that nobody else destroys, and its client outlives what is made here.
    pub(super) unsafe fn own(native: *mut rd_kafka_queue_t) -> Self {
        Self { native }
    }

    /// For calls. Valid while this is borrowed.
    pub(super) fn native(&self) -> *mut rd_kafka_queue_t {
        self.native
    }

    /// The next event, or none after `wait` or when the queue is told to yield.
    pub(super) fn poll(&self, wait: Duration) -> Option<Event> {
        // SAFETY: the queue is alive. What is answered is null, or ours to destroy, as `Event` does.
        let native = unsafe { native::rd_kafka_queue_poll(self.native, millis(wait)) };
        (!native.is_null()).then_some(Event { native })
    }

    /// Makes who waits at it stop waiting, or who will next.
    pub(super) fn yield_now(&self) {
        // SAFETY: the queue is alive.
        unsafe { native::rd_kafka_queue_yield(self.native) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and nothing uses it from here on.
        unsafe { native::rd_kafka_queue_destroy(self.native) };
    }
}

/// As the library takes it: whole milliseconds, not less than what is asked for.
pub(super) fn millis(wait: Duration) -> c_int {
    let up = wait.as_nanos().div_ceil(1_000_000);
    c_int::try_from(up).unwrap_or(c_int::MAX)
}

/// An event of ours.
pub(super) struct Event {
    native: *mut rd_kafka_event_t,
}

impl Event {
    pub(super) fn native(&self) -> *mut rd_kafka_event_t {
        self.native
    }

    /// One of the constants `RD_KAFKA_EVENT_...`.
    pub(super) fn kind(&self) -> c_int {
        // SAFETY: the event is alive.
        unsafe { native::rd_kafka_event_type(self.native) }
    }

    /// The code of the whole event.
    pub(super) fn code(&self) -> Code {
        // SAFETY: the event is alive.
        Code(unsafe { native::rd_kafka_event_error(self.native) })
    }

    /// A text about it.
    pub(super) fn text(&self) -> String {
        // SAFETY: the event is alive, and so is its text, which ends in NUL.
        unsafe { text(native::rd_kafka_event_error_string(self.native)) }
    }

    /// What the call that this answers was given to be told with it.
    pub(super) fn token(&self) -> *mut c_void {
        // SAFETY: the event is alive.
        unsafe { native::rd_kafka_event_opaque(self.native) }
    }

    /// The partitions of the answer to a commit.
    pub(super) fn answers(&self, names: &mut Names) -> Vec<Answered> {
        // SAFETY: the event is alive, and the list belongs to it.
        unsafe { answers(native::rd_kafka_event_topic_partition_list(self.native), names) }
    }

    /// The next message of an event that has some. It belongs to the event.
    pub(super) fn next_message(&mut self) -> Option<&Message> {
        // SAFETY: the event is alive; what is answered is null, or belongs to it and is not changed before the next call for the event.
        unsafe { native::rd_kafka_event_message_next(self.native).as_ref() }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing uses it from here on.
        unsafe { native::rd_kafka_event_destroy(self.native) };
    }
}

/// Wakes who waits at a queue, from any thread. It outlives the queue and then does nothing.
#[derive(Default)]
pub(super) struct Bell {
    /// Somebody has rung since it was asked last. The queue alone would forget it when it is read without waiting.
    rung: AtomicBool,
    queue: Mutex<Option<Queue>>,
}

impl Bell {
    /// The queue that it wakes from here on, or none: the one before is dropped.
    pub(super) fn hang(&self, queue: Option<Queue>) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = queue;
    }

    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        if let Some(queue) = &*self.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            queue.yield_now();
        }
    }

    /// Whether somebody has rung since this was asked last.
    pub(super) fn rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Acquire)
    }
}
