//! The list of cells: what is measured, beside what, and the target.
//!
//! Not here: the work itself (`arms/`, `redis/`, `kafka/`), the interleaving (`rounds.rs`).

use crate::{
    Result,
    arms::{Against, Engine, Hop, Publish, reopen, steady},
    kafka,
    redis::{self, Measure, Rival, resting},
    rounds::{Plan, Turn},
};
use ropeway_bench::keys::KeySpread;
use std::path::Path;

/// Two who do the same work in turns.
pub(crate) trait Pair {
    /// Ropeway's turn, in an empty directory.
    fn ours(&mut self, dir: &Path) -> Result<Turn>;
    /// The rival's turn, in an empty directory.
    fn rival(&mut self, dir: &Path) -> Result<Turn>;
}

/// What is measured under one name.
#[derive(Debug)]
pub(crate) struct Cell {
    /// How it is chosen.
    pub(crate) name: &'static str,
    /// What ours does, and what the rival.
    pub(crate) what: &'static str,
    pub(crate) kind: Kind,
}

/// How it is measured.
#[derive(Debug)]
pub(crate) enum Kind {
    /// In turns with a rival; the least ratio of messages a second. `None`: it is only told.
    Ratio { target: Option<f64>, pair: fn(&Plan) -> Box<dyn Pair> },
    /// Alone, against bounds.
    Bounds(fn(&Plan, &Path) -> Result<Vec<Figure>>),
}

/// What a cell without a rival found.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// It may be no more than that; `None`: it is only told.
    pub(crate) most: Option<f64>,
}

impl Cell {
    /// What keeps it from running here and now.
    pub(crate) fn missing(&self, plan: &Plan) -> Option<String> {
        if self.name.starts_with("redis-") {
            return redis::missing();
        }
        if !self.name.starts_with("kafka-") {
            return None;
        }
        let program = || match self.name {
            "kafka-instructions" | "kafka-watermill-publish" | "kafka-watermill-subscribe" if plan.quick => {
                Some("it needs programs of others, which is no smoke test".to_owned())
            }
            "kafka-instructions" => kafka::instructions::missing(),
            "kafka-watermill-publish" | "kafka-watermill-subscribe" => kafka::missing_go(),
            _ => None,
        };
        kafka::missing().or_else(program)
    }
}

impl Figure {
    pub(crate) fn met(&self) -> bool {
        self.most.is_none_or(|most| self.value <= most)
    }
}

const fn ratio(
    name: &'static str,
    what: &'static str,
    target: f64,
    pair: fn(&Plan) -> Box<dyn Pair>,
) -> Cell {
    Cell { name, what, kind: Kind::Ratio { target: Some(target), pair } }
}

/// Beside what the disk gives to who does nothing but write and sync, which nobody who does more can reach: without a target.
const fn limit(name: &'static str, what: &'static str, pair: fn(&Plan) -> Box<dyn Pair>) -> Cell {
    Cell { name, what, kind: Kind::Ratio { target: None, pair } }
}

const UNIFORM: KeySpread = KeySpread::Uniform(10_000);
const ZIPF: KeySpread = KeySpread::Zipf { exponent: 1.0, keys: 10_000 };
const HOT: KeySpread = KeySpread::Hot { share: 0.2, keys: 10_000 };

/// All of them, in the order in which they run.
pub(crate) const CELLS: &[Cell] = &[
    ratio(
        "publish-64-fjall",
        "1 KiB messages, 64 at once, each acked when synced; a bare fjall loop with batches of the same size",
        0.85,
        |plan| Publish::pair(plan, 64, 60_000, Against::Fjall),
    ),
    ratio(
        "publish-1024-fjall",
        "1 KiB messages, 1,024 at once, each acked when synced; a bare fjall loop with batches of the same size",
        0.85,
        |plan| Publish::pair(plan, 1024, 200_000, Against::Fjall),
    ),
    ratio(
        "publish-1-file",
        "1 KiB messages, one at a time, each acked when synced; write and fdatasync of the same bytes",
        0.85,
        |plan| Publish::pair(plan, 1, 6_000, Against::File),
    ),
    ratio(
        "publish-64-redb",
        "1 KiB messages, 64 at once, each acked when synced; redb, written by one thread, a transaction for all that wait",
        1.5,
        |plan| Publish::pair(plan, 64, 60_000, Against::Redb),
    ),
    ratio(
        "publish-1024-redb",
        "1 KiB messages, 1,024 at once, each acked when synced; redb, written by one thread, a transaction for all that wait",
        1.5,
        |plan| Publish::pair(plan, 1024, 100_000, Against::Redb),
    ),
    ratio(
        "publish-64-sqlite",
        "1 KiB messages, 64 at once, each acked when synced; SQLite (WAL, synchronous=FULL), written by one thread, a transaction for all that wait",
        2.0,
        |plan| Publish::pair(plan, 64, 60_000, Against::Sqlite),
    ),
    ratio(
        "publish-1024-sqlite",
        "1 KiB messages, 1,024 at once, each acked when synced; SQLite (WAL, synchronous=FULL), written by one thread, a transaction for all that wait",
        2.0,
        |plan| Publish::pair(plan, 1024, 100_000, Against::Sqlite),
    ),
    limit(
        "publish-64-file",
        "1 KiB messages, 64 at once, each acked when synced; write and fdatasync of the same bytes, 32 messages at a time: what this disk gives",
        |plan| Publish::pair(plan, 64, 60_000, Against::Limit),
    ),
    limit(
        "publish-1024-file",
        "1 KiB messages, 1,024 at once, each acked when synced; write and fdatasync of the same bytes, 512 messages at a time: what this disk gives",
        |plan| Publish::pair(plan, 1024, 100_000, Against::Limit),
    ),
    ratio(
        "memory-hop",
        "64 B messages on `memory:`, published 256 in a call and handled by a processor; a hop through a bounded tokio channel for each",
        0.25,
        |plan| Hop::pair(plan, 400_000),
    ),
    ratio(
        "engine-1ms-uniform",
        "a processor, 1,024 handlers that sleep 1 ms, 10,000 keys; a bare loop of 1,024 tasks that keeps keys in order",
        0.95,
        |plan| Engine::pair(plan, 1, UNIFORM, 200_000),
    ),
    ratio("engine-1ms-zipf", "the same, keys by Zipf's law", 0.95, |plan| {
        Engine::pair(plan, 1, ZIPF, 20_000)
    }),
    ratio("engine-1ms-hot", "the same, one key has a fifth of the messages", 0.95, |plan| {
        Engine::pair(plan, 1, HOT, 10_000)
    }),
    ratio(
        "engine-50ms-uniform",
        "a processor, 1,024 handlers that sleep 50 ms, 10,000 keys; a bare loop of 1,024 tasks that keeps keys in order",
        0.95,
        |plan| Engine::pair(plan, 50, UNIFORM, 60_000),
    ),
    ratio("engine-50ms-zipf", "the same, keys by Zipf's law", 0.95, |plan| Engine::pair(plan, 50, ZIPF, 600)),
    ratio("engine-50ms-hot", "the same, one key has a fifth of the messages", 0.95, |plan| {
        Engine::pair(plan, 50, HOT, 300)
    }),
    Cell {
        name: "steady",
        what: "--messages of 1 KiB through `embedded:` in a process of its own, kept up to --retention, a consumer keeping up: what it takes",
        kind: Kind::Bounds(steady::run),
    },
    Cell {
        name: "reopen",
        what: "--retained of 1 KiB messages, the process killed, opened again: how long to the first message, with a warm cache",
        kind: Kind::Bounds(reopen::run),
    },
    ratio(
        "redis-publish-64",
        "64 B messages on Redis, 50 batches of 64 at once; redis-benchmark, 50 connections with 64 commands each, entries as long as ours",
        0.90,
        |plan| redis::Publish::pair(plan, 64, 600_000),
    ),
    ratio("redis-publish-1024", "the same, 1 KiB", 0.90, |plan| redis::Publish::pair(plan, 1024, 200_000)),
    ratio(
        "redis-awaited",
        "64 B messages on Redis, 1,024 tasks that await each; the same over the multiplexed connection of redis-rs",
        1.0,
        |plan| redis::Awaited::pair(plan, 64, 300_000),
    ),
    ratio(
        "redis-consume-100",
        "100 B messages on Redis, a processor whose handler does nothing; XREADGROUP and XACK of 256 at once by redis-rs",
        3.0,
        |plan| redis::Consume::pair(plan, 100, 400_000, Rival::Group, Measure::Time),
    ),
    ratio("redis-consume-1024", "the same, 1 KiB", 3.0, |plan| {
        redis::Consume::pair(plan, 1024, 200_000, Rival::Group, Measure::Time)
    }),
    ratio("redis-consume-sea", "the same, 100 B; sea-streamer, load balanced, 256 at once", 3.0, |plan| {
        redis::Consume::pair(plan, 100, 100_000, Rival::SeaStreamer, Measure::Time)
    }),
    ratio(
        "redis-server-100",
        "the server's work for that: messages for each second of its processor time; XREADGROUP and XACK of 256 at once by redis-rs",
        2.5,
        |plan| redis::Consume::pair(plan, 100, 400_000, Rival::Group, Measure::Server),
    ),
    ratio("redis-server-1024", "the same, 1 KiB", 2.5, |plan| {
        redis::Consume::pair(plan, 1024, 200_000, Rival::Group, Measure::Server)
    }),
    Cell {
        name: "redis-backlog",
        what: "1,000,000 messages of 1 KiB on Redis and a handler that sleeps 50 ms, in a process of its own: what it takes",
        kind: Kind::Bounds(resting::backlog),
    },
    Cell {
        name: "redis-idle",
        what: "a consumer of 64 partitions on Redis to which nothing is published: what it costs",
        kind: Kind::Bounds(resting::idle),
    },
    ratio(
        "kafka-publish-64",
        "64 B messages on Kafka, 128 batches of 256 at once; a loop over rd_kafka_produceva with as many under way",
        0.90,
        |plan| kafka::Publish::pair(plan, 64, 600_000),
    ),
    ratio("kafka-publish-1024", "the same, 1 KiB", 0.95, |plan| kafka::Publish::pair(plan, 1024, 200_000)),
    ratio(
        "kafka-awaited",
        "64 B messages on Kafka, 1,024 tasks that await each; the same over the FutureProducer of rdkafka",
        1.6,
        |plan| kafka::Awaited::pair(plan, 64, 300_000, kafka::Beside::Publisher),
    ),
    limit(
        "kafka-awaited-loop",
        "not ours but a loop over rd_kafka_produceva, never more than 1,024 under way, beside the same FutureProducer: what the client library gives",
        |plan| kafka::Awaited::pair(plan, 64, 300_000, kafka::Beside::Loop),
    ),
    ratio(
        "kafka-consume-64",
        "64 B messages on Kafka, a processor whose handler does nothing; a loop over rd_kafka_consume_batch_queue that commits offsets",
        0.60,
        |plan| kafka::Consume::pair(plan, 64, 1_000_000, kafka::Rival::Loop),
    ),
    ratio("kafka-consume-1024", "the same, 1 KiB", 0.85, |plan| {
        kafka::Consume::pair(plan, 1024, 400_000, kafka::Rival::Loop)
    }),
    ratio(
        "kafka-consume-stream",
        "the same, 64 B; the StreamConsumer of rdkafka, each message detached",
        1.5,
        |plan| kafka::Consume::pair(plan, 64, 1_000_000, kafka::Rival::Stream),
    ),
    limit(
        "kafka-consume-headers",
        "the same, 64 B; the loop over rd_kafka_consume_batch_queue that looks at headers, too",
        |plan| kafka::Consume::pair(plan, 64, 1_000_000, kafka::Rival::LoopWithHeaders),
    ),
    limit("kafka-consume-headers-1024", "the same, 1 KiB", |plan| {
        kafka::Consume::pair(plan, 1024, 400_000, kafka::Rival::LoopWithHeaders)
    }),
    ratio(
        "kafka-watermill-publish",
        "64 B messages on Kafka, as in kafka-publish-64; Watermill, 64 goroutines that publish",
        10.0,
        |plan| kafka::Watermill::pair(plan, kafka::Way::Publish, 600_000, 10),
    ),
    ratio(
        "kafka-watermill-subscribe",
        "64 B messages on Kafka, as in kafka-consume-64; Watermill, which acks each",
        2.0,
        |plan| kafka::Watermill::pair(plan, kafka::Way::Subscribe, 600_000, 4),
    ),
    Cell {
        name: "kafka-instructions",
        what: "kafka-publish-64 under callgrind: instructions a message, and those of the loop",
        kind: Kind::Bounds(kafka::instructions::run),
    },
    Cell {
        name: "kafka-latency",
        what: "64 B messages on Kafka in an open loop, at half of the rate of a loop over rd_kafka_produceva: how long each waits for its ack, and in the loop",
        kind: Kind::Bounds(kafka::paced::run),
    },
    Cell {
        name: "kafka-backlog",
        what: "1,000,000 messages of 1 KiB on Kafka and a handler that sleeps 50 ms, in a process of its own: what it takes",
        kind: Kind::Bounds(kafka::resting::backlog),
    },
    Cell {
        name: "kafka-idle",
        what: "a consumer of 64 partitions on Kafka to which nothing is published: what it costs",
        kind: Kind::Bounds(kafka::resting::idle),
    },
];

/// The list of cells, for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Cells (ours; the rival; the target):\n");
    for cell in CELLS {
        let target = match cell.kind {
            Kind::Ratio { target: Some(target), .. } => format!(" (>= {target})"),
            Kind::Ratio { target: None, .. } => " (no target)".to_owned(),
            Kind::Bounds(_) => String::new(),
        };
        text += &format!("  {}{target}\n      {}\n", cell.name, cell.what);
    }
    text += "\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 a target is missed (with --assert)";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_help_has_them_all() {
        let help = help();
        for (at, cell) in CELLS.iter().enumerate() {
            assert!(help.contains(&format!("  {}", cell.name)) && help.contains(cell.what));
            assert!(CELLS[at + 1..].iter().all(|other| other.name != cell.name), "{}", cell.name);
        }
    }
}
