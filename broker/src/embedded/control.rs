//! Settling and steering of a member, as its user sees it.

use super::{
    consumer::Alarm,
    core::{Core, Settled},
    engine::Engine,
    publish,
    queue::{Cost, Lane},
};
use crate::{Answer, Control, Error, Message, Outcomes, Owned, Position, Result, Target, Topic};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// It does not keep the broker open: once that is closed, everything answers `Fenced` or `Closed`.
#[derive(Debug)]
pub(super) struct GroupControl {
    engine: Arc<Engine>,
    member: u64,
    deadline: Duration,
}

impl GroupControl {
    pub(super) const fn new(engine: Arc<Engine>, member: u64, deadline: Duration) -> Self {
        Self { engine, member, deadline }
    }

    fn set_in_motion(&self, settled: Settled, woken_by: Option<super::time::Steady>) {
        if let Some(share) = settled.drained {
            self.engine.order(move |core, step| core.drained(step, share));
        }
        if settled.due.is_some() && settled.due != woken_by {
            self.engine.nudge();
        }
        settled.wake();
    }
}

impl Control for GroupControl {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        let now = self.engine.steady();
        let (before, settled) = {
            let mut core = self.engine.core();
            (core.due().steady, core.ack(self.member, of, done, now))
        };
        self.set_in_motion(settled?, before);
        Ok(())
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let cost = Cost { messages: out.len(), bytes: out.iter().map(|(_, message)| message.size()).sum() };
        let (member, of, done) = (self.member, of.clone(), done.to_vec());
        publish::hand_over(
            &self.engine,
            out,
            |(_, message)| message,
            Lane::Urgent,
            cost,
            self.deadline,
            move |core, step, out| core.forward(step, member, &of, &done, out),
        )
    }

    fn pause(&self, of: &Owned, paused: bool) {
        let settled = self.engine.core().pause(self.member, of, paused);
        settled.wake();
    }

    fn give_up(&self, of: &Owned) {
        let (member, of) = (self.member, of.clone());
        self.engine.order(move |core, step| core.give_up(step, member, &of));
    }

    fn confirm(&self, of: &Owned) -> Answer<Result<()>> {
        let (member, of) = (self.member, of.clone());
        self.engine.call(move |core, step| core.confirm(step, member, &of))
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        let member = self.member;
        let (reply, answer) = oneshot::channel();
        // After close there is nothing left to flush: what was acked before is stored by the close.
        self.engine.order(move |core: &mut Core, step| {
            let owned = core.flush(step, member);
            let refused = core.poisoned().cloned();
            step.after(move |failed| {
                let why = failed.or(refused.as_ref());
                let list = why.map(|why| owned.into_iter().map(|of| (of, why.clone())).collect());
                _ = reply.send(list.unwrap_or_default());
            });
        });
        Box::pin(async move { answer.await.unwrap_or_default() })
    }

    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>> {
        let member = self.member;
        self.engine.call(move |core, step| core.set_topics(step, member, &topics))
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        let (reply, mut answer) = oneshot::channel();
        let member = self.member;
        self.engine.order(move |core, step| core.close_member(step, member, step.now + deadline, reply));
        let engine = self.engine.clone();
        Box::pin(async move {
            // Where nobody else keeps the time, this does.
            loop {
                tokio::select! {
                    biased;
                    unacked = &mut answer => return unacked.unwrap_or_default(),
                    () = Alarm::ring(&engine), if engine.inline => {}
                }
            }
        })
    }
}
