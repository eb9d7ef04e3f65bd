//! What a broker takes of the machine while messages flow through it: memory, disk, threads, file handles.
//!
//! The broker runs in a process of its own, which is watched from outside: ten messages a commit or a thousand, what it holds is the same
//! at the beginning and at the end, or it grows. Not here: the half hour with faults (`tests/faults/`).

use super::embedded::{self, TOPIC};
use crate::{Result, cell::Figure, child, machine::Usage, rounds::Plan, statistics::median, work::Work};
use ropeway_broker::{
    ConsumerExt, Embedded, EmbeddedSettings, Event, Group, MessageBroker, Position, Publisher,
    PublisherSettings, Retention, Subscription, Topic, TopicSpec,
};
use std::{path::Path, process::Stdio, sync::Arc, thread::sleep, time::Duration};

const MIB: f64 = 1024.0 * 1024.0;

/// Watches a process that publishes and consumes; what it took.
pub(crate) fn run(plan: &Plan, place: &Path) -> Result<Vec<Figure>> {
    let dir = place.join("steady");
    let pause = Duration::from_millis(if plan.quick { 20 } else { 1000 });
    let numbers = [plan.steady_messages, plan.retention].map(|number| number.to_string());
    let mut process = child::start("steady", &dir, &numbers, Stdio::null())?;
    let mut seen: Vec<Usage> = Vec::new();
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        // The process may end while it is looked at.
        seen.extend(Usage::of(process.id(), &dir).filter(|usage| usage.resident > 0));
        sleep(pause);
    };
    std::fs::remove_dir_all(&dir)?;
    if !status.success() {
        return Err(format!("the process ended with {status}; what it says stands above").into());
    }
    Ok(figures(&seen, plan))
}

fn figures(seen: &[Usage], plan: &Plan) -> Vec<Figure> {
    let most = |of: fn(&Usage) -> u64| seen.iter().map(of).max().unwrap_or(0) as f64;
    let quarter = seen.len() / 4;
    let resident =
        |part: &[Usage]| median(&part.iter().map(|usage| usage.resident as f64).collect::<Vec<_>>());
    // The first quarter fills caches and tables.
    let early = resident(seen.get(quarter..2 * quarter).unwrap_or_default());
    let late = resident(seen.get(3 * quarter..).unwrap_or_default());
    let figure = |what, value, unit, most| Figure { what, value, unit, most };
    let disk = 2.0 * plan.retention as f64 / MIB + 256.0;
    vec![
        figure("peak resident", most(|usage| usage.peak) / MIB, "MiB", Some(150.0)),
        figure(
            "resident at the end, more than in the second quarter",
            (late - early) / MIB,
            "MiB",
            Some(10.0),
        ),
        figure("disk, the most", most(|usage| usage.disk) / MIB, "MiB", Some(disk)),
        figure("threads, the most", most(|usage| usage.threads), "", None),
        figure("file handles, the most", most(|usage| usage.handles), "", None),
        figure("samples", seen.len() as f64, "", None),
    ]
}

/// The process that is watched: publishes so many messages, kept up to `retention` bytes, and consumes them.
pub(crate) fn inside(dir: &Path, messages: u64, retention: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let work = Arc::new(Work::new(1024));
    runtime.block_on(async {
        let broker = Embedded::open(dir, EmbeddedSettings::default())?;
        let topic = Topic::new(TOPIC)?;
        let mut spec = TopicSpec::default();
        spec.retention = Retention { bytes: Some(retention / u64::from(spec.partitions)), ..spec.retention };
        broker.admin().create_topic(&topic, spec).await?;
        let mut consumer =
            broker.subscribe(Subscription::new(Group::new("watchers")?, [topic.clone()])).await?;
        let consuming = tokio::spawn(async move {
            let control = consumer.control();
            let mut count = 0;
            while count < messages {
                match consumer.next().await? {
                    Event::Batch(batch) => {
                        count += batch.deliveries.len() as u64;
                        let done: Vec<Position> = batch.deliveries.iter().map(|one| one.position).collect();
                        control.ack(&batch.of, &done)?;
                    }
                    Event::Gap { .. } | Event::Unreadable { .. } => return Err("a message was lost".into()),
                    _ => {}
                }
            }
            control.close(embedded::PATIENCE).await;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        let publisher = Publisher::new(broker.clone(), PublisherSettings::default())?;
        embedded::send(&publisher, &topic, &work, 1024, 0..messages).await?;
        tokio::time::timeout(embedded::PATIENCE, consuming).await???;
        broker.close(embedded::PATIENCE).await;
        Ok(())
    })
}
