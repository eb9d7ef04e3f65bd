//! A consumer or a reader and all it told: checks poll one or several and ask what was seen.
//!
//! Not here: what must have been seen (the files of the groups).

use super::{
    promise::{Ought, broken, cut},
    stage::{PATIENCE, within},
};
use crate::{
    Assignment, Consumer, Control, Delivery, Error, Event, GapReason, GoneReason, Message, Owned, Position,
    Reader, Result, Start, Topic,
};
use bytes::Bytes;
use std::{
    fmt::Write as _,
    future::poll_fn,
    slice::from_mut,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// More events than any check makes: whoever tells more tells them without end.
const MOST: usize = 100_000;

/// A message that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) of: Owned,
    pub(super) position: Position,
    pub(super) message: Message,
    /// Which of all deliveries of this process it was: tells the order across members.
    pub(super) turn: u64,
}

/// Counts deliveries.
static TURNS: AtomicU64 = AtomicU64::new(0);

impl Got {
    /// The payload as text.
    pub(super) fn text(&self) -> String {
        let payload = self.message.payload.as_deref().unwrap_or(b"(tombstone)");
        String::from_utf8_lossy(payload).into_owned()
    }

    /// The number that [`super::stage::text`] put in.
    pub(super) fn number(&self) -> usize {
        self.text().parse().ought("a payload arrives as it was sent")
    }

    /// The key as text.
    pub(super) fn key(&self) -> String {
        String::from_utf8_lossy(self.message.key.as_deref().unwrap_or_default()).into_owned()
    }
}

/// One thing that was told; a batch is told message by message.
#[derive(Debug)]
pub(super) enum Seen {
    /// An `Assigned` event, before its assignments, which may be none.
    AssignedEvent,
    Assigned(Assignment),
    Revoking(Owned, Duration),
    Gone(Owned, GoneReason),
    Got(Got),
    Unreadable {
        of: Owned,
        position: Position,
        raw: Option<Bytes>,
        why: Error,
    },
    Gap {
        of: Owned,
        from: Option<Position>,
        to: Option<Position>,
        why: GapReason,
    },
    CaughtUp(Owned),
}

enum Source {
    Consumer(Box<dyn Consumer>),
    Reader(Box<dyn Reader>),
}

/// A consumer or a reader, and all it told.
pub(super) struct Watched {
    source: Source,
    control: Option<Arc<dyn Control>>,
    /// What was told, and when: when it was asked for, where a time begins that was told, and else when it came.
    pub(super) log: Vec<(Instant, Seen)>,
    /// The error it ended with.
    pub(super) end: Option<Error>,
    /// Whether each message is acked as it comes.
    pub(super) acks: bool,
    /// Whether what is revoked is given up at once.
    pub(super) gives_up: bool,
}

impl Watched {
    pub(super) fn consumer(consumer: Box<dyn Consumer>) -> Self {
        let control = consumer.control();
        Self::of(Source::Consumer(consumer), Some(control))
    }

    pub(super) fn reader(reader: Box<dyn Reader>) -> Self {
        Self::of(Source::Reader(reader), None)
    }

    fn of(source: Source, control: Option<Arc<dyn Control>>) -> Self {
        Self { source, control, log: Vec::new(), end: None, acks: false, gives_up: true }
    }

    /// Acks each message as it comes.
    pub(super) fn acking(mut self) -> Self {
        self.acks = true;
        self
    }

    /// Keeps what is revoked until it is taken away.
    pub(super) fn keeping(mut self) -> Self {
        self.gives_up = false;
        self
    }

    pub(super) fn control(&self) -> Arc<dyn Control> {
        self.control.clone().ought("only a consumer is steered")
    }

    pub(super) async fn follow(&mut self, topic: &Topic, partition: Option<u32>, from: Start) -> Result<()> {
        let Source::Reader(reader) = &mut self.source else { broken("only a reader follows", "a consumer") };
        within("follow answers", reader.follow(topic, partition, from)).await
    }

    pub(super) fn unfollow(&mut self, topic: &Topic, partition: Option<u32>) {
        if let Source::Reader(reader) = &mut self.source {
            reader.unfollow(topic, partition);
        }
    }

    /// One poll of the contract, past the log.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        match &mut self.source {
            Source::Consumer(consumer) => consumer.poll_next(cx),
            Source::Reader(reader) => reader.poll_next(cx),
        }
    }

    /// Polls once, and notes what came. `false`: nothing came.
    pub(super) fn step(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.is_some() {
            return false;
        }
        let asked = Instant::now();
        match self.poll(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(event)) => self.note(event, asked),
            Poll::Ready(Err(error)) => self.end = Some(error),
        }
        if self.log.len() > MOST {
            broken("events have an end", format!("{MOST} events and more: {}", self.told()));
        }
        true
    }

    fn note(&mut self, event: Event, asked: Instant) {
        let now = if matches!(event, Event::Revoking { .. }) { asked } else { Instant::now() };
        let mut push = |seen| self.log.push((now, seen));
        match event {
            Event::Assigned(list) => {
                push(Seen::AssignedEvent);
                list.into_iter().for_each(|a| push(Seen::Assigned(a)));
            }
            Event::Revoking { partitions, left } => {
                partitions.iter().for_each(|of| push(Seen::Revoking(of.clone(), left)));
                if let (true, Some(control)) = (self.gives_up, &self.control) {
                    partitions.iter().for_each(|of| control.give_up(of));
                }
            }
            Event::Gone(of, reason) => push(Seen::Gone(of, reason)),
            Event::Batch(batch) => {
                let positions: Vec<_> = batch.deliveries.iter().map(|d| d.position).collect();
                for Delivery { position, message } in batch.deliveries {
                    let turn = TURNS.fetch_add(1, Ordering::Relaxed);
                    push(Seen::Got(Got { of: batch.of.clone(), position, message, turn }));
                }
                if let (true, Some(control)) = (self.acks, &self.control) {
                    control.ack(&batch.of, &positions).ought("what was just delivered can be acked");
                }
            }
            Event::Unreadable { of, position, raw, why } => {
                push(Seen::Unreadable { of, position, raw, why });
            }
            Event::Gap { of, from, to, why } => push(Seen::Gap { of, from, to, why }),
            Event::CaughtUp(of) => push(Seen::CaughtUp(of)),
        }
    }

    /// Polls until it holds, or the check fails.
    pub(super) async fn until(&mut self, promise: &str, mut holds: impl FnMut(&Self) -> bool) {
        until(from_mut(self), promise, |all| holds(&all[0])).await;
    }

    /// Polls for that long.
    pub(super) async fn idle(&mut self, long: Duration) {
        idle(from_mut(self), long).await;
    }

    /// Polls until so many messages came in all, and no longer; they must be that many.
    pub(super) async fn take(&mut self, count: usize) -> Vec<Got> {
        self.until(&format!("{count} messages are delivered"), |w| w.got().count() >= count).await;
        self.got().cloned().collect()
    }

    /// Polls until so many partitions are owned; they, sorted.
    pub(super) async fn own(&mut self, count: usize) -> Vec<Owned> {
        self.until(&format!("{count} partitions are assigned"), |w| w.owned().len() == count).await;
        self.owned()
    }

    /// Polls until it ends; the error.
    pub(super) async fn ended(&mut self, promise: &str) -> Error {
        self.until(promise, |w| w.end.is_some()).await;
        self.end.clone().ought(promise)
    }

    /// The messages, in the order they came.
    pub(super) fn got(&self) -> impl Iterator<Item = &Got> {
        self.log.iter().filter_map(|(_, seen)| if let Seen::Got(got) = seen { Some(got) } else { None })
    }

    /// The numbers in them.
    pub(super) fn numbers(&self) -> Vec<usize> {
        self.got().map(Got::number).collect()
    }

    pub(super) fn assigned(&self) -> Vec<&Assignment> {
        let all = self.log.iter();
        all.filter_map(|(_, seen)| if let Seen::Assigned(a) = seen { Some(a) } else { None }).collect()
    }

    /// What was assigned and did not go, sorted.
    pub(super) fn owned(&self) -> Vec<Owned> {
        let mut owned: Vec<Owned> = Vec::new();
        for (_, seen) in &self.log {
            match seen {
                Seen::Assigned(a) => owned.push(a.of.clone()),
                Seen::Gone(of, _) => owned.retain(|o| o != of),
                _ => {}
            }
        }
        owned.sort_by_key(|of| (of.topic.clone(), of.partition));
        owned
    }

    pub(super) fn gone(&self) -> Vec<(Owned, GoneReason)> {
        let gone =
            |(_, seen): &'_ _| if let Seen::Gone(of, why) = seen { Some((of.clone(), *why)) } else { None };
        self.log.iter().filter_map(gone).collect()
    }

    pub(super) fn revoking(&self) -> Vec<(Owned, Duration)> {
        let told = |(_, seen): &'_ (Instant, Seen)| {
            if let Seen::Revoking(of, left) = seen { Some((of.clone(), *left)) } else { None }
        };
        self.log.iter().filter_map(told).collect()
    }

    pub(super) fn caught_up(&self) -> Vec<&Owned> {
        let all = self.log.iter();
        all.filter_map(|(_, seen)| if let Seen::CaughtUp(of) = seen { Some(of) } else { None }).collect()
    }

    pub(super) fn gaps(&self) -> Vec<(Owned, Option<Position>, Option<Position>, GapReason)> {
        let gap = |(_, seen): &'_ (Instant, Seen)| match seen {
            Seen::Gap { of, from, to, why } => Some((of.clone(), *from, *to, *why)),
            _ => None,
        };
        self.log.iter().filter_map(gap).collect()
    }

    /// Forgets what was told, so that only what comes now is seen. What is owned is forgotten too.
    pub(super) fn forget(&mut self) {
        self.log.clear();
    }

    /// What was told last, in short.
    pub(super) fn told(&self) -> String {
        let mut out = String::new();
        for (_, seen) in self.log.iter().rev().take(12).rev() {
            let _ = match seen {
                Seen::Got(got) => {
                    write!(out, "{} p{} at {}, ", cut(got.text()), got.of.partition, got.position)
                }
                other => write!(out, "{other:?}, "),
            };
        }
        format!("{} events, the last: {out}ended: {:?}", self.log.len(), self.end)
    }
}

/// Polls all of them until it holds, or the check fails.
pub(super) async fn until(members: &mut [Watched], promise: &str, mut holds: impl FnMut(&[Watched]) -> bool) {
    let polled = poll_fn(|cx| {
        for _ in 0..512 {
            if holds(members) {
                return Poll::Ready(());
            }
            let mut moved = false;
            for member in members.iter_mut() {
                moved |= member.step(cx);
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    if timeout(PATIENCE, polled).await.is_err() {
        let told: Vec<String> = members.iter().map(Watched::told).collect();
        broken(promise, cut(format!("not within {PATIENCE:?}, but {}", told.join(" | "))));
    }
}

/// Polls all of them for that long.
pub(super) async fn idle(members: &mut [Watched], long: Duration) {
    let polled = poll_fn(|cx| {
        for _ in 0..512 {
            let mut moved = false;
            for member in members.iter_mut() {
                moved |= member.step(cx);
            }
            if !moved {
                return Poll::<()>::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let _ = timeout(long, polled).await;
}
