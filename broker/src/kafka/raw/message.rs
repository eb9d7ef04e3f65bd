//! Records as they are read: many at a time, borrowed from the library until they are looked at.
//!
//! A message that is not destroyed keeps its client from ever being destroyed, and a fetch of up to megabytes in memory. Not here: who asks for them
//! (`consumer.rs`).

#![expect(unsafe_code, reason = "owns messages of the C library, and reads them")]

use super::{
    code::{Code, Trouble},
    headers::headers_of,
    list::{Names, Place},
    native::{self, Message},
    queue::{Queue, millis},
};
use rdkafka_sys::rd_kafka_topic_t;
use std::{borrow::Cow, ffi::CStr, ptr, slice, sync::Arc, time::Duration};

/// A record that was read. Borrowed: what is kept of it is copied.
#[derive(Debug)]
pub(in crate::kafka) struct RecordRef<'a> {
    pub(in crate::kafka) topic: &'a Arc<str>,
    pub(in crate::kafka) partition: i32,
    pub(in crate::kafka) offset: i64,
    /// In ms since 1970.
    pub(in crate::kafka) timestamp: Option<i64>,
    /// Null differs from empty.
    pub(in crate::kafka) key: Option<&'a [u8]>,
    /// Null is a tombstone.
    pub(in crate::kafka) value: Option<&'a [u8]>,
    /// Alive while `'a` lasts.
    message: *const Message,
}

impl<'a> RecordRef<'a> {
    /// Its headers, as they lie in a record. `Err` where it is known that they are none.
    #[inline]
    pub(in crate::kafka) fn headers(&self) -> Result<Cow<'a, [u8]>, Trouble> {
        // SAFETY: it is a record that was read, is alive, and nobody else knows of it.
        unsafe { headers_of(self.message) }
    }
}

/// Something that was read.
pub(super) enum Read<'a> {
    Record(RecordRef<'a>),
    Problem { code: Code, text: String, place: Option<Place> },
}

/// Messages that were taken from a queue. All are destroyed, each when it has been looked at, the rest when this is dropped.
#[derive(Default)]
pub(super) struct Messages {
    taken: Vec<*mut Message>,
}

// SAFETY: they are ours, and nobody else knows of them. The library lets any thread read and destroy them.
unsafe impl Send for Messages {}

impl Messages {
    /// Takes up to `most` more, for which it waits until there are so many: ask for one, or wait for none.
    pub(super) fn fill(&mut self, queue: &Queue, wait: Duration, most: usize) {
        self.taken.reserve(most);
        let room = self.taken.spare_capacity_mut();
        let room = &mut room[..most];
        // SAFETY: the queue is alive, and there is room for `most` pointers. What is answered says how many are set, and they are ours.
        let taken = unsafe {
            native::rd_kafka_consume_batch_queue(
                queue.native(),
                millis(wait),
                room.as_mut_ptr().cast(),
                room.len(),
            )
        };
        let taken = usize::try_from(taken).unwrap_or(0).min(most);
        // SAFETY: so many were set behind those that were there.
        unsafe { self.taken.set_len(self.taken.len() + taken) };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Shows each, in order, and destroys it. `true` if a record was among them.
    pub(super) fn read(&mut self, names: &mut Names, show: &mut dyn FnMut(Read<'_>)) -> bool {
        let mut rest = Rest { taken: &mut self.taken, next: 0 };
        // The name of the topic of the latest message. All topics are alive until all messages are destroyed, so no two have the same address.
        let mut latest: (*mut rd_kafka_topic_t, Option<Arc<str>>) = (ptr::null_mut(), None);
        let mut records = false;
        while let Some(native) = rest.get() {
            // SAFETY: it lives until `pass`.
            let message = unsafe { &*native };
            if latest.1.is_none() || latest.0 != message.rkt {
                // SAFETY: the message keeps its topic alive, if it has one.
                latest = (message.rkt, unsafe { topic_of(message, names) });
            }
            let topic = latest.1.as_ref();
            match topic {
                Some(topic) if message.err == 0 => {
                    records = true;
                    // SAFETY: the message is a record that was read, and is alive.
                    show(Read::Record(unsafe { record(native, topic) }));
                }
                // SAFETY: the message is alive.
                _ => show(unsafe { problem(message, topic) }),
            }
            rest.pass();
        }
        records
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        drop(Rest { taken: &mut self.taken, next: 0 });
    }
}

/// Messages that are being looked at. Those that were not are destroyed, too, if somebody panics.
struct Rest<'m> {
    taken: &'m mut Vec<*mut Message>,
    next: usize,
}

impl Rest<'_> {
    /// One that is alive: those before `next` were destroyed. It lives until `pass`.
    fn get(&self) -> Option<*const Message> {
        self.taken.get(self.next).map(|message| message.cast_const())
    }

    fn pass(&mut self) {
        if let Some(message) = self.taken.get(self.next) {
            self.next += 1;
            // SAFETY: it is ours, was not destroyed, and `next` is behind it now.
            unsafe { native::rd_kafka_message_destroy(*message) };
        }
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        while self.next < self.taken.len() {
            self.pass();
        }
        self.taken.clear();
    }
}

/// # Safety
/// The message is alive.
unsafe fn topic_of(message: &Message, names: &mut Names) -> Option<Arc<str>> {
    if message.rkt.is_null() {
        return None;
    }
    // SAFETY: the message keeps its topic alive, and the name belongs to that and ends in NUL.
    let name = unsafe { CStr::from_ptr(native::rd_kafka_topic_name(message.rkt)) };
    Some(names.get(&name.to_string_lossy()))
}

/// # Safety
/// The message is a record that was read, and is alive while `'a` lasts.
unsafe fn record<'a>(native: *const Message, topic: &'a Arc<str>) -> RecordRef<'a> {
    // SAFETY: it is alive.
    let message = unsafe { &*native };
    let mut kind = 0;
    // SAFETY: the message is alive; `kind` is written.
    let timestamp = unsafe { native::rd_kafka_message_timestamp(message, &raw mut kind) };
    RecordRef {
        topic,
        partition: message.partition,
        offset: message.offset,
        timestamp: (kind != 0).then_some(timestamp),
        // SAFETY: what is not null has the size beside it, and belongs to the message.
        key: unsafe { bytes(message.key.cast(), message.key_len) },
        // SAFETY: as above.
        value: unsafe { bytes(message.payload.cast(), message.len) },
        message: native,
    }
}

/// # Safety
/// `at` is null, or `size` bytes are there while `'a` lasts.
unsafe fn bytes<'a>(at: *const u8, size: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!at.is_null()).then(|| unsafe { slice::from_raw_parts(at, size) })
}

/// # Safety
/// The message is alive.
unsafe fn problem<'a>(message: &Message, topic: Option<&Arc<str>>) -> Read<'a> {
    let code = Code(message.err);
    // SAFETY: the text of an error is its payload: as many bytes as it says.
    let said = unsafe { bytes(message.payload.cast(), message.len) };
    let said = said.map_or(Cow::Borrowed(""), String::from_utf8_lossy);
    let said = if said.is_empty() { code.text() } else { said.into_owned() };
    let place = topic.map(|topic| Place::new(topic, message.partition, message.offset));
    Read::Problem { code, text: said, place }
}
