//! The servers that `cargo xtask servers` brings up answer a client that is not ours.
//!
//! Each trial speaks the protocol of its server by hand. Not here: what Ropeway does with them.

use libtest_mimic::{Arguments, Failed, Trial};
use ropeway_tests::server::{Server, trial, unique};
use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

/// For how long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    libtest_mimic::run(&Arguments::from_args(), trials()).exit();
}

fn trials() -> Vec<Trial> {
    vec![
        trial("redis_answers_a_client_that_is_not_ours", Server::Redis, |url| {
            keeps_what_it_is_told(connect(url.trim_start_matches("redis://"))?)
        }),
        trial("redis_answers_on_its_socket", Server::RedisUnix, |url| {
            let socket = UnixStream::connect(url.trim_start_matches("unix://"))?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            keeps_what_it_is_told(socket)
        }),
    ]
}

fn connect(address: &str) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn keeps_what_it_is_told(stream: impl Read + Write) -> Result<(), Failed> {
    let name = unique("kept");
    let mut redis = BufReader::new(stream);
    let mut ask = |command: &str, lines: usize| -> Result<Vec<String>, Failed> {
        redis.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = vec![String::new(); lines];
        for line in &mut answer {
            redis.read_line(line)?;
        }
        Ok(answer.iter().map(|line| line.trim_end().to_owned()).collect())
    };
    same(&ask(&format!("SET {name} value"), 1)?, &["+OK"])?;
    same(&ask(&format!("GET {name}"), 2)?, &["$5", "value"])?;
    same(&ask(&format!("DEL {name}"), 1)?, &[":1"])?;
    // What the tests rely on: nothing acked is lost, and no key is evicted.
    for (setting, value) in
        [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")]
    {
        let answer = ask(&format!("CONFIG GET {setting}"), 5)?;
        same(&answer[4..], &[value])?;
    }
    Ok(())
}

fn same(found: &[String], expected: &[&str]) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("{found:?} is not {expected:?}").into()) }
}
