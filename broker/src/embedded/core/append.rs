//! Publishing: which message goes where, and which is given back; recognising repeats; forwarding.
//!
//! Not here: delayed messages after they were taken (`delay.rs`).

use super::{Core, Life, MemberId, Step, store_error, timers::Timer, topic::TopicState};
use crate::{
    Durability, Error, ErrorKind, Message, MessageId, Owned, Position, Result, Target, Timestamp,
    embedded::{
        record,
        state::{forget_key, parse_forget_key, seen_key},
    },
    partition_for_key,
};
use bytes::Bytes;
use ropeway_store::{Direction, Limit};

/// What was decided about one message.
#[derive(Debug)]
pub(in crate::embedded) enum Verdict {
    /// It will be written.
    Placed { partition: u32, position: Option<Position>, durability: Durability },
    /// It is given back.
    Refused(Error),
}

/// Where a target leads.
#[derive(Clone, Copy)]
struct Admitted {
    life: Life,
    partition: Option<u32>,
    durability: Durability,
}

impl Core {
    /// Decides about a batch.
    pub(in crate::embedded) fn publish(
        &mut self,
        step: &mut Step,
        to: &Target,
        batch: &[Message],
    ) -> Vec<Verdict> {
        let admitted = match self.admit(step, to, None) {
            Ok(admitted) => admitted,
            Err(error) => {
                let error = self.named(&to.topic, &error);
                return batch.iter().map(|_| Verdict::Refused(error.clone())).collect();
            }
        };
        let max = self.rules.max_message;
        step.appends.reserve(batch.len());
        batch
            .iter()
            .map(|message| {
                let known = match message.check(max) {
                    Ok(()) if self.spaces.dedup.is_none() => Ok(None),
                    Ok(()) => self.remembered(admitted.life, message.id),
                    Err(error) => Err(error),
                };
                match known {
                    Ok(known) => self.place(step, admitted, message, known),
                    Err(error) => Verdict::Refused(self.named(&to.topic, &error)),
                }
            })
            .collect()
    }

    /// Decides about a forward: all of it or nothing.
    pub(in crate::embedded) fn forward(
        &mut self,
        step: &mut Step,
        member: MemberId,
        of: &Owned,
        done: &[Position],
        out: &[(Target, Message)],
    ) -> Vec<Verdict> {
        let all = |error: &Error| out.iter().map(|_| Verdict::Refused(error.clone())).collect();
        let share = match self.writable().and_then(|()| self.check_acks(member, of, done)) {
            Ok(share) => share,
            Err(error) => return all(&error),
        };
        let max = self.rules.max_message;
        let mut admitted = Vec::with_capacity(out.len());
        for (i, (to, message)) in out.iter().enumerate() {
            // What can fail comes first: nothing of a forward that is refused is in the step.
            let checked = self.admit(step, to, Some(share)).and_then(|admitted| {
                message.check(max)?;
                Ok((admitted, self.remembered(admitted.life, message.id)?))
            });
            match checked {
                Ok(one) => admitted.push(one),
                Err(error) => {
                    let error = self.named(&to.topic, &error);
                    let others = Error::new(
                        error.kind(),
                        format!(
                            "message {} of {} was refused, so nothing of the forward is written",
                            i + 1,
                            out.len()
                        ),
                    )
                    .caused_by(error.clone());
                    return (0..out.len())
                        .map(|j| Verdict::Refused(if i == j { error.clone() } else { others.clone() }))
                        .collect();
                }
            }
        }
        let placed = out.iter().zip(admitted);
        let verdicts =
            placed.map(|((_, message), (to, known))| self.place(step, to, message, known)).collect();
        let settled = self.settle(member, share, done);
        step.cursors.insert(share);
        step.after(move |_| settled.wake());
        self.drained(step, share);
        verdicts
    }

    fn named(&self, topic: &crate::Topic, error: &Error) -> Error {
        error.clone().during(format!("publish to topic {topic:?}")).on(self.rules.backend)
    }

    /// Whether messages may go there; `settles`: what is acked with them.
    fn admit(&mut self, step: &mut Step, to: &Target, settles: Option<super::ShareId>) -> Result<Admitted> {
        self.writable()?;
        let topic = self.topic(&to.topic)?;
        if let Some(partition) = to.partition
            && partition >= topic.count()
        {
            return Err(super::no_partition(&to.topic, partition, topic.count()));
        }
        let (life, rules) = (topic.life, &self.rules);
        let durability = to.at_least.map_or(rules.durability, |least| least.max(rules.durability));
        if durability > rules.possible {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the topic can keep messages safe as {} at the most, not {}",
                    rules.possible.as_str(),
                    durability.as_str()
                ),
            ));
        }
        self.check_room(step, settles.is_some())?;
        self.check_bound(step, life, settles)?;
        step.at_least(stored_as(durability));
        Ok(Admitted { life, partition: to.partition, durability })
    }

    /// Puts a message that was checked into its place; `known`: what [`Self::remembered`] found.
    fn place(&mut self, step: &mut Step, to: Admitted, message: &Message, known: Option<Bytes>) -> Verdict {
        let life = to.life;
        let repeat = self.seen(step, life, message.id, known);
        let Some(topic) = self.topics.get_mut(&life) else {
            return Verdict::Refused(Error::new(ErrorKind::NotFound, "the topic was deleted"));
        };
        let count = topic.count();
        let partition = match (to.partition, &message.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => {
                let partition = topic.spread % count.max(1);
                topic.spread = topic.spread.wrapping_add(1);
                partition
            }
        };
        let position = if repeat {
            None
        } else if let Some(due) = message.deliver_at.filter(|due| *due > step.time_of_day) {
            self.delay(step, life, partition, due, message);
            None
        } else {
            topic.append(step, partition, |out, at| record::encode(message, at, out))
        };
        Verdict::Placed { partition, position, durability: to.durability }
    }

    /// Appends a message to a partition. `write` puts it behind what is there, with the time at which it is appended.
    pub(in crate::embedded) fn append(
        &mut self,
        step: &mut Step,
        life: Life,
        partition: u32,
        write: impl FnOnce(&mut Vec<u8>, Timestamp),
    ) -> Option<Position> {
        self.topics.get_mut(&life)?.append(step, partition, write)
    }

    /// When an id is forgotten that is stored as published.
    fn remembered(&self, life: Life, id: MessageId) -> Result<Option<Bytes>> {
        let Some(space) = self.spaces.dedup else { return Ok(None) };
        self.store.get(space, &seen_key(life, id)).map_err(store_error)
    }

    /// Whether this id was published within the window; notes it if not.
    fn seen(&mut self, step: &mut Step, life: Life, id: MessageId, stored: Option<Bytes>) -> bool {
        let (Some((window, most)), Some(space)) = (self.rules.dedup, self.spaces.dedup) else {
            return false;
        };
        if step.seen.contains(&(life, id)) {
            return true;
        }
        let key = seen_key(life, id);
        let stored = stored.filter(|forget| !step.forgotten.contains(forget));
        if let Some(until) = stored.as_deref().and_then(parse_forget_key)
            && until > step.now
        {
            return true;
        }
        if let Some(old) = stored {
            step.batch.delete(space, old);
            self.remembered = self.remembered.saturating_sub(1);
        }
        let until = step.now + window;
        let forget = forget_key(until, &key);
        step.seen.insert((life, id));
        step.batch.put(space, key.clone(), forget.clone());
        step.batch.put(space, forget, key);
        self.remembered += 1;
        let due = if self.remembered > most { step.now } else { until };
        self.timers.set_by(Timer::Forget, due);
        false
    }

    /// Forgets ids whose time is over, and the oldest where there are too many.
    pub(super) fn forget(&mut self, step: &mut Step) -> Result<()> {
        const PIECE: usize = 1024;
        let (Some((_, most)), Some(space)) = (self.rules.dedup, self.spaces.dedup) else { return Ok(()) };
        let page = self
            .store
            .scan(space, b"t", Some(b"u"), Direction::Forward, Limit::items(PIECE))
            .map_err(store_error)?;
        for (forget, key) in page.items {
            let Some(at) = parse_forget_key(&forget) else { continue };
            if at > step.now && self.remembered <= most {
                self.timers.set(Timer::Forget, at);
                return Ok(());
            }
            step.batch.delete(space, key);
            step.batch.delete(space, forget.clone());
            step.forgotten.insert(forget);
            self.remembered = self.remembered.saturating_sub(1);
        }
        if page.more {
            self.timers.set(Timer::Forget, step.now);
        }
        Ok(())
    }

    /// Checks the acks of a forward, without doing them.
    fn check_acks(&self, member: MemberId, of: &Owned, done: &[Position]) -> Result<super::ShareId> {
        let id = self.owned_share(member, of)?;
        self.check_delivered(id, of, done)?;
        Ok(id)
    }
}

impl TopicState {
    /// See [`Core::append`].
    fn append(
        &mut self,
        step: &mut Step,
        partition: u32,
        write: impl FnOnce(&mut Vec<u8>, Timestamp),
    ) -> Option<Position> {
        let part = self.partitions.get_mut(partition as usize)?;
        // Times of a partition never go back, so that they can be searched.
        part.last = part.last.max(step.time_of_day);
        let (offset, at) = (part.next, part.last);
        let (row, bytes) =
            step.appends.push(part.appended, offset, self.segments.active(), |out| write(out, at));
        part.appended = Some(row);
        part.next += 1;
        part.bytes += bytes as u64;
        if !part.touched {
            part.touched = true;
            step.touched.push((self.life, partition));
        }
        self.segments.take(bytes as u64);
        Some(Position(self.life, offset))
    }
}

pub(in crate::embedded) const fn stored_as(durability: Durability) -> ropeway_store::Durability {
    match durability {
        Durability::Volatile => ropeway_store::Durability::None,
        Durability::ProcessCrash => ropeway_store::Durability::ProcessCrash,
        Durability::PowerLoss | Durability::Replicated => ropeway_store::Durability::PowerLoss,
    }
}
