//! Settling and steering of a member, as its user sees it.
//!
//! Not here: what it comes to (`core.rs`), when it is stored (`poller.rs`).

use super::{Member, starts};
use crate::{
    Answer, Control, Error, Message, Outcomes, Owned, Position, Result, Start, Target, Topic,
    kafka::failure::{BACKEND, late},
};
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
#[derive(Clone, Debug)]
pub(super) struct GroupControl {
    member: Arc<Member>,
}

impl GroupControl {
    pub(super) const fn new(member: Arc<Member>) -> Self {
        Self { member }
    }

    fn settle(&self, of: &Owned, done: &[Position]) -> Result<()> {
        let acked = self.member.core().ack(of, done, Instant::now());
        let (count, stirred) = acked.map_err(|error| error.on(BACKEND))?;
        self.member.shared.counted.acked.fetch_add(count as u64, Ordering::Relaxed);
        self.member.stir(stirred);
        Ok(())
    }

    fn late(&self) -> Error {
        late(&self.member.servers).on(BACKEND)
    }

    /// Kafka has no step that publishes and acks: what is published is acked then, whoever waits for it.
    async fn published(self, of: Owned, done: Vec<Position>, runs: Vec<Answer<Outcomes>>) -> Outcomes {
        let mut outcomes = Vec::new();
        for published in futures::future::join_all(runs).await {
            outcomes.extend(published.0);
        }
        let outcomes = Outcomes(outcomes);
        if outcomes.all_acked()
            && let Err(error) = self.settle(&of, &done)
        {
            // `Gone` tells: it comes again to the next owner.
            tracing::debug!(%error, "what was published for is another's by now");
        }
        outcomes
    }
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

impl Control for GroupControl {
    fn ack(&self, of: &Owned, done: &[Position]) -> Result<()> {
        self.settle(of, done)
    }

    fn forward(&self, of: &Owned, done: &[Position], out: Vec<(Target, Message)>) -> Answer<Outcomes> {
        let checked = if out.is_empty() {
            self.settle(of, done)
        } else {
            self.member.core().check(of, done).map_err(|error| error.on(BACKEND))
        };
        if let Err(error) = checked {
            let batch = out.into_iter().map(|(_, message)| message).collect();
            return Box::pin(ready(Outcomes::all_not_written(&error, batch)));
        }
        let take = |(target, batch)| self.member.shared.publish(&target, batch);
        let runs = runs(out).into_iter().map(take).collect();
        let published = self.clone().published(of.clone(), done.to_vec(), runs);
        // It is acked also where nobody waits for the answer.
        let published = self.member.runtime.spawn(published);
        Box::pin(async move { published.await.unwrap_or_else(|_| Outcomes(Vec::new())) })
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
        let stirred = self.member.core().confirm(of, answer);
        self.member.stir(stirred);
        let late = self.late();
        Box::pin(async move {
            let answered = timeout(CALL, answered).await.ok().and_then(Result::ok);
            answered.unwrap_or(Err(late)).map_err(|error: Error| error.on(BACKEND))
        })
    }

    fn flush(&self) -> Answer<Vec<(Owned, Error)>> {
        let (answer, answered) = oneshot::channel();
        let (dirty, stirred) = {
            let mut core = self.member.core();
            (core.dirty(), core.flush(answer))
        };
        self.member.stir(stirred);
        let late = self.late();
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
            let ensured = starts::ensure(&member.shared, &member.group, &topics, Start::Earliest);
            member.shared.call(ensured).await?;
            let changed = member.core().set_topics(topics);
            member.stir(changed.map_err(|error| error.on(BACKEND))?);
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
