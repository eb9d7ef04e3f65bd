//! Many tasks that each await one message, beside the same tasks over the multiplexed connection of redis-rs.
//!
//! Not here: publishing batches (`publish.rs`), the server (`server.rs`).

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
use ::redis::AsyncConnectionConfig;
use ropeway_broker::{Publisher, PublisherSettings, Topic};
use std::{ops::Range, path::Path, sync::Arc};

const AT_ONCE: usize = 1024;

/// The pair of that cell.
pub(crate) struct Awaited {
    work: Arc<Work>,
    messages: u64,
}

impl Awaited {
    pub(crate) fn pair(plan: &Plan, payload: usize, messages: u64) -> Box<dyn Pair> {
        Box::new(Self { work: Arc::new(Work::new(payload)), messages: plan.messages(messages) })
    }

    fn parts(&self) -> (Range<u64>, Range<u64>) {
        let warm = self.messages / 5;
        (0..warm, warm..warm + self.messages)
    }

    fn check(&self, server: &mut Server, stream: &str) -> Result<()> {
        let (length, _) = server.stream(stream)?;
        let expected = self.parts().1.end;
        if length == expected { Ok(()) } else { Err(format!("{length} entries of {expected}").into()) }
    }
}

/// So many tasks, each of which awaits one message after the other.
async fn each<F: Future<Output = bool> + Send>(
    messages: Range<u64>,
    one: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<()> {
    many(AT_ONCE, messages, 1, move |piece| one(piece.start)).await
}

impl Pair for Awaited {
    fn ours(&mut self, dir: &Path) -> Result<Turn> {
        let mut server = Server::start(dir)?;
        let (warm, timed) = self.parts();
        let turn = runtime()?.block_on(async {
            let publisher = Publisher::new(server.broker(1).await?, PublisherSettings::default())?;
            let (topic, work) = (Topic::new(TOPIC)?, self.work.clone());
            let one = move |i| {
                let (publisher, topic, message) = (publisher.clone(), topic.clone(), work.message(i));
                async move { publisher.publish(&topic, message).await.is_ok() }
            };
            each(warm, one.clone()).await?;
            let (before, watch) = (server.cpu()?, Stopwatch::start());
            each(timed, one).await?;
            server.turn(self.messages, &watch, before)
        })?;
        let log = server.log(0);
        self.check(&mut server, &log)?;
        Ok(turn)
    }

    fn rival(&mut self, dir: &Path) -> Result<Turn> {
        let mut server = Server::start(dir)?;
        let stream = server.stock();
        let (warm, timed) = self.parts();
        let turn = runtime()?.block_on(async {
            // The settings that served it best; its defaults wait after half a second.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(AT_ONCE)
                .set_write_backpressure_boundary(1 << 20);
            let client = ::redis::Client::open(&*server.url)?;
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let (key, work, like) = (stream.clone(), self.work.clone(), words(&self.work.message(0)));
            let one = move |i| {
                let (message, mut connection) = (work.message(i), connection.clone());
                let mut command = ::redis::cmd("XADD");
                command.arg(&key).arg("*").arg("id").arg(&message.id.as_u128().to_be_bytes()[..]);
                command.arg("ts").arg(message.timestamp.as_millis());
                command.arg("key").arg(message.key.as_deref().unwrap_or_default());
                command.arg(like[3].0).arg(&message.headers.packed()[..]);
                command.arg("payload").arg(message.payload.as_deref().unwrap_or_default());
                async move { command.query_async::<String>(&mut connection).await.is_ok() }
            };
            each(warm, one.clone()).await?;
            let (before, watch) = (server.cpu()?, Stopwatch::start());
            each(timed, one).await?;
            server.turn(self.messages, &watch, before)
        })?;
        self.check(&mut server, &stream)?;
        Ok(turn)
    }
}
