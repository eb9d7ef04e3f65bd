//! The protocol of Redis (RESP2) as bytes: a reply whose strings are slices of what was read.
//!
//! Reads of many entries are parsed here and not by redis-rs, which allocates each string. Not here: how commands are encoded (redis-rs does
//! that), what a reply means.

use bytes::{Buf, Bytes, BytesMut};
use std::io;
use tokio_util::codec::Decoder;

/// How long one reply may be, in bytes: what a server allows one string, doubled.
const MAX_REPLY: usize = 1 << 30;
/// How deep arrays may lie in each other.
const MAX_DEPTH: usize = 32;

/// What a server answers. Strings share the memory of the whole reply: copy what is kept for long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// Nothing there.
    Nil,
    /// A number.
    Int(i64),
    /// A status, such as `OK`.
    Simple(Bytes),
    /// A string of bytes.
    Bulk(Bytes),
    /// An error: a code, a space, a text.
    Error(Bytes),
    /// Several, in order.
    Array(Vec<Self>),
}

impl Reply {
    /// The bytes of a string or status.
    #[must_use]
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A string or status, where it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A number, also where it came as text.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => self.text()?.parse().ok(),
        }
    }

    /// What an array holds; nothing, where it is none.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }
}

/// Finds where a reply ends, going on where it stopped when more was read; then cuts it out.
#[derive(Debug, Default)]
pub(super) struct Resp {
    at: usize,
    open: Vec<usize>,
}

impl Decoder for Resp {
    type Item = Reply;
    type Error = io::Error;

    fn decode(&mut self, read: &mut BytesMut) -> io::Result<Option<Reply>> {
        loop {
            let Some((tag, number, next)) = header(read, self.at)? else { return room(read) };
            match tag {
                b'$' if number >= 0 => {
                    let end =
                        next.saturating_add(usize::try_from(number).unwrap_or(MAX_REPLY)).saturating_add(2);
                    if end > MAX_REPLY {
                        return Err(foreign("a string that is too long"));
                    }
                    if end > read.len() {
                        // Not more than that before it is there: a length is only a claim.
                        read.reserve((end - read.len()).min(1 << 20));
                        return Ok(None);
                    }
                    if &read[end - 2..end] != b"\r\n" {
                        return Err(foreign("a string without its end"));
                    }
                    self.at = end;
                }
                b'*' if number > 0 => {
                    self.at = next;
                    if self.open.len() == MAX_DEPTH {
                        return Err(foreign("arrays that lie too deep in each other"));
                    }
                    self.open.push(usize::try_from(number).unwrap_or(MAX_REPLY));
                    continue;
                }
                _ => self.at = next,
            }
            if self.closes() {
                let mut reply = read.split_to(self.at).freeze();
                self.at = 0;
                return take(&mut reply).map(Some);
            }
        }
    }
}

impl Resp {
    /// One element is complete; whether the reply is.
    fn closes(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

fn room(read: &BytesMut) -> io::Result<Option<Reply>> {
    if read.len() > MAX_REPLY { Err(foreign("a reply that is too long")) } else { Ok(None) }
}

fn foreign(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not Redis' protocol: {what}"))
}

/// The element that begins at `at`: its tag, its number where it has one, and what follows the line.
fn header(read: &[u8], at: usize) -> io::Result<Option<(u8, i64, usize)>> {
    let Some(&tag) = read.get(at) else { return Ok(None) };
    if !matches!(tag, b'+' | b'-' | b':' | b'$' | b'*') {
        return Err(foreign(&format!("it begins with byte {tag:#04x}")));
    }
    let Some(length) = read[at..].iter().position(|byte| *byte == b'\n') else {
        // A status or error has no stated length; a number has at most 20 digits.
        return if read.len() - at > 64 * 1024 { Err(foreign("a line without end")) } else { Ok(None) };
    };
    let line =
        read[at + 1..at + length].strip_suffix(b"\r").ok_or_else(|| foreign("a line without its end"))?;
    let number = match tag {
        b'+' | b'-' => 0,
        _ => number(line).ok_or_else(|| foreign("a number that is none"))?,
    };
    Ok(Some((tag, number, at + length + 1)))
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Cuts one reply off a buffer that holds it whole.
fn take(reply: &mut Bytes) -> io::Result<Reply> {
    let (tag, number, next) = header(reply, 0)?.ok_or_else(|| foreign("it ends too early"))?;
    let mut line = reply.split_to(next);
    line.advance(1);
    line.truncate(line.len() - 2);
    Ok(match tag {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(line),
        b':' => Reply::Int(number),
        b'$' => match usize::try_from(number) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let string = reply.split_to(length);
                reply.advance(2);
                Reply::Bulk(string)
            }
        },
        _ => match usize::try_from(number) {
            Err(_) => Reply::Nil,
            Ok(count) => {
                // All of them are there, each in three bytes at least.
                let mut items = Vec::with_capacity(count.min(reply.len() / 3));
                for _ in 0..count {
                    items.push(take(reply)?);
                }
                Reply::Array(items)
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &'static str) -> Reply {
        Reply::Bulk(Bytes::from_static(text.as_bytes()))
    }

    const SENT: &[u8] = b"+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\nb\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n*3\r\n$1\r\nx\r\n*2\r\n:1\r\n*0\r\n$-1\r\n";

    fn meant() -> Vec<Reply> {
        vec![
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Int(-7),
            bulk("a\nb"),
            bulk(""),
            Reply::Nil,
            Reply::Nil,
            Reply::Array(vec![]),
            Reply::Array(vec![
                bulk("x"),
                Reply::Array(vec![Reply::Int(1), Reply::Array(vec![])]),
                Reply::Nil,
            ]),
        ]
    }

    #[test]
    fn replies_are_found_however_they_are_cut_into_reads() {
        for size in 1..=SENT.len() {
            let (mut resp, mut read, mut found) = (Resp::default(), BytesMut::new(), Vec::new());
            for part in SENT.chunks(size) {
                read.extend_from_slice(part);
                while let Some(reply) = resp.decode(&mut read).unwrap() {
                    found.push(reply);
                }
            }
            assert_eq!(found, meant(), "reads of {size} bytes");
            assert!(read.is_empty());
        }
    }

    #[test]
    fn damaged_replies_never_panic() {
        for place in 0..SENT.len() {
            for byte in [0, b'*', b'$', b'-', b'9', b'\r', b'\n', 255] {
                let mut read = BytesMut::from(SENT);
                read[place] = byte;
                let mut resp = Resp::default();
                while let Ok(Some(_)) = resp.decode(&mut read) {}
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_told_and_nothing_is_allocated_for_what_is_claimed() {
        for sent in ["HTTP/1.1 200\r\n", "$x\r\n", "$3\r\nabcde", ":1\n", "$2000000000\r\n", "\u{15}\u{3}"] {
            let error = Resp::default().decode(&mut BytesMut::from(sent)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{sent:?}");
        }
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1);
        assert!(Resp::default().decode(&mut BytesMut::from(deep.as_str())).is_err());
        for claim in ["*2000000000\r\n", "$500000000\r\n"] {
            let mut read = BytesMut::from(claim);
            assert_eq!(Resp::default().decode(&mut read).unwrap(), None);
            assert!(read.capacity() < 4 << 20, "{claim:?}: {}", read.capacity());
        }
    }

    #[test]
    fn strings_of_a_reply_share_its_memory() {
        let mut read = BytesMut::from("*2\r\n$3\r\nabc\r\n$3\r\ndef\r\n");
        let reply = Resp::default().decode(&mut read).unwrap().unwrap();
        let at = |index: usize| reply.items()[index].bytes().unwrap().as_ptr() as usize;
        assert_eq!(at(1) - at(0), 9, "they lie where they were read");
    }
}
