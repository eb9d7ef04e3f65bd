//! The container engine of this machine, asked over its socket: is there one, and is a container gone.
//!
//! Where it is: `DOCKER_HOST`, or the usual socket. One that is reached through TLS is not looked for. Not here: starting containers, which
//! testcontainers does (`tests/containers/src/main.rs`). A file of that package too, so its tests are in `engine_tests.rs`.

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

/// For how long the engine may take to answer; removing a container waits until it has ended.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No answer to what is asked here is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// On a socket of this machine.
    Socket(PathBuf),
    /// On a host and port.
    Address(String),
}

impl Engine {
    /// The engine that answers here.
    ///
    /// # Errors
    /// There is none, as `no container engine`, with where it was looked for.
    pub(crate) fn find() -> Result<Self, String> {
        let engine = Self::named(env::var("DOCKER_HOST").ok().as_deref());
        let engine = engine.ok_or("no container engine: DOCKER_HOST is neither unix:// nor tcp://")?;
        match engine.ask("GET", "/_ping") {
            Ok(200) => Ok(engine),
            Ok(status) => Err(format!("no container engine: {engine:?} answers with {status}")),
            Err(error) => Err(format!("no container engine: {engine:?}: {error}")),
        }
    }

    pub(super) fn named(host: Option<&str>) -> Option<Self> {
        match host
            .filter(|host| !host.is_empty())
            .unwrap_or("unix:///var/run/docker.sock")
            .split_once("://")?
        {
            ("unix", path) => Some(Self::Socket(path.into())),
            ("tcp", address) => Some(Self::Address(address.to_owned())),
            _ => None,
        }
    }

    /// Ends and removes a container, if there is one of that name.
    pub(crate) fn remove(&self, container: &str) -> Result<(), String> {
        match self.ask("DELETE", &format!("/containers/{container}?force=true&v=true")) {
            Ok(200..300 | 404) => Ok(()),
            Ok(status) => Err(format!("the container {container} cannot be removed: {status}")),
            Err(error) => Err(format!("the container {container} cannot be removed: {error}")),
        }
    }

    /// The status of the answer.
    pub(super) fn ask(&self, verb: &str, path: &str) -> io::Result<u16> {
        match self {
            Self::Socket(socket) => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                talk(stream, verb, path)
            }
            Self::Address(address) => {
                let stream = TcpStream::connect(address.as_str())?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                talk(stream, verb, path)
            }
        }
    }
}

fn talk(mut stream: impl Read + Write, verb: &str, path: &str) -> io::Result<u16> {
    // In one piece: who answers before all of it was read may cut the connection.
    stream.write_all(format!("{verb} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not HTTP what answers"))
}
