//! Pulsar: its administration, and its protocol as far as the greeting.

use super::{connect, same};
use libtest_mimic::{Failed, Trial};
use ropeway_tests::server::{Server, trial, unique};
use std::io::{Read as _, Write as _};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("pulsar_greets_a_client", Server::Pulsar, greets_a_client),
        trial("pulsar_makes_and_removes_a_topic", Server::PulsarAdmin, makes_and_removes_a_topic),
    ]
}

/// A frame is its length, the length of its command, and the command.
fn greets_a_client(url: &str) -> Result<(), Failed> {
    let mut pulsar = connect(url)?;
    // The command is of type 2, connect, and holds the name of the client and the version of the protocol, 21.
    let command = [8, 2, 18, 5, 10, 1, b't', 32, 21];
    pulsar.write_all(&[0, 0, 0, command.len() as u8 + 4, 0, 0, 0, command.len() as u8])?;
    pulsar.write_all(&command)?;
    let mut answer = [0; 10];
    pulsar.read_exact(&mut answer)?;
    // Type 3: connected.
    same(&answer[8..], [8, 3])
}

fn makes_and_removes_a_topic(url: &str) -> Result<(), Failed> {
    let topic = unique("made");
    let path = format!("/admin/v2/persistent/public/default/{topic}/partitions");
    same(ask(url, "PUT", &path, "4")?.0, 204)?;
    same(ask(url, "GET", &path, "")?.1.contains("\"partitions\":4"), true)?;
    same(ask(url, "DELETE", &path, "")?.0, 204)?;
    same(ask(url, "GET", &path, "")?.1.contains("\"partitions\":4"), false)
}

/// Status and the rest of an answer.
fn ask(url: &str, verb: &str, path: &str, body: &str) -> Result<(u16, String), Failed> {
    let mut admin = connect(url)?;
    let length = body.len();
    write!(
        admin,
        "{verb} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    admin.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| format!("it is not HTTP what answers: {answer:?}"))?, answer))
}
