//! One process of Redis: its configuration, its start, and what it is asked until it is ready.
//!
//! Not here: what several make together (`mod.rs` beside this).

use super::{resp::Connection, tls};
use crate::servers::{
    port,
    process::Process,
    ready::{on_free_ports, until},
    tool::REDIS_SERVER,
    trouble::{Trouble, broken},
    way::{Ground, Way},
};
use std::{fs, process::Command, time::Duration};

/// The oldest Redis that Ropeway knows.
const OLDEST: (u32, u32) = (7, 0);
/// For how long a node may take to be ready, also on a busy machine.
pub(super) const READY: Duration = Duration::from_secs(20);

/// Nothing acked is lost with a power cut, no snapshots, and no key is ever evicted.
const DURABLE: &str = "save \"\"\nappendonly yes\nappendfsync always\nmaxmemory-policy noeviction\n";

/// A node that is ready.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) process: Process,
    pub(super) port: u16,
}

impl Node {
    /// Starts a node that keeps what it is told, and returns when it has answered a write and a read, or, where it takes none, a question.
    pub(super) fn start(ground: &Ground<'_>, role: &str, settings: &str) -> Result<Self, Trouble> {
        let writes = !settings.contains("replicaof") && !settings.contains("cluster-enabled");
        Self::on_a_free_port(
            ground,
            role,
            |port| format!("port {port}\n{DURABLE}{settings}"),
            &[],
            |port, configuration| {
                is_it(port, configuration)?;
                if writes { write_and_read(port) } else { Ok(()) }
            },
        )
    }

    /// Starts a node that answers on TLS alone, to those who know the password, and with `clients` = `yes` have a certificate.
    pub(super) fn start_behind_tls(
        ground: &Ground<'_>,
        role: &str,
        clients: &str,
        password: &str,
    ) -> Result<Self, Trouble> {
        let certificates = tls::settings(ground.folder);
        let settings = |port| {
            format!(
                "port 0\ntls-port {port}\ntls-auth-clients {clients}\nrequirepass {password}\n{DURABLE}{certificates}"
            )
        };
        Self::on_a_free_port(ground, role, settings, &[], |port, _| tls::ping(ground.folder, port, password))
    }

    /// Starts a sentinel.
    pub(super) fn start_sentinel(ground: &Ground<'_>, role: &str, settings: &str) -> Result<Self, Trouble> {
        let settings = |port| format!("port {port}\n{settings}");
        Self::on_a_free_port(ground, role, settings, &["--sentinel"], is_it)
    }

    fn on_a_free_port(
        ground: &Ground<'_>,
        role: &str,
        settings: impl Fn(u16) -> String,
        arguments: &[&str],
        ready: impl Fn(u16, &str) -> Result<(), String>,
    ) -> Result<Self, Trouble> {
        let program = match ground.way {
            Way::Packages => REDIS_SERVER.find()?.display().to_string(),
            Way::Containers(..) => REDIS_SERVER.program.to_owned(),
        };
        let data = ground.folder.join(role);
        fs::create_dir_all(&data).map_err(broken)?;
        on_free_ports(ground.folder, &[role], || {
            let [port] = port::free().map_err(broken)?;
            let configuration = ground.folder.join(format!("{role}.conf"));
            let text = format!(
                "bind 127.0.0.1\ndaemonize no\nlogfile \"\"\ndir \"{}\"\n{}",
                data.display(),
                settings(port)
            );
            fs::write(&configuration, text).map_err(broken)?;
            let configuration = configuration.display().to_string();
            let command = [&[program.as_str(), &configuration], arguments]
                .concat()
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>();
            let process = ground.start(role, &command)?;
            until("it answers", &process, READY, || ready(port, &configuration))?;
            Ok(Self { process, port })
        })
    }
}

/// Asks a node once.
pub(super) fn ask(port: u16, command: &[&str]) -> Result<String, String> {
    Connection::open(port).and_then(|mut node| node.ask(command)).map_err(|error| error.to_string())
}

/// Asks whether it is there.
pub(super) fn ping(port: u16) -> Result<(), String> {
    match ask(port, &["PING"])?.as_str() {
        "PONG" => Ok(()),
        other => Err(format!("it answers PING with {other:?}")),
    }
}

/// Whether the node with that configuration answers on that port, and not another that took it.
fn is_it(port: u16, configuration: &str) -> Result<(), String> {
    let says = ask(port, &["INFO", "server"])?;
    let is = says.lines().any(|line| line.trim() == format!("config_file:{configuration}"));
    if is { Ok(()) } else { Err(format!("another process answers on port {port}")) }
}

fn write_and_read(port: u16) -> Result<(), String> {
    ask(port, &["SET", "ropeway:ready", "yes"])?;
    let read = ask(port, &["GET", "ropeway:ready"])?;
    ask(port, &["DEL", "ropeway:ready"])?;
    if read == "yes" { Ok(()) } else { Err(format!("what was written is read as {read:?}")) }
}

/// The version of the program, as in `7.0.15`.
pub(super) fn version() -> Result<String, Trouble> {
    let output = Command::new(REDIS_SERVER.find()?).arg("--version").output().map_err(broken)?;
    let says = String::from_utf8_lossy(&output.stdout);
    let version = says.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.ok_or_else(|| broken(format!("redis-server --version says {says:?}")))?.to_owned())
}

/// Refuses what is too old.
pub(super) fn check_version() -> Result<(), Trouble> {
    let version = version()?;
    if is_known(&version) {
        return Ok(());
    }
    let (major, minor) = OLDEST;
    Err(Trouble::Missing(format!(
        "redis-server is {version}, and {major}.{minor} is the oldest that is used"
    )))
}

fn is_known(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_is_refused() {
        assert!(is_known("7.0.15") && is_known("8.2") && is_known("10.0.0"));
        assert!(!is_known("6.2.14") && !is_known("") && !is_known("x.9"));
    }
}
