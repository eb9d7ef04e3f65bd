//! Commands as bytes: what is sent to Redis, many at once.
//!
//! Not here: the connection they go over (`lane.rs`, `feed.rs`), what comes back (`ropeway_store::redis`).

use super::{layout, scripts::Script};
use crate::Message;

/// Commands that are sent together. Each has one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    bytes: Vec<u8>,
    commands: usize,
}

impl Request {
    /// One that will have about so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), commands: 0 }
    }

    /// Begins a command of that many words; exactly so many must follow by [`Self::word`].
    pub(super) fn begin(&mut self, words: usize) -> &mut Self {
        self.commands += 1;
        self.head(b'*', words);
        self
    }

    /// The next word of the command.
    pub(super) fn word(&mut self, word: impl AsRef<[u8]>) -> &mut Self {
        let word = word.as_ref();
        self.head(b'$', word.len());
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// A whole command.
    pub(super) fn command<W: AsRef<[u8]>>(&mut self, words: &[W]) -> &mut Self {
        self.begin(words.len());
        words.iter().for_each(|word| _ = self.word(word));
        self
    }

    /// Appends a message to a log that must exist.
    pub(super) fn add(&mut self, log: &str, message: &Message) {
        self.begin(4 + layout::field_count(message)).word("XADD").word(log).word("NOMKSTREAM").word("*");
        layout::fields(message, |word| _ = self.word(word));
    }

    /// A call of a script by its hash.
    pub(super) fn script<K: AsRef<[u8]>, A: AsRef<[u8]>>(&mut self, script: &Script, keys: &[K], args: &[A]) {
        self.call(script, keys, args.len());
        args.iter().for_each(|arg| _ = self.word(arg));
    }

    /// Begins a call of a script; exactly so many arguments must follow by [`Self::word`].
    pub(super) fn call<K: AsRef<[u8]>>(&mut self, script: &Script, keys: &[K], args: usize) -> &mut Self {
        self.evaluate("EVALSHA", script.hash(), keys, args)
    }

    /// The same by its text, for a server that may have forgotten it.
    pub(super) fn call_in_full<K: AsRef<[u8]>>(
        &mut self,
        script: &Script,
        keys: &[K],
        args: usize,
    ) -> &mut Self {
        self.evaluate("EVAL", script.text, keys, args)
    }

    fn evaluate<K: AsRef<[u8]>>(&mut self, verb: &str, script: &str, keys: &[K], args: usize) -> &mut Self {
        self.begin(3 + keys.len() + args).word(verb).word(script).word(keys.len().to_string());
        keys.iter().for_each(|key| _ = self.word(key));
        self
    }

    /// How many answers will come.
    pub(super) const fn commands(&self) -> usize {
        self.commands
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Its commands as bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a whole command as bytes.
    pub(super) fn packed(&mut self, command: &[u8]) {
        self.bytes.extend_from_slice(command);
        self.commands += 1;
    }

    /// Adds what another one has, behind.
    pub(super) fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.commands += other.commands;
    }

    /// A sign, a number and the end of the line.
    fn head(&mut self, sign: u8, number: usize) {
        let mut line = [b'\n'; 24];
        line[22] = b'\r';
        let (mut at, mut left) = (22, number);
        loop {
            at -= 1;
            line[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        line[at - 1] = sign;
        self.bytes.extend_from_slice(&line[at - 1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_redis_reads_them() {
        let mut request = Request::default();
        request.command(&["GET", "a"]);
        request.add("log", &Message::builder().payload("hello").build());
        assert_eq!(request.commands(), 2);
        let bytes = request.into_bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.starts_with("*2\r\n$3\r\nGET\r\n$1\r\na\r\n*10\r\n$4\r\nXADD\r\n$3\r\nlog\r\n"),
            "{text}"
        );
        assert!(text.ends_with("$7\r\npayload\r\n$5\r\nhello\r\n"), "{text}");
    }

    #[test]
    fn lengths_are_written_with_all_their_digits() {
        for number in [0, 9, 10, 123, usize::MAX] {
            let mut request = Request::default();
            request.head(b'$', number);
            assert_eq!(request.into_bytes(), format!("${number}\r\n").into_bytes());
        }
    }
}
