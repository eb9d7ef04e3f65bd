//! Headers of a message, packed into one slice.
//!
//! Ordered, multi-valued, binary-safe; a value may be null. The packed form is what the embedded log stores, and one
//! slice costs a message 4 ns where a vector of names and values cost 72 ns.
//! Form: for each header `varint(name length) name varint(0 for null, else value length + 1) value`.
//! Not here: what the names mean (`wire.rs`).

use crate::{Error, ErrorKind, Result, varint};
use bytes::Bytes;
use std::fmt;

/// Headers of one message: ordered, a name may come more than once, values are bytes or null.
///
/// Cloning is cheap. Bytes arrive as they were sent.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Headers(Bytes);

impl Headers {
    /// The most headers one message may have.
    pub const MAX_COUNT: usize = 4096;
    /// The longest name, in bytes.
    pub const MAX_NAME: usize = 32 * 1024;

    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// Starts to collect headers.
    #[must_use]
    pub fn builder() -> HeadersBuilder {
        HeadersBuilder::default()
    }

    /// Takes the packed form over after checking it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where the bytes are not whole headers with UTF-8 names; [`ErrorKind::TooLarge`] where they are more
    /// than [`Self::MAX_COUNT`].
    #[inline]
    pub fn from_packed(packed: Bytes) -> Result<Self> {
        check_packed(&packed)?;
        Ok(Self(packed))
    }

    /// The same of who made the packed form of so many whole headers, and saw that their names are UTF-8.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`].
    #[cfg(feature = "kafka")]
    pub(crate) fn seen(packed: Bytes, count: u64) -> Result<Self> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > Self::MAX_COUNT { Err(too_many(count)) } else { Ok(Self(packed)) }
    }

    /// The packed form.
    #[must_use]
    pub const fn packed(&self) -> &Bytes {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are, counted one by one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// All headers in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.iter_bytes().map_while(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
    }

    /// The same with names as bytes, for who writes them: that they are text was seen when they were taken.
    pub(crate) fn iter_bytes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (name, value, after) = split(rest)?;
            rest = after;
            Some((name, value))
        })
    }

    /// Whether every backend can carry them: how many there are, and the names. That those are text was seen when they were taken.
    pub(crate) fn check(&self) -> Result<()> {
        // Most have few bytes and none that is zero: then none is too long, there are not too many (each takes two bytes at least), and no look at each is needed.
        // Without a way out of the loop, which takes half of the instructions that `contains` takes.
        let has_zero = || self.0.iter().fold(false, |zero, byte| zero | (*byte == 0));
        if self.0.len() <= (2 * Self::MAX_COUNT).min(Self::MAX_NAME) && !has_zero() {
            return Ok(());
        }
        let (mut rest, mut count) = (&self.0[..], 0);
        while let Some((name, _, after)) = split(rest) {
            (rest, count) = (after, count + 1);
            if name.len() > Self::MAX_NAME {
                let text = format!(
                    "the name of header {count} has {} bytes and may have {}",
                    name.len(),
                    Self::MAX_NAME
                );
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
            if name.contains(&0) {
                let text = format!("the name of header {count} contains a NUL byte");
                return Err(Error::new(ErrorKind::Invalid, text));
            }
        }
        if count > Self::MAX_COUNT {
            return Err(too_many(count));
        }
        Ok(())
    }

    /// The value of the first header of that name; the inner option is the null value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Option<&[u8]>> {
        let mut rest = &self.0[..];
        while let Some((found, value, after)) = split(rest) {
            if found == name.as_bytes() {
                return Some(value);
            }
            rest = after;
        }
        None
    }

    /// The value of the first header of that name, where it is text.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).flatten().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// These headers and one more at the end.
    #[must_use]
    pub fn with(&self, name: &str, value: Option<&[u8]>) -> Self {
        self.to_builder().add(name, value).build()
    }

    /// The headers for which `keep` says yes.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let mut out = Self::builder();
        for (name, value) in self.iter().filter(|(name, _)| keep(name)) {
            out = out.add(name, value);
        }
        out.build()
    }

    /// A builder that starts with these.
    #[must_use]
    pub fn to_builder(&self) -> HeadersBuilder {
        HeadersBuilder { packed: self.0.to_vec() }
    }
}

/// Collects headers in order.
#[derive(Clone, Debug, Default)]
pub struct HeadersBuilder {
    packed: Vec<u8>,
}

impl HeadersBuilder {
    /// Adds one at the end; `None` is the null value. Lengths are checked when the message is published.
    #[must_use]
    #[inline]
    pub fn add(mut self, name: &str, value: Option<impl AsRef<[u8]>>) -> Self {
        self.put(name, value.as_ref().map(AsRef::as_ref));
        self
    }

    fn put(&mut self, name: &str, value: Option<&[u8]>) {
        let (name_len, value_len) = (name.len() as u64, value.map_or(0, |value| value.len() as u64 + 1));
        let size = varint::len(name_len) + name.len() + varint::len(value_len) + value.map_or(0, <[u8]>::len);
        // Most messages have one header: its room is all there is, so that freezing needs no other allocation.
        if self.packed.capacity() == 0 {
            self.packed = Vec::with_capacity(size);
        } else {
            self.packed.reserve(size);
        }
        varint::put(&mut self.packed, name_len);
        self.packed.extend_from_slice(name.as_bytes());
        varint::put(&mut self.packed, value_len);
        self.packed.extend_from_slice(value.unwrap_or_default());
    }

    /// The headers.
    #[must_use]
    #[inline]
    pub fn build(self) -> Headers {
        Headers(self.packed.into())
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        headers
            .into_iter()
            .fold(Self::builder(), |out, (name, value)| out.add(name.as_ref(), Some(value)))
            .build()
    }
}

impl fmt::Debug for Headers {
    /// Names and the sizes of values: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, value.map(<[u8]>::len)))).finish()
    }
}

#[cold]
fn too_many(count: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!(
            "the message has {count} headers and a message may have {}; move what is data into the payload",
            Headers::MAX_COUNT
        ),
    )
}

#[cold]
fn damaged(at: usize) -> Error {
    Error::new(ErrorKind::Invalid, format!("packed headers are damaged at byte {at}"))
}

/// Whether these are whole headers, with names that are text, and not too many.
// Apart, so that what takes headers over is small enough to become part of who reads a message.
#[inline(never)]
fn check_packed(packed: &[u8]) -> Result<()> {
    let (mut rest, mut count) = (packed, 0);
    while !rest.is_empty() {
        match split(rest) {
            // Most names are ASCII, which is seen with less work than that they are text.
            Some((name, _, after)) if name.is_ascii() || std::str::from_utf8(name).is_ok() => rest = after,
            _ => return Err(damaged(packed.len() - rest.len())),
        }
        count += 1;
    }
    if count > Headers::MAX_COUNT { Err(too_many(count)) } else { Ok(()) }
}

/// A name, its value, and what follows.
type Split<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

#[inline]
fn split(rest: &[u8]) -> Option<Split<'_>> {
    let (name_len, rest) = varint::take(rest)?;
    let (name, rest) = rest.split_at_checked(usize::try_from(name_len).ok()?)?;
    let (value_len, rest) = varint::take(rest)?;
    let Some(value_len) = value_len.checked_sub(1) else {
        return Some((name, None, rest));
    };
    let (value, rest) = rest.split_at_checked(usize::try_from(value_len).ok()?)?;
    Some((name, Some(value), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_repeats_null_and_empty_are_kept() {
        let headers = Headers::builder()
            .add("a", Some(b"1"))
            .add("a", Some(&[0xff, 0x00]))
            .add("b", None::<&[u8]>)
            .add("", Some(b""))
            .build();
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(
            all,
            [("a", Some(&b"1"[..])), ("a", Some(&[0xff, 0x00][..])), ("b", None), ("", Some(&b""[..]))]
        );
        assert_eq!(headers.get("b"), Some(None));
        assert_eq!(headers.get("c"), None);
        assert_eq!(headers.filtered(|name| name != "a").count(), 2);
    }

    proptest! {
        #[test]
        fn packed_form_round_trips(list in proptest::collection::vec((".{0,20}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300))), 0..50)) {
            let mut builder = Headers::builder();
            for (name, value) in &list {
                builder = builder.add(name, value.as_deref());
            }
            let headers = Headers::from_packed(builder.build().packed().clone()).unwrap();
            let back: Vec<_> = headers.iter().map(|(n, v)| (n.to_owned(), v.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(back, list);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(headers) = Headers::from_packed(Bytes::from(bytes.clone())) {
                prop_assert_eq!(headers.packed().as_ref(), &bytes[..]);
                let _ = headers.count();
            }
        }
    }
}
