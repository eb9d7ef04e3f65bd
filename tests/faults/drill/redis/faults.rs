//! The faults of one server and of the ways to it, one after another.
//!
//! Not here: a replica that is promoted (`failover.rs`), the processes (`stage.rs`).

use super::{LEASE, servers::Server};
use crate::drill::{
    proxy::{Mode, Proxy},
    stage::Stage,
};
use std::time::Duration;

/// How long a fault lasts that is no moment.
const HOLD: Duration = Duration::from_millis(1500);
/// What is published after a fault is handled within that on a machine that has much else to do; nobody waits for a lease.
const SOON: Duration = Duration::from_secs(30);
/// The same where what a member owned is taken over: its lease, and what follows.
const TAKEN_OVER: Duration = Duration::from_secs(40);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MemberKilled,
    MemberStopped,
    ServerKilled,
    ServerKilledEverySecond,
    ServerStopped,
    ConnectionsKilled,
    Cut,
    OneSideCut,
    AnswersLost,
    HeldBack,
    Vanished,
    Slow,
    Throttled,
    MemoryFull,
    ScriptsFlushed,
}

/// All of them, each once.
pub(crate) const ALL: [Kind; 15] = [
    Kind::MemberKilled,
    Kind::ServerKilled,
    Kind::Vanished,
    Kind::ScriptsFlushed,
    Kind::Cut,
    Kind::OneSideCut,
    Kind::MemoryFull,
    Kind::AnswersLost,
    Kind::MemberStopped,
    Kind::ServerKilledEverySecond,
    Kind::Slow,
    Kind::HeldBack,
    Kind::ConnectionsKilled,
    Kind::Throttled,
    Kind::ServerStopped,
];

/// A server, and two ways to it.
pub(crate) struct Site<'a> {
    pub(crate) server: &'a mut Server,
    pub(crate) ways: &'a [Proxy],
    pub(crate) stage: &'a mut Stage,
}

impl Site<'_> {
    /// Does it, and waits until it is over and everything works again.
    pub(crate) fn suffer(&mut self, kind: Kind) -> Result<(), String> {
        self.stage.note(&format!("fault {kind:?}"));
        let done = self.act(kind);
        self.stage.note("recovered");
        self.ways.iter().for_each(|way| way.set(Mode::Pass));
        done.map_err(|why| format!("{kind:?}: {why}"))
    }

    fn act(&mut self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::MemberKilled => {
                self.stage.kill_member()?;
                self.stage.recover("member killed (kill -9)", TAKEN_OVER)
            }
            Kind::MemberStopped => self.stop_member(),
            Kind::ServerKilled => self.kill_server("always", "server killed, appendfsync always"),
            Kind::ServerKilledEverySecond => {
                self.kill_server("everysec", "server killed, then everysec")?;
                self.stage.pass(HOLD)?;
                self.stage.note("fault again");
                // Redis may answer before it writes.
                self.stage.note("undone");
                self.kill_server("always", "server killed, appendfsync everysec")
            }
            Kind::ServerStopped => {
                self.server.signal("STOP")?;
                let passed = self.stage.pass(HOLD);
                self.server.signal("CONT")?;
                passed?;
                self.healed("server stopped (SIGSTOP 1.5 s)", SOON)
            }
            Kind::ConnectionsKilled => {
                self.server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
                self.healed("all connections killed", SOON)
            }
            Kind::Cut => self.all(Mode::Cut, "network cut", SOON),
            Kind::OneSideCut => self.one_side(Mode::Cut, "one side cut"),
            Kind::AnswersLost => self.all(Mode::LoseAnswers, "answers lost", SOON),
            Kind::HeldBack => self.all(Mode::Hold, "held back, then delivered", SOON),
            Kind::Vanished => self.one_side(Mode::Vanish, "peer vanished without a word"),
            Kind::Slow => self.all(Mode::Slow, "slow (150 ms each way)", SOON),
            Kind::Throttled => self.all(Mode::Throttle, "throttled (64 KiB/s a connection)", SOON),
            Kind::MemoryFull => self.fill_memory(),
            Kind::ScriptsFlushed => {
                self.server.ask(&["SCRIPT", "FLUSH", "SYNC"])?;
                self.healed("script cache flushed", SOON)
            }
        }
    }

    fn healed(&mut self, name: &'static str, limit: Duration) -> Result<(), String> {
        self.stage.note("healed");
        self.stage.recover(name, limit)
    }

    /// The others take over while it sleeps; then it wakes up and must do no harm.
    fn stop_member(&mut self) -> Result<(), String> {
        let at = self.stage.member()?;
        let number = self.stage.processes[at].number;
        self.stage.processes[at].signal("STOP")?;
        let taken = self.stage.recover("member stopped (SIGSTOP), taken over", TAKEN_OVER);
        let passed = self.stage.pass(LEASE);
        let sleeper = self.stage.processes.iter_mut().find(|process| process.number == number);
        sleeper.ok_or("the stopped member is gone")?.signal("CONT")?;
        taken.and(passed)?;
        self.healed("stopped member goes on (SIGCONT)", SOON)
    }

    /// kill -9, and a start on the same data with that `appendfsync`.
    fn kill_server(&mut self, sync: &str, name: &'static str) -> Result<(), String> {
        self.server.kill();
        self.stage.pass(Duration::from_millis(300))?;
        self.server.up(&["--appendfsync", sync])?;
        self.healed(name, SOON)
    }

    fn all(&mut self, mode: Mode, name: &'static str, limit: Duration) -> Result<(), String> {
        self.ways.iter().for_each(|way| way.set(mode));
        self.stage.pass(HOLD)?;
        self.ways.iter().for_each(|way| way.set(Mode::Pass));
        self.healed(name, limit)
    }

    /// Who has the other way takes over; then all goes on.
    fn one_side(&mut self, mode: Mode, name: &'static str) -> Result<(), String> {
        self.ways[0].set(mode);
        self.stage.cut_off = Some(0);
        let taken = self.stage.recover(name, TAKEN_OVER);
        self.stage.cut_off = None;
        self.ways[0].set(Mode::Pass);
        taken?;
        self.healed("the other side is back", SOON)
    }

    /// The memory limit is reached: publishes are refused, members go on with what there is.
    fn fill_memory(&mut self) -> Result<(), String> {
        let used = self.server.info("memory", "used_memory")?;
        let refused = self.stage.counts().refused;
        self.server.ask(&["CONFIG", "SET", "maxmemory", &(used + 64 * 1024).to_string()])?;
        self.stage.pass(LEASE + HOLD)?;
        let told = self.stage.counts().refused - refused;
        self.server.ask(&["CONFIG", "SET", "maxmemory", "0"])?;
        if told == 0 {
            return Err("the memory limit was not reached".into());
        }
        self.healed("memory limit reached and lifted", SOON)
    }
}
