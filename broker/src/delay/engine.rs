//! The task that takes part in moving the delayed messages of one life of a topic: a member of the hidden group.
//!
//! It reads the internal topic, lets `shelf.rs` and `tier.rs` decide, and does what they say. Not here: how that is done (`job.rs`), which topics are
//! looked after (`mod.rs`).

use super::{
    desk::Desk,
    ground::Ground,
    job::{Back, Life, Site, put_at},
    names::{Names, PARTITIONS, SHELVES},
    plan::Limits,
    record::{Record, Strange},
    shelf::{Job, Report, Shelf},
    tier::{Tier, WAITS},
};
use crate::{
    Bound, Consumer, ConsumerExt, Control, Delivery, Error, ErrorKind, Event, Owned, Result, Subscription,
    Timestamp,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How often it is asked whether the topic is there, beside each time before something is moved.
const LOOK: Duration = Duration::from_secs(10);
/// How many looks in a row must find no such topic, or another, before what waits for it is dropped: a server that lags behind says that of one that is there.
const GONE: u32 = 30;
/// How long the task sleeps at the most while something waits: the machine's clock may be set.
const NAP: Duration = Duration::from_secs(1);
/// After what time it joins again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same, where it has no right to do what it would have to do.
const FORBIDDEN: Duration = Duration::from_secs(300);
/// How long a member that leaves waits for its acks to take effect.
const LEAVE: Duration = Duration::from_secs(2);
/// How soon acks take effect.
const ACKS: Duration = Duration::from_millis(100);

/// What a task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    /// Finish what is on its way, and leave.
    Stop,
    /// The topic is gone: leave, and remove what waits.
    Gone,
}

/// A question to a task.
type Count = oneshot::Sender<Option<u64>>;

/// Looks after one life of a topic until it is dropped.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) site: Site,
    order: watch::Sender<Order>,
    counts: mpsc::Sender<Count>,
    task: AbortHandle,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Engine {
    pub(super) fn start(ground: Arc<dyn Ground>, names: Names) -> Self {
        let site = Site { ground, names: Arc::new(names), desk: Arc::new(Desk::default()) };
        let (order, ordered) = watch::channel(Order::Run);
        let (counts, asked) = mpsc::channel(64);
        let task = tokio::spawn(run(site.clone(), ordered, asked)).abort_handle();
        Self { site, order, counts, task }
    }

    /// How many messages wait that are not due, where this process knows of all.
    pub(super) async fn count(&self) -> Option<u64> {
        let (tell, told) = oneshot::channel();
        self.counts.send(tell).await.ok()?;
        told.await.ok()?
    }

    /// Whether it ended.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// The topic is gone.
    pub(super) fn gone(&self) {
        self.order.send_replace(Order::Gone);
    }

    /// Finishes what is on its way and leaves the group.
    pub(super) async fn stop(&self) {
        self.order.send_replace(Order::Stop);
        self.ended().await;
    }

    /// Waits until it ended.
    pub(super) async fn ended(&self) {
        // The task holds the other end.
        self.order.closed().await;
    }
}

async fn run(site: Site, mut order: watch::Receiver<Order>, mut counts: mpsc::Receiver<Count>) {
    let mut gone = false;
    loop {
        let joined = site.ground.subscribe(subscription(&site.names));
        let joined = select! {
            joined = joined => joined,
            () = unknown(&mut counts) => continue,
            _ = order.wait_for(|order| *order != Order::Run) => break,
        };
        let ended = match joined {
            Ok(consumer) => Work::new(site.clone(), consumer).run(&mut order, &mut counts).await,
            Err(error) => Err(error),
        };
        site.desk.set_none_owned();
        let mut again = AGAIN;
        match ended {
            Ok(over) => {
                gone = over == Order::Gone;
                break;
            }
            Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::NotFound) => return,
            Err(error) if error.kind() == ErrorKind::Unauthorized => {
                tracing::warn!(topic = %site.names.topic, %error, "delayed messages are left to processes that may move them");
                again = FORBIDDEN;
            }
            Err(error) => {
                tracing::warn!(topic = %site.names.topic, %error, "delayed messages are looked after again in a while");
            }
        }
        select! {
            () = sleep(again) => {}
            () = unknown(&mut counts) => {}
            _ = order.wait_for(|order| *order != Order::Run) => break,
        }
    }
    if gone || *order.borrow() == Order::Gone {
        remove(&site).await;
    }
}

/// Answers how many messages wait while that is not known here. Ends when nobody can ask any more.
async fn unknown(counts: &mut mpsc::Receiver<Count>) {
    while let Some(count) = counts.recv().await {
        _ = count.send(None);
    }
}

/// Removes what waits for a topic that is gone. Where others are members still, the last one does.
async fn remove(site: &Site) {
    if let Err(error) = site.ground.delete(&site.names.internal).await {
        tracing::debug!(topic = %site.names.internal, %error, "what is left of a deleted topic is removed by others");
    }
}

/// What a member may hold: twice what each partition puts away at, so that it reads on meanwhile.
fn subscription(names: &Names) -> Subscription {
    let partitions = PARTITIONS as usize;
    Subscription {
        in_flight: Bound {
            messages: partitions * Limits::ALL.messages,
            bytes: partitions * Limits::ALL.bytes,
        },
        ack_interval: ACKS,
        ..Subscription::new(names.group.clone(), [names.internal.clone()])
    }
}

/// What a partition holds.
#[derive(Debug)]
enum Kind {
    Shelf(Box<Shelf>),
    Tier(Tier),
    /// Somebody added it: nothing is put there.
    Foreign,
}

#[derive(Debug)]
struct Place {
    of: Owned,
    kind: Kind,
    /// How many jobs are on their way.
    busy: usize,
    /// No more is begun; it is given up when nothing is on its way.
    leaving: bool,
    paused: bool,
    caught_up: bool,
    /// What can be acked, beside what the shelf says.
    acks: Vec<crate::Position>,
}

/// What a job tells.
enum Told {
    /// And what the topic was found to be, where that was asked.
    Report(Option<Report>, Option<Life>),
    Back(Back),
    Life(Life),
}

type Working = FuturesUnordered<BoxFuture<'static, (Option<Owned>, Told)>>;

/// One membership.
struct Work {
    site: Site,
    consumer: Box<dyn Consumer>,
    control: Arc<dyn Control>,
    places: BTreeMap<u32, Place>,
    working: Working,
    /// How many looks in a row did not find the topic.
    missed: u32,
    look: Instant,
    over: Option<Order>,
}

impl Work {
    fn new(site: Site, consumer: Box<dyn Consumer>) -> Self {
        let control = consumer.control();
        Self {
            site,
            consumer,
            control,
            places: BTreeMap::new(),
            working: Working::new(),
            missed: 0,
            look: Instant::now() + LOOK,
            over: None,
        }
    }

    /// Works until it is told to end, or cannot go on.
    async fn run(
        mut self,
        order: &mut watch::Receiver<Order>,
        counts: &mut mpsc::Receiver<Count>,
    ) -> Result<Order> {
        while self.over.is_none() {
            let wake = self.wake();
            select! {
                event = self.consumer.next() => self.take(event?),
                Some((of, told)) = self.working.next() => self.told(of, told),
                Some(count) = counts.recv() => drop(count.send(self.count())),
                _ = order.wait_for(|order| *order != Order::Run) => { self.over = Some(Order::Stop); }
                () = sleep_until(wake) => {}
            }
            if let Some(error) = self.site.desk.forbidden() {
                // What it holds is for who may.
                self.leave().await;
                return Err(error);
            }
            self.pump();
        }
        let over = match *order.borrow() {
            Order::Run => self.over.unwrap_or(Order::Stop),
            ordered => ordered,
        };
        self.leave().await;
        Ok(over)
    }

    fn now(&self) -> Timestamp {
        self.site.ground.now()
    }

    /// When to look again at the latest.
    fn wake(&self) -> Instant {
        let wake = |place: &Place| match &place.kind {
            _ if place.leaving => None,
            Kind::Shelf(shelf) => shelf.wake(),
            Kind::Tier(tier) => tier.wake(),
            Kind::Foreign => None,
        };
        let next = self.places.values().filter_map(wake).min();
        let least = Duration::from_millis(1);
        let nap = next.map(|at| Instant::now() + at.since(self.now()).clamp(least, NAP));
        nap.map_or(self.look, |nap| nap.min(self.look))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Assigned(all) => all.into_iter().for_each(|assigned| self.assigned(assigned.of)),
            Event::Revoking { partitions, .. } => {
                for of in partitions {
                    if let Some(place) = self.places.get_mut(&of.partition) {
                        place.leaving = true;
                    }
                }
            }
            Event::Gone(of, _) => {
                self.places.remove(&of.partition);
                self.site.desk.set_owned(of.partition, false);
            }
            Event::Batch(batch) => {
                let now = self.now();
                if let Some(place) = self.places.get_mut(&batch.of.partition) {
                    batch.deliveries.into_iter().for_each(|delivery| place.read(delivery, now));
                }
            }
            Event::Unreadable { of, position, why, .. } => {
                if let Some(place) = self.places.get_mut(&of.partition) {
                    place.pass(position, &why);
                }
            }
            Event::Gap { of, why, .. } => {
                tracing::debug!(topic = %of.topic, partition = of.partition, why = why.as_str(), "what was done is gone");
            }
            Event::CaughtUp(of) => {
                if let Some(place) = self.places.get_mut(&of.partition) {
                    place.caught_up = true;
                }
            }
        }
    }

    fn assigned(&mut self, of: Owned) {
        let kind = if of.partition < SHELVES {
            self.site.desk.set_owned(of.partition, true);
            Kind::Shelf(Box::new(Shelf::new(of.epoch, Limits::ALL)))
        } else {
            let wait = WAITS.get((of.partition - SHELVES) as usize);
            wait.map_or(Kind::Foreign, |wait| Kind::Tier(Tier::new(*wait)))
        };
        let partition = of.partition;
        let acks = Vec::new();
        let place = Place { of, kind, busy: 0, leaving: false, paused: false, caught_up: false, acks };
        self.places.insert(partition, place);
    }

    fn told(&mut self, of: Option<Owned>, told: Told) {
        let now = self.now();
        match &told {
            Told::Life(life) => self.seen(*life),
            // It is there: so it was not gone.
            Told::Report(_, Some(Life::Here)) => self.missed = 0,
            Told::Report(..) | Told::Back(_) => {}
        }
        let Some(of) = of else { return };
        // A partition that came again is another one.
        let Some(place) = self.places.get_mut(&of.partition).filter(|place| place.of == of) else { return };
        place.busy = place.busy.saturating_sub(1);
        match (told, &mut place.kind) {
            (Told::Report(Some(report), _), Kind::Shelf(shelf)) => shelf.report(report, now),
            (Told::Back(back), Kind::Tier(tier)) => {
                tier.report(&back.done, back.failed, now);
                place.acks.extend(back.done);
            }
            _ => {}
        }
    }

    /// What is to be done where the topic is gone: a topic of that name that was made again has other messages. Nothing is moved meanwhile.
    fn seen(&mut self, life: Life) {
        let found = life == Life::Here;
        self.site.desk.doubt(!found);
        self.missed = if found { 0 } else { self.missed + 1 };
        if self.missed >= GONE {
            self.over = Some(Order::Gone);
        }
    }

    /// Begins what there is to do, and acks what is settled.
    fn pump(&mut self) {
        if self.look <= Instant::now() {
            self.look = Instant::now() + LOOK;
            let site = self.site.clone();
            self.working.push(Box::pin(async move { (None, Told::Life(site.life().await)) }));
        }
        let now = self.now();
        let partitions: Vec<u32> = self.places.keys().copied().collect();
        for partition in partitions {
            let Some(place) = self.places.get_mut(&partition) else { continue };
            place.settle(&*self.control);
            if place.leaving {
                if place.busy == 0 {
                    self.control.give_up(&place.of);
                }
                continue;
            }
            place.pause_or_resume(&*self.control);
            place.begin(&self.site, &self.control, &self.working, now);
        }
    }

    /// How many messages wait, where all partitions are owned here and known to their end.
    fn count(&self) -> Option<u64> {
        if self.places.len() < PARTITIONS as usize {
            return None;
        }
        let now = self.now();
        let count = |place: &Place| match &place.kind {
            Kind::Shelf(shelf) => shelf.taken.then(|| shelf.waiting(now) as u64),
            Kind::Tier(tier) => (place.caught_up && !place.paused && tier.is_empty()).then_some(0),
            Kind::Foreign => Some(0),
        };
        self.places.values().map(count).sum()
    }

    /// Finishes what is on its way, within the publish deadline, and leaves.
    async fn leave(mut self) {
        self.places.values_mut().for_each(|place| place.leaving = true);
        while self.places.values().any(|place| place.busy > 0) {
            let Some((of, told)) = self.working.next().await else { break };
            self.told(of, told);
        }
        for place in self.places.values_mut() {
            place.settle(&*self.control);
        }
        // What was not acked is for the next owner.
        _ = timeout(LEAVE, self.control.flush()).await;
        _ = self.control.close(Duration::ZERO).await;
        while self.consumer.next().await.is_ok() {}
    }
}

impl Place {
    fn read(&mut self, delivery: Delivery, now: Timestamp) {
        let at = delivery.position;
        match (Record::unpack(&delivery.message), &mut self.kind) {
            (Ok(record), Kind::Shelf(shelf)) => shelf.read(at, record, now),
            (Ok(Record::Message(held)), Kind::Tier(tier)) => {
                tier.read(at, put_at(&delivery.message), held);
            }
            (Ok(_), _) => self.acks.push(at),
            (Err(Strange::Newer), _) => {
                tracing::warn!(topic = %self.of.topic, partition = self.of.partition, %at, "a newer version wrote this; it waits for one");
                if let Kind::Shelf(shelf) = &mut self.kind {
                    shelf.leave(at);
                }
            }
            (Err(Strange::Damaged(error)), _) => self.pass(at, &error),
        }
    }

    /// Passes over what cannot be read.
    fn pass(&mut self, at: crate::Position, why: &Error) {
        tracing::error!(topic = %self.of.topic, partition = self.of.partition, %at, error = %why, "a delayed message cannot be read and is lost");
        match &mut self.kind {
            Kind::Shelf(shelf) => shelf.pass(at),
            _ => self.acks.push(at),
        }
    }

    /// Acks what is settled.
    fn settle(&mut self, control: &dyn Control) {
        let mut acks = std::mem::take(&mut self.acks);
        if let Kind::Shelf(shelf) = &mut self.kind {
            acks.extend(shelf.take_acks());
        }
        if !acks.is_empty()
            && let Err(error) = control.ack(&self.of, &acks)
        {
            // It is another's by now, which does it again.
            tracing::debug!(topic = %self.of.topic, partition = self.of.partition, %error, "acks came too late");
        }
    }

    fn pause_or_resume(&mut self, control: &dyn Control) {
        let Kind::Tier(tier) = &self.kind else { return };
        if tier.is_full() != self.paused {
            self.paused = !self.paused;
            control.pause(&self.of, self.paused);
        }
    }

    fn begin(&mut self, site: &Site, control: &Arc<dyn Control>, working: &Working, now: Timestamp) {
        match &mut self.kind {
            Kind::Shelf(shelf) => {
                for job in shelf.tick(now) {
                    if job == Job::GiveUp {
                        self.leaving = true;
                        continue;
                    }
                    self.busy += 1;
                    working.push(perform(site.clone(), self.of.clone(), Arc::clone(control), job));
                }
            }
            Kind::Tier(tier) => {
                let back = tier.tick(now);
                if !back.is_empty() {
                    self.busy += 1;
                    let (site, of) = (site.clone(), self.of.clone());
                    working
                        .push(Box::pin(async move { (Some(of), Told::Back(site.bring_back(back).await)) }));
                }
            }
            Kind::Foreign => {}
        }
    }
}

fn perform(
    site: Site,
    of: Owned,
    control: Arc<dyn Control>,
    job: Job,
) -> BoxFuture<'static, (Option<Owned>, Told)> {
    Box::pin(async move {
        let mut life = None;
        if let Job::Move(all) = &job {
            // Nothing is moved into a topic that was made again.
            let found = site.life().await;
            life = Some(found);
            if found != Life::Here {
                let failed = all.iter().map(|(at, _)| *at).collect();
                let report = Report::Moved { away: false, done: Vec::new(), failed };
                return (Some(of), Told::Report(Some(report), life));
            }
        }
        let report = site.perform(of.clone(), control, job).await;
        (Some(of), Told::Report(report, life))
    })
}
