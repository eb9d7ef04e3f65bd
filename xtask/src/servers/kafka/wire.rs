//! Just enough of the protocol of Kafka to ask whether a broker is ready.
//!
//! Not here: starting it (`mod.rs` beside this).

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// For how long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// No answer to what is asked here is longer, in bytes.
const LONGEST: usize = 1 << 20;

/// Which versions of which requests it takes: every client begins with that.
const API_VERSIONS: u16 = 18;
const METADATA: u16 = 3;
const SASL_HANDSHAKE: u16 = 17;
const SASL_AUTHENTICATE: u16 = 36;

/// What a node says of its cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) name: String,
    /// How many brokers it knows that work.
    pub(super) brokers: usize,
}

/// Connects to a port on loopback.
pub(super) fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// The cluster that answers, when it has a broker and a controller.
pub(super) fn cluster(stream: &mut (impl Read + Write)) -> io::Result<Cluster> {
    let versions = ask(stream, API_VERSIONS, 0, &[])?;
    if versions.get(..2) != Some(&[0, 0]) {
        return Err(strange("it refuses to say which versions it has"));
    }
    // Of no topic.
    let metadata = ask(stream, METADATA, 2, &0u32.to_be_bytes())?;
    cluster_in(&metadata).ok_or_else(|| strange("it knows no broker or no controller yet"))
}

/// Says who asks, by user and password as they are (PLAIN).
pub(super) fn authenticate(stream: &mut (impl Read + Write), user: &str, password: &str) -> io::Result<()> {
    let mechanism = [&5u16.to_be_bytes()[..], b"PLAIN"].concat();
    if ask(stream, SASL_HANDSHAKE, 1, &mechanism)?.get(..2) != Some(&[0, 0]) {
        return Err(strange("it does not take PLAIN"));
    }
    let secret = format!("\0{user}\0{password}");
    let secret = [&(secret.len() as u32).to_be_bytes()[..], secret.as_bytes()].concat();
    match ask(stream, SASL_AUTHENTICATE, 0, &secret)?.get(..2) {
        Some([0, 0]) => Ok(()),
        _ => Err(strange("it does not take the password")),
    }
}

/// Sends a request and returns the body of its answer.
fn ask(stream: &mut (impl Read + Write), key: u16, version: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    const CORRELATION: [u8; 4] = [0, 0, 0, 7];
    const CLIENT: &[u8] = b"ropeway";
    let mut request = [key.to_be_bytes(), version.to_be_bytes()].concat();
    request.extend(CORRELATION);
    request.extend((CLIENT.len() as u16).to_be_bytes());
    request.extend(CLIENT);
    request.extend(body);
    stream.write_all(&(request.len() as u32).to_be_bytes())?;
    stream.write_all(&request)?;
    stream.flush()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=LONGEST).contains(&length) {
        return Err(strange("its answer has no possible length"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let body = answer.split_off(4);
    if answer == CORRELATION { Ok(body) } else { Err(strange("it answers another request")) }
}

/// The cluster in an answer to a request for metadata, version 2.
fn cluster_in(mut answer: &[u8]) -> Option<Cluster> {
    let brokers = number(&mut answer)?;
    for _ in 0..brokers {
        number(&mut answer)?; // its number
        text(&mut answer)?; // host
        number(&mut answer)?; // port
        text(&mut answer)?; // rack
    }
    let name = text(&mut answer)??;
    let controller = number(&mut answer)?;
    (brokers > 0 && controller >= 0).then_some(Cluster { name, brokers: brokers as usize })
}

fn number(from: &mut &[u8]) -> Option<i32> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(i32::from_be_bytes(*bytes))
}

/// A text that may be null.
fn text(from: &mut &[u8]) -> Option<Option<String>> {
    let (length, rest) = from.split_first_chunk()?;
    *from = rest;
    let Ok(length) = usize::try_from(i16::from_be_bytes(*length)) else { return Some(None) };
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(Some(String::from_utf8_lossy(bytes).into_owned()))
}

fn strange(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(brokers: i32, controller: i32) -> Vec<u8> {
        let mut bytes = brokers.to_be_bytes().to_vec();
        for _ in 0..brokers {
            bytes.extend([0, 0, 0, 1, 0, 1, b'h', 0, 0, 0x23, 0x84, 0xff, 0xff]);
        }
        bytes.extend([0, 2, b'i', b'd']);
        bytes.extend(controller.to_be_bytes());
        bytes
    }

    #[test]
    fn a_cluster_is_ready_with_a_broker_and_a_controller() {
        assert_eq!(cluster_in(&answer(2, 1)), Some(Cluster { name: "id".into(), brokers: 2 }));
        assert_eq!(cluster_in(&answer(0, 1)), None);
        assert_eq!(cluster_in(&answer(1, -1)), None);
    }

    #[test]
    fn an_answer_that_is_cut_is_none() {
        let whole = answer(2, 1);
        for length in 0..whole.len() {
            assert_eq!(cluster_in(&whole[..length]), None);
        }
    }
}
