//! sea-streamer: a consumer group that shares the load, with its own acks after a delay, which is its default.
//!
//! Not here: our side of that cell (`consume.rs`).

use super::server::{Server, words};
use crate::{Result, machine::Stopwatch, rounds::Turn, tasks::patiently, work::Work};
use sea_streamer_redis::{AutoStreamReset, RedisConnectOptions, RedisConsumerOptions, RedisStreamer};
use sea_streamer_types::{
    Buffer, Consumer, ConsumerGroup, ConsumerMode, ConsumerOptions, Message, StreamKey, Streamer, StreamerUri,
};

/// How many entries are written together before.
const TOGETHER: u64 = 1000;

/// Writes as many entries as long as ours, in its own form, and consumes them.
pub(super) async fn consume(server: &mut Server, work: &Work, messages: u64) -> Result<Turn> {
    let stream = server.stock();
    let key = StreamKey::new(stream.replace(':', "-"))?;
    let payload: String = words(&work.message(0)).into_iter().map(|(_, value)| value).collect();
    for from in (0..messages).step_by(TOGETHER as usize) {
        let mut pipeline = ::redis::pipe();
        for _ in from..messages.min(from + TOGETHER) {
            pipeline.cmd("XADD").arg(key.name()).arg("*").arg("msg").arg(&payload).ignore();
        }
        server.write(&pipeline)?;
    }
    let uri: StreamerUri = server.url.parse()?;
    let streamer = RedisStreamer::connect(uri, RedisConnectOptions::default()).await?;
    let mut options = RedisConsumerOptions::new(ConsumerMode::LoadBalanced);
    options.set_consumer_group(ConsumerGroup::new("counters"))?;
    options.set_auto_stream_reset(AutoStreamReset::Earliest);
    // Its default is 10.
    options.set_batch_size(256);
    let (before, watch) = (server.cpu()?, Stopwatch::start());
    let consumer = streamer.create_consumer(std::slice::from_ref(&key), options).await?;
    let all = async {
        let mut bytes = 0;
        for _ in 0..messages {
            bytes += consumer.next().await?.message().size();
        }
        Result::Ok(bytes)
    };
    let bytes = patiently(all).await??;
    let turn = server.turn(messages, &watch, before)?;
    consumer.end().await?;
    if bytes as u64 != messages * payload.len() as u64 {
        return Err("sea-streamer read other bytes than were written".into());
    }
    server.write(::redis::pipe().cmd("UNLINK").arg(key.name()).ignore())?;
    Ok(turn)
}
