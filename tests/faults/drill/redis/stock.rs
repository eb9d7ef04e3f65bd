//! A client that is not ours reads every stream to its end: plain `XRANGE` over a connection of redis-rs, and the fields as
//! `broker/src/redis/layout.rs` documents them.
//!
//! Not here: what is made of it (`../judge.rs`).

use crate::{
    drill::judge::{self, Judge},
    traffic,
};
use redis::{Connection, FromRedisValue, Value};
use ropeway_broker::Topic;
use std::collections::BTreeMap;

/// How many entries are read at once.
const PAGE: usize = 2000;

/// An entry: its id, and the value of `payload`.
pub(crate) type Entry = ((u64, u64), Vec<u8>);

/// A plain connection.
pub(crate) fn connect(port: u16) -> Result<Connection, String> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"));
    client.and_then(|client| client.get_connection()).map_err(|error| error.to_string())
}

/// Reads a stream from its beginning to its end, page by page.
pub(crate) fn read(redis: &mut Connection, stream: &str, mut take: impl FnMut(Entry)) -> Result<(), String> {
    let mut from = "-".to_owned();
    loop {
        let page: Value = redis::cmd("XRANGE")
            .arg(stream)
            .arg(&from)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE)
            .query(redis)
            .map_err(|error| format!("{stream}: {error}"))?;
        let Value::Array(entries) = page else { return Err(format!("{stream}: no entries: {page:?}")) };
        let count = entries.len();
        for entry in entries {
            let (id, fields): (String, Vec<Vec<u8>>) =
                FromRedisValue::from_redis_value(entry).map_err(|error| format!("{stream}: {error}"))?;
            let payload = fields.chunks_exact(2).find(|field| field[0] == b"payload").map(|field| &field[1]);
            let at = judge::place(&id).ok_or_else(|| format!("{stream}: {id} is no id"))?;
            take((at, payload.cloned().unwrap_or_default()));
            from = format!("({id}");
        }
        if count < PAGE {
            return Ok(());
        }
    }
}

/// Hands the streams of the topic and of its dead letters to the judge, and sees that Redis itself shows no lag.
pub(crate) fn read_all(judge: &mut Judge, ports: &[u16], prefix: &str) -> Result<(), String> {
    let mut nodes: Vec<Connection> = ports.iter().map(|port| connect(*port)).collect::<Result<_, _>>()?;
    let names = traffic::names().map_err(|error| error.to_string())?;
    let (group, dead) = &names.groups[0];
    for partition in 0..traffic::PARTITIONS {
        let stream = |topic: &Topic| format!("{prefix}:{{{topic}/{partition}}}:log");
        let mut last = BTreeMap::new();
        let log = stream(&names.topic);
        let redis = owner(&mut nodes, &log)?;
        read(redis, &log, |(at, payload)| judge.found(&name(&payload), (partition, at), &mut last))?;
        let groups: Value = redis::cmd("XINFO")
            .arg("GROUPS")
            .arg(&log)
            .query(&mut *redis)
            .map_err(|error| format!("{log}: {error}"))?;
        let log = stream(dead);
        read(owner(&mut nodes, &log)?, &log, |(_, payload)| judge.found_dead(&name(&payload)))?;
        let said = format!("{groups:?}");
        let shows = |text: &str| said.contains(text);
        if !shows(group.as_str()) || !shows("bulk-string('\"lag\"'), int(0)") {
            return Err(format!("Redis shows a lag of {group}, which is drained: {said}"));
        }
    }
    Ok(())
}

/// Who has a key: in a cluster the others say only where it is.
fn owner<'a>(nodes: &'a mut [Connection], key: &str) -> Result<&'a mut Connection, String> {
    let has = |node: &mut Connection| redis::cmd("EXISTS").arg(key).query::<bool>(node).is_ok();
    let at = nodes.iter_mut().position(has).ok_or_else(|| format!("no server has {key}"))?;
    Ok(&mut nodes[at])
}

/// The first word of a payload.
fn name(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).split(' ').next().unwrap_or_default().to_owned()
}
