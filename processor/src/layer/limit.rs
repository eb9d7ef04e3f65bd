//! Ends an attempt from outside: it is dropped where its processor stops it (the partition is gone and the grace is over, or the time to drain
//! is), and where it takes too long.
//!
//! An attempt registers with no timer and no token, which cost more than small handlers: it looks at two flags whenever it is polled,
//! and who sets one of them has its worker polled. Not here: who does that, and when (`pool/workers/`).

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;

/// How an attempt ended that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its processor stopped it.
    Stopped,
    /// It took longer than that.
    Elapsed(Duration),
}

/// Drops what runs. Who stops must have the workers polled afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// For good.
    pub(crate) fn stop(&self) {
        self.0.store(true, Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.load(Acquire)
    }
}

/// When the attempt that a worker runs has to be over: the worker writes it, who watches looks at it.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What times are counted from.
    base: Instant,
    /// In nanoseconds, or [`NEVER`] or [`OVER`].
    end: AtomicU64,
}

/// Nothing runs that has to be over.
const NEVER: u64 = u64::MAX;
/// It takes too long.
const OVER: u64 = u64::MAX - 1;

/// What who watches is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing has to be over.
    Nothing,
    /// It has to be over then.
    Until(Instant),
    /// It takes too long, was told so and has to be polled.
    Over,
}

impl Watch {
    pub(crate) const fn new(base: Instant) -> Self {
        Self { base, end: AtomicU64::new(NEVER) }
    }

    /// What runs has to be over at `end`, as long as the answer lives.
    fn until(&self, end: Instant) -> Until<'_> {
        if self.end.load(Relaxed) == NEVER {
            self.set(end);
        } else {
            // It was set already, and may have been seen to be over since: that stays told.
            let end = self.nanos(end);
            let _ = self.end.fetch_update(AcqRel, Acquire, |told| (told != OVER).then_some(end));
        }
        Until(self)
    }

    /// What is about to run has to be over at `end`.
    pub(crate) fn set(&self, end: Instant) {
        self.end.store(self.nanos(end), Relaxed);
    }

    fn nanos(&self, end: Instant) -> u64 {
        let end = u64::try_from(end.saturating_duration_since(self.base).as_nanos()).unwrap_or(NEVER);
        end.min(OVER - 1)
    }

    /// Looks at what runs.
    pub(crate) fn look(&self, now: Instant) -> Seen {
        let end = self.end.load(Relaxed);
        if end >= OVER {
            return Seen::Nothing;
        }
        match self.base.checked_add(Duration::from_nanos(end)) {
            None => Seen::Nothing,
            Some(until) if now < until => Seen::Until(until),
            // Where another attempt has begun meanwhile, nothing happens to it.
            Some(_) if self.end.compare_exchange(end, OVER, AcqRel, Relaxed).is_ok() => Seen::Over,
            Some(_) => Seen::Nothing,
        }
    }

    fn is_over(&self) -> bool {
        self.end.load(Acquire) == OVER
    }
}

struct Until<'a>(&'a Watch);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.end.store(NEVER, Relaxed);
    }
}

/// How an attempt is limited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) stop: &'a Stop,
    pub(crate) watch: &'a Watch,
    /// How long it may take.
    pub(crate) timeout: Option<Duration>,
    /// Counted from then.
    pub(crate) started: Instant,
    /// When it goes on: `started`, unless it was begun elsewhere.
    pub(crate) now: Instant,
}

impl Limits<'_> {
    /// The value of the future that `start` makes, which is not called where the attempt is stopped already; once it takes too long `cancel` is called.
    pub(crate) async fn run<T, F: Future<Output = T> + Send + Unpin>(
        self,
        start: impl FnOnce() -> F,
        cancel: impl FnOnce(),
    ) -> Result<T, Cut> {
        // A time that no clock can show does not come.
        let limit = self.timeout.and_then(|limit| Some((limit, self.started.checked_add(limit)?)));
        let _watched = limit.map(|(_, end)| self.watch.until(end));
        if self.stop.is_stopped() {
            return Err(Cut::Stopped);
        }
        let mut future = start();
        let ended = poll_fn(|cx| {
            if self.stop.is_stopped() {
                return Poll::Ready(Err(Cut::Stopped));
            }
            match (Pin::new(&mut future).poll(cx), limit) {
                (Poll::Ready(value), _) => Poll::Ready(Ok(value)),
                (Poll::Pending, Some((limit, end))) if self.watch.is_over() || end <= self.now => {
                    Poll::Ready(Err(Cut::Elapsed(limit)))
                }
                (Poll::Pending, _) => Poll::Pending,
            }
        })
        .await;
        if matches!(ended, Err(Cut::Elapsed(_))) {
            cancel();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const SECOND: Duration = Duration::from_secs(1);

    fn limited<'a>(stop: &'a Stop, watch: &'a Watch, started: Instant) -> Limits<'a> {
        Limits { stop, watch, timeout: Some(SECOND), started, now: started }
    }

    #[tokio::test]
    async fn what_takes_too_long_is_told_once_it_is_looked_at_and_cancelled() {
        let base = Instant::now();
        let (stop, watch, mut cancelled) = (Stop::default(), Watch::new(base), false);
        let mut run = Box::pin(
            limited(&stop, &watch, base).run(|| Box::pin(std::future::pending::<()>()), || cancelled = true),
        );
        assert!(run.as_mut().now_or_never().is_none());
        assert_eq!(watch.look(base + SECOND / 2), Seen::Until(base + SECOND));
        assert!(run.as_mut().now_or_never().is_none());
        assert_eq!(watch.look(base + SECOND), Seen::Over);
        // Told once.
        assert_eq!(watch.look(base + SECOND), Seen::Nothing);
        assert_eq!(run.as_mut().now_or_never(), Some(Err(Cut::Elapsed(SECOND))));
        drop(run);
        assert!(cancelled);
        assert_eq!(watch.look(base + SECOND * 9), Seen::Nothing);
    }

    #[tokio::test]
    async fn what_was_told_to_one_attempt_does_not_end_the_next() {
        let base = Instant::now();
        let (stop, watch) = (Stop::default(), Watch::new(base));
        let first = limited(&stop, &watch, base).run(|| Box::pin(std::future::pending::<()>()), || ());
        let mut first = Box::pin(first);
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(watch.look(base + SECOND), Seen::Over);
        // It is dropped, and never saw it.
        drop(first);
        let next = limited(&stop, &watch, base + SECOND).run(|| Box::pin(tokio::task::yield_now()), || ());
        let mut next = Box::pin(next);
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(watch.look(base + SECOND), Seen::Until(base + SECOND * 2));
        assert_eq!(next.await, Ok(()));
    }

    #[tokio::test]
    async fn what_ends_at_its_last_poll_is_done_though_it_took_too_long() {
        let base = Instant::now();
        let (stop, watch) = (Stop::default(), Watch::new(base));
        let mut run =
            Box::pin(limited(&stop, &watch, base).run(|| Box::pin(tokio::task::yield_now()), || ()));
        assert!(run.as_mut().now_or_never().is_none());
        assert_eq!(watch.look(base + SECOND), Seen::Over);
        assert_eq!(run.await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_stopped_is_not_begun_or_not_polled_again() {
        let base = Instant::now();
        let (stop, watch) = (Stop::default(), Watch::new(base));
        let mut run =
            Box::pin(limited(&stop, &watch, base).run(|| Box::pin(tokio::task::yield_now()), || ()));
        assert!(run.as_mut().now_or_never().is_none());
        stop.stop();
        assert_eq!(run.as_mut().now_or_never(), Some(Err(Cut::Stopped)));
        let never = || -> std::future::Ready<()> { unreachable!("it was stopped before") };
        assert_eq!(limited(&stop, &watch, base).run(never, || ()).await, Err(Cut::Stopped));
    }

    #[tokio::test]
    async fn what_was_begun_elsewhere_has_what_is_left_of_its_time() {
        let base = Instant::now();
        let (stop, watch) = (Stop::default(), Watch::new(base));
        let limits = Limits { now: base + SECOND / 2, ..limited(&stop, &watch, base) };
        let mut run = Box::pin(limits.run(|| Box::pin(std::future::pending::<()>()), || ()));
        assert!(run.as_mut().now_or_never().is_none());
        assert_eq!(watch.look(base + SECOND / 2), Seen::Until(base + SECOND));
        drop(run);
        // Nothing was left of it when it went on.
        let limits = Limits { now: base + SECOND, ..limited(&stop, &watch, base) };
        let run = limits.run(|| Box::pin(std::future::pending::<()>()), || ());
        assert_eq!(run.now_or_never(), Some(Err(Cut::Elapsed(SECOND))));
    }

    #[tokio::test]
    async fn what_was_seen_to_be_over_before_it_goes_on_ends_and_what_comes_after_it_does_not() {
        let base = Instant::now();
        let (stop, watch) = (Stop::default(), Watch::new(base));
        // A worker takes what was begun elsewhere, as of a time that it knows from before, and who watches looks at once.
        watch.set(base + SECOND);
        assert_eq!(watch.look(base + SECOND), Seen::Over);
        let limits = Limits { now: base + SECOND / 2, ..limited(&stop, &watch, base) };
        let run = limits.run(|| Box::pin(std::future::pending::<()>()), || ());
        assert_eq!(run.now_or_never(), Some(Err(Cut::Elapsed(SECOND))));
        // The same for one that was stopped meanwhile, and is not begun.
        watch.set(base + SECOND);
        assert_eq!(watch.look(base + SECOND), Seen::Over);
        let stopped = Stop::default();
        stopped.stop();
        let run = limited(&stopped, &watch, base).run(|| Box::pin(std::future::pending::<()>()), || ());
        assert_eq!(run.now_or_never(), Some(Err(Cut::Stopped)));
        let run = limited(&stop, &watch, base).run(|| Box::pin(tokio::task::yield_now()), || ());
        assert_eq!(run.await, Ok(()));
    }

    #[tokio::test]
    async fn a_time_that_no_clock_can_show_does_not_come() {
        let base = Instant::now();
        let (stop, watch) = (Stop::default(), Watch::new(base));
        let limits = Limits { timeout: Some(Duration::MAX), ..limited(&stop, &watch, base) };
        let mut run = Box::pin(limits.run(|| Box::pin(tokio::task::yield_now()), || ()));
        assert!(run.as_mut().now_or_never().is_none());
        assert_eq!(watch.look(base + SECOND), Seen::Nothing);
        assert_eq!(run.await, Ok(()));
    }
}
