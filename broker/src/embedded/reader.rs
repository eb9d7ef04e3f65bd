//! A reader, as its user sees it.

use super::{consumer::Alarm, core::Next, engine::Lease};
use crate::{Answer, Event, Reader, Result, Start, Topic};
use std::{
    sync::Arc,
    task::{Context, Poll},
};

/// How often a poll looks for something before it lets others run.
const ROUNDS: usize = 32;

#[derive(Debug)]
pub(super) struct LogReader {
    lease: Arc<Lease>,
    id: u64,
    alarm: Alarm,
}

impl LogReader {
    pub(super) fn new(lease: Arc<Lease>, id: u64) -> Self {
        Self { lease, id, alarm: Alarm::default() }
    }
}

impl Reader for LogReader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let engine = self.lease.engine.clone();
        for _ in 0..ROUNDS {
            let (next, key) = engine.core().poll_reader(self.id, cx.waker());
            match (next, key) {
                (Next::Event(event), _) => return Poll::Ready(Ok(event)),
                (Next::End(error), _) => return Poll::Ready(Err(error)),
                (Next::Read(plan), Some(key)) => {
                    let read = plan.read(engine.store());
                    let mut core = engine.core();
                    match read {
                        Ok(found) => {
                            if let Some(event) = core.bring(self.id, &key, &plan, found) {
                                return Poll::Ready(Ok(event));
                            }
                        }
                        Err(error) => core.fail_reader(self.id, &error.on(engine.rules.backend)),
                    }
                }
                (Next::Read(_) | Next::Wait, _) => {
                    if self.alarm.poll_due(&engine, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn follow(&mut self, topic: &Topic, partition: Option<u32>, from: Start) -> Answer<Result<()>> {
        let engine = &self.lease.engine;
        let followed = engine.core().follow(self.id, topic, partition, from);
        let followed = followed
            .map_err(|error| error.during(format!("follow topic {topic:?}")).on(engine.rules.backend));
        Box::pin(std::future::ready(followed))
    }

    fn unfollow(&mut self, topic: &Topic, partition: Option<u32>) {
        self.lease.engine.core().unfollow(self.id, topic, partition);
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.lease.engine.core().close_reader(self.id);
    }
}
