//! Headers of records, on their way into the library and out of it.
//!
//! Not here: what they mean (`../layout.rs`).

#![expect(unsafe_code, reason = "fills and reads lists of headers of the C library")]

use super::{
    code::{Code, Trouble},
    native::{self, Message},
};
use rdkafka_sys::rd_kafka_headers_t;
use std::{
    ffi::{CStr, c_void},
    marker::PhantomData,
    ptr, slice,
};

/// Headers of ours, until a record takes them over.
pub(super) struct HeaderList {
    native: *mut rd_kafka_headers_t,
}

impl HeaderList {
    /// None of no headers.
    pub(super) fn of<'a>(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Option<Self> {
        let expected = headers.size_hint().0.clamp(4, 64);
        let mut list: Option<Self> = None;
        for (name, value) in headers {
            // SAFETY: takes a number; what it answers is ours.
            let list = list
                .get_or_insert_with(|| Self { native: unsafe { native::rd_kafka_headers_new(expected) } });
            let (at, size) =
                value.map_or((ptr::null(), 0), |value| (value.as_ptr().cast::<c_void>(), value.len()));
            // SAFETY: the list is ours; name and value have the sizes that are named (none is more than `isize::MAX`), and are copied.
            unsafe {
                native::rd_kafka_header_add(
                    list.native,
                    name.as_ptr().cast(),
                    name.len() as isize,
                    at,
                    size as isize,
                )
            };
        }
        list
    }

    /// For the call that takes them over.
    pub(super) fn native(&self) -> *mut rd_kafka_headers_t {
        self.native
    }

    /// Forgets them: a record has them now.
    pub(super) fn given(self) {
        std::mem::forget(self);
    }
}

impl Drop for HeaderList {
    fn drop(&mut self) {
        // SAFETY: they are ours, and nothing uses them from here on.
        unsafe { native::rd_kafka_headers_destroy(self.native) };
    }
}

/// The headers of a record that was read, in order: name and value. What follows a NUL byte in a name cannot be had from the library.
#[derive(Debug)]
pub(in crate::kafka) struct HeadersOf<'a> {
    /// Null of none.
    native: *const rd_kafka_headers_t,
    next: usize,
    message: PhantomData<&'a Message>,
}

impl<'a> HeadersOf<'a> {
    /// Parses them. `Err` where they are not headers.
    pub(super) fn of(message: &'a Message) -> Result<Self, Trouble> {
        let mut native: *mut rd_kafka_headers_t = ptr::null_mut();
        // SAFETY: the message is alive, and was read by this thread, as nobody else has it. The headers that are answered belong to it.
        match Code(unsafe { native::rd_kafka_message_headers(message, &raw mut native) }) {
            Code::NONE => {}
            // There are none.
            Code::NO_ENTRY => native = ptr::null_mut(),
            code => return Err(Trouble::new(code, code.text())),
        }
        Ok(Self { native, next: 0, message: PhantomData })
    }
}

impl<'a> Iterator for HeadersOf<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.native.is_null() {
            return None;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers belong to the message, which is alive while `'a` lasts.
        let code = unsafe {
            native::rd_kafka_header_get_all(
                self.native,
                self.next,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            )
        };
        if code != 0 {
            return None;
        }
        self.next += 1;
        // SAFETY: the name ends in NUL; a value that is not null has the size that was answered. Both are alive as the headers are.
        unsafe {
            let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
            Some((CStr::from_ptr(name).to_bytes(), value))
        }
    }
}
