//! Kafka: requests written by hand.

use super::{connect, same};
use libtest_mimic::{Failed, Trial};
use ropeway_tests::server::{Server, trial, unique};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

const METADATA: u16 = 3;
const API_VERSIONS: u16 = 18;
const CREATE_TOPICS: u16 = 19;
const DELETE_TOPICS: u16 = 20;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("kafka_makes_and_removes_a_topic", Server::Kafka, makes_and_removes_a_topic)]
}

fn makes_and_removes_a_topic(url: &str) -> Result<(), Failed> {
    let mut kafka = connect(url)?;
    let versions = ask(&mut kafka, API_VERSIONS, 0, &[])?;
    same(&versions[..2], [0, 0])?;
    let topic = unique("made");
    let name = [&(topic.len() as u16).to_be_bytes(), topic.as_bytes()].concat();
    let one = 1u32.to_be_bytes();
    // Four partitions, one replica, no assignments, no settings; 30 s; for real.
    let rest = [0, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x75, 0x30, 0];
    let made = ask(&mut kafka, CREATE_TOPICS, 2, &[&one, &name[..], &rest].concat())?;
    // How long it was held up, one topic, its name, its error.
    same(&made[8 + name.len()..][..2], [0, 0])?;
    let described = ask(&mut kafka, METADATA, 2, &[&one, &name[..]].concat())?;
    let at = described.windows(name.len()).position(|window| window == name).ok_or("it is not described")?;
    // Its error before the name; after it whether it is internal, and how many partitions there are.
    same(&described[at - 2..at], [0, 0])?;
    same(&described[at + name.len()..][..5], [0, 0, 0, 0, 4])?;
    let removed = ask(&mut kafka, DELETE_TOPICS, 1, &[&one, &name[..], &[0, 0, 0x75, 0x30]].concat())?;
    same(&removed[8 + name.len()..][..2], [0, 0])
}

/// Sends a request and returns the body of its answer.
fn ask(kafka: &mut TcpStream, key: u16, version: u16, body: &[u8]) -> Result<Vec<u8>, Failed> {
    // Key and version, a number that comes back, the name of the client.
    let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 7, 0, 1, b't']].concat();
    kafka.write_all(&((head.len() + body.len()) as u32).to_be_bytes())?;
    kafka.write_all(&[&head, body].concat())?;
    let mut length = [0; 4];
    kafka.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize];
    kafka.read_exact(&mut answer)?;
    same(&answer[..4], [0, 0, 0, 7])?;
    Ok(answer.split_off(4))
}
