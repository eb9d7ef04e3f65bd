//! Drills on Kafka, which is killed, stopped and cut off; whose topics are purged and made again, and whose disk is full. Each has nodes of its own, which
//! nobody else uses. Where the jars of Kafka are not on this machine they are ignored, with the reason.
//!
//! `faults.rs`, `three.rs`, `topics.rs` and `full.rs`: what happens; `nodes.rs`: the servers; `log.rs`: the client that is not ours. Not here: the processes
//! on them, and what must hold (`../stage.rs`, `../judge.rs`).

mod faults;
mod full;
mod log;
mod nodes;
mod three;
mod topics;

use super::{
    Told,
    again::RunsOut,
    drill, length, rate,
    rules::Rules,
    site::{self, Site, Times},
    stage::{Load, Stage},
};
use crate::run::number;
use faults::{LONG, SHORT, SOON, suffer};
use libtest_mimic::{Completion, Failed, Trial};
use nodes::{Kit, Nodes};
use rand::rngs::StdRng;
use ropeway_broker::Durability;
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// How long a member that is not heard of keeps what it owns.
const SESSION: Duration = Duration::from_secs(4);
/// Nobody waits longer than a machine that has much else to do takes.
const TIMES: Times = Times { session: SESSION, soon: SOON, taken_over: SOON };
/// When a publish is answered at the latest: sooner than a killed broker is back, so that some are answered before it is.
const DEADLINE: Duration = Duration::from_secs(6);
/// How long a member may finish what it began of a partition that is wanted back: longer than a machine that has much else to do takes, for what it does not
/// finish is handled again.
const RELEASE: Duration = Duration::from_secs(10);
/// Of one publisher, what is not answered at the most.
const IN_FLIGHT: usize = 2048;
/// Messages a second.
const RATE: u32 = 1500;
/// How many publishes are acked in the longer run, at least.
const ACKED: u64 = 1_000_000;
/// How to run it.
const LONGER: &str = "takes minutes: ROPEWAY_TEST_DRILL=300s ROPEWAY_TEST_DRILL_RATE=6000 cargo test --workspace --features ropeway/full --test faults -- \
                      kafka::survives_every_fault_for_minutes --nocapture";

/// The trials.
pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kafka::survives_every_fault_for_minutes", |root, kit, random| match length()? {
            Some(length) => every_fault(root, kit, random, Some(length), &protocol()),
            None => Ok(Err(LONGER.into())),
        }),
        trial("kafka::survives_every_fault_under_load", |root, kit, random| {
            every_fault(root, kit, random, None, &protocol())
        }),
        trial("kafka::survives_every_fault_on_the_newer_protocol_under_load", |root, kit, random| {
            every_fault(root, kit, random, None, "consumer")
        }),
        trial("kafka::survives_the_loss_of_one_of_three_nodes_under_load", three::run),
        trial("kafka::survives_purged_and_remade_topics_under_load", topics::run),
        trial("kafka::survives_a_full_disk_under_load", full::run),
    ]
}

fn trial(name: &str, run: fn(&Path, &Kit, StdRng) -> Told) -> Trial {
    let of = name.to_owned();
    Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
        match Kit::find() {
            Ok(kit) => drill(&of, None, |root, random| run(root, &kit, random)),
            Err(why) => drill(&of, Some(why), |_, _| Ok(Ok(String::new()))),
        }
    })
}

/// The same where nothing runs out of time, so that nothing may lie twice; `ROPEWAY_TEST_DRILL_DEADLINE=6` has some run out of it.
const PATIENT_DEADLINE: Duration = Duration::from_secs(60);

/// By which protocol members are a group: `ROPEWAY_TEST_DRILL_PROTOCOL=consumer` has all drills use the newer one (KIP-848), where the servers say how long a
/// session is: longer than that of the other by more than the time between two signs of life (`nodes.rs`).
fn protocol() -> String {
    std::env::var("ROPEWAY_TEST_DRILL_PROTOCOL").unwrap_or_else(|_| "classic".to_owned())
}

/// What URLs say.
fn settings(deadline: Duration, protocol: &str) -> String {
    let (session, deadline, release) = (SESSION.as_secs(), given(deadline).as_secs(), RELEASE.as_secs());
    format!("session={session}s&publish_deadline={deadline}s&release={release}s&group_protocol={protocol}")
}

/// The deadline of publishes, or the one that is given.
fn given(deadline: Duration) -> Duration {
    number("ROPEWAY_TEST_DRILL_DEADLINE").map_or(deadline, Duration::from_secs)
}

/// What is asked for on Kafka: an ack may not say where a message lies, a dead letter and its ack are two steps, and what is on its way when something runs
/// out of time may be written twice.
fn rules(stated: Durability, deadline: Duration) -> Rules {
    let again = Some(RunsOut::with(given(deadline)));
    Rules { stated, atomic: false, placed: false, again, undone: 0 }
}

/// The load of nodes that nothing stands before.
fn direct_load(nodes: &Nodes, at_least: Option<&'static str>, deadline: Duration) -> Load {
    let url = format!("{}?{}", nodes.url(), settings(deadline, &protocol()));
    Load { urls: vec![url; 2], rate: rate(RATE), at_least: vec![at_least; 2], in_flight: IN_FLIGHT }
}

/// One server, two ways to it, every fault: once, or again and again for that long and until enough is acked.
fn every_fault(root: &Path, kit: &Kit, random: StdRng, length: Option<Duration>, protocol: &str) -> Told {
    let mut nodes = Nodes::plan(kit, &root.join("server"), 1, 2)?;
    let (_runtime, ways) = site::ways(nodes.all[0].fronts())?;
    nodes.all[0].advertise(ways.iter().map(|way| way.address.port()));
    nodes.start()?;
    let settings = settings(DEADLINE, protocol);
    let urls = ways.iter().map(|way| format!("kafka://{}?{settings}", way.address)).collect();
    let load = Load { urls, ..direct_load(&nodes, None, DEADLINE) };
    let mut stage = Stage::new(root, load, rules(Durability::ProcessCrash, DEADLINE), random)?;
    stage.open()?;
    let mut site = Site { ways: &ways, stage: &mut stage, times: TIMES };
    match length {
        None => suffer(&mut site, &mut nodes, SHORT)?,
        Some(length) => {
            let began = Instant::now();
            let is_enough = |stage: &Stage| began.elapsed() >= length && stage.counts().acked >= ACKED;
            while !is_enough(site.stage) {
                suffer(&mut site, &mut nodes, LONG)?;
                if began.elapsed() >= length * 4 && !is_enough(site.stage) {
                    let acked = site.stage.counts().acked;
                    return Err(format!("only {acked} were acked in {:?}", began.elapsed()));
                }
            }
        }
    }
    stage.close(&nodes.url(), |judge| log::read_all(judge, &nodes)).map(Ok)
}
