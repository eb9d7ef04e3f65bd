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

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(super::failed)?;
    listener.local_addr().map(|address| address.port()).map_err(super::failed)
}
