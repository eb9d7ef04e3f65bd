//! A server whose disk takes long to sync, killed under load: what an ack says of itself holds there as well.
//!
//! With `appendfsync everysec` Redis answers first and writes later while a sync goes on, so that a killed process loses what was acked. Not here: other
//! faults of one server (`faults.rs`).

use super::{PREFIX, servers::Server};
use crate::{drill::Told, native};
use ropeway_broker::{Durability, Message, Published, Target, Topic, TopicSpec};
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// For how long it is published.
const LOAD: Duration = Duration::from_millis(2300);
/// Messages of one call.
const BATCH: usize = 64;

/// The drill; `Ok(Err(why))` where no such disk can be had.
pub(crate) fn run(root: &Path) -> Told {
    let slow = match native::compile("slow", &["-shared", "-fPIC"]) {
        Ok(slow) => slow,
        Err(why) => return Ok(Err(format!("needs a C compiler: {why}"))),
    };
    let mut story = String::new();
    for (sync, least) in [
        ("always", Durability::PowerLoss),
        ("no", Durability::ProcessCrash),
        ("everysec", Durability::Volatile),
    ] {
        let mut server = Server::start_with(&root.join(sync), &["--appendfsync", sync], Some(&slow))?;
        let (acked, stated) = publish(&mut server, least)?;
        server.calm();
        server.up(&[])?;
        let there = server.ask(&["XLEN", &format!("{PREFIX}:{{work/0}}:log")])?;
        let lost = acked.saturating_sub(there.parse().unwrap_or(0));
        story += &format!("appendfsync {sync}: {acked} acked as {}, {lost} lost; ", stated.as_str());
        if stated >= Durability::ProcessCrash && lost > 0 {
            return Err(story);
        }
    }
    Ok(Ok(story))
}

/// Publishes until the server is killed; answers how many were acked, and the most that was said of one.
fn publish(server: &mut Server, expected: Durability) -> Result<(usize, Durability), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let url = format!("redis://127.0.0.1:{}?prefix={PREFIX}&publish_deadline=10s", server.port);
        let broker = ropeway_broker::connect(&url).await.map_err(|error| error.to_string())?;
        let topic = Topic::new("work").map_err(|error| error.to_string())?;
        let made = broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await;
        made.map_err(|error| error.to_string())?;
        let (begun, mut acked, mut most) = (Instant::now(), 0, Durability::Volatile);
        while begun.elapsed() < LOAD {
            let batch = (0..BATCH).map(|_| Message::builder().payload("0123456789").build()).collect();
            for outcome in broker.publish(&Target::from(&topic), batch).await.0 {
                if let Published::Acked { durability, .. } = outcome {
                    acked += 1;
                    most = most.max(durability);
                }
            }
        }
        server.kill();
        drop(broker);
        if most == expected {
            Ok((acked, most))
        } else {
            Err(format!("{expected:?} was expected, not {most:?}"))
        }
    })
}
