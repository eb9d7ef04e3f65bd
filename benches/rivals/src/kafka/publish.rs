//! Publishing batches, beside a loop over `rd_kafka_produceva` with as many messages under way.
//!
//! Not here: the server and what others are told (`ground.rs`), the loop (`bare.rs`).

use super::{bare::Producer, ground::Ground};
use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    tasks::{many, runtime},
    work::Work,
};
use ropeway_broker::MessageBroker;
use std::{ops::Range, path::Path, sync::Arc, time::Duration};

/// Messages of a batch.
const BATCH: u64 = 256;
/// Batches that are under way. What waits in the loop beside it is bounded by as many messages.
const AT_ONCE: usize = 128;
const PARTITIONS: u32 = 4;

/// The pair of such a cell.
pub(crate) struct Publish {
    work: Arc<Work>,
    /// Those before the watch starts.
    warm: u64,
    messages: u64,
}

impl Publish {
    pub(crate) fn pair(plan: &Plan, payload: usize, messages: u64) -> Box<dyn Pair> {
        let messages = plan.messages(messages);
        Box::new(Self { work: Arc::new(Work::new(payload)), warm: messages / 5, messages })
    }

    /// Those before the watch starts, and those that are timed.
    fn parts(&self) -> (Range<u64>, Range<u64>) {
        (0..self.warm, self.warm..self.warm + self.messages)
    }

    fn turn(&self, side: Side, ground: &Ground) -> Result<Turn> {
        let (warm, timed) = self.parts();
        let (wall, cpu) = match side {
            Side::Ours => runtime()?.block_on(async {
                let broker = ground.broker().await?;
                send(ground, &broker, &self.work, warm).await?;
                let watch = Stopwatch::start();
                send(ground, &broker, &self.work, timed).await?;
                let took = watch.stop();
                broker.close(Duration::from_secs(5)).await;
                Result::Ok(took)
            })?,
            Side::Rival => {
                let most = AT_ONCE * BATCH as usize;
                let mut producer = Producer::open(ground, most, &self.work.message(0))?;
                producer.send(&self.work, warm)?;
                let watch = Stopwatch::start();
                producer.send(&self.work, timed)?;
                watch.stop()
            }
        };
        Ok(Turn { messages: self.messages, wall, cpu, facts: Vec::new() })
    }

    fn checked(&self, side: Side) -> Result<Turn> {
        let ground = Ground::make(PARTITIONS)?;
        let turn = self.turn(side, &ground)?;
        ground.check(&self.work, self.parts().1.end, side.name())?;
        Ok(turn)
    }

    /// One side by itself, so that it can be watched from outside.
    pub(super) fn alone(payload: usize, messages: u64, side: Side) -> Result<()> {
        let publish = Self { work: Arc::new(Work::new(payload)), warm: 0, messages };
        publish.turn(side, &Ground::make(PARTITIONS)?)?;
        Ok(())
    }
}

/// Who publishes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Side {
    Ours,
    Rival,
}

impl Side {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Rival => "rival",
        }
    }
}

impl Pair for Publish {
    fn ours(&mut self, _: &Path) -> Result<Turn> {
        self.checked(Side::Ours)
    }

    fn rival(&mut self, _: &Path) -> Result<Turn> {
        self.checked(Side::Rival)
    }
}

/// So many tasks, each with one batch on its way.
pub(super) async fn send(
    ground: &Ground,
    broker: &Arc<dyn MessageBroker>,
    work: &Arc<Work>,
    messages: Range<u64>,
) -> Result<()> {
    let (broker, work, target) = (broker.clone(), work.clone(), ground.target());
    many(AT_ONCE, messages, BATCH, move |piece| {
        let published = broker.publish(&target, piece.map(|i| work.message(i)).collect());
        async move { published.await.all_acked() }
    })
    .await
}
