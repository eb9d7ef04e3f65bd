//! Settling and steering of a member, as its user sees it.
//!
//! Not here: what it comes to (`owner.rs`), when it is stored (the backend).

use super::{core::Core, shell::Shell};
use crate::{Answer, Control, Error, ErrorKind, Message, Outcomes, Owned, Position, Result, Target, Topic};
use std::{
    future::ready,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// How long a call may take.
const CALL: Duration = Duration::from_secs(30);

/// It does not keep the membership: once that is over, everything answers `Fenced` or `Closed`.
#[derive(Debug)]
pub(super) struct GroupControl<M> {
    member: Arc<M>,
}

impl<M: Shell> GroupControl<M> {
    pub(super) const fn new(member: Arc<M>) -> Self {
        Self { member }
    }
}

fn settle<M: Shell>(member: &M, of: &Owned, done: &[Position]) -> Result<()> {
    let acked = member.core().owner().ack(of, done, Instant::now());
    let (count, stirred) = acked.map_err(|error| error.on(M::BACKEND))?;
    member.counted().acked.fetch_add(count as u64, Ordering::Relaxed);
    member.stir(stirred);
    Ok(())
}

/// Where it is not one step: what was published in the order of the calls is acked then, whoever waits for it. `batches` are what `answers` are of.
async fn published<M: Shell>(
    member: Arc<M>,
    of: Owned,
    done: Vec<Position>,
    answers: Vec<Answer<Outcomes>>,
    batches: Arc<[Vec<Message>]>,
) -> Outcomes {
    let mut outcomes = Vec::new();
    for (batch, Outcomes(told)) in batches.iter().zip(futures::future::join_all(answers).await) {
        let untold = batch.get(told.len()..).unwrap_or_default().to_vec();
        outcomes.extend(told);
        outcomes.extend(broken_off(M::BACKEND, untold).0);
    }
    let outcomes = Outcomes(outcomes);
    if outcomes.all_acked()
        && let Err(error) = settle(&*member, &of, &done)
    {
        // `Gone` tells: it comes again to the next owner.
        tracing::debug!(%error, "what was published for is another's by now");
    }
    outcomes
}

/// What is told of messages where nobody is left to tell.
pub(crate) fn broken_off(backend: &'static str, batch: Vec<Message>) -> Outcomes {
    let why = "the runtime on which it was published ended, or its task broke off; it may be written";
    Outcomes::all_unknown(&Error::new(ErrorKind::Unavailable, why).on(backend), batch)
}

/// Messages with the same target that follow each other, as batches.
fn runs(out: Vec<(Target, Message)>) -> Vec<(Target, Vec<Message>)> {
    let mut runs: Vec<(Target, Vec<Message>)> = Vec::new();
    for (target, message) in out {
        match runs.last_mut() {
            Some((last, batch)) if *last == target => batch.push(message),
            _ => runs.push((target, vec![message])),
        }
    }
    runs
}

impl<M: Shell> Control for GroupControl<M> {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        settle(&*self.member, of, done)
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let checked = if out.is_empty() {
            self.ack(of, done)
        } else {
            self.member.core().owner().check(of, done).map_err(|error| error.on(M::BACKEND))
        };
        if let Err(error) = checked {
            let batch = out.into_iter().map(|(_, message)| message).collect();
            return Box::pin(ready(Outcomes::all_not_written(&error, batch)));
        }
        let out = match self.member.forward_at_once(of, done, out) {
            Ok(answer) => return answer,
            Err(out) => out,
        };
        let runs = runs(out);
        let batches: Arc<[Vec<Message>]> = runs.iter().map(|(_, batch)| batch.clone()).collect();
        let publish = |(target, batch): (Target, Vec<Message>)| self.member.publish(&target, batch);
        let answers = runs.into_iter().map(publish).collect();
        let (member, copies) = (Arc::clone(&self.member), Arc::clone(&batches));
        let published = published(member, of.clone(), done.to_vec(), answers, batches);
        // It is acked also where nobody waits for the answer.
        let published = self.member.runtime().spawn(published);
        Box::pin(async move { published.await.unwrap_or_else(|_| broken_off(M::BACKEND, copies.concat())) })
    }

    fn pause(&self, of: &Owned, paused: bool) {
        let stirred = self.member.core().pause(of, paused);
        self.member.stir(stirred);
    }

    fn give_up(&self, of: &Owned) {
        let stirred = self.member.core().give_up(of, Instant::now());
        self.member.stir(stirred);
    }

    fn confirm(&self, of: &Owned) -> Answer<Result<()>> {
        let (answer, answered) = oneshot::channel();
        let stirred = self.member.core().owner().confirm(of, answer);
        self.member.stir(stirred);
        let late = self.member.late();
        Box::pin(async move {
            let answered = timeout(CALL, answered).await.ok().and_then(Result::ok);
            answered.unwrap_or(Err(late)).map_err(|error: Error| error.on(M::BACKEND))
        })
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        let (answer, answered) = oneshot::channel();
        let (dirty, stirred) = {
            let mut core = self.member.core();
            (core.owner().dirty(), core.owner().flush(answer))
        };
        self.member.stir(stirred);
        let late = self.member.late();
        Box::pin(async move {
            match timeout(CALL, answered).await {
                Ok(failed) => failed.unwrap_or_default(),
                Err(_) => dirty.into_iter().map(|of| (of, late.clone())).collect(),
            }
        })
    }

    fn set_topics(&self, topics: Vec<Topic>) -> Answer<Result<()>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            member.ensure(&topics).await?;
            let changed = member.core().set_topics(topics);
            member.stir(changed.map_err(|error| error.on(M::BACKEND))?);
            Ok(())
        })
    }

    fn close(&self, deadline: Duration) -> Answer<Vec<(Owned, Vec<Position>)>> {
        let (answer, answered) = oneshot::channel();
        let stirred = self.member.core().close(deadline, Some(answer), Instant::now());
        self.member.stir(stirred);
        Box::pin(async move { answered.await.unwrap_or_default() })
    }
}
