//! Just enough of HTTP to ask Pulsar whether it is ready.
//!
//! Not here: what it is asked (`mod.rs` beside this).

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// For how long it may take to answer: its check of health writes and reads a message.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No answer to what is asked here is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// The body of what is found at `path` on a port of loopback.
pub(super) fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // The older version, since its answers come in one piece and end with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    body(&answer).map(str::to_owned).map_err(io::Error::other)
}

fn body(answer: &str) -> Result<&str, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("it is not HTTP what answers")?;
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(body) } else { Err(format!("{status}: {}", body.trim())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_found_is_returned() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\nok"), Ok("ok"));
        assert!(body("HTTP/1.1 503 Unavailable\r\n\r\nno").unwrap_err().contains("503"));
        assert!(body("-ERR unknown command\r\n").is_err());
    }
}
