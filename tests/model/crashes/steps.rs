//! What each step of a program does, and what its answer means.
//!
//! What had no answer, or one that leaves it open, is open in the reference. Not here: restarts and what members are told (`run.rs`).

use super::{
    program::Step,
    reference::{Forward, Id, Is, Place},
    run::{Member, Run, SLOTS, Stage, TRIES, place},
};
use ropeway_broker::{
    Clock, Error, ErrorKind, Message, Position, Published, Start, Subscription, Target, Timestamp,
};
use std::{collections::BTreeMap, future::Future, task::Poll, time::Duration};
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3600);

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Done,
    /// It was refused, and nothing happened.
    Refused(ErrorKind),
    Open,
}

impl Stage {
    pub(crate) async fn perform(&mut self, step: &Step) -> Run {
        match *step {
            Step::Publish { partition, count } => self.publish(partition.into(), count).await,
            Step::Again { which } => self.again(which.into()).await,
            Step::Delay { partition, millis } => self.delay(partition.into(), millis).await,
            Step::Cancel { which } => self.cancel(which.into()).await,
            Step::Join { slot } => self.join(usize::from(slot) % SLOTS).await,
            Step::Leave { slot, drop } => self.leave(usize::from(slot) % SLOTS, drop).await,
            Step::Ack { slot, mask, flush } => self.ack(usize::from(slot) % SLOTS, mask, flush).await,
            Step::Forward { slot, mask, out } => self.forward(usize::from(slot) % SLOTS, mask, out).await,
            Step::Purge { partition, which } => self.purge(partition.into(), which.into()).await,
            Step::Grow => self.grow().await,
            Step::Delete { again } => {
                self.delete().await?;
                if again { self.create().await } else { Ok(()) }
            }
            Step::Create => self.create().await,
            Step::DeleteGroup => self.delete_group().await,
            Step::Seek { partition, which } => self.seek(partition.into(), which.into()).await,
            Step::Wait { millis } => self.wait(Duration::from_millis(millis.into())).await,
            Step::Jump { forward } => {
                let now = self.clock.now().as_millis();
                let by = HOUR.as_millis() as i64;
                self.clock.set(Timestamp::from_millis(if forward { now + by } else { now - by }));
                Ok(())
            }
            Step::Reopen => self.restart(false).await,
            Step::Crash => self.restart(true).await,
        }
    }

    /// What an administrative call came to.
    fn answered<T>(&mut self, answer: &Result<T, Error>) -> Run<Answered> {
        match answer {
            _ if self.disk.is_killed() => Ok(Answered::Open),
            Ok(_) => Ok(Answered::Done),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.excused(error)?;
                Ok(Answered::Open)
            }
            Err(error) => Ok(Answered::Refused(error.kind())),
        }
    }

    fn partition(&self, number: u32) -> u32 {
        number % self.reference.partitions.max(1)
    }

    /// Publishes messages that were announced to the reference.
    async fn send(&mut self, partition: u32, batch: Vec<(Id, Message)>) -> Run {
        let to = Target { partition: Some(partition), ..(&self.work).into() };
        let (ids, messages): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let was_well = self.is_well();
        let outcomes = self.broker.publish(&to, messages).await.0;
        if self.disk.is_killed() {
            return Ok(());
        }
        if outcomes.len() != ids.len() {
            return Err(format!("{} outcomes for {} messages", outcomes.len(), ids.len()));
        }
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            self.outcome(id, partition, &outcome, was_well)?;
        }
        Ok(())
    }

    fn outcome(&mut self, id: Id, partition: u32, outcome: &Published, was_well: bool) -> Run {
        let now = self.now();
        let remembered = self.remembered_before(id);
        let may_throttle = self.reference.may_throttle(now);
        let record = &mut self.reference.records[id];
        match outcome {
            Published::Acked { position: Some(position), .. } => {
                if remembered == Is::Yes {
                    return Err(format!("the id of {id} comes again and is written again"));
                }
                self.reference.lies(id, partition, place(*position), now)?;
            }
            Published::Acked { position: None, .. } if record.due.is_some() => record.written = Is::Yes,
            Published::Acked { position: None, .. } => {
                if remembered == Is::No {
                    return Err(format!("{id} is taken for a repeat: {record:?}"));
                }
                record.written = Is::No;
            }
            Published::NotWritten(failed) => {
                record.written = Is::No;
                let kind = failed.error.kind();
                let excused = (kind == ErrorKind::NotFound && self.reference.life == 0)
                    || (kind == ErrorKind::Throttled && may_throttle)
                    || !was_well;
                if !excused {
                    self.excused(&failed.error)?;
                }
            }
            Published::Unknown(failed) => {
                if remembered == Is::Yes {
                    record.written = Is::No;
                }
                self.excused(&failed.error)?;
            }
        }
        Ok(())
    }

    /// Whether the id of a message was remembered before it was published.
    fn remembered_before(&mut self, id: Id) -> Is {
        let root = self.reference.records[id].root;
        let written = std::mem::replace(&mut self.reference.records[id].written, Is::No);
        let remembered = self.reference.remembered(root, self.now());
        self.reference.records[id].written = written;
        remembered
    }

    async fn publish(&mut self, partition: u32, count: u8) -> Run {
        let partition = self.partition(partition);
        let batch = (0..count).map(|_| self.message(partition, None, None)).collect();
        self.send(partition, batch).await
    }

    /// A new message, with the id of another one or its own.
    fn message(&mut self, partition: u32, due: Option<Timestamp>, root: Option<Id>) -> (Id, Message) {
        let steady = self.now().steady;
        let id = self.reference.publishing(partition, due.map(Timestamp::as_millis), steady, root);
        let own = root.and_then(|root| self.ids.get(root).copied()).unwrap_or_default();
        self.ids.push(own);
        let message = Message::builder().id(own).payload(id.to_string());
        (id, if let Some(due) = due { message.deliver_at(due) } else { message }.build())
    }

    async fn again(&mut self, which: usize) -> Run {
        let records = self.reference.records.iter();
        let roots: Vec<Id> = records.filter(|r| r.due.is_none()).map(|record| record.root).collect();
        let Some(root) = roots.get(which % roots.len().max(1)).copied() else { return Ok(()) };
        let partition = self.partition(self.reference.records[root].partition);
        let message = self.message(partition, None, Some(root));
        self.send(partition, vec![message]).await
    }

    async fn delay(&mut self, partition: u32, millis: u16) -> Run {
        let partition = self.partition(partition);
        let due = self.clock.now() + Duration::from_millis(millis.into());
        let message = self.message(partition, Some(due), None);
        self.send(partition, vec![message]).await
    }

    async fn cancel(&mut self, which: usize) -> Run {
        let records = self.reference.records.iter().enumerate();
        let delayed: Vec<Id> = records.filter(|(_, record)| record.due.is_some()).map(|(id, _)| id).collect();
        let Some(id) = delayed.get(which % delayed.len().max(1)).copied() else { return Ok(()) };
        let answer = self.broker.admin().cancel_delayed(&self.work, self.ids[id]).await;
        let answered = self.answered(&answer)?;
        let life = self.reference.life;
        let record = &mut self.reference.records[id];
        match (answered, answer) {
            (Answered::Open, _) if record.cancelled == Is::No && record.place.is_none() => {
                record.cancelled = Is::Perhaps;
            }
            (Answered::Done, Ok(true)) => {
                let there = record.place.is_none() && record.life == life;
                if !there || record.written == Is::No || record.cancelled == Is::Yes {
                    return Err(format!("{id} is cancelled, and was not there to be: {record:?}"));
                }
                (record.cancelled, record.written) = (Is::Yes, Is::Yes);
            }
            _ => {}
        }
        Ok(())
    }

    async fn join(&mut self, slot: usize) -> Run {
        if self.members.contains_key(&slot) {
            return Ok(());
        }
        let subscription = Subscription::new(self.group.clone(), [self.work.clone()]);
        let answer = self.broker.subscribe(subscription).await;
        let group = &mut self.reference.group;
        *group = if *group == Is::Yes { Is::Yes } else { Is::Perhaps };
        match self.answered(&answer)? {
            Answered::Open => return Ok(()),
            Answered::Refused(ErrorKind::NotFound) if self.reference.life == 0 => return Ok(()),
            Answered::Refused(kind) => return Err(format!("joining is refused with {kind:?}")),
            Answered::Done => {}
        }
        let Ok(consumer) = answer else { return Ok(()) };
        self.reference.joined();
        let control = consumer.control();
        self.members.insert(slot, Member { consumer, control, ended: false });
        self.reference.members = self.members.len();
        Ok(())
    }

    async fn leave(&mut self, slot: usize, drop: bool) -> Run {
        if !drop && let Some(member) = self.members.get(&slot) {
            let mut closing = member.control.close(Duration::ZERO);
            let mut answered = false;
            for turn in self.reference.turns.values_mut().filter(|turn| turn.slot == slot) {
                turn.given_up = true;
            }
            self.poll_until("a consumer closes", |stage, cx| {
                answered = answered || matches!(closing.as_mut().poll(cx), Poll::Ready(_));
                Ok(answered && stage.members.get(&slot).is_none_or(|member| member.ended))
            })
            .await?;
        }
        let Some(member) = self.members.remove(&slot) else { return Ok(()) };
        std::mem::drop(member);
        if self.is_well() && !self.had_failed_read() {
            self.reference.stored(slot);
        }
        self.reference.left(slot);
        self.reference.members = self.members.len();
        Ok(())
    }

    async fn all_leave(&mut self) -> Run {
        for slot in 0..SLOTS {
            self.leave(slot, true).await?;
        }
        Ok(())
    }

    /// What of the messages in flight a mask chooses, by partition.
    fn chosen(&self, slot: usize, mask: u16) -> BTreeMap<u32, Vec<Id>> {
        let mut chosen: BTreeMap<u32, Vec<Id>> = BTreeMap::new();
        for (i, (partition, id)) in self.reference.in_flight(slot).into_iter().enumerate() {
            if mask & (1 << (i % 16)) != 0 {
                chosen.entry(partition).or_default().push(id);
            }
        }
        chosen
    }

    fn positions(&self, ids: &[Id]) -> Vec<Position> {
        let places = ids.iter().filter_map(|id| self.reference.records[*id].place);
        places.map(|(a, b)| Position(a, b)).collect()
    }

    pub(crate) async fn ack(&mut self, slot: usize, mask: u16, flush: bool) -> Run {
        for (partition, ids) in self.chosen(slot, mask) {
            let (Some(member), Some(of)) = (self.members.get(&slot), self.owned.get(&partition)) else {
                continue;
            };
            match member.control.ack(of, &self.positions(&ids)) {
                Ok(()) => self.reference.acked(partition, &ids),
                // A failed disk may have taken the partition away.
                Err(error) => self.excused(error)?,
            }
        }
        let Some(member) = self.members.get(&slot).filter(|_| flush) else { return Ok(()) };
        let refused = member.control.flush().await;
        if self.disk.is_killed() {
            return Ok(());
        }
        if refused.is_empty() {
            // Also where the disk has failed: who says that it is stored must be right.
            self.reference.stored(slot);
            return Ok(());
        }
        self.excused(refused)
    }

    async fn forward(&mut self, slot: usize, mask: u16, out: u8) -> Run {
        let Some((partition, done)) = self.chosen(slot, mask).into_iter().next() else { return Ok(()) };
        let (Some(member), Some(of)) = (self.members.get(&slot), self.owned.get(&partition)) else {
            return Ok(());
        };
        let first = self.reference.outs;
        let numbers: Vec<Id> = (first..first + usize::from(out)).collect();
        let message = |id: &Id| Message::builder().payload(id.to_string()).build();
        let batch = numbers.iter().map(|id| (Target::from(&self.out), message(id))).collect();
        let was_well = self.is_well();
        let outcomes = member.control.forward(of, &self.positions(&done), batch).await.0;
        self.reference.outs += numbers.len();
        let (mut acked, mut refused) = (0, 0);
        for outcome in &outcomes {
            match outcome {
                Published::Acked { .. } => acked += 1,
                Published::NotWritten(_) => refused += 1,
                Published::Unknown(_) => {}
            }
        }
        let taken = if self.disk.is_killed() {
            Is::Perhaps
        } else if acked == numbers.len() {
            Is::Yes
        } else if acked > 0 || (was_well && !self.had_failed_read() && self.is_well()) {
            return Err(format!("a forward is answered with {outcomes:?}"));
        } else if refused == numbers.len() {
            Is::No
        } else {
            Is::Perhaps
        };
        if taken != Is::No {
            done.iter().for_each(|id| self.reference.records[*id].done = taken);
        }
        self.reference.forwards.push(Forward { out: numbers, done, taken });
        Ok(())
    }

    /// The place of a message that was seen in a partition.
    fn some_place(&self, partition: u32, which: usize) -> Option<Place> {
        let records = self.reference.records.iter().filter(|record| record.partition == partition);
        let places: Vec<Place> = records.filter_map(|record| record.place).collect();
        places.get(which % places.len().max(1)).copied()
    }

    async fn purge(&mut self, partition: u32, which: usize) -> Run {
        let partition = self.partition(partition);
        let Some((life, offset)) = self.some_place(partition, which) else { return Ok(()) };
        let before = Start::At(Position(life, offset));
        let answer = self.broker.admin().purge_topic(&self.work, Some(partition), before).await;
        let now = self.now();
        match self.answered(&answer)? {
            Answered::Refused(ErrorKind::NotFound) if self.reference.life == 0 => {}
            Answered::Refused(ErrorKind::Invalid) if self.reference.life != life => {}
            Answered::Refused(kind) => return Err(format!("purge is refused with {kind:?}")),
            Answered::Done if self.reference.life != life => {
                return Err(format!("a position of life {life} is applied to {}", self.reference.life));
            }
            Answered::Done => self.reference.purged(partition, (life, offset), true, now),
            Answered::Open => self.reference.purged(partition, (life, offset), false, now),
        }
        Ok(())
    }

    async fn grow(&mut self) -> Run {
        let more = self.reference.partitions + 1;
        if self.reference.life == 0 || more > 4 {
            return Ok(());
        }
        let answer = self.broker.admin().grow_topic(&self.work, more).await;
        match self.answered(&answer)? {
            Answered::Done => self.reference.grew(more),
            Answered::Open => self.reference.grown = Some(more),
            Answered::Refused(kind) => return Err(format!("growing is refused with {kind:?}")),
        }
        Ok(())
    }

    async fn delete(&mut self) -> Run {
        self.all_leave().await?;
        if self.disk.is_killed() {
            return Ok(());
        }
        let answer = self.broker.admin().delete_topic(&self.work).await;
        match self.answered(&answer)? {
            Answered::Done => self.reference.died(),
            Answered::Open => self.reference.life_is_open = true,
            Answered::Refused(ErrorKind::NotFound) if self.reference.life == 0 => {}
            Answered::Refused(kind) => return Err(format!("deleting is refused with {kind:?}")),
        }
        Ok(())
    }

    pub(crate) async fn create(&mut self) -> Run {
        if self.disk.is_killed() {
            return Ok(());
        }
        let answer = self.broker.admin().create_topic(&self.work, self.spec()).await;
        match self.answered(&answer)? {
            Answered::Done => match self.broker.admin().describe_topic(&self.work).await {
                Ok(info) => {
                    let life = info.partitions.first().map_or(0, |first| first.low.0);
                    self.reference.lives(life, info.spec.partitions)?;
                }
                Err(error) => {
                    self.reference.life_is_open = true;
                    self.excused(error)?;
                }
            },
            Answered::Open => self.reference.life_is_open = true,
            Answered::Refused(ErrorKind::Exists) if self.reference.life != 0 => {}
            Answered::Refused(kind) => return Err(format!("making a topic is refused with {kind:?}")),
        }
        Ok(())
    }

    async fn delete_group(&mut self) -> Run {
        self.all_leave().await?;
        if self.disk.is_killed() {
            return Ok(());
        }
        let answer = self.broker.admin().delete_group(&self.group).await;
        match self.answered(&answer)? {
            Answered::Done => self.reference.forgotten(true),
            Answered::Open => self.reference.forgotten(false),
            Answered::Refused(ErrorKind::NotFound) if self.reference.group != Is::Yes => {}
            Answered::Refused(kind) => return Err(format!("forgetting a group is refused with {kind:?}")),
        }
        Ok(())
    }

    async fn seek(&mut self, partition: u32, which: usize) -> Run {
        self.all_leave().await?;
        if self.disk.is_killed() {
            return Ok(());
        }
        let partition = self.partition(partition);
        let to = self.some_place(partition, which).filter(|_| !which.is_multiple_of(4));
        let start = to.map_or(Start::Latest, |(life, offset)| Start::At(Position(life, offset)));
        let answer = self.broker.admin().seek_group(&self.group, &self.work, Some(partition), start).await;
        let life = self.reference.life;
        let other = to.filter(|to| to.0 != life);
        match self.answered(&answer)? {
            Answered::Refused(ErrorKind::NotFound) if life == 0 => {}
            Answered::Refused(ErrorKind::Invalid) if other.is_some() => {}
            Answered::Refused(kind) => return Err(format!("seeking is refused with {kind:?}")),
            Answered::Done if other.is_some() => {
                return Err(format!("a position of another life than {life} is taken: {other:?}"));
            }
            Answered::Done => self.reference.sought(partition, to, true),
            Answered::Open => self.reference.sought(partition, to, false),
        }
        Ok(())
    }

    async fn wait(&mut self, time: Duration) -> Run {
        let wait = sleep(time);
        tokio::pin!(wait);
        self.poll_until("time passes", |_, cx| Ok(wait.as_mut().poll(cx).is_ready())).await
    }

    /// Does all that is left, and starts once more to see that it stays so.
    pub(crate) async fn finish(&mut self) -> Run {
        // Until a whole round passes in which nothing goes wrong; the last one sees what the one before has left.
        for round in 0..TRIES {
            let starts = self.starts;
            self.finish_round().await?;
            self.restart(true).await?;
            if round > 0 && self.starts == starts + 1 {
                return self.all_is_done();
            }
        }
        Err("it does not come to rest".into())
    }

    async fn finish_round(&mut self) -> Run {
        let due = self.reference.records.iter().filter_map(|record| record.due).max().unwrap_or(0);
        if due > self.clock.now().as_millis() {
            self.clock.set(Timestamp::from_millis(due));
        }
        for _ in 0..self.reference.records.len() + TRIES {
            self.create().await?;
            self.settle().await?;
            self.join(0).await?;
            self.settle().await?;
            let slots: Vec<usize> = self.members.keys().copied().collect();
            if slots.iter().all(|slot| self.reference.in_flight(*slot).is_empty()) && !slots.is_empty() {
                return Ok(());
            }
            for slot in slots {
                self.ack(slot, u16::MAX, true).await?;
            }
            self.settle().await?;
        }
        Err("acks make no end".into())
    }

    /// Everything that was written is finished, or was taken back or removed.
    fn all_is_done(&self) -> Run {
        let life = self.reference.life;
        let of_life = self.reference.records.iter().enumerate().filter(|(_, record)| record.life == life);
        let mut left = of_life.filter(|(_, record)| {
            (record.written, record.cancelled, record.removed) == (Is::Yes, Is::No, Is::No)
                && record.done != Is::Yes
        });
        left.next().map_or(Ok(()), |(id, record)| Err(format!("{id} is never finished: {record:?}")))
    }
}
