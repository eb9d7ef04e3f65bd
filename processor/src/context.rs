//! What goes with one attempt to handle an event.
//!
//! Not here: the event itself (`event.rs`), who cancels (`runtime/`).

use crate::{Event, event::Place, layer::Reins};
use ropeway_broker::{
    Epoch, Error, ErrorKind, Failed, Headers, Message, MessageBroker, MessageBrokerExt, MessageBuilder,
    PublishFailed, Receipt, Target, wire,
};
use std::sync::{Arc, OnceLock};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// What goes with one attempt of one handler: its number, the token that ends it, the way to publish what follows from it.
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: Event,
    attempt: u32,
    reins: Arc<Reins>,
    /// Below that of the reins, since an attempt that takes too long is cancelled alone. Made when somebody asks for it.
    cancel: OnceLock<CancellationToken>,
    broker: Option<Arc<dyn MessageBroker>>,
}

impl Context {
    pub(crate) fn new(
        event: Event,
        attempt: u32,
        reins: Arc<Reins>,
        broker: Option<Arc<dyn MessageBroker>>,
    ) -> Self {
        Self(Arc::new(Inner { event, attempt, reins, cancel: OnceLock::new(), broker }))
    }

    /// Makes the context of another attempt of it, with the same broker, where nobody else has it. Answers its event, which may be made another.
    // The call costs a third of what it does.
    #[inline(always)]
    pub(crate) fn renew(&mut self, attempt: u32, reins: &Arc<Reins>) -> Option<&mut Event> {
        let inner = Arc::get_mut(&mut self.0)?;
        inner.attempt = attempt;
        if !Arc::ptr_eq(&inner.reins, reins) {
            inner.reins = reins.clone();
        }
        if inner.cancel.get().is_some() {
            inner.cancel.take();
        }
        Some(&mut inner.event)
    }

    /// The event that is handled.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.0.event
    }

    /// Which attempt of this handler this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// A token that grows with each owner of the event's partition: what is written outside with it can be refused when a later owner
    /// has been there. `None` for an event that did not come over the bus.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.0.event.place().map(|place: &Place| place.epoch)
    }

    /// Whether the attempt should end: its partition is another's now, the time to drain is nearly over, or the attempt took too long.
    /// What it returns then is neither retried nor dead-lettered, and burns no attempt; only `Done` counts, where the partition is still held.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancel.get().unwrap_or(&self.0.reins.cancel).is_cancelled()
    }

    /// Waits until [`Self::is_cancelled`].
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.cancellation().cancelled()
    }

    /// The token behind [`Self::is_cancelled`], to hand on.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        self.0.cancel.get_or_init(|| self.0.reins.cancel.child_token())
    }

    /// What ties all messages of one business transaction together: the event's correlation id, or its own id where it starts one.
    #[must_use]
    pub fn correlation_id(&self) -> String {
        let headers = self.0.event.headers();
        headers.get_str(wire::CORRELATION_ID).map_or_else(|| self.0.event.id().to_string(), str::to_owned)
    }

    /// The id of the message whose handling made this event, where it says one.
    #[must_use]
    pub fn causation_id(&self) -> Option<&str> {
        self.0.event.headers().get_str(wire::CAUSATION_ID)
    }

    /// Starts a message that follows from this event: correlation, causation and trace context are carried on.
    #[must_use]
    pub fn derive(&self, message: MessageBuilder) -> MessageBuilder {
        self.carried().into_iter().fold(message, |message, (name, value)| message.header(name, value))
    }

    /// Publishes a message that follows from this event, with what [`Self::derive`] carries on where the message does not say it itself.
    ///
    /// Repeats publish again: an attempt that fails afterwards, or a crash before the ack, runs the handler anew.
    ///
    /// # Errors
    /// The failure with the message; `Unsupported` where the router is used without a bus.
    pub async fn publish(&self, to: impl Into<Target>, message: Message) -> Result<Receipt, PublishFailed> {
        let missing: Vec<_> =
            self.carried().into_iter().filter(|(name, _)| message.headers.get(name).is_none()).collect();
        let message = if missing.is_empty() {
            message
        } else {
            let headers: Headers = missing
                .into_iter()
                .fold(message.headers.to_builder(), |headers, (name, value)| headers.add(name, Some(value)))
                .build();
            Message { headers, ..message }
        };
        match &self.0.broker {
            Some(broker) => broker.publish_one(to, message).await,
            None => {
                let error = Error::new(
                    ErrorKind::Unsupported,
                    "this router runs without a bus; start a Processor, or publish with a broker of your own",
                );
                Err(PublishFailed { may_be_written: false, failed: Box::new(Failed { error, message }) })
            }
        }
    }

    /// The headers that go on to what follows. A trace context that is not valid is not carried on, as W3C wants it.
    fn carried(&self) -> Vec<(&'static str, String)> {
        let headers = self.0.event.headers();
        let mut carried = vec![
            (wire::CORRELATION_ID, self.correlation_id()),
            (wire::CAUSATION_ID, self.0.event.id().to_string()),
        ];
        if let Some(parent) = headers.get_str(wire::TRACEPARENT)
            && is_traceparent(parent)
        {
            carried.push((wire::TRACEPARENT, parent.to_owned()));
            carried
                .extend(headers.get_str(wire::TRACESTATE).map(|state| (wire::TRACESTATE, state.to_owned())));
        }
        carried
    }
}

/// Whether a text is a W3C trace parent: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero; later versions may be longer.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return false };
    hex(version, 2)
        && *version != "ff"
        && (rest.is_empty() || *version != "00")
        && hex(trace, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && trace.bytes().any(|b| b != b'0')
        && parent.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn context(message: MessageBuilder) -> Context {
        Context::new(message.build().into(), 1, Arc::default(), None)
    }

    #[test]
    fn correlation_causation_and_trace_are_carried_on() {
        let first =
            context(Message::builder().header(wire::TRACEPARENT, PARENT).header(wire::TRACESTATE, "a=b"));
        let second = first.derive(Message::builder().key("k")).build();
        assert_eq!(second.headers.get_str(wire::CORRELATION_ID), Some(&*first.event().id().to_string()));
        assert_eq!(second.headers.get_str(wire::CAUSATION_ID), Some(&*first.event().id().to_string()));
        assert_eq!(second.headers.get_str(wire::TRACEPARENT), Some(PARENT));
        assert_eq!(second.headers.get_str(wire::TRACESTATE), Some("a=b"));
        let id = second.id.to_string();
        let second = Context::new(second.into(), 1, Arc::default(), None);
        let third = second.derive(Message::builder()).build();
        assert_eq!(third.headers.get_str(wire::CORRELATION_ID), Some(&*first.event().id().to_string()));
        assert_eq!(third.headers.get_str(wire::CAUSATION_ID), Some(&*id));
    }

    #[test]
    fn a_trace_context_that_is_not_valid_goes_no_further() {
        for bad in [
            "",
            "00",
            "00-0-0-0",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-x"),
            &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
        ] {
            let cx =
                context(Message::builder().header(wire::TRACEPARENT, bad).header(wire::TRACESTATE, "a=b"));
            let next = cx.derive(Message::builder()).build();
            assert_eq!(next.headers.get(wire::TRACEPARENT), None, "{bad}");
            assert_eq!(next.headers.get(wire::TRACESTATE), None);
        }
    }

    #[tokio::test]
    async fn publishing_without_a_bus_gives_the_message_back() {
        let cx = context(Message::builder());
        let topic = ropeway_broker::Topic::new("t").unwrap();
        let failed = cx.publish(topic, Message::builder().payload("p").build()).await.unwrap_err();
        assert_eq!(failed.failed.error.kind(), ErrorKind::Unsupported);
        assert!(failed.failed.message.payload.is_some() && !failed.may_be_written);
    }
}
