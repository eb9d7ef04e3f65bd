//! The faults of one server and of the ways to it, one after another.
//!
//! Not here: the processes (`../stage.rs`).

use super::{
    DEADLINE, SESSION,
    nodes::{Nodes, READY},
};
use crate::drill::{
    proxy::{Mode, Proxy},
    stage::Stage,
};
use std::time::Duration;
use tokio::time::Instant;

/// How long a fault lasts that is no moment.
pub(super) const HOLD: Duration = Duration::from_millis(1500);
/// What is published after a fault is handled within that on a machine that has much else to do.
pub(super) const SOON: Duration = Duration::from_secs(120);
/// How many publishes are not answered when a broker is killed, at least.
const THOUSANDS: u64 = 2000;
/// How long a broker is stopped: longer than a session; in the longer run as long as it takes to be thought gone by all.
const STOPPED: Duration = Duration::from_secs(6);
const LONG_STOPPED: Duration = Duration::from_secs(20);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MemberKilled,
    MemberStopped,
    BrokerKilled,
    BrokerStopped,
    BrokerStoppedLong,
    Cut,
    OneSideCut,
    AnswersLost,
    HeldBack,
    Vanished,
    Slow,
}

/// Each once, within the time of an ordinary test.
pub(crate) const SHORT: &[Kind] = &[
    Kind::BrokerKilled,
    Kind::OneSideCut,
    Kind::MemberKilled,
    Kind::AnswersLost,
    Kind::MemberStopped,
    Kind::Cut,
    Kind::BrokerStopped,
];

/// All of them, where there is time.
pub(crate) const LONG: &[Kind] = &[
    Kind::BrokerKilled,
    Kind::OneSideCut,
    Kind::MemberKilled,
    Kind::AnswersLost,
    Kind::BrokerStoppedLong,
    Kind::MemberStopped,
    Kind::Slow,
    Kind::Vanished,
    Kind::Cut,
    Kind::BrokerKilled,
    Kind::HeldBack,
    Kind::BrokerStopped,
];

/// A server, and two ways to it.
pub(crate) struct Site<'a> {
    pub(crate) nodes: &'a mut Nodes,
    pub(crate) ways: &'a [Proxy],
    pub(crate) stage: &'a mut Stage,
}

impl Site<'_> {
    /// Does it, and waits until it is over and everything works again.
    pub(crate) fn suffer(&mut self, kind: Kind) -> Result<(), String> {
        self.stage.note(&format!("fault {kind:?}"));
        let done = self.act(kind);
        self.stage.note("recovered");
        self.set(Mode::Pass);
        done.map_err(|why| format!("{kind:?}: {why}"))
    }

    fn act(&mut self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::MemberKilled => {
                self.stage.kill_member()?;
                self.stage.recover("member killed (kill -9)", SOON)
            }
            Kind::MemberStopped => self.stop_member(),
            Kind::BrokerKilled => self.kill_broker(),
            Kind::BrokerStopped => self.stop_broker(STOPPED, "broker stopped (SIGSTOP 6 s)"),
            Kind::BrokerStoppedLong => self.stop_broker(LONG_STOPPED, "broker stopped (SIGSTOP 20 s)"),
            Kind::Cut => self.all(Mode::Cut, "network cut"),
            Kind::OneSideCut => self.one_side(Mode::Cut, "one side cut"),
            Kind::AnswersLost => self.all(Mode::LoseAnswers, "answers lost"),
            Kind::HeldBack => self.all(Mode::Hold, "held back, then delivered"),
            Kind::Vanished => self.one_side(Mode::Vanish, "peer vanished without a word"),
            Kind::Slow => self.all(Mode::Slow, "slow (150 ms each way)"),
        }
    }

    fn set(&self, mode: Mode) {
        self.ways.iter().for_each(|way| way.set(mode));
    }

    fn healed(&mut self, name: &'static str) -> Result<(), String> {
        self.stage.note("healed");
        self.stage.recover(name, SOON)
    }

    /// The others take over while it sleeps; then it wakes up and must do no harm.
    fn stop_member(&mut self) -> Result<(), String> {
        let at = self.stage.member()?;
        let number = self.stage.processes[at].number;
        self.stage.processes[at].signal("STOP")?;
        let taken = self.stage.recover("member stopped (SIGSTOP), taken over", SOON);
        let passed = self.stage.pass(SESSION);
        let sleeper = self.stage.processes.iter_mut().find(|process| process.number == number);
        sleeper.ok_or("the stopped member is gone")?.signal("CONT")?;
        taken.and(passed)?;
        self.healed("stopped member goes on (SIGCONT)")
    }

    /// kill -9 while thousands of publishes are on their way, and a start on the same data after some of them were answered.
    fn kill_broker(&mut self) -> Result<(), String> {
        self.load_ways()?;
        // Some of them reach it.
        self.stage.pass(Duration::from_millis(20))?;
        self.nodes.all[0].kill();
        self.stage.pass(DEADLINE)?;
        self.nodes.spawn(0)?;
        let nodes = &*self.nodes;
        self.stage.wait(READY, |_| Ok(nodes.answer()))?;
        self.healed("broker killed (kill -9), started again")
    }

    /// Holds back what comes, until thousands of publishes are on their way; then lets them go. Publishers that wait for members which are behind do not
    /// publish: then again, when those came further.
    fn load_ways(&mut self) -> Result<(), String> {
        let since = Instant::now();
        loop {
            self.set(Mode::Hold);
            let held = self.stage.wait(HOLD * 2, |stage| Ok(stage.in_flight() >= THOUSANDS));
            self.set(Mode::Pass);
            match held {
                Err(why) if since.elapsed() > SOON => {
                    return Err(format!("{} publishes are on their way: {why}", self.stage.in_flight()));
                }
                Err(_) => self.stage.pass(HOLD * 2)?,
                Ok(()) => return Ok(()),
            }
        }
    }

    fn stop_broker(&mut self, time: Duration, name: &'static str) -> Result<(), String> {
        self.nodes.all[0].signal("STOP")?;
        let passed = self.stage.pass(time);
        self.nodes.all[0].signal("CONT")?;
        passed?;
        self.healed(name)
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
        let taken = self.stage.recover(name, SOON);
        self.stage.cut_off = None;
        taken?;
        self.ways[0].set(Mode::Pass);
        self.healed("the other side is back")
    }
}
