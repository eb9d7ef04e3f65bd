//! Kafka: requests written by hand, and openssl for what is behind TLS.

use super::{connect, same};
use libtest_mimic::{Failed, Trial};
use ropeway_tests::server::{Server, trial, unique};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
};

const METADATA: u16 = 3;
const API_VERSIONS: u16 = 18;
const CREATE_TOPICS: u16 = 19;
const DELETE_TOPICS: u16 = 20;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("kafka_makes_and_removes_a_topic", Server::Kafka, |url| makes_and_removes_a_topic(url, 1)),
        trial("kafka_on_three_nodes_keeps_three_copies", Server::Kafka3, |url| {
            makes_and_removes_a_topic(url.split(',').next().unwrap_or_default(), 3)
        }),
        trial("kafka_behind_tls_has_a_certificate_of_its_own_authority", Server::KafkaTls, |url| {
            same(shakes_hands(url, Server::KafkaTls, "ca.crt", false)?, true)?;
            same(shakes_hands(url, Server::KafkaTls, "other-ca.crt", false)?, false)
        }),
        trial("kafka_behind_tls_can_ask_for_a_certificate", Server::KafkaMtls, |url| {
            same(shakes_hands(url, Server::KafkaMtls, "ca.crt", true)?, true)?;
            same(shakes_hands(url, Server::KafkaMtls, "ca.crt", false)?, false)
        }),
    ]
}

/// Whether client and server agree, where the client trusts that authority.
fn shakes_hands(url: &str, server: Server, authority: &str, certificate: bool) -> Result<bool, Failed> {
    let mut client = Command::new("openssl");
    // Up to 1.2 the server looks at the client's certificate before the client takes the connection as made.
    client.args(["s_client", "-tls1_2", "-verify_return_error", "-CAfile", authority]);
    if certificate {
        client.args(["-cert", "client.crt", "-key", "client.key"]);
    }
    client.args(["-connect", url.split_once("://").map_or(url, |(_, address)| address)]);
    client.current_dir(server.certificates()?).stdin(Stdio::null());
    Ok(client.output()?.status.success())
}

fn makes_and_removes_a_topic(url: &str, copies: u8) -> Result<(), Failed> {
    let mut kafka = connect(url)?;
    let versions = ask(&mut kafka, API_VERSIONS, 0, &[])?;
    same(&versions[..2], [0, 0])?;
    let topic = unique("made");
    let name = [&(topic.len() as u16).to_be_bytes(), topic.as_bytes()].concat();
    let one = 1u32.to_be_bytes();
    // Four partitions, so many replicas, no assignments, no settings; 30 s; for real.
    let rest = [0, 0, 0, 4, 0, copies, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x75, 0x30, 0];
    let made = ask(&mut kafka, CREATE_TOPICS, 2, &[&one, &name[..], &rest].concat())?;
    // How long it was held up, one topic, its name, its error.
    same(&made[8 + name.len()..][..2], [0, 0])?;
    let described = described(&mut kafka, &name, copies)?;
    let at = described.windows(name.len()).position(|window| window == name).ok_or("it is not described")?;
    // Its error before the name; after it whether it is internal, and how many partitions there are.
    same(&described[at - 2..at], [0, 0])?;
    same(&described[at + name.len()..][..5], [0, 0, 0, 0, 4])?;
    let removed = ask(&mut kafka, DELETE_TOPICS, 1, &[&one, &name[..], &[0, 0, 0x75, 0x30]].concat())?;
    same(&removed[8 + name.len()..][..2], [0, 0])
}

/// What it says of a topic, when all of its nodes know that: each learns of it by itself.
fn described(kafka: &mut TcpStream, name: &[u8], copies: u8) -> Result<Vec<u8>, Failed> {
    // A list of so many nodes stands in it twice for each partition: those that have it, and those that keep up.
    let copies: Vec<u8> = [0, 0, 0, copies].into();
    for _ in 0..100 {
        let described = ask(kafka, METADATA, 2, &[&1u32.to_be_bytes(), name].concat())?;
        let lists = described.windows(4).filter(|window| *window == copies).count();
        if described.windows(name.len()).any(|window| window == name) && lists >= 8 {
            return Ok(described);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err("it is not described, or not with all its copies".into())
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
