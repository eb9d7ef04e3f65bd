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
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
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

/// How long a lone publish looks for its answer before its task sleeps, where the one before came as soon. Waking a thread takes half as long as a
/// small commit takes on a fast disk; on a slow one nothing is gained, and nothing looked for.
const BRIEF: Duration = Duration::from_micros(250);

/// A deadline beyond it never comes: no clock need show it.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Waits for answers, each for so long at most.
///
/// A timer that is set where none is wakes the thread of the runtime that waits for timers, which costs more than all else that is done for
/// one message. So the last timer is kept, unused, until the next one is set: all are of one length, so that none is due before it.
#[derive(Debug)]
pub(super) struct Waits {
    last: Mutex<Option<Pin<Box<Sleep>>>>,
    /// How many wait.
    open: AtomicUsize,
    /// The last answer that was waited for alone came within [`BRIEF`].
    was_brief: AtomicBool,
    /// There is another core, on which the answer is made while this one looks for it.
    has_cores: bool,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            open: AtomicUsize::default(),
            was_brief: AtomicBool::default(),
            has_cores: thread::available_parallelism().is_ok_and(|cores| cores.get() > 1),
        }
    }
}

/// Somebody who waits.
struct Wait(Arc<Waits>);

impl Wait {
    fn new(waits: &Arc<Waits>) -> Self {
        waits.open.fetch_add(1, Ordering::Relaxed);
        Self(waits.clone())
    }

    /// The answer, or `None` after so long.
    async fn within<T>(
        self,
        deadline: Duration,
        mut answer: oneshot::Receiver<T>,
    ) -> Option<Result<T, RecvError>> {
        let (since, until) = (now(), tokio::time::Instant::now() + deadline.min(FAR));
        let is_alone = self.is_alone();
        if is_alone && self.0.has_cores && self.0.was_brief.load(Ordering::Relaxed) {
            self.look(since, &mut answer).await;
        }
        let in_time = if answer.is_empty() { self.sleep(until, answer).await } else { Some(answer.await) };
        if is_alone {
            self.0.was_brief.store(since.elapsed() < BRIEF, Ordering::Relaxed);
        }
        in_time
    }

    fn is_alone(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) == 1
    }

    /// Looks for the answer for a short time. Who else wants the thread of the runtime, or the core, gets it.
    async fn look<T>(&self, since: Instant, answer: &mut oneshot::Receiver<T>) {
        // Not polled, so that who answers wakes nobody.
        while answer.is_empty() && self.is_alone() && since.elapsed() < BRIEF {
            thread::yield_now();
            tokio::task::yield_now().await;
        }
    }

    async fn sleep<T>(
        &self,
        until: tokio::time::Instant,
        mut answer: oneshot::Receiver<T>,
    ) -> Option<Result<T, RecvError>> {
        let mut sleep = Box::pin(tokio::time::sleep_until(until));
        let in_time = poll_fn(|cx| match Pin::new(&mut answer).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        });
        let in_time = in_time.await;
        let before = self.0.last.lock().unwrap_or_else(PoisonError::into_inner).replace(sleep);
        drop(before);
        in_time
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this measures how long threads take to wake, which no test's clock moves"
)]
fn now() -> Instant {
    Instant::now()
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
                let wait = Wait::new(&engine.waits);
                return Box::pin(async move {
                    let in_time = wait.within(deadline, answer).await;
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
    use std::{
        pin::pin,
        task::{Context, Waker},
    };
    use tokio::time::Instant;

    const SOON: Duration = Duration::from_secs(3);

    fn waits() -> Arc<Waits> {
        Arc::new(Waits { has_cores: true, ..Waits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_deadline_however_the_others_end() {
        let waits = waits();
        for _ in 0..3 {
            let (late, answer) = oneshot::channel::<u8>();
            let start = Instant::now();
            assert!(Wait::new(&waits).within(SOON, answer).await.is_none());
            assert_eq!(start.elapsed(), SOON);
            let (reply, answer) = oneshot::channel();
            tokio::time::advance(SOON / 2).await;
            _ = reply.send(7);
            assert!(matches!(Wait::new(&waits).within(SOON, answer).await, Some(Ok(7))));
            let (given_up, answer) = oneshot::channel::<u8>();
            let wait = Wait::new(&waits).within(SOON, answer);
            assert!(tokio::time::timeout(SOON / 3, wait).await.is_err());
            drop(late);
            assert!(given_up.is_closed());
            assert_eq!(waits.open.load(Ordering::Relaxed), 0, "who gave up is counted as waiting");
        }
        let (gone, answer) = oneshot::channel::<u8>();
        drop(gone);
        assert!(matches!(Wait::new(&waits).within(SOON, answer).await, Some(Err(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_no_clock_can_show_never_comes() {
        let waits = waits();
        let (reply, answer) = oneshot::channel();
        let mut wait = pin!(Wait::new(&waits).within(Duration::MAX, answer));
        assert!(poll(wait.as_mut()).is_pending());
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert!(poll(wait.as_mut()).is_pending());
        _ = reply.send(7);
        assert!(matches!(wait.await, Some(Ok(7))));
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn who_waits_alone_looks_for_the_answer_for_a_short_time() {
        let waits = waits();
        let (_late, mut answer) = oneshot::channel::<u8>();
        let since = now();
        Wait::new(&waits).look(since, &mut answer).await;
        assert!(since.elapsed() >= BRIEF);
        // A thread that is held up for longer than it may look does not begin.
        let looked = (0..100).any(|_| poll(pin!(Wait::new(&waits).look(now(), &mut answer))).is_pending());
        assert!(looked, "it gives up at once, a hundred times");
        let (beside, wait) = (Wait::new(&waits), Wait::new(&waits));
        let looked = (0..100).any(|_| poll(pin!(wait.look(now(), &mut answer))).is_pending());
        assert!(!looked, "others wait as well");
        drop(beside);
        let (reply, mut answer) = oneshot::channel();
        _ = reply.send(7);
        let looked = (0..100).any(|_| poll(pin!(wait.look(now(), &mut answer))).is_pending());
        assert!(!looked, "the answer is there");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_looked_for_only_after_one_that_came_soon() {
        let waits = waits();
        let is_brief = || waits.was_brief.load(Ordering::Relaxed);
        let brief = || {
            let (reply, answer) = oneshot::channel();
            let mut wait = pin!(Wait::new(&waits).within(SOON, answer));
            assert!(poll(wait.as_mut()).is_pending());
            _ = reply.send(7);
            assert!(matches!(poll(wait), Poll::Ready(Some(Ok(7)))));
            is_brief()
        };
        assert!((0..100).any(|_| brief()), "an answer at once is never soon enough");
        let (late, answer) = oneshot::channel::<u8>();
        assert!(Wait::new(&waits).within(SOON, answer).await.is_none());
        assert!(!is_brief(), "there was no answer");
        drop(late);
    }

    #[test]
    fn the_timer_outlives_the_runtime_in_which_it_was_set() {
        let waits = waits();
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let (reply, answer) = oneshot::channel();
            let (waiting, answered) = (Wait::new(&waits).within(SOON, answer), async { _ = reply.send(()) });
            let (in_time, ()) = runtime.block_on(async { tokio::join!(waiting, answered) });
            assert!(matches!(in_time, Some(Ok(()))));
        }
    }
}
