//! Runs a program over a disk that stops by script, and holds each thing that is seen against the reference.
//!
//! A process that is killed answers nothing: what it was doing is open until a new one shows what is there. One whose disk fails goes on for a
//! few steps, in which it must tell the truth, and is opened again. Not here: the steps (`steps.rs`), what must be (`reference.rs`, `view.rs`).

use super::{
    program::{Keep, Program},
    reference::{Id, Place, Reference, Time},
    view::{View, Work},
};
use ropeway_broker::{
    Clock, Consumer, Control, Delivery, Embedded, EmbeddedSettings, ErrorKind, Event, GapReason, Group,
    Message, MessageBroker, MessageId, Owned, Position, ReaderExt, Retention, Start, Timestamp, TokioClock,
    Topic, TopicSpec,
};
use ropeway_tests::disk::{Disk, Fault, Flaw};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{runtime::Builder, time::timeout};

pub(crate) const SLOTS: usize = 2;
const PARTITIONS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(15);
/// For how long ids are remembered.
const WINDOW: Duration = Duration::from_secs(2);
/// The most bytes of a segment: a few messages.
const SEGMENT: u64 = 200;
/// How many steps a process goes on whose disk failed.
const LINGER: usize = 2;
/// How often opening is tried: more often than things go wrong.
pub(crate) const TRIES: usize = 64;

pub(crate) type Run<T = ()> = Result<T, String>;

/// Runs a program on a disk on which these things go wrong; answers how many changes and reads there were.
pub(crate) fn run(program: &Program, faults: Vec<Fault>, flaw: Option<Flaw>) -> Run<(u64, u64)> {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.map_err(text)?.block_on(async {
        let disk = Disk::with_faults(faults).flawed(flaw);
        let mut stage = Stage::open(disk, program).await.map_err(|why| format!("at the start: {why}"))?;
        for (number, step) in program.steps.iter().enumerate() {
            let done = async {
                stage.note_time();
                stage.perform(step).await?;
                stage.settle().await
            };
            done.await.map_err(|why| format!("step {number}, {step:?}: {why}"))?;
        }
        stage.finish().await.map_err(|why| format!("at the end: {why}"))?;
        Ok(stage.disk.counts())
    })
}

pub(crate) fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

pub(crate) fn place(position: Position) -> Place {
    (position.0, position.1)
}

pub(crate) struct Member {
    pub consumer: Box<dyn Consumer>,
    pub control: Arc<dyn Control>,
    pub ended: bool,
}

pub(crate) struct Stage {
    pub disk: Disk,
    pub clock: Arc<TokioClock>,
    settings: EmbeddedSettings,
    pub broker: Arc<dyn MessageBroker>,
    pub work: Topic,
    pub out: Topic,
    pub group: Group,
    pub members: BTreeMap<usize, Member>,
    pub owned: BTreeMap<u32, Owned>,
    /// The ids of what was published.
    pub ids: Vec<MessageId>,
    pub reference: Reference,
    latest: i64,
    lingered: usize,
    /// How many processes were started.
    pub starts: usize,
    /// A read failed in this process.
    pub read_failed: bool,
}

impl Stage {
    async fn open(disk: Disk, program: &Program) -> Run<Self> {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
        let settings = EmbeddedSettings {
            clock: clock.clone(),
            dedup_window: program.dedup.then_some(WINDOW),
            segment: SEGMENT,
            ..EmbeddedSettings::default()
        };
        let window = program.dedup.then_some(WINDOW.as_millis() as u64);
        let mut stage = Self {
            // Replaced at once.
            broker: Embedded::memory(EmbeddedSettings::default()).map_err(text)?,
            disk,
            clock,
            settings,
            work: Topic::new("work").map_err(text)?,
            out: Topic::new("out").map_err(text)?,
            group: Group::new("group").map_err(text)?,
            members: BTreeMap::new(),
            owned: BTreeMap::new(),
            ids: Vec::new(),
            reference: Reference::new(program.keep, window),
            latest: i64::MIN,
            lingered: 0,
            starts: 0,
            read_failed: false,
        };
        stage.note_time();
        stage.start().await?;
        while stage.reference.life == 0 {
            stage.create().await?;
            stage.settle().await?;
        }
        Ok(stage)
    }

    pub(crate) fn now(&self) -> Time {
        let of_day = self.clock.now().as_millis();
        let latest = self.latest.max(of_day);
        Time { of_day, latest, steady: self.clock.steady().as_millis() as u64 }
    }

    pub(crate) fn note_time(&mut self) {
        let now = self.now();
        self.latest = now.latest;
        self.reference.age(now);
    }

    /// Whether the process can do all that it promises.
    pub(crate) fn is_well(&self) -> bool {
        !self.disk.is_killed() && !self.disk.has_failed()
    }

    /// Notes whether a read failed; then some calls fail and consumers may end.
    pub(crate) fn had_failed_read(&mut self) -> bool {
        self.read_failed |= self.disk.take_failed_read();
        self.read_failed
    }

    /// What an error of a call means: it is excused, or it is wrong.
    pub(crate) fn excused(&mut self, error: impl std::fmt::Debug) -> Run {
        if self.had_failed_read() || !self.is_well() { Ok(()) } else { Err(text(error)) }
    }

    pub(crate) fn spec(&self) -> TopicSpec {
        let retention = match self.reference.keep {
            Keep::All => Retention::default(),
            Keep::Age(age) => Retention { age: Some(Duration::from_millis(age)), ..Retention::default() },
            Keep::Bytes(bytes) => Retention { bytes: Some(bytes), ..Retention::default() },
        };
        TopicSpec { partitions: PARTITIONS, retention }
    }

    /// Ends the process in whatever state it is, and starts a new one.
    pub(crate) async fn restart(&mut self, crash: bool) -> Run {
        let mut orderly = false;
        if !crash && self.is_well() {
            self.broker.close(Duration::from_secs(5)).await;
            orderly = self.is_well();
        }
        self.disk.kill();
        self.members.clear();
        self.reference.over(orderly);
        self.start().await
    }

    /// Starts processes until one shows what is there, and holds that against what may be.
    async fn start(&mut self) -> Run {
        self.lingered = 0;
        for _ in 0..TRIES {
            self.read_failed = false;
            self.starts += 1;
            match Embedded::over(self.disk.start(), self.settings.clone()) {
                Ok(broker) => self.broker = broker,
                Err(error) => {
                    self.excused(error)?;
                    continue;
                }
            }
            let view = match self.view().await {
                Ok(view) if self.is_well() && !self.had_failed_read() => view,
                Ok(_) => continue,
                Err(error) => {
                    self.excused(error)?;
                    continue;
                }
            };
            let now = self.now();
            return self.reference.look(&view, now).map_err(|why| format!("after a restart: {why}"));
        }
        Err("the broker does not open".into())
    }

    /// What the broker shows.
    async fn view(&mut self) -> ropeway_broker::Result<View> {
        let admin = self.broker.admin();
        if !admin.topics().await?.contains(&self.out) {
            admin.create_topic(&self.out, TopicSpec::partitions(1)).await?;
        }
        let out = self.content(&self.out, 0).await?.into_iter().map(|(_, id)| id).collect();
        let info = match admin.describe_topic(&self.work).await {
            Ok(info) => info,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(View { out, ..View::default() }),
            Err(error) => return Err(error),
        };
        let life = info.partitions.first().map_or(0, |first| first.low.0);
        let mut work = Work { life, delayed: info.delayed.unwrap_or(0), ..Work::default() };
        for partition in 0..info.spec.partitions {
            work.content.insert(partition, self.content(&self.work, partition).await?);
        }
        let group = match admin.describe_group(&self.group).await {
            Ok(info) => {
                let mut of_work = info.partitions.iter().filter(|partition| partition.topic == self.work);
                of_work.any(|partition| partition.position.is_some())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(View { work: Some(work), out, group })
    }

    pub(crate) async fn content(
        &self,
        topic: &Topic,
        partition: u32,
    ) -> ropeway_broker::Result<Vec<(Place, Id)>> {
        let mut reader = self.broker.read().await?;
        reader.follow(topic, Some(partition), Start::Earliest).await?;
        let mut found = Vec::new();
        loop {
            match reader.next().await? {
                Event::Batch(batch) => {
                    for delivery in &batch.deliveries {
                        found.push((place(delivery.position), number(&delivery.message)));
                    }
                }
                Event::CaughtUp(_) => return Ok(found),
                _ => {}
            }
        }
    }

    /// After each step: what must have come did, or the process is over.
    pub(crate) async fn settle(&mut self) -> Run {
        for _ in 0..TRIES {
            self.note_time();
            if self.disk.is_killed() {
                self.restart(true).await?;
                continue;
            }
            if self.disk.has_failed() {
                self.lingered += 1;
                if self.lingered <= LINGER {
                    return self.poll_until("what is there comes", |_, _| Ok(true)).await;
                }
                self.restart(false).await?;
                continue;
            }
            // What could not be read for a forward makes the broker refuse writes, as a failed commit does.
            if self.had_failed_read() && !self.broker.health().await.is_ready() {
                self.restart(true).await?;
                continue;
            }
            self.catch_up().await?;
            if self.is_well() {
                return self.reference.caught_up();
            }
        }
        Err("it does not come to rest".into())
    }

    /// Polls until all came that must have.
    async fn catch_up(&mut self) -> Run {
        let caught =
            self.poll_until("all comes", |stage, _| Ok(stage.reference.awaited(stage.now()).is_none())).await;
        caught.map_err(|why| match self.reference.awaited(self.now()) {
            Some(awaited) => format!("{why}; {awaited}"),
            None => why,
        })
    }

    /// Polls all members once; whether anything came.
    fn poll_members(&mut self, cx: &mut Context<'_>) -> Run<bool> {
        let mut moved = false;
        let slots: Vec<usize> = self.members.keys().copied().collect();
        for slot in slots {
            if self.disk.is_killed() {
                return Ok(false);
            }
            let Some(member) = self.members.get_mut(&slot).filter(|member| !member.ended) else { continue };
            let polled = member.consumer.poll_next(cx);
            // Who is killed tells nothing.
            if self.disk.is_killed() {
                return Ok(false);
            }
            match polled {
                Poll::Pending => continue,
                Poll::Ready(Err(error)) => self.ended(slot, &error)?,
                Poll::Ready(Ok(event)) => self.see(slot, event)?,
            }
            moved = true;
        }
        Ok(moved)
    }

    /// A consumer ends: it was closed, or something could not be read.
    fn ended(&mut self, slot: usize, error: &ropeway_broker::Error) -> Run {
        if error.kind() == ErrorKind::Closed {
            self.members.get_mut(&slot).into_iter().for_each(|member| member.ended = true);
            return Ok(());
        }
        self.excused(error)?;
        self.members.remove(&slot);
        self.reference.members = self.members.len();
        self.reference.ended(slot)
    }

    fn see(&mut self, slot: usize, event: Event) -> Run {
        self.note_time();
        let now = self.now();
        match event {
            Event::Assigned(list) => {
                let taken = self.had_failed_read();
                for assignment in list {
                    let of = assignment.of;
                    self.reference.assigned(slot, of.partition, of.epoch.0, taken)?;
                    self.owned.insert(of.partition, of);
                }
            }
            Event::Revoking { partitions, .. } => {
                for of in &partitions {
                    if let Some(turn) =
                        self.reference.turns.get_mut(&of.partition).filter(|t| t.epoch == of.epoch.0)
                    {
                        turn.given_up = true;
                    }
                    if let Some(member) = self.members.get(&slot) {
                        member.control.give_up(of);
                    }
                }
            }
            Event::Gone(of, _) => self.reference.gone(slot, of.partition, of.epoch.0),
            Event::Batch(batch) => {
                let of = (batch.of.partition, batch.of.epoch.0);
                for Delivery { position, message } in batch.deliveries {
                    self.reference.delivered(slot, of, number(&message), place(position), now)?;
                }
            }
            Event::Gap { why: GapReason::Trimmed, .. } if self.reference.purged => {}
            Event::Gap { why: GapReason::Recreated, .. } => {}
            Event::CaughtUp(_) => {}
            other => return Err(format!("{slot} is told {other:?}")),
        }
        Ok(())
    }

    /// Polls members until something holds or the process is over.
    pub(crate) async fn poll_until(
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
                // What was lost to a read error is for who comes next.
                return match holds(self, cx) {
                    Err(why) => Poll::Ready(Err(why)),
                    Ok(held) if held || !self.is_well() => Poll::Ready(Ok(())),
                    Ok(_) => Poll::Pending,
                };
            }
        });
        timeout(PATIENCE, polled).await.unwrap_or_else(|_| Err(format!("{what}: not within {PATIENCE:?}")))
    }
}

/// The number of a message; what was never published has one that nobody knows.
fn number(message: &Message) -> Id {
    let text = message.payload.as_deref().and_then(|payload| std::str::from_utf8(payload).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(Id::MAX)
}
