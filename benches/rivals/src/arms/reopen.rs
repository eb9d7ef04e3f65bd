//! How soon a broker that was killed answers again: from opening its directory to the first message.
//!
//! Not here: whether everything that was acked is there (`tests/faults/`).

use super::embedded::{self, TOPIC};
use crate::{Result, cell::Figure, child, rounds::Plan, statistics::median, work::Work};
use ropeway_broker::{
    Embedded, EmbeddedSettings, ErrorKind, Event, MessageBroker, Publisher, PublisherSettings, ReaderExt,
    Start, Topic, TopicSpec,
};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Bytes of a message, about.
const MESSAGE: u64 = 1024;
/// Messages that a process which finds enough publishes before it says so.
const SOME: u64 = 2_000;
const FULL: &str = "full";
/// How often it is killed.
const KILLS: usize = 3;

/// Fills a directory from a process that is killed, and opens it; several times.
pub(crate) fn run(plan: &Plan, place: &Path) -> Result<Vec<Figure>> {
    let dir = place.join("reopen");
    let mut times = Vec::new();
    for kill in 0..if plan.quick { 1 } else { KILLS } {
        let messages = if kill == 0 { plan.retained / MESSAGE } else { SOME };
        fill_and_kill(&dir, messages)?;
        times.push(first_message(&dir)?.as_secs_f64());
    }
    let disk = crate::machine::disk(&dir) as f64 / (1024.0 * 1024.0);
    std::fs::remove_dir_all(&dir)?;
    let worst = times.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Figure { what: "open to the first message, the longest", value: worst, unit: "s", most: Some(2.0) },
        Figure {
            what: "open to the first message, the median",
            value: median(&times),
            unit: "s",
            most: None,
        },
        Figure { what: "disk", value: disk, unit: "MiB", most: None },
    ])
}

fn fill_and_kill(dir: &Path, messages: u64) -> Result<()> {
    let mut process = child::start("fill", dir, &[messages.to_string()], Stdio::piped())?;
    let said = process.stdout.take().map(BufReader::new).map(|mut out| {
        let mut line = String::new();
        out.read_line(&mut line).map(|_| line)
    });
    // It goes on to publish, so that the kill meets it at work.
    std::thread::sleep(Duration::from_millis(200));
    process.kill()?;
    let status = process.wait()?;
    match said {
        Some(Ok(line)) if line.trim() == FULL => Ok(()),
        _ => {
            Err(format!("the process ended with {status} before it was full; what it says stands above")
                .into())
        }
    }
}

fn first_message(dir: &Path) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now();
        let broker = Embedded::open(dir, EmbeddedSettings::default())?;
        let mut reader = broker.read().await?;
        reader.follow(&Topic::new(TOPIC)?, None, Start::Earliest).await?;
        loop {
            match tokio::time::timeout(embedded::PATIENCE, reader.next()).await?? {
                Event::Batch(_) => break,
                Event::Unreadable { why, .. } => return Err(why.into()),
                _ => {}
            }
        }
        let taken = start.elapsed();
        drop(reader);
        broker.close(embedded::PATIENCE).await;
        Ok(taken)
    })
}

/// The process that is killed: publishes so many messages, says so, and publishes on.
pub(crate) fn inside(dir: &Path, messages: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let work = Arc::new(Work::new(MESSAGE as usize));
    runtime.block_on(async {
        let broker = Embedded::open(dir, EmbeddedSettings::default())?;
        let topic = Topic::new(TOPIC)?;
        match broker.admin().create_topic(&topic, TopicSpec::default()).await {
            Err(error) if error.kind() != ErrorKind::Exists => return Err(error.into()),
            _ => {}
        }
        let publisher = Publisher::new(broker.clone(), PublisherSettings::default())?;
        embedded::send(&publisher, &topic, &work, 1024, 0..messages).await?;
        let mut out = std::io::stdout();
        writeln!(out, "{FULL}")?;
        out.flush()?;
        embedded::send(&publisher, &topic, &work, 64, messages..u64::MAX).await
    })
}
