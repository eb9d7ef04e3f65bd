//! The configuration of one client, until the client takes it over.
//!
//! Not here: which settings there are and who may set them (`../settings.rs`), the callbacks (`client.rs`).

#![expect(unsafe_code, reason = "owns a configuration of the C library")]

use super::{
    code::{Code, Trouble, text},
    native,
};
use rdkafka_sys::rd_kafka_conf_t;
use std::{
    ffi::{CStr, CString, c_char},
    fmt, ptr,
};

/// The longest text of an error that the library writes for us, in bytes.
pub(super) const ERROR_BYTES: usize = 512;

/// Settings by their names in librdkafka. Freed when it is dropped, unless a client has taken it over.
pub(in crate::kafka) struct Conf {
    native: *mut rd_kafka_conf_t,
}

// SAFETY: it is plain memory that nobody else knows of; the library keeps nothing of a thread about it.
unsafe impl Send for Conf {}

impl Conf {
    /// All settings at the library's defaults.
    pub(in crate::kafka) fn new() -> Self {
        // SAFETY: takes nothing; what it answers is ours (without memory the library ends the process).
        Self { native: unsafe { native::rd_kafka_conf_new() } }
    }

    /// Sets one. `Err` (the text names it) where there is no such setting or it cannot have this value. The value of a secret is never in the text.
    pub(in crate::kafka) fn set(&mut self, name: &str, value: &str) -> Result<(), Trouble> {
        let (Ok(c_name), Ok(c_value)) = (CString::new(name), CString::new(value)) else {
            return Err(Trouble::new(
                Code::INVALID_ARG,
                format!("`{}` has a NUL byte in it", name.escape_debug()),
            ));
        };
        let mut said: [c_char; ERROR_BYTES] = [0; ERROR_BYTES];
        // SAFETY: the configuration is ours and no client has it yet; both texts end in NUL and are copied; `said` has as many bytes as are named.
        let answer = unsafe {
            native::rd_kafka_conf_set(
                self.native,
                c_name.as_ptr(),
                c_value.as_ptr(),
                said.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        if answer == 0 {
            return Ok(());
        }
        // SAFETY: the library ends what it writes there in NUL, and it began as NULs.
        let said = unsafe { text(said.as_ptr()) };
        Err(Trouble::new(Code::INVALID_ARG, without_secret(name, value, said)))
    }

    /// The same for settings that this module decides, whatever was set before.
    pub(super) fn fix(&mut self, settings: &[(&str, &str)]) -> Result<(), Trouble> {
        settings.iter().try_for_each(|(name, value)| self.set(name, value))
    }

    /// Another one with the same settings.
    pub(super) fn copy(&self) -> Self {
        // SAFETY: the configuration is ours, and no client has it; what is answered is ours.
        Self { native: unsafe { native::rd_kafka_conf_dup(self.native) } }
    }

    /// The servers to begin with, as they were set. Empty where they were not.
    pub(super) fn servers(&self) -> CString {
        let name = c"bootstrap.servers";
        let mut size = 0;
        // SAFETY: the configuration is ours, and the name ends in NUL. Without a place to write to it tells the size, with its NUL.
        let found = unsafe {
            native::rd_kafka_conf_get(self.native, name.as_ptr(), ptr::null_mut(), &raw mut size) == 0
        };
        let mut servers = vec![0_u8; if found { size } else { 0 }];
        // SAFETY: as above; there are as many bytes to write to as are named.
        unsafe {
            native::rd_kafka_conf_get(self.native, name.as_ptr(), servers.as_mut_ptr().cast(), &raw mut size)
        };
        CStr::from_bytes_until_nul(&servers).map(CString::from).unwrap_or_default()
    }

    /// For calls that set callbacks.
    pub(super) fn native(&mut self) -> *mut rd_kafka_conf_t {
        self.native
    }

    /// Forgets it: a client has it now.
    pub(super) fn given(mut self) {
        self.native = ptr::null_mut();
        drop(self);
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        if !self.native.is_null() {
            // SAFETY: it is ours, and nothing uses it from here on.
            unsafe { native::rd_kafka_conf_destroy(self.native) };
        }
    }
}

impl fmt::Debug for Conf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No settings: there are secrets among them.
        f.debug_struct("Conf").finish_non_exhaustive()
    }
}

/// The text without a value that nobody should see.
fn without_secret(name: &str, value: &str, text: String) -> String {
    let secret = ["password", "secret", "key", "jaas", "token", "pem"].iter().any(|word| name.contains(word));
    if secret && !value.is_empty() { text.replace(value, "(hidden)") } else { text }
}
