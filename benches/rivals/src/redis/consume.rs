//! Consuming with acks, beside a consumer group of Redis read by redis-rs, and beside sea-streamer.
//!
//! Ours is a processor whose handler does nothing. It ends when everything is handled and its acks are stored. Not here: how sea-streamer is used
//! (`sea.rs`), consumers that have much before them or nothing (`resting.rs`).

use super::{
    TOPIC, sea,
    server::{Server, words},
};
use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    tasks::{Handled, handle, runtime, unacked},
    work::Work,
};
use ::redis::{
    AsyncCommands, AsyncConnectionConfig,
    streams::{StreamReadOptions, StreamReadReply},
};
use ropeway_broker::{Group, Subscription, Topic};
use std::{path::Path, time::Duration};

/// Entries that the rival reads, and acks, at once.
const AT_ONCE: usize = 256;
const GROUP: &str = "counters";

/// Beside whom.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rival {
    /// `XREADGROUP` and `XACK` by redis-rs.
    Group,
    SeaStreamer,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measure {
    Time,
    /// Processor time of the server: messages for each second of it.
    Server,
}

/// The pair of such a cell.
pub(crate) struct Consume {
    work: Work,
    messages: u64,
    rival: Rival,
    measure: Measure,
}

impl Consume {
    pub(crate) fn pair(
        plan: &Plan,
        payload: usize,
        messages: u64,
        rival: Rival,
        measure: Measure,
    ) -> Box<dyn Pair> {
        Box::new(Self { work: Work::new(payload), messages: plan.messages(messages), rival, measure })
    }

    fn measured(&self, mut turn: Turn) -> Turn {
        if let (Measure::Server, Some((_, micros))) = (self.measure, turn.facts.first()) {
            turn.wall = Duration::from_secs_f64(micros * 1e-6 * turn.messages as f64);
        }
        turn
    }
}

impl Pair for Consume {
    fn ours(&mut self, dir: &Path) -> Result<Turn> {
        let mut server = Server::start(dir)?;
        let turn = runtime()?.block_on(async {
            let broker = server.broker(1).await?;
            Server::fill(&*broker, &self.work, self.messages).await?;
            let (before, watch) = (server.cpu()?, Stopwatch::start());
            let subscription = Subscription::new(Group::new(GROUP)?, [Topic::new(TOPIC)?]);
            handle(broker.clone(), subscription, Handled::new(0, self.messages)).await?;
            let turn = server.turn(self.messages, &watch, before)?;
            let left = unacked(&*broker, GROUP).await?;
            if left > 0 {
                return Err(format!("{left} messages are not acked").into());
            }
            Result::Ok(turn)
        })?;
        Ok(self.measured(turn))
    }

    fn rival(&mut self, dir: &Path) -> Result<Turn> {
        let mut server = Server::start(dir)?;
        let turn = runtime()?.block_on(async {
            if let Rival::SeaStreamer = self.rival {
                return sea::consume(&mut server, &self.work, self.messages).await;
            }
            let broker = server.broker(1).await?;
            Server::fill(&*broker, &self.work, self.messages).await?;
            let log = server.log(0);
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let client = ::redis::Client::open(&*server.url)?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let (before, watch) = (server.cpu()?, Stopwatch::start());
            let _: () = connection.xgroup_create(&log, GROUP, "0").await?;
            let options = StreamReadOptions::default().group(GROUP, "one").count(AT_ONCE);
            let mut seen = 0;
            let mut bytes = 0;
            while seen < self.messages {
                let reply: Option<StreamReadReply> =
                    connection.xread_options(&[&log], &[">"], &options).await?;
                let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids);
                let mut done = Vec::with_capacity(AT_ONCE);
                for entry in entries {
                    bytes += entry.get::<Vec<u8>>("payload").map_or(0, |payload| payload.len());
                    done.push(entry.id);
                }
                if done.is_empty() {
                    return Err(format!("{seen} messages of {} came", self.messages).into());
                }
                seen += connection.xack::<_, _, _, u64>(&log, GROUP, &done).await?;
            }
            let payload = words(&self.work.message(0)).pop().map_or(0, |(_, payload)| payload.len());
            if bytes as u64 != self.messages * payload as u64 {
                return Err("the group read other bytes than were written".into());
            }
            server.turn(self.messages, &watch, before)
        })?;
        Ok(self.measured(turn))
    }
}
