//! Doubles for the checks of `publisher.rs`: publishers that differ from the right one.
//!
//! Not here: what doubles share (`lost.rs`).

use super::hooks::{Double, Hooks, Shared, double, now};
use futures::FutureExt;
use ropeway_broker::{
    Answer, Error, ErrorKind, Failed, Message, PublishFailed, Result, Target,
    conformance::{Outcome, Publishing},
};
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("a_publisher_takes_over_no_more_than_its_bound", "takes over more than its bound", || {
            publishing(|inner| Arc::new(Boundless { inner, open: Shared::default() }))
        }),
        double(
            "linger_is_the_age_of_the_first_not_a_pause_after_the_last",
            "waits for a pause before it answers",
            || publishing(|inner| Arc::new(Debouncing { inner, last: Arc::default() })),
        ),
        double("flush_waits_for_all_that_was_taken_over", "answers a flush too early", || {
            publishing(|inner| Arc::new(Hasty { inner, count: Shared::default() }))
        }),
        double(
            "close_publishes_what_was_taken_over_and_takes_no_more",
            "says that what it refuses after close may be written",
            || publishing(|inner| Arc::new(Unsure(inner))),
        ),
        double(
            "a_message_whose_outcome_nobody_awaits_is_published",
            "publishes when somebody awaits the outcome",
            || Hooks {
                publisher: Some(Box::new(|inner, settings| {
                    if settings.linger.is_zero() {
                        Arc::new(Lazy { inner, count: Shared::default() })
                    } else {
                        inner
                    }
                })),
                ..Hooks::default()
            },
        ),
        double("a_publisher_keeps_the_order_of_a_key", "swaps two messages of a key", || {
            publishing(|inner| Arc::new(Swapping { inner, count: Shared::default() }))
        }),
    ]
}

fn publishing(publisher: fn(Arc<dyn Publishing>) -> Arc<dyn Publishing>) -> Hooks {
    Hooks { publisher: Some(Box::new(move |inner, _| publisher(inner))), ..Hooks::default() }
}

type Enqueued = Answer<Result<Outcome, PublishFailed>>;

/// Passes on what a double does not change.
macro_rules! pass_on {
    ($inner:tt: $($method:ident),*) => { $(pass_on!(@$method $inner);)* };
    (@flush $inner:tt) => {
        fn flush(&self, deadline: Duration) -> Answer<Result<()>> {
            self.$inner.flush(deadline)
        }
    };
    (@close $inner:tt) => {
        fn close(&self, deadline: Duration) -> Answer<Result<()>> {
            self.$inner.close(deadline)
        }
    };
}

/// Which call it is, from 1.
fn counted(count: &Shared<usize>) -> usize {
    let mut count = count.lock();
    *count += 1;
    *count
}

#[derive(Debug)]
struct Boundless {
    inner: Arc<dyn Publishing>,
    open: Shared<usize>,
}

impl Publishing for Boundless {
    fn enqueue(&self, to: Target, message: Message) -> Enqueued {
        let mut answer = self.inner.enqueue(to, message);
        if counted(&self.open) != 11 {
            return answer;
        }
        if let Some(ready) = (&mut answer).now_or_never() {
            return now(ready);
        }
        // Says that it has room, and waits for it behind the scenes.
        let waiting = tokio::spawn(answer);
        now(Ok(Box::pin(async move {
            match waiting.await {
                Ok(Ok(outcome)) => outcome.await,
                Ok(Err(failed)) => Err(failed),
                Err(_) => Err(failed("the runtime ended", Message::builder().build())),
            }
        }) as Outcome))
    }

    pass_on!(inner: flush, close);
}

fn failed(why: &'static str, message: Message) -> PublishFailed {
    let error = Error::new(ErrorKind::Closed, why);
    PublishFailed { may_be_written: true, failed: Box::new(Failed { error, message }) }
}

#[derive(Debug)]
struct Debouncing {
    inner: Arc<dyn Publishing>,
    last: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl Publishing for Debouncing {
    fn enqueue(&self, to: Target, message: Message) -> Enqueued {
        let last = Arc::clone(&self.last);
        let latest = move || *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
        let answer = self.inner.enqueue(to, message);
        Box::pin(async move {
            let outcome = answer.await?;
            Ok(Box::pin(async move {
                let receipt = outcome.await?;
                // Where messages come all the time, the pause never comes.
                while let Some(at) = latest().filter(|at| at.elapsed() < PAUSE) {
                    sleep_until(at + PAUSE).await;
                }
                Ok(receipt)
            }) as Outcome)
        })
    }

    fn flush(&self, deadline: Duration) -> Answer<Result<()>> {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        self.inner.flush(deadline)
    }

    pass_on!(inner: close);
}

const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Hasty {
    inner: Arc<dyn Publishing>,
    count: Shared<usize>,
}

impl Publishing for Hasty {
    fn enqueue(&self, to: Target, message: Message) -> Enqueued {
        counted(&self.count);
        self.inner.enqueue(to, message)
    }

    fn flush(&self, deadline: Duration) -> Answer<Result<()>> {
        if *self.count.lock() < 100 { self.inner.flush(deadline) } else { now(Ok(())) }
    }

    pass_on!(inner: close);
}

#[derive(Debug)]
struct Unsure(Arc<dyn Publishing>);

impl Publishing for Unsure {
    fn enqueue(&self, to: Target, message: Message) -> Enqueued {
        let answer = self.0.enqueue(to, message);
        Box::pin(
            async move { answer.await.map_err(|failed| PublishFailed { may_be_written: true, ..failed }) },
        )
    }

    pass_on!(0: flush, close);
}

#[derive(Debug)]
struct Lazy {
    inner: Arc<dyn Publishing>,
    count: Shared<usize>,
}

impl Publishing for Lazy {
    fn enqueue(&self, to: Target, message: Message) -> Enqueued {
        if counted(&self.count) != 20 || message.key.is_some() {
            return self.inner.enqueue(to, message);
        }
        let inner = Arc::clone(&self.inner);
        now(Ok(Box::pin(async move { inner.enqueue(to, message).await?.await }) as Outcome))
    }

    pass_on!(inner: flush, close);
}

#[derive(Debug)]
struct Swapping {
    inner: Arc<dyn Publishing>,
    count: Shared<usize>,
}

impl Publishing for Swapping {
    fn enqueue(&self, to: Target, message: Message) -> Enqueued {
        let nth = counted(&self.count);
        if message.key.is_none() || nth != 150 {
            return self.inner.enqueue(to, message);
        }
        let inner = Arc::clone(&self.inner);
        now(Ok(Box::pin(async move {
            sleep_until(Instant::now() + PAUSE).await;
            inner.enqueue(to, message).await?.await
        }) as Outcome))
    }

    pass_on!(inner: flush, close);
}
