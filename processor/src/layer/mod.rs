//! What lies around every attempt of a handler, in this order from the outside: trace and metrics (`trace.rs`), panics caught
//! (`catch_panic.rs`), stopped by its processor and limited in time (`limit.rs`), the handler. One layer, one file.
//!
//! Layers are combinators, not async functions: those hold what they wrap twice, and eight layers made a task of 7.5 kB.
//! The order is fixed: a panic while a future is dropped by a stop or a timeout is caught as well, and what is measured is
//! all of it. Not here: what follows from a failure (`retry.rs`, `runtime/`).

mod catch_panic;
mod limit;
mod trace;

pub(crate) use catch_panic::{catch_panic, catch_panic_of};
pub(crate) use limit::{Cut, Limits, Seen, Stop, Watch};
pub(crate) use trace::span_of;

use crate::{
    Context, Event, Failure, FailureClass, Slot, Started, Verdict, handler::Handled, metrics::HandlerMetrics,
    router::Route,
};
use futures::FutureExt;
use ropeway_broker::{Group, MessageBroker};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// How far an event is: which handler is next, and which attempt of it that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) at: usize,
    pub(crate) attempt: u32,
}

impl Progress {
    pub(crate) const fn start() -> Self {
        Self { at: 0, attempt: 1 }
    }
}

/// What became of an event's run through its handlers.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How far it came: all handlers, or the one that did not finish.
    pub(crate) progress: Progress,
    pub(crate) ended: Ended,
    /// When that was.
    pub(crate) at: Instant,
}

/// How a run or an attempt ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Done,
    Failed(Failure),
    /// Dropped half-way by its processor: neither done nor failed.
    Stopped,
}

/// How a processor reaches into an attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reins {
    /// Told to handlers by their context.
    pub(crate) cancel: CancellationToken,
    /// Nothing is begun any more.
    pub(crate) close: Stop,
    /// Drops what runs.
    pub(crate) stop: Stop,
}

impl Reins {
    /// Tells handlers that they are to end, and begins no other.
    pub(crate) fn cancel(&self) {
        self.close.stop();
        self.cancel.cancel();
    }
}

/// An attempt that was begun elsewhere, and goes on.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) future: Started,
    pub(crate) cx: Context,
    pub(crate) span: Span,
    pub(crate) started: Instant,
}

/// What attempts leave to the next one that is run at the same place.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    pub(crate) slot: Slot,
    /// The context of the last one, which holds its event: for the next where its handler let go of it.
    pub(crate) cx: Option<Context>,
}

/// Runs handlers. One for all events of a processor.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    /// How long an attempt may take.
    pub(crate) timeout: Option<Duration>,
    pub(crate) broker: Option<Arc<dyn MessageBroker>>,
    pub(crate) group: Option<Group>,
    /// By the index of a route; empty without metrics.
    pub(crate) metrics: Vec<HandlerMetrics>,
}

impl Runner {
    /// Runs the handlers of an event from `progress` on, until one fails or all are through. The first of them starts `now`, or was `begun`.
    /// What takes too long ends when `watch` says so. Attempts use what is in `spare`, and leave it there.
    pub(crate) async fn run(
        &self,
        plan: &[Arc<Route>],
        mut progress: Progress,
        mut begun: Option<Box<Begun>>,
        event: &Event,
        reins: &Arc<Reins>,
        (mut now, watch, spare): (Instant, &Watch, &mut Spare),
    ) -> Ran {
        while let Some(route) = plan.get(progress.at) {
            let begun = begun.take();
            if begun.is_none() && reins.close.is_stopped() {
                // A worker took it just before it was to be taken back; or another handler ran before this one.
                return Ran { progress, ended: Ended::Stopped, at: now };
            }
            let attempt =
                self.attempt(route, progress.attempt, begun, event, reins, (now, watch, &mut *spare));
            let (mut ended, at) = attempt.await;
            now = at;
            if let Ended::Failed(failure) = &mut ended {
                failure.handler = Some(route.name.to_string());
            }
            if !matches!(ended, Ended::Done) {
                return Ran { progress, ended, at };
            }
            progress = Progress { at: progress.at + 1, attempt: 1 };
        }
        Ran { progress, ended: Ended::Done, at: now }
    }

    async fn attempt(
        &self,
        route: &Route,
        attempt: u32,
        begun: Option<Box<Begun>>,
        event: &Event,
        reins: &Arc<Reins>,
        (now, watch, spare): (Instant, &Watch, &mut Spare),
    ) -> (Ended, Instant) {
        let (future, cx, span, started) = match begun {
            Some(begun) => {
                let Begun { future, cx, span, started } = *begun;
                (Some(future), cx, span, started)
            }
            None => {
                let cx = self.context(event, attempt, reins, spare.cx.take());
                (None, cx, span_of(self, route, attempt, event), now)
            }
        };
        let limits = Limits { stop: &reins.stop, watch, timeout: self.timeout, started, now };
        let place = std::mem::take(&mut spare.slot);
        let start = || match future {
            Some(future) => future,
            None => route.handler.clone().start(event.clone(), cx.clone(), place),
        };
        let limited = limits.run(start, || cx.cancellation().cancel());
        let slot = &mut spare.slot;
        let attempted = catch_panic(limited).map(|attempted| {
            let handled = |(handled, place)| {
                *slot = place;
                handled
            };
            judge(attempted.map(|limited| limited.map(handled)))
        });
        let ended = trace::traced(self, route, (span, started), event, pin!(attempted)).await;
        spare.cx = Some(cx);
        ended
    }

    /// What goes with an attempt; `spare`: that of another, to be used again where nobody has it.
    pub(crate) fn context(
        &self,
        event: &Event,
        attempt: u32,
        reins: &Arc<Reins>,
        spare: Option<Context>,
    ) -> Context {
        if let Some(mut cx) = spare
            && let Some(last) = cx.renew(attempt, reins)
        {
            if !last.is(event) {
                *last = event.clone();
            }
            return cx;
        }
        Context::new(event.clone(), attempt, reins.clone(), self.broker.clone())
    }
}

/// What an attempt gave, from the inside out.
pub(crate) type Attempted = Result<Result<Handled, Cut>, String>;

/// Makes one answer of all the ways to end.
pub(crate) fn judge(attempted: Attempted) -> Ended {
    Ended::Failed(match attempted {
        Err(panic) => Failure::new(FailureClass::Panic, panic),
        Ok(Err(Cut::Stopped)) => return Ended::Stopped,
        Ok(Err(Cut::Elapsed(limit))) => {
            Failure::new(FailureClass::Timeout, format!("the attempt took longer than {limit:?}"))
        }
        Ok(Ok(Err(error))) => Failure::from_error(&error),
        Ok(Ok(Ok(Verdict::Done))) => return Ended::Done,
        Ok(Ok(Ok(Verdict::Reject { why }))) => Failure::new(FailureClass::Rejected, why),
        Ok(Ok(Ok(Verdict::Retry { after }))) => Failure {
            retry_after: after,
            ..Failure::new(FailureClass::Retry, "the handler asked for a retry")
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoxError, Router, raw};

    #[test]
    fn a_run_is_a_small_future() {
        let router = Router::new().on("e", raw(|_, _| async { Ok::<_, BoxError>(Verdict::Done) }));
        let (runner, reins) = (Runner::default(), Arc::<Reins>::default());
        let event = Event::from(ropeway_broker::Message::builder().build());
        let watch = Watch::new(Instant::now());
        let now = Instant::now();
        let mut spare = Spare::default();
        let run =
            runner.run(router.routes(), Progress::start(), None, &event, &reins, (now, &watch, &mut spare));
        assert!(size_of_val(&run) < 1500, "{} bytes", size_of_val(&run));
    }
}
