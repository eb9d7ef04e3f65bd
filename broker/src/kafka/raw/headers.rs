//! Headers of records, on their way into the library and out of it.
//!
//! Not here: taking apart how they lie in a record (`../packed.rs`), what they mean (`../layout.rs`).

#![expect(unsafe_code, reason = "fills and reads lists of headers of the C library")]

use super::{
    code::{Code, Trouble},
    native::{self, Message},
};
use rdkafka_sys::rd_kafka_headers_t;
use std::{
    borrow::Cow,
    ffi::{CStr, c_void},
    marker::PhantomData,
    ptr, slice,
};

/// For how many headers there is room at first. With more the library moves their list.
const ROOM: usize = 8;

/// Headers of ours, until a record takes them over.
pub(in crate::kafka) struct HeaderList {
    native: *mut rd_kafka_headers_t,
}

impl HeaderList {
    pub(super) fn new() -> Self {
        // SAFETY: takes a number; what it answers is ours.
        Self { native: unsafe { native::rd_kafka_headers_new(ROOM) } }
    }

    /// Adds a header at the end. Both are copied; a value may be null.
    pub(in crate::kafka) fn add(&mut self, name: &[u8], value: Option<&[u8]>) {
        let (at, size) =
            value.map_or((ptr::null(), 0), |value| (value.as_ptr().cast::<c_void>(), value.len()));
        // SAFETY: the list is ours; name and value have the sizes that are named (none is more than `isize::MAX`), and are copied.
        unsafe {
            native::rd_kafka_header_add(
                self.native,
                name.as_ptr().cast(),
                name.len() as isize,
                at,
                size as isize,
            )
        };
    }

    /// For the call that takes them over.
    pub(super) const fn native(&self) -> *mut rd_kafka_headers_t {
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

/// The headers of a record that was read, as they lie in it: how many, then for each the length of its name, the name, the length of its value (-1: null), the value; numbers
/// are zigzag. They may be damaged, but where the library was asked. `Err` where that finds none that are headers.
///
/// # Safety
/// The message is a record that was read, is alive while `'a` lasts, and is used by this thread alone.
#[inline]
pub(super) unsafe fn headers_of<'a>(message: *const Message) -> Result<Cow<'a, [u8]>, Trouble> {
    // SAFETY: as the caller promises.
    match unsafe { where_they_lie(message) } {
        Some(bytes) => Ok(Cow::Borrowed(bytes)),
        // SAFETY: as the caller promises.
        None => unsafe { Listed::of(message) }.map(|listed| Cow::Owned(laid(listed))),
    }
}

/// As they would lie in a record.
fn laid(listed: Listed<'_>) -> Vec<u8> {
    let (mut out, mut count) = (Vec::new(), 0);
    for (name, value) in listed {
        count += 1;
        put(&mut out, name.len() as i64);
        out.extend_from_slice(name);
        put(&mut out, value.map_or(-1, |value| value.len() as i64));
        out.extend_from_slice(value.unwrap_or_default());
    }
    let mut all = Vec::with_capacity(out.len() + 5);
    put(&mut all, count);
    all.append(&mut out);
    all
}

/// Adds a number.
fn put(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The headers of a record where they lie, which is behind its value. `None` where that is not known: then the library is asked. It makes a list of copies, which
/// takes as long as all that is done here with a small record.
///
/// # Safety
/// As [`headers_of`].
#[inline]
unsafe fn where_they_lie<'a>(message: *const Message) -> Option<&'a [u8]> {
    // SAFETY: takes nothing.
    if unsafe { native::rd_kafka_version() } != native::READ_MESSAGE {
        return None;
    }
    // SAFETY: the library that has this version keeps each record that a consumer reads in such a struct, of which the message is the first field. It is
    // set before the record is handed out, and not changed any more.
    let (message, at, len) = unsafe {
        let read = message.cast::<native::ReadMessage>();
        (&(*read).message, (*read).headers_at, (*read).headers_len)
    };
    // Value and headers lie behind each other in what came from the server. Where these do not, the struct is not what is known of it, or this record is of an
    // older format, which has none.
    let behind = if message.len > 0 {
        message.payload.cast_const().cast::<u8>().wrapping_add(message.len)
    } else if message.key_len > 0 {
        // The length of a value that is empty or null takes one byte.
        message.key.cast_const().cast::<u8>().wrapping_add(message.key_len + 1)
    } else {
        return None;
    };
    let len = usize::try_from(len).ok().filter(|len| *len > 0 && at == behind)?;
    // SAFETY: the library has seen that so many bytes lie there, in the memory that this record keeps.
    Some(unsafe { slice::from_raw_parts(at, len) })
}

/// Headers that the library has listed, in order: name and value. What follows a NUL byte in a name cannot be had from it.
struct Listed<'a> {
    /// Null of none.
    native: *const rd_kafka_headers_t,
    next: usize,
    message: PhantomData<&'a Message>,
}

impl Listed<'_> {
    /// Has them listed. `Err` where they are not headers.
    ///
    /// # Safety
    /// As [`headers_of`].
    unsafe fn of(message: *const Message) -> Result<Self, Trouble> {
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

impl<'a> Iterator for Listed<'a> {
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
