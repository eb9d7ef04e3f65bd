//! Messages that are not to be delivered yet: stored by due time, moved to their partition when that has come, taken back by id.
//!
//! A message is due when the machine's clock shows its time, so never early by that: set forward, it brings what is due then; set back, it makes
//! what is still here wait.
//! In memory there is only when the next one of each topic is due. Moving appends and removes in one commit, so a message is never in
//! both places or in none.

use super::{Core, Life, Step, store_error, timers::Timer};
use crate::{
    Message, MessageId, Result, Timestamp, Topic,
    embedded::{
        record,
        state::{due_key, due_prefix, id_key, id_prefix, parse_due_key, parse_id_key, sweep_key},
    },
};
use bytes::{Buf, Bytes};
use ropeway_store::{Direction, Limit, prefix_end};

/// How much is moved in one step.
const PIECE: Limit = Limit { items: 256, bytes: 1024 * 1024 };

impl Core {
    /// Takes a message that is due later.
    pub(super) fn delay(
        &mut self,
        step: &mut Step,
        life: Life,
        partition: u32,
        due: Timestamp,
        message: &Message,
    ) {
        let Some(topic) = self.topics.get_mut(&life) else { return };
        let seq = topic.delay_seq;
        topic.delay_seq += 1;
        topic.delayed += 1;
        topic.delay_floor = topic.delay_floor.min(due);
        step.topics.insert(life);
        let value = record::delayed(message, partition);
        let place = due_key(life, due, seq);
        step.batch.put(self.spaces.schedule, id_key(life, message.id, seq), place.clone());
        step.batch.put(self.spaces.schedule, place, value);
        self.delays.set_by(life, due);
    }

    /// Moves what is due to its partition.
    pub(super) fn move_due(&mut self, step: &mut Step, life: Life) -> Result<()> {
        let Some(floor) = self.topics.get(&life).map(|topic| topic.delay_floor) else { return Ok(()) };
        let schedule = self.spaces.schedule;
        let from = due_key(life, floor, 0);
        let to = prefix_end(&due_prefix(life));
        let page = self
            .store
            .scan(schedule, &from, to.as_deref(), Direction::Forward, PIECE)
            .map_err(store_error)?;
        let mut next = page.more.then_some(step.time_of_day);
        let mut floor = floor;
        for (key, value) in page.items {
            let Some((due, seq)) = parse_due_key(&key) else { continue };
            if due > step.time_of_day {
                next = Some(due);
                break;
            }
            floor = due;
            self.move_one(step, life, seq, value);
            step.batch.delete(schedule, key);
        }
        if let Some(topic) = self.topics.get_mut(&life) {
            topic.delay_floor = floor;
        }
        if let Some(next) = next {
            self.delays.set_by(life, next);
        }
        Ok(())
    }

    fn move_one(&mut self, step: &mut Step, life: Life, seq: u64, mut value: Bytes) {
        let Some(topic) = self.topics.get_mut(&life) else { return };
        topic.delayed = topic.delayed.saturating_sub(1);
        let count = topic.count();
        step.topics.insert(life);
        // What is damaged is moved as it is: its consumer is told that it cannot be read.
        let partition = if value.len() < 4 { 0 } else { value.get_u32().min(count.saturating_sub(1)) };
        if let Some(message) = record::decode(value.clone()) {
            step.batch.delete(self.spaces.schedule, id_key(life, message.id, seq));
        }
        self.append(step, life, partition, |out, at| record::restamp(&value, at, out));
    }

    /// Takes a delayed message back.
    pub(in crate::embedded) fn cancel_delayed(
        &mut self,
        step: &mut Step,
        topic: &Topic,
        id: MessageId,
    ) -> Result<bool> {
        self.writable()?;
        let life = self.life(topic)?;
        let schedule = self.spaces.schedule;
        let prefix = [&id_prefix(life)[..], &id.as_u128().to_be_bytes()].concat();
        let page = self
            .store
            .scan(schedule, &prefix, prefix_end(&prefix).as_deref(), Direction::Forward, Limit::items(4096))
            .map_err(store_error)?;
        let mut found = false;
        for (key, place) in page.items {
            // One that is decided upon in this very step is gone from the state, and still in the store.
            let due = parse_due_key(&place).map(|(due, _)| due);
            if parse_id_key(&key).is_none() || due.is_none_or(|due| due <= step.time_of_day) {
                continue;
            }
            if !step.cancelled.insert(place.clone()) {
                continue;
            }
            step.batch.delete(schedule, key);
            step.batch.delete(schedule, place);
            if let Some(topic) = self.topics.get_mut(&life) {
                topic.delayed = topic.delayed.saturating_sub(1);
                step.topics.insert(life);
            }
            found = true;
        }
        Ok(found)
    }

    /// Removes what a deleted topic left in the schedule.
    pub(super) fn sweep(&mut self, step: &mut Step, life: Life) -> Result<()> {
        for prefix in [due_prefix(life), id_prefix(life)] {
            let end = prefix_end(&prefix);
            let page = self
                .store
                .scan(self.spaces.schedule, &prefix, end.as_deref(), Direction::Forward, Limit::items(1024))
                .map_err(store_error)?;
            if !page.items.is_empty() {
                for (key, _) in page.items {
                    step.batch.delete(self.spaces.schedule, key);
                }
                self.timers.set(Timer::Sweep(life), step.now);
                return Ok(());
            }
        }
        step.batch.delete(self.spaces.state, sweep_key(life));
        Ok(())
    }
}
