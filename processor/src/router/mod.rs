//! Which handlers get which event.
//!
//! Not here: patterns (`pattern.rs`), running the handlers (`layer/`), retries and dead letters (`runtime/`).

mod pace;
mod pattern;
mod plan;

pub(crate) use pace::{Bounds, Look};
pub(crate) use plan::{Plan, Plans};

use crate::{
    Event, Failure, Handler, HandlerOptions, RetryPolicy,
    layer::{Ended, Progress, Reins, Runner, Spare, Watch},
    verdict::cut,
};
use bytes::Bytes;
use pattern::Pattern;
use ropeway_broker::{Error, ErrorKind, Message, Result};
use std::{fmt, sync::Arc};
use tokio::time::Instant;

/// Sends events to the handlers that are registered for their type and topic.
///
/// Patterns are text in which `*` stands for any characters, dots included: `order.created`, `order.*`, `*`. An event without type is
/// matched by `*` alone.
///
/// **Several handlers** for one event run one after the other in the order of registration; the event is done when all are. The first that
/// fails stops the rest, and the next attempt begins with it: those before it are not run again *within this process*. After a crash, a
/// lost partition or a redrive all of them run again. Attempts are counted for each handler.
///
/// Works without a bus too: [`Self::process`], [`Self::process_raw`].
#[derive(Clone, Debug, Default)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    unknown: Unknown,
}

/// What becomes of an event that no handler takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// It goes to the dead-letter topic, class `unknown_type`. The default: nothing is lost.
    #[default]
    Reject,
    /// It is taken as done: what nobody takes is **dropped**, and counted as `skipped`.
    Ignore,
}

/// A handler and what it is registered for.
pub(crate) struct Route {
    /// Its place in the order of registration.
    pub(crate) index: usize,
    pub(crate) name: Arc<str>,
    pub(crate) topics: Pattern,
    pub(crate) types: Pattern,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) handler: Arc<dyn Handler>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({:?}: types {:?}, topics {:?})", self.name, self.types, self.topics)
    }
}

impl Route {
    fn takes(&self, topic: &str, event_type: Option<&str>) -> bool {
        self.topics.matches(topic)
            && event_type.map_or_else(|| self.types.is_any(), |name| self.types.matches(name))
    }
}

/// An event was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// By all handlers that take it.
    Done,
    /// No handler takes it, and [`Unknown::Ignore`] says to drop it.
    Ignored,
}

impl Router {
    /// A router without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a handler for events of that type, or of types that match the pattern, from every topic.
    #[must_use]
    pub fn on(self, types: &str, handler: impl Handler) -> Self {
        self.register("*", types, HandlerOptions::default(), handler)
    }

    /// Registers a handler for events from topics and of types that match.
    #[must_use]
    pub fn on_topic(self, topics: &str, types: &str, handler: impl Handler) -> Self {
        self.register(topics, types, HandlerOptions::default(), handler)
    }

    /// Registers a handler with a name or a retry policy of its own.
    #[must_use]
    pub fn register(
        mut self,
        topics: &str,
        types: &str,
        options: HandlerOptions,
        handler: impl Handler,
    ) -> Self {
        let mut name = options
            .name
            .unwrap_or_else(|| if topics == "*" { types.to_owned() } else { format!("{topics}/{types}") });
        cut(&mut name, MAX_NAME);
        let taken = |name: &str| self.routes.iter().any(|route| &*route.name == name);
        if taken(&name) {
            let numbered = (2..).map(|n| format!("{name}#{n}")).find(|name| !taken(name));
            name = numbered.unwrap_or(name);
        }
        self.routes.push(Arc::new(Route {
            index: self.routes.len(),
            name: name.into(),
            topics: Pattern::new(topics),
            types: Pattern::new(types),
            retry: options.retry,
            handler: Arc::new(handler),
        }));
        self
    }

    /// What becomes of events that no handler takes. Default: [`Unknown::Reject`].
    #[must_use]
    pub const fn unknown(mut self, unknown: Unknown) -> Self {
        self.unknown = unknown;
        self
    }

    /// Handles one event here and now, once: no retry, no dead letter. Panics are caught.
    ///
    /// # Errors
    /// The failure of the first handler that did not finish; those after it were not run.
    pub async fn process(&self, event: Event) -> Result<Processed, Failure> {
        let topic = event.topic().map_or("", |topic| topic.as_str()).to_owned();
        let plan = self.plan(&topic, event.event_type());
        if plan.is_empty() {
            return match self.unknown {
                Unknown::Ignore => Ok(Processed::Ignored),
                Unknown::Reject => Err(Failure::unknown_type(event.event_type())),
            };
        }
        let reins = Arc::<Reins>::default();
        let runner = Runner::default();
        let now = Instant::now();
        // Without a limit: nobody looks at the watch.
        let watch = Watch::new(now);
        let mut spare = Spare::default();
        let run = runner.run(&plan, Progress::start(), None, &event, &reins, (now, &watch, &mut spare));
        match run.await.ended {
            Ended::Failed(failure) => Err(failure),
            // Nobody holds the reins of this run, so nobody stops it.
            Ended::Done | Ended::Stopped => Ok(Processed::Done),
        }
    }

    /// Handles a payload of that type here and now: [`Self::process`] for an event with nothing else to it.
    ///
    /// # Errors
    /// Those of [`Self::process`].
    pub async fn process_raw(
        &self,
        payload: impl Into<Bytes>,
        event_type: &str,
    ) -> Result<Processed, Failure> {
        self.process(Message::builder().event_type(event_type).payload(payload).build().into()).await
    }

    /// Whether it can be used by a processor.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if self.routes.is_empty() {
            return wrong(
                "the router has no handlers: every event would be dead-lettered; register one with `on`"
                    .into(),
            );
        }
        for route in &self.routes {
            if let Some(policy) = &route.retry {
                policy.check()?;
            }
        }
        Ok(())
    }

    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    pub(crate) const fn unknown_policy(&self) -> Unknown {
        self.unknown
    }

    /// The handlers of an event, in order. Looks at every route: [`Plans`] remembers.
    fn plan(&self, topic: &str, event_type: Option<&str>) -> Plan {
        self.routes.iter().filter(|route| route.takes(topic, event_type)).cloned().collect()
    }
}

/// The longest name of a handler, in bytes.
const MAX_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoxError, Context, FailureClass, Verdict, json, raw};
    use std::sync::Mutex;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn note(log: &Log, what: &'static str, verdict: Verdict) -> impl Handler + use<> {
        let log = log.clone();
        raw(move |_, _| {
            log.lock().unwrap().push(what);
            let verdict = verdict.clone();
            async move { Ok::<_, BoxError>(verdict) }
        })
    }

    #[tokio::test]
    async fn several_handlers_run_in_order_and_the_first_failure_stops_the_rest() {
        let log = Log::default();
        let router = Router::new()
            .on("order.*", note(&log, "first", Verdict::Done))
            .on("order.created", note(&log, "second", Verdict::reject("no")))
            .on("*", note(&log, "third", Verdict::Done));
        let failure = router.process_raw("{}", "order.created").await.unwrap_err();
        assert_eq!(
            (failure.class, failure.handler.as_deref()),
            (FailureClass::Rejected, Some("order.created"))
        );
        assert_eq!(router.process_raw("{}", "order.paid").await, Ok(Processed::Done));
        assert_eq!(*log.lock().unwrap(), ["first", "second", "first", "third"]);
    }

    #[tokio::test]
    async fn an_unknown_type_is_refused_unless_it_is_spelled_out() {
        let log = Log::default();
        let router = Router::new().on("a", note(&log, "a", Verdict::Done));
        let failure = router.process_raw("", "b").await.unwrap_err();
        assert_eq!(failure.class, FailureClass::UnknownType);
        assert!(failure.why.contains("\"b\""), "{}", failure.why);
        let untyped = Event::from(Message::builder().build());
        assert_eq!(router.process(untyped).await.unwrap_err().class, FailureClass::UnknownType);
        let router = router.unknown(Unknown::Ignore);
        assert_eq!(router.process_raw("", "b").await, Ok(Processed::Ignored));
    }

    #[tokio::test]
    async fn panics_and_undecodable_payloads_are_told_apart() {
        let router = Router::new()
            .on(
                "n",
                json(|n: u32, _: Context| async move {
                    assert!(n != 13, "unlucky {n}");
                    Ok::<_, BoxError>(Verdict::Done)
                }),
            )
            .on("r", raw(|_, _| async { Ok::<_, BoxError>(Verdict::retry()) }));
        assert_eq!(router.process_raw("7", "n").await, Ok(Processed::Done));
        let failure = router.process_raw("13", "n").await.unwrap_err();
        assert_eq!((failure.class, failure.why.as_str()), (FailureClass::Panic, "unlucky 13"));
        let failure = router.process_raw("\"x\"", "n").await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Undecodable);
        assert_eq!(router.process_raw("", "r").await.unwrap_err().class, FailureClass::Retry);
    }

    #[test]
    fn names_of_handlers_are_distinct() {
        let log = Log::default();
        let router = Router::new()
            .on("a", note(&log, "", Verdict::Done))
            .on("a", note(&log, "", Verdict::Done))
            .on_topic("t.*", "a", note(&log, "", Verdict::Done))
            .register("*", "a", HandlerOptions::named("bill"), note(&log, "", Verdict::Done));
        let names: Vec<&str> = router.routes.iter().map(|route| &*route.name).collect();
        assert_eq!(names, ["a", "a#2", "t.*/a", "bill"]);
    }
}
