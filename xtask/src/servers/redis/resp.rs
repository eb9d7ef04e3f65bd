//! Just enough of the protocol of Redis to ask whether a server is ready.
//!
//! Not here: what is asked (`mod.rs` beside this).

use std::{
    io::{self, BufRead, BufReader, Read, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// For how long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// No answer to what is asked here is longer, in bytes.
const LONGEST: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects to a port on loopback.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a command and returns the answer as text; those of several parts one a line. An answer that is an error is one here.
    pub(crate) fn ask(&mut self, command: &[&str]) -> io::Result<String> {
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        answer(&mut self.0, 0)
    }
}

fn answer(from: &mut impl BufRead, depth: u32) -> io::Result<String> {
    let mut line = String::new();
    from.take(LONGEST as u64).read_line(&mut line)?;
    let line = line.trim_end_matches(['\r', '\n']);
    let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
    let length = || rest.parse::<i64>().ok().filter(|length| *length <= LONGEST as i64).ok_or_else(strange);
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Err(io::Error::other(rest.to_owned())),
        "$" => {
            let Ok(length) = usize::try_from(length()?) else { return Ok(String::new()) };
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" if depth < 8 => {
            let parts = (0..length()?).map(|_| answer(from, depth + 1)).collect::<io::Result<Vec<_>>>()?;
            Ok(parts.join("\n"))
        }
        _ => Err(strange()),
    }
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not one of Redis")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<String> {
        answer(&mut text.as_bytes(), 0)
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(read("+PONG\r\n").unwrap(), "PONG");
        assert_eq!(read("*2\r\n$2\r\nab\r\n*1\r\n:7\r\n").unwrap(), "ab\n7");
        assert_eq!(read("$-1\r\n").unwrap(), "");
        assert_eq!(read("-NOAUTH who\r\n").unwrap_err().to_string(), "NOAUTH who");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in ["", "HTTP/1.1 400\r\n", "$999999999\r\n", "$5\r\nab", "*1\r\n", "$x\r\n"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
