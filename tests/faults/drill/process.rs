//! Signals to processes, and free ports for them.
//!
//! Not here: what the processes are (`stage.rs`, `redis/servers.rs`, `kafka/nodes.rs`).

use std::{net::TcpListener, process::Command};

/// Sends a process a signal, such as `STOP`.
pub(crate) fn signal(process: u32, name: &str) -> Result<(), String> {
    let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("could not send {name} to {process}: {other:?}")),
    }
}

/// A port that nobody has: one below those that connections are given, of which one may be taken before its server listens, or while it is down.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
