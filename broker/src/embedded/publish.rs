//! A batch on its way: who has its messages, and what becomes of it.
//!
//! The messages stay in one place that both sides reach: the step that writes them, and the answer, which gives them back where
//! they were not written, or in time where the disk does not answer.
//! Not here: waiting for a step (`queue.rs`), what is decided about a message (`core/append.rs`).

use super::{
    core::{Core, Step, Verdict},
    engine::Engine,
    queue::{Cost, Lane, Refused},
};
use crate::{Answer, Error, ErrorKind, Message, Outcomes, Published};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::Sleep,
};

/// A batch that was handed over.
#[derive(Debug)]
struct Ticket<M>(Mutex<Stage<M>>);

#[derive(Debug)]
enum Stage<M> {
    /// No step has begun to write it.
    Queued(Vec<M>),
    /// A step has decided about it.
    Taken(Vec<M>),
    /// It was given back.
    Returned,
}

impl<M> Ticket<M> {
    fn stage(&self) -> MutexGuard<'_, Stage<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the messages out; `true`: no step will write them.
    fn give_back(&self) -> (Vec<M>, bool) {
        match std::mem::replace(&mut *self.stage(), Stage::Returned) {
            Stage::Queued(messages) => (messages, true),
            Stage::Taken(messages) => (messages, false),
            Stage::Returned => (Vec::new(), false),
        }
    }
}

/// Bounds waits for an answer.
///
/// A timer that is set where none is wakes the thread of the runtime that waits for timers, which costs more than all else that is done for
/// one message. So the last timer is kept, unused, until the next one is set: all are of one length, so that none is due before it.
#[derive(Debug, Default)]
pub(super) struct Timer(Mutex<Option<Pin<Box<Sleep>>>>);

impl Timer {
    /// The answer, or `None` after so long.
    async fn within<T>(
        &self,
        deadline: Duration,
        mut answer: oneshot::Receiver<T>,
    ) -> Option<Result<T, RecvError>> {
        let mut sleep = Box::pin(tokio::time::sleep(deadline));
        let in_time = poll_fn(|cx| match Pin::new(&mut answer).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        });
        let in_time = in_time.await;
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(sleep);
        drop(before);
        in_time
    }
}

/// What a step answers: verdicts, or why the commit failed.
type Decided = Result<Vec<Verdict>, Error>;

/// Hands a batch to the engine. `decide` is called by the step that writes it.
pub(super) fn hand_over<M, D>(
    engine: &Engine,
    batch: Vec<M>,
    message: fn(M) -> Message,
    lane: Lane,
    cost: Cost,
    deadline: Duration,
    decide: D,
) -> Answer<Outcomes>
where
    M: Send + 'static,
    D: FnOnce(&mut Core, &mut Step, &[M]) -> Vec<Verdict> + Send + 'static,
{
    let ticket = Arc::new(Ticket(Mutex::new(Stage::Queued(batch))));
    let (reply, mut answer) = oneshot::channel::<Decided>();
    let taken = ticket.clone();
    let submitted = engine.submit(lane, cost, move |core, step| {
        let mut stage = taken.stage();
        let Stage::Queued(messages) = std::mem::replace(&mut *stage, Stage::Returned) else { return };
        let verdicts = decide(core, step, &messages);
        count(core, step, &verdicts);
        *stage = Stage::Taken(messages);
        drop(stage);
        step.after(move |failed| _ = reply.send(failed.map_or(Ok(verdicts), |error| Err(error.clone()))));
    });
    let error = match submitted {
        Ok(()) => match answer.try_recv() {
            Ok(decided) => {
                return Box::pin(std::future::ready(outcomes(decided, ticket.give_back().0, message)));
            }
            Err(_) => {
                let timer = engine.timer.clone();
                return Box::pin(async move {
                    let in_time = timer.within(deadline, answer).await;
                    let (messages, unwritten) = ticket.give_back();
                    match in_time {
                        Some(Ok(decided)) => outcomes(decided, messages, message),
                        Some(Err(_)) => late(messages, unwritten, &super::engine::gone(), message),
                        None => late(messages, unwritten, &too_slow(deadline), message),
                    }
                });
            }
        },
        Err(Refused::Ended) => engine.closed(),
        Err(Refused::Full(error)) => error.on(engine.rules.backend),
    };
    let (messages, _) = ticket.give_back();
    engine.core().statistics_mut().not_written += messages.len() as u64;
    Box::pin(std::future::ready(late(messages, true, &error, message)))
}

fn count(core: &mut Core, step: &mut Step, verdicts: &[Verdict]) {
    let placed = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Placed { .. })).count() as u64;
    step.published += placed;
    core.statistics_mut().not_written += verdicts.len() as u64 - placed;
}

fn outcomes<M>(decided: Decided, messages: Vec<M>, message: fn(M) -> Message) -> Outcomes {
    match decided {
        Ok(verdicts) => {
            let refused = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refused(_)));
            let acked = verdicts.into_iter().map(acked);
            // Messages are moved only where one is given back.
            Outcomes(if refused {
                let outcome = |(acked, one): (Result<Published, Error>, M)| {
                    acked.unwrap_or_else(|error| Published::not_written(error, message(one)))
                };
                acked.zip(messages).map(outcome).collect()
            } else {
                acked.filter_map(Result::ok).collect()
            })
        }
        Err(error) => late(messages, false, &error, message),
    }
}

fn acked(verdict: Verdict) -> Result<Published, Error> {
    match verdict {
        Verdict::Placed { partition, position, durability } => {
            Ok(Published::Acked { partition, position, durability })
        }
        Verdict::Refused(error) => Err(error),
    }
}

fn late<M>(messages: Vec<M>, unwritten: bool, error: &Error, message: fn(M) -> Message) -> Outcomes {
    let messages = messages.into_iter().map(message).collect();
    if unwritten {
        Outcomes::all_not_written(error, messages)
    } else {
        Outcomes::all_unknown(error, messages)
    }
}

fn too_slow(deadline: Duration) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the disk did not answer within the publish deadline of {deadline:?}; look at its load"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const SOON: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_deadline_however_the_others_end() {
        let timer = Timer::default();
        for _ in 0..3 {
            let (late, answer) = oneshot::channel::<u8>();
            let start = Instant::now();
            assert!(timer.within(SOON, answer).await.is_none());
            assert_eq!(start.elapsed(), SOON);
            let (reply, answer) = oneshot::channel();
            tokio::time::advance(SOON / 2).await;
            _ = reply.send(7);
            assert!(matches!(timer.within(SOON, answer).await, Some(Ok(7))));
            let (given_up, answer) = oneshot::channel::<u8>();
            assert!(tokio::time::timeout(SOON / 3, timer.within(SOON, answer)).await.is_err());
            drop(late);
            assert!(given_up.is_closed());
        }
        let (gone, answer) = oneshot::channel::<u8>();
        drop(gone);
        assert!(matches!(timer.within(SOON, answer).await, Some(Err(_))));
    }

    #[test]
    fn the_timer_outlives_the_runtime_in_which_it_was_set() {
        let timer = Timer::default();
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let (reply, answer) = oneshot::channel();
            let (waiting, answered) = (timer.within(SOON, answer), async { _ = reply.send(()) });
            let (in_time, ()) = runtime.block_on(async { tokio::join!(waiting, answered) });
            assert!(matches!(in_time, Some(Ok(()))));
        }
    }
}
