//! When a connection carries much: then the server is made to read more of it at once.
//!
//! Redis reads 16 KiB of a connection at a time, and each time it writes its append-only file and its answers: with 1 KiB a message that is 65 reads
//! and 120 writes for 1,000 messages, and a fifth of its work. A command with one long word (32 KiB or more) makes it keep a buffer of that length for
//! the connection, and fill it whenever it reads (`readQueryFromClient` and `processMultibulkBuffer` in Redis 7.0): 8 reads and 15 writes. It gives the buffer up by itself,
//! when nothing came for 2 s or when half of it was enough for a second. So such a command goes out when much was sent without a pause, once. It changes
//! nothing; what is answered to it is not looked at, and a server that reads in another way is none the worse for it. Pure. Not here: the connection (`writer.rs`).

use super::request::Request;
use std::time::Duration;
use tokio::time::Instant;

/// After how much it is worth its bytes.
const MUCH: usize = 4 << 20;
/// What counts as a pause: less than the server waits before it gives the buffer up.
const PAUSE: Duration = Duration::from_secs(1);
/// The length of the word. Twice as much saves little more, and fits no cache.
const LONG: usize = 128 * 1024;

/// What went over a connection since it paused.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    sent: usize,
    last: Option<Instant>,
}

impl Bulk {
    /// So many bytes go out now. Whether this is when the server is to be told.
    pub(super) fn carries(&mut self, bytes: usize, now: Instant) -> bool {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > PAUSE) {
            self.sent = 0;
        }
        self.last = Some(now);
        let before = self.sent;
        self.sent = before.saturating_add(bytes);
        before < MUCH && self.sent >= MUCH
    }
}

/// The command; it has one answer.
pub(super) fn widen() -> Request {
    let mut request = Request::with_room(LONG + 64);
    request.begin(3).word("SCRIPT").word("EXISTS").word(vec![b'0'; LONG]);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_told_once_when_much_was_sent_and_again_after_a_pause() {
        let mut now = Instant::now();
        let mut bulk = Bulk::default();
        let mut told = |bytes, after: u64| {
            now += Duration::from_millis(after);
            bulk.carries(bytes, now)
        };
        assert_eq!(
            [(); 8].map(|()| told(1 << 20, 900)),
            [false, false, false, true, false, false, false, false]
        );
        // What is sent with pauses never adds up.
        assert_eq!([(); 8].map(|()| told(1 << 20, 1100)), [false; 8]);
        assert_eq!([told(3 << 20, 0), told(usize::MAX, 0)], [true, false]);
        assert!(told(4 << 20, 5000));
    }

    #[test]
    fn the_command_is_one_with_a_word_as_long_as_redis_keeps_a_buffer_for() {
        let request = widen();
        assert_eq!(request.commands(), 1);
        assert!(request.into_bytes().starts_with(b"*3\r\n$6\r\nSCRIPT\r\n$6\r\nEXISTS\r\n$131072\r\n000"));
        const { assert!(LONG >= 32 * 1024) };
    }
}
