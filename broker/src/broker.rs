//! The contract of the bus.
//!
//! Object-safe traits, few required methods, batches across the seam. Comfort lives above it: [`Publisher`](crate::Publisher)
//! and the extension traits of `ext.rs`. Consuming is in `consume.rs`, following without a group in `read.rs`,
//! administration in `admin.rs`. A promise here has a check in `conformance/`.

use crate::{
    Admin, Capabilities, Consumer, Health, Message, Outcomes, Part, Reader, Result, Statistics, Subscription,
    Target,
};
use futures::future::BoxFuture;
use std::{fmt::Debug, sync::Arc, time::Duration};

/// The answer to a call.
///
/// The call itself takes over what is asked: calls of one kind keep their order, and dropping the answer takes nothing back; where a call says that it is done
/// only while its answer is polled, that holds from the answer on.
pub type Answer<T> = BoxFuture<'static, T>;

/// A message bus: the centre of the platform.
///
/// # For users
/// Get one from [`connect`](crate::connect). Publish with a [`Publisher`](crate::Publisher), consume with
/// `ropeway-processor`; both work over any `Arc<dyn MessageBroker>`. All calls need a running tokio runtime with its timer on.
///
/// # For backends and wrappers
/// Implement every method; a wrapper (`wrap/`) passes on what it does not change. The conformance suite decides
/// whether a promise is kept. Nothing may be silently missing: what cannot be done answers
/// [`Unsupported`](crate::ErrorKind::Unsupported) and names itself.
pub trait MessageBroker: Debug + Send + Sync + 'static {
    /// What one can rely on beyond the contract. Constant for the life of the broker.
    fn capabilities(&self) -> Capabilities;

    /// Publishes a batch to one topic.
    ///
    /// **Answers** within the publish deadline (30 s unless the backend's URL says otherwise), with exactly one outcome per message in
    /// the batch's order; there is no other way to fail. Each message is in the log whole or not at all; the others
    /// of its batch do not depend on it: one that is too large is given back and the rest is written.
    ///
    /// **Order**: acked messages of equal key lie in the order of the calls and of their batch, for calls made by one task or
    /// ordered by it; so do all messages for one partition of one's own choice. Many calls may be in flight. Other messages without key, and
    /// delayed ones, have no order.
    ///
    /// **Other calls** find it written when it is answered. While it is open, a call of another kind (a forward, one that changes topics
    /// or groups) may take effect before it.
    ///
    /// **Dropping the answer** takes nothing back: the batch is written as if somebody waited.
    ///
    /// **Bounded**: a backend that cannot take more in answers *not written* (`Throttled`); it never buffers without limit. After
    /// [`Self::close`]: *not written* (`Closed`). An empty batch answers an empty list.
    fn publish(&self, to: &Target, batch: Vec<Message>) -> Answer<Outcomes>;

    /// Publishes a batch that its caller keeps, in parts that are answered apart: who waits for one part of the log need not wait for another. Made for a
    /// [`Publisher`](crate::Publisher), which publishes the next messages when the first ones are answered.
    ///
    /// What is promised of [`Self::publish`] holds here, of the whole batch: it is one call. Each message is in exactly one part; what is not acked
    /// is given back as a copy. By itself there is one part, and [`Self::publish`] has copies of the messages.
    fn publish_in_parts(&self, to: &Target, batch: &Arc<Vec<Message>>) -> Vec<Part> {
        vec![Part::whole(batch.len(), self.publish(to, batch.to_vec()))]
    }

    /// Joins a group.
    ///
    /// Answers within 30 s, when the group knows the member; the first event tells what was assigned, which may be nothing. A dropped
    /// answer leaves no member behind.
    ///
    /// # Errors
    /// `NotFound` names the topic that does not exist; `Invalid` what is wrong with the subscription; `Closed` after close.
    fn subscribe(&self, subscription: Subscription) -> Answer<Result<Box<dyn Consumer>>>;

    /// A reader that follows nothing yet. It sees every message of what it follows and leaves nothing behind on the broker.
    ///
    /// # Errors
    /// `Closed` after close; `Unavailable` where no connection can be had.
    fn read(&self) -> Answer<Result<Box<dyn Reader>>>;

    /// Topics and groups.
    fn admin(&self) -> &dyn Admin;

    /// Asks the backend whether it works, by a real request. Answers within 5 s.
    fn health(&self) -> Answer<Health>;

    /// Counters since the broker was opened. Cheap.
    fn statistics(&self) -> Statistics;

    /// Ends within the deadline: every publish taken over before is answered, every consumer gives up what it owns (acks given
    /// before take effect) and ends, every reader ends. From the call on, every other call answers `Closed`. Twice is once.
    fn close(&self, deadline: Duration) -> Answer<()>;
}
