//! Redis: alone, on its socket, behind TLS, with a replica, as a cluster.

use super::{TIMEOUT, connect, same};
use libtest_mimic::{Failed, Trial};
use ropeway_tests::server::{Server, trial, unique};
use std::{
    io::{BufRead as _, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::Command,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("redis_keeps_what_it_is_told", Server::Redis, |url| keeps_what_it_is_told(connect(url)?)),
        trial("redis_answers_on_its_socket", Server::RedisUnix, |url| {
            let socket = UnixStream::connect(url.trim_start_matches("unix://"))?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            keeps_what_it_is_told(socket)
        }),
        trial("redis_behind_tls_asks_for_a_password", Server::RedisTls, |url| {
            same(through_tls(url, true, true)?, "PONG")?;
            same(through_tls(url, true, false)?, "PONG")?;
            same(through_tls(url, false, true)?.contains("NOAUTH"), true)
        }),
        trial("redis_behind_tls_can_ask_for_a_certificate", Server::RedisMtls, |url| {
            same(through_tls(url, true, true)?, "PONG")?;
            same(through_tls(url, true, false)?.contains("PONG"), false)
        }),
        trial("a_sentinel_names_a_primary_that_takes_writes", Server::RedisReplica, |url| {
            let (address, name) = url.rsplit_once('/').ok_or("the URL names no primary")?;
            let command = format!("SENTINEL get-master-addr-by-name {name}");
            let answer = ask(&mut BufReader::new(connect(address)?), &command, 5)?;
            let mut primary = BufReader::new(connect(&format!("{}:{}", answer[2], answer[4]))?);
            same(ask(&mut primary, &format!("SET {} 1", unique("written")), 1)?, ["+OK"])
        }),
        trial("a_replica_takes_no_writes", Server::RedisReadOnly, |url| {
            let mut replica = BufReader::new(connect(url)?);
            let answer = ask(&mut replica, &format!("SET {} 1", unique("refused")), 1)?;
            same(answer[0].starts_with("-READONLY"), true)
        }),
        trial("a_cluster_has_all_slots_on_three_nodes", Server::RedisCluster, |url| {
            let hosts = url.split_once("://").map_or(url, |(_, hosts)| hosts);
            let mut moved = 0;
            for host in hosts.split(',') {
                // The slots of these lie on the first, the second and the third node.
                for key in ["c", "b", "a"] {
                    let answer = ask(&mut BufReader::new(connect(host)?), &format!("EXISTS {key}"), 1)?;
                    moved += usize::from(answer[0].starts_with("-MOVED"));
                    same(answer[0].starts_with("-MOVED") || answer[0] == ":0", true)?;
                }
            }
            same(moved, 6)
        }),
    ]
}

fn keeps_what_it_is_told(stream: impl Read + Write) -> Result<(), Failed> {
    let name = unique("kept");
    let mut redis = BufReader::new(stream);
    same(ask(&mut redis, &format!("SET {name} value"), 1)?, ["+OK"])?;
    same(ask(&mut redis, &format!("GET {name}"), 2)?, ["$5", "value"])?;
    same(ask(&mut redis, &format!("DEL {name}"), 1)?, [":1"])?;
    // What the tests rely on: nothing acked is lost, and no key is evicted.
    for (setting, value) in
        [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")]
    {
        same(&ask(&mut redis, &format!("CONFIG GET {setting}"), 5)?[4], value)?;
    }
    Ok(())
}

/// Sends a command and reads so many lines.
fn ask<S: Read + Write>(
    redis: &mut BufReader<S>,
    command: &str,
    lines: usize,
) -> Result<Vec<String>, Failed> {
    redis.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    for _ in 0..lines {
        let mut line = String::new();
        redis.read_line(&mut line)?;
        answer.push(line.trim_end().to_owned());
        // An error is one line, however many were expected.
        if answer[0].starts_with('-') && lines > 1 {
            return Err(format!("{command}: {}", answer[0]).into());
        }
    }
    Ok(answer)
}

/// What redis-cli prints for a ping, on both of its outputs.
fn through_tls(url: &str, password: bool, certificate: bool) -> Result<String, Failed> {
    let (secret, address) =
        url.trim_start_matches("rediss://:").split_once('@').ok_or("the URL has no password")?;
    let (host, port) = address.split_once(':').ok_or("the URL has no port")?;
    let mut client = Command::new("redis-cli");
    client
        .current_dir(Server::RedisTls.certificates()?)
        .args(["--tls", "--cacert", "ca.crt", "-h", host, "-p", port]);
    if certificate {
        client.args(["--cert", "client.crt", "--key", "client.key"]);
    }
    if password {
        client.args(["--no-auth-warning", "-a", secret]);
    }
    let output = client.arg("PING").output()?;
    let says = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&says).trim().to_owned())
}
