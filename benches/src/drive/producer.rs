//! One producer: sends what its timetable says is due, each message stamped with the time it was to be sent at.
//!
//! Not here: the timetable (`../pace.rs`), what a message holds (`../payload.rs`).

use super::{Amount, Load, Recorder, Sending};
use crate::{
    keys::{self, Keys},
    pace::Pace,
    payload::{Payloads, Stamp},
};
use bytes::Bytes;
use ropeway_broker::{Message, Publisher, Topic};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Sends a share of a load.
pub(super) struct Producer {
    run: u32,
    number: u32,
    topic: Topic,
    publisher: Publisher,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    pace: Option<Pace>,
    keys: Keys,
    names: Vec<Bytes>,
    payloads: Payloads,
    warm_up: Duration,
    /// The share of the run, warm-up apart.
    left: Option<u64>,
    /// When the time is over.
    end: Option<Duration>,
}

/// The most key names that are made once; others are made each time.
const MOST_NAMES: u32 = 100_000;

impl Producer {
    pub(super) fn new(
        load: &Load,
        sending: &Sending,
        number: u32,
        publisher: &Publisher,
        recorder: &Arc<Recorder>,
    ) -> Self {
        let seed = u64::from(number) + 1;
        let (left, end) = match sending.amount {
            Amount::Messages(all) => {
                let (each, more) = (all / u64::from(sending.producers), all % u64::from(sending.producers));
                (Some(each + u64::from(u64::from(number) < more)), None)
            }
            Amount::Time(time) => (None, Some(load.warm_up.saturating_add(time))),
        };
        Self {
            run: run_of(&load.topic),
            number,
            topic: load.topic.clone(),
            publisher: publisher.clone(),
            recorder: recorder.clone(),
            stop: load.stop.clone(),
            pace: sending.rate.map(|rate| Pace::of(rate, sending.producers, number)),
            keys: Keys::new(sending.keys, seed),
            names: (0..sending.keys.keys().min(MOST_NAMES)).map(|key| keys::name(key).into()).collect(),
            payloads: Payloads::new(sending.sizes.clone(), seed),
            warm_up: load.warm_up,
            left,
            end,
        }
    }

    /// Until its share is sent, its time is over, or it should stop.
    pub(super) async fn run(mut self) {
        /// Without a timetable so many go between two looks at the clock's end.
        const BURST: u64 = 64;
        /// What was due before the end may go so much after it: a timer that fires late is no bus that is slow.
        const LATE: Duration = Duration::from_secs(1);
        let start = self.recorder.start();
        let mut number = 0;
        while !self.stop.is_cancelled() && !self.recorder.is_halted() && self.left != Some(0) {
            let elapsed = self.recorder.elapsed();
            let late = if self.pace.is_some() { LATE } else { Duration::ZERO };
            if self.end.is_some_and(|end| elapsed >= end + late) {
                return;
            }
            let due = self.pace.map_or(BURST, |pace| pace.due_by(elapsed).saturating_sub(number));
            if due == 0 {
                let next = self.pace.map_or(elapsed, |pace| pace.due(number));
                if self.end.is_some_and(|end| next >= end) {
                    return;
                }
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = self.recorder.halt().cancelled() => return,
                    () = tokio::time::sleep_until(start + next) => {}
                }
                continue;
            }
            for _ in 0..due.min(BURST) {
                let intended = match self.pace {
                    Some(pace) => pace.due(number),
                    None => self.recorder.elapsed(),
                };
                let over = self.end.is_some_and(|end| intended >= end) || self.left == Some(0);
                if over || !self.send(number, intended).await {
                    return;
                }
                number += 1;
            }
        }
    }

    /// `false`: it should stop.
    async fn send(&mut self, number: u64, intended: Duration) -> bool {
        let key = self.keys.draw();
        let stamp = Stamp { run: self.run, producer: self.number, key, number, intended };
        let payload = self.payloads.draw(&stamp);
        let bytes = payload.len();
        let mut message = Message::builder().payload(payload);
        if let Some(key) = key {
            message = match self.names.get(key as usize) {
                Some(name) => message.key(name.clone()),
                None => message.key(keys::name(key)),
            };
        }
        let message = message.build();
        let delay = self.recorder.elapsed().saturating_sub(intended);
        self.recorder.sent(self.number, intended, delay);
        if intended >= self.warm_up {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        let recorder = self.recorder.clone();
        let told = move |outcome: Result<_, ropeway_broker::PublishFailed>| match outcome {
            Ok(_) => recorder.acked(intended, bytes),
            Err(failed) => recorder.not_acked(&stamp, failed.may_be_written, Some(&failed.failed.error)),
        };
        let handed_over = tokio::select! {
            biased;
            handed_over = self.publisher.publish_with(&self.topic, message, told) => handed_over,
            () = self.stop.cancelled() => {
                // Dropped while it waited for room: certainly not sent.
                self.recorder.not_acked(&stamp, false, None);
                return false;
            }
        };
        if let Err(failed) = handed_over {
            self.recorder.not_acked(&stamp, failed.may_be_written, Some(&failed.failed.error));
        }
        true
    }
}

/// The run that a topic is for: a number from its name, so that messages of another run are told apart.
#[must_use]
pub fn run_of(topic: &Topic) -> u32 {
    // FNV-1a.
    topic
        .as_str()
        .bytes()
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
