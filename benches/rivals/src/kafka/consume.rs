//! Consuming with acks, beside a loop over `rd_kafka_consume_batch_queue`, and beside the `StreamConsumer` of rdkafka.
//!
//! Ours is a processor whose handler does nothing, which keeps keys in order. All turns of a cell read the same topic, each as a group of its own.
//! Who is beside it stores offsets as it takes records, and lets the library commit them. Not here: the loop (`bare.rs`).

use super::{
    bare,
    ground::{CONSUMER, Ground},
};
use crate::{
    Result,
    cell::Pair,
    rounds::{Plan, Turn},
    tasks::{Handled, handle, patiently, runtime, unacked},
    work::Work,
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{CommitMode, Consumer, StreamConsumer},
};
use ropeway_broker::{Group, Subscription};
use std::{path::Path, time::Duration};
use tokio::time::Instant;

const PARTITIONS: u32 = 4;
/// How long a loop may see nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// Beside whom.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rival {
    /// The loop, which looks at keys and payloads.
    Loop,
    /// The same, and at headers.
    LoopWithHeaders,
    /// `StreamConsumer::recv`, each message detached from what it came with.
    Stream,
}

/// The pair of such a cell.
pub(crate) struct Consume {
    work: Work,
    messages: u64,
    rival: Rival,
    ground: Option<Ground>,
    turns: u32,
}

impl Consume {
    pub(crate) fn pair(plan: &Plan, payload: usize, messages: u64, rival: Rival) -> Box<dyn Pair> {
        let (work, messages) = (Work::new(payload), plan.messages(messages));
        Box::new(Self { work, messages, rival, ground: None, turns: 0 })
    }

    /// The topic, filled, and the name of a new group.
    fn ground(&mut self) -> Result<(&Ground, String)> {
        if self.ground.is_none() {
            let ground = Ground::make(PARTITIONS)?;
            ground.fill(&self.work, self.messages)?;
            self.ground = Some(ground);
        }
        let ground = self.ground.as_ref().ok_or("there is no topic")?;
        self.turns += 1;
        Ok((ground, format!("{}-{}", ground.topic, self.turns)))
    }
}

impl Pair for Consume {
    fn ours(&mut self, _: &Path) -> Result<Turn> {
        let messages = self.messages;
        let (ground, group) = self.ground()?;
        let handled = Handled::new(messages / 6, messages);
        runtime()?.block_on(async {
            let broker = ground.broker().await?;
            let subscription = Subscription::new(Group::new(&*group)?, [ground.topic.clone()]);
            handle(broker.clone(), subscription, handled.clone()).await?;
            let left = unacked(&*broker, &group).await?;
            broker.admin().delete_group(&Group::new(&*group)?).await?;
            broker.close(Duration::from_secs(5)).await;
            if left > 0 { Err(format!("{left} messages are not acked").into()) } else { Result::Ok(()) }
        })?;
        handled.turn()
    }

    fn rival(&mut self, _: &Path) -> Result<Turn> {
        let (messages, rival) = (self.messages, self.rival);
        let first = self.work.message(0);
        let each =
            [&first.key, &first.payload].into_iter().flatten().map(|part| part.len() as u64).sum::<u64>()
                + match rival {
                    Rival::LoopWithHeaders => {
                        36 + first
                            .headers
                            .iter()
                            .map(|(_, value)| value.map_or(0, |value| value.len() as u64))
                            .sum::<u64>()
                    }
                    Rival::Loop | Rival::Stream => 0,
                };
        let (ground, group) = self.ground()?;
        let handled = Handled::new(messages / 6, messages);
        let bytes = match rival {
            Rival::Stream => runtime()?.block_on(stream(ground, &group, &handled))?,
            Rival::Loop | Rival::LoopWithHeaders => {
                let headers = matches!(rival, Rival::LoopWithHeaders);
                let mut consumer = bare::Consumer::open(ground, &group)?;
                let (mut bytes, mut last) = (0, Instant::now());
                while !handled.is_reached() {
                    let taken = consumer.take(headers)?;
                    if taken.messages > 0 {
                        last = Instant::now();
                        bytes += taken.bytes;
                        handled.add(taken.messages);
                    } else if last.elapsed() > SILENCE {
                        return Err("no messages come".into());
                    }
                }
                consumer.commit();
                bytes
            }
        };
        if bytes != each * messages {
            return Err("other bytes were read than were written".into());
        }
        handled.turn()
    }
}

/// Receives messages one by one and makes each its own; answers how many bytes keys and payloads had.
async fn stream(ground: &Ground, group: &str, handled: &Handled) -> Result<u64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", ground.servers()).set("group.id", group);
    CONSUMER.iter().for_each(|(name, value)| _ = config.set(*name, *value));
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&[ground.topic.as_str()])?;
    let mut bytes = 0;
    let all = async {
        while !handled.is_reached() {
            let message = consumer.recv().await?.detach();
            bytes += message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
            handled.add(1);
        }
        Result::Ok(())
    };
    patiently(all).await??;
    consumer.commit_consumer_state(CommitMode::Sync)?;
    Ok(bytes as u64)
}
