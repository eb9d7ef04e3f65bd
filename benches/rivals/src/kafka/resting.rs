//! What a consumer takes that has much before it, or nothing at all.
//!
//! Not here: the process that is watched (`../tasks.rs`), how it is started (`../child.rs`).

use super::ground::Ground;
use crate::{
    Result,
    cell::Figure,
    child,
    machine::{Stopwatch, Usage, switches},
    rounds::Plan,
    tasks::runtime,
    work::Work,
};
use ropeway_broker::{ConsumerExt, Group, Subscription};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::time::timeout;

const MIB: f64 = 1024.0 * 1024.0;
/// Partitions of the topic that nobody writes to.
const PARTITIONS: u32 = 64;

/// Memory of a process that has `messages` of backlog and a handler that takes its time.
pub(crate) fn backlog(plan: &Plan, place: &Path) -> Result<Vec<Figure>> {
    let ground = Ground::make(8)?;
    ground.fill(&Work::new(1024), plan.messages(1_000_000))?;
    let mut process =
        child::start("backlog", Path::new(&ground.url), &[ground.topic.to_string()], Stdio::null())?;
    std::thread::sleep(Duration::from_secs(if plan.quick { 2 } else { 20 }));
    let usage = Usage::of(process.id(), place);
    let ended = process.try_wait()?;
    process.kill()?;
    process.wait()?;
    let usage = usage.filter(|_| ended.is_none()).ok_or("the process ended; what it says stands above")?;
    Ok(vec![
        Figure { what: "peak resident", value: usage.peak as f64 / MIB, unit: "MiB", most: Some(150.0) },
        Figure { what: "threads", value: usage.threads as f64, unit: "", most: None },
    ])
}

/// What a consumer of many partitions costs to which nothing is published.
pub(crate) fn idle(plan: &Plan, _: &Path) -> Result<Vec<Figure>> {
    let ground = Ground::make(PARTITIONS)?;
    let seconds = if plan.quick { 1 } else { 20 };
    runtime()?.block_on(async {
        let broker = ground.broker().await?;
        let group = Group::new(ground.topic.as_str())?;
        let mut consumer = broker.subscribe(Subscription::new(group.clone(), [ground.topic.clone()])).await?;
        // Until all is assigned and caught up.
        while let Ok(event) = timeout(Duration::from_secs(3), consumer.next()).await {
            event?;
        }
        let (woken, watch) = (switches(), Stopwatch::start());
        if let Ok(event) = timeout(Duration::from_secs(seconds), consumer.next()).await {
            return Err(format!("{:?} was told where nothing happens", event?).into());
        }
        let (wall, own) = watch.stop();
        let woken = switches().saturating_sub(woken);
        drop(consumer);
        broker.close(Duration::from_secs(10)).await;
        let figure =
            |what, value: f64, unit| Figure { what, value: value / wall.as_secs_f64(), unit, most: None };
        Ok(vec![
            figure("processor time", own.as_secs_f64() * 1e3, "ms/s"),
            figure("threads woken", woken as f64, "/s"),
        ])
    })
}
