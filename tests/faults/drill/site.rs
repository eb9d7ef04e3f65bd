//! What happens to members and to the ways to a server, whatever server it is: killed, stopped, cut off, held back, lost, slowed down.
//!
//! Not here: what happens to servers (`redis/faults.rs`, `kafka/faults.rs`), the processes (`stage.rs`), the ways (`proxy.rs`).

use super::{
    failed,
    proxy::{Mode, Proxy},
    stage::Stage,
};
use std::{fmt::Debug, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// How long a fault lasts that is no moment.
pub(crate) const HOLD: Duration = Duration::from_millis(1500);
/// The pause between two faults.
const BETWEEN: Duration = Duration::from_millis(200);

/// A fault that needs nothing of a server but ways to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    MemberKilled,
    MemberStopped,
    Cut,
    OneSideCut,
    AnswersLost,
    HeldBack,
    Vanished,
    Slow,
    Throttled,
}

/// How long things take on a machine that has much else to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// For how long a member that is not heard of keeps what it owns.
    pub(crate) session: Duration,
    /// What is published after a fault is handled within that.
    pub(crate) soon: Duration,
    /// The same where what a member owned is taken over: its session, and what follows.
    pub(crate) taken_over: Duration,
}

/// Processes, and the ways that they have to a server.
pub(crate) struct Site<'a> {
    pub(crate) ways: &'a [Proxy],
    pub(crate) stage: &'a mut Stage,
    pub(crate) times: Times,
}

/// Ways to these ports, as long as the runtime lives.
pub(crate) fn ways(ports: impl Iterator<Item = u16>) -> Result<(Runtime, Vec<Proxy>), String> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
    let ways = ports.map(|port| runtime.block_on(Proxy::before(port))).collect::<Result<_, _>>()?;
    Ok((runtime, ways))
}

impl Site<'_> {
    /// Has something of that name happen, which returns when it is over and everything works again.
    pub(crate) fn suffer(
        &mut self,
        name: &impl Debug,
        happen: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.stage.note(&format!("fault {name:?}"));
        let done = happen(self);
        self.stage.note("recovered");
        self.set(Mode::Pass);
        done.map_err(|why| format!("{name:?}: {why}"))?;
        self.stage.pass(BETWEEN)
    }

    /// One of the faults that are the same everywhere.
    pub(crate) fn act(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::MemberKilled => {
                self.stage.kill_member()?;
                self.stage.recover("member killed (kill -9)", self.times.taken_over)
            }
            Fault::MemberStopped => self.stop_member(),
            Fault::Cut => self.all(Mode::Cut, "network cut"),
            Fault::OneSideCut => self.one_side(Mode::Cut, "one side cut"),
            Fault::AnswersLost => self.all(Mode::LoseAnswers, "answers lost"),
            Fault::HeldBack => self.all(Mode::Hold, "held back, then delivered"),
            Fault::Vanished => self.one_side(Mode::Vanish, "peer vanished without a word"),
            Fault::Slow => self.all(Mode::Slow, "slow (150 ms each way)"),
            Fault::Throttled => self.all(Mode::Throttle, "throttled (64 KiB/s a connection)"),
        }
    }

    /// Sets all ways.
    pub(crate) fn set(&self, mode: Mode) {
        self.ways.iter().for_each(|way| way.set(mode));
    }

    /// It is over: what is published now is handled soon.
    pub(crate) fn healed(&mut self, name: &'static str) -> Result<(), String> {
        self.stage.note("healed");
        self.stage.recover(name, self.times.soon)
    }

    /// A server stands still for a while; `signal` sends it one.
    pub(crate) fn stop_server(
        &mut self,
        signal: impl Fn(&str) -> Result<(), String>,
        time: Duration,
        name: &'static str,
    ) -> Result<(), String> {
        signal("STOP")?;
        let passed = self.stage.pass(time);
        signal("CONT")?;
        passed?;
        self.healed(name)
    }

    /// The others take over while it sleeps; then it wakes up and must do no harm.
    fn stop_member(&mut self) -> Result<(), String> {
        let at = self.stage.member()?;
        let number = self.stage.processes[at].number;
        self.stage.processes[at].signal("STOP")?;
        let taken = self.stage.recover("member stopped (SIGSTOP), taken over", self.times.taken_over);
        let passed = self.stage.pass(self.times.session);
        self.stage.note(&format!("goes {number}"));
        let sleeper = self.stage.processes.iter_mut().find(|process| process.number == number);
        sleeper.ok_or("the stopped member is gone")?.signal("CONT")?;
        taken.and(passed)?;
        self.healed("stopped member goes on (SIGCONT)")
    }

    fn all(&mut self, mode: Mode, name: &'static str) -> Result<(), String> {
        self.set(mode);
        self.stage.pass(HOLD)?;
        self.set(Mode::Pass);
        self.healed(name)
    }

    /// Who has the other way takes over; then all goes on.
    fn one_side(&mut self, mode: Mode, name: &'static str) -> Result<(), String> {
        self.ways[0].set(mode);
        self.stage.cut_off = Some(0);
        let taken = self.stage.recover(name, self.times.taken_over);
        self.stage.cut_off = None;
        taken?;
        self.ways[0].set(Mode::Pass);
        self.healed("the other side is back")
    }
}
