//! The handlers of checks, and what was asked of them: checks say how a handler acts and ask which calls there were.
//!
//! Not here: what must have been called (the files of the groups).

use super::{
    stage::{PATIENCE, number_of},
    subject::Route,
};
use crate::{BoxError, Context, Event, Handler, HandlerOptions, RetryPolicy, Verdict, raw};
use ropeway_broker::conformance::promise::{broken, cut};
use std::{
    fmt::Write as _,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// What a handler of a check answers.
pub(super) type Acted = Result<Verdict, BoxError>;

/// One call of a handler.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) handler: &'static str,
    pub(super) event: Event,
    /// The number in its payload.
    pub(super) number: usize,
    pub(super) key: String,
    pub(super) attempt: u32,
    pub(super) began: Instant,
    /// When its token was cancelled, where it waited for that.
    pub(super) cancelled: Option<Instant>,
    pub(super) ended: Option<(Instant, End)>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// An error, a retry or a rejection.
    Failed,
    /// It was dropped half-way, or panicked.
    Dropped,
}

impl Call {
    pub(super) fn is_done(&self) -> bool {
        matches!(self.ended, Some((_, End::Done)))
    }

    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.ended.map(|(at, _)| at)
    }

    /// How long after that call ended this one began.
    pub(super) fn after(&self, before: &Self) -> Duration {
        before.ended_at().map_or(Duration::ZERO, |ended| self.began.saturating_duration_since(ended))
    }
}

/// What a handler of a check is given.
pub(super) struct Turn {
    pub(super) event: Event,
    pub(super) cx: Context,
    pub(super) number: usize,
    pub(super) key: String,
    pub(super) attempt: u32,
    /// How many calls there were for this number before.
    pub(super) before: usize,
    calls: Calls,
    at: usize,
}

impl Turn {
    /// Whether an earlier owner of the partition had this message too.
    pub(super) fn is_again(&self) -> bool {
        let epoch = |event: &Event| event.place().map(|place| place.epoch);
        let now = epoch(&self.event);
        self.calls.lock().iter().any(|call| call.number == self.number && epoch(&call.event) < now)
    }

    /// Waits until it is cancelled, and notes when.
    pub(super) async fn cancelled(&self) {
        self.cx.cancelled().await;
        self.calls.lock()[self.at].cancelled = Some(Instant::now());
    }
}

/// All calls, in the order they began.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A route for all topics and all types whose calls are noted.
    pub(super) fn route<F, U>(&self, act: F) -> Route
    where
        F: Fn(Turn) -> U + Send + Sync + 'static,
        U: Future<Output = Acted> + Send + 'static,
    {
        self.named("handler", "*", act)
    }

    /// A route for types that match, by that name.
    pub(super) fn named<F, U>(&self, name: &'static str, types: &str, act: F) -> Route
    where
        F: Fn(Turn) -> U + Send + Sync + 'static,
        U: Future<Output = Acted> + Send + 'static,
    {
        Route {
            topics: "*".to_owned(),
            types: types.to_owned(),
            options: HandlerOptions::named(name),
            handler: self.handler(name, act),
        }
    }

    fn handler<F, U>(&self, name: &'static str, act: F) -> Arc<dyn Handler>
    where
        F: Fn(Turn) -> U + Send + Sync + 'static,
        U: Future<Output = Acted> + Send + 'static,
    {
        let calls = self.clone();
        Arc::new(raw(move |event: Event, cx: Context| {
            let at = calls.begin(name, &event, &cx);
            let (number, key, attempt) = (number_of(event.message()), key_of(&event), cx.attempt());
            let before = calls.lock()[..at].iter().filter(|call| call.number == number).count();
            let acting = act(Turn { event, cx, number, key, attempt, before, calls: calls.clone(), at });
            let mut note = Note { calls: calls.clone(), at, end: End::Dropped };
            async move {
                let acted = acting.await;
                note.end = if matches!(acted, Ok(Verdict::Done)) { End::Done } else { End::Failed };
                drop(note);
                acted
            }
        }))
    }

    fn begin(&self, handler: &'static str, event: &Event, cx: &Context) -> usize {
        let mut calls = self.lock();
        calls.push(Call {
            handler,
            event: event.clone(),
            number: number_of(event.message()),
            key: key_of(event),
            attempt: cx.attempt(),
            began: Instant::now(),
            cancelled: None,
            ended: None,
        });
        calls.len() - 1
    }

    pub(super) fn all(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// The calls for one number.
    pub(super) fn of(&self, number: usize) -> Vec<Call> {
        self.all().into_iter().filter(|call| call.number == number).collect()
    }

    /// How many there were.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many ended well.
    pub(super) fn done(&self) -> usize {
        self.lock().iter().filter(|call| call.is_done()).count()
    }

    /// How many run now.
    pub(super) fn running(&self) -> usize {
        self.lock().iter().filter(|call| call.ended.is_none()).count()
    }

    /// Waits until it holds, or the check fails.
    pub(super) async fn until(&self, promise: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !holds(self) {
            if start.elapsed() > PATIENCE {
                broken(promise, cut(format!("not within {PATIENCE:?}, but {}", self.told())));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// What was called last, in short.
    pub(super) fn told(&self) -> String {
        let calls = self.lock();
        let mut out = format!("{} calls, the last: ", calls.len());
        for call in calls.iter().rev().take(15).rev() {
            let end = call.ended.map(|(_, end)| end);
            let _ = write!(out, "{} #{} attempt {} {end:?}, ", call.handler, call.number, call.attempt);
        }
        out
    }
}

/// Notes the end of a call, also where it is dropped.
struct Note {
    calls: Calls,
    at: usize,
    end: End,
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(call) = self.calls.lock().get_mut(self.at) {
            call.ended = Some((Instant::now(), self.end));
        }
    }
}

fn key_of(event: &Event) -> String {
    event.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default()
}

/// The error of a handler that fails on purpose.
pub(super) fn fails() -> Acted {
    Err("on purpose".into())
}

/// Done.
pub(super) const fn done() -> Acted {
    Ok(Verdict::Done)
}

/// A policy without jitter: that many attempts, the first wait, no growth.
pub(super) fn steady(max_attempts: u32, delay: Duration) -> RetryPolicy {
    RetryPolicy { max_attempts, first_delay: delay, factor: 1.0, max_delay: delay, jitter: false }
}
