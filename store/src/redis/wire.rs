//! The protocol of Redis (RESP2) as bytes: a reply whose strings are slices of what was read.
//!
//! Reads of many entries are parsed here and not by redis-rs, which allocates each string. A reply is taken apart as it comes, so that it lies in pieces of about
//! 64 KiB and not in one. Not here: how commands are encoded (redis-rs does that), what a reply means.

use bytes::{Buf, Bytes, BytesMut};
use std::io;
use tokio_util::codec::Decoder;

/// How long one reply may be, in bytes: what a server allows one string, doubled.
const MAX_REPLY: usize = 1 << 30;
/// How much is read into one piece of memory, in bytes, unless a string is longer.
const PIECE: usize = 64 * 1024;
/// With less room than that another piece is begun, in bytes.
const LOW: usize = 4 * 1024;
/// How much room is made at once for what a string claims to have, in bytes: a length is only a claim.
const CLAIM: usize = 1 << 20;
/// How deep arrays may lie in each other.
const MAX_DEPTH: usize = 32;

/// What a server answers. Strings share the memory of what was read with them, 64 KiB or the longest of them.
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

/// More was answered at once than is taken.
#[derive(Debug, thiserror::Error)]
#[error("an answer of more than {MAX_REPLY} bytes")]
pub(super) struct TooLong;

/// Takes a reply apart as it comes.
#[derive(Debug, Default)]
pub(super) struct Resp {
    /// Arrays that are not whole, the outermost first: what is there of each, and how many are still to come.
    open: Vec<(Vec<Reply>, usize)>,
    /// How many bytes of the reply were taken.
    taken: usize,
}

impl Decoder for Resp {
    type Item = Reply;
    type Error = io::Error;

    fn decode(&mut self, read: &mut BytesMut) -> io::Result<Option<Reply>> {
        let mut at = 0;
        loop {
            let Some((tag, number, next)) = header(read, at)? else { return self.more(read, at, 0) };
            let value = match (tag, usize::try_from(number)) {
                (b'$', Ok(length)) => {
                    let end = next.saturating_add(length).saturating_add(2);
                    if end > MAX_REPLY - self.taken {
                        return Err(too_long());
                    }
                    if end > read.len() {
                        return self.more(read, at, end - read.len());
                    }
                    if &read[end - 2..end] != b"\r\n" {
                        return Err(foreign("a string without its end"));
                    }
                    let string = self.cut(read, next, length);
                    at = 2;
                    Reply::Bulk(string)
                }
                (b'*', Ok(count)) if count > 0 => {
                    at = next;
                    if self.open.len() == MAX_DEPTH {
                        return Err(foreign("arrays that lie too deep in each other"));
                    }
                    // Each takes three bytes at least.
                    self.open.push((Vec::with_capacity(count.min(read.len() / 3)), count));
                    continue;
                }
                (b'*', Ok(_)) => {
                    at = next;
                    Reply::Array(Vec::new())
                }
                (b'+' | b'-', _) => {
                    let line = self.cut(read, at + 1, next - at - 3);
                    at = 2;
                    if tag == b'+' { Reply::Simple(line) } else { Reply::Error(line) }
                }
                (b':', _) => {
                    at = next;
                    Reply::Int(number)
                }
                _ => {
                    at = next;
                    Reply::Nil
                }
            };
            if let Some(reply) = self.put(value) {
                read.advance(at);
                self.taken = 0;
                return Ok(Some(reply));
            }
        }
    }
}

impl Resp {
    /// An element is whole; the reply, if it is.
    fn put(&mut self, mut value: Reply) -> Option<Reply> {
        while let Some((items, left)) = self.open.last_mut() {
            items.push(value);
            *left -= 1;
            if *left > 0 {
                return None;
            }
            value = Reply::Array(self.open.pop()?.0);
        }
        Some(value)
    }

    /// So many bytes from there on. What lies before them is not needed any more.
    fn cut(&mut self, read: &mut BytesMut, from: usize, length: usize) -> Bytes {
        read.advance(from);
        self.taken += from + length;
        read.split_to(length).freeze()
    }

    /// What lies before `at` is not needed any more, and `missing` bytes are known to come.
    fn more(&mut self, read: &mut BytesMut, at: usize, missing: usize) -> io::Result<Option<Reply>> {
        read.advance(at);
        self.taken += at;
        if self.taken + read.len() > MAX_REPLY {
            return Err(too_long());
        }
        let missing = missing.clamp(LOW, CLAIM);
        if read.capacity() - read.len() < missing {
            // Else what is still to come would make this piece as long as the whole reply.
            let piece = if self.open.is_empty() { LOW } else { PIECE };
            read.reserve(missing.max(piece));
        }
        Ok(None)
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, TooLong)
}

fn foreign(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not Redis' protocol: {what}"))
}

/// The element that begins at `at`: its tag, its number where it has one, and where what follows the line begins.
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
    fn strings_lie_where_they_were_read_and_a_long_reply_in_many_pieces() {
        let mut read = BytesMut::from("*2\r\n$3\r\nabc\r\n$3\r\ndef\r\n");
        let reply = Resp::default().decode(&mut read).unwrap().unwrap();
        let at = |reply: &Reply, index: usize| reply.items()[index].bytes().unwrap().as_ptr() as usize;
        assert_eq!(at(&reply, 1) - at(&reply, 0), 9, "they are not copied");

        let mut sent = b"*4000\r\n".to_vec();
        (0..4000).for_each(|_| sent.extend([b"$1000\r\n", &[b'x'; 1000][..], b"\r\n"].concat()));
        let (mut resp, mut read, mut left) = (Resp::default(), BytesMut::new(), &sent[..]);
        let mut pieces = 0;
        let reply = loop {
            // As a connection reads: what there is room for.
            read.reserve(1);
            let (now, later) = left.split_at((read.capacity() - read.len()).min(left.len()));
            pieces += 1;
            read.extend_from_slice(now);
            left = later;
            assert!(read.capacity() <= 2 * PIECE, "{}", read.capacity());
            if let Some(reply) = resp.decode(&mut read).unwrap() {
                break reply;
            }
        };
        assert_eq!(reply.items().len(), 4000);
        assert!(pieces < 100, "{pieces} reads");
    }

    #[test]
    fn a_reply_that_is_too_long_is_told_as_that_and_before_it_is_there() {
        for sent in ["$9\r\n123456789\r\n", "$9\r\n", ":1\r\n:2\r\n:3\r\n"] {
            let mut resp = Resp { open: vec![(Vec::new(), 9)], taken: MAX_REPLY - 8 };
            let error = resp.decode(&mut BytesMut::from(sent)).unwrap_err();
            assert!(error.get_ref().unwrap().is::<TooLong>(), "{error}");
        }
    }
}
