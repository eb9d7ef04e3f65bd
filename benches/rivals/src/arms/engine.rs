//! Handlers that sleep: the processor beside a bare loop of tasks that does the same sleeps over the same sequence of keys, and keeps each
//! key's order too.
//!
//! All messages are there before the watch starts. Besides the rate it is told when the messages of all keys but the hottest were
//! handled, counted from the start. Not here: what one stuck key does to others, exactly (a test under the paused clock, in `processor/`).

use crate::{
    Result,
    cell::Pair,
    machine::Stopwatch,
    rounds::{Plan, Turn},
    statistics::quantile,
};
use bytes::Bytes;
use ropeway_bench::keys::{self, KeySpread, Keys};
use ropeway_broker::{
    Bound, Embedded, EmbeddedSettings, Group, Message, MessageBroker, MessageId, Subscription, Target, Topic,
    TopicSpec,
};
use ropeway_processor::{BoxError, Processor, Router, Verdict, raw};
use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Handlers at a time, and tasks of the loop.
const AT_ONCE: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(120);

/// The pair of such a cell.
pub(crate) struct Engine {
    pause: Duration,
    /// The key of each message, by number.
    keys: Arc<[u32]>,
}

impl Engine {
    pub(crate) fn pair(plan: &Plan, pause_ms: u64, spread: KeySpread, messages: u64) -> Box<dyn Pair> {
        let mut drawn = Keys::new(spread, 1);
        let messages = if plan.quick { messages.min(100) } else { messages };
        let keys = (0..messages).map(|_| drawn.draw().unwrap_or_default()).collect();
        Box::new(Self { pause: Duration::from_millis(pause_ms), keys })
    }

    fn messages(&self) -> Vec<Message> {
        let names: HashMap<u32, Bytes> =
            self.keys.iter().map(|key| (*key, keys::name(*key).into())).collect();
        let message = |(i, key): (usize, &u32)| {
            Message::builder()
                .id(MessageId::from_u128(i as u128))
                .key(names[key].clone())
                .payload(Bytes::from_static(&[b'x'; 64]))
                .build()
        };
        self.keys.iter().enumerate().map(message).collect()
    }

    fn turn(&self, watch: &Stopwatch, handled: &Handled) -> Result<Turn> {
        let (wall, cpu) = watch.stop();
        let facts = handled.finish()?;
        Ok(Turn { messages: self.keys.len() as u64, wall, cpu, facts })
    }
}

/// What was handled, when, and whether in order.
struct Handled {
    keys: Arc<[u32]>,
    pause: Duration,
    start: Instant,
    /// Microseconds from the start to the end of each message.
    ended: Vec<AtomicU64>,
    /// One more than the last message of each key.
    last: Vec<AtomicU32>,
    left: AtomicU64,
    disordered: AtomicBool,
    all: Notify,
}

impl Handled {
    fn new(engine: &Engine) -> Arc<Self> {
        let keys = engine.keys.clone();
        let most = keys.iter().max().map_or(0, |key| *key as usize + 1);
        Arc::new(Self {
            pause: engine.pause,
            start: Instant::now(),
            ended: keys.iter().map(|_| AtomicU64::new(0)).collect(),
            last: (0..most).map(|_| AtomicU32::new(0)).collect(),
            left: AtomicU64::new(keys.len() as u64),
            disordered: AtomicBool::new(false),
            all: Notify::new(),
            keys,
        })
    }

    /// What a handler does: notes that it began, sleeps, and notes that it ended.
    async fn handle(&self, i: usize) {
        let last = &self.last[self.keys[i] as usize];
        let before = last.swap(i as u32 + 1, Relaxed);
        // The one before has ended, too: otherwise two of a key run at once.
        let overlaps = before > 0 && self.ended[before as usize - 1].load(Relaxed) == 0;
        if before > i as u32 || overlaps {
            self.disordered.store(true, Relaxed);
        }
        sleep(self.pause).await;
        self.ended[i].store(self.start.elapsed().as_micros() as u64, Relaxed);
        if self.left.fetch_sub(1, Relaxed) == 1 {
            self.all.notify_one();
        }
    }

    async fn wait(&self) -> Result<()> {
        let late = |_| format!("{} messages are left after {PATIENCE:?}", self.left.load(Relaxed));
        Ok(timeout(PATIENCE, self.all.notified()).await.map_err(late)?)
    }

    fn finish(&self) -> Result<Vec<(&'static str, f64)>> {
        if self.disordered.load(Relaxed) {
            return Err("messages of one key were handled out of order, or at the same time".into());
        }
        let mut counts: HashMap<u32, u32> = HashMap::new();
        self.keys.iter().for_each(|key| *counts.entry(*key).or_default() += 1);
        let hottest = counts.into_iter().max_by_key(|(_, count)| *count).map(|(key, _)| key);
        let others: Vec<f64> = self
            .ended
            .iter()
            .zip(&*self.keys)
            .filter(|(_, key)| Some(**key) != hottest)
            .map(|(ended, _)| ended.load(Relaxed) as f64 / 1e3)
            .collect();
        Ok(vec![("other keys p50 ms", quantile(&others, 0.5)), ("p99 ms", quantile(&others, 0.99))])
    }
}

impl Pair for Engine {
    fn ours(&mut self, _: &Path) -> Result<Turn> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let broker = Embedded::memory(EmbeddedSettings::default())?;
            let topic = Topic::new("orders")?;
            broker.admin().create_topic(&topic, TopicSpec::default()).await?;
            for batch in self.messages().chunks(256) {
                let outcomes = broker.publish(&Target::from(&topic), batch.to_vec()).await;
                if outcomes.0.iter().any(|outcome| outcome.failed().is_some()) {
                    return Err("a message was not published".into());
                }
            }
            let subscription = Subscription {
                in_flight: Bound { messages: 32 * AT_ONCE, bytes: 64 * 1024 * 1024 },
                ..Subscription::new(Group::new("sleepers")?, [topic])
            };
            let (watch, handled) = (Stopwatch::start(), Handled::new(self));
            let handling = handled.clone();
            let handler = raw(move |event, _| {
                let handled = handling.clone();
                async move {
                    handled.handle(event.id().as_u128() as usize).await;
                    Ok::<_, BoxError>(Verdict::Done)
                }
            });
            let processor = Processor::builder(broker, subscription)
                .router(Router::new().on("*", handler))
                .concurrency(AT_ONCE)
                .start()
                .await?;
            handled.wait().await?;
            let turn = self.turn(&watch, &handled)?;
            processor.shutdown(PATIENCE).await;
            Ok(turn)
        })
    }

    fn rival(&mut self, _: &Path) -> Result<Turn> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let messages = self.messages().into();
        runtime.block_on(async {
            let (watch, handled) = (Stopwatch::start(), Handled::new(self));
            let feed = Arc::new(Feed { messages, state: Mutex::default() });
            let mut tasks = JoinSet::new();
            for _ in 0..AT_ONCE {
                tasks.spawn(work(feed.clone(), handled.clone()));
            }
            handled.wait().await?;
            let turn = self.turn(&watch, &handled);
            tasks.join_all().await;
            turn
        })
    }
}

/// The sequence of messages, and what waits behind a message of its key.
struct Feed {
    messages: Arc<[Message]>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: usize,
    /// The keys at work, and the messages that wait behind each.
    behind: HashMap<Bytes, VecDeque<usize>>,
}

impl Feed {
    /// The next message to be handled, given the one that ended: the next of its key, or else of the sequence.
    fn next(&self, ended: Option<usize>) -> Option<usize> {
        let key = |i: usize| self.messages[i].key.as_ref();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = ended.and_then(key) {
            match state.behind.get_mut(key).and_then(VecDeque::pop_front) {
                None => _ = state.behind.remove(key),
                next => return next,
            }
        }
        loop {
            let i = state.next;
            let key = self.messages.get(i)?.key.as_ref()?;
            state.next += 1;
            match state.behind.get_mut(key) {
                Some(behind) => behind.push_back(i),
                None => {
                    state.behind.insert(key.clone(), VecDeque::new());
                    return Some(i);
                }
            }
        }
    }
}

async fn work(feed: Arc<Feed>, handled: Arc<Handled>) {
    let mut ended = None;
    while let Some(i) = feed.next(ended) {
        handled.handle(i).await;
        ended = Some(i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_loop_keeps_a_key_in_order_and_gives_each_message_once() {
        let keys = ["a", "b", "a", "a", "b", "c"];
        let messages = keys.map(|key| Message::builder().key(key).build());
        let feed = Feed { messages: messages.into(), state: Mutex::default() };
        assert_eq!([None; 4].map(|ended| feed.next(ended)), [Some(0), Some(1), Some(5), None]);
        assert_eq!(feed.next(Some(0)), Some(2));
        assert_eq!(feed.next(Some(5)), None);
        assert_eq!(feed.next(Some(2)), Some(3));
        assert_eq!(feed.next(Some(1)), Some(4));
        assert_eq!([3, 4].map(|ended| feed.next(Some(ended))), [None, None]);
    }
}
