//! How long messages wait for their ack at half of the loop's rate, in an open loop: ours, and the loop over `rd_kafka_produceva`.
//!
//! What is told is the time from when a message was due, by a timetable that waits for nobody, to when its sender knew that it is written. Not here: the
//! loop (`bare.rs`), the timetable (`benches/src/pace.rs`).

use super::{bare::Producer, ground::Ground};
use crate::{
    Result,
    cell::Figure,
    rounds::Plan,
    statistics::{median, quantile},
    tasks::{PATIENCE, runtime},
    work::Work,
};
use ropeway_bench::{
    pace::{Pace, Rate},
    ratio::first_goes_first,
};
use ropeway_broker::{Publisher, PublisherSettings};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::sleep,
    time::Duration,
};
use tokio::time::Instant;

const PARTITIONS: u32 = 4;
const PAYLOAD: usize = 64;
/// How many messages wait in the loop at the most.
const MOST: usize = 32_768;
/// How many messages are sent to find out how many there are in a second.
const FULL: u64 = 300_000;
/// How long each turn takes, in seconds.
const TURN: f64 = 4.0;
/// How often it is looked what is due.
const TICK: Duration = Duration::from_micros(200);

/// From when each message was due until it was known to be written.
pub(super) struct Waits {
    start: Instant,
    pace: Pace,
    micros: Vec<f64>,
}

impl Waits {
    fn of(rate: Rate) -> Self {
        Self { start: Instant::now(), pace: Pace::of(rate, 1, 0), micros: Vec::new() }
    }

    /// That message is known to be written now.
    pub(super) fn end(&mut self, number: u64) {
        let waited = self.start.elapsed().saturating_sub(self.pace.due(number));
        self.micros.push(waited.as_secs_f64() * 1e6);
    }

    /// How many of `count` messages are due.
    fn due(&self, count: u64) -> u64 {
        self.pace.due_by(self.start.elapsed()).min(count)
    }
}

/// Quantiles of one side, of each turn.
#[derive(Default)]
struct Side {
    half: Vec<f64>,
    p99: Vec<f64>,
    p999: Vec<f64>,
}

impl Side {
    fn add(&mut self, micros: &[f64]) {
        self.half.push(quantile(micros, 0.5));
        self.p99.push(quantile(micros, 0.99));
        self.p999.push(quantile(micros, 0.999));
    }

    fn figures(&self, names: [&'static str; 3]) -> impl Iterator<Item = Figure> {
        let values = [&self.half, &self.p99, &self.p999].map(|all| median(all) / 1e3);
        names.into_iter().zip(values).map(|(what, value)| Figure { what, value, unit: "ms", most: None })
    }
}

/// The rate, and the quantiles of both: the medians of all turns.
pub(crate) fn run(plan: &Plan, _: &Path) -> Result<Vec<Figure>> {
    let work = Work::new(PAYLOAD);
    let rate = Rate::per_second(full(&work, plan.messages(FULL))? / 2.0).ok_or("there is no such rate")?;
    let count = plan.messages((rate.in_a_second() * TURN) as u64);
    let (mut own, mut other) = (Side::default(), Side::default());
    for round in 0..plan.rounds {
        let first = first_goes_first(round as usize);
        for is_own in [first, !first] {
            let ground = Ground::make(PARTITIONS)?;
            if is_own {
                own.add(&ours(&ground, &work, rate, count)?);
            } else {
                other.add(&bare(&ground, &work, rate, count)?);
            }
            ground.check(&work, count, if is_own { "ropeway" } else { "the loop" })?;
        }
    }
    let at = Figure { what: "rate", value: rate.in_a_second(), unit: "/s", most: None };
    let own = own.figures(["half within", "99 % within", "99.9 % within"]);
    let other = other.figures(["half of the loop's within", "99 % of the loop's", "99.9 % of the loop's"]);
    Ok([at].into_iter().chain(own).chain(other).collect())
}

/// How many messages the loop publishes in a second.
fn full(work: &Work, count: u64) -> Result<f64> {
    let ground = Ground::make(PARTITIONS)?;
    let mut producer = Producer::open(&ground, MOST, &work.message(0))?;
    producer.send(work, 0..1)?;
    let start = Instant::now();
    producer.send(work, 1..count)?;
    Ok((count - 1) as f64 / start.elapsed().as_secs_f64())
}

/// The loop produces what is due, and asks for deliveries, in turns.
fn bare(ground: &Ground, work: &Work, rate: Rate, count: u64) -> Result<Vec<f64>> {
    let mut producer = Producer::open(ground, MOST, &work.message(0))?;
    // The first one waits for the number that a server gives to the client.
    producer.send(work, 0..1)?;
    producer.note(Waits::of(rate));
    let mut next = 1;
    while next < count {
        let due = producer.noted(|waits| waits.due(count)).unwrap_or(count);
        for i in next..due {
            producer.produce(&work.message(i), i)?;
        }
        next = next.max(due);
        producer.poll(0);
        sleep(TICK);
    }
    producer.flush()?;
    Ok(producer.noted(|waits| std::mem::take(&mut waits.micros)).unwrap_or_default())
}

/// A publisher is given what is due, and calls back.
fn ours(ground: &Ground, work: &Work, rate: Rate, count: u64) -> Result<Vec<f64>> {
    let runtime = runtime()?;
    let broker = runtime.block_on(ground.broker())?;
    let publisher = Publisher::new(broker.clone(), PublisherSettings::default())?;
    runtime.block_on(publisher.publish(&ground.topic, work.message(0)))?;
    let waits = Arc::new(Mutex::new(Waits::of(rate)));
    let lock = || waits.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = 1;
    while next < count {
        let due = lock().due(count);
        runtime.block_on(async {
            for i in next..due {
                let waits = Arc::clone(&waits);
                let tell = move |told: std::result::Result<_, _>| {
                    if told.is_ok() {
                        waits.lock().unwrap_or_else(PoisonError::into_inner).end(i);
                    }
                };
                publisher.publish_with(&ground.topic, work.message(i), tell).await?;
            }
            Result::Ok(())
        })?;
        next = next.max(due);
        sleep(TICK);
    }
    runtime.block_on(publisher.close(PATIENCE))?;
    runtime.block_on(broker.close(Duration::from_secs(5)));
    let micros = std::mem::take(&mut lock().micros);
    Ok(micros)
}
