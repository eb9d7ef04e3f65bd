//! Plain channels: what is published reaches who is subscribed at that moment, and nobody else.
//!
//! A subscription is a connection of its own and a task that reads it into a bounded buffer. It mends itself; what was missed meanwhile, or
//! did not fit, is told in its place. Not here: anything durable (that is for streams).

use super::{
    Redis,
    dial::{self, Line},
    error::{Error, ErrorKind, Result, error_of},
    metrics::RedisMetrics,
    request::Resend,
    settings::RedisSettings,
    topology::Topology,
    wire::Reply,
};
use ::redis::{Cmd, Value, cmd};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

/// What a subscription receives, in order.
#[derive(Clone, Debug)]
pub enum Received {
    /// Something was published.
    Payload {
        /// On this channel.
        channel: Bytes,
        /// This.
        payload: Bytes,
    },
    /// Something is missing here.
    Gap {
        /// So many were thrown away because the buffer was full.
        dropped: u64,
        /// The connection ended, and what was published until it was mended never came. Or a channel cannot be had any more.
        cut: Option<Error>,
    },
}

/// A subscription to several channels. It ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    received: mpsc::Receiver<Received>,
    changes: mpsc::Sender<Change>,
    counts: Arc<Counts>,
    settings: Arc<RedisSettings>,
    reader: AbortHandle,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicU64,
    /// Bytes in the buffer.
    bytes: AtomicUsize,
}

struct Change {
    add: bool,
    channels: BTreeSet<Bytes>,
    done: oneshot::Sender<Result<()>>,
}

impl Redis {
    /// Publishes on a channel and gives the number of those who received it; in a cluster, only of those at the node that was asked.
    ///
    /// # Errors
    /// As for [`Redis::query`]. It is never sent twice.
    pub async fn publish(&self, channel: &[u8], payload: &[u8]) -> Result<u64> {
        match self.query(cmd("PUBLISH").arg(channel).arg(payload), Resend::NotDone).await? {
            Value::Int(count) => Ok(u64::try_from(count).unwrap_or_default()),
            _ => Ok(0),
        }
    }

    /// Subscribes to channels. When it returns, what is published from then on is received.
    ///
    /// The buffer holds [`subscription_buffer`](RedisSettings::subscription_buffer) payloads and
    /// [`subscription_bytes`](RedisSettings::subscription_bytes) bytes; what does not fit is thrown away and told ([`Received::Gap`]).
    ///
    /// # Errors
    /// As for [`Redis::connect`], and `Denied`.
    pub async fn subscribe(&self, channels: &[&[u8]]) -> Result<Subscription> {
        let topology = Arc::clone(&self.0.topology);
        let line = topology.owner(None).await?.dialer.open().await?;
        let settings = Arc::clone(&self.0.settings);
        let (changes, asked) = mpsc::channel(16);
        let (deliver, received) = mpsc::channel(settings.subscription_buffer.max(1));
        let counts = Arc::<Counts>::default();
        let reader = Reader {
            topology,
            settings: Arc::clone(&settings),
            metrics: self.0.metrics.clone(),
            asked,
            deliver,
            counts: Arc::clone(&counts),
            wanted: BTreeSet::new(),
            pending: VecDeque::new(),
            dropped: 0,
            cut: None,
        };
        let reader = tokio::spawn(reader.run(line)).abort_handle();
        let subscription = Subscription { received, changes, counts, settings, reader };
        subscription.add(channels).await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// What comes next. `None` never comes while the runtime lives. Dropping the call loses nothing.
    pub async fn next(&mut self) -> Option<Received> {
        let received = self.received.recv().await?;
        if let Received::Payload { channel, payload } = &received {
            self.counts.bytes.fetch_sub(channel.len() + payload.len(), Ordering::AcqRel);
        }
        Some(received)
    }

    /// Subscribes to more channels. Returns when the server has agreed.
    ///
    /// # Errors
    /// `Denied`; `Timeout` where the server has not agreed in time: it is asked again when the connection is mended.
    pub async fn add(&self, channels: &[&[u8]]) -> Result<()> {
        self.change(true, channels).await
    }

    /// Leaves channels. When it returns, nothing more is read of them; what is in the buffer is still received.
    ///
    /// # Errors
    /// `Timeout`, as for [`Subscription::add`].
    pub async fn remove(&self, channels: &[&[u8]]) -> Result<()> {
        self.change(false, channels).await
    }

    /// How many were thrown away in all because the buffer was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Acquire)
    }

    async fn change(&self, add: bool, channels: &[&[u8]]) -> Result<()> {
        if channels.is_empty() {
            return Ok(());
        }
        let server: Arc<str> = self.settings.target.to_string().into();
        let (done, agreed) = oneshot::channel();
        let channels = channels.iter().map(|channel| Bytes::copy_from_slice(channel)).collect();
        let asked = async {
            let ended = |()| Error::new(ErrorKind::Cut, &server, "the subscription has ended");
            self.changes.send(Change { add, channels, done }).await.map_err(|_| ended(()))?;
            agreed.await.map_err(|_| ended(()))?
        };
        let limit = self.settings.request_timeout;
        timeout(limit, asked).await.unwrap_or_else(|_| {
            let what = format!("the server has not agreed within {limit:?}");
            Err(Error::new(ErrorKind::Timeout, &server, what).after_writing(true))
        })
    }
}

/// A change that the server has not agreed to yet.
struct Pending {
    left: BTreeSet<Bytes>,
    done: Option<oneshot::Sender<Result<()>>>,
}

struct Reader {
    topology: Arc<Topology>,
    settings: Arc<RedisSettings>,
    metrics: RedisMetrics,
    asked: mpsc::Receiver<Change>,
    deliver: mpsc::Sender<Received>,
    counts: Arc<Counts>,
    wanted: BTreeSet<Bytes>,
    /// In the order in which they were written.
    pending: VecDeque<Pending>,
    /// What is to be told as a gap when there is room.
    dropped: u64,
    cut: Option<Error>,
}

impl Reader {
    async fn run(mut self, opened: dial::Opened) {
        let mut opened = Some(opened);
        let mut tried = 0_u32;
        loop {
            if let Some(dial::Opened { line, address, .. }) = opened.take() {
                tried = 0;
                let error = self.serve(line, &address).await;
                tracing::warn!(%error, "a subscription is interrupted");
                self.cut = Some(error);
            }
            tried += 1;
            sleep(self.settings.pause(tried)).await;
            // Why it cannot be mended yet is on the board; the subscription goes on trying as long as it lives.
            let looked = self.topology.looked();
            opened = match self.topology.owner(None).await {
                Ok(node) => node.dialer.open().await.ok(),
                Err(_) => None,
            };
            if opened.is_none() {
                drop(self.topology.refresh(looked).await);
            }
        }
    }

    /// Reads until the connection fails.
    async fn serve(&mut self, mut line: Line, server: &Arc<str>) -> Error {
        // What was wanted before: a new connection knows nothing of it, and nothing of what was to be left.
        let mut waiting: Vec<_> = self.pending.drain(..).filter_map(|pending| pending.done).collect();
        if !self.wanted.is_empty()
            && let Err(error) = self.write(&mut line, server, true, self.wanted.clone(), None).await
        {
            return error;
        }
        let quiet = self.settings.probe_every;
        let mut heard = Instant::now();
        let mut probed = false;
        loop {
            if self.pending.is_empty() {
                waiting.drain(..).for_each(|done| drop(done.send(Ok(()))));
            }
            let told = self.dropped == 0 && self.cut.is_none() || !self.pending.is_empty();
            let deliver = self.deliver.clone();
            let patience = if probed { self.settings.request_timeout } else { quiet };
            tokio::select! {
                room = deliver.reserve(), if !told => {
                    if let Ok(room) = room {
                        room.send(self.gap());
                    }
                }
                Some(change) = self.asked.recv() => {
                    let Change { add, channels, done } = change;
                    if add {
                        self.wanted.extend(channels.iter().cloned());
                    } else {
                        self.wanted.retain(|channel| !channels.contains(channel));
                    }
                    if let Err(error) = self.write(&mut line, server, add, channels, Some(done)).await {
                        return error;
                    }
                }
                read = line.next() => {
                    (heard, probed) = (Instant::now(), false);
                    match read {
                        Some(Ok(reply)) => self.take(server, reply),
                        Some(Err(error)) => return dial::broken(server, &error),
                        None => return Error::new(ErrorKind::Cut, server, "the server ended the connection"),
                    }
                }
                () = tokio::time::sleep_until(heard + patience) => {
                    if probed {
                        return Error::new(ErrorKind::Timeout, server, "it does not answer a probe");
                    }
                    (heard, probed) = (Instant::now(), true);
                    if let Err(error) = send(&mut line, server, &cmd("PING")).await {
                        return error;
                    }
                }
            }
        }
    }

    async fn write(
        &mut self,
        line: &mut Line,
        server: &Arc<str>,
        add: bool,
        channels: BTreeSet<Bytes>,
        done: Option<oneshot::Sender<Result<()>>>,
    ) -> Result<()> {
        let mut command = cmd(if add { "SUBSCRIBE" } else { "UNSUBSCRIBE" });
        for channel in &channels {
            command.arg(&channel[..]);
        }
        self.pending.push_back(Pending { left: channels, done });
        send(line, server, &command).await
    }

    /// What the server sent.
    fn take(&mut self, server: &Arc<str>, reply: Reply) {
        if let Some(error) = error_of(server, &reply) {
            let refused = self.pending.pop_front();
            if let Some(Pending { left, done }) = refused {
                self.wanted.retain(|channel| !left.contains(channel));
                match done {
                    Some(done) => drop(done.send(Err(error))),
                    None => self.cut = Some(error),
                }
            }
            return;
        }
        let Reply::Array(items) = reply else { return };
        let mut items = items.into_iter();
        let (Some(kind), Some(Reply::Bulk(channel)), Some(third)) =
            (items.next(), items.next(), items.next())
        else {
            return;
        };
        match (kind.text(), third) {
            (Some("message"), Reply::Bulk(payload)) => self.receive(channel, payload),
            (Some("subscribe" | "unsubscribe"), _) => {
                let Some(first) = self.pending.front_mut() else { return };
                first.left.remove(&channel);
                if first.left.is_empty()
                    && let Some(Pending { done: Some(done), .. }) = self.pending.pop_front()
                {
                    drop(done.send(Ok(())));
                }
            }
            _ => {}
        }
    }

    fn receive(&mut self, channel: Bytes, payload: Bytes) {
        let size = channel.len() + payload.len();
        let fits = self.counts.bytes.load(Ordering::Acquire) + size <= self.settings.subscription_bytes;
        // A gap is told before what comes after it.
        let mut clear = self.dropped == 0 && self.cut.is_none();
        let deliver = self.deliver.clone();
        if fits
            && !clear
            && let Ok(room) = deliver.try_reserve()
        {
            room.send(self.gap());
            clear = true;
        }
        self.counts.bytes.fetch_add(size, Ordering::AcqRel);
        if !(fits && clear && deliver.try_send(Received::Payload { channel, payload }).is_ok()) {
            self.counts.bytes.fetch_sub(size, Ordering::AcqRel);
            self.counts.dropped.fetch_add(1, Ordering::AcqRel);
            self.metrics.dropped(1);
            self.dropped += 1;
        }
    }

    /// A cut is told once more when all channels are back.
    fn gap(&mut self) -> Received {
        let cut = if self.pending.is_empty() { self.cut.take() } else { self.cut.clone() };
        Received::Gap { dropped: std::mem::take(&mut self.dropped), cut }
    }
}

async fn send(line: &mut Line, server: &Arc<str>, command: &Cmd) -> Result<()> {
    line.send(command.get_packed_command()).await.map_err(|error| dial::broken(server, &error))
}
