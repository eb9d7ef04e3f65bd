//! The servers that `cargo xtask servers` brings up answer clients that are not ours.
//!
//! Each trial speaks the protocol of its server by hand, or asks with a program that comes with it. `redis.rs`, `kafka.rs`, `pulsar.rs`: one
//! server each. Not here: what Ropeway does with them.

mod kafka;
mod pulsar;
mod redis;

use libtest_mimic::{Arguments, Failed};
use std::{fmt::Debug, net::TcpStream, time::Duration};

/// For how long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    let trials = [redis::trials(), kafka::trials(), pulsar::trials()];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit();
}

/// Connects to the host and port of a URL.
fn connect(url: &str) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect(url.split_once("://").map_or(url, |(_, address)| address))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn same<T: Debug + PartialEq<U>, U: Debug>(found: T, expected: U) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("{found:?} is not {expected:?}").into()) }
}
