//! A client that is not ours reads every partition to its end: the plain consumer of rdkafka, in no group.
//!
//! Not here: what is made of it (`../judge.rs`).

use super::nodes::{Nodes, stock};
use crate::{
    drill::{
        failed,
        judge::{self, Judge},
        stage::ask,
    },
    traffic,
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use ropeway_broker::Topic;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How long servers may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Hands the log of the topic and of its dead letters to the judge, and sees that Kafka itself shows no lag.
pub(crate) fn read_all(judge: &mut Judge, nodes: &Nodes) -> Result<(), String> {
    let names = traffic::names().map_err(failed)?;
    let (group, dead) = &names.groups[0];
    let client = stock(&nodes.addresses(), group.as_str())?;
    let life = life(&nodes.url(), &names.topic)?;
    for partition in 0..traffic::PARTITIONS {
        let mut last = BTreeMap::new();
        let end = read(&client, &names.topic, partition, |offset, payload| {
            judge.found(&name(payload), (partition, (life, offset)), &mut last);
        })?;
        read(&client, dead, partition, |_, payload| judge.found_dead(&name(payload)))?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(names.topic.as_str(), partition as i32);
        let told = client.committed_offsets(asked, ANSWER).map_err(failed)?;
        let committed = told.elements().first().map(|element| element.offset());
        // Where nothing was ever handled nothing may be committed.
        if end > 0 && committed != Some(Offset::Offset(end)) {
            return Err(format!(
                "Kafka shows a lag of {group} in partition {partition}, which is drained: {committed:?} of {end}"
            ));
        }
    }
    Ok(())
}

/// What positions of the topic begin with.
pub(crate) fn life(url: &str, topic: &Topic) -> Result<u64, String> {
    let about = ask(url, async |broker| broker.admin().describe_topic(topic).await)?;
    let low = about.partitions.first().ok_or("the topic has no partitions")?.low.to_string();
    judge::place(&low).map(|(life, _)| life).ok_or_else(|| format!("{low} is no position"))
}

/// Reads a partition from its beginning to its end, and answers that.
fn read(
    client: &BaseConsumer,
    topic: &Topic,
    partition: u32,
    mut take: impl FnMut(u64, &[u8]),
) -> Result<i64, String> {
    let said = |error: rdkafka::error::KafkaError| format!("{topic}/{partition}: {error}");
    let at = partition as i32;
    let (low, high) = client.fetch_watermarks(topic.as_str(), at, ANSWER).map_err(said)?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic.as_str(), at, Offset::Offset(low)).map_err(said)?;
    client.assign(&from).map_err(said)?;
    let (mut next, mut since) = (low, Instant::now());
    while next < high {
        match client.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                take(record.offset().unsigned_abs(), record.payload().unwrap_or_default());
                (next, since) = (record.offset() + 1, Instant::now());
            }
            Some(Err(error)) if since.elapsed() > ANSWER => return Err(said(error)),
            _ if since.elapsed() > ANSWER => {
                return Err(format!("{topic}/{partition}: nothing comes at {next}, and {high} is the end"));
            }
            _ => {}
        }
    }
    Ok(high)
}

/// The first word of a payload.
fn name(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).split(' ').next().unwrap_or_default().to_owned()
}
