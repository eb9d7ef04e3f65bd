//! The processor on a scripted bus, under a paused clock.

mod ends;
mod fake;
mod kept;
mod look;
mod trial;
mod work;

use super::*;
use crate::{BoxError, Event, ProcessorSettings, RetryPolicy, Router, Verdict, raw};
use fake::Fake;
use ropeway_broker::{Group, Timestamp, TokioClock, Topic};
use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

/// What handlers did, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn text(event: &Event) -> String {
    String::from_utf8(event.payload().unwrap().to_vec()).unwrap()
}

fn settings() -> ProcessorSettings {
    ProcessorSettings {
        retry: RetryPolicy { max_attempts: 3, jitter: false, ..RetryPolicy::default() },
        dead_letter_retry: RetryPolicy {
            jitter: false,
            first_delay: Duration::from_secs(1),
            ..RetryPolicy::default()
        },
        node: "test".into(),
        seed: Some(1),
        ..ProcessorSettings::default()
    }
}

/// A processor whose only handler notes the payload and then does what `handle` says.
async fn start<U>(
    fake: &Fake,
    log: &Log,
    settings: ProcessorSettings,
    handle: fn(Event, crate::Context) -> U,
) -> Processor
where
    U: Future<Output = Result<Verdict, BoxError>> + Send + 'static,
{
    let log = log.clone();
    let router = Router::new().on(
        "e",
        raw(move |event, cx| {
            log.note(format!("{}/{}", text(&event), cx.attempt()));
            handle(event, cx)
        }),
    );
    start_router(fake, settings, router).await
}

async fn start_router(fake: &Fake, settings: ProcessorSettings, router: Router) -> Processor {
    start_counted(fake, settings, router, None).await
}

async fn start_counted(
    fake: &Fake,
    settings: ProcessorSettings,
    router: Router,
    metrics: Option<&crate::Metrics>,
) -> Processor {
    let subscription = Subscription::new(Group::new("g").unwrap(), [Topic::new("t").unwrap()]);
    let builder = Processor::builder(Arc::new(fake.clone()), subscription)
        .router(router)
        .settings(settings)
        .clock(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))));
    let builder = match metrics {
        Some(metrics) => builder.metrics(metrics),
        None => builder,
    };
    builder.start().await.unwrap()
}

/// Lets everything happen that happens without time passing, and then that much time pass.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
