//! A bus that does what a test says, and remembers what was asked of it.
//!
//! For what no real broker does on demand: a partition lost under a running handler, a dead-letter topic that refuses, a consumer that
//! fails. Not here: how a processor behaves on a real broker (`tests/` of this crate).

use async_trait::async_trait;
use ropeway_broker::*;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

/// What was asked of the bus, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    Ack(u32, Vec<u64>),
    Letter(u32, u64, Message),
    GiveUp(u32),
    Create(String),
    Close(Duration),
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Result<Event>>,
    waker: Option<Waker>,
    asked: Vec<Asked>,
    /// Answers to the next forwards; when they are used up, all is acked.
    refuse: VecDeque<ErrorKind>,
    refuse_for_ever: bool,
    closes: bool,
    acks_take: Duration,
    /// The task that polls.
    driver: Option<tokio::task::Id>,
    /// Turns that the driver was told are over, and how much it had asked then.
    ended: HashMap<(u32, u64), usize>,
}

/// The bus and its only consumer.
#[derive(Clone, Debug, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

pub(super) fn owned(partition: u32, epoch: u64) -> Owned {
    Owned { topic: Topic::new("t").unwrap(), partition, epoch: Epoch(epoch) }
}

pub(super) fn message(key: &str, text: &str) -> Message {
    Message::builder().key(key.to_owned()).event_type("e").payload(text.to_owned()).build()
}

impl State {
    /// The driver is told this now.
    fn told(&mut self, event: &Result<Event>) {
        let over = match event {
            Ok(Event::Revoking { partitions, .. }) => partitions.clone(),
            Ok(Event::Gone(owned, _)) => vec![owned.clone()],
            _ => return,
        };
        for owned in over {
            self.ended.insert((owned.partition, owned.epoch.0), self.asked.len());
        }
    }
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, event: Result<Event>) {
        let mut state = self.state();
        state.events.push_back(event);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn assign(&self, partition: u32, epoch: u64) {
        let assignment = Assignment { of: owned(partition, epoch), resumed: None, from: Position(0, 0) };
        self.tell(Ok(Event::Assigned(vec![assignment])));
    }

    /// Delivers messages at the positions from `first` on.
    pub(super) fn deliver(
        &self,
        partition: u32,
        epoch: u64,
        first: u64,
        messages: impl IntoIterator<Item = Message>,
    ) {
        let deliveries = messages
            .into_iter()
            .zip(first..)
            .map(|(message, at)| Delivery { position: Position(0, at), message })
            .collect();
        self.tell(Ok(Event::Batch(Batch { of: owned(partition, epoch), deliveries })));
    }

    pub(super) fn revoke(&self, partition: u32, epoch: u64, left: Duration) {
        self.tell(Ok(Event::Revoking { partitions: vec![owned(partition, epoch)], left }));
    }

    pub(super) fn gone(&self, partition: u32, epoch: u64, reason: GoneReason) {
        self.tell(Ok(Event::Gone(owned(partition, epoch), reason)));
    }

    pub(super) fn refuse(&self, kinds: impl IntoIterator<Item = ErrorKind>) {
        self.state().refuse.extend(kinds);
    }

    pub(super) fn refuse_for_ever(&self, refuse: bool) {
        self.state().refuse_for_ever = refuse;
    }

    /// Giving acks takes that long, of the thread that gives them.
    pub(super) fn acks_take(&self, time: Duration) {
        self.state().acks_take = time;
    }

    /// The consumer ends as soon as it is told to close.
    pub(super) fn closes(self) -> Self {
        self.state().closes = true;
        self
    }

    /// The task that asks for events.
    pub(super) fn driver(&self) -> Option<tokio::task::Id> {
        self.state().driver
    }

    /// How much the driver had asked when it was told that a turn is to end or has ended; `None` where it was not told so.
    pub(super) fn ended(&self, partition: u32, epoch: u64) -> Option<usize> {
        self.state().ended.get(&(partition, epoch)).copied()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// Acked positions of a partition, in order.
    pub(super) fn acked(&self, of: u32) -> Vec<u64> {
        let asked = self.asked();
        let acks = asked.iter().filter_map(|asked| match asked {
            Asked::Ack(partition, positions) if *partition == of => Some(positions.clone()),
            _ => None,
        });
        acks.flatten().collect()
    }

    pub(super) fn letters(&self) -> Vec<Message> {
        let letter = |asked| if let Asked::Letter(_, _, letter) = asked { Some(letter) } else { None };
        self.asked().into_iter().filter_map(letter).collect()
    }

    fn ask(&self, asked: Asked) {
        self.state().asked.push(asked);
    }
}

impl Consumer for Fake {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let mut state = self.state();
        state.driver = tokio::task::try_id();
        match state.events.pop_front() {
            Some(event) => {
                state.told(&event);
                Poll::Ready(event)
            }
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(self.clone())
    }
}

impl Control for Fake {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        let takes = self.state().acks_take;
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        self.ask(Asked::Ack(of.partition, done.iter().map(|position| position.1).collect()));
        Ok(())
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let refused = {
            let mut state = self.state();
            let for_ever = state.refuse_for_ever.then_some(ErrorKind::Unavailable);
            state.refuse.pop_front().or(for_ever)
        };
        let batch: Vec<Message> = out.into_iter().map(|(_, message)| message).collect();
        if let Some(kind) = refused {
            let error = Error::new(kind, "refused by the test");
            return Box::pin(async move { Outcomes::all_not_written(&error, batch) });
        }
        self.ask(Asked::Letter(of.partition, done[0].1, batch[0].clone()));
        let acked = Published::Acked { partition: 0, position: None, durability: Durability::Volatile };
        Box::pin(async move { Outcomes(vec![acked]) })
    }

    fn pause(&self, _: &Owned, _: bool) {}

    fn give_up(&self, of: &Owned) {
        self.ask(Asked::GiveUp(of.partition));
    }

    fn confirm(&self, _: &Owned) -> Answer<Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        Box::pin(async { Vec::new() })
    }

    fn set_topics(&self, _: Vec<Topic>) -> Answer<Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        self.ask(Asked::Close(deadline));
        if self.state().closes {
            let fake = self.clone();
            // As a real one does where nobody gives anything up.
            tokio::spawn(async move {
                tokio::time::sleep(deadline).await;
                fake.tell(Err(Error::new(ErrorKind::Closed, "closed")));
            });
        }
        Box::pin(async { Vec::new() })
    }
}

impl MessageBroker for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "fake",
            atomic_forward: true,
            replay: true,
            compaction: false,
            shared_by_processes: false,
        }
    }

    fn publish(&self, _: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        let error = Error::new(ErrorKind::Unsupported, "the fake takes no messages");
        Box::pin(async move { Outcomes::all_not_written(&error, batch) })
    }

    fn subscribe(&self, _: Subscription) -> Answer<Result<Box<dyn Consumer>>> {
        let consumer: Box<dyn Consumer> = Box::new(self.clone());
        Box::pin(async { Ok(consumer) })
    }

    fn read(&self) -> Answer<Result<Box<dyn Reader>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Unsupported, "the fake has no reader")) })
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    fn health(&self) -> Answer<Health> {
        Box::pin(async { Health::Up })
    }

    fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    fn close(&self, _: Duration) -> Answer<()> {
        Box::pin(async {})
    }
}

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "not in the fake"))
}

#[async_trait]
impl Admin for Fake {
    async fn create_topic(&self, topic: &Topic, _: TopicSpec) -> Result<()> {
        self.ask(Asked::Create(topic.to_string()));
        Ok(())
    }
    async fn describe_topic(&self, _: &Topic) -> Result<TopicInfo> {
        Ok(TopicInfo {
            spec: TopicSpec::partitions(4),
            durability: Durability::Volatile,
            max_message: 1 << 20,
            delayed: None,
            partitions: Vec::new(),
        })
    }
    async fn topics(&self) -> Result<Vec<Topic>> {
        unsupported()
    }
    async fn grow_topic(&self, _: &Topic, _: u32) -> Result<()> {
        unsupported()
    }
    async fn purge_topic(&self, _: &Topic, _: Option<u32>, _: Start) -> Result<()> {
        unsupported()
    }
    async fn delete_topic(&self, _: &Topic) -> Result<()> {
        unsupported()
    }
    async fn cancel_delayed(&self, _: &Topic, _: MessageId) -> Result<bool> {
        unsupported()
    }
    async fn groups(&self) -> Result<Vec<Group>> {
        unsupported()
    }
    async fn describe_group(&self, _: &Group) -> Result<GroupInfo> {
        unsupported()
    }
    async fn seek_group(&self, _: &Group, _: &Topic, _: Option<u32>, _: Start) -> Result<()> {
        unsupported()
    }
    async fn delete_group(&self, _: &Group) -> Result<()> {
        unsupported()
    }
}
