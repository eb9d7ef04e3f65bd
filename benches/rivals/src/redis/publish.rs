//! Publishing batches, beside `redis-benchmark` with as many commands on their way.
//!
//! One topic of one partition, as `redis-benchmark` has one stream. Not here: messages that are awaited one by one (`awaited.rs`), the server (`server.rs`).

use super::{
    TOPIC,
    server::{Server, words},
};
use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    tasks::{many, runtime},
    work::Work,
};
use ropeway_broker::{MessageBroker, Target, Topic};
use std::{ops::Range, path::Path, process::Command, sync::Arc, time::Duration};

/// Messages of a batch, and commands of a pipeline.
const BATCH: u64 = 64;
/// Tasks that have a batch on its way, and connections.
const AT_ONCE: u64 = 50;

/// The pair of such a cell.
pub(crate) struct Publish {
    work: Arc<Work>,
    messages: u64,
}

impl Publish {
    pub(crate) fn pair(plan: &Plan, payload: usize, messages: u64) -> Box<dyn Pair> {
        Box::new(Self { work: Arc::new(Work::new(payload)), messages: plan.messages(messages) })
    }

    /// Entries before the watch starts.
    fn warm(&self) -> u64 {
        self.messages / 5
    }

    /// Whether the stream has all that was written, and no more than `more` beside it.
    fn check(&self, server: &mut Server, stream: &str, warm: u64, more: u64) -> Result<()> {
        let (length, bytes) = server.stream(stream)?;
        let like = words(&self.work.message(0));
        let expected: usize = like.iter().map(|(name, value)| name.len() + value.len()).sum();
        let least = warm + self.messages;
        if (least..=least + more).contains(&length) && bytes == expected {
            return Ok(());
        }
        Err(format!("the stream has {length} entries, the last of {bytes} bytes instead of {expected}")
            .into())
    }
}

impl Pair for Publish {
    fn ours(&mut self, dir: &Path) -> Result<Turn> {
        let mut server = Server::start(dir)?;
        let turn = runtime()?.block_on(async {
            let broker = server.broker(1).await?;
            send(&broker, &self.work, 0..self.warm()).await?;
            let (before, watch) = (server.cpu()?, Stopwatch::start());
            send(&broker, &self.work, self.warm()..self.warm() + self.messages).await?;
            server.turn(self.messages, &watch, before)
        })?;
        let log = server.log(0);
        self.check(&mut server, &log, self.warm(), 0)?;
        Ok(turn)
    }

    fn rival(&mut self, dir: &Path) -> Result<Turn> {
        let mut server = Server::start(dir)?;
        let stream = server.stock();
        benchmark(&server, &stream, &self.work, self.warm().max(1))?;
        let (before, used) = (server.cpu()?, children());
        let rate = benchmark(&server, &stream, &self.work, self.messages)?;
        let cpu = children().saturating_sub(used);
        let mut turn = server.turn(self.messages, &Stopwatch::start(), before)?;
        (turn.wall, turn.cpu) = (Duration::from_secs_f64(self.messages as f64 / rate), cpu);
        // Its pipelines are whole.
        self.check(&mut server, &stream, self.warm().max(1), 2 * BATCH)?;
        Ok(turn)
    }
}

/// So many tasks, each with one batch on its way.
async fn send(broker: &Arc<dyn MessageBroker>, work: &Arc<Work>, messages: Range<u64>) -> Result<()> {
    let (broker, work, target) = (broker.clone(), work.clone(), Target::from(Topic::new(TOPIC)?));
    many(AT_ONCE as usize, messages, BATCH, move |piece| {
        let published = broker.publish(&target, piece.map(|i| work.message(i)).collect());
        async move { published.await.all_acked() }
    })
    .await
}

/// What `redis-benchmark` reaches with so many `XADD`s, in commands a second.
fn benchmark(server: &Server, stream: &str, work: &Work, count: u64) -> Result<f64> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-u", &server.url, "-q", "-P", &BATCH.to_string(), "-c", &AT_ONCE.to_string()]);
    command.args(["-n", &count.to_string(), "XADD", stream, "*"]);
    for (name, value) in words(&work.message(0)) {
        command.args([name, &value]);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.rsplit_once(" requests per second").and_then(|(before, _)| before.rsplit_once(' '));
    let rate = told.and_then(|(_, rate)| rate.parse().ok());
    rate.ok_or_else(|| format!("redis-benchmark ended with {}: {text}", output.status).into())
}

/// Processor time of processes that were started here and have ended, to a hundredth of a second.
fn children() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
