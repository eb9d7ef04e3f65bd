//! Runs a program on a broker and holds each thing that is seen against the reference.
//!
//! Not here: what programs are (`program.rs`), what must be (`reference.rs`).

use super::{
    program::Step,
    reference::{BOUND, Id, Place, Reference},
};
use ropeway_broker::{
    Bound, Consumer, Control, Delivery, Event, Group, Message, MessageBroker, MessageId, Owned, Position,
    Published, ReaderExt, Start, Subscription, Target, Topic, TopicSpec,
    conformance::{Backend, Setup, Store},
};
use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{sleep, timeout};

const PARTITIONS: u32 = 2;
const SLOTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(15);

/// What is left out on purpose, so that a test sees that a run notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Acks never reach the broker.
    AcksAreLost,
}

type Run<T = ()> = Result<T, String>;

/// Runs a program on a store of its own; what was wrong, if anything.
pub(crate) fn run(backend: &dyn Backend, program: &[Step], flaw: Flaw) -> Run {
    let runtime = backend.runtime().map_err(|error| format!("there is no runtime: {error}"))?;
    runtime.block_on(async {
        let store = backend.store(Setup::default()).map_err(text)?;
        let mut stage = Stage::open(store, flaw).await?;
        for (number, step) in program.iter().enumerate() {
            let done = async {
                stage.perform(step).await?;
                stage.catch_up().await
            };
            done.await.map_err(|why| format!("step {number}, {step:?}: {why}"))?;
        }
        stage.finish().await.map_err(|why| format!("at the end: {why}"))
    })
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn place(position: Position) -> Place {
    (position.0, position.1)
}

struct Member {
    consumer: Box<dyn Consumer>,
    control: Arc<dyn Control>,
    ended: bool,
}

struct Stage {
    store: Box<dyn Store>,
    broker: Arc<dyn MessageBroker>,
    work: Topic,
    out: Topic,
    group: Group,
    members: BTreeMap<usize, Member>,
    owned: BTreeMap<u32, Owned>,
    delayed: Vec<(Id, MessageId)>,
    reference: Reference,
    flaw: Flaw,
}

impl Stage {
    async fn open(store: Box<dyn Store>, flaw: Flaw) -> Run<Self> {
        let broker = store.open().await.map_err(text)?;
        let name = |what: &str| format!("{what}-{:08x}", MessageId::new().as_u128() as u32);
        let (work, out) = (Topic::new(name("work")).map_err(text)?, Topic::new(name("out")).map_err(text)?);
        broker.admin().create_topic(&work, TopicSpec::partitions(PARTITIONS)).await.map_err(text)?;
        broker.admin().create_topic(&out, TopicSpec::partitions(1)).await.map_err(text)?;
        let group = Group::new(name("group")).map_err(text)?;
        let (members, owned, delayed) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let reference = Reference::default();
        Ok(Self { store, broker, work, out, group, members, owned, delayed, reference, flaw })
    }

    fn now(&self) -> i64 {
        self.store.now().as_millis()
    }

    async fn perform(&mut self, step: &Step) -> Run {
        match *step {
            Step::Publish { partition, count } => {
                self.publish(u32::from(partition) % PARTITIONS, count).await
            }
            Step::Delay { partition, millis } => self.delay(u32::from(partition) % PARTITIONS, millis).await,
            Step::Cancel { which } => self.cancel(which.into()).await,
            Step::Join { slot } => self.join(usize::from(slot) % SLOTS).await,
            Step::Leave { slot, drop } => self.leave(usize::from(slot) % SLOTS, drop).await,
            Step::Ack { slot, mask, flush } => self.ack(usize::from(slot) % SLOTS, mask, flush).await,
            Step::Forward { slot, mask, out, too_large } => {
                self.forward(usize::from(slot) % SLOTS, mask, out, too_large).await
            }
            Step::GiveUp { slot, which } => {
                if let Some((control, of)) = self.pick(usize::from(slot) % SLOTS, which) {
                    control.give_up(&of);
                    self.reference.given_up(usize::from(slot) % SLOTS, of.partition, of.epoch.0);
                }
                Ok(())
            }
            Step::Pause { slot, which, paused } => {
                if let Some((control, of)) = self.pick(usize::from(slot) % SLOTS, which) {
                    control.pause(&of, paused);
                    if let Some(turn) = self.reference.turns.get_mut(&of.partition) {
                        turn.paused = paused;
                    }
                }
                Ok(())
            }
            Step::Purge { partition, which } => {
                self.purge(u32::from(partition) % PARTITIONS, which.into()).await
            }
            Step::Wait { millis } => {
                let wait = sleep(Duration::from_millis(millis.into()));
                tokio::pin!(wait);
                self.poll_while(|cx| wait.as_mut().poll(cx).is_pending()).await
            }
            Step::Reopen => self.restart(false).await,
            Step::Crash => self.restart(true).await,
        }
    }

    async fn publish(&mut self, partition: u32, count: u8) -> Run {
        let next = self.reference.records.len();
        let ids = next..next + usize::from(count);
        let batch = ids.map(|id| Message::builder().payload(id.to_string()).build()).collect();
        let to = Target { partition: Some(partition), ..(&self.work).into() };
        for outcome in self.broker.publish(&to, batch).await.0 {
            match outcome {
                Published::Acked { partition: at, position: Some(position), .. } if at == partition => {
                    self.reference.published(partition, Some(place(position)), None);
                }
                other => return Err(text(other)),
            }
        }
        Ok(())
    }

    async fn delay(&mut self, partition: u32, millis: u16) -> Run {
        let due = self.store.now() + Duration::from_millis(millis.into());
        let id = self.reference.published(partition, None, Some(due.as_millis()));
        let message = Message::builder().payload(id.to_string()).deliver_at(due).build();
        self.delayed.push((id, message.id));
        let to = Target { partition: Some(partition), ..(&self.work).into() };
        self.broker.publish(&to, vec![message]).await.into_result().map_err(text)
    }

    async fn cancel(&mut self, which: usize) -> Run {
        if self.delayed.is_empty() {
            return Ok(());
        }
        let (id, message) = self.delayed[which % self.delayed.len()];
        let cancelled = self.broker.admin().cancel_delayed(&self.work, message).await.map_err(text)?;
        let record = &mut self.reference.records[id];
        if cancelled && (record.place.is_some() || record.cancelled) {
            return Err(format!("{id} is cancelled after it was delivered or cancelled: {record:?}"));
        }
        record.cancelled |= cancelled;
        Ok(())
    }

    async fn join(&mut self, slot: usize) -> Run {
        if self.members.contains_key(&slot) {
            return Ok(());
        }
        let subscription = Subscription {
            in_flight: Bound { messages: BOUND, bytes: 1 << 20 },
            ..Subscription::new(self.group.clone(), [self.work.clone()])
        };
        let consumer = self.broker.subscribe(subscription).await.map_err(text)?;
        let control = consumer.control();
        self.members.insert(slot, Member { consumer, control, ended: false });
        self.reference.members.insert(slot);
        Ok(())
    }

    async fn leave(&mut self, slot: usize, drop: bool) -> Run {
        if drop {
            let Some(member) = self.members.remove(&slot) else { return Ok(()) };
            std::mem::drop(member);
            self.reference.dropped(slot);
        } else {
            let Some(member) = self.members.get(&slot) else { return Ok(()) };
            let mut expected = self.reference.in_flight(slot).len();
            let mut closing = member.control.close(Duration::ZERO);
            let mut answered = false;
            self.reference.closing(slot);
            self.poll_until("a consumer closes", |stage, cx| {
                if !answered && let Poll::Ready(left) = closing.as_mut().poll(cx) {
                    answered = true;
                    let left = left.iter().map(|(_, positions)| positions.len()).sum::<usize>();
                    expected = expected.abs_diff(left);
                }
                Ok(answered && stage.members.get(&slot).is_none_or(|member| member.ended))
            })
            .await?;
            if expected != 0 {
                return Err(format!("close tells {expected} unacked messages too many or too few"));
            }
            self.members.remove(&slot);
            if let Some(turn) = self.reference.turns.values().find(|turn| turn.slot == slot) {
                return Err(format!("it ended, but was not told that this went: {turn:?}"));
            }
        }
        self.reference.members.remove(&slot);
        Ok(())
    }

    /// What of the messages in flight a mask chooses, by partition.
    fn chosen(&self, slot: usize, mask: u32) -> BTreeMap<u32, Vec<Id>> {
        let mut chosen: BTreeMap<u32, Vec<Id>> = BTreeMap::new();
        for (i, (partition, id)) in self.reference.in_flight(slot).into_iter().enumerate() {
            if mask & (1 << (i % 32)) != 0 {
                chosen.entry(partition).or_default().push(id);
            }
        }
        chosen
    }

    fn positions(&self, ids: &[Id]) -> Vec<Position> {
        let places = ids.iter().filter_map(|id| self.reference.records[*id].place);
        places.map(|(a, b)| Position(a, b)).collect()
    }

    async fn ack(&mut self, slot: usize, mask: u32, flush: bool) -> Run {
        let Some(member) = self.members.get(&slot) else { return Ok(()) };
        for (partition, ids) in self.chosen(slot, mask) {
            let of = self.owned.get(&partition).ok_or("what is in flight is owned")?;
            if self.flaw != Flaw::AcksAreLost {
                member.control.ack(of, &self.positions(&ids)).map_err(text)?;
            }
            self.reference.acked(ids);
        }
        if flush {
            let refused = member.control.flush().await;
            if !refused.is_empty() {
                return Err(text(refused));
            }
        }
        Ok(())
    }

    async fn forward(&mut self, slot: usize, mask: u32, out: u8, too_large: bool) -> Run {
        let Some(member) = self.members.get(&slot) else { return Ok(()) };
        let Some((partition, ids)) = self.chosen(slot, mask).into_iter().next() else { return Ok(()) };
        let of = self.owned.get(&partition).ok_or("what is in flight is owned")?;
        let first = self.reference.out.len();
        let numbers: Vec<Id> = (first..first + usize::from(out)).collect();
        let message = |id: &Id| Message::builder().payload(id.to_string()).build();
        let mut batch: Vec<_> = numbers.iter().map(|id| (Target::from(&self.out), message(id))).collect();
        if too_large {
            let most = self.broker.admin().describe_topic(&self.out).await.map_err(text)?.max_message;
            let large = Message::builder().payload(vec![0; most + 1]).build();
            batch.push((Target::from(&self.out), large));
        }
        let outcomes = member.control.forward(of, &self.positions(&ids), batch).await;
        if outcomes.all_acked() == too_large {
            return Err(format!("a forward is answered with {outcomes:?}"));
        }
        if !too_large {
            self.reference.out.extend(numbers);
            self.reference.acked(ids);
        }
        Ok(())
    }

    /// A partition of a member.
    fn pick(&self, slot: usize, which: u8) -> Option<(Arc<dyn Control>, Owned)> {
        let member = self.members.get(&slot)?;
        let turns = self.reference.turns.iter().filter(|(_, turn)| turn.slot == slot);
        let mine: Vec<u32> = turns.map(|(partition, _)| *partition).collect();
        let partition = mine.get(usize::from(which) % mine.len().max(1))?;
        Some((Arc::clone(&member.control), self.owned.get(partition)?.clone()))
    }

    async fn purge(&mut self, partition: u32, which: usize) -> Run {
        let places = self.reference.records.iter().filter(|record| record.partition == partition);
        let places: Vec<Place> = places.filter_map(|record| record.place).collect();
        let Some((a, b)) = places.get(which % places.len().max(1)).copied() else { return Ok(()) };
        let before = Start::At(Position(a, b));
        self.broker.admin().purge_topic(&self.work, Some(partition), before).await.map_err(text)?;
        let now = self.now();
        self.reference.purged(partition, (a, b), now);
        Ok(())
    }

    async fn restart(&mut self, crash: bool) -> Run {
        if crash {
            // What was acked takes effect by then.
            for member in self.members.values() {
                member.control.flush().await;
            }
            // What a crash leaves behind goes on unseen.
            std::mem::forget(std::mem::take(&mut self.members));
            self.store.crash(Arc::clone(&self.broker)).await;
        } else {
            self.broker.close(Duration::from_secs(5)).await;
            self.members.clear();
        }
        self.reference.crashed();
        self.broker = self.store.open().await.map_err(text)?;
        Ok(())
    }

    /// Polls all members once; whether anything came.
    fn poll_members(&mut self, cx: &mut Context<'_>) -> Run<bool> {
        let mut moved = false;
        let slots: Vec<usize> = self.members.keys().copied().collect();
        for slot in slots {
            let Some(member) = self.members.get_mut(&slot).filter(|member| !member.ended) else { continue };
            match member.consumer.poll_next(cx) {
                Poll::Pending => continue,
                Poll::Ready(Err(_)) => member.ended = true,
                Poll::Ready(Ok(event)) => self.see(slot, event)?,
            }
            moved = true;
        }
        Ok(moved)
    }

    fn see(&mut self, slot: usize, event: Event) -> Run {
        let now = self.now();
        match event {
            Event::Assigned(list) => {
                for assignment in list {
                    let of = assignment.of;
                    self.reference.assigned(slot, of.partition, of.epoch.0)?;
                    self.owned.insert(of.partition, of);
                }
            }
            Event::Revoking { partitions, .. } => {
                for of in &partitions {
                    if let Some(member) = self.members.get(&slot) {
                        member.control.give_up(of);
                    }
                    self.reference.given_up(slot, of.partition, of.epoch.0);
                }
            }
            Event::Gone(of, _) => self.reference.gone(slot, of.partition, of.epoch.0)?,
            Event::Batch(batch) => {
                let of = batch.of;
                for Delivery { position, message } in batch.deliveries {
                    let id = number(&message)?;
                    self.reference.delivered(slot, of.partition, of.epoch.0, id, place(position), now)?;
                }
            }
            Event::Gap { .. } if self.reference.purges > 0 => {}
            Event::CaughtUp(_) => {}
            other => return Err(format!("{slot} is told {other:?}")),
        }
        Ok(())
    }

    async fn poll_while(&mut self, mut go_on: impl FnMut(&mut Context<'_>) -> bool) -> Run {
        poll_fn(|cx| {
            loop {
                match self.poll_members(cx) {
                    Err(why) => return Poll::Ready(Err(why)),
                    Ok(true) => {}
                    Ok(false) => return if go_on(cx) { Poll::Pending } else { Poll::Ready(Ok(())) },
                }
            }
        })
        .await
    }

    async fn poll_until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Self, &mut Context<'_>) -> Run<bool>,
    ) -> Run {
        let polled = poll_fn(|cx| {
            loop {
                match self.poll_members(cx) {
                    Err(why) => return Poll::Ready(Err(why)),
                    Ok(true) => continue,
                    Ok(false) => {}
                }
                return match holds(self, cx) {
                    Err(why) => Poll::Ready(Err(why)),
                    Ok(true) => Poll::Ready(Ok(())),
                    Ok(false) => Poll::Pending,
                };
            }
        });
        timeout(PATIENCE, polled).await.unwrap_or_else(|_| Err(format!("{what}: not within {PATIENCE:?}")))
    }

    /// Polls until all came that must have.
    async fn catch_up(&mut self) -> Run {
        let caught = self.poll_until("all comes", |stage, _| {
            Ok(stage.reference.awaited(stage.now(), PARTITIONS).is_none())
        });
        let caught = caught.await;
        caught.map_err(|why| match self.reference.awaited(self.now(), PARTITIONS) {
            Some(awaited) => format!("{why}; {awaited}"),
            None => why,
        })
    }

    /// Does all that is left, and compares what lies in the topics.
    async fn finish(&mut self) -> Run {
        self.join(0).await?;
        let latest = self.reference.records.iter().filter_map(|record| record.due).max().unwrap_or(0);
        let wait = u64::try_from(latest - self.now()).unwrap_or(0);
        sleep(Duration::from_millis(wait)).await;
        for round in 0.. {
            let slots: Vec<usize> = self.members.keys().copied().collect();
            for (partition, turn) in &mut self.reference.turns {
                if let (Some(member), Some(of)) = (self.members.get(&turn.slot), self.owned.get(partition)) {
                    member.control.pause(of, false);
                    turn.paused = false;
                }
            }
            self.catch_up().await?;
            if slots.iter().all(|slot| self.reference.in_flight(*slot).is_empty()) {
                break;
            }
            if round > self.reference.records.len() {
                return Err("acks make no room".into());
            }
            for slot in slots {
                self.ack(slot, u32::MAX, true).await?;
            }
        }
        for partition in 0..PARTITIONS {
            let found = self.content(&self.work.clone(), partition).await?;
            if let Some(expected) = self.reference.content(partition).filter(|expected| *expected != found) {
                return Err(format!("a reader of p{partition} sees {found:?} instead of {expected:?}"));
            }
        }
        let found = self.content(&self.out.clone(), 0).await?;
        if found != self.reference.out {
            return Err(format!("{found:?} was forwarded instead of {:?}", self.reference.out));
        }
        Ok(())
    }

    async fn content(&self, topic: &Topic, partition: u32) -> Run<Vec<Id>> {
        let mut reader = self.broker.read().await.map_err(text)?;
        reader.follow(topic, Some(partition), Start::Earliest).await.map_err(text)?;
        let mut found = Vec::new();
        loop {
            match timeout(PATIENCE, reader.next()).await.map_err(text)?.map_err(text)? {
                Event::Batch(batch) => {
                    for delivery in &batch.deliveries {
                        found.push(number(&delivery.message)?);
                    }
                }
                Event::CaughtUp(_) => return Ok(found),
                _ => {}
            }
        }
    }
}

fn number(message: &Message) -> Run<Id> {
    let text = message.payload.as_deref().and_then(|payload| std::str::from_utf8(payload).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("nobody published {message:?}"))
}
