//! Records that are purged before they were handled, and a topic that is deleted and made again, under load.
//!
//! Members are told a gap of what they miss, and go on behind it. Not here: servers that go away (`faults.rs`).

use super::{
    DEADLINE, direct_load,
    faults::SOON,
    length, log,
    nodes::{Kit, Nodes, stock},
    rules,
};
use crate::{
    drill::{Told, failed, site::HOLD, stage::Stage},
    traffic,
};
use rand::rngs::StdRng;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult},
    client::DefaultClientContext,
    consumer::Consumer as _,
    error::KafkaResult,
};
use ropeway_broker::{Durability, Topic};
use std::{path::Path, thread::sleep, time::Duration};
use tokio::time::Instant;

/// How long servers may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The drill.
pub(super) fn run(root: &Path, kit: &Kit, random: StdRng) -> Told {
    let length = length()?;
    let mut nodes = Nodes::plan(kit, &root.join("server"), 1, 0)?;
    nodes.start()?;
    let load = direct_load(&nodes, None, DEADLINE);
    let mut stage = Stage::new(root, load, rules(Durability::ProcessCrash, DEADLINE), random)?;
    stage.open()?;
    let topic = traffic::names().map_err(failed)?.topic;
    let began = Instant::now();
    loop {
        for (act, name) in [
            (purge as Act, "records purged"),
            (remake as Act, "topic deleted and made again"),
            (purge as Act, "records purged"),
        ] {
            stage.note("fault Removed");
            act(&nodes, &topic, &mut stage).map_err(|why| format!("{name}: {why}"))?;
            stage.note("healed");
            stage.recover(name, SOON)?;
            stage.note("recovered");
            stage.pass(HOLD)?;
        }
        if length.is_none_or(|length| began.elapsed() >= length) {
            break;
        }
    }
    if stage.counts().gaps == 0 {
        return Err("no member was told a gap".into());
    }
    stage.close(&nodes.url(), |judge| log::read_all(judge, &nodes)).map(Ok)
}

type Act = fn(&Nodes, &Topic, &mut Stage) -> Result<(), String>;

/// Purges all there is while members sleep, so that they have not seen the last of it.
fn purge(nodes: &Nodes, topic: &Topic, stage: &mut Stage) -> Result<(), String> {
    stage.signal_members("STOP")?;
    let purged = stage.pass(HOLD).and_then(|()| delete_records(nodes, topic, stage));
    stage.signal_members("CONT")?;
    purged
}

fn delete_records(nodes: &Nodes, topic: &Topic, stage: &Stage) -> Result<(), String> {
    let life = log::life(&nodes.url(), topic)?;
    let client = stock(&nodes.addresses(), "nobody")?;
    let mut before = TopicPartitionList::new();
    for partition in 0..traffic::PARTITIONS {
        let at = partition as i32;
        let (_, high) = client.fetch_watermarks(topic.as_str(), at, ANSWER).map_err(failed)?;
        before.add_partition_offset(topic.as_str(), at, Offset::Offset(high)).map_err(failed)?;
        // It is written down before anybody can be told.
        stage.note(&format!("purged {partition} {life}-{high}"));
    }
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let admin = admin(nodes)?;
    // The client library works on the question on two threads at once where it does not know the leaders yet.
    admin.inner().fetch_metadata(None, ANSWER).map_err(failed)?;
    block_on(admin.delete_records(&before, &options)).map(drop)
}

/// Deletes the topic and makes it again, as soon as the servers have forgotten it: somebody else does, who does not care that it has members.
fn remake(nodes: &Nodes, topic: &Topic, stage: &mut Stage) -> Result<(), String> {
    let life = log::life(&nodes.url(), topic)?;
    stage.note(&format!("remade {life}"));
    let (admin, options) = (admin(nodes)?, AdminOptions::new().request_timeout(Some(ANSWER)));
    one(block_on(admin.delete_topics(&[topic.as_str()], &options))?)?;
    let new = NewTopic::new(topic.as_str(), traffic::PARTITIONS as i32, TopicReplication::Fixed(1));
    patiently(|| one(block_on(admin.create_topics([&new], &options))?))?;
    // They answer that it is made before they find it: who joins meanwhile would be told that there is none.
    patiently(|| log::life(&nodes.url(), topic).map(drop))
}

/// Asks again until it is done, for as long as servers may take.
fn patiently(mut ask: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let since = Instant::now();
    loop {
        match ask() {
            Err(_) if since.elapsed() <= ANSWER => sleep(Duration::from_millis(100)),
            told => return told,
        }
    }
}

/// Who administers Kafka with a client that is not ours.
fn admin(nodes: &Nodes) -> Result<AdminClient<DefaultClientContext>, String> {
    ClientConfig::new().set("bootstrap.servers", nodes.addresses()).create().map_err(failed)
}

fn block_on<T>(what: impl Future<Output = KafkaResult<T>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(what).map_err(failed)
}

/// What became of the one topic that it was about.
fn one(mut told: Vec<TopicResult>) -> Result<(), String> {
    match told.pop() {
        Some(Ok(_)) => Ok(()),
        Some(Err((topic, code))) => Err(format!("{topic}: {code}")),
        None => Err("nothing was told of the topic".into()),
    }
}
