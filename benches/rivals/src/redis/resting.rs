//! What a consumer takes that has much before it, or nothing at all.
//!
//! Figures with bounds and without a rival. Not here: what consuming costs (`consume.rs`).

use super::{TOPIC, server::Server};
use crate::{
    Result,
    cell::Figure,
    child,
    machine::{Stopwatch, Usage},
    rounds::Plan,
    tasks::runtime,
    work::Work,
};
use ropeway_broker::{ConsumerExt, Group, Subscription, Topic};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::time::timeout;

const MIB: f64 = 1024.0 * 1024.0;
/// Partitions of the topic that nobody writes to.
const PARTITIONS: u32 = 64;

/// Memory of a process that has `messages` of backlog and a handler that takes its time.
pub(crate) fn backlog(plan: &Plan, place: &Path) -> Result<Vec<Figure>> {
    let dir = place.join("backlog");
    std::fs::create_dir(&dir)?;
    let messages = plan.messages(1_000_000);
    let server = Server::start(&dir)?;
    runtime()?.block_on(async {
        let broker = server.broker(8).await?;
        Server::fill(&*broker, &Work::new(1024), messages).await?;
        broker.close(Duration::from_secs(5)).await;
        Result::Ok(())
    })?;
    let url = format!("{}?prefix={}", server.url, server.prefix);
    let mut process = child::start("backlog", Path::new(&url), &[TOPIC.to_owned()], Stdio::null())?;
    std::thread::sleep(Duration::from_secs(if plan.quick { 1 } else { 20 }));
    let usage = Usage::of(process.id(), &dir);
    let ended = process.try_wait()?;
    process.kill()?;
    process.wait()?;
    drop(server);
    std::fs::remove_dir_all(&dir)?;
    let usage = usage.filter(|_| ended.is_none()).ok_or("the process ended; what it says stands above")?;
    Ok(vec![
        Figure { what: "peak resident", value: usage.peak as f64 / MIB, unit: "MiB", most: Some(150.0) },
        Figure { what: "threads", value: usage.threads as f64, unit: "", most: None },
    ])
}

/// What a consumer of many partitions costs to which nothing is published.
pub(crate) fn idle(plan: &Plan, place: &Path) -> Result<Vec<Figure>> {
    let dir = place.join("idle");
    std::fs::create_dir(&dir)?;
    let mut server = Server::start(&dir)?;
    let seconds = if plan.quick { 1 } else { 20 };
    let figures = runtime()?.block_on(async {
        let broker = server.broker(PARTITIONS).await?;
        let subscription = Subscription::new(Group::new("idle")?, [Topic::new(TOPIC)?]);
        let mut consumer = broker.subscribe(subscription).await?;
        // Until all is assigned and caught up.
        while let Ok(event) = timeout(Duration::from_secs(3), consumer.next()).await {
            event?;
        }
        let (commands, cpu, watch) = (server.commands()?, server.cpu()?, Stopwatch::start());
        if let Ok(event) = timeout(Duration::from_secs(seconds), consumer.next()).await {
            return Err(format!("{:?} was told where nothing happens", event?).into());
        }
        let (wall, own) = watch.stop();
        let a_second = |value: f64| value / wall.as_secs_f64();
        // One that asks for it.
        let commands = server.commands()? - commands - 1.0;
        let cpu = server.cpu()?.saturating_sub(cpu);
        let figure = |what, value, unit, most| Figure { what, value: a_second(value), unit, most };
        Result::Ok(vec![
            figure("commands at the server", commands, "/s", Some(100.0)),
            figure("processor time", own.as_secs_f64() * 1e3, "ms/s", Some(5.0)),
            figure("processor time of the server", cpu.as_secs_f64() * 1e3, "ms/s", Some(5.0)),
        ])
    })?;
    drop(server);
    std::fs::remove_dir_all(&dir)?;
    Ok(figures)
}
