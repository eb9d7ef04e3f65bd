//! The faults of one server, one after another.
//!
//! Not here: a replica that is promoted (`failover.rs`), faults of members and of the ways to the server (`../site.rs`).

use super::{LEASE, servers::Server};
use crate::drill::site::{Fault, HOLD, Site};
use std::time::Duration;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Common(Fault),
    ServerKilled,
    ServerKilledEverySecond,
    ServerStopped,
    ConnectionsKilled,
    MemoryFull,
    ScriptsFlushed,
}

/// All of them, each once.
const ALL: [Kind; 15] = [
    Kind::Common(Fault::MemberKilled),
    Kind::ServerKilled,
    Kind::Common(Fault::Vanished),
    Kind::ScriptsFlushed,
    Kind::Common(Fault::Cut),
    Kind::Common(Fault::OneSideCut),
    Kind::MemoryFull,
    Kind::Common(Fault::AnswersLost),
    Kind::Common(Fault::MemberStopped),
    Kind::ServerKilledEverySecond,
    Kind::Common(Fault::Slow),
    Kind::Common(Fault::HeldBack),
    Kind::ConnectionsKilled,
    Kind::Common(Fault::Throttled),
    Kind::ServerStopped,
];

/// Has all of them happen to a server.
pub(super) fn suffer_all(site: &mut Site<'_>, server: &mut Server) -> Result<(), String> {
    ALL.iter().try_for_each(|kind| site.suffer(kind, |site| act(site, server, *kind)))
}

fn act(site: &mut Site<'_>, server: &mut Server, kind: Kind) -> Result<(), String> {
    match kind {
        Kind::Common(fault) => site.act(fault),
        Kind::ServerKilled => {
            kill_server(site, server, ("always", false), "server killed, appendfsync always")
        }
        Kind::ServerKilledEverySecond => {
            kill_server(site, server, ("everysec", false), "server killed, then everysec")?;
            site.stage.pass(HOLD)?;
            site.stage.note("fault again");
            // Redis may answer before it writes.
            kill_server(site, server, ("always", true), "server killed, appendfsync everysec")
        }
        Kind::ServerStopped => {
            site.stop_server(|name| server.signal(name), HOLD, "server stopped (SIGSTOP 1.5 s)")
        }
        Kind::ConnectionsKilled => {
            server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
            site.healed("all connections killed")
        }
        Kind::MemoryFull => fill_memory(site, server),
        Kind::ScriptsFlushed => {
            server.ask(&["SCRIPT", "FLUSH", "SYNC"])?;
            site.healed("script cache flushed")
        }
    }
}

/// kill -9, and a start on the same data with that `appendfsync`; whether the last that was acked may be lost.
fn kill_server(
    site: &mut Site<'_>,
    server: &mut Server,
    (sync, is_undone): (&str, bool),
    name: &'static str,
) -> Result<(), String> {
    server.kill();
    site.stage.pass(Duration::from_millis(300))?;
    if is_undone {
        // Not before: members write down a moment later what was confirmed just before the kill.
        site.stage.note("undone");
    }
    server.up(&["--appendfsync", sync])?;
    site.healed(name)
}

/// The memory limit is reached: publishes are refused, members go on with what there is.
fn fill_memory(site: &mut Site<'_>, server: &Server) -> Result<(), String> {
    let used = server.info("memory", "used_memory")?;
    let refused = site.stage.counts().refused;
    server.ask(&["CONFIG", "SET", "maxmemory", &(used + 64 * 1024).to_string()])?;
    site.stage.pass(LEASE + HOLD)?;
    let told = site.stage.counts().refused - refused;
    server.ask(&["CONFIG", "SET", "maxmemory", "0"])?;
    if told == 0 {
        return Err("the memory limit was not reached".into());
    }
    site.healed("memory limit reached and lifted")
}
