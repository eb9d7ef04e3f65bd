//! One span and one measurement for each attempt.

use super::{Ended, Runner};
use crate::{Event, router::Route};
use std::{future::Future, pin::Pin};
use tokio::time::Instant;
use tracing::{Instrument, Span, debug_span};

/// The span of an attempt (level debug).
pub(crate) fn span_of(runner: &Runner, route: &Route, attempt: u32, event: &Event) -> Span {
    let place = event.place();
    debug_span!(
        "process",
        group = runner.group.as_ref().map(tracing::field::display),
        handler = &*route.name,
        event_type = event.event_type(),
        topic = place.map(|place| tracing::field::display(&place.topic)),
        partition = place.map(|place| place.partition),
        position = place.map(|place| tracing::field::display(place.position)),
        id = %event.id(),
        attempt,
        traceparent = event.headers().get_str(ropeway_broker::wire::TRACEPARENT),
        failure = tracing::field::Empty,
    )
}

/// Runs an attempt inside its span and measures it; answers when it was over, too.
pub(crate) async fn traced(
    runner: &Runner,
    route: &Route,
    (span, started): (Span, Instant),
    event: &Event,
    attempted: Pin<&mut (dyn Future<Output = Ended> + Send)>,
) -> (Ended, Instant) {
    let metrics = runner.metrics.get(route.index);
    let measured = metrics.map(|metrics| {
        metrics.in_flight.inc();
        // Taken back also where the attempt is dropped half-way.
        (metrics, InFlight(&metrics.in_flight))
    });
    // Entering a span that nobody looks at costs as much as a small handler.
    let ended = if span.is_disabled() { attempted.await } else { attempted.instrument(span.clone()).await };
    let class = match &ended {
        Ended::Failed(failure) => Some(failure.class),
        Ended::Done | Ended::Stopped => None,
    };
    if let Some(class) = class {
        span.record("failure", class.as_str());
    }
    let now = Instant::now();
    if let Some((metrics, _)) = measured
        && !matches!(ended, Ended::Stopped)
    {
        metrics.took(event.topic(), class, now.duration_since(started));
    }
    (ended, now)
}

struct InFlight<'a>(&'a prometheus::IntGauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
