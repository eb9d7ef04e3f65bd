//! The faults of one server, one after another.
//!
//! Not here: those of members and of the ways to it (`../site.rs`).

use super::{
    DEADLINE,
    nodes::{Nodes, READY},
};
use crate::drill::{
    proxy::Mode,
    site::{Fault, HOLD, Site},
};
use std::time::Duration;
use tokio::time::Instant;

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
    Common(Fault),
    BrokerKilled,
    BrokerStopped,
    BrokerStoppedLong,
}

/// Each once, within the time of an ordinary test.
pub(crate) const SHORT: &[Kind] = &[
    Kind::BrokerKilled,
    Kind::Common(Fault::OneSideCut),
    Kind::Common(Fault::MemberKilled),
    Kind::Common(Fault::AnswersLost),
    Kind::Common(Fault::MemberStopped),
    Kind::Common(Fault::Cut),
    Kind::BrokerStopped,
];

/// All of them, where there is time.
pub(crate) const LONG: &[Kind] = &[
    Kind::BrokerKilled,
    Kind::Common(Fault::OneSideCut),
    Kind::Common(Fault::MemberKilled),
    Kind::Common(Fault::AnswersLost),
    Kind::BrokerStoppedLong,
    Kind::Common(Fault::MemberStopped),
    Kind::Common(Fault::Slow),
    Kind::Common(Fault::Vanished),
    Kind::Common(Fault::Cut),
    Kind::BrokerKilled,
    Kind::Common(Fault::HeldBack),
    Kind::BrokerStopped,
];

/// Has all of them happen to one server.
pub(super) fn suffer(site: &mut Site<'_>, nodes: &mut Nodes, all: &[Kind]) -> Result<(), String> {
    all.iter().try_for_each(|kind| site.suffer(kind, |site| act(site, nodes, *kind)))
}

fn act(site: &mut Site<'_>, nodes: &mut Nodes, kind: Kind) -> Result<(), String> {
    let stop = |name: &str| nodes.all[0].signal(name);
    match kind {
        Kind::Common(fault) => site.act(fault),
        Kind::BrokerStopped => site.stop_server(stop, STOPPED, "broker stopped (SIGSTOP 6 s)"),
        Kind::BrokerStoppedLong => site.stop_server(stop, LONG_STOPPED, "broker stopped (SIGSTOP 20 s)"),
        Kind::BrokerKilled => kill_broker(site, nodes),
    }
}

/// kill -9 while thousands of publishes are on their way, and a start on the same data after some of them were answered.
fn kill_broker(site: &mut Site<'_>, nodes: &mut Nodes) -> Result<(), String> {
    load_ways(site)?;
    // Some of them reach it.
    site.stage.pass(Duration::from_millis(20))?;
    nodes.all[0].kill();
    site.stage.pass(DEADLINE)?;
    nodes.spawn(0)?;
    site.stage.wait(READY, |_| Ok(nodes.answer()))?;
    site.healed("broker killed (kill -9), started again")
}

/// Holds back what comes, until thousands of publishes are on their way; then lets them go. Publishers that wait for members which are behind do not
/// publish: then again, when those came further.
fn load_ways(site: &mut Site<'_>) -> Result<(), String> {
    let since = Instant::now();
    loop {
        site.set(Mode::Hold);
        let held = site.stage.wait(HOLD * 2, |stage| Ok(stage.in_flight() >= THOUSANDS));
        site.set(Mode::Pass);
        match held {
            Err(why) if since.elapsed() > SOON => {
                return Err(format!("{} publishes are on their way: {why}", site.stage.in_flight()));
            }
            Err(_) => site.stage.pass(HOLD * 2)?,
            Ok(()) => return Ok(()),
        }
    }
}
